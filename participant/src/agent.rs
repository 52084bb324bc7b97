//! The agent: takes messages, has the store do them, answers in order.
//!
//! Owns the check that a message is for this participant and is well formed, and the parking of
//! prepares that may wait. It keeps nothing in memory that another agent on the same Redis needs:
//! agents tell each other what they have ended, and a waiting prepare that misses a wake-up finds
//! the lock free at its next poll. It must never answer for a branch by itself what only the store
//! can know.
//!
//! ```text
//! Batch ──> addressed to us? ──> each prepare's ops valid? ──> Store::execute ──> Answers, in order
//!                │ no                  │ no: a `no` of its own        │
//!                └─> problem           └──────────────────────────────┴──> locks freed: wake who waits for that branch
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use assent_client::crash;
use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::crash::CrashPoint;
use assent_common::hook::Consultation;
use assent_common::limits;
use assent_common::outcome::{Aborted, Call, Prepared, Refusal};
use assent_common::participant::{Branches, Heard};
use assent_common::wire::branch::{Answer, Answers, CoordinatorRef, LifeAnswer, Mode};
use assent_common::wire::interactive::EvaluateRequest;
use assent_common::wire::ops::BranchOps;
use assent_common::wire::resync::{DataPoint, DataView, Progress, Resync, Resynced};
use assent_common::{Epoch, ErrorCode, ParticipantName, TxNumber, Txid};

use crate::answers::{Checked, conflict, fitting, refused, result, waited_for};
use crate::by_hand;
use crate::hook::{HookCall, HookedBranch, Hooks};
use crate::metrics::Metrics;
use crate::ops::check_ops;
use crate::reach::Reach;
use crate::resource::{CheckedOps, Resource};
use crate::store::{CheckedPrepare, NotAdmitted, Says, evaluate};
use crate::waiters::{Calling, Turn, Waiter, Waiters};
use crate::wire::{Batch, Message, PrepareMessage};

/// Prepares that wait for a lock at once. Each holds a request open; more are told of the conflict
/// instead.
const WAITING_MAX: usize = 1_024;

/// Batches at the store at once; more are told to come again (`overloaded`). Far above what a
/// coordinator's dispatcher sends, which has one in flight.
const BATCHES_IN_FLIGHT_MAX: usize = 512;

/// The shortest time between two tries of a prepare that waits and hears nothing, in milliseconds:
/// whoever freed the lock may have been heard too late, or not.
const POLL_MIN_MS: u64 = 20;

/// The longest time between two tries, in milliseconds.
const POLL_MAX_MS: u64 = 200;

/// Serves one participant's branches.
#[derive(Debug)]
pub(crate) struct Agent {
    name: ParticipantName,
    store: Arc<Resource>,
    metrics: Metrics,
    waiters: Waiters,
    waiting: Semaphore,
    in_flight: Semaphore,
    reach: Arc<Reach>,
    stopping: watch::Receiver<Running>,
    pub(crate) hooks: Hooks,
}

/// Whether the participant goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    /// It does.
    Yes,
    /// It finishes what it has, and waits for nothing.
    Stopping,
}

/// Who speaks in a batch, and how far it is.
struct Speaker {
    coordinator: CoordinatorRef,
    low_water: TxNumber,
}

impl Speaker {
    fn says(&self, messages: &[Checked]) -> Says {
        let is_question = |message: &Checked| matches!(message, (_, BranchMessage::Settle));
        if messages.is_empty() {
            Says::Nothing
        } else if self.low_water == NO_MARK && messages.iter().all(is_question) {
            Says::Questions
        } else {
            Says::Work
        }
    }

    /// A branch that a coordinator speaks of is of its log, and of no later life than its own.
    fn check_speaks_of(&self, txid: Txid) -> Result<(), Refusal> {
        let CoordinatorRef { log_id, epoch, .. } = &self.coordinator;
        let detail = if txid.log_id != *log_id {
            format!("{txid} is not of log {log_id}")
        } else if txid.number.epoch > *epoch {
            format!("{txid} is of a later life than {epoch}, which speaks")
        } else {
            return Ok(());
        };
        Err(Refusal::new(ErrorCode::BadRequest, detail))
    }
}

