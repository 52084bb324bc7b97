//! The lives of a log: which process lives it has had, so that a participant can tell an old or
//! forked copy of it.
//!
//! Each life of a coordinator draws a number at random, its **nonce**, and has it in the log before
//! it says anything to anybody. A participant keeps the newest life that it has heard. The next
//! life proves that it is a successor: its log has the life that the participant remembers. A copy
//! of before that life does not have it, however often it is started and however high its epoch
//! gets; nor has one of two copies the life of the other.
//!
//! ```text
//! the log:        1/a ── 2/b ── 3/c ── 4/d          participants remember 4/d
//! its old copy:          2/b ── 3/x ── 4/y ── 5/z   3/x, 4/y, 5/z: none comes after 4/d
//! ```
//!
//! A copy that was cut within the last life has that life too. So the coordinator says with every
//! message how far its log is on disk, as a position in it, and a participant keeps the highest
//! that it was told. When the next life begins it says where each earlier one ended: that cannot be
//! before what was told in it.
//!
//! ```text
//! the log:        ── 4/d ── decision 700 ── decision 900 ── 5/e     4 ended at 900; told: 900
//! its copy:       ── 4/d ── decision 700 ── 5/x                     4 ended at 700: cut
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::Epoch;
use crate::limits::{EPOCH_JUMP_MAX, EPOCH_MAX, LIVES_MAX, LIVES_SAID_MAX};

/// One process life of a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// Its epoch.
    pub epoch: Epoch,
    /// Drawn at random when it began.
    pub nonce: u64,
}

/// A life that began, and how far the log was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LifeBegan {
    /// The life.
    pub life: Life,
    /// The position of the last record before it. An older version did not write it down.
    pub at: Option<u64>,
}

/// A life that the log has had, as its coordinator says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PastLife {
    /// Its epoch.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// Drawn at random when it began.
    pub nonce: u64,
    /// The position of its last record in the log, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// What a coordinator says of its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Its nonce.
    pub nonce: u64,
    /// How far its log is on disk: the position of a record, so that all before it is there too.
    #[serde(default)]
    pub position: u64,
    /// The lives before it that its log has, oldest first: said until the participant has answered
    /// once. Without them nothing is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<PastLife>>,
}

/// What a participant remembers of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The newest life that it heard.
    pub life: Life,
    /// The highest position that it was told of.
    pub position: u64,
}

/// The lives that a log has, but for those that are very old.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives(BTreeMap<Epoch, LifeBegan>);

/// What a participant makes of a life that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It may speak, and nothing is new.
    Known,
    /// It may speak, and is the newest that was heard.
    Newest,
    /// It may speak when it has said the lives before it: among them that of this epoch, if one is
    /// remembered.
    Unproven(Option<Epoch>),
    /// Its epoch is farther on than any log can be.
    TooFar,
    /// The log that speaks is an old or a forked copy: the life that is remembered is not in it.
    Stale,
    /// The same: that life has ended in it before this position, of which was told.
    Cut(u64),
}

