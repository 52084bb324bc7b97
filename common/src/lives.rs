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
//!
//! Anybody can say to a coordinator that its log is a copy. So what a coordinator says of its log
//! is under a **seal**, made with a key that is in the log and in all its copies, and is told to
//! nobody. A participant keeps the last of these words, and shows one when it refuses a log. A word
//! whose seal is right, and that the log cannot have said, proves that it is a copy; whatever else
//! is said counts for him who says it.

use std::collections::BTreeMap;
use std::fmt;

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
    /// The seal, with which the participant can show that this was said. An older version does not
    /// say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
    /// The lives before it that its log has, oldest first: said until the participant has answered
    /// once. Without them nothing is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<PastLife>>,
}

/// The seal of what a life says of its log, made with the log's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Stands for the nonce of the life, which nobody can tell from it: who knows the nonce speaks
    /// for the log.
    pub mark: u64,
    /// The seal of the log id, the epoch, the mark and the position.
    pub seal: u64,
}

/// What a life of a log once said of it. It is shown to whoever speaks as the log, so that it does
/// not tell the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealedWord {
    /// The epoch of the life.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// What stands for its nonce.
    pub mark: u64,
    /// How far the log was on disk.
    pub position: u64,
    /// The seal of all this.
    pub seal: u64,
}

/// The key that seals what is said of a log. It is in the log and in its copies, and nowhere else:
/// it is told to nobody, and is no part of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealKey(pub [u8; 32]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// What a participant remembers of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The newest life that it heard.
    pub life: Life,
    /// The highest position that it was told of.
    pub position: u64,
    /// What shows that the life was heard.
    pub heard: Option<SealedWord>,
    /// What shows that the position was told.
    pub told: Option<SealedWord>,
}

/// The lives that a log has, but for those that are very old.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    began: BTreeMap<Epoch, LifeBegan>,
    key: Option<SealKey>,
}

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
        self.began.insert(began.life.epoch, began);
        while self.began.len() > LIVES_MAX {
            self.began.pop_first();
        }
    }

    /// Takes the key, from replay or when it is drawn.
    pub const fn sealed_with(&mut self, key: SealKey) {
        self.key = Some(key);
    }

    /// The key that seals what is said of the log. A log of an older version has none before its
    /// next life.
    #[must_use]
    pub const fn key(&self) -> Option<SealKey> {
        self.key
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = LifeBegan> {
        self.began.values().copied()
    }

    /// What is said of the lives before this one, oldest first: of the last ones, and of one that
    /// was asked for.
    #[must_use]
    pub fn before(&self, epoch: Epoch, asked: Option<Epoch>) -> Vec<PastLife> {
        let past: Vec<PastLife> = self
            .began
            .range(..epoch)
            .map(|(&of, LifeBegan { life, .. })| PastLife {
                epoch: of,
                nonce: life.nonce,
                end: self.end(of),
            })
            .collect();
        let first = past.len().saturating_sub(LIVES_SAID_MAX);
        let asked = past[..first].iter().filter(|life| Some(life.epoch) == asked);
        asked.chain(&past[first..]).copied().collect()
    }

    /// Where a life ended, if the next one has written it down.
    fn end(&self, epoch: Epoch) -> Option<u64> {
        self.began.range(epoch..).nth(1).and_then(|(_, next)| next.at)
    }

    /// Whether the log has this life.
    #[must_use]
    pub fn has(&self, epoch: Epoch) -> bool {
        self.began.contains_key(&epoch)
    }

    /// Whether this log cannot have said a word that is under its seal, so that it is a copy of the
    /// log that did. `mark_of` says what stands for the nonce of a life.
    #[must_use]
    pub fn cannot_have_said(&self, word: &SealedWord, mark_of: impl Fn(Life) -> u64) -> bool {
        match self.began.get(&word.epoch) {
            Some(LifeBegan { life, .. }) if mark_of(*life) != word.mark => true,
            Some(_) => self.end(word.epoch).is_some_and(|end| end < word.position),
            // The very old ones are forgotten.
            None => self.began.keys().next().is_some_and(|oldest| *oldest < word.epoch),
        }
    }
}

impl Proof {
    /// What a participant can show of it later.
    #[must_use]
    pub fn word(&self, epoch: Epoch) -> Option<SealedWord> {
        let position = self.position;
        self.seal.map(|Seal { mark, seal }| SealedWord { epoch, mark, position, seal })
    }
}

impl Remembered {
    /// What is remembered when a life was let in that says this.
    #[must_use]
    pub fn and(this: Option<Self>, epoch: Epoch, proof: &Proof) -> Self {
        let life = Life { epoch, nonce: proof.nonce };
        let word = proof.word(epoch);
        let Some(before) = this else {
            return Self { life, position: proof.position, heard: word, told: word };
        };
        let heard = before.heard.filter(|_| before.life == life).or(word);
        let is_farther = proof.position > before.position;
        if is_farther || proof.position == before.position && before.told.is_none() {
            return Self { life, position: proof.position, heard, told: word };
        }
        Self { life, heard, ..before }
    }

    /// What shows to a coordinator that its log is a copy, as was found.
    #[must_use]
    pub fn shows(&self, heard: Heard) -> Option<SealedWord> {
        match heard {
            Heard::Cut(_) => self.told,
            _ => self.heard.or(self.told),
        }
    }
}

/// What a participant that remembers this of a log makes of a life of it.
#[must_use]
pub fn hear(remembered: Option<Remembered>, epoch: Epoch, proof: &Proof) -> Heard {
    if epoch.0 > EPOCH_MAX {
        return Heard::TooFar;
    }
    let Some(Remembered { life, position, .. }) = remembered else {
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
        Some(Remembered { life: life(epoch, nonce), position, heard: None, told: None })
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
        let proof = Proof { nonce: last.nonce, position: 0, seal: None, before };
        hear(remembered, last.epoch, &proof)
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
        let proof = Proof { nonce: 18, position: 0, seal: None, before: None };
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

    /// Only what the log cannot have said shows that it is a copy.
    #[test]
    fn a_copy_cannot_have_said_what_was_said_after_it() {
        let word =
            |epoch, mark, position| SealedWord { epoch: Epoch(epoch), mark, position, seal: 0 };
        let copy = lives(&[(3, 13), (4, 14), (5, 25)]);
        for (said, is_proof) in [
            (word(4, 14, 50), false),
            (word(4, 14, 51), true),
            (word(3, 13, 41), true),
            (word(5, 15, 50), true),
            (word(5, 25, 1_000), false),
            (word(6, 16, 60), true),
            (word(2, 12, 20), false),
        ] {
            assert_eq!(copy.cannot_have_said(&said, |life| life.nonce), is_proof, "{said:?}");
        }
    }

    /// The word that shows the newest position stays, whichever life says less later.
    #[test]
    fn a_participant_keeps_what_shows_the_life_and_the_position() {
        let says = |epoch, position| {
            let seal = Some(Seal { mark: 10 + epoch, seal: epoch * 1_000 + position });
            (Epoch(epoch), Proof { nonce: epoch, position, seal, before: None })
        };
        let mut now = None;
        for (epoch, proof) in [says(4, 40), says(4, 90), says(4, 60), says(5, 50)] {
            now = Some(Remembered::and(now, epoch, &proof));
        }
        let Remembered { life: newest, position, heard, told } = now.unwrap();
        assert_eq!((newest, position), (life(5, 5), 90));
        assert_eq!(heard.map(|word| word.seal), Some(5_050));
        assert_eq!(told.map(|word| word.seal), Some(4_090));
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
