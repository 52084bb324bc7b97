//! The coordinator's shell: brings what happens to the engine that production runs, and carries out
//! what it wants done. No rule of the protocol is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use assent_common::branch::BranchMessage;
use assent_common::code::ErrorCode;
use assent_common::coordinator::{
    Branch, Contention, Delivery, Input, Outcome, State as Phase, ToBranch,
};
use assent_common::log::{LogPosition, NewRecord, Token};
use assent_common::record::{AnswerRecord, Answered, Committed, Record};
use assent_common::time::{Micros, Millis};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Attempt, Epoch, IdempotencyKey, LogId, ParticipantName, TxNumber, Txid};
use assent_engine::{
    AdmissionLimits, Core, CoreSettings, Errand, Fingerprint, NewTransaction, Notice, Replaying,
    RequestOps, Taken, Ticket, Variant, decision_bytes_max,
};
use serde_json::value::RawValue;

use crate::client::Heard;
use crate::config::Config;
use crate::lanes;
use crate::log::Log;
use crate::mutants::{self, Mutant};
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::request::{Request, place_of};
use crate::trace::note;
use crate::world::World;

/// How long a lazy record may wait for company, in microseconds.
const LAZY_US: u64 = 5_000;

/// Whoever waits for nothing to be durable.
pub(crate) const NOBODY: Ticket = Ticket(u64::MAX);

/// Whoever waits to delete segments of its log.
pub(crate) const COMPACTED: Ticket = Ticket(u64::MAX - 1);

/// A coordinator, and what it has on disk.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) is_up: bool,
    /// Process lives so far; what belongs to another one is stale.
    pub(crate) life: u64,
    pub(crate) core: Core,
    pub(crate) log: Log,
    pub(crate) desk: ShellDesk,
}

/// What the shell keeps beside the core, in one life.
#[derive(Debug, Default)]
pub(crate) struct ShellDesk {
    flush_is_due: bool,
    /// When its timers are looked at next.
    tick_at: Option<Millis>,
    /// By lane: when it is looked at next.
    pub(crate) lanes_at: BTreeMap<usize, Micros>,
    /// The transactions of which anybody could see the outcome.
    shown: BTreeSet<TxNumber>,
    /// The last segment of the compaction that is under way.
    pub(crate) compacted: Option<u32>,
    /// The decisions in its segments, as they lie there: what is appended again is no decision.
    pub(crate) copies: BTreeSet<Vec<u8>>,
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

/// The ops of a request are known to the world; no message carries them.
#[derive(Debug)]
struct KnownOps {
    /// Whether a hook decides about each branch.
    hooked: Vec<bool>,
}

impl RequestOps for KnownOps {
    fn input(&self, branch: Branch) -> Option<&RawValue> {
        self.hooked.get(branch.index()).filter(|hooked| **hooked).map(|_| RawValue::NULL)
    }

    fn of(&self, _: Branch) -> Option<&RawValue> {
        None
    }
}

/// Of all requests with a key: the key itself tells them apart.
static FINGERPRINT: LazyLock<Fingerprint> = LazyLock::new(|| {
    let body = r#"{"branches":[{"participant":"p0","ops":[{"cmd":["GET","k0"]}]}]}"#;
    let request = serde_json::from_str(body).expect("a request");
    Fingerprint::of(request, body.as_bytes()).expect("a valid one").1
});

impl Coordinator {
    pub(crate) fn new(config: &Config, log_id: LogId, participants: usize) -> Self {
        let log = Log::new(log_id);
        let mut core = Self::begin(config, &log, Replaying::default(), Millis(0)).core;
        register(&mut core, participants);
        Self { is_up: true, life: 1, core, log, desk: ShellDesk::default() }
    }

    pub(crate) const fn txid(&self, number: TxNumber, attempt: Attempt) -> Txid {
        Txid { log_id: self.log.log_id(), number, attempt }
    }

