//! The world as a model: which steps a state allows, and where each leads.
//!
//! Time is abstract. A machine is never told what time it is but by a step that wakes it, and it may be woken as soon as
//! it wants to; deadlines pass at any moment. So every order of timers and messages is explored, and no property can
//! depend on a clock (invariant 10).

use std::sync::Arc;

use assent_common::coordinator::{Branch, OnePhaseCall, State as Phase, Transaction};
use assent_common::participant::Participant;
use assent_common::participant::resolver::Verdict;
use assent_common::{TxNumber, Txid};
use stateright::{Model, Property};

use crate::config::{Config, Questions};
use crate::mutants::Mutant;
use crate::properties;
use crate::state::{Ask, DEADLINE_MS, From, INCARNATION, Packet, State};

/// How often a branch is told or asked again that answers, but not as it should: one without its data, a lock that is
/// held.
const TRIES_MAX: u32 = 2;

/// A configuration, ready to be explored.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) config: Config,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client sends its request, for the first time or again.
    Begin(usize),
    /// A packet arrives; by its place.
    Deliver(usize),
    /// The next record of the log is on disk.
    Persist,
    /// A machine is woken for what is due next.
    Wake(TxNumber),
    /// A transaction's time to be decided is over.
    Deadline(TxNumber),
    /// A branch in doubt asks for its outcome.
    Question { at: usize, txid: Txid, asked: Asked },
    /// For a staged branch of an implicit transaction another one is asked, and fenced if it is absent.
    Settle { by: usize, txid: Txid, at: usize },
    /// A batch without a message for anything here: the low-water mark, and a sweep.
    Batch(usize),
    /// A call's result is unknown; a copy of its message may come yet.
    Lose { packet: usize, copy: bool },
    /// A copy of a message sets out beside it.
    Repeat(usize),
    /// The coordinator dies and is started again; of what it had not yet synced, so much is found after all.
    Crash { survive: usize },
    /// A Redis comes back with data as of its start.
    RollBack(usize),
    /// A Redis is replaced by an empty one.
    Replace(usize),
    /// An operator gives up a branch.
    Abandon(TxNumber, Branch),
    /// What must never happen; mutants only.
    Misbehave(usize),
}

/// Who is asked about a branch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Its coordinator.
    Own,
    /// A coordinator of another log, at the same address.
    Foreign,
    /// Something that answers 404.
    Gateway,
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(&self.config)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.progress(state, actions);
        self.questions(state, actions);
        self.faults(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        match action {
            // Most questions learn nothing new, so that the state need not be copied.
            Action::Question { at, txid, asked } => {
                let verdict = self.verdict(last, txid, asked);
                let ask = self.resolver_ask(last, at, txid, &verdict)?;
                let mut next = last.clone();
                self.tell_store(&mut next, ask);
                Some(next)
            }
            Action::Settle { by, txid, at } => {
                let mut next = last.clone();
                self.settle_for(&mut next, by, txid, at);
                Some(next)
            }
            Action::Batch(at) => {
                let mut next = last.clone();
                self.batch(&mut next, at);
                (next.participants[at] != last.participants[at]).then_some(next)
            }
            action => {
                let mut next = last.clone();
                self.act(&mut next, action);
                next.forget_resolutions();
                Some(next)
            }
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.config)
    }
}

impl World {
    /// What happens without anything going wrong, questions of the participants apart.
    fn progress(&self, state: &State, actions: &mut Vec<Action>) {
        let packets = state.distinct().map(|(place, _)| Action::Deliver(place));
        actions.extend(packets);
        self.local_progress(state, actions);
    }

    fn local_progress(&self, state: &State, actions: &mut Vec<Action>) {
        if state.log.pending() > 0 {
            actions.push(Action::Persist);
        }
        for (number, active) in &state.active {
            let is_due = active.machine.wake_at().is_some_and(|at| at.0 < DEADLINE_MS);
            if is_due && !self.is_hopeless(&active.machine) {
                actions.push(Action::Wake(*number));
            }
            if self.may_time_out(&active.machine) {
                actions.push(Action::Deadline(*number));
            }
        }
        let may_begin = (0..self.config.clients.len()).filter(|c| self.may_begin(state, *c));
        actions.extend(may_begin.map(Action::Begin));
        if state.budget.marks {
            actions.extend((0..state.participants.len()).map(Action::Batch));
        }
    }

    fn questions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.budget.questions == Questions::Never {
            return;
        }
        for (at, participant) in state.participants.iter().enumerate() {
            for txid in participant.staged().keys() {
                for asked in [Asked::Own, Asked::Foreign, Asked::Gateway] {
                    actions.push(Action::Question { at, txid: *txid, asked });
                }
            }
            for (by, txid) in participant.staged().keys().map(|txid| (at, *txid)) {
                let missing = self.missing(state, by, txid).into_iter();
                actions.extend(missing.map(|at| Action::Settle { by, txid, at }));
            }
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let budget = state.budget;
        if budget.losses > 0 {
            for (packet, which) in state.distinct() {
                match which {
                    Packet::Ask(ask) if ask.from == From::Coordinator => {
                        actions.extend([false, true].map(|copy| Action::Lose { packet, copy }));
                    }
                    Packet::Ask(_) => {}
                    Packet::Answer(..) => actions.push(Action::Lose { packet, copy: false }),
                }
            }
        }
        if budget.repeats > 0 {
            let is_call = |packet: &Packet| matches!(packet, Packet::Ask(ask) if ask.from == From::Coordinator);
            let calls = state.distinct().filter(|(_, packet)| is_call(packet));
            actions.extend(calls.map(|(place, _)| Action::Repeat(place)));
        }
        if budget.crashes > 0 {
            let survivors = 0..=state.log.pending();
            actions.extend(survivors.map(|survive| Action::Crash { survive }));
        }
        for (at, participant) in state.participants.iter().enumerate() {
            let may_lose = budget.rollbacks + budget.replacements > 0;
            let has_data = may_lose && **participant != Participant::new(INCARNATION);
            if budget.rollbacks > 0 && has_data {
                actions.push(Action::RollBack(at));
            }
            if budget.replacements > 0 && has_data {
                actions.push(Action::Replace(at));
            }
            if self.config.is(Mutant::VoteTimesOut) && !participant.staged().is_empty() {
                actions.push(Action::Misbehave(at));
            }
        }
        if budget.overrides > 0 && state.log.pending() == 0 {
            for (number, active) in &state.active {
                let undelivered = undelivered(&active.machine).into_iter();
                actions.extend(undelivered.map(|branch| Action::Abandon(*number, branch)));
            }
        }
    }

