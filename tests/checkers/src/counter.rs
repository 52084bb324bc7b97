//! Counters: every confirmed increment counts once, a failed one never, an indeterminate one once or never.
//!
//! Where the audit also found the ids of the increments that were applied, this is exact for each of them; else for the
//! sum, within what the indeterminate ones may make of it. Readings along the way must lie between what was confirmed
//! before they began and what was asked for before they ended.

use std::collections::{BTreeMap, HashMap};

use crate::action::{Action, Add, Count};
use crate::document::{Document, FinalCount};
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Checker, Name, Report};

/// Checks the counters of the history.
#[must_use]
pub fn check(history: &History) -> Report {
    let adds: Vec<(&Operation, &Add)> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Add(add) => Some((operation, add)),
            _ => None,
        })
        .collect();
    let counts: Vec<(&Operation, &Count)> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.outcome {
            Outcome::Ok(_, Action::Count(count)) => Some((operation, count)),
            _ => None,
        })
        .collect();
    let end = history.documents.iter().rev().find_map(|document| match document {
        Document::FinalCounts(counts) => Some(counts),
        _ => None,
    });
    let examined = adds.len() + counts.len() + end.map_or(0, BTreeMap::len);
    if examined == 0 {
        return Report::absent(Checker::Counter);
    }
    let mut ids = HashMap::new();
    for (_, add) in &adds {
        if ids.insert(add.id.as_str(), ()).is_some() {
            let why = format!("two increments have the id {}", add.id);
            return Report::unknown(Checker::Counter, examined, why);
        }
    }
    let Some(end) = end else {
        return Report::unknown(Checker::Counter, examined, "there is no final-counts");
    };
    let mut found = Vec::new();
    let mut by_counter: BTreeMap<&str, Vec<(&Operation, &Add)>> = BTreeMap::new();
    for (operation, add) in adds {
        by_counter.entry(&add.counter).or_default().push((operation, add));
    }
    for counter in end.keys() {
        by_counter.entry(counter).or_default();
    }
    let mut readings: HashMap<&str, Vec<(&Operation, &Count)>> = HashMap::new();
    for (operation, count) in counts {
        readings.entry(&count.counter).or_default().push((operation, count));
        by_counter.entry(&count.counter).or_default();
    }
    let nothing = FinalCount { value: 0, ids: None, at_least: None };
    for (counter, adds) in by_counter {
        let sums = Sums::of(&adds);
        let held = end.get(counter).unwrap_or(&nothing);
        for (operation, count) in readings.remove(counter).unwrap_or_default() {
            reading(operation, count, &sums, &mut found);
            bounded(counter, count.value.unwrap_or(0), held.at_least, [operation], &mut found);
        }
        bounded(counter, held.value, held.at_least, None, &mut found);
        match &held.ids {
            Some(ids) => exactly(counter, held.value, ids, &adds, &mut found),
            None => within(counter, held.value, &adds, &mut found),
        }
    }
    Report::of(Checker::Counter, examined, found)
}

/// The least and the most that these increments can make.
#[derive(Default)]
struct Bounds {
    least: i128,
    most: i128,
}

impl Bounds {
    fn sure(&mut self, by: i64) {
        self.least += i128::from(by);
        self.most += i128::from(by);
    }

    fn maybe(&mut self, by: i64) {
        self.least += i128::from(by.min(0));
        self.most += i128::from(by.max(0));
    }

    /// What is wrong with this value.
    fn judge(&self, value: i64) -> Option<Name> {
        if i128::from(value) < self.least {
            Some(Name::LostIncrement)
        } else {
            (i128::from(value) > self.most).then_some(Name::DoubleIncrement)
        }
    }
}

/// What the increments before each moment make.
struct Sums {
    /// Of the confirmed ones, by when they ended.
    ended: Running,
    /// Of all that may have taken effect, by when they began.
    begun: Running,
}

/// Sums of what has happened up to each moment: of all, of what is below zero, and of what is above.
struct Running(Vec<(u64, [i128; 3])>);

