//! Which life of the log this is, and whether it may be spoken for: participants tell an old or
//! forked copy of a log from the log (`common`'s `lives`), and a coordinator on such a copy says
//! nothing more to anybody.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use assent_client::participant::ParticipantClient;
use assent_common::coordinator::Input;
use assent_common::lives::{LifeBegan, Lives, PastLife, Proof};
use assent_common::outcome::{Call, Refusal};
use assent_common::record::Record;
use assent_common::wire::branch::{Answers, Batch, CoordinatorRef, LifeAnswer};
use assent_common::{Epoch, ErrorCode, TxNumber};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::Core;
use super::journal::Appended;
use super::lane::{LANE_PATIENCE, Lane, Sent};
use super::{Engine, Shared};
use crate::clock;
use crate::log::{Durability, LogPosition};

/// The lives of the log.
pub(super) struct LogLives {
    lives: Lives,
    /// How far the log is on disk.
    position: u64,
    /// Whether this life is in the log, durably: nobody hears of it before.
    is_durable: watch::Sender<bool>,
    /// Why the log is an old or a forked copy, as a participant said.
    stale: Option<Arc<str>>,
}

/// Whether a participant has heard which life speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not yet tried.
    Due,
    /// Tried, or to be said again. Who is away is not waited for; who has answered remembers it
    /// with the first message.
    Tried,
    /// It remembers it.
    Heard,
}

/// What an answer, or that there was none, says of the life that spoke.
#[derive(Debug, Clone)]
pub(super) enum LifeHeard {
    Nothing,
    Said {
        life: Option<LifeAnswer>,
        /// Whether there was something to do.
        is_work: bool,
    },
    Stale(String),
}

impl LifeHeard {
    pub(super) fn of<E>(said: &Result<Answers, E>) -> Self {
        match said {
            Err(_) => Self::Nothing,
            Ok(Answers { stale_log: Some(why), .. }) => Self::Stale(why.clone()),
            Ok(Answers { life, answers, .. }) => {
                Self::Said { life: *life, is_work: !answers.is_empty() }
            }
        }
    }

    /// Whether nothing was done because the lives before this one were not said, or not the one
    /// that is known there.
    pub(super) const fn is_unproven(&self) -> bool {
        matches!(self, Self::Said { life: Some(LifeAnswer::Unproven { .. }), .. })
    }
}

