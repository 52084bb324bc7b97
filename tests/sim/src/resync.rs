//! Lost data, at the coordinator: the shell around `common`'s `coordinator::resync`, as
//! `engine/resync` is at the real one.
//!
//! ```text
//! Open ── `quarantined` ──► Asking ── fenced ──► Deciding ── none is ──► Syncing ──► plan ──► Saying ── open ──► Open
//!                             ▲                                                       │Loss     │ owed, void, lost
//!                             └──────────────────────────── Pausing ◄─────────────────┴─────────┘
//! ```

use assent_common::backoff::Backoff;
use assent_common::coordinator::resync::{Loss, Plan, Seen};
use assent_common::coordinator::{Branch, Hearing, Input, State as Phase};
use assent_common::outcome::Refusal;
use assent_common::record::{DataSeen, Record};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, RedoBranch, Resync, Resynced};
use assent_common::{Attempt, TxNumber, Txid};

use crate::coordinator::participant_name;
use crate::mutants::Mutant;
use crate::network::Ask;
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

/// How often one that has nothing to say looks after the data, in microseconds.
const LOOK_US: u64 = 100_000;

/// What a coordinator knows of a participant's data.
#[derive(Debug, Default)]
pub(crate) struct LaneData {
    pub(crate) seen: Seen,
    pub(crate) stage: Stage,
    tries: u32,
    /// What cannot be made good from the log.
    pub(crate) loss: Option<Loss>,
    /// What an operator puts up with.
    pub(crate) accepted: Option<Loss>,
    /// Records of data that are on their way to disk.
    pending: usize,
}

/// Where a resynchronisation stands.
#[derive(Debug, Default)]
pub(crate) enum Stage {
    /// There is none.
    #[default]
    Open,
    Asking,
    Deciding(DataView),
    Syncing(DataView),
    Saying,
    Pausing,
}

impl LaneData {
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }
}

impl World {
    /// Takes note of what an answer says of the data, before the machine hears it.
    pub(crate) fn data_heard(&mut self, ask: &Ask, answer: &mut Input) {
        let data = &mut self.coordinators[ask.coordinator].data[ask.at];
        let is_resyncing = !data.is_open();
        if Hearing::new(&mut data.seen, ask.known, is_resyncing).hear(answer) {
            self.resynchronise(ask.coordinator, ask.at);
        }
    }

    /// One at a time for each participant.
    fn resynchronise(&mut self, c: usize, at: usize) {
        let data = &mut self.coordinators[c].data[at];
        if data.is_open() {
            data.tries = 0;
            note!(self, "c{c}: resynchronises with p{at}");
            self.ask_for_data(c, at);
        }
    }

    pub(crate) fn data_lost(&mut self, asked: Asked) {
        if asked.life == Some(self.coordinators[asked.coordinator].life) {
            self.resynchronise(asked.coordinator, asked.at);
        }
    }

    fn ask_for_data(&mut self, c: usize, at: usize) {
        self.coordinators[c].data[at].stage = Stage::Asking;
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        if self.is_lost_on_the_way(c, at) {
            let at_us = self.now_us + self.random.between(50, CALL_US);
            return self.queue.push(at_us, Event::DataShown { asked, found: None });
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::DataAsked { asked });
    }

    fn is_lost_on_the_way(&mut self, c: usize, at: usize) -> bool {
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
        let is_awaited = matches!(coordinator.data[at].stage, Stage::Asking);
        if life != Some(coordinator.life) || !is_awaited {
            return Ok(());
        }
        let Some(found) = found else {
            self.pause(c, at);
            return Ok(());
        };
        if !found.fenced {
            let known = coordinator.data[at].seen.known;
            let log_id = coordinator.log.log_id();
            let served = known.is_some_and(|known| found.has_served(log_id, known));
            let open = found.incarnation.filter(|_| served);
            let open = open.map(|incarnation| DataPoint { incarnation, seq: found.seq });
            return self.data_opened(c, at, open);
        }
        coordinator.data[at].stage = Stage::Deciding(*found);
        self.give_up_undecided(c, at)
    }