    /// The answer to a branch in doubt.
    pub(crate) fn outcome(&self, txid: Txid, mutant: Option<Mutant>) -> BranchOutcome {
        // Numbers are a log's own: another log's transaction may have that of one which is active
        // here.
        let txid = match mutant {
            Some(Mutant::AnswersForOtherLogs) => Txid { log_id: self.log.log_id(), ..txid },
            _ => txid,
        };
        let is_own = txid.log_id == self.log.log_id();
        if mutant == Some(Mutant::PresumesActive)
            && is_own
            && self.core.active(txid.number).is_some()
        {
            return BranchOutcome::Aborted;
        }
        self.core.outcome(txid)
    }

    /// Whether its log may know nothing of an implicit transaction: it is of an earlier life.
    pub(crate) fn knows_nothing_of(&self, txid: Txid, mutant: Option<Mutant>) -> bool {
        self.core.implicit_outcome(txid).is_none() && mutant != Some(Mutant::PresumesImplicit)
    }

    /// The numbers of the active transactions, in order.
    pub(crate) fn active(&self) -> BTreeSet<TxNumber> {
        self.core.all_active().map(|active| active.machine.spec().number).collect()
    }
}

/// Who speaks for a log in its present life, and how much may be under way.
pub(crate) fn core_settings(config: &Config, log: &Log) -> CoreSettings {
    let (log_id, epoch) = (log.log_id(), log.epoch);
    let most = usize::MAX;
    CoreSettings {
        identity: CoordinatorRef { log_id, epoch, url: String::new(), life: None },
        decision_bytes_max: decision_bytes_max(most),
        admission: AdmissionLimits {
            in_flight_max: most,
            per_participant_max: most,
            undelivered_max: most,
        },
        variant: Variant::of(config.mutant.and_then(Mutant::of_engine)),
    }
}

/// Registers all participants: the place of a lane is that of its participant. All of them have been
/// greeted: which life of a log speaks is not simulated.
pub(crate) fn register(core: &mut Core, participants: usize) {
    for at in 0..participants {
        let place = core.restore_participant(&participant_name(at), "http://p");
        assert_eq!(place, at, "lanes are in the order of their participants");
        core.life_heard(at, assent_engine::LifeHeard::Nothing);
    }
}

pub(crate) fn participant_name(at: usize) -> ParticipantName {
    format!("p{at}").parse().expect("a name")
}

/// What the client of a request that has a key asks again by.
fn key_of(request: usize) -> IdempotencyKey {
    format!("request-{request}").parse().expect("a key")
}

impl World {
    /// A request has come: it is new, or known.
    pub(crate) fn submitted(&mut self, request: usize) -> Step {
        let c = self.requests[request].coordinator;
        if !self.coordinators[c].is_up {
            return Ok(());
        }
        let (new, now) = (self.new_transaction(request), Micros(self.now_us));
        let waiter = Ticket(request as u64);
        let core = &mut self.coordinators[c].core;
        match core.submit(new, waiter, false, now) {
            Ok(Taken::Begun) => {
                let asked = &self.requests[request];
                let number = core.number_of(asked.id).expect("it has just begun");
                core.watch(number);
                note!(self, "c{c}: request {request} begins as {}.{}", number.epoch, number.n);
                self.oracle.began(c, number, request, &self.requests[request])?;
                self.carry_out(c)
            }
            Ok(Taken::Active(_)) => Ok(()),
            Ok(Taken::Decided(id)) => {
                let active = core.number_of(id).and_then(|number| core.active(number));
                let outcome = active.and_then(|active| active.machine.outcome());
                let heard = outcome.map_or(Heard::Pending, |(outcome, _)| Heard::of(&outcome));
                self.answer_client(request, heard);
                Ok(())
            }
            Ok(Taken::Ended(position)) => {
                let record = self.coordinators[c].log.read(position);
                let heard = record.as_ref().map_or(Heard::Pending, told_by);
                self.answer_client(request, heard);
                Ok(())
            }
            Err(problem) => {
                note!(self, "c{c}: request {request} is refused: {}", problem.detail);
                Ok(())
            }
        }
    }

    fn new_transaction(&self, request: usize) -> NewTransaction {
        let asked = &self.requests[request];
        let is_keyed = asked.is_keyed();
        NewTransaction {
            id: asked.id,
            is_chosen: false,
            key: is_keyed.then(|| key_of(request)),
            fingerprint: is_keyed.then_some(*FINGERPRINT),
            name: None,
            timeout_ms: asked.timeout_ms,
            ack: asked.ack,
            protocol: asked.protocol,
            purpose: mutants::purpose(&self.config, asked),
            contention: Contention::Waits,
            participants: self.names(request),
            ops: Arc::new(KnownOps {
                hooked: asked.branches.iter().map(|branch| branch.hook.is_some()).collect(),
            }),
        }
    }