impl Lives {
    /// Takes a life, from replay or when it begins.
    pub fn began(&mut self, began: LifeBegan) {
        self.0.insert(began.life.epoch, began);
        while self.0.len() > LIVES_MAX {
            self.0.pop_first();
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = LifeBegan> {
        self.0.values().copied()
    }

    /// What is said of the lives before this one, oldest first: of the last ones, and of one that
    /// was asked for.
    #[must_use]
    pub fn before(&self, epoch: Epoch, asked: Option<Epoch>) -> Vec<PastLife> {
        let past: Vec<PastLife> = self
            .0
            .range(..epoch)
            .map(|(&of, LifeBegan { life, .. })| {
                let next = self.0.range(of..).nth(1);
                PastLife { epoch: of, nonce: life.nonce, end: next.and_then(|(_, began)| began.at) }
            })
            .collect();
        let first = past.len().saturating_sub(LIVES_SAID_MAX);
        let asked = past[..first].iter().filter(|life| Some(life.epoch) == asked);
        asked.chain(&past[first..]).copied().collect()
    }

    /// Whether the log has this life.
    #[must_use]
    pub fn has(&self, epoch: Epoch) -> bool {
        self.0.contains_key(&epoch)
    }
}

/// What a participant that remembers this of a log makes of a life of it.
#[must_use]
pub fn hear(remembered: Option<Remembered>, epoch: Epoch, proof: &Proof) -> Heard {
    if epoch.0 > EPOCH_MAX {
        return Heard::TooFar;
    }
    let Some(Remembered { life, position }) = remembered else {
        return if proof.before.is_some() { Heard::Newest } else { Heard::Unproven(None) };
    };
    if epoch == life.epoch {
        return if proof.nonce == life.nonce { Heard::Known } else { Heard::Stale };
    }
    if epoch < life.epoch {
        return Heard::Stale;
    }
    if epoch.0 - life.epoch.0 > EPOCH_JUMP_MAX {
        return Heard::TooFar;
    }
    let Some(before) = &proof.before else { return Heard::Unproven(Some(life.epoch)) };
    match before.iter().find(|past| past.epoch == life.epoch) {
        Some(past) if past.nonce != life.nonce => Heard::Stale,
        Some(PastLife { end: Some(end), .. }) if *end < position => Heard::Cut(position),
        Some(_) => Heard::Newest,
        // Only the last ones are said unasked.
        None if before.first().is_some_and(|oldest| life.epoch < oldest.epoch) => {
            Heard::Unproven(Some(life.epoch))
        }
        None => Heard::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(epoch: u64, nonce: u64) -> Life {
        Life { epoch: Epoch(epoch), nonce }
    }

    fn remembered(epoch: u64, nonce: u64, position: u64) -> Option<Remembered> {
        Some(Remembered { life: life(epoch, nonce), position })
    }

    /// Lives of which each began behind a position that is ten times its epoch.
    fn lives(all: &[(u64, u64)]) -> Lives {
        let mut lives = Lives::default();
        for (epoch, nonce) in all {
            lives.began(LifeBegan { life: life(*epoch, *nonce), at: Some(10 * epoch) });
        }
        lives
    }

    /// The newest life of a log speaks to a participant.
    fn speaks(log: &Lives, remembered: Option<Remembered>, asked: Option<Epoch>) -> Heard {
        let last = log.iter().last().unwrap().life;
        let before = Some(log.before(last.epoch, asked));
        hear(remembered, last.epoch, &Proof { nonce: last.nonce, position: 0, before })
    }

    #[test]
    fn a_successor_is_heard_whatever_life_is_remembered() {
        let log = lives(&[(1, 11), (2, 12), (3, 13), (4, 14)]);
        for (remembered, heard) in [
            (None, Heard::Newest),
            (remembered(1, 11, 0), Heard::Newest),
            (remembered(3, 13, 40), Heard::Newest),
            (remembered(4, 14, 99), Heard::Known),
        ] {
            assert_eq!(speaks(&log, remembered, None), heard, "{remembered:?}");
        }
    }

    /// D2: with each start a copy closed the gap of epochs by one, and in the end was taken for the
    /// log.
    #[test]
    fn an_old_copy_is_stale_however_often_it_starts() {
        let mut copy = lives(&[(3, 13), (4, 14)]);
        for epoch in 5..50 {
            copy.began(LifeBegan { life: life(epoch, 100 + epoch), at: Some(10 * epoch) });
            assert_eq!(speaks(&copy, remembered(7, 17, 0), None), Heard::Stale, "epoch {epoch}");
        }
    }

    /// D2: a copy of the life that was heard last has that life, and not all that was told in it.
    #[test]
    fn a_copy_that_was_cut_within_a_life_is_found_out_however_often_it_starts() {
        let mut copy = lives(&[(3, 13), (4, 14)]);
        for epoch in 5..50 {
            copy.began(LifeBegan { life: life(epoch, 100 + epoch), at: Some(10 * epoch) });
            assert_eq!(speaks(&copy, remembered(4, 14, 51), None), Heard::Cut(51));
            assert_eq!(speaks(&copy, remembered(4, 14, 50), None), Heard::Newest);
        }
    }

    /// A log of a version that did not write down where its lives ended is no reason to refuse it.
    #[test]
    fn where_the_end_of_a_life_is_not_known_nothing_is_cut() {
        let mut log = lives(&[(3, 13), (4, 14)]);
        log.began(LifeBegan { life: life(5, 15), at: None });
        assert_eq!(speaks(&log, remembered(4, 14, 1_000), None), Heard::Newest);
    }

    #[test]
    fn two_copies_of_one_life_are_told_apart_by_their_nonces() {
        let fork = lives(&[(4, 14), (5, 25)]);
        assert_eq!(speaks(&fork, remembered(5, 15, 0), None), Heard::Stale);
    }

    /// M1: a later epoch is believed of who has the nonce of the one before, and of nobody else.
    #[test]
    fn a_later_life_is_not_believed_without_a_proof() {
        let proof = Proof { nonce: 18, position: 0, before: None };
        let asks = Heard::Unproven(Some(Epoch(7)));
        assert_eq!(hear(remembered(7, 17, 0), Epoch(8), &proof), asks);
        assert_eq!(hear(None, Epoch(8), &proof), Heard::Unproven(None));
        assert_eq!(hear(None, Epoch(u64::MAX), &proof), Heard::TooFar);
        let far = Epoch(7 + EPOCH_JUMP_MAX + 1);
        assert_eq!(hear(remembered(7, 17, 0), far, &proof), Heard::TooFar);
    }

    /// A participant that was away for very many lives asks for the one that it knows; lives that
    /// somebody made up are not it.
    #[test]
    fn a_life_that_is_not_said_unasked_is_asked_for() {
        let all: Vec<(u64, u64)> = (1..=1_000).map(|epoch| (epoch, epoch)).collect();
        let log = lives(&all);
        let known = remembered(3, 3, 0);
        assert_eq!(speaks(&log, known, None), Heard::Unproven(Some(Epoch(3))));
        assert_eq!(speaks(&log, known, Some(Epoch(3))), Heard::Newest);
        assert_eq!(speaks(&log, remembered(3, 4, 0), Some(Epoch(3))), Heard::Stale);
        assert_eq!(speaks(&log, remembered(995, 3, 0), None), Heard::Stale);
        assert_eq!(log.before(Epoch(1_000), None).len(), LIVES_SAID_MAX);
    }

    #[test]
    fn a_log_keeps_some_lives() {
        let mut log = Lives::default();
        for epoch in 1..=2 * LIVES_MAX as u64 {
            log.began(LifeBegan { life: life(epoch, epoch), at: None });
        }
        assert_eq!(log.iter().count(), LIVES_MAX);
        assert!(!log.has(Epoch(3)) && log.has(Epoch(2 * LIVES_MAX as u64)));
    }
}
