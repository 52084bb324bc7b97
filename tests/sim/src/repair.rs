//! Lost data, at the participant: shows the data, and carries out what `common` says of it
//! (`participant::OwnData`, `Reports`), as `store/fence` and `store/repair` do at the real agent.
//! The reports of the logs are in its memory, the fence in its Redis.

use std::collections::BTreeSet;

use assent_common::code::ErrorCode;
use assent_common::coordinator::resync::Redone;
use assent_common::outcome::{Redo, Refusal};
use assent_common::participant::{
    FENCED, Known, Meeting, OnePhaseMarker, RedoBy, Repair, RepairPlan, RepairStep, ReportTaken,
    Reports,
};
use assent_common::wire::resync::{
    DataPoint, DataView, Hole, Resync, Resynced, Served, StagedView,
};
use assent_common::{LogId, Txid};
use assent_engine::Sent;

use crate::agent::Agent;
use crate::mutants::Mutant;
use crate::oracle::Step;
use crate::queue::Event;
use crate::trace::note;
use crate::unlogged;
use crate::world::World;

/// A message about data, and the coordinator's life that waits for its answer; a copy has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) coordinator: usize,
    pub(crate) life: Option<u64>,
    pub(crate) at: usize,
}

impl Agent {
    fn view(&self, logs: &[LogId], mutant: Option<Mutant>) -> DataView {
        let data = &self.redis.data;
        let fenced =
            data.is_fenced || (mutant == Some(Mutant::FenceInMemory) && self.own.is_quarantined);
        let staged = data.control.staged().iter();
        let served = data.served.iter();
        DataView {
            incarnation: (!data.is_blank).then(|| data.control.incarnation()),
            seq: data.control.seq(),
            view: self.view,
            fenced,
            reason: None,
            hole: self.hole(logs).filter(|_| fenced),
            owed: if fenced { self.reports.owed(&self.spoken(logs)) } else { Vec::new() },
            staged: staged
                .filter(|_| fenced)
                .map(|(txid, staged)| StagedView { txid: *txid, seq: staged.vote.seq })
                .collect(),
            served: served
                .map(|(log_id, incarnation)| Served { log_id: *log_id, incarnation: *incarnation })
                .collect(),
        }
    }

    /// What lacks inside the history, if something does.
    fn hole(&self, logs: &[LogId]) -> Option<Hole> {
        let data = &self.redis.data;
        let was = Some(data.control.incarnation());
        let mut hole = data.found().hole(was, self.own.known)?;
        hole.done = data.control.done().collect();
        let heard = |log_id: &LogId| Some((*log_id, data.control.heard(*log_id)?));
        hole.marks.extend(logs.iter().filter_map(heard).map(|(log_id, it)| it.mark(log_id)));
        Some(hole)
    }

    /// Every log that has spoken here, as the data or this agent remembers.
    fn spoken(&self, logs: &[LogId]) -> BTreeSet<LogId> {
        let control = &self.redis.data.control;
        let has_spoken = |log: &&LogId| control.heard(**log).is_some() || self.heard.contains(*log);
        logs.iter().filter(has_spoken).copied().collect()
    }

    /// Goes on with this data.
    pub(crate) fn adopt(&mut self, open: DataPoint) {
        self.unlogged.goes_on_with(open);
        self.own.goes_on_with(open);
    }
}

impl World {
    fn logs(&self) -> Vec<LogId> {
        self.coordinators.iter().map(|c| c.log.log_id()).collect()
    }

    /// Why nothing may be done for a coordinator that knows this of the data. Its log is remembered
    /// also where it is refused: its word is owed.
    pub(crate) fn admit(
        &mut self,
        at: usize,
        log_id: LogId,
        known: Option<DataPoint>,
    ) -> Option<Refusal> {
        self.agents[at].heard.insert(log_id);
        let own = self.agents[at].own;
        let is_blind =
            matches!(self.config.mutant, Some(Mutant::KnownIgnored | Mutant::IncarnationIgnored));
        if !own.is_quarantined && (is_blind || own.has_all_of(known, None)) {
            return None;
        }
        let why = self.look_again(at, log_id, known)?;
        Some(Refusal::new(ErrorCode::Quarantined, why))
    }

