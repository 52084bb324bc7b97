//! What the core has the log keep: the records of its steps, and what must outlive a segment.

use assent_client::{crash, mutant};
use assent_common::Attempt;
use assent_common::coordinator::{
    Branch, Closing, ClosingRecord, Committing, DecisionRecord, Entry, Note, State,
};
use assent_common::crash::CrashPoint;
use assent_common::frame;
use assent_common::ids::TxNumber;
use assent_common::limits;
use assent_common::mutant::Mutant;
use assent_common::outcome::Replies;
use assent_common::record::{AnswerRecord, Identity, ParticipantSet, Record};
use assent_common::wire::transaction::Protocol;
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::active::Active;
use super::core::Core;
use crate::log::{DecisionLog, Durability, LogError, LogPosition, NewRecord};

/// Bytes of a record beside the writes and replies in it: the names of the branches, the key, the ids.
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
pub(super) enum Appended {
    /// A machine waits for it.
    Step(TxNumber),
    /// An operator's override waits for it.
    Abandon { number: TxNumber, branch: Branch, attempt: Attempt, done: oneshot::Sender<()> },
    /// What a machine wanted known of branches.
    Noted(TxNumber, Note),
    /// Compaction moved the record that answers for a transaction.
    Moved(TxNumber),
    /// The life of this process is in the log: whoever waits to speak may.
    Life,
    /// Nobody waits for it.
    Nothing,
    /// Somebody waits for it.
    Told(oneshot::Sender<()>),
}

impl Core {
    pub(super) fn append(&mut self, record: &Record, durability: Durability, then: Appended) {
        let (kind, payload) = record.encode();
        let token = self.next_token;
        self.next_token += 1;
        self.appended.insert(token, then);
        self.outbox.push_back(NewRecord { token, kind, payload, durability });
    }

    /// Gives the log what this turn has produced: one wake-up of its writer, and one sync, for all of it.
    pub(super) fn hand_over(&mut self, shared: &Shared) {
        if self.outbox.is_empty() {
            return;
        }
        match shared.log.append_all(&mut self.outbox) {
            // The rest goes when something has become durable, which makes room.
            Ok(()) | Err(LogError::Full { .. }) => {}
            // Stopped, or a record that no segment holds: its transaction could never go on, and neither may we.
            Err(error) => crate::log::stop_process(&error),
        }
    }

    /// Tells of progress while one of these transactions is not decided; `None` once all are.
    pub(super) fn undecided(&self, numbers: &[TxNumber]) -> Option<watch::Receiver<u64>> {
        let is_open = |number| {
            let active: Option<&Active> = self.active.get(number);
            let state = active.map(|active| active.machine.state());
            matches!(state, Some(State::Preparing(_) | State::Deciding { .. }))
        };
        numbers.iter().any(is_open).then(|| self.progress.subscribe())
    }

    pub(super) fn record_durable(&mut self, number: TxNumber, position: LogPosition) {
        let Some(active) = self.active.get_mut(&number) else { return };
        match active.machine.state() {
            State::Deciding { attempt, .. } => {
                crash::point(CrashPoint::AfterDecisionSync);
                self.authority.committed(number, *attempt);
                active.position = Some(position);
            }
            State::Committing(Committing { attempt, record: DecisionRecord::UnderWay, .. })
            | State::Closing(Closing { attempt, record: ClosingRecord::BehindDecision, .. }) => {
                self.authority.committed(number, *attempt);
                active.position = Some(position);
            }
            // A committed transaction's answer is its decision record, not its end.
            State::Closing(_) if active.position.is_none() => active.position = Some(position),
            State::Closing(_) => crash::point(CrashPoint::AfterEnd),
            _ => {}
        }
    }

    /// Appends again what compaction must keep of a segment: records of active transactions, the participants, and what
    /// was ever committed.
    ///
    /// A transaction that is closing has its end in the log's queue or in the log: a copy behind the end would bring it
    /// back to life. The receiver hears when all is durable.
    pub(super) fn keep(&mut self, records: Vec<Record>) -> oneshot::Receiver<()> {
        for record in records {
            let number = record.number().filter(|number| {
                let active = self.active.get(number);
                active.is_some_and(|active| !matches!(active.machine.state(), State::Closing(_)))
            });
            let Some(number) = number else { continue };
            let then = match record {
                Record::Committed(_) => Appended::Moved(number),
                _ => Appended::Nothing,
            };
            self.append(&record, Durability::Lazy, then);
        }
        let participants = self.lanes.iter().filter_map(|lane| {
            let url = lane.url()?.to_owned();
            Some(Record::ParticipantSet(ParticipantSet { name: lane.name.clone(), url }))
        });
        for record in participants.collect::<Vec<_>>() {
            self.append(&record, Durability::Lazy, Appended::Nothing);
        }
        for life in self.lives.iter().collect::<Vec<_>>() {
            self.append(&Record::LifeBegan(life), Durability::Lazy, Appended::Nothing);
        }
        // Records become durable in the order of appending, and there is one set at least: that of this epoch.
        let (told, durable) = oneshot::channel();
        let mut told = Some(told);
        for set in self.authority.sets() {
            let then = match told.take_if(|_| set.epoch == self.epoch) {
                Some(told) => Appended::Told(told),
                None => Appended::Nothing,
            };
            self.append(&Record::CommittedSet(set), Durability::Forced, then);
        }
        durable
    }

    /// Forgets the answers in segments that are about to be deleted.
    pub(super) fn forget_through(&mut self, segment: u32) {
        self.history.forget_through(segment, |id| self.by_id.contains_key(&id));
        self.recent.retain(|_, position| position.segment() > segment);
    }
}

/// A record that somebody waits for is forced: a decision always, an answer where the client hears it afterwards.
pub(super) fn durability_of(entry: &Entry, active: &Active) -> Durability {
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

pub(super) fn crash_before(entry: &Entry) {
    match entry {
        Entry::Committed { .. } => crash::point(CrashPoint::BeforeDecision),
        Entry::Ended => crash::point(CrashPoint::BeforeEnd),
        Entry::Begun(_) | Entry::Answered { .. } => {}
    }
}

/// Bytes of writes and replies that one record of the log can hold; the rest of it is for names and ids.
pub(super) fn decision_bytes_max(log: &dyn DecisionLog) -> usize {
    let payload = log.payload_bytes_max();
    let own = RECORD_OWN_BYTES_MAX.min(payload / 2);
    limits::DECISION_BYTES_MAX.min(payload - own)
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
pub(super) fn fitting(record: Record, bytes_max: usize) -> Record {
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
        tracing::error!(
            %id, bytes = redo, bytes_max,
            "what a transaction with one branch wrote does not fit into the log: it is applied, but if its Redis loses \
             it, it cannot be redone"
        );
    }
    Record::Answered(answered)
}

/// Never, but as a mutant.
pub(super) fn is_sent_before_persisted(entry: &Entry) -> bool {
    mutant::is(Mutant::SendsBeforePersisted) && matches!(entry, Entry::Committed { .. })
}