    fn names(&self, request: usize) -> Vec<ParticipantName> {
        let branches = &self.requests[request].branches;
        branches.iter().map(|branch| participant_name(branch.at)).collect()
    }

    /// Something comes in by a door of the engine, and all that follows from it is done.
    pub(crate) fn turn<T>(
        &mut self,
        c: usize,
        door: impl FnOnce(&mut Core, Micros) -> T,
    ) -> Result<T, crate::Violation> {
        let said = door(&mut self.coordinators[c].core, Micros(self.now_us));
        self.carry_out(c)?;
        Ok(said)
    }

    /// An input that no door brings: for mutants.
    pub(crate) fn feed(&mut self, c: usize, number: TxNumber, input: Input) -> Step {
        if let Input::Abandon { branch, .. } = input {
            self.oracle.gives_up(c, number, branch)?;
        }
        self.turn(c, |core, now| core.step(number, input, now))
    }

    /// Does what a turn has left to do; the process may die between any two parts of it.
    pub(crate) fn carry_out(&mut self, c: usize) -> Step {
        let life = self.coordinators[c].life;
        loop {
            let mut errands = Vec::new();
            self.coordinators[c].core.swap_errands(&mut errands);
            let record = if errands.is_empty() {
                self.coordinators[c].core.outbox().pop_front()
            } else {
                None
            };
            if errands.is_empty() && record.is_none() {
                return Ok(());
            }
            let changed = errands.iter().filter_map(|errand| match errand {
                Errand::Changed(number) => Some(*number),
                _ => None,
            });
            let changed: Vec<_> = changed.collect();
            for errand in errands {
                if self.random.strikes(self.profile.faults.coordinator_dies) {
                    return self.coordinator_dies(c, "between two errands");
                }
                self.run_errand(c, errand)?;
                if self.coordinators[c].life != life {
                    return Ok(());
                }
            }
            for number in changed {
                self.show(c, number)?;
            }
            if let Some(record) = record {
                if self.random.strikes(self.profile.faults.coordinator_dies) {
                    return self.coordinator_dies(c, "before a record is with its log");
                }
                self.append(c, record)?;
            }
        }
    }

    fn run_errand(&mut self, c: usize, errand: Errand) -> Step {
        match errand {
            Errand::StartLane(_)
            | Errand::Progress
            | Errand::LifeIsDurable
            | Errand::Unmet(_)
            | Errand::CrashPoint(_)
            // What it shows is looked at when the turn is over.
            | Errand::Changed(_)
            | Errand::Unanswered(_) => {}
            Errand::Done(COMPACTED) => self.compacted(c),
            Errand::Done(_) => {}
            Errand::WakeLane(at) => lanes::lane_turn(self, c, at)?,
            Errand::SendWaiting(at, outgoing) => lanes::send_waiting(self, c, at, outgoing)?,
            Errand::Resync(at, call) => self.resync_call(c, at, call)?,
            Errand::Tick => self.tick(c),
            Errand::Answer(decided) => {
                self.tell(c, decided.number, decided.attempt, &decided.outcome)?;
                for Ticket(request) in decided.waiters {
                    let request = usize::try_from(request).expect("a request");
                    self.answer_client(request, Heard::of(&decided.outcome));
                }
            }
            Errand::Ended(number) => {
                self.report.ended += 1;
                self.coordinators[c].desk.shown.remove(&number);
            }
            Errand::Say(Notice::StepRefused(why)) => {
                return violation("the shell feeds no impossible input", why);
            }
            Errand::Say(notice) => note!(self, "c{c}: {notice:?}"),
        }
        Ok(())
    }

