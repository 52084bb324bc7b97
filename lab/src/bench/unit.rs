//! What a client wants done, told without saying how: every way of doing it carries out the same
//! units.

use std::fmt::{self, Write as _};

/// A key: a family, and a number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) family: &'static str,
    pub(super) number: u64,
}

impl Key {
    /// The key as it is spelled at a participant.
    pub(super) const fn at(self, place: usize) -> KeyAt {
        KeyAt { key: self, place }
    }
}

/// A key at a participant. The participant's letter comes first, by which the port for Redis
/// clients finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyAt {
    key: Key,
    place: usize,
}

impl fmt::Display for KeyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: Key { family, number }, place } = self;
        write!(f, "{}:{family}:{number}", letter(*place))
    }
}

/// The letter of the participant at this place.
pub(super) fn letter(place: usize) -> char {
    let letter = u8::try_from(place).ok().and_then(|place| b'a'.checked_add(place));
    char::from(letter.unwrap_or(b'?'))
}

/// One change, or one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Adds to a number. Where the way can refuse, the result must not be below `at_least`.
    Add { key: Key, by: i64, at_least: Option<i64> },
    /// Reads.
    Get { key: Key },
    /// Sets a number to 0 and says what it was. Where the way can refuse, it must have been `was`.
    Empty { key: Key, was: Option<i64> },
    /// Stores a value of so many bytes that begins with a stamp.
    Put { key: Key, stamp: u64, bytes: usize },
}

/// The ops at one participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) place: usize,
    pub(super) ops: Vec<Op>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) parts: Vec<Part>,
}

/// What a client does at once, and waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// One transaction.
    Unit(Unit),
    /// All that is in two accounts goes to a third. Nobody knows how much before he has read.
    Sweep { from: [Key; 2], place: usize, to: Key, to_place: usize },
}

/// What was added at each participant, by place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Changes(Vec<(usize, i64)>);

impl Changes {
    pub(super) fn add(&mut self, place: usize, by: i64) {
        if by != 0 {
            self.0.push((place, by));
        }
    }

    pub(super) fn apply(&self, sums: &mut [i64]) {
        for (place, by) in &self.0 {
            sums[*place] += by;
        }
    }
}

impl Unit {
    /// What it changes if it is carried out.
    pub(super) fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        for Part { place, ops } in &self.parts {
            let by = ops.iter().map(|op| match op {
                Op::Add { by, .. } => *by,
                Op::Empty { was, .. } => -was.unwrap_or(0),
                Op::Get { .. } | Op::Put { .. } => 0,
            });
            changes.add(*place, by.sum());
        }
        changes
    }

    /// The stamp of the values that it stores.
    pub(super) fn stamp(&self) -> Option<u64> {
        self.parts.iter().flat_map(|part| &part.ops).find_map(|op| match op {
            Op::Put { stamp, .. } => Some(*stamp),
            Op::Add { .. } | Op::Get { .. } | Op::Empty { .. } => None,
        })
    }
}

/// The first part of a sweep: a read at one participant.
pub(super) fn sweep_read(from: [Key; 2], place: usize) -> Unit {
    Unit { parts: vec![Part { place, ops: from.map(|key| Op::Get { key }).to_vec() }] }
}

/// The second: what was read must still be so.
pub(super) fn sweep_move(
    (from, place): ([Key; 2], usize),
    (to, to_place): (Key, usize),
    read: [i64; 2],
) -> Unit {
    let empty = |n: usize| Op::Empty { key: from[n], was: Some(read[n]) };
    let receive = Op::Add { key: to, by: read[0] + read[1], at_least: None };
    if place == to_place {
        return Unit { parts: vec![Part { place, ops: vec![empty(0), empty(1), receive] }] };
    }
    Unit {
        parts: vec![
            Part { place, ops: vec![empty(0), empty(1)] },
            Part { place: to_place, ops: vec![receive] },
        ],
    }
}

