//! Resynchronisation with a participant whose Redis lost data: the acting half of `common`'s
//! `coordinator::resync`.
//!
//! ```text
//! an answer says `quarantined` ──► look at the data ──► give up what is undecided there ──► wait for decisions under way
//!        ▲                                                                                          │
//!        └── later: the participant is away, owes another log's word ◄── say it ◄── plan ◄── read the whole log
//!                                                                          │
//!                                                                          └── Loss: named, and left to an operator
//! ```
//!
//! One at a time for each participant. While it runs the participant does nothing for anybody, so
//! that no decision about a branch there can be made behind the log that was read.

use std::sync::{Arc, Weak};
use std::time::Duration;

use assent_client::CallError;
use assent_client::participant::ParticipantClient;
use assent_common::backoff::Backoff;
use assent_common::coordinator::resync::{Loss, Plan, Redone, Seen};
use assent_common::coordinator::{Branch, Hearing, Input, State};
use assent_common::ids::TxNumber;
use assent_common::record::{DataSeen, LossAccepted, Record};
use assent_common::wire::branch::Batch;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::problem::Problem;
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, FoundData, Progress, RedoBranch, Resync};
use assent_common::wire::transaction::{ParticipantData, ParticipantView};
use assent_common::{Attempt, ErrorCode, LogId, ParticipantName, Txid};
use tokio::sync::{oneshot, watch};

use super::core::Core;
use super::journal::Appended;
use super::lane::{Came, Sent};
use super::lives::{Greeting, LifeHeard};
use super::{Engine, Shared, vital};
use crate::clock;
use crate::log::{Durability, LogError};
use crate::metrics;

/// Between tries: the participant may be away, or wait for the word of another log.
const AGAIN: Backoff = Backoff { base_ms: 50, cap_ms: 2_000 };

/// Bytes of writes in one part; in base64, far below what a participant takes.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Branches in one part.
const PART_BRANCHES_MAX: usize = 10_000;

/// What a lane knows of its participant's data.
#[derive(Debug, Default)]
pub(super) struct LaneData {
    pub(super) seen: Seen,
    /// How many branches had ended in the data, as it said last in this life.
    pub(super) progress: Option<Progress>,
    /// Whether a resynchronisation is under way.
    resyncs: bool,
    /// What holds it up, for people.
    pub(super) trouble: Option<String>,
    /// Whether that is a loss that only an operator can put up with.
    pub(super) is_lost: bool,
    /// The data that is found now.
    found: Option<FoundData>,
    /// The data for which an operator put up with what is missing: a loss, or another log's word.
    accepted: Option<FoundData>,
}

impl LaneData {
    /// Takes note of how many branches have ended in the data.
    pub(super) fn progressed(&mut self, said: Option<Progress>) {
        let known = self.seen.known.map(|known| known.incarnation);
        let Some(said) = said.filter(|said| known == Some(said.incarnation)) else { return };
        let before = self.progress.filter(|before| before.incarnation == said.incarnation);
        let ended = said.ended.max(before.map_or(0, |before| before.ended));
        self.progress = Some(Progress { ended, ..said });
    }

    pub(super) const fn word(&self) -> ParticipantData {
        match (self.resyncs, self.is_lost) {
            (true, true) => ParticipantData::Lost,
            (true, false) => ParticipantData::Resynchronising,
            (false, _) => ParticipantData::Open,
        }
    }
}

/// What is to be redone, or why that would not be all.
type Planned = Result<Vec<Redone>, Loss>;

/// Why a resynchronisation did not come to its end.
enum Stop {
    Loss(Loss),
    Later(String),
}

impl Core {
    /// Takes note of what answers say of the data behind a lane, before the machines hear them.
    pub(super) fn data_heard(
        &mut self,
        place: usize,
        known: Option<DataPoint>,
        inputs: &mut [(TxNumber, Input)],
        shared: &Arc<Shared>,
    ) {
        let LaneData { seen, resyncs, .. } = &mut self.lanes[place].data;
        let mut hearing = Hearing::new(seen, known, *resyncs);
        let mut is_fenced = false;
        for (_, input) in inputs {
            is_fenced |= hearing.hear(input);
        }
        self.resync_if_fenced(place, is_fenced, shared);
    }

    /// A participant that has nothing to say to this coordinator may wait for its word.
    pub(super) fn resync_if_fenced(&mut self, place: usize, fenced: bool, shared: &Arc<Shared>) {
        let data = &mut self.lanes[place].data;
        if fenced && !data.resyncs {
            data.resyncs = true;
            shared.runtime.spawn(vital(run(Arc::downgrade(shared), place)));
        }
    }

