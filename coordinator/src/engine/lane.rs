//! A lane: the way to one participant. Messages queue while a batch is in flight and go out
//! together when it returns, so that batches grow with load and a quiet system waits for nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use assent_client::crash;
use assent_client::participant::ParticipantClient;
use assent_common::breaker::{Breaker, Pass};
use assent_common::coordinator::{Branch, Input, Message};
use assent_common::crash::CrashPoint;
use assent_common::ids::TxNumber;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::time::Millis;
use assent_common::wire::branch::{
    Answer, Batch, Message as WireMessage, Mode, PrepareMessage, TxidOnly,
};
use assent_common::wire::problem::Problem;
use assent_common::{Attempt, Epoch, ErrorCode, ParticipantName, Txid, limits};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::active::{Active, RequestOps};
use super::behind;
use super::core::Core;
use super::lives::{Greeting, greet};
use super::mutants;
use super::outbound::{Haste, Outbound};
use super::resync::LaneData;
use super::{Engine, Shared, vital};
use crate::clock;
use crate::metrics;

/// How long a lane waits for a batch before it sends the next one beside it: longer than a
/// participant that answers takes, and so much less than the time limit of a request that the
/// transactions behind a hung one still commit.
pub(super) const LANE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a lane is idle before it looks whether the participant's data is what this log knows of
/// it.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// How long a lane waits for decisions after a batch: some syncs of a healthy disk, and not much
/// for whom it delays.
const RIDE_MAX: Duration = Duration::from_millis(1);

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) number: TxNumber,
    pub(super) branch: Branch,
    pub(super) attempt: Attempt,
    pub(super) message: Message,
}

/// The way to one participant.
pub(super) struct Lane {
    pub(super) name: ParticipantName,
    client: Option<Arc<ParticipantClient>>,
    queue: Outbound,
    /// The transactions that have a branch here of which the participant may hear yet.
    pub(super) unfinished: BTreeSet<TxNumber>,
    /// How many transactions wait for its vote.
    pub(super) voting: usize,
    /// Of how many it has not acknowledged the outcome.
    pub(super) undelivered: usize,
    pub(super) wake: Arc<Notify>,
    runs: bool,
    /// Whether the last message was answered, and since when that is so.
    pub(super) up: Option<bool>,
    pub(super) up_since: Option<Millis>,
    /// Whether the Redis behind it answers, as it tells.
    pub(super) redis_up: Option<bool>,
    pub(super) last_error: Option<String>,
    /// Whether it is worth asking.
    pub(super) breaker: Breaker,
    /// What is known of the data behind it.
    pub(super) data: LaneData,
    /// Whether it has heard which life speaks.
    pub(super) greeting: Greeting,
    /// Whether it ever has, how often it was said in vain, and whether somebody waits for it.
    pub(super) is_met: bool,
    pub(super) greeted_in_vain: u64,
    pub(super) is_awaited: bool,
    /// The epoch of the life that it remembers, where it asked for that.
    pub(super) asked_for: Option<Epoch>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Came<'a> {
    /// An answer; of no use, if the participant could not ask its Redis.
    Answer(Option<&'a str>),
    /// None, or none of Assent's.
    Nothing(&'a str),
}

/// The client's ops of a branch, written into a batch as they came.
struct PassedOps {
    ops: Option<Arc<RequestOps>>,
    branch: Branch,
}

impl PassedOps {
    fn of(active: &Active, branch: Branch) -> Self {
        Self { ops: active.ops.clone(), branch }
    }

    fn text(&self) -> Option<&RawValue> {
        self.ops.as_ref()?.branches.get(self.branch.index()).map(|ops| &**ops)
    }
}

impl Serialize for PassedOps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().serialize(serializer)
    }
}

/// Messages taken from the queue, ready to be sent without the core.
struct Assembled {
    client: Option<Arc<ParticipantClient>>,
    batch: Batch<PassedOps>,
    outgoing: Vec<Outgoing>,
    sent: Sent,
}

/// A call to a participant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: Millis,
    /// Whether it finds out if the participant is back.
    pub(super) is_probe: bool,
}

/// Why no batch leaves.
enum Idle {
    /// Nothing is queued.
    Empty,
    /// What is queued may ride until then, or may not leave before.
    Until(Instant),
    /// Nothing is queued for a participant that is away, and it is time to look whether it is back.
    Probe,
}