impl Running {
    fn of(mut moments: Vec<(u64, i64)>) -> Self {
        moments.sort_unstable();
        let mut sum = [0; 3];
        let add = |(moment, by): (u64, i64)| {
            for (sum, by) in sum.iter_mut().zip([by, by.min(0), by.max(0)]) {
                *sum += i128::from(by);
            }
            (moment, sum)
        };
        Self(moments.into_iter().map(add).collect())
    }

    fn before(&self, moment: u64) -> [i128; 3] {
        let count = self.0.partition_point(|(happened, _)| *happened < moment);
        count.checked_sub(1).map_or([0; 3], |last| self.0[last].1)
    }
}

impl Sums {
    fn of(adds: &[(&Operation, &Add)]) -> Self {
        let ended = adds.iter().filter_map(|(one, add)| Some((one.ok_at()?, add.by))).collect();
        let begun = adds.iter().filter(|(one, _)| !one.failed());
        let begun = begun.map(|(one, add)| (one.invoked.index, add.by)).collect();
        Self { ended: Running::of(ended), begun: Running::of(begun) }
    }

    /// What a reading between these moments may show.
    fn bounds(&self, began: u64, ended: u64) -> Bounds {
        let [sure, sure_below, sure_above] = self.ended.before(began);
        let [_, below, above] = self.begun.before(ended);
        Bounds { least: sure + below - sure_below, most: sure + above - sure_above }
    }
}

fn reading(operation: &Operation, count: &Count, sums: &Sums, found: &mut Vec<Anomaly>) {
    let Some(ended) = operation.ok_at() else { return };
    let value = count.value.unwrap_or(0);
    let bounds = sums.bounds(operation.invoked.index, ended);
    if let Some(name) = bounds.judge(value) {
        let detail = format!(
            "{} was read as {value}; what had ended and begun by then makes it {} to {}",
            count.counter, bounds.least, bounds.most
        );
        found.push(Anomaly::new(name, [operation], detail));
    }
}

fn bounded<'a>(
    counter: &str,
    value: i64,
    at_least: Option<i64>,
    operation: impl IntoIterator<Item = &'a Operation>,
    found: &mut Vec<Anomaly>,
) {
    if let Some(bound) = at_least.filter(|bound| value < *bound) {
        let detail = format!("{counter} is {value}; every increment was to leave {bound} at least");
        found.push(Anomaly::new(Name::BelowBound, operation, detail));
    }
}

fn within(counter: &str, value: i64, adds: &[(&Operation, &Add)], found: &mut Vec<Anomaly>) {
    let mut bounds = Bounds::default();
    for (operation, add) in adds {
        match operation.outcome {
            Outcome::Ok(..) => bounds.sure(add.by),
            Outcome::Fail(_) => {}
            Outcome::Unknown => bounds.maybe(add.by),
        }
    }
    if let Some(name) = bounds.judge(value) {
        let detail = format!(
            "{counter} is {value} at the end; its increments make it {} to {}",
            bounds.least, bounds.most
        );
        found.push(Anomaly::new(name, None, detail));
    }
}