    /// Gives up what is undecided at a participant that lost data, and tells of progress while
    /// decisions are under way.
    fn give_up_undecided(
        &mut self,
        place: usize,
        shared: &Arc<Shared>,
    ) -> Option<watch::Receiver<u64>> {
        let numbers: Vec<TxNumber> = self.lanes[place].unfinished.iter().copied().collect();
        let now = clock::now();
        for number in &numbers {
            let Some(active) = self.active.get(number) else { continue };
            if !matches!(active.machine.state(), State::Preparing(_) | State::Settling(_)) {
                continue;
            }
            let branch = active.lanes.iter().position(|lane| *lane == place);
            if let Some(branch) = branch.and_then(|branch| u16::try_from(branch).ok()) {
                self.step(*number, Input::DataLost(Branch(branch)), now, shared);
            }
        }
        self.undecided(&numbers)
    }

    /// The data is open, as what became of what was known.
    fn data_opened(&mut self, place: usize, open: Option<DataPoint>, shared: &Arc<Shared>) {
        let lane = &mut self.lanes[place];
        lane.data = LaneData { seen: lane.data.seen, ..LaneData::default() };
        // What was lost may have been the life that was heard.
        lane.greeting = Greeting::Tried;
        if let Some(open) = open {
            tracing::warn!(participant = %lane.name, incarnation = open.incarnation, seq = open.seq,
                "a participant's data is resynchronised, and open");
            lane.data.seen.opened(open);
            let retired = lane.data.seen.retired;
            let record = data_seen(&lane.name, open, retired);
            self.append(&record, Durability::Forced, Appended::Nothing);
        }
        let unfinished: Vec<TxNumber> = self.lanes[place].unfinished.iter().copied().collect();
        for number in unfinished {
            self.retry(number, shared);
        }
    }

    /// Takes note that the log lets go of decisions up to these votes, and of what must be known in
    /// their stead.
    pub(super) fn retire_votes<'a>(
        &mut self,
        retired: impl IntoIterator<Item = (&'a ParticipantName, u64)>,
    ) {
        for (participant, seq) in retired {
            let lane = self.lane(participant);
            self.lanes[lane].data.seen.retire(seq);
        }
        let seen = self.lanes.iter().filter_map(|lane| {
            let Seen { known, retired } = lane.data.seen;
            Some(data_seen(&lane.name, known?, retired))
        });
        for record in seen.collect::<Vec<_>>() {
            self.append(&record, Durability::Lazy, Appended::Nothing);
        }
    }

    /// An operator puts up with what is lost. The receiver hears when that is durable.
    pub(super) fn accept_loss(
        &mut self,
        name: &ParticipantName,
        actor: String,
        reason: String,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let lane = self.registered_lane(name).map(|lane| &mut self.lanes[lane]);
        let waiting = lane.filter(|lane| lane.data.found.is_some() && lane.data.trouble.is_some());
        let Some(lane) = waiting else {
            let detail = format!("participant {name} has no loss that could be accepted");
            let problem = Problem::new(ErrorCode::WrongState, detail);
            return Err(Problem { participant: Some(name.to_string()), ..problem });
        };
        let loss = lane.data.trouble.clone().unwrap_or_default();
        tracing::error!(participant = %name, loss, actor, reason, "an operator accepts a loss of data");
        lane.data.accepted = lane.data.found;
        let (told, durable) = oneshot::channel();
        let at = clock::now();
        let record = Record::LossAccepted(LossAccepted {
            participant: name.clone(),
            loss,
            actor,
            reason,
            at,
        });
        self.append(&record, Durability::Forced, Appended::Told(told));
        Ok(durable)
    }
}

fn data_seen(participant: &ParticipantName, known: DataPoint, retired: u64) -> Record {
    let DataPoint { incarnation, seq } = known;
    Record::DataSeen(DataSeen { participant: participant.clone(), incarnation, seq, retired })
}

/// Tries until the data is open, without keeping the engine alive.
async fn run(shared: Weak<Shared>, place: usize) {
    for tries in 0.. {
        {
            let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
            match engine.resync(place).await {
                Ok(open) => return engine.core().data_opened(place, open, &engine.shared),
                Err(stop) => engine.note_stop(place, stop),
            }
        }
        tokio::time::sleep(Duration::from_millis(AGAIN.delay_ms(tries, place as u64))).await;
    }
}

