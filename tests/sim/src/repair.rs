//! Lost data, at the participant: the shell around `common`'s `Participant::repair`, as
//! `store/fence` and `store/repair` are at the real agent. Decides nothing of the protocol; the
//! words of the logs are in its memory, the fence in its Redis.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::code::ErrorCode;
use assent_common::coordinator::resync::Redone;
use assent_common::outcome::Refusal;
use assent_common::participant::{Heard, Known, OnePhaseMarker, Repair, opening_seq};
use assent_common::wire::resync::{
    DataPoint, DataView, FoundData, Hole, Resync, Resynced, Served, StagedView,
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

/// What logs have said of the data that was found like this.
#[derive(Debug, Default)]
pub(crate) struct Words {
    found: Option<FoundData>,
    logs: BTreeMap<LogId, Resync>,
}

/// How a branch is applied again.
#[derive(Debug)]
enum Again {
    /// By its log's word.
    Logged(Redone),
    /// By what the agent remembers of one phase.
    Unlogged(OnePhaseMarker),
}

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
            data.is_fenced || (mutant == Some(Mutant::FenceInMemory) && self.is_quarantined);
        let staged = data.control.staged().iter();
        let served = data.served.iter();
        DataView {
            incarnation: (!data.is_blank).then(|| data.control.incarnation()),
            seq: data.control.seq(),
            view: self.view,
            fenced,
            reason: None,
            hole: self.hole(logs).filter(|_| fenced),
            owed: if fenced { self.owed(logs) } else { Vec::new() },
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
        let mark = |log_id: &LogId| Some(data.control.heard(*log_id)?.mark(*log_id));
        // What went with the last end is known to those who saw it.
        let is_seen = data.control.incarnation() == self.incarnation;
        let seen = if is_seen { self.ended_seen } else { 0 };
        data.found().has_hole().then(|| Hole {
            ended: data.ended,
            expected: data.expected.max(seen),
            done: data.control.done().collect(),
            marks: logs.iter().filter_map(mark).collect(),
        })
    }

    /// Every log that has spoken here, as the data or this agent remembers, and has not given its
    /// word.
    fn owed(&self, logs: &[LogId]) -> Vec<LogId> {
        let control = &self.redis.data.control;
        let has_spoken = |log: &&LogId| control.heard(**log).is_some() || self.heard.contains(*log);
        let owes = |log: &&LogId| !self.words.logs.contains_key(*log);
        logs.iter().filter(has_spoken).filter(owes).copied().collect()
    }

    fn adopt(&mut self, open: DataPoint) {
        self.unlogged.goes_on_with(open);
        if self.incarnation == open.incarnation {
            self.seq_seen = self.seq_seen.max(open.seq);
        } else {
            // What it saw of other data says nothing of this.
            (self.incarnation, self.seq_seen) = (open.incarnation, open.seq);
            self.ended_seen = 0;
            self.is_quarantined = false;
        }
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
        let agent = &self.agents[at];
        let is_as_known = known.is_none_or(|known| {
            known.incarnation == agent.incarnation && known.seq <= agent.seq_seen
        });
        let is_blind =
            matches!(self.config.mutant, Some(Mutant::KnownIgnored | Mutant::IncarnationIgnored));
        if !agent.is_quarantined && (is_as_known || is_blind) {
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
        let view = self.agents[at].view(&self.logs(), self.config.mutant);
        let agent = &mut self.agents[at];
        if view.fenced {
            agent.is_quarantined = true;
            return Some("the data is fenced");
        }
        if let Some(known) = known {
            let is_that = agent.found(self.config.mutant);
            let is_that = is_that.mismatch(Known { data: known, ended: 0 }).is_none();
            // Data with fewer votes than this agent saw is not what became of it, whoever knows no
            // better.
            let is_back =
                view.seq < agent.seq_seen && self.config.mutant != Some(Mutant::AdoptsOldData);
            let is_other = known.incarnation != agent.incarnation;
            if is_that && !is_back && (!agent.is_quarantined || is_other) {
                agent.adopt(DataPoint { incarnation: known.incarnation, seq: view.seq });
                return None;
            }
            if view.has_served(log_id, known) {
                return Some("what it knew was repaired");
            }
        }
        self.fence(at);
        Some("the data is not what was known")
    }

    /// Fences the data, until its coordinators have spoken.
    pub(crate) fn fence(&mut self, at: usize) {
        note!(self, "p{at}: the data is fenced");
        self.report.fenced += 1;
        self.agents[at].is_quarantined = true;
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
        word: Resync,
    ) -> Result<Option<Result<Resynced, Refusal>>, crate::Violation> {
        let view = self.agents[at].view(&self.logs(), self.config.mutant);
        let wrong = |detail: &str| Ok(Some(Err(Refusal::new(ErrorCode::WrongState, detail))));
        if !view.fenced {
            let log_id = word.coordinator.log_id;
            let is_served = word.known.is_none_or(|known| view.has_served(log_id, known));
            if !is_served && !self.config.is(Mutant::UnfencedIsOpen) {
                return wrong("the data is open without this word; look again");
            }
            let open = Some(self.agents[at].redis.data.point());
            return Ok(Some(Ok(Resynced { open, owed: Vec::new(), redone: 0 })));
        }
        let found = view.found();
        if word.found != found {
            return wrong("the data is not what the coordinator was shown");
        }
        let agent = &mut self.agents[at];
        if agent.words.found != Some(found) {
            agent.words = Words { found: Some(found), logs: BTreeMap::new() };
        }
        agent.words.logs.insert(word.coordinator.log_id, word);
        let owed = self.agents[at].owed(&self.logs());
        if !owed.is_empty() && !self.config.is(Mutant::OpensEarly) {
            return Ok(Some(Ok(Resynced { open: None, owed, redone: 0 })));
        }
        let Some(open) = self.repair(at)? else { return Ok(None) };
        Ok(Some(Ok(Resynced { open: Some(open), owed: Vec::new(), redone: 0 })))
    }

    /// Makes the data whole step by step, and opens it; or dies between two of them.
    fn repair(&mut self, at: usize) -> Result<Option<DataPoint>, crate::Violation> {
        let mut steps = self.steps(at);
        steps.sort_by_key(|(order, _)| *order);
        let words = &self.agents[at].words;
        let logs: Vec<_> = words
            .logs
            .iter()
            .map(|(log_id, word)| {
                let heard = Heard { epoch: word.coordinator.epoch, low_water: word.low_water };
                (*log_id, heard)
            })
            .collect();
        let served = words.logs.iter();
        let served: BTreeMap<_, _> = served
            .map(|(log_id, word)| (*log_id, word.known.map_or(0, |known| known.incarnation)))
            .collect();
        let knew = words.logs.values().filter_map(|word| word.known).map(|known| known.seq);
        let found = words.found.map_or(0, |found| found.seq);
        let seq = knew.max().unwrap_or(0).max(found);
        if self.config.is(Mutant::RedoneBackwards) {
            steps.reverse();
        }
        self.oracle.repairs(at, served.keys().copied().collect());
        for ((seq, txid), again) in &steps {
            self.redo(at, *seq, *txid, again)?;
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
        let seq = if goes_on { seq } else { opening_seq(seq) };
        let open = DataPoint { incarnation, seq };
        let view = self.next_incarnation();
        let redo = steps.into_iter().filter_map(|(_, again)| match again {
            Again::Logged(redone) => Some(redone),
            Again::Unlogged(_) => None,
        });
        let repair = Repair { redo: redo.collect(), logs, open };
        self.agents[at].redis.open(repair, served);
        self.report.opened += 1;
        note!(self, "p{at}: the data is open as {open:?}, {} branches dropped", undecided.len());
        self.oracle.opened(at, &undecided, &self.agents[at].redis.data, &self.requests)?;
        let is_old_taken = self.config.is(Mutant::OldWordsCount);
        let agent = &mut self.agents[at];
        agent.words = Words::default();
        if !is_old_taken {
            agent.view = view;
        }
        let open = agent.redis.data.point();
        agent.unlogged.opened(open);
        agent.adopt(open);
        agent.is_quarantined = false;
        // As on the connection that follows.
        unlogged::look(agent);
        Ok(Some(open))
    }

    /// What the logs say is to be applied again, and what is in no log.
    fn steps(&mut self, at: usize) -> Vec<((u64, Txid), Again)> {
        let Agent { words, unlogged, redis, .. } = &mut self.agents[at];
        let said = words.logs.values().flat_map(|word| &word.redo).map(|it| {
            let redone = Redone { seq: it.seq, txid: it.txid, redo: it.redo.0.clone() };
            ((it.seq, it.txid), Again::Logged(redone))
        });
        let mut steps: Vec<_> = said.collect();
        if self.config.is(Mutant::UnloggedForgotten) {
            return steps;
        }
        let found = words.found.map_or(0, |found| found.seq);
        if redis.data.found().has_hole() {
            unlogged.may_lack_up_to(found);
        }
        for (log_id, word) in &words.logs {
            unlogged.let_go(*log_id, word.low_water);
            self.oracle.lets_go(at, *log_id, word.low_water);
        }
        let known = |log_id| words.logs.get(&log_id)?.known;
        let are_said: BTreeSet<Txid> = steps.iter().map(|((_, txid), _)| *txid).collect();
        let lacking = unlogged.lacking(found, known);
        let lacking = lacking.filter(|(txid, _)| !are_said.contains(txid));
        steps.extend(lacking.map(|(txid, branch)| {
            self.report.unlogged_redone += 1;
            ((branch.seq, txid), Again::Unlogged(branch.marker.clone()))
        }));
        steps
    }

    fn redo(&mut self, at: usize, seq: u64, txid: Txid, again: &Again) -> Step {
        let redis = &mut self.agents[at].redis;
        let before = redis.data.control.state(txid);
        let is_applied = match again {
            Again::Unlogged(marker) => redis.redo_unlogged(txid, marker.clone()),
            Again::Logged(redone) => {
                let mut is_applied = redis.redo(redone.clone());
                if self.config.is(Mutant::RedoneTwice) && !is_applied && !redone.redo.is_empty() {
                    crate::request::apply(&redone.redo, &mut redis.data.balances);
                    is_applied = true;
                }
                is_applied
            }
        };
        self.report.redone += u64::from(is_applied);
        note!(self, "p{at}: redoes {txid} of vote {seq}");
        let data = &self.agents[at].redis.data;
        self.oracle.redone(at, txid, before, is_applied, data, &self.requests)
    }
}
