//! The coordinator's shell: feeds the machines, does what they say, dies and recovers. No rule of the protocol is here.

use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::coordinator::recovery::Unfinished;
use assent_common::coordinator::{
    Branch, Contention, Effect, Entry, FromBranch, Input, Note, Outcome, Spec, ToBranch,
    Transaction,
};
use assent_common::outcome::{Aborted, Call, Refusal, Settled};
use assent_common::participant::resolver::{Verdict, judge};
use assent_common::record::{Abandoned, Acknowledged, Record};
use assent_common::time::Millis;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Epoch, ParticipantName, TxNumber, Txid};

use crate::log::participant_name;
use crate::mutants::Mutant;
use crate::state::{
    Active, Ask, Began, Breach, DEADLINE_MS, From, Mark, Packet, State, Told, foreign_log_id,
    log_id,
};
use crate::world::{Asked, World};

const NOW: Millis = Millis(0);
const LATE: Millis = Millis(DEADLINE_MS);

/// What a resolver knows of marks: nothing.
const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

impl World {
    pub(crate) fn begin(&self, state: &mut State, client: usize) {
        let number = TxNumber { epoch: state.epoch, n: state.next_n };
        state.next_n += 1;
        let request = &self.config.clients[client];
        let spec = Spec {
            number,
            branches: u16::try_from(request.branches.len()).expect("few branches"),
            ack: request.ack,
            deadline: LATE,
            answer: request.answer,
            purpose: self.purpose(request),
            protocol: request.protocol,
            contention: Contention::Waits,
            hooked: request.hooked,
        };
        let machine = Arc::new(Transaction::new(spec));
        state.active.insert(number, Active { machine, client });
        state.witness().began.push(Began { number, client });
        self.feed(state, number, NOW, Input::Begin);
    }

    /// One input, and all that follows from it.
    pub(crate) fn feed(&self, state: &mut State, number: TxNumber, now: Millis, input: Input) {
        let Some(active) = state.active.get_mut(&number) else { return };
        let client = active.client;
        let mut effects = Vec::new();
        let machine = Arc::make_mut(&mut active.machine);
        if machine.step(now, input, &mut effects).is_err() {
            state.witness().breaches.insert(Breach::NoTransition);
        }
        for effect in effects {
            match effect {
                Effect::Send(ToBranch { branch, attempt, message }) => {
                    let at = self.config.clients[client].branches[branch.index()].at;
                    let txid = Txid { log_id: log_id(), number, attempt };
                    let mark = self.mark(state, at, number);
                    let from = From::Coordinator;
                    state.send(Packet::Ask(Ask { from, at, client, txid, message, mark }));
                }
                Effect::Persist(entry) => self.append(state, number, client, entry),
                Effect::Note(note) => self.note(state, number, client, &note),
                Effect::Answer(outcome) => self.tell(state, number, &outcome),
            }
        }
        self.settle(state, number);
    }

    fn mark(&self, state: &State, at: usize, number: TxNumber) -> Mark {
        let low_water = match self.config.mutant {
            Some(Mutant::MarkTooHigh) => TxNumber { n: number.n + 1, ..number },
            _ => state.low_water(at, &self.config),
        };
        Mark { epoch: state.epoch, low_water }
    }

    fn append(&self, state: &mut State, number: TxNumber, client: usize, entry: Entry) {
        if self.config.is(Mutant::FailedSyncIgnored) {
            return self.feed(state, number, NOW, Input::Persisted);
        }
        Arc::make_mut(&mut state.log).append(number, &self.config.clients[client], entry);
        if self.config.is(Mutant::PersistedTooEarly) {
            self.feed(state, number, NOW, Input::Persisted);
        }
    }

    fn note(&self, state: &mut State, number: TxNumber, client: usize, note: &Note) {
        Arc::make_mut(&mut state.log).note(number, &self.config.clients[client], note);
        if self.config.is(Mutant::NotedTooEarly) {
            self.feed(state, number, NOW, Input::Noted(note.clone()));
        }
    }

