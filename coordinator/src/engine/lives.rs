//! Saying which life of the log speaks: before anything else, with every batch, and again to
//! whoever asks for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use assent_client::participant::ParticipantClient;
use assent_common::wire::branch::{Answers, Batch};
use assent_engine::{LANE_PATIENCE_MS, LifeHeard, Sent, not_registered};
use serde::Serialize;
use tokio::time::Instant;

use super::shared::{Engine, Shared};
use crate::clock;

/// How long a lane waits for what it has sent.
pub(super) const LANE_PATIENCE: Duration = Duration::from_millis(LANE_PATIENCE_MS);

impl Engine {
    /// Sends a batch, and a second time with the lives before this one if those are asked for:
    /// nothing of it was done then.
    pub(super) async fn deliver<Ops: Serialize>(
        &self,
        place: usize,
        client: Option<&ParticipantClient>,
        batch: &mut Batch<Ops>,
    ) -> (Result<Answers, String>, LifeHeard) {
        for _ in 0..2 {
            let said = match client {
                _ if self.stale_log().is_some() => {
                    Err("this log is an old or forked copy".to_owned())
                }
                Some(client) => client.batch(batch).await.map_err(|unknown| unknown.0),
                None => Err(not_registered(&batch.participant)),
            };
            let life = LifeHeard::of(&said);
            if !life.is_unproven() {
                return (said, life);
            }
            let mut core = self.core();
            core.life_heard(place, life);
            batch.coordinator = core.speaker_in_full(place);
        }
        (Err("it does not know this life of the log".to_owned()), LifeHeard::Nothing)
    }

    /// Says again which life speaks, for somebody who waits for it. What comes to be sent waits for
    /// that, not for long.
    pub(super) async fn greet_again(&self, place: usize) {
        let sent = Sent { at: clock::now(), is_probe: false };
        let look = self.look_at_data(place, false);
        if tokio::time::timeout(LANE_PATIENCE, look).await.is_err() {
            let mut core = self.core();
            core.lane_is_silent(place, sent, clock::micros());
            core.life_heard(place, LifeHeard::Nothing);
        }
    }

    /// Why the log is an old or a forked copy, if a participant has said so.
    #[must_use]
    pub fn stale_log(&self) -> Option<Arc<str>> {
        self.core().stale().cloned()
    }
}

/// Says to a participant which life speaks, before anything else, and not before that is durable.
pub(super) async fn greet(shared: &Weak<Shared>, place: usize) {
    let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
    let mut durable = engine.core().desk().life();
    drop(engine);
    // The sender goes with the engine.
    let _ = durable.wait_for(|durable| *durable).await;
    let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
    engine.greet_again(place).await;
    // What one of them says of a copy keeps it from all of them. Who hangs is not waited for.
    let give_up_at = Instant::now() + LANE_PATIENCE;
    loop {
        let mut progress = {
            let core = engine.core();
            if !core.is_greeting() {
                return;
            }
            core.desk().progress()
        };
        if tokio::time::timeout_at(give_up_at, progress.changed()).await.is_err() {
            return;
        }
    }
}
