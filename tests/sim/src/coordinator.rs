//! The coordinator's shell: feeds the machines, and does what they say. No rule of the protocol is here.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::{
    Branch, Effect, Entry, Failure, Input, Message, Note, Outcome, Spec, State as Phase, Subject,
    Transaction,
};
use assent_common::outcome::{Call, Refusal};
use assent_common::record::{Acknowledged, Identity, Record};
use assent_common::time::Millis;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Attempt, Epoch, LogId, ParticipantName, TxNumber, Txid};

use crate::client::Heard;
use crate::log::Log;
use crate::mutants::{self, Mutant};
use crate::network::{Ask, From};
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::resync::LaneData;
use crate::trace::note;
use crate::world::World;

/// How long a lazy record may wait for company, in microseconds.
const LAZY_US: u64 = 5_000;

/// A coordinator, and what it has on disk.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) is_up: bool,
    /// Process lives so far; what belongs to another one is stale.
    pub(crate) life: u64,
    pub(crate) next_n: u64,
    pub(crate) active: BTreeMap<TxNumber, Active>,
    /// By participant: the transactions that concern it and have not ended.
    pub(crate) unfinished: Vec<BTreeSet<TxNumber>>,
    /// What became of the requests of clients that can ask again.
    pub(crate) known: BTreeMap<usize, Known>,
    pub(crate) authority: Authority,
    pub(crate) log: Log,
    pub(crate) flush_is_due: bool,
    /// By participant: what it knows of the data.
    pub(crate) data: Vec<LaneData>,
}

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) machine: Transaction,
    pub(crate) request: usize,
    /// The timer that is set.
    armed: Option<Millis>,
    /// Whether anybody could see its outcome.
    is_shown: bool,
}

/// What a coordinator knows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is under way as this transaction.
    Active(TxNumber),
    /// It came out; whether committed.
    Told(bool),
}

/// What a coordinator says of itself with every message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) epoch: Epoch,
    pub(crate) low_water: TxNumber,
}

impl Mark {
    /// Says nothing.
    pub(crate) const NONE: Self =
        Self { epoch: Epoch(0), low_water: TxNumber { epoch: Epoch(0), n: 0 } };
}

impl Active {
    pub(crate) const fn new(machine: Transaction, request: usize) -> Self {
        Self { machine, request, armed: None, is_shown: false }
    }
}

impl Coordinator {
    pub(crate) fn new(log_id: LogId, participants: usize) -> Self {
        let log = Log::new(log_id);
        Self {
            is_up: true,
            life: 1,
            next_n: 0,
            active: BTreeMap::new(),
            unfinished: vec![BTreeSet::new(); participants],
            known: BTreeMap::new(),
            authority: Authority::new(log_id, log.epoch, Decisions::default()),
            log,
            flush_is_due: false,
            data: (0..participants).map(|_| LaneData::default()).collect(),
        }
    }

    pub(crate) const fn next(&self) -> TxNumber {
        TxNumber { epoch: self.log.epoch, n: self.next_n }
    }

    /// Everything below has ended, as far as one participant is concerned.
    pub(crate) fn low_water(&self, at: usize) -> TxNumber {
        self.unfinished[at].first().copied().unwrap_or_else(|| self.next())
    }

    pub(crate) const fn txid(&self, number: TxNumber, attempt: Attempt) -> Txid {
        Txid { log_id: self.log.log_id(), number, attempt }
    }

    /// The answer to a branch in doubt.
    pub(crate) fn outcome(&self, txid: Txid, mutant: Option<Mutant>) -> BranchOutcome {
        // Numbers are a log's own: another log's transaction may have that of one which is active here.
        let is_own = txid.log_id == self.log.log_id();
        if !is_own && mutant != Some(Mutant::AnswersForOtherLogs) {
            return BranchOutcome::UnknownAuthority;
        }
        match self.active.get(&txid.number) {
            Some(active) if mutant != Some(Mutant::PresumesActive) => {
                active.machine.outcome_for(txid.attempt)
            }
            _ => self.authority.outcome(txid),
        }
    }
}