/// When `committed` is answered, and how a transaction is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Mode {
    pub(super) ack: Ack,
    pub(super) protocol: Protocol,
}

impl Mode {
    /// What a request is that says nothing of it.
    pub(super) const DEFAULT: Self = Self { ack: Ack::Applied, protocol: Protocol::Logged };
}

/// When `committed` is answered
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ack {
    /// When every branch has applied
    Applied,
    /// When the outcome is durable
    Decided,
}

/// What makes a transaction committed
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    /// The decision in the coordinator's log
    Logged,
    /// The votes of all participants
    Implicit,
}

/// How a unit is written down for the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wording {
    pub(super) mode: Mode,
    /// Whether additions with a bound ask for escrow.
    pub(super) escrow: Escrow,
}

/// Whether additions with a bound may run at once on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Escrow {
    /// They are not asked to: one after the other.
    NotAsked,
    /// They are.
    Asked,
}

/// Appends the body of `POST /v1/transactions`. A field that older coordinators do not know is sent
/// only where it says something.
pub(super) fn write_json(unit: &Unit, wording: Wording, names: &[String], to: &mut String) {
    to.push_str(r#"{"branches":["#);
    for (n, Part { place, ops }) in unit.parts.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        // Writing to a string cannot fail.
        let _written = write!(to, r#"{comma}{{"participant":"{}","ops":["#, names[*place]);
        for (n, op) in ops.iter().enumerate() {
            if n > 0 {
                to.push(',');
            }
            write_op(op, *place, wording.escrow, to);
        }
        to.push_str("]}");
    }
    to.push(']');
    if wording.mode.ack == Ack::Decided {
        to.push_str(r#","ack":"decided""#);
    }
    if wording.mode.protocol == Protocol::Implicit {
        to.push_str(r#","protocol":"implicit""#);
    }
    to.push('}');
}

fn write_op(op: &Op, place: usize, escrow: Escrow, to: &mut String) {
    let _written = match op {
        Op::Add { key, by, at_least } => {
            let (word, by) =
                if *by < 0 { ("DECRBY", by.unsigned_abs()) } else { ("INCRBY", by.unsigned_abs()) };
            let bound = match (at_least, escrow) {
                (None, _) => String::new(),
                (Some(least), Escrow::NotAsked) => format!(r#","expect":{{"ge":{least}}}"#),
                (Some(least), Escrow::Asked) => {
                    format!(r#","expect":{{"ge":{least}}},"escrow":true"#)
                }
            };
            let key = key.at(place);
            write!(to, r#"{{"cmd":["{word}","{key}",{by}]{bound}}}"#)
        }
        Op::Get { key } => write!(to, r#"{{"cmd":["GET","{}"]}}"#, key.at(place)),
        Op::Empty { key, was } => {
            let was = was.map_or_else(String::new, |was| format!(r#","expect":{{"eq":{was}}}"#));
            write!(to, r#"{{"cmd":["GETSET","{}",0]{was}}}"#, key.at(place))
        }
        Op::Put { key, stamp, bytes } => {
            let _written = write!(to, r#"{{"cmd":["SET","{}",""#, key.at(place));
            write_value(*stamp, *bytes, |piece| to.push_str(piece));
            write!(to, r#""]}}"#)
        }
    };
}

/// What values are filled up with.
const FILLER: &str = "................................................................";

/// The least bytes of a value: those of its stamp and its length.
pub(super) const VALUE_BYTES_MIN: usize = 26;

/// Says the pieces of a value: its stamp, its length, and dots.
pub(super) fn write_value(stamp: u64, bytes: usize, mut say: impl FnMut(&str)) {
    say(&format!("{stamp:016x}:{bytes:08x}:"));
    let mut left = bytes.saturating_sub(VALUE_BYTES_MIN);
    while left > 0 {
        let now = left.min(FILLER.len());
        say(&FILLER[..now]);
        left -= now;
    }
}

/// The stamp of a value; `None` if it is not whole.
pub(super) fn stamp_of(value: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(value.get(..VALUE_BYTES_MIN)?).ok()?;
    let (stamp, rest) = head.split_once(':')?;
    let bytes = usize::from_str_radix(rest.strip_suffix(':')?, 16).ok()?;
    (value.len() == bytes).then(|| u64::from_str_radix(stamp, 16).ok())?
}

#[cfg(test)]
mod tests {
    use assent_common::wire::transaction::TransactionRequest;

    use super::*;

    const KEY: Key = Key { family: "acct", number: 7 };
    const LOGGED: Wording = Wording {
        mode: Mode { ack: Ack::Applied, protocol: Protocol::Logged },
        escrow: Escrow::NotAsked,
    };

    fn json(unit: &Unit, wording: Wording) -> String {
        let mut text = String::new();
        write_json(unit, wording, &["a".to_owned(), "b".to_owned()], &mut text);
        text
    }

    fn every_op() -> Unit {
        let ops = vec![
            Op::Add { key: KEY, by: -3, at_least: Some(0) },
            Op::Add { key: KEY, by: 4, at_least: None },
            Op::Get { key: KEY },
            Op::Empty { key: KEY, was: Some(5) },
            Op::Put { key: KEY, stamp: 9, bytes: 100 },
        ];
        Unit { parts: vec![Part { place: 0, ops: ops.clone() }, Part { place: 1, ops }] }
    }

    #[test]
    fn every_op_is_one_that_the_coordinator_takes() {
        let decided = Mode { ack: Ack::Decided, protocol: Protocol::Logged };
        for wording in [LOGGED, Wording { mode: decided, ..LOGGED }] {
            let text = json(&every_op(), wording);
            let request: TransactionRequest = serde_json::from_str(&text).unwrap();
            request.validate().map_err(|problem| problem.detail).unwrap();
        }
    }

    #[test]
    fn what_older_coordinators_do_not_know_is_sent_only_if_it_is_asked_for() {
        let plain = json(&every_op(), LOGGED);
        assert!(!plain.contains("escrow") && !plain.contains("protocol"), "{plain}");
        let mode = Mode { ack: Ack::Decided, protocol: Protocol::Implicit };
        let text = json(&every_op(), Wording { mode, escrow: Escrow::Asked });
        // Of an addition without a bound there is nothing to reserve.
        assert_eq!(text.matches(r#""escrow":true"#).count(), 2, "{text}");
        assert!(text.ends_with(r#""ack":"decided","protocol":"implicit"}"#), "{text}");
    }

    #[test]
    fn the_changes_of_a_unit_are_those_of_its_ops() {
        let mut sums = [0; 3];
        every_op().changes().apply(&mut sums);
        assert_eq!(sums, [-4, -4, 0]);
        assert_eq!(every_op().stamp(), Some(9));
    }

    #[test]
    fn a_sweep_moves_what_was_read_and_makes_no_money() {
        let keys = [KEY, Key { family: "acct", number: 8 }];
        for to_place in [0, 1] {
            let mut sums = [0; 2];
            let unit = sweep_move((keys, 0), (KEY, to_place), [30, 12]);
            assert_eq!(unit.parts.len(), 1 + to_place);
            unit.changes().apply(&mut sums);
            assert_eq!(sums.iter().sum::<i64>(), 0);
            assert_eq!(sums[1], 42 * i64::try_from(to_place).unwrap());
        }
    }

    #[test]
    fn a_value_tells_its_stamp_if_it_is_whole() {
        for bytes in [VALUE_BYTES_MIN, 1_000] {
            let mut value = String::new();
            write_value(0xabc, bytes, |piece| value.push_str(piece));
            assert_eq!(value.len(), bytes);
            assert_eq!(stamp_of(value.as_bytes()), Some(0xabc));
            assert_eq!(stamp_of(&value.as_bytes()[..bytes - 1]), None);
        }
        assert_eq!(stamp_of(b"1000"), None);
    }
}