    /// Gives up what is undecided there, and waits for decisions under way.
    fn give_up_undecided(&mut self, c: usize, at: usize) -> Step {
        let life = self.coordinators[c].life;
        let numbers: Vec<TxNumber> = self.coordinators[c].unfinished[at].iter().copied().collect();
        let mut is_open = false;
        for number in numbers {
            let Some(active) = self.coordinators[c].active.get(&number) else { continue };
            let branches = &self.requests[active.request].branches;
            let place = branches.iter().position(|branch| branch.at == at).expect("a branch");
            let is_kept = self.config.is(Mutant::UndecidedKept);
            match active.machine.state() {
                Phase::Preparing(_) | Phase::Settling(_) if !is_kept => {
                    let branch = Branch(u16::try_from(place).expect("few branches"));
                    self.feed(c, number, Input::DataLost(branch))?;
                    if self.coordinators[c].life != life {
                        return Ok(());
                    }
                }
                Phase::Deciding { .. } => is_open = true,
                _ => {}
            }
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
        let data = &mut self.coordinators[c].data[at];
        let Stage::Deciding(found) = std::mem::take(&mut data.stage) else { return Ok(()) };
        data.stage = Stage::Syncing(found);
        match data.seen.known {
            Some(known) if !self.config.is(Mutant::PlansTooEarly) => {
                self.record_data(c, at, known);
                Ok(())
            }
            _ => {
                self.plan(c, at);
                Ok(())
            }
        }
    }

    fn record_data(&mut self, c: usize, at: usize, known: DataPoint) {
        let record = data_seen(at, &self.coordinators[c].data[at].seen, known);
        self.coordinators[c].data[at].pending += 1;
        self.append(c, record, true);
    }

    /// A record of data is on disk.
    pub(crate) fn data_recorded(&mut self, c: usize, at: usize) {
        let data = &mut self.coordinators[c].data[at];
        data.pending = data.pending.saturating_sub(1);
        if data.pending == 0 && matches!(data.stage, Stage::Syncing(_)) {
            self.plan(c, at);
        }
    }

    /// Reads the whole log, and says what the data may lack.
    fn plan(&mut self, c: usize, at: usize) {
        let misses_ended = self.config.is(Mutant::PlanMissesEnded);
        let data = &mut self.coordinators[c].data[at];
        let Stage::Syncing(mut found) = std::mem::replace(&mut data.stage, Stage::Pausing) else {
            return;
        };
        if self.config.is(Mutant::RevivedVoteApplied) {
            found.hole = None;
        }
        let (seen, accepted) = (data.seen, data.accepted.clone());
        let coordinator = &self.coordinators[c];
        let (name, log_id) = (participant_name(at), coordinator.log.log_id());
        let committed = |txid| coordinator.outcome(txid, None) == BranchOutcome::Committed;
        let finish = |is_overruled| {
            let mut plan = Plan::new(log_id, &name, &found, committed);
            for record in coordinator.log.durable_records() {
                let number = record.number();
                let is_active = number.is_some_and(|n| coordinator.active.contains_key(&n));
                if is_active || !misses_ended {
                    plan.apply(&record, |number| Txid { log_id, number, attempt: Attempt::FIRST });
                }
            }
            plan.finish(seen, is_overruled)
        };
        // An operator has put up with one loss, and not with the next one.
        let redo = match finish(false) {
            Err(loss) if accepted.as_ref() == Some(&loss) => {
                self.oracle.accepts(at);
                finish(true).unwrap_or_default()
            }
            Ok(redo) => redo,
            Err(loss) => {
                note!(self, "c{c}: p{at}: {loss}");
                self.coordinators[c].data[at].loss = Some(loss);
                return self.pause(c, at);
            }
        };
        let coordinator = &self.coordinators[c];
        let redo = redo.into_iter();
        let word = Resync {
            participant: name,
            coordinator: CoordinatorRef {
                log_id,
                epoch: coordinator.log.epoch,
                url: String::new(),
                life: None,
            },
            low_water: coordinator.low_water(at),
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
    }

    fn say(&mut self, c: usize, at: usize, word: Resync) {
        note!(self, "c{c}: says to p{at}: {word:?}");
        self.coordinators[c].data[at].stage = Stage::Saying;
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
        let is_awaited = matches!(self.coordinators[c].data[at].stage, Stage::Saying);
        if life != Some(self.coordinators[c].life) || !is_awaited {
            return Ok(());
        }
        match said.map(|said| *said) {
            Some(Ok(Resynced { open: Some(open), .. })) => self.data_opened(c, at, Some(open)),
            _ => {
                self.pause(c, at);
                Ok(())
            }
        }
    }

    fn pause(&mut self, c: usize, at: usize) {
        let data = &mut self.coordinators[c].data[at];
        data.stage = Stage::Pausing;
        data.tries += 1;
        let pause_us = AGAIN.delay_ms(data.tries, at as u64) * 1_000;
        let asked = Asked { coordinator: c, life: Some(self.coordinators[c].life), at };
        self.queue.push(self.now_us + pause_us, Event::ResyncDue { asked });
    }

    pub(crate) fn resync_due(&mut self, asked: Asked) -> Step {
        let Asked { coordinator: c, life, at } = asked;
        if life != Some(self.coordinators[c].life) {
            return Ok(());
        }
        match self.coordinators[c].data[at].stage {
            Stage::Pausing => self.ask_for_data(c, at),
            Stage::Deciding(_) => return self.give_up_undecided(c, at),
            _ => {}
        }
        Ok(())
    }

    /// The data is open, as what became of what was known.
    fn data_opened(&mut self, c: usize, at: usize, open: Option<DataPoint>) -> Step {
        note!(self, "c{c}: the data of p{at} is open: {open:?}");
        let data = &mut self.coordinators[c].data[at];
        (data.stage, data.loss, data.accepted) = (Stage::Open, None, None);
        if let Some(open) = open {
            data.seen.opened(open);
            self.record_data(c, at, open);
        }
        let life = self.coordinators[c].life;
        let unfinished: Vec<_> = self.coordinators[c].unfinished[at].iter().copied().collect();
        for number in unfinished {
            self.feed(c, number, Input::RetryNow)?;
            if self.coordinators[c].life != life {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn schedule_look(&mut self, c: usize) {
        let at_us = self.now_us + self.random.between(LOOK_US / 2, LOOK_US);
        self.queue.push(at_us, Event::Looking { coordinator: c });
    }

    /// Who has nothing to say asks now and then whether the data is as it knew them.
    pub(crate) fn look(&mut self, c: usize) {
        for at in 0..self.agents.len() {
            let coordinator = &self.coordinators[c];
            let known = coordinator.data[at].seen.known;
            let asked = Asked { coordinator: c, life: Some(coordinator.life), at };
            let has_known = known.is_some() && coordinator.data[at].is_open();
            if coordinator.is_up && has_known && !self.is_lost_on_the_way(c, at) {
                let at_us = self.now_us + self.latency_us();
                self.queue.push(at_us, Event::Looked { asked, known });
            }
        }
        self.schedule_look(c);
    }
}

/// The record that says what is known of a participant's data.
pub(crate) fn data_seen(at: usize, seen: &Seen, known: DataPoint) -> Record {
    let DataPoint { incarnation, seq } = known;
    let (participant, retired) = (participant_name(at), seen.retired);
    Record::DataSeen(DataSeen { participant, incarnation, seq, retired })
}
