//! The atomicity audit: every transaction leaves its id in each of its branches; it is in all of them or in none.
//!
//! `ok` must be in all, `fail` in none, and one whose client was told nothing in all or none. Nothing may be there twice,
//! and nothing that nobody asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::action::{Action, Mark};
use crate::document::Document;
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Checker, Name, Report};

/// Checks the marks of the history.
#[must_use]
pub fn check(history: &History) -> Report {
    let marks: Vec<(&Operation, &Mark)> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Mark(mark) => Some((operation, mark)),
            _ => None,
        })
        .collect();
    let end = history.documents.iter().rev().find_map(|document| match document {
        Document::FinalMarks(marks) => Some(marks),
        _ => None,
    });
    let Some(end) = end else {
        return if marks.is_empty() {
            Report::absent(Checker::Atomicity)
        } else {
            Report::unknown(Checker::Atomicity, marks.len(), "there is no final-marks")
        };
    };
    let mut ids = BTreeSet::new();
    for (_, mark) in &marks {
        let missing = mark.branches.iter().find(|branch| !end.contains_key(*branch));
        let why = if !ids.insert(mark.id.as_str()) {
            format!("two transactions have the id {}", mark.id)
        } else if let Some(branch) = missing {
            format!("final-marks says nothing of {branch}")
        } else {
            continue;
        };
        return Report::unknown(Checker::Atomicity, marks.len(), why);
    }
    let mut found = Vec::new();
    let mut held = held(end);
    for (operation, mark) in &marks {
        judge(operation, mark, held.remove(mark.id.as_str()).unwrap_or_default(), &mut found);
    }
    let mut strangers: Vec<_> = held.into_iter().collect();
    strangers.sort_unstable();
    for (id, branches) in strangers {
        let branches: Vec<_> = branches.into_keys().collect();
        let detail = format!("{} have {id}, which no client asked for", branches.join(", "));
        found.push(Anomaly::new(Name::Stranger, None, detail));
    }
    Report::of(Checker::Atomicity, marks.len(), found)
}

/// Where each id is, and how often.
fn held(end: &BTreeMap<String, Vec<String>>) -> HashMap<&str, BTreeMap<&str, usize>> {
    let mut held: HashMap<&str, BTreeMap<&str, usize>> = HashMap::new();
    for (branch, ids) in end {
        for id in ids {
            *held.entry(id).or_default().entry(branch).or_default() += 1;
        }
    }
    held
}

fn judge<'h>(
    operation: &Operation,
    mark: &'h Mark,
    mut held: BTreeMap<&'h str, usize>,
    found: &mut Vec<Anomaly>,
) {
    let Mark { id, branches } = mark;
    let mut push = |name, detail| found.push(Anomaly::new(name, [operation], detail));
    for (branch, times) in held.iter().filter(|(_, times)| **times > 1) {
        push(Name::DuplicateEffect, format!("{branch} has {id} {times} times"));
    }
    let (there, absent): (Vec<&str>, Vec<&str>) =
        branches.iter().map(String::as_str).partition(|branch| held.remove(branch).is_some());
    for branch in held.keys() {
        push(Name::Stranger, format!("{branch} has {id}, which was not to be there"));
    }
    if !there.is_empty() && !absent.is_empty() {
        let (there, absent) = (there.join(", "), absent.join(", "));
        push(Name::Torn, format!("{id} is in {there} and not in {absent}"));
        return;
    }
    match operation.outcome {
        Outcome::Ok(..) if there.is_empty() => {
            push(Name::LostTransaction, format!("{id} was committed, and is nowhere"));
        }
        Outcome::Fail(_) if !there.is_empty() => {
            push(Name::AbortedEffect, format!("{id} was aborted, and is everywhere"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::testing::history;

    const INVOKE: &str = r#"0 invoke mark {"id":"t","branches":["a","b"]}"#;

    fn names(told: &str, end: &str) -> Vec<&'static str> {
        let told = INVOKE.replace("invoke", told);
        let end = format!("! final-marks {end}");
        check(&history(&[INVOKE, &told, &end])).names()
    }

    #[test]
    fn all_or_none_as_it_was_told() {
        let (all, none, half) =
            (r#"{"a":["t"],"b":["t"]}"#, r#"{"a":[],"b":[]}"#, r#"{"a":["t"],"b":[]}"#);
        assert!(names("ok", all).is_empty());
        assert!(names("fail", none).is_empty());
        assert!(names("info", all).is_empty());
        assert!(names("info", none).is_empty());
        assert_eq!(names("ok", none), ["lost-transaction"]);
        assert_eq!(names("fail", all), ["aborted-effect"]);
        for told in ["ok", "fail", "info"] {
            assert_eq!(names(told, half), ["torn"]);
        }
    }

    #[test]
    fn twice_and_strangers_are_found() {
        assert_eq!(names("ok", r#"{"a":["t","t"],"b":["t"]}"#), ["duplicate-effect"]);
        assert_eq!(names("ok", r#"{"a":["t","u"],"b":["t"]}"#), ["stranger"]);
        assert_eq!(names("ok", r#"{"a":["t"],"b":["t"],"c":["t"]}"#), ["stranger"]);
    }

    #[test]
    fn an_audit_that_did_not_look_everywhere_says_nothing() {
        let told = INVOKE.replace("invoke", "ok");
        for lines in [&[INVOKE, &told][..], &[INVOKE, &told, r#"! final-marks {"a":["t"]}"#]] {
            let report = check(&history(lines));
            assert!(matches!(report.verdict, Verdict::Unknown { .. }), "{report}");
        }
    }
}
