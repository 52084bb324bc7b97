//! What is known of the data behind a participant; `resync.rs` has it made whole when it lost
//! something.

use assent_common::coordinator::Hearing;
use assent_common::coordinator::resync::Seen;
use assent_common::record::{DataSeen, Record};
use assent_common::wire::resync::{DataPoint, DataView, FoundData, Progress};
use assent_common::wire::transaction::ParticipantData;
use assent_common::{LogId, ParticipantName};

use crate::lane::Incoming;
use crate::resync::{KnownData, Resynchronisation};

/// What a lane knows of its participant's data.
#[derive(Debug, Default)]
pub struct LaneData {
    /// What was heard of it, and what the log has let go of.
    pub seen: Seen,
    /// How many branches had ended in the data, as it said last in this life.
    pub(crate) progress: Option<Progress>,
    /// The resynchronisation that is under way.
    pub(crate) resync: Option<Resynchronisation>,
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
    /// Whether a resynchronisation is under way.
    #[must_use]
    pub const fn resyncs(&self) -> bool {
        self.resync.is_some()
    }

    /// Takes note of what answers say of the data, before the machines hear them. `known` is what
    /// was known when they were asked for. Whether the data is fenced.
    pub(crate) fn heard(&mut self, known: Option<DataPoint>, came: &mut [Incoming]) -> bool {
        let mut hearing = Hearing::new(&mut self.seen, known, self.resync.is_some());
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

    /// The last end in the data says how many there should be, and may be what is missing: whoever
    /// was told of it knows better.
    pub(crate) fn counts_what_was_told(&self, view: &mut DataView) {
        let told = self.progress.filter(|told| view.incarnation == Some(told.incarnation));
        if let (Some(hole), Some(told)) = (&mut view.hole, told) {
            hole.expected = hole.expected.max(told.ended);
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn word(&self) -> ParticipantData {
        match (self.resyncs(), self.is_lost) {
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

    /// What is known now of data that was found.
    pub(crate) fn known(&self) -> KnownData {
        let is_found =
            |accepted: FoundData| self.found.is_some_and(|found| accepted.is_same_data(found));
        KnownData { seen: self.seen, is_accepted: self.accepted.is_some_and(is_found) }
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
