//! What is found of data, held against what was known of it: by whoever meets data that may have
//! lost some (invariants 9, 12). It knows no Redis and no words; the agent says what is wrong, and
//! fences.
//!
//! The number of the last vote tells of a tail that is missing. A server that loads its file with a
//! hole keeps that number: some drop whole transactions of the file, and keep the votes, which are
//! single writes. So each end of a branch is counted in two ways. `ended` is added to, so that an
//! end that is dropped lacks there. `expected` is written as a whole by the next vote or end.

use crate::wire::resync::DataPoint;

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

impl Found {
    /// Whether what has ended is not what was written down of it: the history has a hole, or a part
    /// of it twice.
    #[must_use]
    pub const fn has_hole(&self) -> bool {
        self.ended != self.expected
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
