//! The control hash: its fields, by name, and what each holds. Whoever reads or writes a field does
//! it through this folder, where reader and writer stand side by side.
//!
//! ```text
//! m:inc         incarnation; 0 while the data is fenced, and m:was says what it was
//! m:of          the incarnations that the data came of, by the repair that opened it
//! m:name        the participant
//! m:seq         number of the last vote
//! m:expect      count of branches that ended in this incarnation, applied or dropped, as every
//!               vote and end writes it
//! m:ended       the same, as every end adds to it: another number is a hole (store/whole.rs)
//! m:run         life of the server for which what it had loaded was verified
//! m:c:<log id>  "<highest epoch> <low-water epoch> <low-water n>"
//! m:n:<log id>  "<epoch> <nonce>" of the newest life of the log that was heard, and behind it
//!               "<position> <mark> <seal>" of what it said then, where it was sealed (life.lua)
//! m:p:<log id>  "<position> <epoch>": highest position in the log that was told of with something
//!               that ended a branch, and the life that told it; and behind it "<mark> <seal>"
//! m:r:<log id>  incarnation that the log knew when the last repair took its word
//! s:<txid>      staged: pack(version, id, url, seq, keys, modes, writes, replies); of an implicit
//!               transaction also all its branches: an array of participant, base URL, …; of one
//!               that adds in escrow also what it has reserved of which counter (branch.rs)
//! d:<txid>      done: pack(kinds, replies, seq, writes) of one phase; those branches of an
//!               implicit one; else empty
//! a:<txid>      fence
//! h:<txid>      what an operator decided of the branch by hand (by_hand.rs)
//! p:<txid>      how many writes of a branch a repair has applied (redo.lua)
//! l:<key>       of an earlier version: who holds the lock of a key, and how (old_lock.rs)
//! ```

mod branch;
mod by_hand;
mod log;
mod old_lock;

use std::fmt::Display;
use std::io::Write as _;

use assent_common::ids::{LogId, Txid};
use assent_common::participant::Found;
use redis::{RedisWrite, ToRedisArgs};

pub(super) use branch::{
    ReservedOf, StagedRecord, done_marker, one_phase_marker, pack_branches, pack_one_phase,
    pack_one_phase_around,
};
pub use by_hand::{ByHand, kept_keys};
pub(super) use log::{ToldPosition, read_life, read_mark, write_life, write_mark};
pub(super) use old_lock::read_escrow;

/// A field of the control hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Incarnation,
    /// The incarnation that fenced data had.
    Was,
    /// The incarnations that it came of, by the repair that opened it.
    CameOf,
    Participant,
    Seq,
    /// The count of ended branches that every end adds to.
    Ended,
    /// The same count, as every vote and every end writes it.
    Expected,
    Run,
    /// The highest life and low-water mark of a log.
    Mark(LogId),
    /// The newest life of a log.
    Life(LogId),
    /// How far a log was on disk, as it said.
    Told(LogId),
    /// The incarnation that a log knew when the last repair took its word.
    Served(LogId),
    /// The lock of a key, of an earlier version.
    Lock(&'a [u8]),
    Staged(Txid),
    Done(Txid),
    Fence(Txid),
    ByHand(Txid),
}

/// Patterns of `HSCAN` for some of them.
pub(super) mod pattern {
    pub(in super::super) const ALL: &str = "*";
    pub(in super::super) const MARKS: &str = "m:c:*";
    pub(in super::super) const SERVED: &str = "m:r:*";
    pub(in super::super) const STAGED: &str = "s:*";
    pub(in super::super) const DONE: &str = "d:*";
    pub(in super::super) const FENCES: &str = "a:*";
    pub(in super::super) const STAGED_AND_BY_HAND: &str = "[hs]:*";
    pub(in super::super) const DONE_AND_OF_LOGS: &str = "[dm]:*";
    pub(in super::super) const LOCKS_AND_OF_LOGS: &str = "[lm]:*";
    pub(in super::super) const MARKERS_AND_OF_LOGS: &str = "[adm]:*";
}

impl<'a> Field<'a> {
    /// Its name in the hash.
    pub(super) fn name(self) -> Vec<u8> {
        let of = |prefix: &str, id: &dyn Display| {
            let mut name = Vec::with_capacity(64);
            // Writing into memory cannot fail.
            let _ = write!(name, "{prefix}{id}");
            name
        };
        match self {
            Self::Incarnation => b"m:inc".to_vec(),
            Self::Was => b"m:was".to_vec(),
            Self::CameOf => b"m:of".to_vec(),
            Self::Participant => b"m:name".to_vec(),
            Self::Seq => b"m:seq".to_vec(),
            Self::Ended => b"m:ended".to_vec(),
            Self::Expected => b"m:expect".to_vec(),
            Self::Run => b"m:run".to_vec(),
            Self::Mark(log_id) => of("m:c:", &log_id),
            Self::Life(log_id) => of("m:n:", &log_id),
            Self::Told(log_id) => of("m:p:", &log_id),
            Self::Served(log_id) => of("m:r:", &log_id),
            Self::Lock(key) => [b"l:", key].concat(),
            Self::Staged(txid) => of("s:", &txid),
            Self::Done(txid) => of("d:", &txid),
            Self::Fence(txid) => of("a:", &txid),
            Self::ByHand(txid) => of("h:", &txid),
        }
    }

