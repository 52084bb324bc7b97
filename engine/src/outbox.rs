//! What the log is to keep: the records of steps, and what must outlive a segment.

use std::collections::VecDeque;

use assent_common::Attempt;
use assent_common::coordinator::{Branch, Entry, Note};
use assent_common::crash::CrashPoint;
use assent_common::frame;
use assent_common::ids::TxNumber;
use assent_common::limits;
use assent_common::log::{Durability, NewRecord, Token};
use assent_common::outcome::Replies;
use assent_common::record::{AnswerRecord, Identity, Record};
use assent_common::wire::transaction::Protocol;

use crate::active::Active;
use crate::active::Ticket;
use crate::errand::{Errands, Notice};
use crate::numbers::NumberMap;

/// Bytes of a record beside the writes and replies in it: the names of the branches, the key, the
/// ids.
const RECORD_OWN_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the smallest segment that holds the record of every transaction that is allowed.
pub const SEGMENT_BYTES_FOR_ALL: u32 = 33 * 1024 * 1024;

const _: () = {
    let headers = frame::SEGMENT_HEADER_BYTES as usize + frame::FRAME_HEADER_BYTES;
    let record = limits::DECISION_BYTES_MAX + RECORD_OWN_BYTES_MAX;
    assert!(headers + record <= SEGMENT_BYTES_FOR_ALL as usize, "a decision fits");
    // A branch of one phase has no decision: what it replies and writes is bounded by itself.
    assert!(2 * limits::REPLY_BYTES_MAX <= limits::DECISION_BYTES_MAX, "an answer fits");
};

/// What a durable record is for.
#[derive(Debug)]
pub(crate) enum Appended {
    /// A machine waits for it.
    Step(TxNumber),
    /// An operator's override waits for it.
    Abandon { number: TxNumber, branch: Branch, attempt: Attempt, done: Ticket },
    /// What a machine wanted known of branches.
    Noted(TxNumber, Note),
    /// Compaction moved the record that answers for a transaction.
    Moved(TxNumber),
    /// The life of this process is in the log: whoever waits to speak may.
    Life,
    /// The log is read for what a participant's data lacks when all before it is on disk.
    BeforeReading(usize),
    /// Nobody waits for it.
    Nothing,
    /// Somebody waits for it.
    Told(Ticket),
}

/// The records that are not durable yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What to do when a record is durable.
    appended: NumberMap<Token, Appended>,
    last_token: Token,
    /// Handed over as one when a turn ends; what the log's queue has no room for stays.
    records: VecDeque<NewRecord>,
}

impl Outbox {
    pub(crate) fn append(&mut self, record: &Record, durability: Durability, then: Appended) {
        let (kind, payload) = record.encode();
        self.last_token += 1;
        let token = self.last_token;
        self.appended.insert(token, then);
        self.records.push_back(NewRecord { token, kind, payload, durability });
    }

    /// What a record that has become durable was for; asked once.
    pub(crate) fn durable(&mut self, token: Token) -> Option<Appended> {
        self.appended.remove(&token)
    }

    pub(crate) const fn records(&mut self) -> &mut VecDeque<NewRecord> {
        &mut self.records
    }
}

/// A record that somebody waits for is forced: a decision always, an answer where the client hears
/// it afterwards.
pub(crate) fn durability_of(entry: &Entry, active: &Active) -> Durability {
    match entry {
        // Of an implicit transaction the votes are the decision.
        Entry::Committed { .. } if active.machine.spec().protocol == Protocol::Implicit => {
            Durability::Lazy
        }
        Entry::Begun(_) | Entry::Committed { .. } => Durability::Forced,
        Entry::Ended => Durability::Lazy,
        Entry::Answered { .. } if active.machine.answer_is_held_back() => Durability::Forced,
        Entry::Answered { .. } => Durability::Lazy,
    }
}

/// Where a test has the process die before an entry is on its way.
pub(crate) const fn crash_point_before(entry: &Entry) -> Option<CrashPoint> {
    match entry {
        Entry::Committed { .. } => Some(CrashPoint::BeforeDecision),
        Entry::Ended => Some(CrashPoint::BeforeEnd),
        Entry::Begun(_) | Entry::Answered { .. } => None,
    }
}

/// Bytes of writes and replies that one record of a log can hold that takes payloads of so many
/// bytes; the rest of it is for names and ids.
#[must_use]
pub const fn decision_bytes_max(payload_bytes_max: usize) -> usize {
    let half = payload_bytes_max / 2;
    let own = if RECORD_OWN_BYTES_MAX < half { RECORD_OWN_BYTES_MAX } else { half };
    let left = payload_bytes_max - own;
    if limits::DECISION_BYTES_MAX < left { limits::DECISION_BYTES_MAX } else { left }
}

/// Replies that a record does not keep. It is no JSON, so that a view has no `replies` then.
const NO_REPLIES: &str = "";

/// Drops large replies of a request that cannot come again.
fn keep_or_drop(identity: &Identity, replies: &mut Replies) {
    if identity.fingerprint.is_none() && replies.len() > limits::REPLIES_KEPT_BYTES_MAX {
        *replies = NO_REPLIES.into();
    }
}

/// The record, without what nobody will ask for, and without what no segment holds. One phase is
/// applied when its record is written: it cannot be refused any more, and the process may not end
/// for it.
pub(crate) fn fitting(record: Record, bytes_max: usize, errands: &mut Errands) -> Record {
    let mut answered = match record {
        Record::Committed(mut committed) => {
            for branch in &mut committed.branches {
                keep_or_drop(&committed.identity, &mut branch.replies);
            }
            return Record::Committed(committed);
        }
        Record::Answered(answered) => answered,
        other => return other,
    };
    let redo = answered.written.as_ref().map_or(0, |written| written.redo.len());
    let AnswerRecord::Committed { replies } = &mut answered.answer else {
        return Record::Answered(answered);
    };
    keep_or_drop(&answered.identity, replies);
    if redo + replies.len() > bytes_max {
        *replies = NO_REPLIES.into();
    }
    if redo > bytes_max {
        answered.written = None;
        let id = answered.identity.id;
        errands.say(Notice::TooLargeToRedo { id, bytes: redo, bytes_max });
    }
    Record::Answered(answered)
}
