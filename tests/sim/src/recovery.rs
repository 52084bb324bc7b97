//! A coordinator dies and comes back: the log is replayed, `common` plans, the plan is executed. And compaction.

use std::collections::BTreeSet;

use assent_common::Epoch;
use assent_common::coordinator::Input;
use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::replay::Replay;
use assent_common::record::{AnswerRecord, Answered, Record};

use crate::coordinator::{Active, Known, place_of_participant};
use crate::mutants::Mutant;
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::request::place_of;
use crate::resync::{LaneData, data_seen};
use crate::trace::note;
use crate::world::World;

/// How long a key is remembered after its client has heard, in microseconds; longer than any message travels.
const RETENTION_US: u64 = 3_000_000;

/// A log longer than this is compacted at a start, in bytes.
const LONG_BYTES: usize = 12 * 1024;

impl World {
    /// The process dies: its messages travel on, answers reach nobody, and what was not synced may be gone.
    pub(crate) fn coordinator_dies(&mut self, c: usize, when: &str) -> Step {
        let coordinator = &mut self.coordinators[c];
        if !coordinator.is_up {
            return Ok(());
        }
        self.report.coordinator_crashes += 1;
        let lost = coordinator.log.crash(&mut self.random);
        coordinator.is_up = false;
        coordinator.life += 1;
        coordinator.active.clear();
        coordinator.known.clear();
        coordinator.data.iter_mut().for_each(|data| *data = LaneData::default());
        coordinator.unfinished.iter_mut().for_each(BTreeSet::clear);
        coordinator.flush_is_due = false;
        self.oracle.forgets_pending(c, &lost);
        note!(self, "c{c}: dies {when}; {} records were not synced", lost.len());
        let down_us = self.random.between(500, 200_000);
        self.queue.push(self.now_us + down_us, Event::CoordinatorStarted { coordinator: c });
        Ok(())
    }

    pub(crate) fn coordinator_starts(&mut self, c: usize) -> Step {
        let coordinator = &mut self.coordinators[c];
        if !self.config.is(Mutant::EpochReused) {
            coordinator.log.epoch = Epoch(coordinator.log.epoch.0 + 1);
        }
        let replayed = match coordinator.log.replay(self.config.is(Mutant::TornTailKept)) {
            Ok(replayed) => replayed,
            Err(why) => return violation("2 what was durable is still in the log", why),
        };
        self.report.torn_tails += u64::from(replayed.torn_bytes > 0);
        coordinator.is_up = true;
        coordinator.next_n = 0;
        let mut replay = Replay::default();
        for record in replayed.records {
            self.oracle.durable(c, &record, &self.requests)?;
            let coordinator = &mut self.coordinators[c];
            if !self.config.is(Mutant::KeysForgotten) {
                remember(&mut coordinator.known, &record);
            }
            if let Err(why) = replay.apply(record) {
                return violation("2 what was durable is still in the log", why);
            }
        }
        let Replay { unfinished, decisions, seen, lives: _ } = replay;
        let now = self.now();
        let coordinator = &mut self.coordinators[c];
        let (log_id, epoch) = (coordinator.log.log_id(), coordinator.log.epoch);
        coordinator.authority = Authority::new(log_id, epoch, decisions);
        for (participant, seen) in seen.into_each() {
            coordinator.data[place_of_participant(&participant)].seen = seen;
        }
        let plan = unfinished.plan(now).transactions;
        note!(self, "c{c}: starts in epoch {epoch} and resumes {}", plan.len());
        self.report.resumed += plan.len() as u64;
        let life = self.coordinators[c].life;
        let mut resumed = Vec::with_capacity(plan.len());
        for recovered in plan {
            let request = place_of(recovered.identity.id);
            let number = recovered.transaction.spec().number;
            let attempt = recovered.transaction.attempt();
            self.activate(c, Active::new(recovered.transaction, request));
            if self.requests[request].is_keyed() {
                self.coordinators[c].known.insert(request, Known::Active(number));
            }
            resumed.push((number, attempt, recovered.notes, recovered.abandoned));
        }
        if self.coordinators[c].log.durable_bytes() > LONG_BYTES {
            self.compact(c);
        }
        // All of them are there before the first one speaks: the low-water mark counts on it.
        for (number, attempt, notes, abandoned) in resumed {
            for note in notes {
                self.feed(c, number, Input::Noted(note))?;
            }
            for branch in abandoned {
                self.feed(c, number, Input::Abandon { branch, attempt })?;
            }
            self.settle(c, number)?;
            if self.coordinators[c].life != life {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What has ended and outlived its retention leaves the log: here, some time after its client has heard of it.
    fn compact(&mut self, c: usize) {
        self.report.compactions += 1;
        let coordinator = &self.coordinators[c];
        let is_kept = |record: &Record| {
            let is_active = record.number().is_some_and(|n| coordinator.active.contains_key(&n));
            let identity = match record {
                Record::Begun(begun) => Some(&begun.identity),
                Record::Committed(committed) => Some(&committed.identity),
                Record::Answered(answered) => Some(&answered.identity),
                _ => None,
            };
            let is_open = identity.is_some_and(|identity| {
                let finished_us = self.requests[place_of(identity.id)].finished_us;
                finished_us.is_none_or(|us| self.now_us < us + RETENTION_US)
            });
            is_active || is_open
        };
        let kept: Vec<_> = coordinator.log.durable_records();
        // An end is kept with what it is the end of.
        let numbers: BTreeSet<_> =
            kept.iter().filter(|record| is_kept(record)).filter_map(Record::number).collect();
        let (mut kept, gone): (Vec<_>, Vec<_>) = kept
            .into_iter()
            .partition(|record| record.number().is_some_and(|number| numbers.contains(&number)));
        let retired: Vec<_> = gone.iter().flat_map(retired).collect();
        let coordinator = &mut self.coordinators[c];
        for (at, seq) in retired {
            coordinator.data[at].seen.retire(seq);
        }
        let sets = coordinator.authority.sets().into_iter().map(Record::CommittedSet);
        let mut records: Vec<_> = match self.config.mutant {
            Some(Mutant::CompactionForgets) => Vec::new(),
            _ => sets.collect(),
        };
        records.append(&mut kept);
        let data = coordinator.data.iter().enumerate();
        records.extend(data.filter_map(|(at, data)| {
            let seen = data.seen;
            Some(data_seen(at, &seen, seen.known?))
        }));
        note!(self, "c{c}: compacts its log to {} records", records.len());
        self.coordinators[c].log.compact(records);
    }
}

/// The votes whose writes go with a record.
fn retired(record: &Record) -> Vec<(usize, u64)> {
    match record {
        Record::Committed(committed) => {
            let branches = committed.branches.iter();
            branches.map(|it| (place_of_participant(&it.participant), it.seq)).collect()
        }
        Record::Answered(Answered { participants, written: Some(written), .. }) => {
            let first = participants.first().map(|name| (place_of_participant(name), written.seq));
            first.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Which requests a replayed log knows, so that their clients get the same transactions again.
fn remember(known: &mut std::collections::BTreeMap<usize, Known>, record: &Record) {
    match record {
        Record::Begun(begun) => {
            known.insert(place_of(begun.identity.id), Known::Active(begun.number));
        }
        Record::Committed(committed) => {
            known.insert(place_of(committed.identity.id), Known::Told(true));
        }
        Record::Answered(answered) => {
            let committed = matches!(answered.answer, AnswerRecord::Committed { .. });
            known.insert(place_of(answered.identity.id), Known::Told(committed));
        }
        _ => {}
    }
}
