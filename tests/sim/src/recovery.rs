//! A coordinator dies and comes back: the log is replayed, `common` plans, the plan is executed. And compaction.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::Epoch;
use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::recovery::Recovered;
use assent_common::coordinator::replay::Replay;
use assent_common::coordinator::resync::Seen;
use assent_common::log::LogPosition;
use assent_common::record::{CommittedSet, DataSeen, Record};
use assent_common::wire::resync::DataPoint;
use assent_engine::{History, ReplayedHistory};

use crate::coordinator::{ShellDesk, new_core, participant_name, place_of_participant, register};
use crate::mutants::Mutant;
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::request::place_of;
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
        coordinator.desk = ShellDesk::default();
        let authority = Authority::new(coordinator.log.log_id(), Epoch(0), Default::default());
        coordinator.core = new_core(&self.config, &coordinator.log, authority, History::default());
        register(&mut coordinator.core, self.agents.len());
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
        let mut records = replayed.records;
        for (_, record) in &records {
            self.oracle.durable(c, record, &self.requests)?;
        }
        let lost = "2 what was durable is still in the log";
        if self.coordinators[c].log.durable_bytes() > LONG_BYTES {
            match self.compacted(c, &records) {
                Ok(kept) => records = kept,
                Err(why) => return violation(lost, why),
            }
        }
        let mut history = ReplayedHistory::default();
        for (position, record) in &records {
            if !self.config.is(Mutant::KeysForgotten) {
                history.apply(*position, record);
            }
        }
        match replay_of(records) {
            Ok(replay) => self.goes_on(c, replay, history.finish()),
            Err(why) => violation(lost, why),
        }
    }

    fn goes_on(&mut self, c: usize, replay: Replay, history: History) -> Step {
        let Replay { unfinished, decisions, seen, lives: _ } = replay;
        let plan = unfinished.plan(self.now()).transactions;
        let coordinator = &mut self.coordinators[c];
        coordinator.is_up = true;
        let (log_id, epoch) = (coordinator.log.log_id(), coordinator.log.epoch);
        let authority = Authority::new(log_id, epoch, decisions);
        coordinator.core = new_core(&self.config, &coordinator.log, authority, history);
        register(&mut coordinator.core, self.agents.len());
        coordinator.core.restore_data(seen);
        note!(self, "c{c}: starts in epoch {epoch} and resumes {}", plan.len());
        self.report.resumed += plan.len() as u64;
        let mut numbers = Vec::with_capacity(plan.len());
        for Recovered { transaction, abandoned, .. } in &plan {
            let number = transaction.spec().number;
            for branch in abandoned {
                self.oracle.gives_up(c, number, *branch)?;
            }
            numbers.push(number);
        }
        // All of them are there before the first one speaks: the low-water mark counts on it.
        let forgets = self.config.is(Mutant::KeysForgotten);
        let life = self.coordinators[c].life;
        self.turn(c, |core, now| {
            for mut recovered in plan {
                let number = recovered.transaction.spec().number;
                if forgets {
                    recovered.identity.key = None;
                }
                core.resume(recovered, now);
                core.watch(number);
            }
        })?;
        for number in numbers {
            if self.coordinators[c].life == life {
                self.show(c, number)?;
            }
        }
        Ok(())
    }

    /// What has ended and outlived its retention leaves the log: here, some time after its client
    /// has heard of it. Returns what is left.
    fn compacted(
        &mut self,
        c: usize,
        records: &[(LogPosition, Record)],
    ) -> Result<Vec<(LogPosition, Record)>, String> {
        self.report.compactions += 1;
        let records: Vec<Record> = records.iter().map(|(_, record)| record.clone()).collect();
        let Replay { unfinished, decisions, seen, .. } =
            replay_of(records.iter().map(|record| (LogPosition(0), record.clone())))?;
        let plan = unfinished.plan(self.now()).transactions;
        let active: BTreeSet<_> =
            plan.iter().map(|recovered| recovered.transaction.spec().number).collect();
        let is_kept = |record: &Record| {
            let is_active = record.number().is_some_and(|n| active.contains(&n));
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
        // An end is kept with what it is the end of.
        let numbers: BTreeSet<_> =
            records.iter().filter(|record| is_kept(record)).filter_map(Record::number).collect();
        let (mut kept, gone): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| record.number().is_some_and(|number| numbers.contains(&number)));
        let mut seen: BTreeMap<_, _> = seen
            .into_each()
            .map(|(participant, seen)| (place_of_participant(&participant), seen))
            .collect();
        for (participant, seq) in gone.iter().flat_map(Record::votes) {
            seen.entry(place_of_participant(participant)).or_default().retire(seq);
        }
        let log = &self.coordinators[c].log;
        let sets = Authority::new(log.log_id(), log.epoch, decisions).sets();
        let mut all: Vec<_> = match self.config.mutant {
            Some(Mutant::CompactionForgets) => Vec::new(),
            _ => sets.into_iter().map(|set: CommittedSet| Record::CommittedSet(set)).collect(),
        };
        all.append(&mut kept);
        let seen = seen.iter().filter_map(|(at, seen)| Some(data_seen(*at, seen, seen.known?)));
        all.extend(seen);
        note!(self, "c{c}: compacts its log to {} records", all.len());
        let log = &mut self.coordinators[c].log;
        log.compact(&all);
        Ok(log.replay(false)?.records)
    }
}

fn replay_of(records: impl IntoIterator<Item = (LogPosition, Record)>) -> Result<Replay, String> {
    let mut replay = Replay::default();
    for (_, record) in records {
        replay.apply(record)?;
    }
    Ok(replay)
}

/// The record that says what is known of a participant's data.
fn data_seen(at: usize, seen: &Seen, known: DataPoint) -> Record {
    let DataPoint { incarnation, seq } = known;
    let (participant, retired) = (participant_name(at), seen.retired);
    Record::DataSeen(DataSeen { participant, incarnation, seq, retired })
}