/// A prepare by a call of its own, which may wait.
struct WaitingCall {
    speaker: Speaker,
    known: Option<DataPoint>,
    progress: Option<Progress>,
    txid: Txid,
    deadline: Instant,
}

/// A vote of no.
const fn no(refusal: Refusal) -> BranchAnswer {
    BranchAnswer::Prepared(Call::Refused(refusal))
}

/// A mark of no coordinator.
pub(crate) const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

/// A coordinator is not farther than the life that speaks, nor than anybody can come.
fn check_mark(coordinator: &CoordinatorRef, low_water: TxNumber) -> Result<(), Refusal> {
    let TxNumber { epoch, n } = low_water;
    if epoch <= coordinator.epoch && n <= limits::TRANSACTION_NUMBER_MAX {
        return Ok(());
    }
    let life = coordinator.epoch;
    let detail = format!("`low_water` {epoch}.{n} is beyond what life {life} can have come to");
    Err(Refusal::new(ErrorCode::BadRequest, detail))
}

impl Agent {
    pub(crate) fn new(
        name: ParticipantName,
        store: Arc<Resource>,
        metrics: Metrics,
        reach: Arc<Reach>,
        stopping: watch::Receiver<Running>,
        hooks: Hooks,
    ) -> Self {
        let waiting = Semaphore::new(WAITING_MAX);
        let in_flight = Semaphore::new(BATCHES_IN_FLIGHT_MAX);
        let waiters = Waiters::default();
        Self { name, store, metrics, waiters, waiting, in_flight, reach, stopping, hooks }
    }

    /// Answers a batch. Nothing in it waits, and a bad branch harms no other.
    pub(crate) async fn batch(&self, batch: Batch) -> Result<Answers, Refusal> {
        let (known, progress) = (batch.known, batch.progress);
        let (speaker, messages) = self.take(batch)?;
        let _admitted = self.admit()?;
        let says = speaker.says(&messages);
        let refused_life = self.store.admit_life(&speaker.coordinator, says).await;
        if let Some(NotAdmitted { refusal, life, shown }) = refused_life {
            let answers = messages.iter().map(|message| refused(message, &refusal).into());
            let answers = answers.collect();
            let stale_log = (refusal.code == ErrorCode::StaleLog).then_some(refusal.detail);
            let stale_log_shown = shown.filter(|_| stale_log.is_some());
            return Ok(Answers { answers, progress: None, stale_log, stale_log_shown, life });
        }
        if says != Says::Questions || speaker.coordinator.life.is_some() {
            self.reach.heard_from(&speaker.coordinator);
        }
        let answers = match self.refused_data(&speaker, known, progress).await {
            None => self.execute(&speaker, messages).await,
            Some(refusal) => messages.iter().map(|message| refused(message, &refusal)).collect(),
        };
        let answers = fitting(answers.into_iter().map(Answer::from).collect());
        let life = Some(LifeAnswer::Admitted);
        let progress = self.store.progress();
        Ok(Answers { answers, progress, stale_log: None, stale_log_shown: None, life })
    }

