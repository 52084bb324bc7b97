//! The lives of a log: which process lives it has had, so that a participant can tell an old or forked copy of it.
//!
//! Each life of a coordinator draws a number at random, its **nonce**, and has it in the log before it says anything to
//! anybody. A participant keeps the newest life that it has heard. The next life proves that it is a successor: its log
//! has the life that the participant remembers. A copy of before that life does not have it, however often it is started
//! and however high its epoch gets; nor has one of two copies the life of the other.
//!
//! ```text
//! the log:        1/a ── 2/b ── 3/c ── 4/d          participants remember 4/d
//! its old copy:          2/b ── 3/x ── 4/y ── 5/z   3/x, 4/y, 5/z: none comes after 4/d
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::Epoch;
use crate::limits::LIVES_MAX;

/// One process life of a coordinator.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Its epoch.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// Drawn at random when it began.
    pub nonce: u64,
}

/// What a coordinator says of its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Its nonce.
    pub nonce: u64,
    /// The lives before it that its log has, oldest first: said until the participant has answered once. Without them
    /// nothing is proven, and the life is not remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<Life>>,
}

/// The lives that a log has, but for those that are very old.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives(BTreeMap<Epoch, u64>);

/// What a participant makes of a life that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It may speak, and nothing is new.
    Known,
    /// It may speak, and is the newest that was heard.
    Newest,
    /// The log that speaks is an old or a forked copy: the life that is remembered is not in it.
    Stale,
}

impl Lives {
    /// Takes a life, from replay or when it begins.
    pub fn began(&mut self, life: Life) {
        self.0.insert(life.epoch, life.nonce);
        while self.0.len() > LIVES_MAX {
            self.0.pop_first();
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Life> {
        self.0.iter().map(|(&epoch, &nonce)| Life { epoch, nonce })
    }

    /// The lives before this one, oldest first.
    #[must_use]
    pub fn before(&self, epoch: Epoch) -> Vec<Life> {
        self.iter().take_while(|life| life.epoch < epoch).collect()
    }
}

/// What a participant that remembers a life makes of this one.
#[must_use]
pub fn hear(remembered: Option<Life>, epoch: Epoch, proof: &Proof) -> Heard {
    let Some(remembered) = remembered else {
        return if proof.before.is_some() { Heard::Newest } else { Heard::Known };
    };
    if epoch == remembered.epoch {
        return if proof.nonce == remembered.nonce { Heard::Known } else { Heard::Stale };
    }
    if epoch < remembered.epoch {
        return Heard::Stale;
    }
    let Some(before) = &proof.before else { return Heard::Known };
    // The log may have let go of it, if it still has as many as it ever keeps.
    let is_older = before.first().is_none_or(|oldest| remembered.epoch < oldest.epoch);
    let may_be_gone = is_older && before.len() + 1 >= LIVES_MAX;
    if may_be_gone || before.contains(&remembered) { Heard::Newest } else { Heard::Stale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(epoch: u64, nonce: u64) -> Life {
        Life { epoch: Epoch(epoch), nonce }
    }

    fn lives(all: &[(u64, u64)]) -> Lives {
        let mut lives = Lives::default();
        all.iter().for_each(|(epoch, nonce)| lives.began(life(*epoch, *nonce)));
        lives
    }

    /// The newest life of a log speaks to a participant.
    fn speaks(log: &Lives, remembered: Option<Life>) -> Heard {
        let last = log.iter().last().unwrap();
        let proof = Proof { nonce: last.nonce, before: Some(log.before(last.epoch)) };
        hear(remembered, last.epoch, &proof)
    }

    #[test]
    fn a_successor_is_heard_whatever_life_is_remembered() {
        let log = lives(&[(1, 11), (2, 12), (3, 13), (4, 14)]);
        for (remembered, heard) in [
            (None, Heard::Newest),
            (Some(life(1, 11)), Heard::Newest),
            (Some(life(3, 13)), Heard::Newest),
            (Some(life(4, 14)), Heard::Known),
        ] {
            assert_eq!(speaks(&log, remembered), heard, "{remembered:?}");
        }
    }

    /// D2: with each start a copy closed the gap of epochs by one, and in the end was taken for the log.
    #[test]
    fn an_old_copy_is_stale_however_often_it_starts() {
        let remembered = Some(life(7, 17));
        let mut copy = lives(&[(3, 13), (4, 14)]);
        for epoch in 5..50 {
            copy.began(life(epoch, 100 + epoch));
            assert_eq!(speaks(&copy, remembered), Heard::Stale, "epoch {epoch}");
        }
    }

    #[test]
    fn two_copies_of_one_life_are_told_apart_by_their_nonces() {
        let fork = lives(&[(4, 14), (5, 25)]);
        assert_eq!(speaks(&fork, Some(life(5, 15))), Heard::Stale);
    }

    #[test]
    fn a_life_without_a_proof_is_not_remembered() {
        let proof = Proof { nonce: 18, before: None };
        assert_eq!(hear(Some(life(7, 17)), Epoch(8), &proof), Heard::Known);
        assert_eq!(hear(None, Epoch(8), &proof), Heard::Known);
    }

    #[test]
    fn a_log_keeps_some_lives_and_a_participant_that_was_away_for_longer_is_not_refused() {
        let mut log = Lives::default();
        (1..=2 * LIVES_MAX as u64).for_each(|epoch| log.began(life(epoch, epoch)));
        assert_eq!(log.iter().count(), LIVES_MAX);
        assert_eq!(speaks(&log, Some(life(3, 3))), Heard::Newest);
        let foreign = Some(life(2 * LIVES_MAX as u64 - 5, 3));
        assert_eq!(speaks(&log, foreign), Heard::Stale);
    }
}