impl Coordinator {
    /// Whether its log may know nothing of an implicit transaction: it is of an earlier life.
    pub(crate) fn knows_nothing_of(&self, txid: Txid, mutant: Option<Mutant>) -> bool {
        txid.log_id == self.log.log_id()
            && txid.number.epoch < self.log.epoch
            && !self.active.contains_key(&txid.number)
            && self.outcome(txid, mutant) == BranchOutcome::Aborted
            && mutant != Some(Mutant::PresumesImplicit)
    }
}

pub(crate) fn participant_name(at: usize) -> ParticipantName {
    format!("p{at}").parse().expect("a name")
}

pub(crate) fn place_of_participant(name: &ParticipantName) -> usize {
    name.as_str()[1..].parse().expect("p and a number")
}

impl World {
    /// A request has come: it is new, or known.
    pub(crate) fn submitted(&mut self, request: usize) -> Step {
        let c = self.requests[request].coordinator;
        let coordinator = &self.coordinators[c];
        if !coordinator.is_up {
            return Ok(());
        }
        match coordinator.known.get(&request) {
            Some(Known::Told(committed)) => {
                let heard = Heard::Outcome(*committed);
                self.answer_client(request, heard);
                Ok(())
            }
            Some(Known::Active(number)) => {
                let active = coordinator.active.get(number);
                let outcome = active.and_then(|active| active.machine.outcome());
                let heard = outcome.map_or(Heard::Pending, |(outcome, _)| Heard::of(&outcome));
                self.answer_client(request, heard);
                Ok(())
            }
            None => self.begin(c, request),
        }
    }

    fn begin(&mut self, c: usize, request: usize) -> Step {
        let now = self.now();
        let asked = &self.requests[request];
        let spec = Spec {
            number: self.coordinators[c].next(),
            branches: u16::try_from(asked.branches.len()).expect("few branches"),
            ack: asked.ack,
            deadline: now.plus(asked.timeout_ms),
            answer: asked.answer,
            purpose: mutants::purpose(&self.config, asked),
            protocol: asked.protocol,
        };
        let (number, is_keyed) = (spec.number, asked.is_keyed());
        note!(self, "c{c}: request {request} begins as {}.{}", number.epoch, number.n);
        self.oracle.began(c, number, request, asked)?;
        self.coordinators[c].next_n += 1;
        if is_keyed {
            self.coordinators[c].known.insert(request, Known::Active(number));
        }
        self.activate(c, Active::new(Transaction::new(spec), request));
        self.feed(c, number, Input::Begin)
    }

    pub(crate) fn activate(&mut self, c: usize, active: Active) {
        let number = active.machine.spec().number;
        for branch in &self.requests[active.request].branches {
            self.coordinators[c].unfinished[branch.at].insert(number);
        }
        self.coordinators[c].active.insert(number, active);
    }

    /// One input, and all that follows from it; the process may die between any two effects.
    pub(crate) fn feed(&mut self, c: usize, number: TxNumber, input: Input) -> Step {
        let now = self.now();
        let Some(active) = self.coordinators[c].active.get_mut(&number) else { return Ok(()) };
        let request = active.request;
        if let Input::Abandon { branch, .. } = input {
            self.oracle.gives_up(c, number, branch)?;
        }
        let mut effects = Vec::new();
        note!(self, "c{c}: {}.{} <- {input:?}", number.epoch, number.n);
        if let Err(illegal) = active.machine.step(now, input, &mut effects) {
            return violation("the shell feeds no impossible input", illegal.to_string());
        }
        let life = self.coordinators[c].life;
        for effect in effects {
            if self.random.strikes(self.profile.faults.coordinator_dies) {
                return self.coordinator_dies(c, "between two effects");
            }
            match effect {
                Effect::Send { branch, attempt, message } => {
                    self.call(c, request, number, branch, attempt, message)?;
                }
                Effect::Persist(entry) => self.persist(c, number, request, entry)?,
                Effect::Note(note) => self.note(c, number, request, &note),
                Effect::Answer(outcome) => {
                    self.tell(c, number, request, &outcome)?;
                    self.answer_client(request, Heard::of(&outcome));
                }
            }
            if self.coordinators[c].life != life {
                return Ok(());
            }
        }
        self.settle(c, number)
    }