    fn look_again(
        &mut self,
        at: usize,
        log_id: LogId,
        known: Option<DataPoint>,
    ) -> Option<&'static str> {
        let agent = &mut self.agents[at];
        let (mut own, mut found) = (agent.own, agent.found(self.config.mutant));
        match self.config.mutant {
            Some(Mutant::AdoptsOldData) => own.known.data.seq = 0,
            Some(Mutant::FenceInMemory) if own.is_quarantined => found.incarnation = Some(FENCED),
            _ => {}
        }
        match own.meets(found, known.map(|known| Known::told(known, None))) {
            Meeting::Serves(data) => {
                agent.adopt(data);
                if known.is_none() {
                    // Other data, and nobody knows better: as if the agent had just started.
                    self.oracle.agent_forgets(at);
                }
                return None;
            }
            Meeting::Fenced => {
                agent.own.is_quarantined = true;
                return Some("the data is fenced");
            }
            Meeting::Unlike => {}
        }
        let view = self.agents[at].view(&self.logs(), self.config.mutant);
        if known.is_some_and(|known| view.has_served(log_id, known)) {
            return Some("what it knew was repaired");
        }
        self.fence(at);
        Some("the data is not what was known")
    }

    /// Fences the data, until its coordinators have spoken.
    pub(crate) fn fence(&mut self, at: usize) {
        note!(self, "p{at}: the data is fenced");
        self.report.fenced += 1;
        self.agents[at].own.is_quarantined = true;
        if !self.config.is(Mutant::FenceInMemory) {
            self.agents[at].redis.fence();
        }
        self.oracle.fenced(at);
    }

    /// A coordinator that has been quiet says what it knows.
    pub(crate) fn looked(&mut self, asked: Asked, sent: Sent, known: Option<DataPoint>) {
        let Asked { coordinator, at, .. } = asked;
        let found = self.agents[at].is_up.then(|| {
            self.reconnect(at);
            let log_id = self.coordinators[coordinator].log.log_id();
            // What comes of it stands in the data.
            let _refusal = self.admit(at, log_id, known);
            Box::new(self.agents[at].view(&self.logs(), self.config.mutant))
        });
        let found = found.filter(|_| !self.is_lost_on_the_way(coordinator, at));
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::LookCame { asked, sent, known, found });
    }

    /// A coordinator asks what the data is.
    pub(crate) fn data_asked(&mut self, asked: Asked) {
        let at = asked.at;
        let found = if !self.agents[at].is_up || self.agent_strikes(at, "as it was asked") {
            None
        } else {
            self.reconnect(at);
            Some(Box::new(self.agents[at].view(&self.logs(), self.config.mutant)))
        };
        self.answer_about_data(asked, |asked| Event::DataShown { asked, found });
    }

    /// A log says what it committed.
    pub(crate) fn word_came(&mut self, asked: Asked, word: Resync) -> Step {
        let at = asked.at;
        let said = if !self.agents[at].is_up || self.agent_strikes(at, "as a word came") {
            None
        } else {
            self.reconnect(at);
            self.take_word(at, word)?.filter(|_| !self.agent_strikes(at, "before it answered"))
        };
        note!(self, "p{at}: the word of c{}: {said:?}", asked.coordinator);
        let said = said.map(Box::new);
        self.answer_about_data(asked, |asked| Event::WordTaken { asked, said });
        Ok(())
    }

    fn take_word(
        &mut self,
        at: usize,
        mut word: Resync,
    ) -> Result<Option<Result<Resynced, Refusal>>, crate::Violation> {
        // That an operator lets the report of one log do is not simulated.
        word.alone = self.config.is(Mutant::OpensEarly);
        let logs = self.logs();
        let agent = &mut self.agents[at];
        let view = agent.view(&logs, self.config.mutant);
        if self.config.is(Mutant::UnfencedIsOpen) && !view.fenced {
            word.known = None;
        }
        let spoken = agent.spoken(&logs);
        match agent.reports.take(word, &view, &spoken) {
            Ok(ReportTaken::Answered(said)) => return Ok(Some(Ok(said))),
            Ok(ReportTaken::Repairs) => {}
            Err(refusal) => return Ok(Some(Err(refusal))),
        }
        let Some(open) = self.repair(at, &view)? else { return Ok(None) };
        Ok(Some(Ok(Resynced { open: Some(open), owed: Vec::new(), redone: 0 })))
    }

    /// Makes the data whole step by step, and opens it; or dies between two of them.
    fn repair(
        &mut self,
        at: usize,
        view: &DataView,
    ) -> Result<Option<DataPoint>, crate::Violation> {
        let mut plan = self.plan(at, view);
        if self.config.is(Mutant::RedoneBackwards) {
            plan.steps.reverse();
        }
        for (log_id, heard) in &plan.logs {
            self.oracle.lets_go(at, *log_id, heard.low_water);
        }
        self.oracle.repairs(at, plan.served.iter().map(|served| served.log_id).collect());
        let mut redone = Vec::new();
        for step in &plan.steps {
            redone.extend(self.redo(at, step)?);
            if self.agent_strikes(at, "between two steps of a repair") {
                return Ok(None);
            }
        }
        let staged = self.agents[at].redis.data.control.staged();
        let undecided: Vec<_> = staged.keys().copied().collect();
        let incarnation = match self.config.mutant {
            Some(Mutant::KeepsIncarnation) => self.agents[at].redis.data.control.incarnation(),
            _ => self.next_incarnation(),
        };
        // Of several logs each may know more than those that speak: there the old numbers must do,
        // which is harder. A gap between the numbers would hide old data that is adopted.
        let is_bent =
            matches!(self.config.mutant, Some(Mutant::OpensAtOldNumbers | Mutant::AdoptsOldData));
        let goes_on = is_bent || self.coordinators.len() > 1;
        let seq = if goes_on { plan.heard_seq } else { plan.opening_seq() };
        let open = DataPoint { incarnation, seq };
        let view = self.next_incarnation();
        let came_of = plan.came_of(self.agents[at].unlogged.history());
        let RepairPlan { logs, served, .. } = plan;
        let served = served.into_iter().map(|it| (it.log_id, it.incarnation)).collect();
        self.agents[at].redis.open(Repair { redo: redone, logs, open }, served, came_of);
        self.report.opened += 1;
        note!(self, "p{at}: the data is open as {open:?}, {} branches dropped", undecided.len());
        self.oracle.opened(at, &undecided, &self.agents[at].redis.data, &self.requests)?;
        let is_old_taken = self.config.is(Mutant::OldWordsCount);
        let agent = &mut self.agents[at];
        agent.reports = Reports::default();
        if !is_old_taken {
            agent.view = view;
        }
        let open = agent.redis.data.point();
        agent.unlogged.opened(open);
        agent.adopt(open);
        agent.own.is_quarantined = false;
        // As on the connection that follows.
        unlogged::look(agent);
        Ok(Some(open))
    }

    /// What is to be applied again.
    fn plan(&mut self, at: usize, view: &DataView) -> RepairPlan<(), OnePhaseMarker> {
        let Agent { reports, unlogged, redis, own, .. } = &mut self.agents[at];
        let staged: Vec<Txid> = redis.data.control.staged().keys().copied().collect();
        let unlogged = Some(unlogged).filter(|_| !self.config.is(Mutant::UnloggedForgotten));
        let staged = staged.into_iter().map(|txid| (txid, ()));
        let plan = reports.plan(view, staged, own.known.data.seq, unlogged);
        let by_marker = plan.steps.iter().filter(|step| matches!(step.by, RedoBy::Marker(_)));
        self.report.unlogged_redone += by_marker.count() as u64;
        plan
    }

    /// Takes a step of a repair. Returns it as the last step takes it once more.
    fn redo(
        &mut self,
        at: usize,
        step: &RepairStep<(), OnePhaseMarker>,
    ) -> Result<Option<Redone>, crate::Violation> {
        let RepairStep { seq, txid, by } = step;
        let (seq, txid) = (*seq, *txid);
        let redis = &mut self.agents[at].redis;
        let before = redis.data.control.state(txid);
        let again = match by {
            RedoBy::Record(()) => Some(Redo::default()),
            RedoBy::Writes(redo) => Some(Redo::clone(redo)),
            RedoBy::Marker(_) => None,
        };
        let redone = again.map(|redo| Redone { seq, txid, redo });
        let is_applied = match (by, &redone) {
            (RedoBy::Marker(marker), _) => redis.redo_unlogged(txid, marker.clone()),
            (_, Some(redone)) => {
                let mut is_applied = redis.redo(redone.clone());
                if self.config.is(Mutant::RedoneTwice) && !is_applied && !redone.redo.is_empty() {
                    crate::request::apply(&redone.redo, &mut redis.data.balances);
                    is_applied = true;
                }
                is_applied
            }
            (_, None) => false,
        };
        self.report.redone += u64::from(is_applied);
        note!(self, "p{at}: redoes {txid} of vote {seq}");
        let data = &self.agents[at].redis.data;
        self.oracle.redone(at, txid, before, is_applied, data, &self.requests)?;
        Ok(redone)
    }
}
