//! The core: every active transaction, what is queued for whom, and the doors through which things
//! happen. Synchronous, no I/O but the hand-over to the log's queue; whoever holds its lock never
//! waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use assent_client::mutant;
use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::recovery::Recovered;
use assent_common::coordinator::{Branch, Effect, Input, Message, Outcome, State, Transaction};
use assent_common::lives::Lives;
use assent_common::mutant::Mutant;
use assent_common::outcome::Call;
use assent_common::participant::Branches;
use assent_common::record::{Abandoned, Identity, Record};
use assent_common::time::Millis;
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::Ack;
use assent_common::{
    Epoch, ErrorCode, IdempotencyKey, ParticipantName, TransactionId, TxNumber, Txid,
};
use tokio::sync::{oneshot, watch};

use super::active::{Accepted, Active, Decided, RequestOps};
use super::admission::{Admission, Counted};
use super::history::History;
use super::holders::name_holder;
use super::journal::{
    Appended, crash_before, decision_bytes_max, durability_of, fitting, is_sent_before_persisted,
};
use super::lane::{Lane, Outgoing};
use super::lives::LogLives;
use super::mutants;
use super::numbers::NumberMap;
use super::outbound::Haste;
use super::queues::Queues;
use super::{Shared, problem_of};
use crate::clock;
use crate::log::{Durability, LogPosition, NewRecord, Token};
use crate::metrics;

/// Ended transactions that a list can show; older ones are found by id only.
const RECENT_MAX: usize = 10_000;

/// All that is in memory of a coordinator.
pub(crate) struct Core {
    pub(super) authority: Authority,
    pub(super) epoch: Epoch,
    next_n: u64,
    pub(super) active: NumberMap<TxNumber, Active>,
    pub(super) by_id: HashMap<TransactionId, TxNumber>,
    by_key: HashMap<IdempotencyKey, TxNumber>,
    pub(super) lanes: Vec<Lane>,
    pub(super) lane_of: HashMap<ParticipantName, usize>,
    timers: BinaryHeap<Reverse<(Millis, TxNumber)>>,
    /// Who died of a lock, and is in line for it.
    pub(super) queues: Queues,
    /// Whose turn it is, found while effects are carried out.
    pub(super) turns: Vec<TxNumber>,
    /// What to do when a record handed to the log is durable.
    pub(super) appended: NumberMap<Token, Appended>,
    pub(super) next_token: Token,
    /// Counts what came in from participants and from the log.
    pub(super) progress: watch::Sender<u64>,
    /// Records for the log, handed over as one when the core is let go; what its queue has no room
    /// for stays.
    pub(super) outbox: VecDeque<NewRecord>,
    pub(super) history: History,
    /// The ended transactions that a list can show.
    pub(super) recent: BTreeMap<TransactionId, LogPosition>,
    pub(super) draining: bool,
    /// The lives of the log, and whether it may be spoken for.
    pub(super) lives: LogLives,
    pub(super) admission: Admission,
    effects: Vec<Effect>,
}

