//! Liveness: after every fault was healed, every transaction has ended, and nothing is locked or staged.
//!
//! Works on the `final-state` document alone; that somebody waited long enough before writing it is the promise of
//! whoever wrote it. Where transactions have the ids of marks, their endings are compared with what the clients were
//! told.

use std::collections::{BTreeMap, HashMap};

use crate::action::Action;
use crate::document::{Document, Ending, FinalState};
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Checker, Name, Report};

/// Checks the last state of the history.
#[must_use]
pub fn check(history: &History) -> Report {
    let state = history.documents.iter().rev().find_map(|document| match document {
        Document::FinalState(state) => Some(state),
        _ => None,
    });
    let Some(state) = state else { return Report::absent(Checker::Liveness) };
    let marks: HashMap<&str, &Operation> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Mark(mark) => Some((mark.id.as_str(), operation)),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    endings(state, &marks, &mut found);
    left(&state.locked, Name::LeftLocked, "locked", &mut found);
    left(&state.staged, Name::LeftStaged, "staged", &mut found);
    let entries = state.locked.len() + state.staged.len() + state.transactions.len();
    Report::of(Checker::Liveness, entries, found)
}

fn endings(state: &FinalState, marks: &HashMap<&str, &Operation>, found: &mut Vec<Anomaly>) {
    for transaction in &state.transactions {
        let (id, operation) = (&transaction.id, marks.get(transaction.id.as_str()).copied());
        let told = operation.map(|operation| &operation.outcome);
        let (name, detail) = match (transaction.ending, told) {
            (Ending::Open, _) => (Name::Unfinished, format!("{id} has not ended")),
            (Ending::Aborted, Some(Outcome::Ok(..))) => {
                (Name::FalseAnswer, format!("{id} is aborted; its client was told committed"))
            }
            (Ending::Committed, Some(Outcome::Fail(_))) => {
                (Name::FalseAnswer, format!("{id} is committed; its client was told aborted"))
            }
            (Ending::Committed | Ending::Aborted, _) => continue,
        };
        found.push(Anomaly::new(name, operation, detail));
    }
}

fn left(
    by_participant: &BTreeMap<String, Vec<String>>,
    name: Name,
    how: &str,
    found: &mut Vec<Anomaly>,
) {
    for (participant, what) in by_participant {
        for one in what {
            found.push(Anomaly::new(name, None, format!("{participant}: {one} is still {how}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::testing::history;

    fn names(told: &str, ending: &str, locked: &str, staged: &str) -> Vec<&'static str> {
        let mark = r#"{"id":"t","branches":["a","b"]}"#;
        let state = format!(
            r#"! final-state {{"transactions":[{{"id":"t","ending":"{ending}"}}],"locked":{{"a":{locked}}},"staged":{{"a":{staged}}}}}"#
        );
        let lines = [format!("0 invoke mark {mark}"), format!("0 {told} mark {mark}"), state];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        check(&history(&lines)).names()
    }

    #[test]
    fn rest_is_rest() {
        for (told, ending) in
            [("ok", "committed"), ("fail", "aborted"), ("info", "committed"), ("info", "aborted")]
        {
            assert!(names(told, ending, "[]", "[]").is_empty(), "{told} {ending}");
        }
    }

    #[test]
    fn whatever_is_left_is_found() {
        assert_eq!(names("info", "open", "[]", "[]"), ["unfinished"]);
        assert_eq!(names("ok", "committed", "[\"k\"]", "[]"), ["left-locked"]);
        assert_eq!(names("ok", "committed", "[]", "[\"t\"]"), ["left-staged"]);
        assert_eq!(names("ok", "aborted", "[]", "[]"), ["false-answer"]);
        assert_eq!(names("fail", "committed", "[]", "[]"), ["false-answer"]);
    }

    #[test]
    fn no_state_is_no_verdict() {
        assert_eq!(check(&history(&[])).verdict, Verdict::Absent);
    }
}
