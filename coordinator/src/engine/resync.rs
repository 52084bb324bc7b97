//! Resynchronisation with a participant whose Redis lost data: asks, reads and says what the
//! engine's driver wants (`assent-engine`'s `resync.rs`, which has the order of it all). And the
//! look at the data of a participant to which nothing is said.

use std::sync::Weak;
use std::time::Duration;

use assent_common::outcome::{Call, Failed};
use assent_common::record::Record;
use assent_common::wire::problem::Problem;
use assent_common::wire::resync::{Resync, Resynced};
use assent_common::wire::transaction::ParticipantView;
use assent_common::{ErrorCode, ParticipantName};
use assent_engine::{
    DataReport, LifeHeard, LogReading, ResyncCall, ResyncHeard, Sent, not_registered,
};

use super::shared::{Engine, Shared, stopping};
use crate::clock;
use crate::log::LogError;
use crate::metrics;

/// Does what a resynchronisation wants, without keeping the engine alive while it waits.
pub(super) async fn carry_out(shared: Weak<Shared>, place: usize, call: ResyncCall) {
    if let ResyncCall::Wait(ms) = call {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
    let heard = match call {
        ResyncCall::Wait(_) => ResyncHeard::Due,
        ResyncCall::AskData => {
            let client = engine.core().client(place);
            let shown = match client {
                Some(client) => client.data().await.map_err(|error| error.to_string()),
                None => Err(engine.not_registered(place)),
            };
            ResyncHeard::DataShown(shown.map(Box::new))
        }
        ResyncCall::ReadLog(reading) => {
            let of_log = engine.clone();
            let read = tokio::task::spawn_blocking(move || of_log.read_log(place, *reading)).await;
            let read = read.map_err(|error| error.to_string());
            let read = read.and_then(|read| read.map_err(|error| error.to_string()));
            ResyncHeard::LogRead(read.map(Box::new))
        }
        ResyncCall::Say(word) => ResyncHeard::WordTaken(engine.say(place, &word).await),
    };
    engine.core().resync(place, heard, clock::micros());
}

impl Engine {
    /// A participant was removed while its data was made whole.
    fn not_registered(&self, place: usize) -> String {
        not_registered(&self.core().lanes()[place].name)
    }

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
        let is_asked = self.core().look_came(place, sent, LifeHeard::of(&said), clock::micros());
        if !is_asked {
            return;
        }
        let found = match said {
            Ok(_) => client.data().await,
            Err(unknown) => Err(unknown.into()),
        };
        let found = found.map_or_else(|error| Failed::from(error).into(), Call::Applied);
        self.core().look_found(place, sent, batch.known, found, clock::micros());
    }

    /// Reads the whole log for what data may lack. Blocks.
    fn read_log(&self, place: usize, mut reading: LogReading) -> Result<DataReport, LogError> {
        let log = self.log();
        for segment in log.segments() {
            log.read_segment(segment.number, &mut |_, kind, payload| {
                reading.apply(&Record::decode(kind, payload)?);
                Ok(())
            })?;
        }
        let known = self.core().known_data(place);
        Ok(reading.finish(known))
    }

    async fn say(&self, place: usize, word: &Resync) -> Result<Resynced, String> {
        let client = self.core().client(place);
        let client = client.ok_or_else(|| self.not_registered(place))?;
        let said = client.resync(word).await.map_err(|error| error.to_string())?;
        if said.open.is_some() {
            metrics::branches_redone(&word.participant, said.redone);
        }
        Ok(said)
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
