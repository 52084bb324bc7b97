//! Lost data, at the coordinator: the driver of a resynchronisation, as `engine/resync` is at the
//! real one. What is known of the data is in the engine.
//!
//! ```text
//! Open ── `quarantined` ──► Asking ── fenced ──► Deciding ── none is ──► Syncing ──► plan ──► Saying ── open ──► Open
//!                             ▲                                                       │Loss     │ owed, void, lost
//!                             └──────────────────────────── Pausing ◄─────────────────┴─────────┘
//! ```

use assent_common::backoff::Backoff;
use assent_common::coordinator::resync::{Plan, Seen};
use assent_common::outcome::Refusal;
use assent_common::record::{DataSeen, Record};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, RedoBranch, Resync, Resynced};
use assent_common::{Attempt, Txid};
use assent_engine::Ticket;

use crate::coordinator::participant_name;
use crate::mutants::Mutant;
use crate::oracle::Step;
use crate::queue::Event;
use crate::repair::Asked;
use crate::trace::note;
use crate::world::World;

/// Between tries.
const AGAIN: Backoff = Backoff { base_ms: 5, cap_ms: 200 };

/// How long a call about data waits for its answer at most, in microseconds.
const CALL_US: u64 = 60_000;

/// How often a coordinator looks whether all is decided, in microseconds.
const DECIDING_US: u64 = 1_000;

/// Where a resynchronisation stands.
#[derive(Debug)]
pub(crate) enum Stage {
    Asking,
    Deciding(DataView),
    Syncing(DataView),
    Saying,
    Pausing,
}

impl World {
    /// A participant's data is fenced: it is resynchronised, one at a time for each participant.
    pub(crate) fn resynchronise(&mut self, c: usize, at: usize) {
        note!(self, "c{c}: resynchronises with p{at}");
        self.coordinators[c].desk.tries.insert(at, 0);
        self.ask_for_data(c, at);
    }

    fn ask_for_data(&mut self, c: usize, at: usize) {
        self.coordinators[c].desk.resyncs.insert(at, Stage::Asking);
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        if self.is_lost_on_the_way(c, at) {
            let at_us = self.now_us + self.random.between(50, CALL_US);
            return self.queue.push(at_us, Event::DataShown { asked, found: None });
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::DataAsked { asked });
    }

    pub(crate) fn is_lost_on_the_way(&mut self, c: usize, at: usize) -> bool {
        self.report.messages += 1;
        let is_lost = self.is_cut(c, at) || self.random.strikes(self.profile.faults.loss);
        self.report.dropped += u64::from(is_lost);
        is_lost
    }