    fn names(&self, client: usize) -> Vec<ParticipantName> {
        let branches = &self.config.clients[client].branches;
        branches.iter().map(|branch| participant_name(branch.at)).collect()
    }

    /// What a record of acknowledgements says, in the machine's words.
    fn noted(&self, state: &State, acknowledged: &Acknowledged) -> Option<Input> {
        let names = self.names(state.active.get(&acknowledged.number)?.client);
        let is_told = |name: &ParticipantName| acknowledged.participants.contains(name);
        let branches = (0..).map(Branch).zip(&names).filter(|(_, name)| is_told(name));
        Some(Input::Noted(Note::Acknowledged(branches.map(|(branch, _)| branch).collect())))
    }

    /// Whoever looks at the transaction at this moment sees what it shows; and what has ended is forgotten.
    fn settle(&self, state: &mut State, number: TxNumber) {
        let Some(active) = state.active.get(&number) else { return };
        let machine = Arc::clone(&active.machine);
        if let Some((outcome, _)) = machine.outcome() {
            self.tell(state, number, &outcome);
        }
        if machine.is_ended() {
            state.active.remove(&number);
            hang_up(state, |txid| txid.number == number);
        }
    }

    fn tell(&self, state: &mut State, number: TxNumber, outcome: &Outcome) {
        let Some(active) = state.active.get(&number) else { return };
        let (client, attempt) = (active.client, active.machine.attempt());
        if matches!(outcome, Outcome::Committed { applied: true, .. }) {
            let txid = Txid { log_id: log_id(), number, attempt };
            if !state.is_applied(txid, client, &self.config) {
                state.witness().breaches.insert(Breach::SaidAppliedTooEarly);
            }
        }
        state.witness().tell(client, Told::of(outcome));
    }

    /// The result of a call has come.
    pub(crate) fn answered(&self, state: &mut State, ask: &Ask, answer: &BranchAnswer) {
        let branches = &self.config.clients[ask.client].branches;
        let place = branches.iter().position(|branch| branch.at == ask.at).expect("a branch");
        let branch = Branch(u16::try_from(place).expect("few branches"));
        let number = ask.txid.number;
        let Some(active) = state.active.get(&number) else { return };
        let attempt = match self.config.mutant {
            Some(Mutant::AttemptIgnored) => active.machine.attempt(),
            _ => ask.txid.attempt,
        };
        let is_last = active.machine.attempt().0 + 1 >= self.config.attempts;
        let answer = self.misread(ask, answer.clone());
        let is_definite = matches!(
            answer,
            BranchAnswer::Prepared(Call::Refused(_))
                | BranchAnswer::Aborted(Call::Applied(Aborted::Fenced))
                | BranchAnswer::Settled(Call::Applied(Settled::Fenced))
        );
        // Attempts have no number but time: here there is time for so many.
        let now = if is_last && is_definite { LATE } else { NOW };
        let say = |state: &mut State, branch| {
            let from = FromBranch { branch, attempt, answer: answer.clone() };
            self.feed(state, number, now, Input::Answered(from));
        };
        if self.config.is(Mutant::EndsAfterFirstAck)
            && matches!(answer, BranchAnswer::Applied(Call::Applied(_)))
        {
            return (0..).map(Branch).take(branches.len()).for_each(|branch| say(state, branch));
        }
        say(state, branch);
    }

    /// A request or an answer is lost, or late: the result of the call is unknown, and a copy may come yet.
    pub(crate) fn lose(&self, state: &mut State, packet: usize, copy: bool) {
        let ask = match state.take(packet) {
            Packet::Ask(ask) => {
                if copy {
                    state.send(Packet::Ask(Ask { from: From::Nobody, ..ask }));
                }
                ask
            }
            Packet::Answer(ask, _) => ask,
        };
        if ask.message == BranchMessage::Commit && self.config.is(Mutant::DeliversOnce) {
            return;
        }
        self.answered(state, &ask, &ask.message.unknown("lost"));
    }

