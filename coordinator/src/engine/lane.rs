//! A lane's task: the way to one participant. Messages queue in the core while a batch is in flight
//! and go out together when it returns, so that batches grow with load and a quiet system waits for
//! nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use assent_client::crash;
use assent_client::participant::ParticipantClient;
use assent_common::branch::BranchMessage;
use assent_common::crash::CrashPoint;
use assent_common::ids::TxNumber;
use assent_engine::{Assembled, BatchCame, Idle};
use tokio::sync::Notify;

use super::lives::{LANE_PATIENCE, greet};
use super::shared::{Engine, Shared};
use super::vital;
use crate::clock;
use crate::metrics;

/// How long a lane is idle before it looks whether the participant's data is what this log knows of
/// it.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// How long a lane waits for decisions after a batch: some syncs of a healthy disk, and not much
/// for whom it delays.
const RIDE_MAX: Duration = Duration::from_millis(1);

/// Runs a lane, from now on.
pub(super) fn start_lane(shared: &Arc<Shared>, place: usize, wake: Arc<Notify>) {
    shared.runtime.spawn(vital(run(Arc::downgrade(shared), place, wake)));
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
        let (assembled, client) = {
            let mut core = engine.core();
            (core.assemble(place, clock::micros()), core.client(place))
        };
        match assembled {
            Ok(assembled) => {
                let (prepared, sent) = (assembled.prepared(), assembled.sent);
                let mut sending = Box::pin(engine.clone().send_batch(place, client, assembled));
                if tokio::time::timeout(LANE_PATIENCE, &mut sending).await.is_err() {
                    engine.core().lane_is_silent(place, sent, clock::micros());
                    tokio::spawn(vital(sending));
                }
                // Late is as good as never: the commits go with the batch after the next one.
                let _ = tokio::time::timeout(RIDE_MAX, engine.decided(&prepared)).await;
            }
            Err(Idle::Until(due)) => {
                drop(engine);
                // Early or late: the queue is looked at again.
                let _ = tokio::time::timeout(clock::until(due), wake.notified()).await;
            }
            Err(Idle::Probe) => {
                engine.core().probe_sent(place);
                engine.look_at_data(place, true).await;
            }
            Err(Idle::Empty) if engine.core().take_awaited(place) => {
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
            let mut progress = {
                let core = self.core();
                if !core.is_any_undecided(numbers) {
                    return;
                }
                core.desk().progress()
            };
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
    }

    async fn send_batch(
        self,
        place: usize,
        client: Option<Arc<ParticipantClient>>,
        assembled: Assembled,
    ) {
        let Assembled { mut batch, outgoing, sent } = assembled;
        if outgoing.iter().any(|outgoing| outgoing.to.message.is_prepare()) {
            crash::point(CrashPoint::BeforePrepareSent);
        }
        metrics::batch_sent(&batch.participant, outgoing.len());
        let (said, life) = self.deliver(place, client.as_deref(), &mut batch).await;
        if said.is_ok()
            && outgoing.iter().any(|outgoing| outgoing.to.message == BranchMessage::Commit)
        {
            crash::point(CrashPoint::BetweenCommits);
        }
        let came = BatchCame { outgoing, sent, known: batch.known, said, life };
        self.core().batch_came(place, came, clock::micros());
    }
}
