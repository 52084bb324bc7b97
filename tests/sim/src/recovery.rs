//! A coordinator dies and comes back, and its log is compacted: reads the log, writes it, deletes
//! of it. What is begun with, what goes on, and what is kept is the engine's to say.

use std::collections::BTreeSet;

use assent_common::Epoch;
use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::recovery::Recovered;
use assent_common::lives::{Lives, SealKey};
use assent_common::record::{Identity, Record};
use assent_common::time::Millis;
use assent_engine::{Compaction, Core, History, NextLife, Replaying};

use crate::config::Config;
use crate::coordinator::{COMPACTED, Coordinator, ShellDesk, core_settings, register};
use crate::log::Log;
use crate::mutants::Mutant;
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::request::place_of;
use crate::trace::note;
use crate::world::World;

/// Segments are kept for so long, in milliseconds; longer than any message travels.
const RETENTION_MS: u64 = 3_000;

/// How often a coordinator looks whether its log can be compacted, in microseconds.
const COMPACT_US: u64 = 200_000;

impl Coordinator {
    /// The first life of a log, or the next one after this was read.
    pub(crate) fn begin(config: &Config, log: &Log, replaying: Replaying, now: Millis) -> NextLife {
        let nonce = log.epoch.0;
        let key = || SealKey([0; 32]);
        replaying.begin(core_settings(config, log), nonce, key, now)
    }
}

impl World {
    /// The process dies: its messages travel on, answers reach nobody, and what was not synced may
    /// be gone.
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
        coordinator.core = dead_core(&self.config, &coordinator.log);
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
        let lost = "2 what was durable is still in the log";
        let mut replaying = Replaying::default();
        for (position, mut record) in replayed.records {
            self.oracle.durable(c, &record, &self.requests)?;
            if self.config.is(Mutant::KeysForgotten)
                && let Some(identity) = identity(&mut record)
            {
                identity.key = None;
            }
            if let Err(why) = replaying.apply(position, record) {
                return violation(lost, why);
            }
        }
        self.goes_on(c, replaying)
    }

    fn goes_on(&mut self, c: usize, replaying: Replaying) -> Step {
        let now = self.now();
        let coordinator = &mut self.coordinators[c];
        coordinator.is_up = true;
        let begun = Coordinator::begin(&self.config, &coordinator.log, replaying, now);
        let NextLife { core, rest, .. } = begun;
        coordinator.core = core;
        register(&mut coordinator.core, self.agents.len());
        let plan = rest.transactions();
        let epoch = coordinator.log.epoch;
        note!(self, "c{c}: starts in epoch {epoch} and resumes {}", plan.len());
        self.report.resumed += plan.len() as u64;
        let mut numbers = Vec::with_capacity(plan.len());
        for Recovered { transaction, abandoned, .. } in plan {
            let number = transaction.spec().number;
            for branch in abandoned {
                self.oracle.gives_up(c, number, *branch)?;
            }
            numbers.push(number);
        }
        let life = self.coordinators[c].life;
        self.turn(c, |core, now| {
            rest.go_on(core, now);
            for number in &numbers {
                core.watch(*number);
            }
        })?;
        for number in numbers {
            if self.coordinators[c].life == life {
                self.show(c, number)?;
            }
        }
        Ok(())
    }

    // ---- compaction

    pub(crate) fn schedule_compaction(&mut self, c: usize) {
        self.queue.push(self.now_us + COMPACT_US, Event::Compacting { coordinator: c });
    }

    /// Reads the segments that may go. Their retention is longer than any client asks.
    pub(crate) fn compacting(&mut self, c: usize) {
        self.schedule_compaction(c);
        let Coordinator { log, core, desk, life, is_up } = &self.coordinators[c];
        if !is_up || desk.compacted.is_some() {
            return;
        }
        let is_over = |number: u32| {
            let mut records = log.sealed_records(number);
            let mut asked = records.iter_mut().filter_map(identity);
            asked.all(|identity| {
                let finished_us = self.requests[place_of(identity.id)].finished_us;
                finished_us.is_some_and(|us| self.now_us >= us + RETENTION_MS * 1_000)
            })
        };
        let old = log.segments().take_while(|(number, _)| is_over(*number));
        let Some(mut compaction) = Compaction::of(old, self.now(), RETENTION_MS) else { return };
        let records = compaction.segments().flat_map(|number| log.sealed_records(number));
        let mut copies = BTreeSet::new();
        for record in records {
            if matches!(record, Record::Committed(_)) {
                copies.insert(record.encode().1);
            }
            compaction.apply(record, |number| core.active(number).is_some());
        }
        let life = *life;
        let desk = &mut self.coordinators[c].desk;
        (desk.compacted, desk.copies) = (Some(*compaction.segments().end()), copies);
        let at_us = self.now_us + self.random.between(50, self.profile.sync_us);
        let compaction = Box::new(compaction);
        self.queue.push(at_us, Event::SegmentsRead { coordinator: c, life, compaction });
    }

    /// Keeps what must outlive them.
    pub(crate) fn segments_read(&mut self, c: usize, life: u64, compaction: Compaction) -> Step {
        if self.coordinators[c].life != life {
            return Ok(());
        }
        note!(self, "c{c}: compacts segments {:?} of its log", compaction.segments());
        self.turn(c, |core, _| compaction.keep(core, COMPACTED))
    }

    /// All that is kept of them is durable.
    pub(crate) fn compacted(&mut self, c: usize) {
        let Coordinator { log, desk, .. } = &mut self.coordinators[c];
        if let Some(last) = desk.compacted.take() {
            self.report.compactions += 1;
            desk.copies.clear();
            log.retire(last);
        }
    }
}

/// The core of a process that is dead: it knows nothing.
fn dead_core(config: &Config, log: &Log) -> Core {
    let nothing = Authority::new(log.log_id(), Epoch(0), Decisions::default());
    Core::new(core_settings(config, log), nothing, History::default(), Lives::default())
}

/// Whom a record answers.
fn identity(record: &mut Record) -> Option<&mut Identity> {
    match record {
        Record::Begun(begun) => Some(&mut begun.identity),
        Record::Committed(committed) => Some(&mut committed.identity),
        Record::Answered(answered) => Some(&mut answered.identity),
        _ => None,
    }
}
