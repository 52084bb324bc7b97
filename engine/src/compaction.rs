//! Compaction: the oldest segments of a log go, and what must outlive them is appended again first.
//! The shell reads the segments, and deletes them when all that is kept is durable.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use assent_common::coordinator::State;
use assent_common::log::Durability;
use assent_common::record::{ParticipantSet, Record};
use assent_common::time::Millis;
use assent_common::{ParticipantName, TxNumber};

use crate::active::Ticket;
use crate::core::Core;
use crate::outbox::Appended;

/// Segments that are about to go, and what of them is kept.
#[derive(Debug, Clone)]
pub struct Compaction {
    first: u32,
    last: u32,
    records: Vec<Record>,
    /// The last votes of which the log lets go.
    retired: BTreeMap<ParticipantName, u64>,
}

impl Compaction {
    /// Of the segments, the oldest first, that were sealed longer ago than the retention; `None`
    /// if that is none. Each has its number, and when it was sealed.
    pub fn of(
        segments: impl IntoIterator<Item = (u32, Option<Millis>)>,
        now: Millis,
        retention_ms: u64,
    ) -> Option<Self> {
        let is_old = |sealed: Option<Millis>| sealed.is_some_and(|at| now.since(at) > retention_ms);
        let mut old = segments.into_iter().take_while(|(_, sealed)| is_old(*sealed));
        let (first, _) = old.next()?;
        let last = old.last().map_or(first, |(number, _)| number);
        Some(Self { first, last, records: Vec::new(), retired: BTreeMap::new() })
    }

    /// The segments.
    #[must_use]
    pub const fn segments(&self) -> RangeInclusive<u32> {
        self.first..=self.last
    }

    /// Takes the next record of them. `is_active` says whether a transaction has not ended.
    pub fn apply(&mut self, record: Record, is_active: impl FnOnce(TxNumber) -> bool) {
        for (participant, seq) in record.votes() {
            let highest = self.retired.entry(participant.clone()).or_default();
            *highest = seq.max(*highest);
        }
        if record.number().is_some_and(is_active) {
            self.records.push(record);
        }
    }

    /// Appends what is kept: records of active transactions, the participants, and what was ever
    /// committed. Forgets the answers in the segments. `done` is told when all is durable: before
    /// that, not a word of the segments may go.
    ///
    /// A transaction that is closing has its end in the log's queue or in the log: a copy behind
    /// the end would bring it back to life.
    pub fn keep(self, core: &mut Core, done: Ticket) {
        core.retire_votes(&self.retired);
        for record in self.records {
            let number = record.number().filter(|number| {
                let active = core.active.get(number);
                active.is_some_and(|active| !matches!(active.machine.state(), State::Closing(_)))
            });
            let Some(number) = number else { continue };
            let then = match record {
                Record::Committed(_) => Appended::Moved(number),
                _ => Appended::Nothing,
            };
            core.outbox.append(&record, Durability::Lazy, then);
        }
        for lane in core.lanes.iter() {
            let Some(url) = lane.url().map(str::to_owned) else { continue };
            let record = Record::ParticipantSet(ParticipantSet { name: lane.name.clone(), url });
            core.outbox.append(&record, Durability::Lazy, Appended::Nothing);
        }
        if let Some(key) = core.lives.key() {
            core.outbox.append(&Record::SealKey(key), Durability::Lazy, Appended::Nothing);
        }
        for life in core.lives.iter() {
            core.outbox.append(&Record::LifeBegan(life), Durability::Lazy, Appended::Nothing);
        }
        // Records become durable in the order of appending, and there is one set at least: that of
        // this epoch.
        let mut done = Some(done);
        for set in core.authority.sets() {
            let then = match done.take_if(|_| set.epoch == core.epoch()) {
                Some(done) => Appended::Told(done),
                None => Appended::Nothing,
            };
            core.outbox.append(&Record::CommittedSet(set), Durability::Forced, then);
        }
        core.forget_through(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_go_that_were_sealed_longer_ago_than_the_retention() {
        let segments = [(3, Some(Millis(10))), (4, Some(Millis(20))), (5, Some(Millis(30)))];
        let gone = |now, retention_ms| {
            let segments = segments.into_iter().chain([(6, None)]);
            Compaction::of(segments, Millis(now), retention_ms).map(|it| it.segments())
        };
        assert_eq!(gone(110, 100), None, "not longer ago");
        assert_eq!(gone(111, 100), Some(3..=3));
        assert_eq!(gone(125, 100), Some(3..=4));
        assert_eq!(gone(1_000, 0), Some(3..=5), "the last one is being written");
    }
}