    /// The field of that name; `None` for one that is none of these, such as those that only the
    /// scripts know.
    pub(super) fn parse(name: &'a [u8]) -> Option<Self> {
        let txid = |rest| std::str::from_utf8(rest).ok()?.parse().ok();
        let log_id = |rest| std::str::from_utf8(rest).ok()?.parse().ok();
        Some(match name {
            b"m:inc" => Self::Incarnation,
            b"m:was" => Self::Was,
            b"m:of" => Self::CameOf,
            b"m:name" => Self::Participant,
            b"m:seq" => Self::Seq,
            b"m:ended" => Self::Ended,
            b"m:expect" => Self::Expected,
            b"m:run" => Self::Run,
            [b'm', b':', b'c', b':', rest @ ..] => Self::Mark(log_id(rest)?),
            [b'm', b':', b'n', b':', rest @ ..] => Self::Life(log_id(rest)?),
            [b'm', b':', b'p', b':', rest @ ..] => Self::Told(log_id(rest)?),
            [b'm', b':', b'r', b':', rest @ ..] => Self::Served(log_id(rest)?),
            [b'l', b':', key @ ..] => Self::Lock(key),
            [b's', b':', rest @ ..] => Self::Staged(txid(rest)?),
            [b'd', b':', rest @ ..] => Self::Done(txid(rest)?),
            [b'a', b':', rest @ ..] => Self::Fence(txid(rest)?),
            [b'h', b':', rest @ ..] => Self::ByHand(txid(rest)?),
            _ => return None,
        })
    }

    /// The branch that it is about, if it is about one.
    pub(super) const fn txid(self) -> Option<Txid> {
        match self {
            Self::Staged(txid) | Self::Done(txid) | Self::Fence(txid) | Self::ByHand(txid) => {
                Some(txid)
            }
            _ => None,
        }
    }

    /// The fields that say which data it is, as [`read_identity`] reads them.
    pub(super) const OF_IDENTITY: [Self; 4] =
        [Self::Incarnation, Self::Seq, Self::Ended, Self::Expected];

    /// All that may be kept of one branch, but for what an operator decided.
    pub(super) const fn of_branch(txid: Txid) -> [Self; 3] {
        [Self::Staged(txid), Self::Done(txid), Self::Fence(txid)]
    }
}

impl ToRedisArgs for Field<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(&self.name());
    }
}

/// Whether a field whose name cannot be read is one that the machine needs, by its first letters.
pub(super) const fn is_of_machine(name: &[u8]) -> bool {
    matches!(name, [b's' | b'd' | b'a', b':', ..] | [b'm', b':', b'c', b':', ..])
}

/// The incarnations that data came of, as its field says.
pub(super) fn read_came_of(value: &str) -> Vec<u64> {
    value.split(' ').filter_map(|incarnation| incarnation.parse().ok()).collect()
}

/// The field that says them.
pub(super) fn write_came_of(came_of: &[u64]) -> String {
    came_of.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// What the fields of [`Field::OF_IDENTITY`] hold.
pub(super) fn read_identity([incarnation, seq, ended, expected]: [Option<u64>; 4]) -> Found {
    let or_none = Option::unwrap_or_default;
    Found { incarnation, seq: or_none(seq), ended: or_none(ended), expected: or_none(expected) }
}

/// A value that is a number.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The value of a field that holds this number.
pub(super) fn write_number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        let txid: Txid = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0".parse().unwrap();
        let log_id = txid.log_id;
        let fields = [
            Field::Incarnation,
            Field::Was,
            Field::CameOf,
            Field::Participant,
            Field::Seq,
            Field::Ended,
            Field::Expected,
            Field::Run,
            Field::Mark(log_id),
            Field::Life(log_id),
            Field::Told(log_id),
            Field::Served(log_id),
            Field::Lock(b"a key: \xff"),
            Field::Staged(txid),
            Field::Done(txid),
            Field::Fence(txid),
            Field::ByHand(txid),
        ];
        for field in fields {
            assert_eq!(Field::parse(&field.name()), Some(field));
        }
        for foreign in [&b""[..], b"m:", b"m:x", b"s:", b"s:not a txid", b"m:c:"] {
            assert_eq!(Field::parse(foreign), None, "{foreign:?}");
        }
    }
}