impl Engine {
    fn note_stop(&self, place: usize, stop: Stop) {
        let (trouble, is_lost) = match stop {
            Stop::Loss(loss) => (loss.to_string(), true),
            Stop::Later(why) => (why, false),
        };
        let mut core = self.core();
        let lane = &mut core.lanes[place];
        if lane.data.trouble.as_ref() != Some(&trouble) {
            if is_lost {
                tracing::error!(participant = %lane.name, trouble, "lost for good, unless an older Redis comes back: \
                    nothing runs there before an operator has decided (docs/guides/recover.md, `A Redis lost data`)");
            } else {
                tracing::warn!(participant = %lane.name, trouble, "not resynchronised yet");
            }
        }
        lane.data.trouble = Some(trouble);
        lane.data.is_lost = is_lost;
    }

    /// Looks at the data of a participant to which nothing is said. What this log knows of it goes
    /// there as with every batch, so that the participant compares, and fences what is other data;
    /// then it is asked what came of that.
    pub(super) async fn look_at_data(&self, place: usize, is_probe: bool) {
        let sent = Sent { at: clock::now(), is_probe };
        let (client, batch) = {
            let core = self.core();
            let lane = &core.lanes[place];
            let Some(client) = lane.client().filter(|_| core.lives.stale().is_none()) else {
                return;
            };
            let batch = Batch::<()> {
                participant: lane.name.clone(),
                coordinator: core.speaker_in_full(place, &self.shared),
                low_water: core.low_water(place),
                known: lane.data.seen.known,
                progress: lane.data.progress,
                messages: Vec::new(),
            };
            (client, batch)
        };
        let said = client.batch(&batch).await;
        {
            let mut core = self.core();
            core.life_heard(place, LifeHeard::of(&said), &self.shared);
            if core.lives.stale().is_some() {
                return;
            }
        }
        let found = match said {
            Ok(_) => client.data().await,
            Err(unknown) => Err(unknown.into()),
        };
        let mut core = self.core();
        match found {
            Ok(found) => {
                let is_other = batch.known.is_some_and(|known| !found.has_all_of(known));
                core.lane_answered(place, sent, Came::Answer(None));
                core.redis_heard(place, Some(Ok(())));
                core.resync_if_fenced(place, found.fenced || is_other, &self.shared);
            }
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::RedisUnavailable => {
                core.lane_answered(place, sent, Came::Answer(Some(&problem.detail)));
                core.redis_heard(place, Some(Err(problem.detail)));
            }
            Err(CallError::Rejected(_)) => core.lane_answered(place, sent, Came::Answer(None)),
            Err(CallError::Unknown(why)) => {
                core.lane_answered(place, sent, Came::Nothing(&why.to_string()));
            }
        }
    }