impl Assembled {
    /// The transactions whose prepares it carries.
    fn prepared(&self) -> Vec<TxNumber> {
        let prepares = self.outgoing.iter().filter(|out| out.message == Message::Prepare);
        prepares.map(|out| out.number).collect()
    }
}

impl Lane {
    pub(super) fn new(name: ParticipantName) -> Self {
        Self {
            name,
            client: None,
            queue: Outbound::default(),
            unfinished: BTreeSet::new(),
            voting: 0,
            undelivered: 0,
            wake: Arc::new(Notify::new()),
            runs: false,
            up: None,
            redis_up: None,
            up_since: None,
            last_error: None,
            breaker: Breaker::default(),
            data: LaneData::default(),
            greeting: Greeting::Due,
            is_met: false,
            greeted_in_vain: 0,
            is_awaited: false,
            asked_for: None,
        }
    }

    pub(super) fn client(&self) -> Option<Arc<ParticipantClient>> {
        self.client.clone()
    }

    /// The participant's base URL, if it is registered.
    pub(super) fn url(&self) -> Option<&str> {
        self.client.as_ref().map(|client| client.base_url())
    }

    /// Registers the participant, or moves it; the lane starts with the first URL.
    pub(super) fn set_url(
        &mut self,
        url: &str,
        place: usize,
        shared: &Arc<Shared>,
    ) -> Result<(), Problem> {
        if url.len() > limits::URL_BYTES_MAX {
            let detail = format!("`url` must have at most {} bytes", limits::URL_BYTES_MAX);
            return Err(Problem {
                participant: Some(self.name.to_string()),
                ..Problem::new(ErrorCode::BadRequest, detail)
            });
        }
        let client = ParticipantClient::new(&shared.http, url).map_err(|error| Problem {
            participant: Some(self.name.to_string()),
            ..Problem::new(ErrorCode::BadRequest, error.to_string())
        })?;
        if self.url().is_some_and(|before| before != client.base_url()) {
            // Who answers there may not have heard it.
            self.greeting = Greeting::Tried;
        }
        self.client = Some(Arc::new(client));
        shared.unmet.store(true, Ordering::Release);
        self.breaker = Breaker::default();
        self.wake.notify_one();
        self.start(place, shared);
        Ok(())
    }

    pub(super) fn clear_url(&mut self) {
        self.client = None;
        self.breaker = Breaker::default();
        self.up = None;
        self.redis_up = None;
        self.up_since = None;
        self.last_error = None;
    }

    /// Starts the lane's task, once. A lane without a URL runs too: its messages come back unknown.
    pub(super) fn start(&mut self, place: usize, shared: &Arc<Shared>) {
        if !self.runs {
            self.runs = true;
            let lane = run(Arc::downgrade(shared), place, Arc::clone(&self.wake));
            shared.runtime.spawn(vital(lane));
        }
    }

    pub(super) fn enqueue(&mut self, outgoing: Outgoing, haste: Haste) {
        self.queue.push(outgoing, haste, Instant::now());
        self.wake.notify_one();
    }

    /// What rides holds locks that somebody wants.
    fn hurry(&mut self) {
        self.queue.hurry(Instant::now());
        self.wake.notify_one();
    }
}