    /// Whoever looks at a transaction at this moment sees what it shows.
    pub(crate) fn show(&mut self, c: usize, number: TxNumber) -> Step {
        let coordinator = &self.coordinators[c];
        let state = coordinator.core.active(number).map(|active| active.machine.state());
        if let Some(Phase::Committing(committing)) = state {
            let deliveries = (0..).map(Branch).zip(&committing.deliveries);
            for (branch, _) in deliveries.filter(|(_, it)| **it == Delivery::Abandoned) {
                self.oracle.gives_up(c, number, branch)?;
            }
        }
        if coordinator.desk.shown.contains(&number) {
            return Ok(());
        }
        let Some(active) = coordinator.core.active(number) else { return Ok(()) };
        let attempt = active.machine.attempt();
        match active.machine.outcome() {
            Some((outcome, _)) => self.tell(c, number, attempt, &outcome),
            None => Ok(()),
        }
    }

    fn tell(&mut self, c: usize, number: TxNumber, attempt: Attempt, outcome: &Outcome) -> Step {
        self.coordinators[c].desk.shown.insert(number);
        let txid = self.coordinators[c].txid(number, attempt);
        let request = self.oracle.request_of(c, number);
        self.oracle.told(c, txid, request, outcome, &self.requests[request])
    }

    // ---- the log

    fn append(&mut self, c: usize, mut new: NewRecord) -> Step {
        debug_assert!(self.coordinators[c].is_up, "a dead process writes nothing");
        let written = Record::decode(new.kind, &new.payload).expect("it was just encoded");
        let record = mutants::written(&self.config, self.coordinators[c].log.log_id(), written);
        (new.kind, new.payload) = record.encode();
        if let Record::Committed(committed) = &record {
            self.bend_decision(c, committed)?;
        }
        note!(self, "c{c}: appends {record:?}");
        if !self.coordinators[c].desk.copies.contains(&new.payload) {
            self.oracle.appends(c, &record, &self.requests)?;
        }
        let (token, number) = (new.token, record.number());
        self.coordinators[c].log.append(new, record);
        self.write_or_wait(c);
        if self.config.is(Mutant::PersistedTooEarly) && number.is_some() {
            let early = vec![(token, LogPosition(0))];
            self.coordinators[c].core.durable(early, Micros(self.now_us));
        }
        Ok(())
    }

    /// Only as a mutant.
    fn bend_decision(&mut self, c: usize, committed: &Committed) -> Step {
        let Committed { number, attempt, identity, branches, .. } = committed;
        if self.config.is(Mutant::DecidesTwice) {
            let late = Record::Answered(Answered {
                number: *number,
                attempt: *attempt,
                identity: identity.clone(),
                decided_at: Millis(0),
                participants: branches.iter().map(|it| it.participant.clone()).collect(),
                answer: AnswerRecord::Aborted {
                    branch: None,
                    code: ErrorCode::Timeout,
                    detail: "too late".to_owned(),
                    op: None,
                    reply: None,
                },
                written: None,
            });
            self.oracle.appends(c, &late, &self.requests)?;
        }
        if self.config.is(Mutant::AbortsWhileDeciding) {
            let message = BranchMessage::Abort;
            let to = ToBranch { branch: Branch(0), attempt: *attempt, message };
            let outgoing = assent_engine::Outgoing { number: *number, to };
            let at = self.requests[place_of(identity.id)].branches[0].at;
            lanes::send(self, c, at, outgoing, None)?;
        }
        Ok(())
    }

    /// Writes if somebody waits for it; else what there is waits a moment for company.
    fn write_or_wait(&mut self, c: usize) {
        let coordinator = &mut self.coordinators[c];
        if coordinator.log.wants_write(false) {
            self.write_log(c);
        } else if coordinator.log.wants_write(true) && !coordinator.desk.flush_is_due {
            coordinator.desk.flush_is_due = true;
            let life = coordinator.life;
            self.queue.push(self.now_us + LAZY_US, Event::Flushed { coordinator: c, life });
        }
    }

    fn write_log(&mut self, c: usize) {
        let now = self.now();
        self.coordinators[c].log.write(now);
        let at_us = self.now_us + self.random.between(50, self.profile.sync_us);
        let life = self.coordinators[c].life;
        self.queue.push(at_us, Event::Synced { coordinator: c, life });
    }

    pub(crate) fn flushed(&mut self, c: usize, life: u64) {
        let coordinator = &mut self.coordinators[c];
        if coordinator.life != life {
            return;
        }
        coordinator.desk.flush_is_due = false;
        if coordinator.log.wants_write(true) {
            self.write_log(c);
        }
    }