    fn call(
        &mut self,
        coordinator: usize,
        request: usize,
        number: TxNumber,
        branch: Branch,
        attempt: Attempt,
        message: Message,
    ) -> Step {
        let speaker = &self.coordinators[coordinator];
        let at = self.requests[request].branches[branch.index()].at;
        let low_water = match self.config.mutant {
            Some(Mutant::MarkTooHigh) => TxNumber { n: number.n + 1, ..number },
            _ => speaker.low_water(at),
        };
        let ask = Ask {
            coordinator,
            at,
            request,
            branch,
            txid: speaker.txid(number, attempt),
            message,
            mark: Mark { epoch: speaker.log.epoch, low_water },
            known: speaker.data[at].seen.known,
            from: From::Coordinator(speaker.life),
        };
        note!(
            self,
            "c{coordinator}: {message:?} {}.{}.{} to p{at}",
            number.epoch,
            number.n,
            attempt.0
        );
        let is_question = message == Message::Abort && self.requests[request].is_one_phase();
        self.report.one_phase_questions += u64::from(is_question);
        self.oracle.sends(&ask, self.requests[request].branches.len())?;
        self.transmit(ask);
        Ok(())
    }

    fn persist(&mut self, c: usize, number: TxNumber, request: usize, entry: Entry) -> Step {
        let is_held_back = |coordinator: &Coordinator| {
            let active = coordinator.active.get(&number);
            active.is_some_and(|active| active.machine.answer_is_held_back())
        };
        let forced = match entry {
            Entry::Committed { .. } if self.requests[request].is_implicit() => false,
            Entry::Begun(_) | Entry::Committed { .. } => true,
            Entry::Ended => false,
            Entry::Answered { .. } => is_held_back(&self.coordinators[c]),
        };
        if self.config.is(Mutant::DecidesTwice)
            && let Entry::Committed { attempt, .. } = &entry
        {
            let refusal = Refusal::new(ErrorCode::Timeout, "too late");
            let outcome = Outcome::Aborted(Failure { branch: None, refusal });
            let (attempt, decided_at) = (*attempt, Millis(0));
            let late = Entry::Answered { attempt, decided_at, outcome, written: None };
            self.persist(c, number, request, late)?;
        }
        if self.config.is(Mutant::AbortsWhileDeciding)
            && let Entry::Committed { attempt, .. } = &entry
        {
            self.call(c, request, number, Branch(0), *attempt, Message::Abort)?;
        }
        let record = self.about(number, request, |subject| subject.record(entry));
        note!(self, "c{c}: appends {record:?}");
        self.oracle.appends(c, &record, &self.requests[request])?;
        self.append(c, record, forced);
        if self.config.is(Mutant::PersistedTooEarly) {
            return self.feed(c, number, Input::Persisted);
        }
        Ok(())
    }

    fn note(&mut self, c: usize, number: TxNumber, request: usize, note: &Note) {
        let record = self.about(number, request, |subject| subject.note(note));
        self.append(c, record, false);
    }

