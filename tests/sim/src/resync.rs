//! Lost data, at the coordinator: carries what the engine's driver of a resynchronisation wants,
//! and what comes of it. No rule of it is here.

use assent_common::outcome::Refusal;
use assent_common::wire::resync::{DataView, Resync, Resynced};
use assent_engine::{LogReading, ResyncCall, ResyncHeard};

use crate::mutants::Mutant;
use crate::oracle::Step;
use crate::queue::Event;
use crate::repair::Asked;
use crate::trace::note;
use crate::world::World;

/// How long a call about data waits for its answer at most, in microseconds.
const CALL_US: u64 = 60_000;

impl World {
    /// Does what a resynchronisation wants.
    pub(crate) fn resync_call(&mut self, c: usize, at: usize, call: ResyncCall) -> Step {
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        match call {
            ResyncCall::AskData => self.ask_for_data(asked),
            ResyncCall::ReadLog(reading) => return self.read_log(asked, *reading),
            ResyncCall::Say(word) => self.say(asked, *word),
            ResyncCall::Wait(ms) => {
                self.queue.push(self.now_us + ms * 1_000, Event::ResyncDue { asked });
            }
        }
        Ok(())
    }

    fn ask_for_data(&mut self, asked: Asked) {
        let Asked { coordinator: c, at, .. } = asked;
        note!(self, "c{c}: asks p{at} what its data is");
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
        let mut shown = found.ok_or_else(|| "no answer".to_owned());
        if let Ok(found) = &mut shown
            && self.config.is(Mutant::RevivedVoteApplied)
        {
            found.hole = None;
        }
        note!(self, "c{}: is shown of p{}: {shown:?}", asked.coordinator, asked.at);
        self.resync(asked, ResyncHeard::DataShown(shown))
    }

    fn read_log(&mut self, asked: Asked, mut reading: LogReading) -> Step {
        let Asked { coordinator: c, at, .. } = asked;
        let misses_ended = self.config.is(Mutant::PlanMissesEnded);
        let coordinator = &self.coordinators[c];
        for record in coordinator.log.durable_records() {
            let number = record.number();
            let is_active = number.is_some_and(|n| coordinator.core.active(n).is_some());
            if is_active || !misses_ended {
                reading.apply(&record);
            }
        }
        let report = reading.finish(coordinator.core.known_data(at));
        if report.accepted_loss().is_some() {
            self.oracle.accepts(at);
        }
        self.resync(asked, ResyncHeard::LogRead(Ok(Box::new(report))))
    }

    fn say(&mut self, asked: Asked, word: Resync) {
        let Asked { coordinator: c, at, .. } = asked;
        note!(self, "c{c}: says to p{at}: {word:?}");
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
        let said = match said.map(|said| *said) {
            Some(said) => said.map_err(|refusal| refusal.detail),
            None => Err("no answer".to_owned()),
        };
        self.resync(asked, ResyncHeard::WordTaken(said))
    }

    pub(crate) fn resync_due(&mut self, asked: Asked) -> Step {
        self.resync(asked, ResyncHeard::Due)
    }

    fn resync(&mut self, asked: Asked, heard: ResyncHeard) -> Step {
        let Asked { coordinator: c, life, at } = asked;
        if life != Some(self.coordinators[c].life) {
            return Ok(());
        }
        self.turn(c, |core, now| core.resync(at, heard, now))
    }
}
