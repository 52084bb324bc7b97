//! The world of one run: clients, one coordinator, participants, and the network between them.

use assent_common::backoff::spread;
use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::coordinator::{AnswerDurability, Branch, Effect, Input, Message, Purpose};
use assent_common::outcome::{Aborted, Call, Prepared, Refusal};
use assent_common::participant::{Answer, Evaluation, Key, Participant, Prepare, Request};
use assent_common::record::Record;
use assent_common::time::Millis;
use assent_common::wire::branch::{BranchState, Mode};
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::transaction::Ack;
use assent_common::{Attempt, Epoch, TxNumber, Txid};

use crate::checks::{History, Met};
use crate::coordinator::{Coordinator, is_keyed, public_id};

const INCARNATION: u64 = 1;
const PARTICIPANTS: usize = 3;
const CLIENTS: usize = 4;
const EVENTS: usize = 140;
const HEAL_ROUNDS: usize = 2_000;

/// A known-bad variant of the world, each the breach of one invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Records are acknowledged before they are durable (4).
    PersistedTooEarly,
    /// A lost answer is taken for a definite no.
    UnknownIsRefused,
    /// The abort of an unknown transaction leaves no fence (6).
    NoFence,
    /// Presumed abort answers for transactions that are active (7).
    PresumesActive,
    /// The low-water mark passes older transactions that are active (10).
    MarkTooHigh,
    /// A restart goes on in the epoch of the last life (1).
    EpochReused,
    /// A vote is lost after it was given (2).
    VoteLost,
    /// A branch in doubt decides for itself after a while (3).
    VoteTimesOut,
    /// The answer of one phase that only reads is told before it is kept, although the branch keeps no trace of it.
    ReaderToldEarly,
}

impl Mutant {
    pub(crate) const ALL: &[Self] = &[
        Self::PersistedTooEarly,
        Self::UnknownIsRefused,
        Self::NoFence,
        Self::PresumesActive,
        Self::MarkTooHigh,
        Self::EpochReused,
        Self::VoteLost,
        Self::VoteTimesOut,
        Self::ReaderToldEarly,
    ];
}

/// A request of a client; the same one however often it is sent.
pub(crate) struct Client {
    pub(crate) age: u64,
    pub(crate) branches: Vec<ClientBranch>,
    pub(crate) ack: Ack,
    pub(crate) answer: AnswerDurability,
    pub(crate) timeout_ms: u64,
    pub(crate) purpose: Purpose,
}

pub(crate) struct ClientBranch {
    /// The participant.
    pub(crate) at: usize,
    pub(crate) locks: Vec<(Key, Access)>,
    /// Whether its ops end in a false expectation.
    fails: bool,
}

/// A call under way: whom its result is for.
#[derive(Debug, Clone, Copy)]
struct CallId {
    number: TxNumber,
    branch: Branch,
    attempt: Attempt,
    message: Message,
}

enum Packet {
    /// To a participant; without a call it is a copy that nobody waits for.
    Ask { call: Option<CallId>, at: usize, client: usize, txid: Txid, message: Message, mark: Mark },
    /// Back to the coordinator.
    Answer { call: CallId, answer: Answer },
}

/// What the coordinator says of itself with every message.
#[derive(Debug, Clone, Copy)]
struct Mark {
    epoch: Epoch,
    low_water: TxNumber,
}

pub(crate) struct World {
    random: u64,
    mutant: Option<Mutant>,
    trace: Option<Vec<String>>,
    now: Millis,
    clients: Vec<Client>,
    started: usize,
    coordinator: Coordinator,
    participants: Vec<Participant>,
    network: Vec<Packet>,
    history: History,
}

