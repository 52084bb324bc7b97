//! Where the answers of ended transactions lie in the log: by public id and by idempotency key. Ids
//! and keys are kept as 128 bits each, so that a million ended transactions cost some tens of
//! megabytes; the answers stay on disk.
//!
//! What replay finds is put in a row and sorted once, which takes a third of the time and half of
//! the memory of a hash map. What ends afterwards goes into a map beside it.

use std::collections::{BTreeMap, HashMap};

use assent_common::log::LogPosition;
use assent_common::record::{EndedByHand, Identity, Record};
use assent_common::{Attempt, IdempotencyKey, ParticipantName, TransactionId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// 128 bits of a name, in halves: an entry of a map then takes 24 bytes, where a `u128` would have
/// it aligned to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name(u64, u64);

impl From<u128> for Name {
    fn from(bits: u128) -> Self {
        Self((bits >> 64) as u64, bits as u64)
    }
}

impl From<Name> for u128 {
    fn from(Name(high, low): Name) -> Self {
        Self::from(high) << 64 | Self::from(low)
    }
}

impl From<TransactionId> for Name {
    fn from(id: TransactionId) -> Self {
        id.uuid().as_u128().into()
    }
}

impl From<&IdempotencyKey> for Name {
    /// Of the key's SHA-256: no two keys of anybody's meet.
    fn from(key: &IdempotencyKey) -> Self {
        let digest = Sha256::digest(key.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        u128::from_be_bytes(first).into()
    }
}

/// Where the answers of names lie.
#[derive(Debug, Default)]
struct Index {
    /// Of the replay; sorted, each name once.
    replayed: Vec<(Name, LogPosition)>,
    /// Of this life; it overrules the row.
    added: HashMap<Name, LogPosition>,
}

impl Index {
    fn of_replay(mut replayed: Vec<(Name, LogPosition)>) -> Self {
        replayed.sort_unstable();
        // Of a name that came twice, the later record answers.
        replayed.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = later.1;
            }
            is_same
        });
        replayed.shrink_to_fit();
        Self { replayed, added: HashMap::new() }
    }

    fn insert(&mut self, name: Name, position: LogPosition) {
        if let Some(known) = self.in_row(name) {
            self.replayed[known].1 = position;
        } else {
            self.added.insert(name, position);
        }
    }

    fn get(&self, name: Name) -> Option<LogPosition> {
        let replayed = || self.in_row(name).map(|place| self.replayed[place].1);
        self.added.get(&name).copied().or_else(replayed)
    }

    fn in_row(&self, name: Name) -> Option<usize> {
        self.replayed.binary_search_by_key(&name, |(name, _)| *name).ok()
    }

    fn retain(&mut self, keep: impl Fn(LogPosition) -> bool) {
        self.replayed.retain(|(_, position)| keep(*position));
        self.added.retain(|_, position| keep(*position));
        self.replayed.shrink_to_fit();
        self.added.shrink_to_fit();
    }

    fn names(&self) -> impl Iterator<Item = Name> {
        self.replayed.iter().map(|(name, _)| *name).chain(self.added.keys().copied())
    }

    fn len(&self) -> usize {
        self.replayed.len() + self.added.len()
    }
}

/// What replay finds; becomes a [`History`] when it is over.
#[derive(Debug, Default)]
pub(crate) struct ReplayedHistory {
    by_id: Vec<(Name, LogPosition)>,
    by_key: Vec<(Name, LogPosition)>,
    abandoned: HashMap<TransactionId, Vec<(ParticipantName, Option<Attempt>)>>,
    by_hand: HashMap<TransactionId, Vec<EndedByHand>>,
}

impl ReplayedHistory {
    /// Takes the next record.
    pub(crate) fn apply(&mut self, position: LogPosition, record: &Record) {
        match record {
            Record::Committed(committed) => self.answered(&committed.identity, position),
            Record::Answered(answered) => self.answered(&answered.identity, position),
            Record::Abandoned(abandoned) => {
                let of_id = self.abandoned.entry(abandoned.id).or_default();
                of_id.push((abandoned.participant.clone(), abandoned.attempt));
            }
            Record::EndedByHand(_) => remember(&mut self.by_hand, record),
            Record::Begun(_)
            | Record::Ended(_)
            | Record::CommittedSet(_)
            | Record::ParticipantSet(_)
            | Record::ParticipantRemoved(_)
            | Record::DataSeen(_)
            | Record::LossAccepted(_)
            | Record::LifeBegan(_)
            | Record::SealKey(_)
            | Record::Acknowledged(_) => {}
        }
    }

