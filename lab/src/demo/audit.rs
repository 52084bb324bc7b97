//! The audit: what the clients were told against what plain Redis clients see. Pure;
//! [`super::probe`] looks.

use std::collections::BTreeSet;

use super::bank::{Bank, OPENING_BALANCE};
use super::clients::{Entry, Ledger, Told};
use super::probe::{Control, Holdings};

/// Everything that is wrong; empty is clean.
pub(super) fn audit(
    bank: &Bank,
    ledger: &Ledger,
    holdings: &[Holdings],
    control: &[Control],
) -> Vec<String> {
    let mut findings = Vec::new();
    for (place, control) in control.iter().enumerate() {
        let name = &bank.participants[place];
        findings
            .extend(control.staged.iter().map(|txid| format!("{name}: {txid} is still staged")));
        findings.extend(control.locked.iter().map(|key| format!("{name}: {key} is still locked")));
    }
    let mut expected = i64::try_from(bank.customers).unwrap_or(i64::MAX) * 2 * OPENING_BALANCE;
    for entry in &ledger.entries {
        let applied = applied_at(entry, holdings);
        if applied.len() == entry.writes_at.len() {
            expected += entry.delta;
        }
        findings.extend(judge(bank, entry, &applied));
    }
    let known: BTreeSet<&str> = ledger.entries.iter().map(|entry| entry.key.as_str()).collect();
    for (place, held) in holdings.iter().enumerate() {
        let name = &bank.participants[place];
        let strangers = held.markers.iter().filter(|key| !known.contains(key.as_str()));
        findings.extend(
            strangers.map(|key| format!("{name}: {key} applied, and no client asked for it")),
        );
        let debts = held.balances.iter().filter(|(_, balance)| **balance < 0);
        findings.extend(debts.map(|(account, balance)| format!("{name}: {account} is {balance}")));
    }
    let total: i64 = holdings.iter().flat_map(|held| held.balances.values()).sum();
    if total != expected {
        findings.push(format!("the accounts hold {total}; they should hold {expected}"));
    }
    findings
}

/// The money in all accounts.
pub(super) fn total(holdings: &[Holdings]) -> i64 {
    holdings.iter().flat_map(|held| held.balances.values()).sum()
}

fn applied_at(entry: &Entry, holdings: &[Holdings]) -> Vec<usize> {
    let applied = |place: &&usize| holdings[**place].markers.contains(&entry.key);
    entry.writes_at.iter().filter(applied).copied().collect()
}

fn judge(bank: &Bank, entry: &Entry, applied: &[usize]) -> Option<String> {
    let all = entry.writes_at.len();
    let names = |places: &[usize]| {
        let names: Vec<&str> =
            places.iter().map(|place| bank.participants[*place].as_str()).collect();
        names.join(", ")
    };
    let wrong = match (&entry.told, applied.len()) {
        (_, some) if some != 0 && some != all => {
            format!("applied at {} and not at all of {}", names(applied), names(&entry.writes_at))
        }
        (Told::Committed, 0) => {
            format!("said to be committed, applied nowhere of {}", names(&entry.writes_at))
        }
        (Told::Aborted(code), some) if some > 0 => {
            format!("said to be aborted ({code}), applied at {}", names(applied))
        }
        (Told::Rejected(why), some) if some > 0 => {
            format!("said not to be taken ({why}), applied at {}", names(applied))
        }
        (Told::Rejected(why), _) => format!("not taken: {why}"),
        (Told::Unknown(why), _) => format!("its outcome was never told: {why}"),
        (Told::Committed | Told::Aborted(_), _) => return None,
    };
    let id = entry.id.as_deref().unwrap_or("no id");
    Some(format!("{} ({id}): {wrong}", entry.key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hdrhistogram::Histogram;

    use super::*;

    fn world(told: Told, marked: [bool; 2], balances: [i64; 2]) -> Vec<String> {
        let participants = ["a", "b"].map(|name| name.parse().unwrap()).to_vec();
        let bank = Bank { participants, customers: 1 };
        let entry = Entry { key: "k".to_owned(), id: None, writes_at: vec![0, 1], delta: 5, told };
        let ledger = Ledger {
            entries: vec![entry],
            committed: 0,
            read_only: 0,
            aborted: BTreeMap::new(),
            resolved: 0,
            latency_us: Histogram::new(3).unwrap(),
        };
        let holdings = [0, 1].map(|place| Holdings {
            balances: [(format!("x:{place}"), balances[place])].into(),
            markers: marked[place].then(|| "k".to_owned()).into_iter().collect(),
        });
        let control = [Control::default(), Control::default()];
        audit(&bank, &ledger, &holdings, &control)
    }

    #[test]
    fn what_was_told_and_done_is_clean() {
        assert_eq!(world(Told::Committed, [true, true], [1_000, 1_005]), Vec::<String>::new());
        let aborted = Told::Aborted("timeout".to_owned());
        assert_eq!(world(aborted, [false, false], [1_000, 1_000]), Vec::<String>::new());
    }

    #[test]
    fn each_lie_is_found() {
        let aborted = || Told::Aborted("timeout".to_owned());
        for (told, marked, balances, finding) in [
            (Told::Committed, [true, false], [1_000, 1_000], "applied at a and not at all of a, b"),
            (Told::Committed, [false, false], [1_000, 1_000], "applied nowhere"),
            (
                aborted(),
                [true, true],
                [1_000, 1_005],
                "said to be aborted (timeout), applied at a, b",
            ),
            (aborted(), [false, false], [1_000, 1_001], "the accounts hold 2001"),
            (aborted(), [false, false], [-1, 2_001], "x:0 is -1"),
            (Told::Unknown("gone".to_owned()), [true, true], [1_000, 1_005], "never told: gone"),
        ] {
            let findings = world(told, marked, balances);
            assert!(findings.iter().any(|one| one.contains(finding)), "{finding}: {findings:?}");
        }
    }
}