    /// Sends an answer about data back; one that is lost is an answer that says nothing.
    pub(crate) fn answer_about_data(&mut self, asked: Asked, event: impl FnOnce(Asked) -> Event) {
        if asked.life.is_none() {
            return;
        }
        let event = match event(asked) {
            event if !self.is_lost_on_the_way(asked.coordinator, asked.at) => event,
            Event::DataShown { .. } => Event::DataShown { asked, found: None },
            _ => Event::WordTaken { asked, said: None },
        };
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, event);
    }

    pub(crate) fn data_shown(&mut self, asked: Asked, found: Option<Box<DataView>>) -> Step {
        let Asked { coordinator: c, life, at } = asked;
        let coordinator = &mut self.coordinators[c];
        let is_awaited = matches!(coordinator.desk.resyncs.get(&at), Some(Stage::Asking));
        if life != Some(coordinator.life) || !is_awaited {
            return Ok(());
        }
        let Some(found) = found else { return self.pause(c, at, "no answer", false) };
        match coordinator.core.data_found(at, &found) {
            Some(open) => self.data_opened(c, at, open),
            None => {
                coordinator.desk.resyncs.insert(at, Stage::Deciding(*found));
                self.give_up_undecided(c, at)
            }
        }
    }

    /// Gives up what is undecided there, and waits for decisions under way.
    fn give_up_undecided(&mut self, c: usize, at: usize) -> Step {
        let life = self.coordinators[c].life;
        let is_kept = self.config.is(Mutant::UndecidedKept);
        let is_open = !is_kept && self.turn(c, |core, now| core.give_up_undecided(at, now))?;
        if self.coordinators[c].life != life {
            return Ok(());
        }
        if is_open {
            let asked = Asked { coordinator: c, life: Some(life), at };
            self.queue.push(self.now_us + DECIDING_US, Event::ResyncDue { asked });
            return Ok(());
        }
        self.sync_what_is_told(c, at)
    }

    /// What clients have been told may be in the log's queue still: the plan is made when all of it
    /// is on disk.
    fn sync_what_is_told(&mut self, c: usize, at: usize) -> Step {
        let resyncs = &mut self.coordinators[c].desk.resyncs;
        let Some(Stage::Deciding(found)) = resyncs.remove(&at) else { return Ok(()) };
        resyncs.insert(at, Stage::Syncing(found));
        let is_early = self.config.is(Mutant::PlansTooEarly);
        let done = Ticket(at as u64);
        if !is_early && self.turn(c, |core, _| core.sync_what_is_told(at, done))? {
            return Ok(());
        }
        self.plan(c, at)
    }

    /// Reads the whole log, and says what the data may lack.
    pub(crate) fn plan(&mut self, c: usize, at: usize) -> Step {
        let misses_ended = self.config.is(Mutant::PlanMissesEnded);
        let resyncs = &mut self.coordinators[c].desk.resyncs;
        let Some(Stage::Syncing(mut found)) = resyncs.remove(&at) else { return Ok(()) };
        resyncs.insert(at, Stage::Pausing);
        if self.config.is(Mutant::RevivedVoteApplied) {
            found.hole = None;
        }
        let coordinator = &self.coordinators[c];
        let data = &coordinator.core.lanes()[at].data;
        let (seen, is_accepted) = (data.seen, data.is_accepted(&found));
        let (name, log_id) = (participant_name(at), coordinator.log.log_id());
        let committed = |txid| coordinator.outcome(txid, None) == BranchOutcome::Committed;
        let finish = |is_overruled| {
            let mut plan = Plan::new(log_id, &name, &found, committed);
            for record in coordinator.log.durable_records() {
                let number = record.number();
                let is_active = number.is_some_and(|n| coordinator.core.active(n).is_some());
                if is_active || !misses_ended {
                    plan.apply(&record, |number| Txid { log_id, number, attempt: Attempt::FIRST });
                }
            }
            plan.finish(seen, is_overruled)
        };
        let redo = match finish(false) {
            Err(_) if is_accepted => {
                self.oracle.accepts(at);
                finish(true).unwrap_or_default()
            }
            Ok(redo) => redo,
            Err(loss) => {
                note!(self, "c{c}: p{at}: {loss}");
                return self.pause(c, at, &loss.to_string(), true);
            }
        };
        let redo = redo.into_iter();
        let word = Resync {
            participant: name,
            coordinator: CoordinatorRef {
                log_id,
                epoch: coordinator.log.epoch,
                url: String::new(),
                life: None,
            },
            low_water: coordinator.core.low_water(at),
            found: found.found(),
            known: seen.known,
            part: 0,
            last: true,
            alone: false,
            redo: redo
                .map(|it| RedoBranch { txid: it.txid, seq: it.seq, redo: Base64(it.redo) })
                .collect(),
        };
        self.say(c, at, word);
        Ok(())
    }

    fn say(&mut self, c: usize, at: usize, word: Resync) {
        note!(self, "c{c}: says to p{at}: {word:?}");
        self.coordinators[c].desk.resyncs.insert(at, Stage::Saying);
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        let copy = Asked { life: None, ..asked };
        let is_lost = self.is_lost_on_the_way(c, at);
        let faults = &self.profile.faults;
        let more = if is_lost { 3 * faults.loss.min(1) } else { 0 };
        let copies = self.random.below(u64::from(more).max(1))
            + u64::from(self.random.strikes(self.profile.faults.duplicate));
        for _ in 0..copies {
            self.report.duplicated += 1;
            let at_us = self.now_us + self.random.between(20, 10 * CALL_US);
            self.queue.push(at_us, Event::WordCame { asked: copy, word: Box::new(word.clone()) });
        }
        if is_lost {
            let at_us = self.now_us + self.random.between(50, CALL_US);
            return self.queue.push(at_us, Event::WordTaken { asked, said: None });
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::WordCame { asked, word: Box::new(word) });
    }

    pub(crate) fn word_taken(
        &mut self,
        asked: Asked,
        said: Option<Box<Result<Resynced, Refusal>>>,
    ) -> Step {
        let Asked { coordinator: c, life, at } = asked;
        let is_awaited = matches!(self.coordinators[c].desk.resyncs.get(&at), Some(Stage::Saying));
        if life != Some(self.coordinators[c].life) || !is_awaited {
            return Ok(());
        }
        match said.map(|said| *said) {
            Some(Ok(Resynced { open: Some(open), .. })) => self.data_opened(c, at, Some(open)),
            _ => self.pause(c, at, "not open yet", false),
        }
    }

    fn pause(&mut self, c: usize, at: usize, why: &str, is_lost: bool) -> Step {
        let desk = &mut self.coordinators[c].desk;
        desk.resyncs.insert(at, Stage::Pausing);
        let tries = desk.tries.entry(at).or_default();
        *tries += 1;
        let pause_us = AGAIN.delay_ms(*tries, at as u64) * 1_000;
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        self.queue.push(self.now_us + pause_us, Event::ResyncDue { asked });
        self.turn(c, |core, _| core.data_held_up(at, why.to_owned(), is_lost))
    }

    pub(crate) fn resync_due(&mut self, asked: Asked) -> Step {
        let Asked { coordinator: c, life, at } = asked;
        if life != Some(self.coordinators[c].life) {
            return Ok(());
        }
        match self.coordinators[c].desk.resyncs.get(&at) {
            Some(Stage::Pausing) => self.ask_for_data(c, at),
            Some(Stage::Deciding(_)) => return self.give_up_undecided(c, at),
            _ => {}
        }
        Ok(())
    }

    /// The data is open, as what became of what was known.
    fn data_opened(&mut self, c: usize, at: usize, open: Option<DataPoint>) -> Step {
        note!(self, "c{c}: the data of p{at} is open: {open:?}");
        self.coordinators[c].desk.resyncs.remove(&at);
        self.turn(c, |core, now| core.data_opened(at, open, now))
    }
}

/// The record that says what is known of a participant's data.
pub(crate) fn data_seen(at: usize, seen: &Seen, known: DataPoint) -> Record {
    let DataPoint { incarnation, seq } = known;
    let (participant, retired) = (participant_name(at), seen.retired);
    Record::DataSeen(DataSeen { participant, incarnation, seq, retired })
}
