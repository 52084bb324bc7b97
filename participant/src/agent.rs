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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use assent_client::crash;
use assent_common::command::ValidatedBranch;
use assent_common::crash::CrashPoint;
use assent_common::limits;
use assent_common::outcome::{Call, Holder, Prepared, Refusal};
use assent_common::participant::{Branches, Heard};
use assent_common::wire::branch::{
    Answer, Answers, Batch, CoordinatorRef, LifeAnswer, Message, Mode, PrepareMessage,
};
use assent_common::wire::resync::{DataView, Resync, Resynced};
use assent_common::{Epoch, ErrorCode, ParticipantName, TxNumber, Txid};

use crate::answers::{Kind, conflict, fitting, into_wire, kind, refused, result, waited_for};
use crate::by_hand;
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::store::{BranchAnswer, BranchMessage, NotAdmitted, Says, Store};
use crate::waiters::{Turn, Waiter, Waiters};

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
    store: Arc<Store>,
    metrics: Metrics,
    waiters: Arc<Waiters>,
    /// Whether what other agents end is listened to.
    listens: Arc<AtomicBool>,
    waiting: Semaphore,
    in_flight: Semaphore,
    reach: Arc<Reach>,
    stopping: watch::Receiver<Running>,
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
        let is_question = |message: &Checked| matches!(message, Ok(BranchMessage::Settle(_)));
        if messages.is_empty() {
            Says::Nothing
        } else if self.low_water == NO_MARK && messages.iter().all(is_question) {
            Says::Questions
        } else {
            Says::Work
        }
    }
}

