//! The records of the decision log: what is written, how, and never otherwise.
//!
//! A record is a kind byte and a [postcard](https://postcard.jamesmunns.com/wire-format) payload.
//! The kind names the type *and its version*: a change of a payload's fields takes a new kind, and
//! old kinds stay readable. Golden bytes in the tests hold that. Framing and checksums are
//! [`crate::frame`]'s.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::code::ErrorCode;
use crate::ids::{Attempt, Epoch, IdempotencyKey, ParticipantName, TransactionId, TxNumber};
use crate::lives::{Life, LifeBegan, SealKey};
use crate::outcome::{Heuristic, Redo, Replies};
use crate::time::Millis;

/// One record of the decision log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Record {
    /// A one-phase transaction whose answer must survive is about to be sent; after a crash its
    /// branch is asked.
    Begun(Begun),
    /// The decision. Durable before anybody is told (invariant 4); no record means abort.
    Committed(Committed),
    /// Every branch of a committed transaction has acknowledged.
    Ended(Ended),
    /// The answer of a transaction that needs no decision record: an abort, or a one-phase commit.
    Answered(Answered),
    /// A participant was registered, or moved.
    ParticipantSet(ParticipantSet),
    /// A participant was removed.
    ParticipantRemoved(ParticipantRemoved),
    /// An operator gave up a branch (invariant 16).
    Abandoned(Abandoned),
    /// Which transactions of an epoch were committed; written before compaction deletes their
    /// records, so that presumed abort never presumes wrongly.
    CommittedSet(CommittedSet),
    /// What was seen of a participant's data: written when it is opened after a loss, and before
    /// compaction deletes the decisions that tell.
    DataSeen(DataSeen),
    /// An operator put up with a loss (invariant 16).
    LossAccepted(LossAccepted),
    /// A life of the coordinator began. Durable before anybody hears of it.
    LifeBegan(LifeBegan),
    /// The key that seals what is said of the log. Durable before anything is said under it.
    SealKey(SealKey),
    /// Some branches of a committed transaction have acknowledged, while others do not.
    Acknowledged(Acknowledged),
    /// An operator ended a branch by hand, against what the log says of it.
    EndedByHand(EndedByHand),
}

/// Who asked for what: what the public API needs to know of a transaction, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The public id.
    pub id: TransactionId,
    /// The client's key, if it sent one.
    pub key: Option<IdempotencyKey>,
    /// SHA-256 of the request's one form, where a key or an id of the client's may come again with
    /// another request. Of the body's bytes in older records.
    pub fingerprint: Option<[u8; 32]>,
    /// The label.
    pub name: Option<String>,
    /// When the coordinator took it.
    pub created_at: Millis,
}

/// See [`Record::Begun`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Begun {
    /// The transaction.
    pub number: TxNumber,
    /// The attempt about to be sent; a later one has its own record.
    pub attempt: Attempt,
    /// Who asked for what.
    pub identity: Identity,
    /// The only branch's participant.
    pub participant: ParticipantName,
}

/// See [`Record::Committed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Committed {
    /// The transaction.
    pub number: TxNumber,
    /// The attempt that commits.
    pub attempt: Attempt,
    /// Who asked for what.
    pub identity: Identity,
    /// When it was decided.
    pub decided_at: Millis,
    /// The branches, with all that is needed to apply them again.
    pub branches: Vec<CommittedBranch>,
}

/// A branch of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommittedBranch {
    /// The participant.
    pub participant: ParticipantName,
    /// The replies of its ops.
    pub replies: Replies,
    /// The resolved writes; empty for a branch that only reads.
    #[serde(with = "shared_bytes")]
    pub redo: Redo,
    /// The incarnation of the data that the vote was given on.
    pub incarnation: u64,
    /// The number of the vote.
    pub seq: u64,
}

/// See [`Record::Ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ended {
    /// The transaction.
    pub number: TxNumber,
}