impl Core {
    pub(crate) fn new(
        authority: Authority,
        epoch: Epoch,
        history: History,
        lives: Lives,
        admission: Admission,
    ) -> Self {
        let recent = history.latest(RECENT_MAX);
        Self {
            authority,
            epoch,
            next_n: 1,
            active: NumberMap::default(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            timers: BinaryHeap::new(),
            queues: Queues::default(),
            turns: Vec::new(),
            appended: NumberMap::default(),
            next_token: 1,
            progress: watch::Sender::new(0),
            outbox: VecDeque::new(),
            history,
            recent,
            draining: false,
            lives: LogLives::new(lives),
            admission,
            effects: Vec::new(),
        }
    }

    // ---- what comes in

    /// A new transaction. The caller has checked keys, ids and limits.
    pub(super) fn begin(
        &mut self,
        accepted: Accepted,
        ops: RequestOps,
        spec: impl FnOnce(TxNumber) -> assent_common::coordinator::Spec,
        lanes: Vec<usize>,
        shared: &Arc<Shared>,
    ) -> oneshot::Receiver<Decided> {
        let number = TxNumber { epoch: self.epoch, n: self.next_n };
        self.next_n += 1;
        let (waiter, decided) = oneshot::channel();
        let machine = Transaction::new(spec(number))
            .with_decision_bytes_max(decision_bytes_max(&*shared.log));
        self.insert(number, machine, accepted, lanes, vec![waiter]);
        if let Some(active) = self.active.get_mut(&number) {
            active.ops = Some(Arc::new(ops));
        }
        self.step(number, Input::Begin, clock::now(), shared);
        decided
    }

    /// A transaction that the log left unfinished.
    pub(super) fn resume(&mut self, recovered: Recovered, shared: &Arc<Shared>) {
        let Recovered { identity, participants, transaction, abandoned, notes } = recovered;
        let position = self.history.by_id(identity.id);
        let (number, attempt) = (transaction.spec().number, transaction.attempt());
        let lanes: Vec<usize> = participants.iter().map(|name| self.lane(name)).collect();
        for lane in &lanes {
            self.lanes[*lane].start(*lane, shared);
        }
        let accepted = Accepted {
            identity,
            ack: Ack::Applied,
            deadline: transaction.spec().deadline,
            participants,
            addresses: Vec::new(),
        };
        self.insert(number, transaction, accepted, lanes, Vec::new());
        if let Some(active) = self.active.get_mut(&number) {
            active.position = position;
        }
        let now = clock::now();
        for note in notes {
            self.step(number, Input::Noted(note), now, shared);
        }
        for branch in abandoned {
            self.step(number, Input::Abandon { branch, attempt }, now, shared);
        }
        self.step(number, Input::Tick, now, shared);
    }

    /// Results of messages.
    pub(super) fn answered(&mut self, inputs: Vec<(TxNumber, Input)>, shared: &Arc<Shared>) {
        let now = clock::now();
        for (number, mut input) in inputs {
            name_holder(self, shared.identity.log_id, now, &mut input);
            self.step(number, input, now, shared);
        }
        self.progress.send_modify(|n| *n += 1);
    }

    /// Records became durable.
    pub(super) fn durable(&mut self, batch: Vec<(Token, LogPosition)>, shared: &Arc<Shared>) {
        let now = clock::now();
        self.progress.send_modify(|n| *n += 1);
        self.lives.is_on_disk(batch.last().map(|(_, position)| *position));
        for (token, position) in batch {
            match self.appended.remove(&token) {
                Some(Appended::Step(number)) => {
                    self.record_durable(number, position);
                    self.step(number, Input::Persisted, now, shared);
                }
                Some(Appended::Abandon { number, branch, attempt, done }) => {
                    if let Some(active) = self.active.get(&number)
                        && let Some(given_up) = active.accepted.participants.get(branch.index())
                    {
                        let id = active.accepted.identity.id;
                        self.history.abandoned(id, given_up, attempt);
                    }
                    self.step(number, Input::Abandon { branch, attempt }, now, shared);
                    let _nobody_waits = done.send(());
                }
                Some(Appended::Noted(number, note)) => {
                    self.step(number, Input::Noted(note), now, shared);
                }
                Some(Appended::Moved(number)) => {
                    if let Some(active) = self.active.get_mut(&number) {
                        active.position = Some(position);
                    }
                }
                Some(Appended::Life) => self.life_is_durable(),
                Some(Appended::Told(done)) => {
                    let _nobody_waits = done.send(());
                }
                Some(Appended::Nothing) | None => {}
            }
        }
    }

    /// Moments have come; returns the next one.
    pub(super) fn tick(&mut self, now: Millis, shared: &Arc<Shared>) -> Option<Millis> {
        while let Some(&Reverse((at, number))) = self.timers.peek() {
            if at > now {
                return Some(at);
            }
            self.timers.pop();
            let Some(active) = self.active.get_mut(&number) else { continue };
            if active.armed == Some(at) {
                active.armed = None;
            }
            if active.machine.wake_at().is_some_and(|wake_at| wake_at <= now) {
                if let Some(until) = self.queues.until(number).filter(|until| *until > now) {
                    active.armed = Some(until);
                    self.timers.push(Reverse((until, number)));
                    continue;
                }
                self.step(number, Input::Tick, now, shared);
            } else {
                self.arm(number, shared);
            }
        }
        None
    }

    pub(super) fn retry(&mut self, number: TxNumber, shared: &Arc<Shared>) {
        self.step(number, Input::RetryNow, clock::now(), shared);
    }

    pub(super) fn abandon(
        &mut self,
        id: TransactionId,
        participant: &ParticipantName,
        actor: String,
        reason: String,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let wrong = |detail: &str| Err(problem_of(id, ErrorCode::WrongState, detail.to_owned()));
        let Some(number) = self.number_of(id) else {
            return wrong("the transaction is not active here, so there is no branch to abandon");
        };
        let active = &self.active[&number];
        if !matches!(
            active.machine.state(),
            State::Settling(_) | State::Committing(_) | State::Closing(_)
        ) {
            return wrong("the transaction is still undecided, so no branch can be abandoned");
        }
        let place = active.accepted.participants.iter().position(|named| named == participant);
        let Some(branch) = place.and_then(|place| u16::try_from(place).ok()).map(Branch) else {
            return wrong("the transaction has no branch at this participant");
        };
        tracing::error!(%id, %participant, actor, reason, "an operator gives up a branch");
        let attempt = active.machine.attempt();
        let (done, durable) = oneshot::channel();
        let record = Record::Abandoned(Abandoned {
            number,
            id,
            participant: participant.clone(),
            actor,
            reason,
            at: clock::now(),
            attempt: Some(attempt),
        });
        let record = mutants::of_override(record, &self.authority);
        self.append(
            &record,
            Durability::Forced,
            Appended::Abandon { number, branch, attempt, done },
        );
        Ok(durable)
    }

    // ---- steps and their effects

    pub(super) fn step(
        &mut self,
        number: TxNumber,
        input: Input,
        now: Millis,
        shared: &Arc<Shared>,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let Some(active) = self.active.get_mut(&number) else {
            self.effects = effects;
            return;
        };
        let ended_at = match &input {
            Input::Applied { branch, call: Call::Applied(_) }
            | Input::Aborted { branch, call: Call::Applied(_), .. } => {
                active.lanes.get(branch.index()).copied()
            }
            _ => None,
        };
        if let Err(illegal) = active.machine.step(now, input, &mut effects) {
            tracing::error!(error = %illegal, "a step was refused; this is a bug in Assent");
        }
        if let Some(changes) = &active.changes {
            changes.send_modify(|version| *version += 1);
        }
        for effect in effects.drain(..) {
            self.carry_out(number, effect, now, shared);
        }
        self.effects = effects;
        if ended_at.is_some() {
            self.turns.extend(self.queues.release(number, ended_at));
        }
        self.stand_in_line(number, now, shared);
        self.settle_accounts(number);
        match self.active.get(&number) {
            Some(active) if active.machine.is_ended() => self.finish(number),
            Some(_) => self.arm(number, shared),
            None => {}
        }
        for next in std::mem::take(&mut self.turns) {
            self.step(next, Input::RetryNow, now, shared);
        }
    }

    fn carry_out(&mut self, number: TxNumber, effect: Effect, now: Millis, shared: &Arc<Shared>) {
        match effect {
            Effect::Send { branch, attempt, message } => {
                self.send(Outgoing { number, branch, attempt, message }, shared);
            }
            Effect::Persist(entry) => {
                let durability = durability_of(&entry, &self.active[&number]);
                crash_before(&entry);
                let is_early = is_sent_before_persisted(&entry);
                let record = self.active[&number].subject(number).record(entry);
                let record = fitting(record, decision_bytes_max(&*shared.log));
                self.append(&record, durability, Appended::Step(number));
                if is_early {
                    self.step(number, Input::Persisted, now, shared);
                }
            }
            Effect::Note(note) => {
                let record = self.active[&number].subject(number).note(&note);
                self.ended_by_hand(&record);
                self.append(&record, Durability::Lazy, Appended::Noted(number, note));
            }
            Effect::Answer(outcome) => self.tell(number, outcome, now, shared),
        }
    }

    fn send(&mut self, outgoing: Outgoing, shared: &Arc<Shared>) {
        let Some(active) = self.active.get(&outgoing.number) else { return };
        let Some(&lane) = active.lanes.get(outgoing.branch.index()) else { return };
        match outgoing.message {
            Message::PrepareWaiting => self.start_waiting(outgoing, shared),
            // Who has the answer already does not wait for what is left.
            Message::Commit if active.has_answered() => self.enqueue(lane, outgoing, Haste::Rides),
            Message::Prepare | Message::Commit | Message::Abort | Message::Settle => {
                self.enqueue(lane, outgoing, Haste::Now);
            }
        }
    }

    fn enqueue(&mut self, lane: usize, outgoing: Outgoing, haste: Haste) {
        self.lanes[lane].enqueue(outgoing, haste);
        // A participant does outcomes first: the prepare of who is next goes in the same batch.
        if matches!(outgoing.message, Message::Commit | Message::Abort) {
            self.turns.extend(self.queues.release(outgoing.number, Some(lane)));
        }
    }

    fn tell(&mut self, number: TxNumber, outcome: Outcome, now: Millis, shared: &Shared) {
        let Some(active) = self.active.get_mut(&number) else { return };
        let decided_at = active.machine.outcome().map_or(now, |(_, decided_at)| decided_at);
        let Identity { id, name, created_at, .. } = &active.accepted.identity;
        let took_ms = now.since(*created_at);
        let (word, code) = metrics::transaction_answered(&outcome, took_ms);
        let attempt = active.machine.attempt();
        let txid = Txid { log_id: shared.identity.log_id, number, attempt };
        tracing::debug!(%id, %txid, name, outcome = word, code, took_ms, "a transaction is answered");
        for waiter in active.waiters.drain(..) {
            let decided = Decided {
                accepted: Arc::clone(&active.accepted),
                attempt: active.machine.attempt(),
                outcome: outcome.clone(),
                decided_at,
            };
            // A client that went away asks again by its key or id.
            let _gone = waiter.send(decided);
        }
    }

    fn finish(&mut self, number: TxNumber) {
        let Some(active) = self.active.remove(&number) else { return };
        self.queues.leave(number);
        self.turns.extend(self.queues.release(number, None));
        let identity = &active.accepted.identity;
        self.by_id.remove(&identity.id);
        if let Some(key) = &identity.key {
            self.by_key.remove(key);
        }
        for lane in &active.lanes {
            self.lanes[*lane].unfinished.remove(&number);
        }
        // The record of one that was closing for long may have gone with its segment.
        if let Some(position) = active.position.filter(|position| self.history.keeps(*position)) {
            self.remember(identity, position);
        }
    }

    /// An ended transaction can be looked up from now on.
    pub(super) fn remember(&mut self, identity: &Identity, position: LogPosition) {
        self.history.insert(identity, position);
        self.recent.insert(identity.id, position);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    fn arm(&mut self, number: TxNumber, shared: &Arc<Shared>) {
        let Some(active) = self.active.get_mut(&number) else { return };
        let Some(at) = active.machine.wake_at() else { return };
        if active.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        active.armed = Some(at);
        let earliest = self.timers.peek().is_none_or(|Reverse((first, _))| at < *first);
        self.timers.push(Reverse((at, number)));
        if earliest {
            shared.timer.notify_one();
        }
    }

    // ---- questions

    pub(super) fn outcome(&self, txid: Txid) -> BranchOutcome {
        // A transaction of the log may have the number of one of its copy: nothing is known here.
        if self.lives.stale().is_some() {
            return BranchOutcome::Undecided;
        }
        match self.active.get(&txid.number) {
            Some(_) if mutant::is(Mutant::PresumesActive) => BranchOutcome::Aborted,
            Some(active) => active.machine.outcome_for(txid.attempt),
            // What an old copy of a log has no record of may be committed in the log.
            None => match self.authority.outcome(txid) {
                BranchOutcome::Aborted if !self.may_presume() => BranchOutcome::Undecided,
                outcome => outcome,
            },
        }
    }

    /// The same, of an implicit transaction. Of an earlier life's the log may know nothing, so that
    /// no record is no abort: `None` says that its branches are to be asked.
    pub(super) fn implicit_outcome(&self, txid: Txid) -> Option<BranchOutcome> {
        let outcome = self.outcome(txid);
        let is_presumed =
            outcome == BranchOutcome::Aborted && !self.active.contains_key(&txid.number);
        let is_earlier = txid.number.epoch < self.epoch;
        let may_presume = !is_earlier || mutant::is(Mutant::PresumesImplicit);
        (!is_presumed || may_presume).then_some(outcome)
    }

    /// The addresses by which participants are known here now. Where the branches are, by what
    /// operators have registered: what the question says may be anybody's.
    pub(super) fn addresses_now(&self, branches: &[BranchAddress]) -> Result<Branches, Problem> {
        let now = |branch: &BranchAddress| {
            let name = &branch.participant;
            let lane = self.registered_lane(name);
            let url = lane.and_then(|lane| self.lanes[lane].url()).ok_or_else(|| Problem {
                participant: Some(name.to_string()),
                ..Problem::new(
                    ErrorCode::UnknownParticipant,
                    format!("no participant {name} is registered; nobody was asked"),
                )
            })?;
            Ok(BranchAddress { participant: name.clone(), url: url.to_owned() })
        };
        branches.iter().map(now).collect()
    }

    pub(super) fn number_of(&self, id: TransactionId) -> Option<TxNumber> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn number_of_key(&self, key: &IdempotencyKey) -> Option<TxNumber> {
        self.by_key.get(key).copied()
    }

    pub(super) fn changes(&mut self, id: TransactionId) -> Option<watch::Receiver<u64>> {
        let number = self.number_of(id)?;
        let active = self.active.get_mut(&number)?;
        Some(active.changes.get_or_insert_with(|| watch::channel(0).0).subscribe())
    }

    /// Whether nothing is active that could come to an end soon.
    pub(super) fn is_drained(&self) -> bool {
        self.active.values().all(|active| {
            let is_away = |branch: Branch| {
                let lane = active.lanes.get(branch.index());
                lane.is_some_and(|lane| self.lanes[*lane].breaker.away_since().is_some())
            };
            active.machine.waits_in_vain(is_away)
        })
    }

    /// Everything of this log below it has ended, as far as a participant is concerned (invariant
    /// 10).
    pub(super) fn low_water(&self, lane: usize) -> TxNumber {
        let next = TxNumber { epoch: self.epoch, n: self.next_n };
        if mutant::is(Mutant::MarkTooHigh) {
            return TxNumber { n: self.next_n - 1, ..next };
        }
        self.lanes[lane].unfinished.first().copied().unwrap_or(next)
    }

    fn insert(
        &mut self,
        number: TxNumber,
        machine: Transaction,
        accepted: Accepted,
        lanes: Vec<usize>,
        waiters: Vec<oneshot::Sender<Decided>>,
    ) {
        self.by_id.insert(accepted.identity.id, number);
        if let Some(key) = &accepted.identity.key {
            self.by_key.insert(key.clone(), number);
        }
        for lane in &lanes {
            self.lanes[*lane].unfinished.insert(number);
        }
        self.admission.undecided += 1;
        let active = Active {
            machine,
            accepted: Arc::new(accepted),
            is_undecided: true,
            counted: Counted::default(),
            lanes,
            ops: None,
            waiters,
            changes: None,
            armed: None,
            position: None,
        };
        self.active.insert(number, active);
    }
}
