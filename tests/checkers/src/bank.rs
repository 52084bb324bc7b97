//! The bank: transfers make and lose no money, in every snapshot and at the end.
//!
//! Needs the opening balances. Each read-only transaction over all accounts must show the opening total and no account
//! below zero, whatever ran beside it. At the end every account must be what its confirmed transfers made it, give or
//! take the indeterminate ones.

use std::collections::BTreeMap;

use crate::action::{Action, Transfer};
use crate::document::Document;
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Checker, Name, Report};

type Balances = BTreeMap<String, i64>;

/// Checks the bank of the history.
#[must_use]
pub fn check(history: &History) -> Report {
    let bank: Vec<&Operation> = history
        .operations
        .iter()
        .filter(|one| matches!(one.action, Action::Transfer(_) | Action::Balances(_)))
        .collect();
    let opening = history.documents.iter().find_map(|document| match document {
        Document::OpeningBalances(balances) => Some(balances),
        _ => None,
    });
    let ends: Vec<&Balances> = history
        .documents
        .iter()
        .filter_map(|document| match document {
            Document::FinalBalances(balances) => Some(balances),
            _ => None,
        })
        .collect();
    let examined = bank.len() + ends.len();
    let Some(opening) = opening else {
        return if examined == 0 {
            Report::absent(Checker::Bank)
        } else {
            Report::unknown(Checker::Bank, examined, "there is no opening-balances")
        };
    };
    let mut anomalies = Vec::new();
    let mut looked = !ends.is_empty();
    for operation in &bank {
        if let Outcome::Ok(_, Action::Balances(Some(balances))) = &operation.outcome {
            looked = true;
            snapshot(opening, balances, Some(operation), &mut anomalies);
        }
    }
    for balances in ends {
        snapshot(opening, balances, None, &mut anomalies);
        accounts(opening, balances, &bank, &mut anomalies);
    }
    if !looked {
        let why = "there is neither a read of the balances nor a final-balances";
        return Report::unknown(Checker::Bank, examined, why);
    }
    Report::of(Checker::Bank, examined, anomalies)
}

fn total(balances: &Balances) -> i128 {
    balances.values().copied().map(i128::from).sum()
}

fn snapshot(
    opening: &Balances,
    balances: &Balances,
    read: Option<&Operation>,
    found: &mut Vec<Anomaly>,
) {
    let at = read.map_or("at the end", |_| "in this snapshot");
    if !opening.keys().eq(balances.keys()) {
        let detail = format!(
            "the accounts {at} are {:?}, and were {:?}",
            balances.keys().collect::<Vec<_>>(),
            opening.keys().collect::<Vec<_>>()
        );
        found.push(Anomaly::new(Name::WrongAccounts, read, detail));
    }
    let (was, is) = (total(opening), total(balances));
    if was != is {
        let detail = format!("the total {at} is {is}, and was {was}: {:+}", is - was);
        found.push(Anomaly::new(Name::WrongTotal, read, detail));
    }
    for (account, balance) in balances.iter().filter(|(_, balance)| **balance < 0) {
        let detail = format!("{account} {at} is {balance}");
        found.push(Anomaly::new(Name::Overdraft, read, detail));
    }
}

/// What each account can hold at the end, by the transfers.
fn accounts(
    opening: &Balances,
    balances: &Balances,
    bank: &[&Operation],
    found: &mut Vec<Anomaly>,
) {
    let mut least: BTreeMap<&str, i128> =
        opening.iter().map(|(account, balance)| (account.as_str(), i128::from(*balance))).collect();
    let mut most = least.clone();
    for operation in bank {
        let Action::Transfer(Transfer { from, to, amount }) = &operation.action else { continue };
        let parts = [(from, -i128::from(*amount)), (to, i128::from(*amount))];
        for (account, change) in parts {
            let (down, up) = match operation.outcome {
                Outcome::Ok(..) => (change, change),
                Outcome::Fail(_) => (0, 0),
                Outcome::Unknown => (change.min(0), change.max(0)),
            };
            *least.entry(account).or_default() += down;
            *most.entry(account).or_default() += up;
        }
    }
    for (account, balance) in balances {
        let bounds = (
            least.get(account.as_str()).copied().unwrap_or_default(),
            most.get(account.as_str()).copied().unwrap_or_default(),
        );
        let is = i128::from(*balance);
        if is < bounds.0 || is > bounds.1 {
            let detail = format!(
                "{account} is {is} at the end; its transfers make it {} to {}",
                bounds.0, bounds.1
            );
            found.push(Anomaly::new(Name::WrongBalance, None, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::testing::history;

    const OPEN: &str = r#"! opening-balances {"a":10,"b":10}"#;
    const PAY: [&str; 2] = [
        r#"0 invoke transfer {"from":"a","to":"b","amount":3}"#,
        r#"0 ok transfer {"from":"a","to":"b","amount":3}"#,
    ];

    fn names(lines: &[&str]) -> Vec<&'static str> {
        check(&history(lines)).names()
    }

    fn read(answer: &str) -> [&str; 2] {
        ["1 invoke balances null", answer]
    }

    #[test]
    fn a_snapshot_has_the_opening_total() {
        let good = read(r#"1 ok balances {"a":7,"b":13}"#);
        let lost = read(r#"1 ok balances {"a":7,"b":10}"#);
        let below = read(r#"1 ok balances {"a":-1,"b":21}"#);
        let gone = read(r#"1 ok balances {"a":20}"#);
        assert!(names(&[&[OPEN], &PAY[..], &good].concat()).is_empty());
        assert_eq!(names(&[&[OPEN], &PAY[..], &lost].concat()), ["wrong-total"]);
        assert_eq!(names(&[&[OPEN], &PAY[..], &below].concat()), ["overdraft"]);
        assert_eq!(names(&[&[OPEN], &PAY[..], &gone].concat()), ["wrong-accounts"]);
    }

    #[test]
    fn the_end_is_what_the_transfers_made() {
        let end = |text| [&[OPEN], &PAY[..], &[text]].concat();
        assert!(names(&end(r#"! final-balances {"a":7,"b":13}"#)).is_empty());
        // The total is right, and a confirmed transfer is lost.
        assert_eq!(names(&end(r#"! final-balances {"a":10,"b":10}"#)), ["wrong-balance"]);
        // The money was taken and never arrived.
        let torn = names(&end(r#"! final-balances {"a":7,"b":10}"#));
        assert_eq!(torn, ["wrong-balance", "wrong-total"]);
    }

    #[test]
    fn an_indeterminate_transfer_may_count_and_a_failed_one_may_not() {
        let told = |how: &str| PAY[1].replace("ok", how);
        for (how, good) in [("info", true), ("fail", false)] {
            let told = told(how);
            let lines = [OPEN, PAY[0], &told, r#"! final-balances {"a":7,"b":13}"#];
            assert_eq!(names(&lines).is_empty(), good, "{how}");
            let lines = [OPEN, PAY[0], &told, r#"! final-balances {"a":10,"b":10}"#];
            assert!(names(&lines).is_empty(), "{how}");
        }
    }

    #[test]
    fn without_an_opening_or_a_look_nothing_is_said() {
        for lines in [&PAY[..], &[OPEN, PAY[0], PAY[1]]] {
            let report = check(&history(lines));
            assert!(matches!(report.verdict, Verdict::Unknown { .. }), "{report}");
        }
        assert_eq!(check(&history(&[])).verdict, Verdict::Absent);
    }
}