/// See [`Record::Answered`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answered {
    /// The transaction.
    pub number: TxNumber,
    /// The attempt that it ended with.
    pub attempt: Attempt,
    /// Who asked for what.
    pub identity: Identity,
    /// When it was decided.
    pub decided_at: Millis,
    /// The branches' participants, in the order of the request.
    pub participants: Vec<ParticipantName>,
    /// What was answered.
    pub answer: AnswerRecord,
    /// What a committed one-phase branch wrote. A kind of its own on the disk, for those that have
    /// it.
    #[serde(skip)]
    pub written: Option<WrittenRecord>,
}

/// What a one-phase branch wrote, with all that is needed to apply it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WrittenRecord {
    /// The resolved writes.
    #[serde(with = "shared_bytes")]
    pub redo: Redo,
    /// The incarnation of the data.
    pub incarnation: u64,
    /// Its number among the votes.
    pub seq: u64,
}

/// The answer that a client got.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnswerRecord {
    /// One phase: applied, with these replies.
    Committed {
        /// The replies of the branch's ops.
        replies: Replies,
    },
    /// Aborted.
    Aborted {
        /// The place of the branch to blame, where there is one.
        branch: Option<u16>,
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
        /// The op to blame.
        op: Option<u32>,
        /// The reply that a false expectation met, as JSON text.
        reply: Option<Arc<str>>,
    },
}

/// See [`Record::ParticipantSet`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParticipantSet {
    /// Its name.
    pub name: ParticipantName,
    /// The base URL of its API.
    pub url: String,
}

/// See [`Record::ParticipantRemoved`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParticipantRemoved {
    /// Its name.
    pub name: ParticipantName,
}

/// See [`Record::Abandoned`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Abandoned {
    /// The transaction.
    pub number: TxNumber,
    /// Its public id.
    pub id: TransactionId,
    /// The participant of the branch.
    pub participant: ParticipantName,
    /// Who decided it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Millis,
    /// The attempt that the branch was given up in: it says nothing of a later one. A kind of its
    /// own on the disk; older records do not say it, and stand for any.
    #[serde(skip)]
    pub attempt: Option<Attempt>,
}

impl Abandoned {
    /// Whether the branch was given up in this attempt.
    #[must_use]
    pub fn is_of(&self, attempt: Attempt) -> bool {
        self.attempt.is_none_or(|named| named == attempt)
    }
}

/// See [`Record::CommittedSet`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommittedSet {
    /// The epoch.
    pub epoch: Epoch,
    /// The `n` of its committed transactions: a
    /// [Roaring](https://github.com/RoaringBitmap/RoaringFormatSpec) bitmap of 64-bit integers,
    /// serialised.
    pub bitmap: Vec<u8>,
    /// The attempts of those that committed at a later attempt than the first.
    pub retried: Vec<(u64, Attempt)>,
}

/// See [`Record::DataSeen`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DataSeen {
    /// The participant.
    pub participant: ParticipantName,
    /// The incarnation of its data.
    pub incarnation: u64,
    /// The highest number of a vote.
    pub seq: u64,
    /// The highest number of a committed vote whose writes the log has let go.
    pub retired: u64,
}

/// See [`Record::LossAccepted`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LossAccepted {
    /// The participant whose data was lost.
    pub participant: ParticipantName,
    /// What is lost, as it was told.
    pub loss: String,
    /// Who decided it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Millis,
}

/// See [`Record::Acknowledged`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The transaction.
    pub number: TxNumber,
    /// The participants that have applied it, and may forget that they have: they are never told
    /// again.
    pub participants: Vec<ParticipantName>,
}

/// See [`Record::EndedByHand`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedByHand {
    /// The transaction.
    pub number: TxNumber,
    /// Its public id.
    pub id: TransactionId,
    /// The participant of the branch.
    pub participant: ParticipantName,
    /// How the branch ended there.
    pub outcome: Heuristic,
    /// Who did it and why, in the participant's words.
    pub detail: String,
}

