//! Linearizability of each register, key by key.
//!
//! Just-in-time linearization (Lowe, after Wing and Gong): the history is walked once, and for each moment all
//! configurations are kept that explain what was answered so far. A configuration is the register's value and which of
//! the open operations have taken effect already. When an operation ends, every configuration must have let it take
//! effect; if none can, no order explains the answers. Keys are independent (linearizability is local), so that the
//! cost is one pass times the number of configurations, which grows with 2^(open operations of one key).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::action::{Action, RegisterOp, Scalar};
use crate::history::{History, Operation, Outcome};
use crate::report::{Anomaly, Checker, Name, Report};

/// How many configurations there may be at one moment.
pub const CONFIGURATIONS_MAX: usize = 200_000;
/// How many operations of one key may be open at one moment; indeterminate ones never close.
pub const OPEN_MAX: usize = 128;

/// Checks every register of the history.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut registers: BTreeMap<&Scalar, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if let Action::Register(key, _) = &operation.action {
            registers.entry(key).or_default().push(operation);
        }
    }
    if registers.is_empty() {
        return Report::absent(Checker::Register);
    }
    let examined = registers.values().map(Vec::len).sum();
    let (mut anomalies, mut unknown) = (Vec::new(), None);
    for (key, operations) in registers {
        match linearize(key, &operations) {
            Ok(None) => {}
            Ok(Some(anomaly)) => anomalies.push(anomaly),
            Err(why) => unknown = Some(why),
        }
    }
    match unknown {
        Some(why) if anomalies.is_empty() => Report::unknown(Checker::Register, examined, why),
        _ => Report::of(Checker::Register, examined, anomalies),
    }
}

/// What an operation does if it takes effect now; as answered, if it was.
fn effect(operation: &Operation) -> RegisterOp {
    match (&operation.outcome, &operation.action) {
        (Outcome::Ok(_, Action::Register(_, op)), _) | (_, Action::Register(_, op)) => *op,
        _ => RegisterOp::Read(None),
    }
}

/// The value after it; nothing if it cannot have taken effect at this value.
fn apply(op: RegisterOp, value: Option<i64>) -> Option<Option<i64>> {
    match op {
        RegisterOp::Read(seen) => (seen == value).then_some(value),
        RegisterOp::Write(new) => Some(Some(new)),
        RegisterOp::Cas(old, new) => (value == Some(old)).then_some(Some(new)),
    }
}

/// Leaves out what says nothing: operations that failed, reads that were not answered, and indeterminate writes of
/// values that nobody met. Such a write can be taken out of any order that explains the rest.
fn telling<'h>(operations: &[&'h Operation]) -> Vec<&'h Operation> {
    let met: BTreeSet<i64> = operations
        .iter()
        .filter_map(|operation| match (effect(operation), &operation.outcome) {
            (RegisterOp::Read(value), Outcome::Ok(..)) => value,
            (RegisterOp::Cas(old, _), Outcome::Ok(..) | Outcome::Unknown) => Some(old),
            _ => None,
        })
        .collect();
    let tells = |operation: &&&Operation| match (&operation.outcome, effect(operation)) {
        (Outcome::Ok(..), _) => true,
        (Outcome::Fail(_), _) | (Outcome::Unknown, RegisterOp::Read(_)) => false,
        (Outcome::Unknown, RegisterOp::Write(new) | RegisterOp::Cas(_, new)) => met.contains(&new),
    };
    operations.iter().filter(tells).copied().collect()
}

/// One explanation of everything so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Configuration {
    value: Option<i64>,
    /// The open operations that have taken effect, by their slot.
    done: u128,
}

fn linearize(key: &Scalar, operations: &[&Operation]) -> Result<Option<Anomaly>, String> {
    let operations = telling(operations);
    let mut moments: Vec<(u64, usize, bool)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        moments.push((operation.invoked.index, number, false));
        moments.extend(operation.ok_at().map(|end| (end, number, true)));
    }
    moments.sort_unstable();

    let mut slots: Vec<Option<usize>> = Vec::new();
    let mut configurations = HashSet::from([Configuration { value: None, done: 0 }]);
    for (_, number, ended) in moments {
        if !ended {
            let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
            if free == OPEN_MAX {
                return Err(format!("{key}: more than {OPEN_MAX} operations are open at once"));
            }
            slots.resize(slots.len().max(free + 1), None);
            slots[free] = Some(number);
            continue;
        }
        let slot = slots.iter().position(|open| *open == Some(number)).unwrap_or_default();
        let open: Vec<(usize, RegisterOp)> = slots
            .iter()
            .enumerate()
            .filter_map(|(slot, open)| open.map(|number| (slot, effect(operations[number]))))
            .collect();
        let next = after(&configurations, slot, &open)
            .ok_or_else(|| format!("{key}: more than {CONFIGURATIONS_MAX} configurations"))?;
        if next.is_empty() {
            let open = open.iter().filter_map(|(slot, _)| slots[*slot]).collect::<Vec<_>>();
            return Ok(Some(describe(key, &operations, number, &open, &configurations)));
        }
        configurations = next;
        slots[slot] = None;
    }
    Ok(None)
}

