//! What is found of data, held against what was known of it: by whoever meets data that may have
//! lost some (invariants 9, 12). It knows no Redis and no words; the agent says what is wrong, and
//! fences.
//!
//! The number of the last vote tells of a tail that is missing. A server that loads its file with a
//! hole keeps that number: some drop whole transactions of the file, and keep the votes, which are
//! single writes. So each end of a branch is counted in two ways. `ended` is added to, so that an
//! end that is dropped lacks there. `expected` is written as a whole by the next vote or end.

use crate::wire::resync::{DataPoint, Hole, Progress};

/// What the control hash says of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its incarnation.
    pub incarnation: Option<u64>,
    /// The number of the last vote.
    pub seq: u64,
    /// How many branches have ended, as every end added to it.
    pub ended: u64,
    /// The same, as the last vote or end wrote it.
    pub expected: u64,
}

/// What is known of data: by an agent, or by a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The data, and the highest number of a vote.
    pub data: DataPoint,
    /// How many branches had ended, at least.
    pub ended: u64,
}

/// The incarnation that fenced data has: no script is of it.
pub const FENCED: u64 = 0;

/// The incarnation of no data: that of an agent that began with fenced data, and so knows none.
pub const NO_DATA: u64 = u64::MAX;

/// What an agent knows of the data that it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnData {
    /// The data, as it has seen it.
    pub known: Known,
    /// Whether it has found that the data is not that any more.
    pub is_quarantined: bool,
}

/// What data is to an agent that has looked at it for a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It serves this data.
    Serves(DataPoint),
    /// It is fenced: nothing is done for anybody before it is repaired.
    Fenced,
    /// It is not what is known of it. Unless a repair has taken the report of that coordinator's
    /// log, it is to be fenced.
    Unlike,
}

/// What data is to an agent that has looked at it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLook {
    /// What it knew.
    Same,
    /// It is open, and is what became by a repair of what the agent knew: it goes on with this.
    Repaired(DataPoint),
    /// It is not what it knew, and is served no more, before a coordinator has told what it is.
    Other {
        /// In what way.
        mismatch: Mismatch,
        /// Whether it is to be fenced. What has an incarnation of its own may have been repaired by
        /// another agent.
        fences: bool,
    },
}

/// How data is not what was known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is other data.
    Incarnation,
    /// Its last votes are missing.
    Votes,
    /// Something inside its history is missing, or is there twice.
    Hole,
    /// Its last ends are missing: branches that came to their outcome may be in doubt again.
    Ended,
}

impl Known {
    /// What a coordinator knows. What it was told of ends in other data says nothing.
    #[must_use]
    pub fn told(data: DataPoint, progress: Option<Progress>) -> Self {
        let of_it = progress.filter(|progress| progress.incarnation == data.incarnation);
        Self { data, ended: of_it.map_or(0, |progress| progress.ended) }
    }
}

impl OwnData {
    /// An agent begins, and knows what it finds: of fenced data nothing.
    #[must_use]
    pub fn begins(found: Found) -> Self {
        let is_quarantined = found.incarnation == Some(FENCED);
        let incarnation = found.incarnation.filter(|_| !is_quarantined).unwrap_or(NO_DATA);
        let data = DataPoint { incarnation, seq: found.seq };
        Self { known: Known { data, ended: found.ended }, is_quarantined }
    }

    /// What data is that was found like this. `came_of` are the incarnations that it says it came
    /// of, by the repair that opened it.
    #[must_use]
    pub fn looks(&self, found: Found, came_of: &[u64]) -> DataLook {
        let Some(mismatch) = found.mismatch(self.known) else { return DataLook::Same };
        let own = self.known.data;
        match found.incarnation.filter(|it| ![FENCED, own.incarnation].contains(it)) {
            Some(incarnation) if self.is_before(found, came_of) => {
                DataLook::Repaired(DataPoint { incarnation, seq: found.seq })
            }
            other => DataLook::Other { mismatch, fences: other.is_none() && !found.is_fenced() },
        }
    }

    /// Whether other data came of what this agent knew. One that knew none takes what it finds, as
    /// an agent that begins. Numbers rise over incarnations.
    fn is_before(&self, found: Found, came_of: &[u64]) -> bool {
        let DataPoint { incarnation, seq } = self.known.data;
        let is_before = came_of.contains(&incarnation) && found.seq >= seq;
        !found.has_hole() && (is_before || incarnation == NO_DATA)
    }