    fn answered(&mut self, identity: &Identity, position: LogPosition) {
        self.by_id.push((identity.id.into(), position));
        self.by_key.extend(identity.key.as_ref().map(|key| (key.into(), position)));
    }

    /// All of it.
    #[must_use]
    pub(crate) fn finish(self) -> History {
        History {
            by_id: Index::of_replay(self.by_id),
            by_key: Index::of_replay(self.by_key),
            abandoned: self.abandoned,
            by_hand: self.by_hand,
            forgotten: 0,
        }
    }
}

/// Notes a branch that was ended by hand, once.
fn remember(by_hand: &mut HashMap<TransactionId, Vec<EndedByHand>>, record: &Record) {
    let Record::EndedByHand(found) = record else { return };
    let known = by_hand.entry(found.id).or_default();
    let is_same = |other: &EndedByHand| {
        other.participant == found.participant && other.outcome == found.outcome
    };
    if !known.iter().any(is_same) {
        known.push(found.clone());
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct History {
    by_id: Index,
    by_key: Index,
    /// Branches that operators have given up; few.
    abandoned: HashMap<TransactionId, Vec<(ParticipantName, Option<Attempt>)>>,
    /// Branches that operators have ended by hand, against the outcome; few.
    by_hand: HashMap<TransactionId, Vec<EndedByHand>>,
    /// Segments up to this one are deleted, or about to be.
    forgotten: u32,
}

impl History {
    /// Remembers where a transaction's answer lies.
    pub(crate) fn insert(&mut self, identity: &Identity, position: LogPosition) {
        self.by_id.insert(identity.id.into(), position);
        if let Some(key) = &identity.key {
            self.by_key.insert(key.into(), position);
        }
    }

    /// Remembers that an operator has given up a branch, so that nobody says later that it was
    /// applied.
    pub(crate) fn abandoned(
        &mut self,
        id: TransactionId,
        participant: &ParticipantName,
        attempt: Attempt,
    ) {
        self.abandoned.entry(id).or_default().push((participant.clone(), Some(attempt)));
    }

    /// The branches of a transaction that were given up in the attempt that it ended with.
    #[must_use]
    pub fn abandoned_of(&self, id: TransactionId, with: Attempt) -> Vec<ParticipantName> {
        let given_up = self.abandoned.get(&id).into_iter().flatten();
        let of_it = given_up.filter(|(_, attempt)| attempt.is_none_or(|named| named == with));
        of_it.map(|(participant, _)| participant.clone()).collect()
    }

    /// Remembers that an operator has ended a branch by hand, against the outcome.
    pub(crate) fn ended_by_hand(&mut self, record: &Record) {
        remember(&mut self.by_hand, record);
    }

    /// The branches of a transaction that were ended so.
    #[must_use]
    pub fn by_hand_of(&self, id: TransactionId) -> Vec<EndedByHand> {
        self.by_hand.get(&id).cloned().unwrap_or_default()
    }

    /// All branches of a participant that were ended so.
    pub fn by_hand_at(&self, name: &ParticipantName) -> impl Iterator<Item = &EndedByHand> {
        self.by_hand.values().flatten().filter(move |it| it.participant == *name)
    }

    /// Forgets everything up to a segment, which is about to be deleted. Of a transaction that has
    /// not ended, the overrides stay.
    pub(crate) fn forget_through(
        &mut self,
        segment: u32,
        is_active: impl Fn(TransactionId) -> bool,
    ) {
        self.forgotten = segment;
        self.by_id.retain(|position| position.segment() > segment);
        self.by_key.retain(|position| position.segment() > segment);
        let is_kept = |id: TransactionId| is_active(id) || self.by_id.get(id.into()).is_some();
        self.abandoned.retain(|id, _| is_kept(*id));
        self.by_hand.retain(|id, _| is_kept(*id));
    }

    /// Whether a record lies in a segment that is still there.
    pub(crate) fn keeps(&self, position: LogPosition) -> bool {
        position.segment() > self.forgotten
    }

    /// The answers with the greatest ids, which are the latest.
    pub(crate) fn latest(&self, max: usize) -> BTreeMap<TransactionId, LogPosition> {
        let mut ids: Vec<Name> = self.by_id.names().collect();
        if ids.len() > max {
            let oldest = ids.len() - max;
            ids.select_nth_unstable(oldest);
            ids.drain(..oldest);
        }
        let id_of = |id: Name| TransactionId::new(Uuid::from_u128(id.into())).ok();
        ids.into_iter().filter_map(|id| Some((id_of(id)?, self.by_id.get(id)?))).collect()
    }

    /// Where the answer of an id lies.
    #[must_use]
    pub fn by_id(&self, id: TransactionId) -> Option<LogPosition> {
        self.by_id.get(id.into())
    }

    /// Where the answer of a key lies.
    #[must_use]
    pub fn by_key(&self, key: &IdempotencyKey) -> Option<LogPosition> {
        self.by_key.get(key.into())
    }

    /// How many answers can be looked up.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u64, key: &str) -> Identity {
        let id = format!("0198f1c2-a4b2-7c1d-9c0e-{n:012x}").parse().unwrap();
        let key = key.parse().ok();
        Identity {
            id,
            key,
            fingerprint: None,
            name: None,
            created_at: assent_common::time::Millis(0),
        }
    }

    fn position(segment: u32, offset: u32) -> LogPosition {
        LogPosition::new(segment, offset)
    }

    /// Three transactions of a replay, out of order; the first comes again, as after a compaction.
    fn replayed() -> History {
        let mut replay = ReplayedHistory::default();
        let at = [(3, "c", (1, 8)), (1, "a", (1, 16)), (2, "b", (2, 8)), (1, "a", (3, 8))];
        for (n, key, (segment, offset)) in at {
            replay.answered(&identity(n, key), position(segment, offset));
        }
        replay.finish()
    }

    #[test]
    fn what_replay_found_is_found_by_id_and_by_key_and_the_later_copy_answers() {
        let history = replayed();
        assert_eq!(history.answers(), 3);
        for (n, key, at) in [(1, "a", (3, 8)), (2, "b", (2, 8)), (3, "c", (1, 8))] {
            let found = Some(position(at.0, at.1));
            assert_eq!(history.by_id(identity(n, key).id), found);
            assert_eq!(history.by_key(&key.parse().unwrap()), found);
        }
        assert_eq!(history.by_id(identity(4, "d").id), None);
        assert_eq!(history.by_key(&"d".parse().unwrap()), None);
    }

    #[test]
    fn what_is_added_is_found_beside_it_and_what_comes_again_is_moved() {
        let mut history = replayed();
        history.insert(&identity(4, "d"), position(4, 8));
        history.insert(&identity(2, "b"), position(4, 16));
        assert_eq!(history.answers(), 4);
        assert_eq!(history.by_key(&"d".parse().unwrap()), Some(position(4, 8)));
        assert_eq!(history.by_id(identity(2, "b").id), Some(position(4, 16)));
        let latest: Vec<_> = history.latest(2).into_keys().collect();
        assert_eq!(latest, [identity(3, "c").id, identity(4, "d").id]);
    }

    /// What an operator did by hand is shown for as long as the transaction is, and no longer; a
    /// copy says nothing new.
    #[test]
    fn what_was_ended_by_hand_is_kept_with_its_transaction() {
        let mut history = replayed();
        let record = |n: u64| {
            Record::EndedByHand(EndedByHand {
                number: assent_common::TxNumber { epoch: assent_common::Epoch(1), n },
                id: identity(n, "").id,
                participant: "bank-a".parse().unwrap(),
                outcome: assent_common::outcome::Heuristic::Aborted,
                detail: "by ana".to_owned(),
            })
        };
        for n in [1, 1, 2, 4] {
            history.ended_by_hand(&record(n));
        }
        let count = |history: &History| history.by_hand_at(&"bank-a".parse().unwrap()).count();
        assert_eq!(count(&history), 3);
        // The second one is deleted, the fourth has not ended.
        history.forget_through(2, |id| id == identity(4, "").id);
        assert_eq!(count(&history), 2);
        assert!(history.by_hand_of(identity(2, "").id).is_empty());
    }

    #[test]
    fn what_lies_in_deleted_segments_is_forgotten_and_the_rest_is_not() {
        let mut history = replayed();
        history.insert(&identity(4, "d"), position(4, 8));
        history.forget_through(2, |_| false);
        assert_eq!(history.answers(), 2);
        assert!(!history.keeps(position(2, 8)) && history.keeps(position(3, 8)));
        assert_eq!(history.by_key(&"a".parse().unwrap()), Some(position(3, 8)));
        assert_eq!(history.by_key(&"c".parse().unwrap()), None);
        assert_eq!(history.by_id(identity(4, "d").id), Some(position(4, 8)));
    }
}