impl Core {
    /// Takes what is queued for a lane, up to a batch, if any of it has to leave now.
    fn assemble(&mut self, place: usize, shared: &Shared) -> Result<Assembled, Idle> {
        let low_water = self.low_water(place);
        let coordinator = self.speaker(place, shared);
        let lane = &mut self.lanes[place];
        let now = Instant::now();
        let sent_at = clock::now();
        let pass = lane.breaker.pass(sent_at);
        let is_probe = pass == Pass::Probe;
        let nothing = || if is_probe { Idle::Probe } else { Idle::Empty };
        match pass {
            Pass::Free | Pass::Probe => {}
            Pass::NotBefore(at) => {
                return Err(Idle::Until(now + Duration::from_millis(at.since(sent_at))));
            }
            Pass::ProbeIsOut => return Err(Idle::Until(now + LANE_PATIENCE)),
        }
        match lane.queue.due() {
            None => return Err(nothing()),
            Some(due) if due > now => return Err(Idle::Until(due)),
            Some(_) => {}
        }
        let count = lane.queue.len().min(limits::BATCH_MESSAGES_MAX);
        let mut outgoing = Vec::with_capacity(count);
        let mut messages = Vec::with_capacity(count);
        let mut bytes = 0;
        while outgoing.len() < count
            && let Some(message) = lane.queue.pop()
        {
            // A transaction that ended meanwhile needs no message any more, and no answer; one that
            // is decided needs no prepare.
            let Some(active) = self.active.get(&message.number) else { continue };
            let is_prepare = matches!(message.message, Message::Prepare | Message::PrepareWaiting);
            if is_prepare && active.ops.is_none() {
                continue;
            }
            bytes += ops_bytes(active, message);
            if bytes > limits::BATCH_OPS_BYTES_MAX && !outgoing.is_empty() {
                lane.queue.put_back(message, now);
                break;
            }
            messages.push(wire_message(active, message, shared, 0));
            outgoing.push(message);
        }
        if outgoing.is_empty() {
            return Err(nothing());
        }
        lane.breaker.probe_sent();
        let sent = Sent { at: sent_at, is_probe };
        let (client, participant) = (lane.client(), lane.name.clone());
        let known = lane.data.seen.known;
        let progress = lane.data.progress;
        let batch = Batch { participant, coordinator, low_water, known, progress, messages };
        Ok(Assembled { client, batch, outgoing, sent })
    }

    /// What came of a call.
    pub(super) fn lane_answered(&mut self, place: usize, sent: Sent, came: Came<'_>) {
        let now = clock::now();
        let is_answered = matches!(came, Came::Answer(_));
        let error = match came {
            Came::Answer(useless) => useless,
            Came::Nothing(why) => Some(why),
        };
        let lane = &mut self.lanes[place];
        match error {
            None => lane.breaker.answered(),
            // Nobody is away who is nowhere.
            Some(_) if lane.client.is_none() => {}
            Some(_) if sent.is_probe => lane.breaker.probe_failed(now),
            Some(_) => lane.breaker.failed(now, sent.at),
        }
        let was_up = lane.up.replace(is_answered);
        if was_up != lane.up {
            lane.up_since = Some(now);
        }
        match error {
            Some(error) if !is_answered && was_up != Some(false) => {
                tracing::warn!(participant = %lane.name, error, "a participant does not answer");
            }
            _ if is_answered && was_up == Some(false) => {
                tracing::info!(participant = %lane.name, "a participant answers again");
            }
            Some(_) | None => {}
        }
        lane.last_error = error.map(str::to_owned);
        if error.is_none() {
            // What was held back may leave.
            lane.wake.notify_one();
        }
    }

    /// A call is without an answer for suspiciously long; what comes of it is heard later.
    pub(super) fn lane_is_silent(&mut self, place: usize, sent: Sent) {
        let now = clock::now();
        let lane = &mut self.lanes[place];
        if !sent.is_probe && lane.client.is_some() {
            lane.breaker.failed(now, sent.at);
        }
        if lane.breaker.away_since().is_some() && lane.up != Some(false) {
            let error = format!("no answer for {} ms", now.since(sent.at));
            tracing::warn!(participant = %lane.name, error, "a participant does not answer");
            (lane.up, lane.up_since, lane.last_error) = (Some(false), Some(now), Some(error));
        }
    }
}

/// Why a participant is as good as away, though it answers: to every message it says that it could
/// not ask its Redis.
fn why_nothing_is_said(inputs: &[(TxNumber, Input)]) -> Option<String> {
    let why = |(_, input): &(TxNumber, Input)| match input {
        Input::Prepared { call, .. } => why_nothing(call),
        Input::Applied { call, .. } => why_nothing(call),
        Input::Aborted { call, .. } => why_nothing(call),
        Input::Settled { call, .. } => why_nothing(call),
        _ => None,
    };
    let mut whys = inputs.iter().map(why);
    let first = whys.next()??;
    whys.all(|why| why.is_some()).then_some(first)
}

fn why_nothing<T>(call: &Call<T>) -> Option<String> {
    match call {
        Call::Unknown(why) => Some(why.clone()),
        Call::Refused(Refusal { code: ErrorCode::RedisUnavailable, detail, .. }) => {
            Some(detail.clone())
        }
        Call::Applied(_) | Call::Refused(_) => None,
    }
}

/// What a message adds to a batch, as far as that can be much.
fn ops_bytes(active: &Active, outgoing: Outgoing) -> usize {
    match outgoing.message {
        Message::Prepare | Message::PrepareWaiting => {
            PassedOps::of(active, outgoing.branch).text().map_or(0, |ops| ops.get().len())
        }
        Message::Commit | Message::Abort | Message::Settle => 0,
    }
}

