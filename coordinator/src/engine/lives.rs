//! Which life of the log this is, and whether it may be spoken for: participants tell an old or forked copy of a log from
//! the log (`common`'s `lives`), and a coordinator on such a copy says nothing more to anybody.

use std::sync::{Arc, Weak};

use assent_common::lives::{Life, Lives, Proof};
use assent_common::record::Record;
use assent_common::wire::branch::CoordinatorRef;
use tokio::sync::watch;

use super::core::Core;
use super::journal::Appended;
use super::{Engine, Shared};
use crate::log::Durability;

/// The lives of the log.
pub(super) struct LogLives {
    lives: Lives,
    /// Whether this one is in the log, durably: nobody hears of it before.
    is_durable: watch::Sender<bool>,
    /// Why the log is an old or a forked copy, as a participant said.
    stale: Option<Arc<str>>,
}

/// Whether a participant has heard which life speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not yet tried.
    Due,
    /// Tried without an answer, or to be said again: it is away, and nobody waits for it.
    Tried,
    /// It has answered.
    Heard,
}

impl LogLives {
    pub(super) fn new(lives: Lives) -> Self {
        Self { lives, is_durable: watch::Sender::new(false), stale: None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Life> {
        self.lives.iter()
    }

    pub(super) fn stale(&self) -> Option<&Arc<str>> {
        self.stale.as_ref()
    }
}

impl Core {
    /// Who speaks to a participant: with the lives before this one until it has answered.
    pub(super) fn speaker(&self, place: usize, shared: &Shared) -> CoordinatorRef {
        let identity = shared.identity.clone();
        if self.lanes[place].greeting == Greeting::Heard {
            return identity;
        }
        let before = Some(self.lives.lives.before(self.epoch));
        let life = identity.life.map(|proof| Proof { before, ..proof });
        CoordinatorRef { life, ..identity }
    }

    /// Takes note of what an answer says of the life that spoke.
    pub(super) fn life_heard(&mut self, place: usize, answered: bool, stale: Option<String>) {
        let lane = &mut self.lanes[place];
        lane.greeting = match (answered, lane.greeting) {
            (true, _) => Greeting::Heard,
            (false, Greeting::Due) => Greeting::Tried,
            (false, greeting) => greeting,
        };
        if let Some(why) = stale {
            tracing::error!(participant = %lane.name, why,
                "this decision log is an old or a forked copy: this coordinator says nothing more to anybody; \
                 stop it, and start it on the newest copy (docs/guides/recover.md, `Backup`)");
            self.lives.stale.get_or_insert_with(|| why.into());
        }
    }

    pub(super) fn life_is_durable(&self) {
        self.lives.is_durable.send_replace(true);
    }

    /// Whether no record may be taken for an abort: not of a copy, nor before it can be known that it is none. Who is away
    /// is not waited for.
    pub(super) fn may_presume(&self) -> bool {
        let is_due =
            |lane: &super::lane::Lane| lane.url().is_some() && lane.greeting == Greeting::Due;
        self.lives.stale.is_none() && !self.lanes.iter().any(is_due)
    }
}

impl Engine {
    /// Has the log keep which life this is.
    pub(crate) fn begin_life(&self, life: Life) {
        self.core().append(&Record::LifeBegan(life), Durability::Forced, Appended::Life);
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
    engine.look_at_data(place, false).await;
}