impl LogLives {
    pub(super) fn new(lives: Lives) -> Self {
        // What was replayed is on disk.
        let position = lives.iter().last().and_then(|began| began.at).unwrap_or(0);
        Self { lives, position, is_durable: watch::Sender::new(false), stale: None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = LifeBegan> {
        self.lives.iter()
    }

    pub(super) fn stale(&self) -> Option<&Arc<str>> {
        self.stale.as_ref()
    }

    pub(super) fn is_on_disk(&mut self, position: Option<LogPosition>) {
        self.position = self.position.max(position.map_or(0, |position| position.0));
    }
}

impl Lane {
    /// Somebody waits for it to hear which life speaks.
    pub(super) fn await_greeting(&mut self) {
        if self.greeting != Greeting::Due {
            self.is_awaited = true;
            self.wake.notify_one();
        }
    }
}

impl Core {
    /// Who speaks to a participant: with the lives before this one until it has answered.
    pub(super) fn speaker(&self, place: usize, shared: &Shared) -> CoordinatorRef {
        if self.lanes[place].greeting == Greeting::Heard {
            return self.speaker_after(None, shared);
        }
        self.speaker_in_full(place, shared)
    }

    /// The same, always with the lives before this one.
    pub(super) fn speaker_in_full(&self, place: usize, shared: &Shared) -> CoordinatorRef {
        self.speaker_with_lives(self.lanes[place].asked_for, shared)
    }

    /// Who asks a branch beside the lanes: its participant may not have heard of this life yet.
    pub(super) fn speaker_to_anybody(&self, shared: &Shared) -> CoordinatorRef {
        let asked_for = self.lanes.iter().filter_map(|lane| lane.asked_for).min();
        self.speaker_with_lives(asked_for, shared)
    }

    fn speaker_with_lives(&self, asked_for: Option<Epoch>, shared: &Shared) -> CoordinatorRef {
        self.speaker_after(Some(self.lives.lives.before(self.epoch, asked_for)), shared)
    }

    fn speaker_after(&self, before: Option<Vec<PastLife>>, shared: &Shared) -> CoordinatorRef {
        let identity = shared.identity.clone();
        let position = self.lives.position;
        let life = identity.life.map(|proof| Proof { position, before, ..proof });
        CoordinatorRef { life, ..identity }
    }

    /// Takes note of what an answer says of the life that spoke.
    pub(super) fn life_heard(&mut self, place: usize, heard: LifeHeard, shared: &Shared) {
        // Who waits for it looks again.
        self.progress.send_modify(|n| *n += 1);
        let lane = &mut self.lanes[place];
        let stale = match heard {
            LifeHeard::Said { life: None | Some(LifeAnswer::Admitted), is_work } => {
                if is_work {
                    lane.greeting = Greeting::Heard;
                } else if lane.greeting == Greeting::Due {
                    lane.greeting = Greeting::Tried;
                }
                if !std::mem::replace(&mut lane.is_met, true) {
                    let unmet = self.lanes.iter().any(|lane| lane.url().is_some() && !lane.is_met);
                    shared.unmet.store(unmet, Ordering::Release);
                }
                return;
            }
            LifeHeard::Nothing | LifeHeard::Said { life: Some(LifeAnswer::NotCompared), .. } => {
                if lane.greeting == Greeting::Due {
                    lane.greeting = Greeting::Tried;
                }
                lane.greeted_in_vain += 1;
                return;
            }
            LifeHeard::Said { life: Some(LifeAnswer::Unproven { epoch: asked_for }), .. } => {
                (lane.greeting, lane.asked_for) = (Greeting::Tried, asked_for);
                lane.greeted_in_vain += 1;
                let Some(epoch) = asked_for.filter(|epoch| !self.lives.lives.has(*epoch)) else {
                    return;
                };
                format!("it remembers life {epoch} of this log, of which the log knows nothing")
            }
            LifeHeard::Stale(why) => why,
        };
        let lane = &self.lanes[place];
        tracing::error!(participant = %lane.name, why = stale,
            "this decision log is an old or a forked copy: this coordinator says nothing more to anybody; \
             stop it, and start it on the newest copy (docs/guides/recover.md, `Backup`)");
        self.lives.stale.get_or_insert_with(|| stale.into());
    }

    /// A prepare beside the batches was refused because its life was not proven: it is not known
    /// what comes of it, and the life is said again.
    pub(super) fn unproven_at(&mut self, place: usize, inputs: &mut [(TxNumber, Input)]) {
        for (_, input) in inputs {
            let Input::Prepared { call, .. } = input else { continue };
            if matches!(call, Call::Refused(Refusal { code: ErrorCode::UnprovenLife, .. })) {
                *call = Call::Unknown("it does not know this life of the log".to_owned());
                self.lanes[place].greeting = Greeting::Tried;
            }
        }
    }

    pub(super) fn life_is_durable(&self) {
        self.lives.is_durable.send_replace(true);
    }

    /// Whether no record may be taken for an abort: not of a copy, nor before it can be known that
    /// it is none. Who is away is not waited for.
    pub(super) fn may_presume(&self) -> bool {
        self.lives.stale.is_none() && !self.is_greeting()
    }

    /// Whether a participant is registered to which nothing was said yet.
    pub(super) fn is_greeting(&self) -> bool {
        let is_due = |lane: &Lane| lane.url().is_some() && lane.greeting == Greeting::Due;
        self.lanes.iter().any(is_due)
    }
}

impl Engine {
    /// Has the log keep which life this is.
    pub(crate) fn begin_life(&self, began: LifeBegan) {
        self.core().append(&Record::LifeBegan(began), Durability::Forced, Appended::Life);
    }

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
                None => Err(format!("participant {} is not registered", batch.participant)),
            };
            let life = LifeHeard::of(&said);
            if !life.is_unproven() {
                return (said, life);
            }
            let mut core = self.core();
            core.life_heard(place, life, &self.shared);
            batch.coordinator = core.speaker_in_full(place, &self.shared);
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
            core.lane_is_silent(place, sent);
            core.life_heard(place, LifeHeard::Nothing, &self.shared);
        }
    }

    /// Why the log is an old or a forked copy, if a participant has said so.
    #[must_use]
    pub fn stale_log(&self) -> Option<Arc<str>> {
        self.core().lives.stale().cloned()
    }
}

/// Says to a participant which life speaks, before anything else, and not before that is durable.
pub(super) async fn greet(shared: &Weak<Shared>, place: usize) {
    let Some(engine) = shared.upgrade().map(|shared| Engine { shared }) else { return };
    let mut durable = engine.core().lives.is_durable.subscribe();
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
            core.progress.subscribe()
        };
        if tokio::time::timeout_at(give_up_at, progress.changed()).await.is_err() {
            return;
        }
    }
}