fn wire_message(
    active: &Active,
    outgoing: Outgoing,
    shared: &Shared,
    wait_ms: u64,
) -> WireMessage<PassedOps> {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let txid = Txid { log_id: shared.identity.log_id, number, attempt };
    match message {
        Message::Prepare | Message::PrepareWaiting => WireMessage::Prepare(PrepareMessage {
            txid,
            id: active.accepted.identity.id,
            mode: if active.lanes.len() == 1 { Mode::OnePhase } else { Mode::TwoPhase },
            wait_ms,
            branches: active.accepted.addresses.clone(),
            ops: PassedOps::of(active, branch),
        }),
        Message::Commit => WireMessage::Commit(TxidOnly { txid }),
        Message::Abort => WireMessage::Abort(TxidOnly { txid }),
        Message::Settle if mutants::aborts_unsettled() => WireMessage::Abort(TxidOnly { txid }),
        Message::Settle => WireMessage::Settle(TxidOnly { txid }),
    }
}

/// A lane's task: one batch at a time, as long as the engine lives. Between two batches it waits a
/// moment for the decisions of the transactions in the first, so that their commits ride with the
/// prepares that are queued: fewer and fuller batches, each of which is a sync at the participant;
/// and the lanes fall into step. A batch that hangs holds up its own messages only: the lane leaves
/// it to its time limit and goes on.
async fn run(shared: Weak<Shared>, place: usize, wake: Arc<Notify>) {
    greet(&shared, place).await;
    loop {
        let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
        let assembled = engine.core().assemble(place, &engine.shared);
        match assembled {
            Ok(assembled) => {
                let (prepared, sent) = (assembled.prepared(), assembled.sent);
                let mut sending = Box::pin(engine.clone().send_batch(place, assembled));
                if tokio::time::timeout(LANE_PATIENCE, &mut sending).await.is_err() {
                    engine.core().lane_is_silent(place, sent);
                    tokio::spawn(vital(sending));
                }
                // Late is as good as never: the commits go with the batch after the next one.
                let _ = tokio::time::timeout(RIDE_MAX, engine.decided(&prepared)).await;
            }
            Err(Idle::Until(due)) => {
                drop(engine);
                // Early or late: the queue is looked at again.
                let _ = tokio::time::timeout_at(due, wake.notified()).await;
            }
            Err(Idle::Probe) => {
                engine.core().lanes[place].breaker.probe_sent();
                engine.look_at_data(place, true).await;
            }
            Err(Idle::Empty) if std::mem::take(&mut engine.core().lanes[place].is_awaited) => {
                engine.greet_again(place).await;
            }
            Err(Idle::Empty) => {
                drop(engine);
                if tokio::time::timeout(LOOK_INTERVAL, wake.notified()).await.is_err() {
                    let Some(shared) = shared.upgrade() else { return };
                    let engine = Engine { shared };
                    // What comes to be sent does not wait for a look.
                    tokio::select! {
                        () = engine.look_at_data(place, false) => {}
                        () = wake.notified() => {}
                    }
                }
            }
        }
    }
}

