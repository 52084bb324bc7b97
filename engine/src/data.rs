//! What is known of the data behind a participant, and where its resynchronisation stands: the
//! state of the acting half of `common`'s `coordinator::resync`. Whoever drives it asks the
//! participant, reads the log and says what it has.

use assent_common::coordinator::Hearing;
use assent_common::coordinator::resync::{Redone, Seen};
use assent_common::record::{DataSeen, Record};
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, FoundData, Progress, RedoBranch};
use assent_common::wire::transaction::ParticipantData;
use assent_common::{LogId, ParticipantName};

use crate::lane::Incoming;

/// Bytes of writes in one part; in base64, far below what a participant takes.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Branches in one part.
const PART_BRANCHES_MAX: usize = 10_000;

/// What a lane knows of its participant's data.
#[derive(Debug, Default)]
pub struct LaneData {
    /// What was heard of it, and what the log has let go of.
    pub seen: Seen,
    /// How many branches had ended in the data, as it said last in this life.
    pub(crate) progress: Option<Progress>,
    /// Whether a resynchronisation is under way.
    pub resyncs: bool,
    /// What holds it up, for people.
    pub trouble: Option<String>,
    /// Whether that is a loss that only an operator can put up with.
    pub(crate) is_lost: bool,
    /// The data that is found now.
    found: Option<FoundData>,
    /// The data for which an operator put up with what is missing: a loss, or another log's word.
    accepted: Option<FoundData>,
}

impl LaneData {
    /// Takes note of what answers say of the data, before the machines hear them. `known` is what
    /// was known when they were asked for. Whether the data is fenced.
    pub(crate) fn heard(&mut self, known: Option<DataPoint>, came: &mut [Incoming]) -> bool {
        let mut hearing = Hearing::new(&mut self.seen, known, self.resyncs);
        let mut is_fenced = false;
        for (_, from) in came {
            is_fenced |= hearing.hear(&mut from.answer);
        }
        is_fenced
    }

    /// Takes note of how many branches have ended in the data.
    pub(crate) fn progressed(&mut self, said: Option<Progress>) {
        let known = self.seen.known.map(|known| known.incarnation);
        let Some(said) = said.filter(|said| known == Some(said.incarnation)) else { return };
        let before = self.progress.filter(|before| before.incarnation == said.incarnation);
        let ended = said.ended.max(before.map_or(0, |before| before.ended));
        self.progress = Some(Progress { ended, ..said });
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn word(&self) -> ParticipantData {
        match (self.resyncs, self.is_lost) {
            (true, true) => ParticipantData::Lost,
            (true, false) => ParticipantData::Resynchronising,
            (false, _) => ParticipantData::Open,
        }
    }

    /// The participant was asked what its data is. Fenced data is to be made whole; other data is
    /// open, as what is returned if that is what became of the data that was known.
    pub(crate) fn found(&mut self, log_id: LogId, found: &DataView) -> Option<Option<DataPoint>> {
        self.found = found.fenced.then(|| found.found());
        if found.fenced {
            return None;
        }
        let served = self.seen.known.is_some_and(|known| found.has_served(log_id, known));
        let incarnation = found.incarnation.filter(|_| served);
        Some(incarnation.map(|incarnation| DataPoint { incarnation, seq: found.seq }))
    }

    /// Nothing is left of a loss.
    pub(crate) fn made_whole(&mut self) {
        *self = Self { seen: self.seen, ..Self::default() };
    }

    /// Takes note of what holds the resynchronisation up. Whether that is new.
    pub(crate) fn held_up(&mut self, trouble: String, is_lost: bool) -> bool {
        let is_new = self.trouble.as_ref() != Some(&trouble);
        (self.trouble, self.is_lost) = (Some(trouble), is_lost);
        is_new
    }

    /// Whether an operator has put up with what this data lacks.
    #[must_use]
    pub fn is_accepted(&self, found: &DataView) -> bool {
        self.accepted.is_some_and(|accepted| accepted.is_same_data(found.found()))
    }

    /// An operator puts up with what the data lacks now: what that is, if there is anything.
    pub(crate) fn accept(&mut self) -> Option<String> {
        let (found, trouble) = (self.found?, self.trouble.clone()?);
        self.accepted = Some(found);
        Some(trouble)
    }
}

/// The record that says what is known of a participant's data.
pub(crate) fn data_seen(participant: &ParticipantName, known: DataPoint, retired: u64) -> Record {
    let DataPoint { incarnation, seq } = known;
    Record::DataSeen(DataSeen { participant: participant.clone(), incarnation, seq, retired })
}

/// Cuts a word into parts; a word without a branch has one.
#[must_use]
pub fn parts_of_word(redo: Vec<Redone>) -> Vec<Vec<RedoBranch>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for Redone { seq, txid, redo } in redo {
        bytes += redo.len();
        let branch = RedoBranch { txid, seq, redo: Base64(redo) };
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES_MAX && part.len() < PART_BRANCHES_MAX => {
                part.push(branch);
            }
            _ => {
                bytes = branch.redo.0.len();
                parts.push(vec![branch]);
            }
        }
    }
    parts
}