    pub(crate) fn persist(&self, state: &mut State) {
        let log = Arc::make_mut(&mut state.log);
        let record = &log.records[log.durable];
        let number = match record {
            // Nobody waits for it: the input has its own way.
            Record::Abandoned(_) | Record::Acknowledged(_) | Record::EndedByHand(_) => None,
            record => record.number(),
        };
        let acknowledged = match record {
            Record::Acknowledged(acknowledged) => Some(acknowledged.clone()),
            _ => None,
        };
        log.durable += 1;
        if let Some(acknowledged) = acknowledged
            && let Some(noted) = self.noted(state, &acknowledged)
        {
            return self.feed(state, acknowledged.number, NOW, noted);
        }
        if let Some(number) = number.filter(|_| !self.config.is(Mutant::PersistedTooEarly)) {
            self.feed(state, number, NOW, Input::Persisted);
        }
    }

    pub(crate) fn wake(&self, state: &mut State, number: TxNumber) {
        let Some(at) = state.active.get(&number).and_then(|active| active.machine.wake_at()) else {
            return;
        };
        if self.config.is(Mutant::TimerAbandons) {
            let branch = Branch(0);
            let attempt = state.active[&number].machine.attempt();
            return self.feed(state, number, at, Input::Abandon { branch, attempt });
        }
        self.feed(state, number, at, Input::Tick);
    }

    pub(crate) fn run_out_of_time(&self, state: &mut State, number: TxNumber) {
        let is_deciding = |active: &Active| {
            matches!(active.machine.state(), assent_common::coordinator::State::Deciding { .. })
        };
        if let Some(active) = state.active.get(&number).filter(|active| is_deciding(active)) {
            let (client, attempt) = (active.client, active.machine.attempt());
            let refusal = Refusal::new(ErrorCode::Timeout, "too late");
            let failure = assent_common::coordinator::Failure { branch: None, refusal };
            let outcome = Outcome::Aborted(failure);
            let entry = Entry::Answered { attempt, decided_at: LATE, outcome, written: None };
            let request = &self.config.clients[client];
            Arc::make_mut(&mut state.log).append(number, request, entry);
        }
        self.feed(state, number, LATE, Input::Tick);
    }

    /// The process dies: its requests travel on, answers reach nobody. The next one replays what it finds.
    pub(crate) fn crash(&self, state: &mut State, survive: usize) {
        let log = Arc::make_mut(&mut state.log);
        log.records.truncate(log.durable + survive);
        log.durable = log.records.len();
        if !self.config.is(Mutant::EpochReused) {
            state.epoch = Epoch(state.epoch.0 + 1);
        }
        state.next_n = 0;
        state.active.clear();
        hang_up(state, |_| true);
        let mut unfinished = Unfinished::default();
        for record in &state.log.records {
            unfinished.apply(record.clone());
        }
        for recovered in unfinished.plan(NOW).transactions {
            let mut clients = self.config.clients.iter();
            let client = clients.position(|client| client.id == recovered.identity.id);
            let client = client.expect("a client's");
            let number = recovered.transaction.spec().number;
            let attempt = recovered.transaction.attempt();
            let machine = Arc::new(recovered.transaction);
            state.active.insert(number, Active { machine, client });
            for note in recovered.notes {
                self.feed(state, number, NOW, Input::Noted(note));
            }
            for branch in recovered.abandoned {
                self.feed(state, number, NOW, Input::Abandon { branch, attempt });
            }
            self.settle(state, number);
        }
        self.look_up(state);
    }

    /// Clients that can ask again do, and hear what the log has recorded.
    fn look_up(&self, state: &mut State) {
        let log = Arc::clone(&state.log);
        for (place, client) in self.config.clients.iter().enumerate() {
            if let Some(told) = log.recorded(client).filter(|_| client.is_keyed()) {
                state.witness().tell(place, told);
            }
        }
    }

