//! What the tests share: histories in shorthand.

use assent_checkers::{Action, Event, MicroOp, Process, Report, Verdict};
use assent_checkers::{Body, Kind};

/// The steps of a transaction: `ax1` appends 1 to x, `rx12` read x as \[1, 2\], `rx` read it empty.
pub(crate) fn steps(text: &str) -> Vec<MicroOp> {
    let step = |word: &str| {
        let (what, rest) = word.split_at(1);
        let (key, elements) = rest.split_at(1);
        let mut digits = elements.chars().map(|digit| i64::from(digit.to_digit(10).unwrap()));
        match what {
            "a" => MicroOp::append(key, digits.next_back().unwrap()),
            "r" => MicroOp::saw(key, digits.collect::<Vec<_>>()),
            _ => panic!("{word}"),
        }
    };
    text.split_whitespace().map(step).collect()
}

fn unanswered(steps: &[MicroOp]) -> Vec<MicroOp> {
    let ask = |step: &MicroOp| match step {
        MicroOp::Read(key, _) => MicroOp::Read(key.clone(), None),
        MicroOp::Append(..) => step.clone(),
    };
    steps.iter().map(ask).collect()
}

/// A history of list-append transactions, one a line: when it begins, when it ends, how (`ok`, `fail`, `info`), steps.
/// Times are numbers of any size; the order is all.
pub(crate) fn transactions(lines: &[&str]) -> Vec<Event> {
    let mut moments = Vec::new();
    for (process, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let (begin, end): (u64, u64) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        let answered = steps(words[3]);
        let asked = Action::Txn(unanswered(&answered));
        let (kind, told) = match words[2] {
            "ok" => (Kind::Ok, Action::Txn(answered)),
            "fail" => (Kind::Fail, asked.clone()),
            _ => (Kind::Info, asked.clone()),
        };
        moments.push((begin, process, Kind::Invoke, asked));
        moments.push((end, process, kind, told));
    }
    moments.sort_by_key(|(time, process, ..)| (*time, *process));
    let event = |(index, (_, process, kind, action)): (usize, (u64, usize, Kind, Action))| Event {
        index: index as u64,
        kind,
        process: Process::Client(process as i64),
        body: Body::Action(action),
        time_ns: index as u64,
        error: None,
    };
    moments.into_iter().enumerate().map(event).collect()
}

/// The names of what is wrong; panics if nothing can be said.
pub(crate) fn names(report: &Report) -> Vec<&'static str> {
    assert!(matches!(report.verdict, Verdict::Holds | Verdict::Violated { .. }), "{report}");
    report.names()
}

/// The hand-made bad histories: what it is, what must be found, the transactions.
pub(crate) const BAD: &[(&str, &[&str], &[&str])] = &[
    (
        "writes interleaved at two keys",
        &["G0"],
        &["0 9 ok ax1 ay1", "0 9 ok ay2 ax2", "10 11 ok rx12 ry21"],
    ),
    ("a read of an aborted append", &["G1a"], &["0 9 fail ax1", "0 9 ok rx1"]),
    (
        "an aborted append below committed ones",
        &["G1a"],
        &["0 9 fail ax1", "0 9 ok ax2", "0 9 ok rx12"],
    ),
    (
        "a read in the middle of a transaction",
        &["G-single", "G1b"],
        &["0 9 ok ax1 ax2", "0 9 ok rx1", "10 11 ok rx12"],
    ),
    ("each read what the other wrote", &["G1c"], &["0 9 ok ax1 ry1", "0 9 ok ay1 rx1"]),
    (
        "a write before, a read after",
        &["G1c"],
        &["0 9 ok ax1 ry1", "0 9 ok ax2 ay1", "10 11 ok rx12"],
    ),
    ("half of another transaction was seen", &["G-single"], &["0 9 ok ax1 ay1", "0 9 ok rx1 ry"]),
    (
        "half of another one, over three transactions",
        &["G-single"],
        &["0 9 ok ax1", "0 9 ok rx1 ay1", "0 9 ok ry1 rx"],
    ),
    ("write skew", &["G2"], &["0 9 ok rx ay1", "0 9 ok ry ax1", "10 11 ok rx1 ry1"]),
    ("long fork", &["G2"], &["0 9 ok ax1", "0 9 ok ay1", "0 9 ok rx1 ry", "0 9 ok rx ry1"]),
    (
        "two updates of one version",
        &["G-single", "lost-update"],
        &["0 9 ok rx ax1", "0 9 ok rx ax2", "10 11 ok rx12"],
    ),
    ("a stale read", &["G-single-realtime"], &["0 1 ok ax1", "2 3 ok rx", "4 5 ok rx1"]),
    (
        "a confirmed append that no later read saw",
        &["G-single-realtime", "lost-append"],
        &["0 1 ok ax1", "2 3 ok rx"],
    ),
    (
        "a later write before an earlier one",
        &["G0-realtime"],
        &["0 1 ok ax1", "2 3 ok ax2", "4 5 ok rx21"],
    ),
    ("a read of the future", &["G1c-realtime"], &["0 1 ok rx1", "2 3 ok ax1"]),
    (
        "stale at two keys, in turn",
        &["G2-realtime"],
        &["0 9 ok ax1", "0 9 ok rx1 ry", "0 1 ok ay1", "2 9 ok rx", "10 11 ok rx1 ry1"],
    ),
    ("an element twice", &["duplicate-element"], &["0 9 ok ax1", "10 11 ok rx11"]),
    ("an element from nowhere", &["phantom-element"], &["0 9 ok ax1", "10 11 ok rx12"]),
    (
        "two orders",
        &["incompatible-order"],
        &["0 9 ok ax1", "0 9 ok ax2", "0 9 ok rx12", "0 9 ok rx21"],
    ),
    ("its own append is not seen", &["internal"], &["0 9 ok ax1 rx", "10 11 ok rx1"]),
    (
        "two reads in one transaction differ",
        &["G-single", "internal"],
        &["0 9 ok ax1", "0 9 ok rx rx1"],
    ),
    (
        "an indeterminate transaction, half seen",
        &["G-single"],
        &["0 9 info ax1 ay1", "0 9 ok rx1 ry"],
    ),
    (
        "an indeterminate transaction that was seen, and is gone",
        &["G-single-realtime"],
        &["0 1 info ax1", "2 3 ok rx1", "4 5 ok rx"],
    ),
];

/// The hand-made good ones.
pub(crate) const GOOD: &[(&str, &[&str])] = &[
    ("one after the other", &["0 1 ok ax1", "2 3 ok rx1 ax2", "4 5 ok rx12"]),
    ("at once, in either order", &["0 9 ok ax1 ay1", "0 9 ok rx ry", "0 9 ok rx1 ry1"]),
    ("an indeterminate one that is never seen", &["0 1 info ax1 ay1", "2 3 ok rx ry"]),
    ("an indeterminate one that is seen late", &["0 1 info ax1", "2 3 ok rx", "4 5 ok rx1"]),
    ("a failed one that is never seen", &["0 1 fail ax1", "2 3 ok rx"]),
    ("its own appends are seen", &["0 9 ok rx ax1 rx1 ax2 rx12", "0 9 ok rx12"]),
    ("appends that nobody read yet", &["0 9 ok ax1", "0 9 ok ax2", "0 9 ok rx"]),
];
