//! Resynchronisation with a participant whose Redis lost data: the driving half of `common`'s
//! `coordinator::resync`, whose state is in the core.
//!
//! ```text
//! an answer says `quarantined` ──► look at the data ──► give up what is undecided there
//!        ▲                                                │
//!        │                                                ▼
//!        │                                 wait for decisions under way
//!        │                                                │
//!        │                                                ▼
//!        └── later: the participant is   ◄── say it ◄── plan ◄── read the whole log
//!            away, or owes another                        │
//!            log's word                                   └── Loss: left to an operator
//! ```
//!
//! One at a time for each participant. While it runs the participant does nothing for anybody, so
//! that no decision about a branch there can be made behind the log that was read.

use std::sync::Weak;
use std::time::Duration;

use assent_client::CallError;
use assent_client::participant::ParticipantClient;
use assent_common::backoff::Backoff;
use assent_common::coordinator::resync::{Loss, Plan, Redone, Seen};
use assent_common::ids::TxNumber;
use assent_common::record::Record;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::problem::Problem;
use assent_common::wire::resync::{DataPoint, DataView, Resync};
use assent_common::wire::transaction::ParticipantView;
use assent_common::{Attempt, ErrorCode, LogId, ParticipantName, Txid};
use assent_engine::{Came, LifeHeard, Sent, parts_of_word};

use super::{Engine, Shared, stopping};
use crate::clock;
use crate::log::LogError;
use crate::metrics;

/// Between tries: the participant may be away, or wait for the word of another log.
const AGAIN: Backoff = Backoff { base_ms: 50, cap_ms: 2_000 };

/// What is to be redone, or why that would not be all.
type Planned = Result<Vec<Redone>, Loss>;

/// Why a resynchronisation did not come to its end.
enum Stop {
    Loss(Loss),
    Later(String),
}

/// Tries until the data is open, without keeping the engine alive.
pub(super) async fn run(shared: Weak<Shared>, place: usize) {
    for tries in 0.. {
        {
            let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
            match engine.resync(place).await {
                Ok(open) => return engine.core().data_opened(place, open, clock::micros()),
                Err(Stop::Loss(loss)) => engine.core().data_held_up(place, loss.to_string(), true),
                Err(Stop::Later(why)) => engine.core().data_held_up(place, why, false),
            }
        }
        tokio::time::sleep(Duration::from_millis(AGAIN.delay_ms(tries, place as u64))).await;
    }
}

impl Engine {
    /// Looks at the data of a participant to which nothing is said. What this log knows of it goes
    /// there as with every batch, so that the participant compares, and fences what is other data;
    /// then it is asked what came of that.
    pub(super) async fn look_at_data(&self, place: usize, is_probe: bool) {
        let sent = Sent { at: clock::now(), is_probe };
        let (client, batch) = {
            let core = self.core();
            let (Some(client), Some(batch)) = (core.client(place), core.look(place)) else {
                return;
            };
            (client, batch)
        };
        let said = client.batch(&batch).await;
        {
            let mut core = self.core();
            core.life_heard(place, LifeHeard::of(&said));
            if core.stale().is_some() {
                return;
            }
            // It has compared nothing.
            if core.lanes()[place].stale_log.is_some() {
                return core.lane_answered(place, sent, Came::Answer(None), clock::micros());
            }
        }
        let found = match said {
            Ok(_) => client.data().await,
            Err(unknown) => Err(unknown.into()),
        };
        let mut core = self.core();
        let now = clock::micros();
        match found {
            Ok(found) => {
                let is_other = batch.known.is_some_and(|known| !found.has_all_of(known));
                core.lane_answered(place, sent, Came::Answer(None), now);
                core.redis_heard(place, Ok(()));
                if found.fenced || is_other {
                    core.data_is_fenced(place);
                }
            }
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::RedisUnavailable => {
                core.lane_answered(place, sent, Came::Answer(Some(&problem.detail)), now);
                core.redis_heard(place, Err(problem.detail));
            }
            Err(CallError::Rejected(_)) => {
                core.lane_answered(place, sent, Came::Answer(None), now);
            }
            Err(CallError::Unknown(why)) => {
                core.lane_answered(place, sent, Came::Nothing(&why.to_string()), now);
            }
        }
    }

