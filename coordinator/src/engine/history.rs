//! Where the answers of ended transactions lie in the log: by public id and by idempotency key. Ids and keys are kept as
//! 128 bits each, so that a million ended transactions cost some tens of megabytes; the answers stay on disk.

use std::collections::{BTreeMap, HashMap};

use assent_common::record::{Identity, Record};
use assent_common::{IdempotencyKey, ParticipantName, TransactionId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::log::LogPosition;

/// The index.
#[derive(Debug, Default)]
pub struct History {
    by_id: HashMap<u128, LogPosition>,
    by_key: HashMap<u128, LogPosition>,
    /// Branches that operators have given up; few.
    abandoned: HashMap<TransactionId, Vec<ParticipantName>>,
    /// Segments up to this one are deleted, or about to be.
    forgotten: u32,
}

impl History {
    /// Takes a record of replay.
    pub(crate) fn apply(&mut self, position: LogPosition, record: &Record) {
        match record {
            Record::Committed(committed) => self.insert(&committed.identity, position),
            Record::Answered(answered) => self.insert(&answered.identity, position),
            Record::Abandoned(abandoned) => self.abandoned(abandoned.id, &abandoned.participant),
            Record::Begun(_)
            | Record::Ended(_)
            | Record::CommittedSet(_)
            | Record::ParticipantSet(_)
            | Record::ParticipantRemoved(_)
            | Record::DataSeen(_)
            | Record::LossAccepted(_) => {}
        }
    }

    /// Remembers where a transaction's answer lies.
    pub(crate) fn insert(&mut self, identity: &Identity, position: LogPosition) {
        self.by_id.insert(identity.id.uuid().as_u128(), position);
        if let Some(key) = &identity.key {
            self.by_key.insert(key_hash(key), position);
        }
    }

    /// Remembers that an operator has given up a branch, so that nobody says later that it was applied.
    pub(super) fn abandoned(&mut self, id: TransactionId, participant: &ParticipantName) {
        self.abandoned.entry(id).or_default().push(participant.clone());
    }

    /// The branches of a transaction that were given up.
    pub(super) fn abandoned_of(&self, id: TransactionId) -> Vec<ParticipantName> {
        self.abandoned.get(&id).cloned().unwrap_or_default()
    }

    /// Forgets everything up to a segment, which is about to be deleted.
    pub(crate) fn forget_through(&mut self, segment: u32) {
        self.forgotten = segment;
        self.by_id.retain(|_, position| position.segment() > segment);
        self.by_key.retain(|_, position| position.segment() > segment);
        self.abandoned.retain(|id, _| self.by_id.contains_key(&id.uuid().as_u128()));
        self.by_id.shrink_to_fit();
        self.by_key.shrink_to_fit();
    }

    /// Whether a record lies in a segment that is still there.
    pub(super) fn keeps(&self, position: LogPosition) -> bool {
        position.segment() > self.forgotten
    }

    /// The answers with the greatest ids, which are the latest.
    pub(super) fn latest(&self, max: usize) -> BTreeMap<TransactionId, LogPosition> {
        let mut ids: Vec<u128> = self.by_id.keys().copied().collect();
        if ids.len() > max {
            let oldest = ids.len() - max;
            ids.select_nth_unstable(oldest);
            ids.drain(..oldest);
        }
        let id_of = |id: u128| TransactionId::new(Uuid::from_u128(id)).ok();
        ids.into_iter().filter_map(|id| Some((id_of(id)?, *self.by_id.get(&id)?))).collect()
    }

    pub(super) fn by_id(&self, id: TransactionId) -> Option<LogPosition> {
        self.by_id.get(&id.uuid().as_u128()).copied()
    }

    pub(super) fn by_key(&self, key: &IdempotencyKey) -> Option<LogPosition> {
        self.by_key.get(&key_hash(key)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// 128 bits of the key's SHA-256: no two keys of anybody's meet.
fn key_hash(key: &IdempotencyKey) -> u128 {
    let digest = Sha256::digest(key.as_str().as_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}