/// A payload cannot be read as its kind says. The frame's checksum was right, so this is a version
/// mismatch or a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A kind of a later version.
    #[error(
        "record kind {0} is not known to this version of Assent; use the version that wrote the log"
    )]
    UnknownKind(u8),
    /// The payload is not of its kind's shape.
    #[error("a record of kind {kind} cannot be read: {reason}")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What postcard says.
        reason: String,
    },
}

/// The kind bytes. Kind 0 belongs to the log itself. Never reuse one.
mod kind {
    pub(super) const BEGUN_V1: u8 = 1;
    pub(super) const COMMITTED_V1: u8 = 2;
    pub(super) const ENDED_V1: u8 = 3;
    pub(super) const ANSWERED_V1: u8 = 4;
    pub(super) const PARTICIPANT_SET_V1: u8 = 5;
    pub(super) const PARTICIPANT_REMOVED_V1: u8 = 6;
    pub(super) const ABANDONED_V1: u8 = 7;
    pub(super) const COMMITTED_SET_V1: u8 = 8;
    pub(super) const DATA_SEEN_V1: u8 = 9;
    pub(super) const LOSS_ACCEPTED_V1: u8 = 10;
    pub(super) const ANSWERED_WRITTEN_V1: u8 = 11;
    pub(super) const LIFE_BEGAN_V1: u8 = 12;
    pub(super) const ACKNOWLEDGED_V1: u8 = 13;
    pub(super) const ENDED_BY_HAND_V1: u8 = 14;
    pub(super) const LIFE_BEGAN_V2: u8 = 15;
    pub(super) const ABANDONED_V2: u8 = 16;
    pub(super) const SEAL_KEY_V1: u8 = 17;
}