    /// Answers the prepare of a batch of its own: asks the hook that it has an input for, and waits
    /// for a younger holder as long as it says. `batch` is the rest of it.
    pub(crate) async fn prepare_waiting(
        &self,
        batch: Batch,
        mut prepare: PrepareMessage,
    ) -> Result<Answer, Refusal> {
        let wait_ms = prepare.wait_ms.min(limits::WAIT_MAX_MS);
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let (known, progress) = (batch.known, batch.progress);
        let (speaker, _) = self.take(batch)?;
        let txid = prepare.txid;
        speaker.check_speaks_of(txid)?;
        let refused_life = self.store.admit_life(&speaker.coordinator, Says::Work).await;
        if let Some(NotAdmitted { refusal, .. }) = refused_life {
            return Ok(no(refusal).into());
        }
        self.reach.heard_from(&speaker.coordinator);
        let call = WaitingCall { speaker, known, progress, txid, deadline };
        let answer = match prepare.input.take() {
            Some(input) => self.prepare_by_hook(&call, prepare, &input).await?,
            None => match self.check_prepare(prepare) {
                Ok(prepare) => self.prepare_in_turn(&call, prepare).await?,
                Err(refusal) => self.counted(no(refusal)),
            },
        };
        Ok(answer.into())
    }

    /// Prepares what the hook makes of a branch. Nothing is locked while the hook is asked; what it
    /// says counts only if nothing is kept of the branch yet.
    async fn prepare_by_hook(
        &self,
        call: &WaitingCall,
        prepare: PrepareMessage,
        input: &RawValue,
    ) -> Result<BranchAnswer, Refusal> {
        let checked = match self.check_prepare(prepare.clone()) {
            Ok(checked) => checked,
            Err(refusal) => return Ok(self.counted(no(refusal))),
        };
        let (CheckedOps::Redis(of_client), BranchOps::Redis(ops)) = (&checked.branch, prepare.ops)
        else {
            return Ok(self.counted(no(self.store.no_redis("an `input`"))));
        };
        let asked = HookCall { txid: call.txid, id: checked.id, participant: self.name.clone() };
        let mut consultation = Consultation::new(ops);
        loop {
            if let Some(refusal) = self.refused_data(&call.speaker, call.known, call.progress).await
            {
                return Ok(no(refusal));
            }
            let said = self.hooks.ask(&asked, input, &mut consultation, call.deadline).await;
            let (HookedBranch { branch, hooked }, if_new) = match said {
                Ok(said) => (said, None),
                Err(no) => (HookedBranch::of_client(of_client), Some(Box::new(no))),
            };
            let is_last = if_new.is_some();
            let hooked = Some(hooked);
            let branch = CheckedOps::Redis(branch);
            let prepare = CheckedPrepare { branch, if_new, hooked, ..checked.clone() };
            match self.prepare_in_turn(call, prepare).await? {
                BranchAnswer::Prepared(Call::Refused(refusal)) if !is_last => {
                    if let Err(refusal) = consultation.refused(&refusal) {
                        return Ok(no(refusal));
                    }
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Prepares a branch, and waits for a younger holder of its locks.
    async fn prepare_in_turn(
        &self,
        call: &WaitingCall,
        prepare: CheckedPrepare<CheckedOps>,
    ) -> Result<BranchAnswer, Refusal> {
        let locks = prepare.branch.locks().to_vec();
        let waiter = Waiter { id: prepare.id, txid: call.txid, locks };
        let mut place = None;
        let mut pause_ms = POLL_MIN_MS;
        let calling = self.waiters.call(waiter);
        loop {
            let admitted = self.admit()?;
            if let Some(refusal) = self.refused_data(&call.speaker, call.known, call.progress).await
            {
                return Ok(no(refusal));
            }
            let answer = self.try_prepare(call, prepare.clone()).await;
            drop(admitted);
            let holder = match answer {
                BranchAnswer::Prepared(Call::Applied(Prepared::Wait(holder))) => holder,
                answer => {
                    let is_staged =
                        matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))));
                    if is_staged {
                        calling.taken();
                    }
                    return Ok(answer);
                }
            };
            calling.follow(&holder);
            if place.is_none() {
                place = Place::take(&self.waiting, &self.metrics);
            }
            let left = call.deadline.saturating_duration_since(Instant::now());
            let stops = *self.stopping.borrow() == Running::Stopping;
            if place.is_none() || left.is_zero() || stops {
                return Ok(no(conflict(holder)));
            }
            match self.pause(&calling, left.min(Duration::from_millis(pause_ms))).await {
                Some(Turn::Go) => pause_ms = POLL_MIN_MS,
                Some(Turn::Die(older)) => return Ok(no(conflict(older))),
                None => pause_ms = (pause_ms * 2).min(POLL_MAX_MS),
            }
        }
    }