impl Engine {
    /// Ready when these transactions are decided, durably.
    async fn decided(self, numbers: &[TxNumber]) {
        loop {
            let Some(mut progress) = self.core().undecided(numbers) else { return };
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
    }

    async fn send_batch(self, place: usize, assembled: Assembled) {
        let Assembled { client, mut batch, outgoing, sent } = assembled;
        if outgoing.iter().any(|outgoing| outgoing.message == Message::Prepare) {
            crash::point(CrashPoint::BeforePrepareSent);
        }
        metrics::batch_sent(&batch.participant, outgoing.len());
        let (result, life) = self.deliver(place, client.as_deref(), &mut batch).await;
        let progress = result.as_ref().ok().and_then(|answers| answers.progress);
        let mut redis = None;
        let (mut inputs, error): (Vec<_>, _) = match result {
            Ok(answers) => {
                redis = behind::told_of_redis(&answers.answers);
                let answered = outgoing.iter().zip(answers.answers);
                (answered.map(|(outgoing, answer)| input_of(*outgoing, answer)).collect(), None)
            }
            Err(why) => {
                let unknown = |outgoing: &Outgoing| input_unknown(*outgoing, &why);
                let inputs = outgoing.iter().map(unknown).filter_map(mutants::not_heard);
                (inputs.collect(), Some(why))
            }
        };
        if error.is_none() && outgoing.iter().any(|outgoing| outgoing.message == Message::Commit) {
            crash::point(CrashPoint::BetweenCommits);
        }
        let mut core = self.core();
        let useless = why_nothing_is_said(&inputs);
        let came = error.as_deref().map_or_else(|| Came::Answer(useless.as_deref()), Came::Nothing);
        core.lane_answered(place, sent, came);
        core.redis_heard(place, redis);
        core.life_heard(place, life, &self.shared);
        if inputs.iter().any(|(_, input)| met_a_lock(input)) {
            core.lanes[place].hurry();
        }
        core.data_heard(place, batch.known, &mut inputs, &self.shared);
        core.lanes[place].data.progressed(progress);
        core.answered(inputs, &self.shared);
    }

    /// Sends one prepare by the call that may wait, beside the lane's batches.
    async fn send_waiting(
        self,
        place: usize,
        client: Arc<ParticipantClient>,
        batch: Batch<PassedOps>,
        outgoing: Outgoing,
        txid: Txid,
        wait_ms: u64,
    ) {
        let call = client.prepare_waiting(txid, wait_ms, &batch).await;
        let Outgoing { number, branch, attempt, .. } = outgoing;
        let input = Input::Prepared { branch, attempt, call };
        let mut inputs = vec![(number, input)];
        let mut core = self.core();
        core.unproven_at(place, &mut inputs);
        core.data_heard(place, batch.known, &mut inputs, &self.shared);
        core.answered(inputs, &self.shared);
    }
}

impl Core {
    /// Starts a prepare that may wait until the transaction's deadline for the holder of its lock.
    pub(super) fn start_waiting(&self, outgoing: Outgoing, shared: &Arc<Shared>) {
        let Some(active) = self.active.get(&outgoing.number) else { return };
        let Some(&place) = active.lanes.get(outgoing.branch.index()) else { return };
        let lane = &self.lanes[place];
        let Some(client) = lane.client.clone() else { return };
        // A little less than there is, so that the holder's name comes back before the deadline
        // passes.
        let wait_ms = active.accepted.deadline.since(clock::now()) * 9 / 10;
        let message = wire_message(active, outgoing, shared, wait_ms);
        let txid = message.txid();
        let batch = Batch {
            participant: lane.name.clone(),
            coordinator: self.speaker(place, shared),
            low_water: self.low_water(place),
            known: lane.data.seen.known,
            progress: lane.data.progress,
            messages: vec![message],
        };
        let engine = Engine { shared: Arc::clone(shared) };
        let sending = engine.send_waiting(place, client, batch, outgoing, txid, wait_ms);
        shared.runtime.spawn(vital(sending));
    }
}

/// Whether a prepare found a lock taken.
fn met_a_lock(input: &Input) -> bool {
    match input {
        Input::Prepared { call: Call::Applied(vote), .. } => matches!(vote, Prepared::Wait(_)),
        Input::Prepared { call: Call::Refused(refusal), .. } => refusal.holder.is_some(),
        _ => false,
    }
}

fn input_of(outgoing: Outgoing, answer: Answer) -> (TxNumber, Input) {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let input = match message {
        Message::Prepare | Message::PrepareWaiting => {
            Input::Prepared { branch, attempt, call: answer.into_prepared() }
        }
        Message::Commit => Input::Applied { branch, call: mutants::heard(answer.into_applied()) },
        Message::Abort => Input::Aborted { branch, attempt, call: answer.into_aborted() },
        Message::Settle => Input::Settled { branch, attempt, call: answer.into_settled() },
    };
    (number, input)
}

fn input_unknown(outgoing: Outgoing, why: &str) -> (TxNumber, Input) {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let why = why.to_owned();
    let input = match message {
        Message::Prepare | Message::PrepareWaiting => {
            Input::Prepared { branch, attempt, call: Call::Unknown(why) }
        }
        Message::Commit => Input::Applied { branch, call: Call::Unknown(why) },
        Message::Abort => Input::Aborted { branch, attempt, call: Call::Unknown(why) },
        Message::Settle => Input::Settled { branch, attempt, call: Call::Unknown(why) },
    };
    (number, input)
}