impl Record {
    /// The kind byte and the payload.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Begun(record) => (kind::BEGUN_V1, payload(record)),
            Self::Committed(record) => (kind::COMMITTED_V1, payload(record)),
            Self::Ended(record) => (kind::ENDED_V1, payload(record)),
            Self::Answered(record) => match &record.written {
                None => (kind::ANSWERED_V1, payload(record)),
                Some(written) => (kind::ANSWERED_WRITTEN_V1, payload(&(record, written))),
            },
            Self::ParticipantSet(record) => (kind::PARTICIPANT_SET_V1, payload(record)),
            Self::ParticipantRemoved(record) => (kind::PARTICIPANT_REMOVED_V1, payload(record)),
            Self::Abandoned(record) => match record.attempt {
                None => (kind::ABANDONED_V1, payload(record)),
                Some(attempt) => (kind::ABANDONED_V2, payload(&(record, attempt))),
            },
            Self::CommittedSet(record) => (kind::COMMITTED_SET_V1, payload(record)),
            Self::DataSeen(record) => (kind::DATA_SEEN_V1, payload(record)),
            Self::LossAccepted(record) => (kind::LOSS_ACCEPTED_V1, payload(record)),
            Self::LifeBegan(LifeBegan { life, at: None }) => (kind::LIFE_BEGAN_V1, payload(life)),
            Self::LifeBegan(LifeBegan { life, at: Some(at) }) => {
                (kind::LIFE_BEGAN_V2, payload(&(life, at)))
            }
            Self::SealKey(record) => (kind::SEAL_KEY_V1, payload(record)),
            Self::Acknowledged(record) => (kind::ACKNOWLEDGED_V1, payload(record)),
            Self::EndedByHand(record) => (kind::ENDED_BY_HAND_V1, payload(record)),
        }
    }

    /// Reads a record back.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        match kind {
            kind::BEGUN_V1 => read(kind, payload).map(Self::Begun),
            kind::COMMITTED_V1 => read(kind, payload).map(Self::Committed),
            kind::ENDED_V1 => read(kind, payload).map(Self::Ended),
            kind::ANSWERED_V1 => read(kind, payload).map(Self::Answered),
            kind::PARTICIPANT_SET_V1 => read(kind, payload).map(Self::ParticipantSet),
            kind::PARTICIPANT_REMOVED_V1 => read(kind, payload).map(Self::ParticipantRemoved),
            kind::ABANDONED_V1 => read(kind, payload).map(Self::Abandoned),
            kind::ABANDONED_V2 => {
                let (abandoned, attempt) = read::<(Abandoned, Attempt)>(kind, payload)?;
                Ok(Self::Abandoned(Abandoned { attempt: Some(attempt), ..abandoned }))
            }
            kind::COMMITTED_SET_V1 => read(kind, payload).map(Self::CommittedSet),
            kind::DATA_SEEN_V1 => read(kind, payload).map(Self::DataSeen),
            kind::LOSS_ACCEPTED_V1 => read(kind, payload).map(Self::LossAccepted),
            kind::LIFE_BEGAN_V1 => {
                read(kind, payload).map(|life| Self::LifeBegan(LifeBegan { life, at: None }))
            }
            kind::LIFE_BEGAN_V2 => {
                let (life, at) = read::<(Life, u64)>(kind, payload)?;
                Ok(Self::LifeBegan(LifeBegan { life, at: Some(at) }))
            }
            kind::SEAL_KEY_V1 => read(kind, payload).map(Self::SealKey),
            kind::ACKNOWLEDGED_V1 => read(kind, payload).map(Self::Acknowledged),
            kind::ENDED_BY_HAND_V1 => read(kind, payload).map(Self::EndedByHand),
            kind::ANSWERED_WRITTEN_V1 => {
                let (answered, written) = read::<(Answered, WrittenRecord)>(kind, payload)?;
                Ok(Self::Answered(Answered { written: Some(written), ..answered }))
            }
            kind => Err(DecodeError::UnknownKind(kind)),
        }
    }

    /// The numbers of the committed votes whose writes the record holds, each with its participant.
    pub fn votes(&self) -> impl Iterator<Item = (&ParticipantName, u64)> {
        let branches = match self {
            Self::Committed(committed) => &committed.branches[..],
            _ => &[],
        };
        let one_phase = match self {
            Self::Answered(Answered { participants, written: Some(written), .. }) => {
                participants.first().map(|participant| (participant, written.seq))
            }
            _ => None,
        };
        branches.iter().map(|branch| (&branch.participant, branch.seq)).chain(one_phase)
    }

    /// The transaction that the record is about, where it is about one.
    #[must_use]
    pub const fn number(&self) -> Option<TxNumber> {
        match self {
            Self::Begun(Begun { number, .. })
            | Self::Committed(Committed { number, .. })
            | Self::Ended(Ended { number })
            | Self::Answered(Answered { number, .. })
            | Self::Acknowledged(Acknowledged { number, .. })
            | Self::EndedByHand(EndedByHand { number, .. })
            | Self::Abandoned(Abandoned { number, .. }) => Some(*number),
            Self::ParticipantSet(_)
            | Self::ParticipantRemoved(_)
            | Self::CommittedSet(_)
            | Self::DataSeen(_)
            | Self::LossAccepted(_)
            | Self::LifeBegan(_)
            | Self::SealKey(_) => None,
        }
    }
}

fn payload<T: Serialize>(record: &T) -> Vec<u8> {
    // Serialising into memory fails only for types without a known length; the records have none.
    postcard::to_stdvec(record).unwrap_or_else(|error| unreachable!("a record serialises: {error}"))
}

fn read<'de, T: Deserialize<'de>>(kind: u8, payload: &'de [u8]) -> Result<T, DecodeError> {
    let malformed = |reason: String| DecodeError::Malformed { kind, reason };
    let (record, rest) =
        postcard::take_from_bytes(payload).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(malformed(format!("{} bytes too many", rest.len())))
    }
}

/// Shared bytes as one run, where serde's default would write element by element.
mod shared_bytes {
    use super::{Arc, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Arc<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[u8]>, D::Error> {
        <&'de [u8]>::deserialize(deserializer).map(Arc::from)
    }
}

#[cfg(test)]
mod tests;