    /// A batch is durable: a decision is believed from here on. Or its sync has failed, and the
    /// process stops.
    pub(crate) fn synced(&mut self, c: usize, life: u64) -> Step {
        if self.coordinators[c].life != life {
            return Ok(());
        }
        let batch = if self.random.strikes(self.profile.faults.sync_fails) {
            self.report.failed_syncs += 1;
            if !self.config.is(Mutant::FailedSyncIgnored) {
                return self.coordinator_dies(c, "as a sync of its log failed");
            }
            self.coordinators[c].log.thrown_away()
        } else {
            let batch = self.coordinators[c].log.synced();
            let mut records = batch.iter();
            records.try_for_each(|it| self.oracle.durable(c, &it.record, &self.requests))?;
            batch
        };
        note!(self, "c{c}: {} records synced", batch.len());
        let mut tokens: Vec<(Token, LogPosition)> = Vec::with_capacity(batch.len());
        let mut twice = Vec::new();
        for it in &batch {
            if let Record::Committed(committed) = &it.record {
                self.report.retried += u64::from(committed.attempt != Attempt::FIRST);
            }
            let is_of_step = matches!(
                it.record,
                Record::Begun(_) | Record::Committed(_) | Record::Answered(_) | Record::Ended(_)
            );
            twice.extend(it.record.number().filter(|_| is_of_step));
            tokens.push((it.token, it.position));
        }
        self.turn(c, |core, now| core.durable(tokens, now))?;
        if self.coordinators[c].life != life {
            return Ok(());
        }
        if self.config.is(Mutant::PersistedTwice) {
            for number in twice {
                self.feed(c, number, Input::Persisted)?;
                if self.coordinators[c].life != life {
                    return Ok(());
                }
            }
        }
        self.write_or_wait(c);
        Ok(())
    }

    // ---- timers

    fn tick(&mut self, c: usize) {
        let (coordinator, now) = (&mut self.coordinators[c], Micros(self.now_us));
        let next = coordinator.core.tick(now);
        let Some(next) = next else { return };
        if coordinator.desk.tick_at.is_none_or(|at| next < at) {
            coordinator.desk.tick_at = Some(next);
            let at_us = (next.0 * 1_000).max(self.now_us);
            let life = coordinator.life;
            self.queue.push(at_us, Event::Ticked { coordinator: c, life });
        }
    }

    pub(crate) fn ticked(&mut self, c: usize, life: u64) -> Step {
        if self.coordinators[c].life != life {
            return Ok(());
        }
        self.coordinators[c].desk.tick_at = None;
        if self.config.is(Mutant::TimerAbandons) {
            self.abandon_what_is_due(c)?;
            if self.coordinators[c].life != life {
                return Ok(());
            }
        }
        self.tick(c);
        self.carry_out(c)
    }

    /// Only as a mutant.
    fn abandon_what_is_due(&mut self, c: usize) -> Step {
        let now = self.now();
        for number in self.coordinators[c].active() {
            let Some(active) = self.coordinators[c].core.active(number) else { continue };
            let is_due = active.machine.wake_at().is_some_and(|at| at <= now);
            if is_due && matches!(active.machine.state(), Phase::Committing(_)) {
                let attempt = active.machine.attempt();
                return self.feed(c, number, Input::Abandon { branch: Branch(0), attempt });
            }
        }
        Ok(())
    }
}

/// What a client hears whose transaction ended with this record.
fn told_by(record: &Record) -> Heard {
    match record {
        Record::Committed(_) => Heard::Outcome(true),
        Record::Answered(answered) => {
            Heard::Outcome(matches!(answered.answer, AnswerRecord::Committed { .. }))
        }
        _ => Heard::Pending,
    }
}

/// The request of an active transaction.
pub(crate) fn request_of(active: &assent_engine::Active) -> usize {
    place_of(active.accepted.identity.id)
}

/// The plan of a request's branches, for whoever knows its transaction only.
pub(crate) fn asked_of<'a>(requests: &'a [Request], active: &assent_engine::Active) -> &'a Request {
    &requests[request_of(active)]
}