    /// One try. The data that is open then, if it is not the data that was known.
    async fn resync(&self, place: usize) -> Result<Option<DataPoint>, Stop> {
        let later = |why: &dyn std::fmt::Display| Stop::Later(why.to_string());
        let (client, name) = {
            let core = self.core();
            let lane = &core.lanes[place];
            (lane.client(), lane.name.clone())
        };
        if let Some(why) = self.stale_log() {
            return Err(later(&why));
        }
        if self.core().is_greeting() {
            return Err(later(&"not all participants were asked whether this is the newest log"));
        }
        let client = client.ok_or_else(|| later(&"the participant is not registered"))?;
        let found = client.data().await.map_err(|error| later(&error))?;
        let log_id = self.identity().log_id;
        self.core().lanes[place].data.found = found.fenced.then(|| found.found());
        if !found.fenced {
            let known = self.core().lanes[place].data.seen.known;
            let served = known.is_some_and(|known| found.has_served(log_id, known));
            let incarnation = found.incarnation.filter(|_| served);
            return Ok(incarnation.map(|incarnation| DataPoint { incarnation, seq: found.seq }));
        }
        while let Some(mut progress) = self.give_up(place) {
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
        self.sync_what_is_told(place).await?;
        let engine = self.clone();
        let data = found.clone();
        let planned = tokio::task::spawn_blocking(move || engine.plan(place, &data)).await;
        let (seen, redo) =
            planned.map_err(|error| later(&error))?.map_err(|error| later(&error))?;
        let redo = redo.map_err(Stop::Loss)?;
        tracing::warn!(participant = %name, branches = redo.len(), found = found.seq, known = seen.known.map(|known| known.seq),
            "a participant lost data; the log's commits there are reported to it");
        self.say(&client, place, &found, seen, redo).await
    }

    fn give_up(&self, place: usize) -> Option<watch::Receiver<u64>> {
        self.core().give_up_undecided(place, &self.shared)
    }

    /// What clients have been told of one phase may be in the log's queue still, and would be
    /// missing in the word: waits until all of it is on disk.
    async fn sync_what_is_told(&self, place: usize) -> Result<(), Stop> {
        let durable = {
            let mut core = self.core();
            let lane = &core.lanes[place];
            let Seen { known: Some(known), retired } = lane.data.seen else { return Ok(()) };
            let record = data_seen(&lane.name, known, retired);
            let (told, durable) = oneshot::channel();
            core.append(&record, Durability::Forced, Appended::Told(told));
            durable
        };
        durable.await.map_err(|_| Stop::Later("the process is stopping".to_owned()))
    }

    /// Reads the whole log for what the data may lack. Blocks.
    fn plan(&self, place: usize, found: &DataView) -> Result<(Seen, Planned), LogError> {
        let log = self.log();
        let participant = self.core().lanes[place].name.clone();
        let committed = |txid| self.outcome(txid).outcome == BranchOutcome::Committed;
        let log_id = log.log_id();
        let mut plan = Plan::new(log_id, &participant, found, committed);
        for segment in log.segments() {
            log.read_segment(segment.number, &mut |_, kind, payload| {
                plan.apply(&Record::decode(kind, payload)?, |number| first_try(log_id, number));
                Ok(())
            })?;
        }
        // After the reading: what compaction has let go of meanwhile is said here.
        let (seen, overruled) = self.seen(place, found);
        Ok((seen, plan.finish(seen, overruled)))
    }

    /// What is known of the data, and whether an operator has put up with what it lacks.
    fn seen(&self, place: usize, found: &DataView) -> (Seen, bool) {
        let core = self.core();
        let data = &core.lanes[place].data;
        (data.seen, data.accepted.is_some_and(|accepted| accepted.is_same_data(found.found())))
    }

    /// Says in parts what was committed. The data that is open then; or why it is not.
    async fn say(
        &self,
        client: &ParticipantClient,
        place: usize,
        found: &DataView,
        seen: Seen,
        redo: Vec<Redone>,
    ) -> Result<Option<DataPoint>, Stop> {
        let mut parts = parts(redo).into_iter().peekable();
        let mut part = 0;
        let mut owed = Vec::new();
        let (_, alone) = self.seen(place, found);
        while let Some(redo) = parts.next() {
            let word = {
                let core = self.core();
                Resync {
                    participant: core.lanes[place].name.clone(),
                    coordinator: core.speaker_in_full(place, &self.shared),
                    low_water: core.low_water(place),
                    found: found.found(),
                    known: seen.known,
                    part,
                    last: parts.peek().is_none(),
                    alone,
                    redo,
                }
            };
            let said = client.resync(&word).await;
            let said = said.map_err(|error| Stop::Later(error.to_string()))?;
            if said.open.is_some() {
                metrics::branches_redone(&word.participant, said.redone);
                return Ok(said.open);
            }
            owed = said.owed;
            part += 1;
        }
        let owed: Vec<String> = owed.iter().map(ToString::to_string).collect();
        Err(Stop::Later(format!(
            "the participant waits for the report of log {}; if its coordinator is gone for good, accept the loss of what only that log knew",
            owed.join(", ")
        )))
    }

    /// An operator puts up with what a participant lost.
    pub async fn accept_loss(
        &self,
        name: &ParticipantName,
        actor: String,
        reason: String,
    ) -> Result<ParticipantView, Problem> {
        let durable = self.core().accept_loss(name, actor, reason)?;
        let stopping = "the process is stopping";
        durable.await.map_err(|_| Problem::new(ErrorCode::NotReady, stopping.to_owned()))?;
        let view = self.participants().into_iter().find(|view| view.name == *name);
        view.ok_or_else(|| Problem::new(ErrorCode::NotFound, format!("no participant {name}")))
    }
}

/// A transaction of a log; the attempt is the record's to say.
const fn first_try(log_id: LogId, number: TxNumber) -> Txid {
    Txid { log_id, number, attempt: Attempt::FIRST }
}

/// Cuts a word into parts; a word without a branch has one.
fn parts(redo: Vec<Redone>) -> Vec<Vec<RedoBranch>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for Redone { seq, txid, redo } in redo {
        bytes += redo.len();
        let branch = RedoBranch { txid, seq, redo: Base64(redo) };
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES_MAX && part.len() < PART_BRANCHES_MAX => {
                part.push(branch);
            }
            _ => {
                bytes = branch.redo.0.len();
                parts.push(vec![branch]);
            }
        }
    }
    parts
}