    /// The agent goes on with data that is open. What it saw of other data says nothing of this.
    /// Whether it is other data.
    pub fn goes_on_with(&mut self, open: DataPoint) -> bool {
        let Self { known, is_quarantined } = self;
        let is_other = known.data.incarnation != open.incarnation;
        if is_other {
            (*known, *is_quarantined) = (Known { data: open, ended: 0 }, false);
        } else {
            known.data.seq = known.data.seq.max(open.seq);
        }
        is_other
    }

    /// Whether the data has all that a coordinator knows of it, as far as the agent has seen.
    #[must_use]
    pub fn has_all_of(&self, known: Option<DataPoint>, progress: Option<Progress>) -> bool {
        let DataPoint { incarnation, seq } = self.known.data;
        let has_votes =
            known.is_none_or(|known| known.incarnation == incarnation && known.seq <= seq);
        let is_of_other = |progress: Progress| progress.incarnation != incarnation;
        let has_ends = progress
            .is_none_or(|progress| is_of_other(progress) || progress.ended <= self.known.ended);
        has_votes && has_ends
    }

    /// What data is that was found like this, of which a coordinator knows this.
    #[must_use]
    pub fn meets(&self, found: Found, told: Option<Known>) -> Meeting {
        let incarnation = match found.incarnation {
            Some(FENCED) => return Meeting::Fenced,
            Some(incarnation) => incarnation,
            None => return Meeting::Unlike,
        };
        let own = self.known.data;
        let is_own = incarnation == own.incarnation;
        let serves = match told {
            // Nobody knows better: as an agent that starts takes data that it does not know.
            None => !is_own && !found.has_hole(),
            // Numbers rise over incarnations: other data with fewer votes than this agent saw is
            // not what another agent made of it, whoever knows no better.
            Some(told) => {
                let is_back = found.seq < own.seq;
                found.mismatch(told).is_none() && !is_back && !(is_own && self.is_quarantined)
            }
        };
        if serves {
            Meeting::Serves(DataPoint { incarnation, seq: found.seq })
        } else {
            Meeting::Unlike
        }
    }
}