    /// The record first, and the machine when it is durable.
    pub(crate) fn abandon(&self, state: &mut State, number: TxNumber, branch: Branch) {
        let Some(active) = state.active.get(&number) else { return };
        let client = &self.config.clients[active.client];
        let attempt = active.machine.attempt();
        let record = Record::Abandoned(Abandoned {
            number,
            id: client.id,
            participant: participant_name(client.branches[branch.index()].at),
            actor: "operator".to_owned(),
            reason: "told to".to_owned(),
            at: NOW,
            attempt: Some(attempt),
        });
        let log = Arc::make_mut(&mut state.log);
        log.records.push(record);
        log.durable += 1;
        self.feed(state, number, NOW, Input::Abandon { branch, attempt });
    }

    /// What a branch in doubt makes of the answer to its question.
    pub(crate) fn verdict(&self, state: &State, txid: Txid, asked: Asked) -> Verdict {
        let own = || match state.active.get(&txid.number) {
            Some(_) if self.config.is(Mutant::PresumesActive) => presumed(state, txid),
            _ if self.config.is(Mutant::AnswersBeforeReplay) => BranchOutcome::Aborted,
            Some(active) => active.machine.outcome_for(txid.attempt),
            None => self.presumed_or_open(state, txid),
        };
        let call = match asked {
            Asked::Own => Call::Applied(own()),
            Asked::Foreign => {
                let foreign = state.log.authority(foreign_log_id(), state.epoch);
                Call::Applied(foreign.outcome(txid))
            }
            Asked::Gateway => Call::Unknown("404".to_owned()),
        };
        match judge(call) {
            Verdict::Hold(_) if self.config.is(Mutant::ForeignLogBelieved) => Verdict::Abort,
            Verdict::Unheard(why) if why == "404" && self.config.is(Mutant::NotFoundIsAborted) => {
                Verdict::Abort
            }
            verdict => verdict,
        }
    }

    /// What the resolver then tells its own store.
    pub(crate) fn resolved(
        &self,
        state: &State,
        at: usize,
        txid: Txid,
        verdict: &Verdict,
    ) -> Option<Ask> {
        let message = match verdict {
            Verdict::Commit => BranchMessage::Commit,
            Verdict::Abort => BranchMessage::Abort,
            Verdict::Later(_) | Verdict::Unheard(_) | Verdict::Hold(_) => return None,
        };
        let id = state.participants[at].staged().get(&txid)?.id;
        let client = self.config.clients.iter().position(|client| client.id == id)?;
        let mark = Mark { epoch: txid.number.epoch, low_water: NO_MARK };
        Some(Ask { from: From::Resolver, at, client, txid, message, mark })
    }
}

impl World {
    /// Of an implicit transaction of an earlier life the log may know nothing: its branches are asked.
    fn presumed_or_open(&self, state: &State, txid: Txid) -> BranchOutcome {
        let began = state.witness.began.iter().find(|began| began.number == txid.number);
        let is_implicit = began.is_some_and(|b| self.config.clients[b.client].is_implicit());
        match presumed(state, txid) {
            BranchOutcome::Aborted
                if is_implicit
                    && txid.number.epoch < state.epoch
                    && !self.config.is(Mutant::PresumesImplicit) =>
            {
                BranchOutcome::Undecided
            }
            outcome => outcome,
        }
    }
}

fn presumed(state: &State, txid: Txid) -> BranchOutcome {
    state.log.authority(log_id(), state.epoch).outcome(txid)
}

/// Nobody listens to these calls any more: their messages travel on, their answers reach nobody.
fn hang_up(state: &mut State, of: impl Fn(Txid) -> bool) {
    for packet in state.take_all() {
        match packet {
            Packet::Ask(ask) if ask.from == From::Coordinator && of(ask.txid) => {
                state.send(Packet::Ask(Ask { from: From::Nobody, ..ask }));
            }
            Packet::Answer(ask, _) if of(ask.txid) => {}
            packet => state.send(packet),
        }
    }
}