    /// Why nothing may be done to the data, if so. The log that is refused is noted: it has a word
    /// to say when the data is repaired.
    async fn refused_data(
        &self,
        speaker: &Speaker,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Option<Refusal> {
        let Speaker { coordinator: CoordinatorRef { log_id, epoch, .. }, low_water } = speaker;
        let refusal = self.store.admit(*log_id, known, progress).await?;
        self.store.heard(*log_id, Heard { epoch: *epoch, low_water: *low_water });
        Some(refusal)
    }

    /// One try of a prepare that may wait.
    async fn try_prepare(
        &self,
        call: &WaitingCall,
        prepare: CheckedPrepare<CheckedOps>,
    ) -> BranchAnswer {
        let message = BranchMessage::Prepare(self.in_its_turn(call.txid, prepare));
        // One answer to each message.
        let answer = self.run(&call.speaker, vec![(call.txid, message)]).await.swap_remove(0);
        self.counted(answer)
    }

    /// Waits for the turn of one who calls, or for the pause.
    async fn pause(&self, calling: &Calling<'_>, pause: Duration) -> Option<Turn> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            turn = calling.turn() => Some(turn),
            _ = stopping.wait_for(|running| *running == Running::Stopping) => None,
            () = tokio::time::sleep(pause) => None,
        }
    }

    /// Applies or drops branches of one life of a coordinator on somebody else's word than its
    /// messages.
    pub(crate) async fn end(
        &self,
        coordinator: CoordinatorRef,
        endings: &[(Txid, Ending)],
    ) -> Vec<BranchAnswer> {
        // No mark is carried: this agent does not know how far the coordinator is.
        let speaker = Speaker { coordinator, low_water: NO_MARK };
        let told = |(txid, ending): &(Txid, Ending)| (*txid, ending.map(|never| match never {}));
        self.execute(&speaker, endings.iter().map(told).collect()).await
    }

    /// The same, on the word of another agent of this Redis.
    pub(crate) async fn ends(&self, batch: Batch) -> Result<Vec<BranchAnswer>, Refusal> {
        let (Speaker { coordinator, .. }, messages) = self.take(batch)?;
        let ending = |(txid, message): Checked| match message {
            BranchMessage::Commit => Ok((txid, Ending::Commit)),
            BranchMessage::Abort => Ok((txid, Ending::Abort)),
            BranchMessage::Prepare(_) | BranchMessage::Settle => {
                Err(Refusal::new(ErrorCode::BadRequest, "an agent passes on commits and aborts"))
            }
        };
        let endings = messages.into_iter().map(ending).collect::<Result<Vec<_>, _>>()?;
        Ok(self.end(coordinator, &endings).await)
    }

    /// What the data is now.
    pub(crate) async fn data(&self) -> Result<DataView, Refusal> {
        let view = self.store.data().await;
        view.map_err(|error| error.refusal())
    }