impl Found {
    /// Whether it is fenced.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.incarnation == Some(FENCED)
    }

    /// Whether what has ended is not what was written down of it: the history has a hole, or a part
    /// of it twice.
    #[must_use]
    pub const fn has_hole(&self) -> bool {
        self.ended != self.expected
    }

    /// What lacks inside the history, if something does, for an agent that knew this; `was` is the
    /// incarnation of the data, also where it is fenced. What went with the last end is known to
    /// those who saw it.
    #[must_use]
    pub fn hole(&self, was: Option<u64>, known: Known) -> Option<Hole> {
        let seen = if was == Some(known.data.incarnation) { known.ended } else { 0 };
        self.has_hole().then(|| Hole {
            ended: self.ended,
            expected: self.expected.max(seen),
            done: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// How it is not the data that was known, if it is not.
    #[must_use]
    pub fn mismatch(&self, known: Known) -> Option<Mismatch> {
        if self.incarnation != Some(known.data.incarnation) {
            Some(Mismatch::Incarnation)
        } else if self.seq < known.data.seq {
            Some(Mismatch::Votes)
        } else if self.has_hole() {
            Some(Mismatch::Hole)
        } else {
            (self.ended < known.ended).then_some(Mismatch::Ended)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Found = Found { incarnation: Some(7), seq: 4, ended: 3, expected: 3 };

    fn point(incarnation: u64, seq: u64) -> DataPoint {
        DataPoint { incarnation, seq }
    }

    fn own(seq: u64, is_quarantined: bool) -> OwnData {
        OwnData { known: Known { data: point(7, seq), ended: 3 }, is_quarantined }
    }

    #[test]
    fn an_agent_need_not_look_where_it_has_seen_all_that_a_coordinator_knows() {
        let ended = |incarnation, ended| Some(Progress { incarnation, ended });
        let own = own(4, false);
        assert!(own.has_all_of(None, None) && own.has_all_of(Some(point(7, 4)), ended(7, 3)));
        assert!(own.has_all_of(Some(point(7, 4)), ended(8, 9)), "ends in other data say nothing");
        for (known, progress) in
            [(point(7, 5), None), (point(8, 1), None), (point(7, 4), ended(7, 4))]
        {
            assert!(!own.has_all_of(Some(known), progress), "{known:?} {progress:?}");
        }
    }

    /// Invariant 12.
    #[test]
    fn data_is_served_as_its_coordinator_knows_it_and_as_nobody_knows_better() {
        let told = |incarnation, seq| Some(Known::told(point(incarnation, seq), None));
        let served = Meeting::Serves(point(7, 4));
        assert_eq!(own(4, false).meets(FOUND, told(7, 4)), served);
        assert_eq!(own(5, false).meets(FOUND, told(7, 4)), Meeting::Unlike, "this agent saw more");
        assert_eq!(own(4, true).meets(FOUND, told(7, 4)), Meeting::Unlike);
        assert_eq!(own(4, true).meets(FOUND, None), Meeting::Unlike);
        assert_eq!(own(4, false).meets(FOUND, told(7, 5)), Meeting::Unlike);
        // Another agent has repaired it.
        let other = OwnData { known: Known { data: point(6, 3), ended: 9 }, is_quarantined: true };
        assert_eq!(other.meets(FOUND, told(7, 4)), served);
        assert_eq!(other.meets(FOUND, None), served);
        assert_eq!(other.meets(FOUND, told(6, 3)), Meeting::Unlike);
        // It is what this agent's data once was, and a log has not heard of what became of it.
        let later = OwnData { known: Known { data: point(8, 5), ended: 0 }, is_quarantined: true };
        assert_eq!(later.meets(FOUND, told(7, 4)), Meeting::Unlike);
        assert_eq!(other.meets(Found { ended: 2, ..FOUND }, None), Meeting::Unlike, "a hole");
        let fenced = Found { incarnation: Some(FENCED), ..FOUND };
        assert_eq!(other.meets(fenced, None), Meeting::Fenced);
        assert_eq!(other.meets(Found { incarnation: None, ..FOUND }, None), Meeting::Unlike);
    }

    /// Invariant 12: an agent goes on by itself with data that came of its own, and with no other.
    #[test]
    fn an_agent_that_looks_by_itself_knows_what_became_of_its_data() {
        let repaired = DataLook::Repaired(point(7, 4));
        let other = |mismatch, fences| DataLook::Other { mismatch, fences };
        let before =
            |seq| OwnData { known: Known { data: point(6, seq), ended: 9 }, is_quarantined: true };
        assert_eq!(own(4, false).looks(FOUND, &[]), DataLook::Same);
        assert_eq!(before(3).looks(FOUND, &[5, 6]), repaired);
        let of_another = other(Mismatch::Incarnation, false);
        assert_eq!(before(3).looks(FOUND, &[5]), of_another, "it may be of another history");
        assert_eq!(before(5).looks(FOUND, &[6]), of_another, "an old copy of it");
        let torn = Found { ended: 2, ..FOUND };
        assert_eq!(before(3).looks(torn, &[6]), of_another, "it has a hole");
        assert_eq!(own(4, false).looks(torn, &[7]), other(Mismatch::Hole, true));
        assert_eq!(own(5, false).looks(FOUND, &[7]), other(Mismatch::Votes, true));
        let blank = Found { incarnation: None, seq: 0, ended: 0, expected: 0 };
        assert_eq!(own(4, false).looks(blank, &[]), other(Mismatch::Incarnation, true));
        let fenced = Found { incarnation: Some(FENCED), ..FOUND };
        assert_eq!(before(3).looks(fenced, &[6]), of_another, "it is fenced already");
        // Who began with fenced data takes what it is then.
        let begun = OwnData::begins(fenced);
        assert!(begun.is_quarantined && !OwnData::begins(FOUND).is_quarantined);
        assert_eq!(begun.looks(fenced, &[]), of_another);
        assert_eq!(begun.looks(FOUND, &[]), repaired);
        assert_eq!(begun.looks(torn, &[]), of_another);
        let mut goes_on = begun;
        assert!(goes_on.goes_on_with(point(7, 4)) && !goes_on.goes_on_with(point(7, 3)));
        let known = Known { data: point(7, 4), ended: 0 };
        assert_eq!(goes_on, OwnData { known, is_quarantined: false });
    }

    #[test]
    fn each_kind_of_loss_is_told_from_the_others() {
        let found = Found { incarnation: Some(7), seq: 4, ended: 3, expected: 3 };
        let known = |incarnation, seq, ended| Known { data: DataPoint { incarnation, seq }, ended };
        assert_eq!(found.mismatch(known(7, 4, 3)), None);
        assert_eq!(found.mismatch(known(7, 2, 0)), None, "others have gone on");
        assert_eq!(found.mismatch(known(8, 4, 3)), Some(Mismatch::Incarnation));
        assert_eq!(found.mismatch(known(7, 5, 3)), Some(Mismatch::Votes));
        assert_eq!(found.mismatch(known(7, 4, 4)), Some(Mismatch::Ended));
        let blank = Found { incarnation: None, ..found };
        assert_eq!(blank.mismatch(known(7, 4, 3)), Some(Mismatch::Incarnation));
        for ended in [2, 4] {
            let torn = Found { ended, ..found };
            assert_eq!(torn.mismatch(known(7, 4, 0)), Some(Mismatch::Hole), "nobody remembers");
        }
    }
}