type Step = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, trace: Option<Vec<String>>) -> Self {
        let mut world = Self {
            random: spread(seed),
            mutant,
            trace,
            now: Millis(1),
            clients: Vec::new(),
            started: 0,
            coordinator: Coordinator::new(),
            participants: vec![Participant::new(INCARNATION); PARTICIPANTS],
            network: Vec::new(),
            history: History::default(),
        };
        world.clients = (0..CLIENTS).map(|place| world.client(place)).collect();
        world
    }

    pub(crate) fn into_trace(self) -> Option<Vec<String>> {
        self.trace
    }

    pub(crate) const fn met(&self) -> &Met {
        &self.history.met
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = spread(self.random);
        usize::try_from(self.random % (bound.max(1) as u64)).expect("below the bound")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    /// A request that often meets the others: two keys at each participant, all ages mixed.
    fn client(&mut self, place: usize) -> Client {
        let first = self.below(PARTICIPANTS);
        let branches = 1 + self.below(PARTICIPANTS);
        let branches = (0..branches).map(|n| {
            let access = |random: usize| match random {
                0 => Access::Shared,
                _ => Access::Exclusive,
            };
            let mut locks = vec![(Key::from("k"), access(self.below(3)))];
            if self.chance(40) {
                locks.push((Key::from("l"), access(self.below(3))));
            }
            let at = (first + n) % PARTICIPANTS;
            ClientBranch { at, locks, fails: self.chance(5) }
        });
        let branches: Vec<ClientBranch> = branches.collect();
        let reads = branches.iter().all(ClientBranch::reads);
        let purpose = match self.mutant {
            Some(Mutant::ReaderToldEarly) => Purpose::Write,
            _ if reads => Purpose::Read,
            _ => Purpose::Write,
        };
        // Low digits keep the ages apart, the high one mixes them.
        let age = (self.below(8) * CLIENTS + place) as u64;
        let ack = if self.chance(50) { Ack::Applied } else { Ack::Decided };
        let answer = match self.below(3) {
            0 => AnswerDurability::Lazy,
            _ => AnswerDurability::BeforeAnswer,
        };
        let timeout_ms = [60, 300, 3_000][self.below(3)];
        Client { age, branches, ack, answer, timeout_ms, purpose }
    }

    /// Random events, each followed by every check.
    pub(crate) fn explore(&mut self) -> Step {
        for _ in 0..EVENTS {
            match self.below(100) {
                0..=46 => self.deliver_any()?,
                47..=57 => self.lose_any()?,
                58..=70 => self.persist()?,
                71..=82 => self.wake()?,
                83..=87 => self.start()?,
                88..=92 => self.ask_outcome()?,
                93..=94 => self.sweep(),
                95..=96 => self.crash()?,
                97 => self.retry_now()?,
                98 => self.misbehave(),
                _ => self.now = self.now.plus(200),
            }
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Step {
        if let Some(number) = self.coordinator.stuck() {
            return Err(format!("transaction {number:?} waits for nothing"));
        }
        self.history.check(&self.participants, &self.clients)
    }

    /// No more faults: every transaction ends, every client that can ask again is answered, nothing stays locked.
    pub(crate) fn heal(&mut self) -> Step {
        self.note(|| "healing".to_owned());
        for _ in 0..HEAL_ROUNDS {
            if self.started < CLIENTS {
                self.start()?;
            }
            while !self.network.is_empty() {
                self.deliver(0)?;
                self.check()?;
            }
            while self.coordinator.durable < self.coordinator.log.len() {
                self.persist()?;
                self.check()?;
            }
            self.ask_outcome()?;
            (0..CLIENTS).try_for_each(|client| self.ask_again(client))?;
            self.wake()?;
            self.check()?;
            if self.is_quiet() {
                return self.end();
            }
        }
        let active: Vec<_> = self.coordinator.active.values().map(|a| a.machine.state()).collect();
        Err(format!("not healed: {active:?}, {:?}", self.participants))
    }

    fn is_quiet(&self) -> bool {
        self.started == CLIENTS
            && self.network.is_empty()
            && self.coordinator.active.is_empty()
            && self.coordinator.durable == self.coordinator.log.len()
            && self.participants.iter().all(|participant| participant.staged().is_empty())
    }

    fn end(&mut self) -> Step {
        for (place, client) in self.clients.iter().enumerate() {
            if is_keyed(client) && !self.history.told.contains_key(&place) {
                return Err(format!("client {place} was never answered"));
            }
        }
        let (log_id, epoch) = (self.coordinator.log_id, self.coordinator.epoch);
        let mark = self.coordinator.next();
        for participant in &mut self.participants {
            participant.step(INCARNATION, Request::LowWater { log_id, epoch, mark });
            participant.step(INCARNATION, Request::Sweep);
            if !participant.locks().is_empty() || participant.markers() > 0 {
                return Err(format!("something is left: {participant:?}"));
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Step {
        if self.started == CLIENTS {
            let client = self.below(CLIENTS);
            return self.ask_again(client);
        }
        self.started += 1;
        self.begin(self.started - 1)
    }

    fn begin(&mut self, client: usize) -> Step {
        let number = self.coordinator.accept(client, &self.clients[client], self.now);
        self.history.began(client, number);
        self.note(|| format!("client {client} begins {number:?}"));
        self.feed(number, Input::Begin)
    }

    /// A client with a key sends its request again; whether it was answered or not, one key is one outcome.
    fn ask_again(&mut self, client: usize) -> Step {
        let request = &self.clients[client];
        if !is_keyed(request) || client >= self.started {
            return Ok(());
        }
        if !self.coordinator.knows(client, request) {
            return self.begin(client);
        }
        self.look_up(client)
    }

    /// The client's connection is gone with the old process: it reads the outcome, where there is one to read.
    fn look_up(&mut self, client: usize) -> Step {
        let mut active = self.coordinator.active.values().filter(|a| a.client == client);
        if let Some((outcome, _)) = active.find_map(|a| a.machine.outcome()) {
            return self.history.told(client, &outcome);
        }
        let recorded = self.coordinator.recorded(&self.clients[client]);
        recorded.map_or(Ok(()), |committed| self.history.told_committed(client, committed))
    }

    fn feed(&mut self, number: TxNumber, input: Input) -> Step {
        self.note(|| format!("  {}.{} <- {input:?}", number.epoch, number.n));
        let mut effects = Vec::new();
        let Some(active) = self.coordinator.active.get_mut(&number) else { return Ok(()) };
        let client = active.client;
        let stepped = active.machine.step(self.now, input, &mut effects);
        stepped.map_err(|illegal| illegal.to_string())?;
        for effect in effects {
            self.note(|| format!("  {}.{} -> {effect:?}", number.epoch, number.n));
            match effect {
                Effect::Send { branch, attempt, message } => {
                    self.send(client, CallId { number, branch, attempt, message });
                }
                Effect::Persist(entry) => {
                    self.coordinator.append(number, &self.clients[client], entry);
                    if self.mutant == Some(Mutant::PersistedTooEarly) {
                        self.feed(number, Input::Persisted)?;
                    }
                }
                Effect::Answer(outcome) => self.history.told(client, &outcome)?,
            }
        }
        let active = &mut self.coordinator.active;
        if active.get(&number).is_some_and(|active| active.machine.is_ended()) {
            active.remove(&number);
        }
        Ok(())
    }

    fn send(&mut self, client: usize, call: CallId) {
        let CallId { number, attempt, message, branch } = call;
        let at = self.clients[client].branches[branch.index()].at;
        let low_water = match self.mutant {
            Some(Mutant::MarkTooHigh) => number,
            _ => self.coordinator.low_water(at, &self.clients),
        };
        let mark = Mark { epoch: self.coordinator.epoch, low_water };
        let txid = Txid { log_id: self.coordinator.log_id, number, attempt };
        if let Some(active) = self.coordinator.active.get_mut(&number) {
            active.calls += 1;
        }
        self.network.push(Packet::Ask { call: Some(call), at, client, txid, message, mark });
    }

    fn deliver_any(&mut self) -> Step {
        if self.network.is_empty() {
            return Ok(());
        }
        let which = self.below(self.network.len());
        self.deliver(which)
    }

    fn deliver(&mut self, which: usize) -> Step {
        match self.network.remove(which) {
            Packet::Ask { call, at, client, txid, message, mark } => {
                let answer = self.at_participant(at, client, txid, message, mark)?;
                if let Some(call) = call {
                    self.network.push(Packet::Answer { call, answer });
                }
                Ok(())
            }
            Packet::Answer { call, answer } => {
                self.history.met.waits +=
                    u64::from(matches!(answer, Answer::Prepared(Call::Applied(Prepared::Wait(_)))));
                self.result(call, answer)
            }
        }
    }

    /// One script, and the mark before it.
    fn at_participant(
        &mut self,
        at: usize,
        client: usize,
        txid: Txid,
        message: Message,
        mark: Mark,
    ) -> Result<Answer, String> {
        let client = &self.clients[client];
        let participant = &mut self.participants[at];
        let before = participant.state(txid);
        if self.mutant == Some(Mutant::NoFence) && message == Message::Abort && before.is_none() {
            return Ok(Answer::Aborted(Call::Applied(Aborted::Fenced)));
        }
        let header =
            Request::LowWater { log_id: txid.log_id, epoch: mark.epoch, mark: mark.low_water };
        participant.step(INCARNATION, header);
        let branch = client.branches.iter().find(|branch| branch.at == at).expect("a branch");
        let request = match message {
            Message::Prepare | Message::PrepareWaiting => {
                Request::Prepare(prepare(client, branch, txid))
            }
            Message::Commit => Request::Commit(txid),
            Message::Abort => Request::Abort(txid),
        };
        let stepped = participant.step(INCARNATION, request);
        let is_one_phase = client.branches.len() == 1;
        if is_one_phase && stepped.apply.as_ref().is_some_and(|redo| redo.is_empty()) {
            self.history.read_untraced(txid);
            return Ok(stepped.answer);
        }
        let after = participant.state(txid);
        if before.is_none() && after == Some(BranchState::Prepared) {
            self.history.voted(txid, at, &branch.locks);
        }
        if stepped.apply.is_some() {
            self.history.applied(txid, at, &branch.locks, is_one_phase)?;
        }
        if before == Some(BranchState::Prepared) && after == Some(BranchState::Aborted) {
            self.history.dropped(txid, at)?;
        }
        self.note(|| format!("p{at}: {message:?} {txid} -> {:?}", stepped.answer));
        Ok(stepped.answer)
    }

    fn result(&mut self, call: CallId, answer: Answer) -> Step {
        let CallId { branch, attempt, .. } = call;
        let input = match answer {
            Answer::Prepared(call) => Input::Prepared { branch, attempt, call },
            Answer::Applied(call) => Input::Applied { branch, call },
            Answer::Aborted(call) => Input::Aborted { branch, attempt, call },
            Answer::Noted | Answer::Refused(_) => return Err("no answer to a call".to_owned()),
        };
        if let Some(active) = self.coordinator.active.get_mut(&call.number) {
            active.calls -= 1;
        }
        self.feed(call.number, input)
    }

    /// A request or an answer is lost, or late: the call's result is unknown, and up to two copies may come yet.
    fn lose_any(&mut self) -> Step {
        if self.network.is_empty() {
            return Ok(());
        }
        let which = self.below(self.network.len());
        let call = match self.network.remove(which) {
            Packet::Ask { call, at, client, txid, message, mark } => {
                let copies = if call.is_some() { self.below(3) } else { 0 };
                for _ in 0..copies {
                    self.network.push(Packet::Ask { call: None, at, client, txid, message, mark });
                }
                call
            }
            Packet::Answer { call, .. } => Some(call),
        };
        let Some(call) = call else { return Ok(()) };
        let why = "lost".to_owned();
        let answer = match call.message {
            Message::Prepare | Message::PrepareWaiting
                if self.mutant == Some(Mutant::UnknownIsRefused) =>
            {
                let code = ErrorCode::ParticipantUnreachable;
                Answer::Prepared(Call::Refused(Refusal::new(code, why)))
            }
            Message::Prepare | Message::PrepareWaiting => Answer::Prepared(Call::Unknown(why)),
            Message::Commit => Answer::Applied(Call::Unknown(why)),
            Message::Abort => Answer::Aborted(Call::Unknown(why)),
        };
        self.result(call, answer)
    }

    fn persist(&mut self) -> Step {
        let Some(record) = self.coordinator.persist_next() else { return Ok(()) };
        if let Record::Committed(committed) = &record {
            self.history.decided(self.coordinator.log_id, committed)?;
        }
        match record.number() {
            Some(number) if self.mutant != Some(Mutant::PersistedTooEarly) => {
                self.feed(number, Input::Persisted)
            }
            _ => Ok(()),
        }
    }

    /// Time passes until the next machine wants to be woken.
    fn wake(&mut self) -> Step {
        let wake_at = |number: &TxNumber| self.coordinator.active[number].machine.wake_at();
        let due = self.coordinator.active.keys().copied();
        let next = due.filter_map(|number| Some((wake_at(&number)?, number))).min();
        let Some((at, number)) = next else { return Ok(()) };
        self.now = self.now.max(at);
        self.feed(number, Input::Tick)
    }

    fn retry_now(&mut self) -> Step {
        let numbers: Vec<_> = self.coordinator.active.keys().copied().collect();
        let which = self.below(numbers.len());
        numbers.get(which).map_or(Ok(()), |number| self.feed(*number, Input::RetryNow))
    }

    /// Every branch in doubt asks for its outcome; the answer may be slow, and so may come as a copy nobody waits for.
    fn ask_outcome(&mut self) -> Step {
        let mark = Mark { epoch: Epoch(0), low_water: TxNumber { epoch: Epoch(0), n: 0 } };
        let in_doubt: Vec<_> = (0..PARTICIPANTS)
            .flat_map(|at| self.participants[at].staged().iter().map(move |(t, s)| (at, *t, s.id)))
            .collect();
        for (at, txid, id) in in_doubt {
            let outcome = match self.mutant {
                Some(Mutant::PresumesActive) => self.coordinator.presumed(txid),
                _ => self.coordinator.outcome(txid),
            };
            let message = match outcome {
                BranchOutcome::Committed => Message::Commit,
                BranchOutcome::Aborted => Message::Abort,
                BranchOutcome::Undecided => continue,
                BranchOutcome::UnknownAuthority => return Err(format!("{txid} has no authority")),
            };
            self.history.met.asked += 1;
            let client = self.clients.iter().position(|client| public_id(client.age) == id);
            let client = client.expect("every id is a client's");
            self.network.push(Packet::Ask { call: None, at, client, txid, message, mark });
        }
        Ok(())
    }

    fn sweep(&mut self) {
        let at = self.below(PARTICIPANTS);
        self.participants[at].step(INCARNATION, Request::Sweep);
    }

    /// The process dies: what was not durable is gone, or is found after all; its requests travel on, answers do not.
    fn crash(&mut self) -> Step {
        let pending = self.coordinator.log.len() - self.coordinator.durable;
        let survive = self.below(pending + 1);
        self.note(|| format!("crash: {survive} of {pending} records survive"));
        for _ in 0..survive {
            if let Some(Record::Committed(committed)) = self.coordinator.persist_next() {
                self.history.decided(self.coordinator.log_id, &committed)?;
            }
        }
        let epoch = self.coordinator.epoch;
        self.coordinator.crash(0, &self.clients, self.now);
        if self.mutant == Some(Mutant::EpochReused) {
            self.coordinator.epoch = epoch;
        }
        self.history.met.recovered += self.coordinator.active.len() as u64;
        self.network.retain_mut(|packet| match packet {
            Packet::Ask { call, .. } => {
                *call = None;
                true
            }
            Packet::Answer { .. } => false,
        });
        Ok(())
    }

    /// What a participant must never do; only mutants do.
    fn misbehave(&mut self) {
        let at = self.below(PARTICIPANTS);
        let Some(txid) = self.participants[at].staged().keys().next().copied() else { return };
        match self.mutant {
            Some(Mutant::VoteLost) => self.participants[at] = Participant::new(INCARNATION),
            Some(Mutant::VoteTimesOut) => {
                self.participants[at].step(INCARNATION, Request::Abort(txid));
            }
            _ => {}
        }
    }
}

impl ClientBranch {
    fn reads(&self) -> bool {
        self.locks.iter().all(|(_, access)| *access == Access::Shared)
    }
}

fn prepare(client: &Client, branch: &ClientBranch, txid: Txid) -> Prepare {
    let redo = if branch.reads() { [][..].into() } else { [1][..].into() };
    let refusal = || Refusal::new(ErrorCode::ExpectationFailed, "met another value");
    Prepare {
        txid,
        id: public_id(client.age),
        mode: if client.branches.len() == 1 { Mode::OnePhase } else { Mode::TwoPhase },
        locks: branch.locks.clone(),
        evaluation: if branch.fails {
            Err(refusal())
        } else {
            Ok(Evaluation { replies: "[1]".into(), redo })
        },
    }
}