    /// Takes a part of what a log says of fenced data.
    pub(crate) async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        self.check_name(&part.participant)?;
        check_mark(&part.coordinator, part.low_water)?;
        match self.store.admit_life(&part.coordinator, Says::Work).await {
            Some(NotAdmitted { refusal, .. }) => Err(refusal),
            None => self.store.resync(part).await,
        }
    }

    /// What ops would come to. Nothing is locked, and nothing is kept.
    pub(crate) async fn evaluate(&self, request: EvaluateRequest) -> Result<Answer, Refusal> {
        let EvaluateRequest { participant, ops } = request;
        self.check_name(&participant)?;
        if ops.iter().any(|op| op.escrow) {
            let detail = "an op that is only evaluated cannot be in escrow";
            return Err(Refusal::new(ErrorCode::BadArguments, detail));
        }
        let _admitted = self.admit()?;
        let Some(redis) = self.store.redis() else {
            return Err(self.store.no_redis("an op that is only evaluated"));
        };
        let call = match check_ops(redis, ops) {
            Ok(branch) => {
                let started = Instant::now();
                let call = evaluate(redis, branch).await;
                self.metrics.store_call(started.elapsed());
                call
            }
            Err(refusal) => Call::Refused(refusal),
        };
        Ok(BranchAnswer::Prepared(call).into())
    }

    fn check_name(&self, named: &ParticipantName) -> Result<(), Refusal> {
        if *named == self.name {
            return Ok(());
        }
        let detail = format!("the message is for {named}; this is {}", self.name);
        Err(Refusal::new(ErrorCode::UnknownParticipant, detail))
    }

    fn admit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.in_flight.try_acquire().map_err(|_| {
            let detail = format!("{BATCHES_IN_FLIGHT_MAX} batches are at Redis already");
            Refusal::new(ErrorCode::Overloaded, detail)
        })
    }

    /// Checks the batch as a whole, then each message.
    fn take(&self, batch: Batch) -> Result<(Speaker, Vec<Checked>), Refusal> {
        let Batch { participant, coordinator, low_water, messages, .. } = batch;
        self.check_name(&participant)?;
        if messages.len() > limits::BATCH_MESSAGES_MAX {
            let max = limits::BATCH_MESSAGES_MAX;
            let detail = format!("the batch has more than {max} messages");
            return Err(Refusal::new(ErrorCode::BodyTooLarge, detail));
        }
        check_mark(&coordinator, low_water)?;
        let speaker = Speaker { coordinator, low_water };
        messages.iter().try_for_each(|message| speaker.check_speaks_of(message.txid()))?;
        let messages = messages.into_iter().map(|message| self.check(message)).collect();
        Ok((speaker, messages))
    }

    fn check(&self, message: Message) -> Checked {
        let (txid, message) = message.told();
        (txid, message.map(|prepare| self.check_prepare(prepare)))
    }

    fn check_prepare(
        &self,
        prepare: PrepareMessage,
    ) -> Result<CheckedPrepare<CheckedOps>, Refusal> {
        if prepare.input.is_some() {
            let detail = "a branch with an `input` is prepared by a call of its own, in no batch";
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        self.check_branches(&prepare)?;
        let PrepareMessage { id, mode, branches, ops, .. } = prepare;
        let branch = self.store.check(ops)?;
        let branches = Branches::from(branches);
        Ok(CheckedPrepare { id, mode, branches, branch, if_new: None, hooked: None })
    }

    /// An implicit transaction's branches must know all of them. (Whether votes can be relied on
    /// here, the store knows.)
    fn check_branches(&self, prepare: &PrepareMessage) -> Result<(), Refusal> {
        let branches = &prepare.branches;
        if branches.is_empty() {
            return Ok(());
        }
        let is_here = branches.iter().any(|branch| branch.participant == self.name);
        let in_bounds = branches.len() <= limits::BRANCHES_MAX;
        if !is_here || !in_bounds || prepare.mode == Mode::OnePhase {
            let detail = format!(
                "`branches` must name {} among at most {} branches, of a prepare in two phases",
                self.name,
                limits::BRANCHES_MAX
            );
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        Ok(())
    }

    /// Has the store do what is well formed, and puts the answers in the order of the messages.
    async fn execute(&self, speaker: &Speaker, messages: Vec<Checked>) -> Vec<BranchAnswer> {
        let mut good = Vec::with_capacity(messages.len());
        let mut malformed = Vec::new();
        for (place, (txid, message)) in messages.into_iter().enumerate() {
            match message.transpose() {
                Ok(message) => {
                    good.push((txid, message.map(|prepare| self.in_its_turn(txid, prepare))));
                }
                Err(refusal) => malformed.push((place, refusal)),
            }
        }
        let mut answers = self.run(speaker, good).await;
        for (place, refusal) in malformed {
            answers.insert(place, BranchAnswer::Prepared(Call::Refused(refusal)));
        }
        for answer in &answers {
            self.count(answer);
        }
        answers
    }

    /// A new prepare does not go before an older one that waits for the same key: it dies of it, as
    /// it will of its lock.
    fn in_its_turn(
        &self,
        txid: Txid,
        prepare: CheckedPrepare<CheckedOps>,
    ) -> CheckedPrepare<CheckedOps> {
        let older = || self.waiters.older(prepare.id, txid, prepare.branch.locks());
        let if_new = prepare.if_new.clone();
        let if_new = if_new.or_else(|| older().map(|older| Box::new(waited_for(older))));
        CheckedPrepare { if_new, ..prepare }
    }

    async fn run(
        &self,
        speaker: &Speaker,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare<CheckedOps>>)>,
    ) -> Vec<BranchAnswer> {
        if messages.is_empty() {
            return Vec::new();
        }
        let told: Vec<_> = messages.iter().map(|(txid, message)| (*txid, message.kind())).collect();
        for (_, kind) in &told {
            match kind {
                BranchMessage::Prepare(()) => crash::point(CrashPoint::BeforeVoteDurable),
                BranchMessage::Commit => crash::point(CrashPoint::BeforeApply),
                BranchMessage::Abort | BranchMessage::Settle => {}
            }
        }
        let started = Instant::now();
        let mut answers =
            self.store.execute(&speaker.coordinator, speaker.low_water, messages).await;
        self.metrics.store_call(started.elapsed());
        by_hand::tell(&self.store, &told, &mut answers).await;
        for ((txid, kind), answer) in told.into_iter().zip(&answers) {
            match kind {
                BranchMessage::Prepare(()) => crash::point(CrashPoint::AfterVoteDurable),
                BranchMessage::Commit => crash::point(CrashPoint::AfterApply),
                BranchMessage::Abort | BranchMessage::Settle => {}
            }
            match answer {
                BranchAnswer::Applied(Call::Applied(_))
                | BranchAnswer::Aborted(Call::Applied(_)) => {
                    self.waiters.ended(txid);
                }
                _ => {}
            }
        }
        answers
    }

    fn counted(&self, answer: BranchAnswer) -> BranchAnswer {
        self.count(&answer);
        answer
    }

    fn count(&self, answer: &BranchAnswer) {
        self.metrics.request(answer.kind().as_str(), result(answer));
        if let BranchAnswer::Prepared(call) = answer {
            self.metrics.vote(match call {
                Call::Applied(Prepared::Yes(_)) => "yes",
                Call::Applied(Prepared::Committed(_)) => "committed",
                Call::Applied(Prepared::Wait(_)) => "wait",
                Call::Refused(refusal) => refusal.code.as_str(),
                Call::Unknown(_) => "unknown",
            });
        }
    }
}

/// What an end that was asked for came to.
pub(crate) fn definite(answer: &BranchAnswer) -> Result<(), Refusal> {
    if let BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(_))) = answer {
        return Err(Refusal::new(ErrorCode::WrongState, "the branch has been applied"));
    }
    match (answer.refused(), answer.unknown()) {
        (Some(refusal), _) => Err(refusal.clone()),
        (_, Some(why)) => Err(Refusal::new(ErrorCode::RedisUnavailable, why)),
        (None, None) => Ok(()),
    }
}

/// A place among those that wait, counted for as long as it is held.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    metrics: &'a Metrics,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Semaphore, metrics: &'a Metrics) -> Option<Self> {
        let permit = waiting.try_acquire().ok()?;
        metrics.waiting_begins();
        Some(Self { _permit: permit, metrics })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.metrics.waiting_ends();
    }
}