/// A mark of no coordinator.
const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

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
        store: Arc<Store>,
        metrics: Metrics,
        reach: Arc<Reach>,
        stopping: watch::Receiver<Running>,
    ) -> Self {
        let waiting = Semaphore::new(WAITING_MAX);
        let in_flight = Semaphore::new(BATCHES_IN_FLIGHT_MAX);
        let (waiters, listens) = Default::default();
        Self { name, store, metrics, waiters, listens, waiting, in_flight, reach, stopping }
    }

    /// Answers a batch. Nothing in it waits, and a bad branch harms no other.
    pub(crate) async fn batch(&self, batch: Batch) -> Result<Answers, Refusal> {
        let (known, progress) = (batch.known, batch.progress);
        let (speaker, messages) = self.take(batch)?;
        let _admitted = self.admit()?;
        let says = speaker.says(&messages);
        let refused_life = self.store.admit_life(&speaker.coordinator, says).await;
        if let Some(NotAdmitted { refusal, life }) = refused_life {
            let answers = messages.iter().map(|message| into_wire(refused(message, &refusal)));
            let answers = answers.collect();
            let stale_log = (refusal.code == ErrorCode::StaleLog).then_some(refusal.detail);
            return Ok(Answers { answers, progress: None, stale_log, life });
        }
        if says != Says::Questions || speaker.coordinator.life.is_some() {
            self.reach.heard_from(&speaker.coordinator);
        }
        let log_id = speaker.coordinator.log_id;
        let answers = match self.store.admit(log_id, known, progress).await {
            None => self.execute(&speaker, messages).await,
            Some(refusal) => {
                let Speaker { coordinator: CoordinatorRef { log_id, epoch, .. }, low_water } =
                    speaker;
                self.store.heard(log_id, Heard { epoch, low_water });
                messages.iter().map(|message| refused(message, &refusal)).collect()
            }
        };
        let answers = fitting(answers.into_iter().map(into_wire).collect());
        let life = Some(LifeAnswer::Admitted);
        Ok(Answers { answers, progress: self.store.progress(), stale_log: None, life })
    }

    /// Answers a batch of one prepare, waiting for a younger holder as long as the message says.
    pub(crate) async fn prepare_waiting(&self, batch: Batch) -> Result<Answer, Refusal> {
        let wait_ms = match batch.messages.first() {
            Some(Message::Prepare(prepare)) => prepare.wait_ms.min(limits::WAIT_MAX_MS),
            Some(Message::Commit(_) | Message::Abort(_) | Message::Settle(_)) | None => 0,
        };
        let (known, progress) = (batch.known, batch.progress);
        let (speaker, messages) = self.take(batch)?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let refused_life = self.store.admit_life(&speaker.coordinator, Says::Work).await;
        if let Some(NotAdmitted { refusal, .. }) = refused_life {
            return Ok(into_wire(BranchAnswer::Prepared(Call::Refused(refusal))));
        }
        self.reach.heard_from(&speaker.coordinator);
        let waiter = messages.first().and_then(waiter);
        let mut place = None;
        let mut pause_ms = POLL_MIN_MS;
        let mut turn: Option<HasTurn<'_>> = None;
        loop {
            let admitted = self.admit()?;
            let log_id = speaker.coordinator.log_id;
            if let Some(refusal) = self.store.admit(log_id, known, progress).await {
                return Ok(into_wire(BranchAnswer::Prepared(Call::Refused(refusal))));
            }
            let answer = self.execute(&speaker, messages.clone()).await.pop();
            drop(admitted);
            let (holder, waiter) = match (answer, &waiter) {
                (
                    Some(BranchAnswer::Prepared(Call::Applied(Prepared::Wait(holder)))),
                    Some(waiter),
                ) => (holder, waiter),
                (Some(answer), _) => {
                    let is_staged =
                        matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))));
                    turn.filter(|_| is_staged).into_iter().for_each(HasTurn::taken);
                    return Ok(into_wire(answer));
                }
                (None, _) => {
                    return Err(Refusal::new(ErrorCode::Internal, "a message had no answer"));
                }
            };
            turn.take().into_iter().for_each(|turn| turn.follows(&holder));
            if place.is_none() {
                place = Place::take(&self.waiting, &self.metrics);
                self.listen();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let stops = *self.stopping.borrow() == Running::Stopping;
            if place.is_none() || left.is_zero() || stops {
                return Ok(into_wire(BranchAnswer::Prepared(Call::Refused(conflict(holder)))));
            }
            match self.pause(&holder, waiter, left.min(Duration::from_millis(pause_ms))).await {
                Some(Turn::Go) => {
                    turn = Some(HasTurn { waiters: &self.waiters, waiter, is_over: false });
                    pause_ms = POLL_MIN_MS;
                }
                Some(Turn::Die(older)) => {
                    let answer = Call::Refused(conflict(older));
                    return Ok(into_wire(BranchAnswer::Prepared(answer)));
                }
                None => pause_ms = (pause_ms * 2).min(POLL_MAX_MS),
            }
        }
    }

    /// Has those who wait hear what other agents of this Redis end. Whoever waits next begins again
    /// where it broke off.
    fn listen(&self) {
        if self.store.is_sole_owner() || self.listens.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, waiters) = (Arc::clone(&self.store), Arc::clone(&self.waiters));
        let (listens, mut stopping) = (Arc::clone(&self.listens), self.stopping.clone());
        tokio::spawn(async move {
            let hear = async {
                match store.ended().await {
                    Ok(ended) => {
                        let ended = ended.flat_map(futures_util::stream::iter);
                        ended.for_each(async |txid| waiters.ended(txid)).await;
                    }
                    Err(error) => tracing::debug!(%error, "other agents are not heard"),
                }
            };
            tokio::select! {
                () = hear => {}
                _ = stopping.wait_for(|running| *running == Running::Stopping) => {}
            }
            listens.store(false, Ordering::Release);
        });
    }

    /// Waits until this agent has ended the holder, or for the pause.
    async fn pause(&self, holder: &Holder, waiter: &Waiter, pause: Duration) -> Option<Turn> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            turn = self.waiters.freed(holder.clone(), waiter.clone()) => Some(turn),
            _ = stopping.wait_for(|running| *running == Running::Stopping) => None,
            () = tokio::time::sleep(pause) => None,
        }
    }

    /// Applies or drops a branch on somebody else's word than its coordinator's message: the
    /// resolver's, after the coordinator answered, or an operator's.
    pub(crate) async fn finish(&self, coordinator: CoordinatorRef, end: End) -> BranchAnswer {
        let answer = self.finish_all(coordinator, &[end]).await.pop();
        answer.unwrap_or_else(|| BranchAnswer::Applied(Call::Unknown("no answer".to_owned())))
    }

    /// The same, for several branches of one life of a coordinator; the answers in their order.
    pub(crate) async fn finish_all(
        &self,
        coordinator: CoordinatorRef,
        ends: &[End],
    ) -> Vec<BranchAnswer> {
        // No mark is carried: this agent does not know how far the coordinator is.
        let low_water = NO_MARK;
        let message = |end: &End| match *end {
            End::Commit(txid) => Ok(BranchMessage::Commit(txid)),
            End::Abort(txid) => Ok(BranchMessage::Abort(txid)),
        };
        let speaker = Speaker { coordinator, low_water };
        self.execute(&speaker, ends.iter().map(message).collect()).await
    }

    /// What the data is now.
    pub(crate) async fn data(&self) -> Result<DataView, Refusal> {
        let view = self.store.data().await;
        view.map_err(|error| Refusal::new(ErrorCode::RedisUnavailable, error.to_string()))
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
        let foreign = messages.iter().find(|message| message.txid().log_id != coordinator.log_id);
        if let Some(message) = foreign {
            let detail = format!("{} is not of log {}", message.txid(), coordinator.log_id);
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        check_mark(&coordinator, low_water)?;
        let later = messages.iter().find(|message| message.txid().number.epoch > coordinator.epoch);
        if let Some(message) = later {
            let epoch = coordinator.epoch;
            let detail =
                format!("{} is of a later life than {epoch}, which speaks", message.txid());
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        let messages = messages.into_iter().map(|message| self.check(message)).collect();
        Ok((Speaker { coordinator, low_water }, messages))
    }

    fn check(&self, message: Message) -> Checked {
        let prepare = match message {
            Message::Prepare(prepare) => prepare,
            Message::Commit(only) => return Ok(BranchMessage::Commit(only.txid)),
            Message::Abort(only) => return Ok(BranchMessage::Abort(only.txid)),
            Message::Settle(only) => return Ok(BranchMessage::Settle(only.txid)),
        };
        self.check_branches(&prepare)?;
        let PrepareMessage { txid, id, mode, branches, ops, .. } = prepare;
        let branch = ValidatedBranch::new(ops)?;
        let control_key = &self.store.options().control_key;
        // Locks, staged writes and the incarnation are there: a transaction must not write them.
        if branch.locks.iter().any(|lock| is_own(&lock.key.0, control_key)) {
            let detail = format!("{control_key} and the keys below it are Assent's own");
            return Err(Refusal::new(ErrorCode::BadArguments, detail));
        }
        let branches = Branches::from(branches);
        Ok(BranchMessage::Prepare { txid, id, mode, branches, branch, if_new: None })
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
        let mut answers: Vec<Option<BranchAnswer>> = Vec::with_capacity(messages.len());
        let mut good = Vec::with_capacity(messages.len());
        for message in messages {
            match message {
                Ok(message) => {
                    answers.push(None);
                    good.push(self.in_its_turn(message));
                }
                Err(refusal) => {
                    answers.push(Some(BranchAnswer::Prepared(Call::Refused(refusal))));
                }
            }
        }
        let done = self.run(speaker, good).await;
        let mut done = done.into_iter();
        let answers: Vec<_> =
            answers.into_iter().filter_map(|refused| refused.or_else(|| done.next())).collect();
        for answer in &answers {
            self.count(answer);
        }
        answers
    }

    /// A new prepare does not go before an older one that waits for the same key: it dies of it, as
    /// it will of its lock.
    fn in_its_turn(&self, mut message: BranchMessage) -> BranchMessage {
        if let BranchMessage::Prepare { txid, id, branch, if_new, .. } = &mut message {
            let older = self.waiters.older(*id, *txid, &branch.locks);
            *if_new = older.map(|older| Box::new(waited_for(older)));
        }
        message
    }

    async fn run(&self, speaker: &Speaker, messages: Vec<BranchMessage>) -> Vec<BranchAnswer> {
        if messages.is_empty() {
            return Vec::new();
        }
        let kinds: Vec<_> = messages.iter().map(kind).collect();
        for (_, kind) in &kinds {
            match kind {
                Kind::Prepare => crash::point(CrashPoint::BeforeVoteDurable),
                Kind::Commit => crash::point(CrashPoint::BeforeApply),
                Kind::Abort | Kind::Settle => {}
            }
        }
        let started = Instant::now();
        let mut answers =
            self.store.execute(&speaker.coordinator, speaker.low_water, messages).await;
        self.metrics.redis_call(started.elapsed());
        by_hand::tell(&self.store, &kinds, &mut answers).await;
        for ((txid, kind), answer) in kinds.into_iter().zip(&answers) {
            match kind {
                Kind::Prepare => crash::point(CrashPoint::AfterVoteDurable),
                Kind::Commit => crash::point(CrashPoint::AfterApply),
                Kind::Abort | Kind::Settle => {}
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

    fn count(&self, answer: &BranchAnswer) {
        match answer {
            BranchAnswer::Prepared(call) => {
                self.metrics.request("prepare", result(call));
                self.metrics.vote(match call {
                    Call::Applied(Prepared::Yes(_)) => "yes",
                    Call::Applied(Prepared::Committed(_)) => "committed",
                    Call::Applied(Prepared::Wait(_)) => "wait",
                    Call::Refused(refusal) => refusal.code.as_str(),
                    Call::Unknown(_) => "unknown",
                });
            }
            BranchAnswer::Applied(call) => self.metrics.request("commit", result(call)),
            BranchAnswer::Aborted(call) => self.metrics.request("abort", result(call)),
            BranchAnswer::Settled(call) => self.metrics.request("settle", result(call)),
        }
    }
}

/// Who waits with a prepare.
fn waiter(message: &Checked) -> Option<Waiter> {
    match message {
        Ok(BranchMessage::Prepare { txid, id, branch, .. }) => {
            Some(Waiter { id: *id, txid: *txid, locks: branch.locks.clone() })
        }
        Ok(BranchMessage::Commit(_) | BranchMessage::Abort(_) | BranchMessage::Settle(_))
        | Err(_) => None,
    }
}

/// A prepare that tries again, before others that want the same lock. Whatever becomes of it, they
/// must hear.
struct HasTurn<'a> {
    waiters: &'a Waiters,
    waiter: &'a Waiter,
    is_over: bool,
}

impl HasTurn<'_> {
    /// It has the locks.
    fn taken(mut self) {
        self.is_over = true;
        self.waiters.taken(self.waiter);
    }

    /// It has to wait for another one.
    fn follows(mut self, holder: &Holder) {
        self.is_over = true;
        self.waiters.follow(self.waiter.txid, holder);
    }
}

impl Drop for HasTurn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.waiters.pass_on(self.waiter.txid);
        }
    }
}

/// What is to be done with a branch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Commit(Txid),
    Abort(Txid),
}

impl End {
    /// Of which branch, and in a word, for the log.
    pub(crate) const fn told(self) -> (Txid, &'static str) {
        match self {
            Self::Commit(txid) => (txid, "commit"),
            Self::Abort(txid) => (txid, "abort"),
        }
    }
}

/// A message that may be executed, or the no that it gets instead.
pub(crate) type Checked = Result<BranchMessage, Refusal>;

/// Whether a key is the control hash, or stands below it.
fn is_own(key: &[u8], control_key: &str) -> bool {
    key.strip_prefix(control_key.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
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