    /// Whether nothing can happen any more, if nothing goes wrong and no copy that got lost on the way ever arrives.
    pub(crate) fn is_quiet(&self, state: &State) -> bool {
        let is_heard = |packet: &Packet| match packet {
            Packet::Ask(ask) => ask.from != From::Nobody,
            Packet::Answer(..) => true,
        };
        if state.packets().any(is_heard) {
            return false;
        }
        let mut actions = Vec::new();
        self.local_progress(state, &mut actions);
        self.questions(state, &mut actions);
        actions.into_iter().all(|action| self.next_state(state, action).is_none())
    }

    /// Whether a client's request may be (or come to be) executed: the first time, or again, where its client knows it
    /// by a key and the log does not.
    fn may_begin(&self, state: &State, client: usize) -> bool {
        let executions = state.witness.numbers(client).count();
        let request = &self.config.clients[client];
        let is_active = || state.active.values().any(|active| active.client == client);
        executions == 0
            || (executions < self.config.begins_max()
                && request.is_keyed()
                && !is_active()
                && !state.log.knows(request))
    }

    /// Telling a branch that is lost, and asking again for a lock, have no end; here they have, so that there is one to
    /// the states. What is told again only because messages got lost stays below it.
    fn is_hopeless(&self, machine: &Transaction) -> bool {
        let mut branches = (0..machine.spec().branches).map(Branch);
        let tries_max = u32::from(self.config.budget.losses) + TRIES_MAX;
        branches.any(|branch| machine.branch_status(branch).tries >= tries_max)
    }

    fn may_time_out(&self, machine: &Transaction) -> bool {
        let has_deadline = self.config.budget.deadlines && machine.spec().deadline.0 == DEADLINE_MS;
        let waits = match machine.state() {
            Phase::Preparing(_) | Phase::Pausing { .. } => true,
            Phase::OnePhase(one_phase) => !matches!(one_phase.call, OnePhaseCall::Asking { .. }),
            Phase::Deciding { .. } => self.config.is(Mutant::DecidesTwice),
            Phase::Settling(_) => false,
            _ => false,
        };
        has_deadline && waits
    }

    /// What a resolver has learned reaches its own store.
    pub(crate) fn tell_store(&self, state: &mut State, ask: Ask) {
        match state.budget.questions {
            Questions::AtOnce => self.arrive(state, ask),
            Questions::Never | Questions::Later => state.send(Packet::Ask(ask)),
        }
        state.forget_resolutions();
    }

    /// The message that a participant's resolver sends itself, if the verdict is one and no such message is under way.
    pub(crate) fn resolver_ask(
        &self,
        state: &State,
        at: usize,
        txid: Txid,
        verdict: &Verdict,
    ) -> Option<Ask> {
        let ask = self.resolved(state, at, txid, verdict)?;
        (!state.asks().any(|other| *other == ask)).then_some(ask)
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Begin(client) => self.begin(state, client),
            Action::Deliver(place) => match state.take(place) {
                Packet::Ask(ask) => self.arrive(state, ask),
                Packet::Answer(ask, answer) => self.answered(state, &ask, &answer),
            },
            Action::Persist => self.persist(state),
            Action::Wake(number) => self.wake(state, number),
            Action::Deadline(number) => self.run_out_of_time(state, number),
            Action::Lose { packet, copy } => {
                state.budget.losses -= 1;
                self.lose(state, packet, copy);
            }
            Action::Repeat(place) => {
                state.budget.repeats -= 1;
                if let Packet::Ask(ask) = state.take(place) {
                    state.send(Packet::Ask(ask));
                    state.send(Packet::Ask(Ask { from: From::Nobody, ..ask }));
                }
            }
            Action::Crash { survive } => {
                state.budget.crashes -= 1;
                self.crash(state, survive);
            }
            Action::RollBack(at) => {
                state.budget.rollbacks -= 1;
                state.participants[at] = Arc::new(Participant::new(INCARNATION));
            }
            Action::Replace(at) => {
                state.budget.replacements -= 1;
                state.participants[at] = Arc::new(Participant::new(INCARNATION + 1));
            }
            Action::Abandon(number, branch) => {
                state.budget.overrides -= 1;
                self.abandon(state, number, branch);
            }
            Action::Misbehave(at) => self.misbehave(state, at),
            Action::Question { .. } | Action::Settle { .. } | Action::Batch(_) => {
                unreachable!("see next_state")
            }
        }
    }
}

/// The branches that an operator may give up.
fn undelivered(machine: &Transaction) -> Vec<Branch> {
    match machine.state() {
        Phase::Committing(committing) => (0..)
            .map(Branch)
            .zip(&committing.deliveries)
            .filter(|(_, delivery)| !delivery.is_over())
            .map(|(branch, _)| branch)
            .collect(),
        Phase::Closing(_) => machine.strays().iter().map(|stray| stray.branch).collect(),
        _ => Vec::new(),
    }
}