/// The configurations in which the operation of this slot has taken effect, with the slot free; nothing if there are too
/// many to look at.
fn after(
    configurations: &HashSet<Configuration>,
    slot: usize,
    open: &[(usize, RegisterOp)],
) -> Option<HashSet<Configuration>> {
    let bit = |slot: usize| 1_u128 << slot;
    let mut next = HashSet::new();
    let mut seen = configurations.clone();
    let mut stack: Vec<Configuration> = configurations.iter().copied().collect();
    while let Some(Configuration { value, done }) = stack.pop() {
        if done & bit(slot) != 0 {
            next.insert(Configuration { value, done: done & !bit(slot) });
            continue;
        }
        for &(other, op) in open.iter().filter(|(other, _)| done & bit(*other) == 0) {
            let Some(value) = apply(op, value) else { continue };
            let configuration = Configuration { value, done: done | bit(other) };
            if seen.insert(configuration) {
                stack.push(configuration);
            }
        }
        if seen.len() > CONFIGURATIONS_MAX {
            return None;
        }
    }
    Some(next)
}

fn describe(
    key: &Scalar,
    operations: &[&Operation],
    ended: usize,
    open: &[usize],
    configurations: &HashSet<Configuration>,
) -> Anomaly {
    let values: BTreeSet<_> = configurations
        .iter()
        .map(|one| one.value.map_or_else(|| "absent".to_owned(), |value| value.to_string()))
        .collect();
    let values: Vec<String> = values.into_iter().collect();
    let detail = format!(
        "{key} can only have been {} before what was open, none of which explains how the first of these ended",
        values.join(" or ")
    );
    let others = open.iter().filter(|number| **number != ended);
    let all = std::iter::once(&ended).chain(others).map(|number| operations[*number]);
    Anomaly::new(Name::NotLinearizable, all, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::history;

    fn names(lines: &[&str]) -> Vec<&'static str> {
        let report = check(&history(lines));
        assert!(report.examined > 0);
        report.names()
    }

    const BAD: &[&str] = &["not-linearizable"];

    #[test]
    fn a_stale_read_is_found() {
        let write = ["0 invoke write [\"k\",1]", "0 ok write [\"k\",1]"];
        let stale = ["1 invoke read [\"k\",null]", "1 ok read [\"k\",null]"];
        let fresh = ["1 invoke read [\"k\",null]", "1 ok read [\"k\",1]"];
        assert_eq!(names(&[write, stale].concat()), BAD);
        assert!(names(&[write, fresh].concat()).is_empty());
        // Concurrent with the write, either is right, and not the old one after the new one.
        let [begin, end] = write;
        let both = [fresh, stale].concat();
        assert!(names(&[&[begin], &stale[..], &fresh[..], &[end]].concat()).is_empty());
        assert_eq!(names(&[&[begin], &both[..], &[end]].concat()), BAD);
    }

    #[test]
    fn comparisons_count_and_failed_writes_do_not() {
        let begin = ["0 invoke write [\"k\",1]", "0 ok write [\"k\",1]"];
        let swap = ["0 invoke cas [\"k\",[1,2]]", "0 ok cas [\"k\",[1,2]]"];
        let again = ["1 invoke cas [\"k\",[1,3]]", "1 ok cas [\"k\",[1,3]]"];
        let refused = ["1 invoke write [\"k\",9]", "1 fail write [\"k\",9]"];
        let reads = |value: i64| {
            ["2 invoke read [\"k\",null]".to_owned(), format!("2 ok read [\"k\",{value}]")]
        };
        assert!(names(&[begin, swap, refused].concat()).is_empty());
        assert_eq!(names(&[begin, swap, again].concat()), BAD);
        let nine = reads(9);
        let aborted = [nine[0].as_str(), nine[1].as_str()];
        assert_eq!(names(&[begin, refused, aborted].concat()), BAD);
    }

    #[test]
    fn an_indeterminate_write_may_take_effect_late_or_never_but_not_twice() {
        let lines = |reads: &[&str]| {
            let mut lines = vec!["0 invoke write [\"k\",1]", "0 info write [\"k\",1]"];
            lines.extend(["1 invoke write [\"k\",2]", "1 ok write [\"k\",2]"]);
            let answers: Vec<String> =
                reads.iter().map(|value| format!("1 ok read [\"k\",{value}]")).collect();
            let mut all: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            for answer in answers {
                all.push("1 invoke read [\"k\",null]".to_owned());
                all.push(answer);
            }
            all
        };
        let check = |reads: &[&str]| {
            let lines = lines(reads);
            names(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for good in [&["2"][..], &["1"], &["2", "1"], &["2", "2", "1", "1"]] {
            assert!(check(good).is_empty(), "{good:?}");
        }
        for bad in [&["1", "2"][..], &["2", "1", "2"], &["3"], &["null"]] {
            assert_eq!(check(bad), BAD, "{bad:?}");
        }
    }

    #[test]
    fn keys_are_independent() {
        let lines =
            ["0 invoke write [\"a\",1]", "0 ok write [\"a\",1]", "0 invoke read [\"b\",null]"];
        assert!(names(&[&lines[..], &["0 ok read [\"b\",null]"]].concat()).is_empty());
        assert_eq!(names(&[&lines[..], &["0 ok read [\"b\",1]"]].concat()), BAD);
    }

    #[test]
    fn too_much_at_once_is_unknown_and_not_wrong() {
        let mut lines: Vec<String> = Vec::new();
        for number in 0..OPEN_MAX + 1 {
            lines.push(format!("{number} invoke write [\"k\",{number}]"));
        }
        for number in 0..OPEN_MAX + 1 {
            lines.push(format!("{number} ok write [\"k\",{number}]"));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let report = check(&history(&lines));
        assert!(matches!(report.verdict, crate::report::Verdict::Unknown { .. }), "{report}");
    }
}