fn exactly(
    counter: &str,
    value: i64,
    ids: &[String],
    adds: &[(&Operation, &Add)],
    found: &mut Vec<Anomaly>,
) {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for id in ids {
        *times.entry(id).or_default() += 1;
    }
    let mut sum = 0_i128;
    for (operation, add) in adds {
        let times = times.remove(add.id.as_str()).unwrap_or(0);
        sum += i128::from(add.by) * i128::try_from(times).unwrap_or(i128::MAX);
        let name = match (&operation.outcome, times) {
            (_, 2..) => Name::DoubleIncrement,
            (Outcome::Ok(..), 0) => Name::LostIncrement,
            (Outcome::Fail(_), 1) => Name::AbortedIncrement,
            _ => continue,
        };
        let detail = format!("increment {} is {times} times in {counter}", add.id);
        found.push(Anomaly::new(name, [*operation], detail));
    }
    for (id, times) in &times {
        let detail = format!("{counter} has {id} {times} times, which no client asked for");
        found.push(Anomaly::new(Name::Stranger, None, detail));
    }
    if times.is_empty() && sum != i128::from(value) {
        let detail = format!("{counter} is {value}; the increments that are in it make {sum}");
        found.push(Anomaly::new(Name::WrongSum, None, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::testing::history;

    /// Three increments by 1, 10 and 100: told ok, fail and nothing.
    fn names(more: &[&str]) -> Vec<&'static str> {
        let add = |id: &str, by: i64, told: &str| {
            let value = format!(r#"{{"counter":"c","id":"{id}","by":{by}}}"#);
            [format!("0 invoke add {value}"), format!("0 {told} add {value}")]
        };
        let adds = [add("one", 1, "ok"), add("two", 10, "fail"), add("three", 100, "info")];
        let mut lines: Vec<&str> = adds.iter().flatten().map(String::as_str).collect();
        lines.extend(more);
        check(&history(&lines)).names()
    }

    #[test]
    fn sums_lie_within_what_was_told() {
        for (value, expected) in [
            (1, None),
            (101, None),
            (0, Some("lost-increment")),
            (102, Some("double-increment")),
            (201, Some("double-increment")),
        ] {
            let end = format!(r#"! final-counts {{"c":{{"value":{value}}}}}"#);
            assert_eq!(names(&[&end]), expected.into_iter().collect::<Vec<_>>(), "{value}");
        }
    }

    #[test]
    fn with_ids_it_is_exact() {
        for (value, ids, expected) in [
            (1, r#"["one"]"#, vec![]),
            (101, r#"["three","one"]"#, vec![]),
            (100, r#"["three"]"#, vec!["lost-increment"]),
            (2, r#"["one","one"]"#, vec!["double-increment"]),
            (201, r#"["one","three","three"]"#, vec!["double-increment"]),
            (11, r#"["one","two"]"#, vec!["aborted-increment"]),
            (1, r#"["one","four"]"#, vec!["stranger"]),
            (2, r#"["one"]"#, vec!["wrong-sum"]),
        ] {
            let end = format!(r#"! final-counts {{"c":{{"value":{value},"ids":{ids}}}}}"#);
            assert_eq!(names(&[&end]), expected, "{value} {ids}");
        }
    }

    #[test]
    fn readings_lie_between_the_ended_and_the_begun() {
        let end = r#"! final-counts {"c":{"value":1}}"#;
        for (value, expected) in [
            (1, None),
            (101, None),
            (0, Some("lost-increment")),
            (11, None),
            (102, Some("double-increment")),
        ] {
            let answer = format!(r#"1 ok count {{"counter":"c","value":{value}}}"#);
            let lines = [r#"1 invoke count {"counter":"c","value":null}"#, &answer, end];
            assert_eq!(names(&lines), expected.into_iter().collect::<Vec<_>>(), "{value}");
        }
    }

    #[test]
    fn a_bound_holds_for_every_reading_and_at_the_end() {
        for (bound, reading, end, expected) in
            [(1, 1, 1, vec![]), (2, 101, 1, vec!["below-bound"]), (2, 1, 101, vec!["below-bound"])]
        {
            let end = format!(r#"! final-counts {{"c":{{"value":{end},"at_least":{bound}}}}}"#);
            let answer = format!(r#"1 ok count {{"counter":"c","value":{reading}}}"#);
            let lines = [r#"1 invoke count {"counter":"c","value":null}"#, &answer, &end];
            assert_eq!(names(&lines), expected, "{bound} {reading}");
        }
    }

    #[test]
    fn without_an_end_nothing_is_said() {
        let lines = [r#"0 invoke add {"counter":"c","id":"x","by":1}"#];
        let report = check(&history(&lines));
        assert!(matches!(report.verdict, Verdict::Unknown { .. }), "{report}");
        // A counter that is not there at the end is 0.
        let lost = [lines[0], r#"0 ok add {"counter":"c","id":"x","by":1}"#, "! final-counts {}"];
        assert_eq!(check(&history(&lost)).names(), ["lost-increment"]);
    }
}