    /// A record about a transaction.
    fn about(
        &self,
        number: TxNumber,
        request: usize,
        record: impl FnOnce(Subject<'_>) -> Record,
    ) -> Record {
        let identity = Identity {
            id: self.requests[request].id,
            key: None,
            fingerprint: None,
            name: None,
            created_at: Millis(0),
        };
        record(Subject { number, identity: &identity, participants: &self.names(request) })
    }

    fn names(&self, request: usize) -> Vec<ParticipantName> {
        let branches = &self.requests[request].branches;
        branches.iter().map(|branch| participant_name(branch.at)).collect()
    }

    /// Which branches have acknowledged is durable.
    fn acknowledged(&mut self, c: usize, record: &Acknowledged) -> Step {
        let Some(active) = self.coordinators[c].active.get(&record.number) else { return Ok(()) };
        let names = self.names(active.request);
        let is_told = |name: &ParticipantName| record.participants.contains(name);
        let told = (0..).map(Branch).zip(&names).filter(|(_, name)| is_told(name));
        let told = told.map(|(branch, _)| branch).collect();
        self.feed(c, record.number, Input::Noted(Note::Acknowledged(told)))
    }

    pub(crate) fn append(&mut self, c: usize, record: Record, forced: bool) {
        debug_assert!(self.coordinators[c].is_up, "a dead process writes nothing");
        self.coordinators[c].log.append(record, forced);
        self.write_or_wait(c);
    }

    /// Writes if somebody waits for it; else what there is waits a moment for company.
    fn write_or_wait(&mut self, c: usize) {
        let coordinator = &mut self.coordinators[c];
        if coordinator.log.wants_write(false) {
            self.write_log(c);
        } else if coordinator.log.wants_write(true) && !coordinator.flush_is_due {
            coordinator.flush_is_due = true;
            let life = coordinator.life;
            self.queue.push(self.now_us + LAZY_US, Event::Flushed { coordinator: c, life });
        }
    }

    fn write_log(&mut self, c: usize) {
        self.coordinators[c].log.write();
        let at_us = self.now_us + self.random.between(50, self.profile.sync_us);
        let life = self.coordinators[c].life;
        self.queue.push(at_us, Event::Synced { coordinator: c, life });
    }

    pub(crate) fn flushed(&mut self, c: usize, life: u64) {
        let coordinator = &mut self.coordinators[c];
        if coordinator.life != life {
            return;
        }
        coordinator.flush_is_due = false;
        if coordinator.log.wants_write(true) {
            self.write_log(c);
        }
    }

    /// A batch is durable: a decision is believed from here on. Or its sync has failed, and the process stops.
    pub(crate) fn synced(&mut self, c: usize, life: u64) -> Step {
        if self.coordinators[c].life != life {
            return Ok(());
        }
        let records = if self.random.strikes(self.profile.faults.sync_fails) {
            self.report.failed_syncs += 1;
            if !self.config.is(Mutant::FailedSyncIgnored) {
                return self.coordinator_dies(c, "as a sync of its log failed");
            }
            self.coordinators[c].log.thrown_away()
        } else {
            let records = self.coordinators[c].log.synced();
            records.iter().try_for_each(|record| self.oracle.durable(c, record, &self.requests))?;
            records
        };
        note!(self, "c{c}: {} records synced", records.len());
        for record in records {
            if let Record::Committed(committed) = &record {
                self.report.retried += u64::from(committed.attempt != Attempt::FIRST);
                self.coordinators[c].authority.committed(committed.number, committed.attempt);
            }
            if let Record::DataSeen(seen) = &record {
                self.data_recorded(c, place_of_participant(&seen.participant));
            }
            let number = match record {
                // Nobody waits for it: the input has its own way.
                Record::Abandoned(_) | Record::EndedByHand(_) => None,
                Record::Acknowledged(acknowledged) => {
                    self.acknowledged(c, &acknowledged)?;
                    None
                }
                record => record.number(),
            };
            if let Some(number) = number.filter(|_| !self.config.is(Mutant::PersistedTooEarly)) {
                self.feed(c, number, Input::Persisted)?;
                if self.config.is(Mutant::PersistedTwice) {
                    self.feed(c, number, Input::Persisted)?;
                }
            }
            if self.coordinators[c].life != life {
                return Ok(());
            }
        }
        self.write_or_wait(c);
        Ok(())
    }

    /// Whoever looks at the transaction at this moment sees what it shows; and what has ended is forgotten.
    pub(crate) fn settle(&mut self, c: usize, number: TxNumber) -> Step {
        let Some(active) = self.coordinators[c].active.get(&number) else { return Ok(()) };
        let (request, is_shown) = (active.request, active.is_shown);
        if !is_shown && let Some((outcome, _)) = active.machine.outcome() {
            self.tell(c, number, request, &outcome)?;
        }
        let coordinator = &mut self.coordinators[c];
        let Some(active) = coordinator.active.get_mut(&number) else { return Ok(()) };
        if let Phase::Ended(outcome) = active.machine.state() {
            let told = Known::Told(matches!(outcome, Outcome::Committed { .. }));
            if self.requests[request].is_keyed() {
                coordinator.known.insert(request, told);
            }
            coordinator.active.remove(&number);
            for branch in &self.requests[request].branches {
                coordinator.unfinished[branch.at].remove(&number);
            }
            self.report.ended += 1;
            return Ok(());
        }
        for (branch, planned) in (0..).map(Branch).zip(&self.requests[request].branches) {
            if active.machine.is_over_at(branch) {
                coordinator.unfinished[planned.at].remove(&number);
            }
        }
        let Some(wake_at) = active.machine.wake_at() else { return Ok(()) };
        if active.armed.is_none_or(|armed| wake_at < armed) {
            active.armed = Some(wake_at);
            let at_us = (wake_at.0 * 1_000).max(self.now_us);
            let life = coordinator.life;
            self.queue.push(at_us, Event::Woken { coordinator: c, life, number });
        }
        Ok(())
    }

    pub(crate) fn woken(&mut self, c: usize, life: u64, number: TxNumber) -> Step {
        let now = self.now();
        if self.coordinators[c].life != life {
            return Ok(());
        }
        let Some(active) = self.coordinators[c].active.get_mut(&number) else { return Ok(()) };
        active.armed = None;
        if active.machine.wake_at().is_none_or(|at| at > now) {
            return self.settle(c, number);
        }
        let is_decided = matches!(active.machine.state(), Phase::Committing(_));
        if self.config.is(Mutant::TimerAbandons) && is_decided {
            let attempt = active.machine.attempt();
            return self.feed(c, number, Input::Abandon { branch: Branch(0), attempt });
        }
        self.feed(c, number, Input::Tick)
    }

    fn tell(&mut self, c: usize, number: TxNumber, request: usize, outcome: &Outcome) -> Step {
        let Some(active) = self.coordinators[c].active.get_mut(&number) else { return Ok(()) };
        active.is_shown = true;
        let attempt = active.machine.attempt();
        let txid = self.coordinators[c].txid(number, attempt);
        self.oracle.told(c, txid, request, outcome, &self.requests[request])
    }

    /// The result of a call has come.
    pub(crate) fn answered(&mut self, ask: &Ask, answer: BranchAnswer) -> Step {
        let c = ask.coordinator;
        if ask.from != From::Coordinator(self.coordinators[c].life) {
            return Ok(());
        }
        let number = ask.txid.number;
        let mut input = ask.input(answer);
        self.data_heard(ask, &mut input);
        let Some(active) = self.coordinators[c].active.get(&number) else { return Ok(()) };
        let input = mutants::misread(&self.config, ask, active.machine.attempt(), input);
        if self.config.is(Mutant::EndsAfterFirstAck)
            && let Input::Applied { call: call @ Call::Applied(_), .. } = &input
        {
            for branch in (0..self.requests[ask.request].branches.len()).rev() {
                let branch = Branch(u16::try_from(branch).expect("few branches"));
                self.feed(c, number, Input::Applied { branch, call: call.clone() })?;
            }
            return Ok(());
        }
        self.feed(c, number, input)
    }
}