    /// One try. The data that is open then, if it is not the data that was known.
    async fn resync(&self, place: usize) -> Result<Option<DataPoint>, Stop> {
        let later = |why: &dyn std::fmt::Display| Stop::Later(why.to_string());
        let client = self.core().client(place);
        if let Some(why) = self.stale_log() {
            return Err(later(&why));
        }
        if self.core().is_greeting() {
            return Err(later(&"not all participants were asked whether this is the newest log"));
        }
        let client = client.ok_or_else(|| later(&"the participant is not registered"))?;
        let found = client.data().await.map_err(|error| later(&error))?;
        if let Some(open) = self.core().data_found(place, &found) {
            return Ok(open);
        }
        self.give_up_undecided(place).await;
        self.sync_what_is_told(place).await?;
        let engine = self.clone();
        let data = found.clone();
        let planned = tokio::task::spawn_blocking(move || engine.plan(place, &data)).await;
        let (seen, redo) =
            planned.map_err(|error| later(&error))?.map_err(|error| later(&error))?;
        let redo = redo.map_err(Stop::Loss)?;
        let known = seen.known.map(|known| known.seq);
        tracing::warn!(
            participant = %self.core().lanes()[place].name, branches = redo.len(),
            found = found.seq, known,
            "a participant lost data; the log's commits there are reported to it");
        self.say(&client, place, &found, seen, redo).await
    }

    /// Ready when nothing is undecided there any more.
    async fn give_up_undecided(&self, place: usize) {
        loop {
            let mut progress = {
                let mut core = self.core();
                if !core.give_up_undecided(place, clock::micros()) {
                    return;
                }
                core.desk().progress()
            };
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
    }

    /// Ready when all is on disk that clients have been told.
    async fn sync_what_is_told(&self, place: usize) -> Result<(), Stop> {
        let durable = {
            let mut core = self.core();
            let done = core.desk_mut().ticket();
            if !core.sync_what_is_told(place, done) {
                return Ok(());
            }
            core.desk_mut().await_done(done)
        };
        durable.await.map_err(|_| Stop::Later("the process is stopping".to_owned()))
    }

    /// Reads the whole log for what the data may lack. Blocks.
    fn plan(&self, place: usize, found: &DataView) -> Result<(Seen, Planned), LogError> {
        let log = self.log();
        let participant = self.core().lanes()[place].name.clone();
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
        let data = &core.lanes()[place].data;
        (data.seen, data.is_accepted(found))
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
        let mut parts = parts_of_word(redo).into_iter().peekable();
        let mut part = 0;
        let mut owed = Vec::new();
        let (_, alone) = self.seen(place, found);
        while let Some(redo) = parts.next() {
            let word = {
                let core = self.core();
                Resync {
                    participant: core.lanes()[place].name.clone(),
                    coordinator: core.speaker_in_full(place),
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
            "the participant waits for the report of log {}; if its coordinator is gone for good, \
             accept the loss of what only that log knew",
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
        let durable = {
            let mut core = self.core();
            let (done, now) = (core.desk_mut().ticket(), clock::micros());
            let loss = core.accept_loss(name, actor.clone(), reason.clone(), done, now)?;
            tracing::error!(participant = %name, loss, actor, reason,
                "an operator accepts a loss of data");
            core.desk_mut().await_done(done)
        };
        durable.await.map_err(|_| stopping())?;
        let view = self.participants().into_iter().find(|view| view.name == *name);
        view.ok_or_else(|| Problem::new(ErrorCode::NotFound, format!("no participant {name}")))
    }
}

/// A transaction of a log; the attempt is the record's to say.
const fn first_try(log_id: LogId, number: TxNumber) -> Txid {
    Txid { log_id, number, attempt: Attempt::FIRST }
}
