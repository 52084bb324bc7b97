//! The service's own Redis: staging, locks, markers. Everything that this crate knows of Redis is
//! here and in `lua/`.
//!
//! ```text
//! execute(messages) ── commits, aborts, then prepares, in rounds ── look, step, keep (owner/)
//!        answers    ◄───────────────────────────────────────────────────────┘
//! ```
//!
//! From below to above; no file uses one that stands behind it:
//!
//! ```text
//! said, control/, work, call, decode   words: of Redis, the control hash, a batch, the scripts
//! scripts, connection                  the few operations by which all that follows reaches Redis
//! data, fence, unlogged                which data it is
//! whole, replicas, writable, refusals  what speaks against its use
//! owner/                               what the agent does that owns the Redis
//! lives, link, standby, pulse          whose word counts, the connection, and who owns the Redis
//! in_doubt, repair, Store              what the agent uses: execute, inspect, evaluate
//! ```
//!
//! **One agent owns the Redis**, and runs the protocol's machine (`owner/`); the others stand by
//! (`standby.rs`). Lua says what the ops of a branch come to, and writes what an `EXEC` cannot; it
//! knows nothing of the protocol. What else is kept in memory (the queue of markers) is a shortcut,
//! and is rebuilt or done without.
//!
//! It must never report an unclear result as a definite one: a call whose reply did not come is
//! *unknown*, for exactly the messages that it carried.

mod address;
mod call;
mod connection;
mod control;
mod data;
mod decode;
mod error;
mod evaluate;
mod examine;
mod execute;
mod fence;
mod in_doubt;
mod inspect;
pub mod kind;
mod link;
mod lives;
mod markers;
mod mutants;
mod options;
mod owner;
mod packed;
mod pulse;
mod refusals;
mod repair;
mod replicas;
pub mod requirements;
pub mod rights;
mod said;
mod scripts;
mod standby;
mod unlogged;
mod whole;
mod work;
mod writable;

use std::collections::BTreeMap;
use std::sync::Mutex;

use assent_common::code::ErrorCode;
use assent_common::ids::{LogId, Txid};
use assent_common::outcome::Refusal;
use assent_common::participant::{Heard, Known, Meeting};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::resync::{DataPoint, DataView, Progress, Resync, Resynced};

use self::control::Field;
use self::data::identity;
use self::fence::{fence, not_as_known};
use self::lives::LivesInRedis;
use self::repair::Repairs;
use crate::mutex::lock;

pub use assent_common::command::ValidatedBranch;
pub use control::{ByHand, kept_keys};
pub(crate) use data::new_incarnation;
pub use error::StoreError;
pub use evaluate::evaluate;
pub use examine::{Examination, examine};
pub use in_doubt::InDoubt;
pub use inspect::{StoreFacts, StoredBranch};
pub use link::{Link, StoreState};
pub(crate) use lives::{KnownLives, LifeChange, LifeStore, StoredLife, Swapped};
pub use lives::{NotAdmitted, Says};
pub(crate) use options::place_of_url;
pub use options::{AgentAddress, StoreOptions};
pub use owner::{Guard, OtherOwner};
pub use packed::{RedoError, decode_redo};
pub use work::{CheckedPrepare, Hooked};

/// The Redis of one service, as one agent uses it.
#[derive(Debug)]
pub struct Store {
    link: Link,
    repairs: Repairs,
    /// What operators decided by hand, as the last scan found it.
    by_hand: Mutex<BTreeMap<Txid, ByHand>>,
}

impl Store {
    /// Connects, checks the settings of Redis, and reads or makes the incarnation of its data.
    pub async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let link = Link::connect(options).await?;
        Ok(Self { link, repairs: Repairs::default(), by_hand: Mutex::default() })
    }

    /// The connection, and who owns the Redis.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The options that the store was opened with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.link.memory.options
    }

    /// The incarnation of the data that this agent resynchronised with last.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.link.data.incarnation()
    }

    /// How many branches have ended in the data, as far as this agent has seen.
    pub fn progress(&self) -> Option<Progress> {
        self.link.data.progress()
    }

    /// What the data is now.
    pub async fn data(&self) -> Result<DataView, StoreError> {
        self.repairs.data(&self.link).await
    }

    /// Takes a part of what a log says; with the last part of the last log that is owed, repairs
    /// and opens the data.
    pub async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        self.repairs.resync(&self.link, part).await
    }

    /// The logs of which a copy was refused since they were last heard themselves, and why.
    #[must_use]
    pub fn stale_logs(&self) -> BTreeMap<LogId, String> {
        self.link.lives.stale_logs()
    }

    /// Why this life of a coordinator may not speak here; `None` if it may.
    pub async fn admit_life(
        &self,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Option<NotAdmitted> {
        let Link { lives, data, .. } = &self.link;
        if let Some(known) = lives.admit_at_once(coordinator, says) {
            return known;
        }
        let admitted = match self.link.live().await {
            Ok(live) => {
                let store = LivesInRedis { connection: &live.connection, data };
                lives.admit(&store, coordinator, says).await
            }
            Err(error) => Err(error),
        };
        admitted.unwrap_or_else(|error| Some(NotAdmitted::not_compared(&error)))
    }

    /// Why nothing may be done for a coordinator that knows this of the data; `None` if it may.
    pub async fn admit(
        &self,
        log_id: LogId,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Option<Refusal> {
        let own = self.link.data.own();
        if !own.is_quarantined && own.has_all_of(known, progress) {
            return None;
        }
        match self.look_again(log_id, known, progress).await {
            Ok(None) => None,
            Ok(Some(reason)) => Some(Refusal::new(ErrorCode::Quarantined, reason)),
            Err(error) => Some(error.refusal()),
        }
    }

    /// Whether a log that knows this of the data knows something else than this agent does. Nobody
    /// else is to be shut out on its word alone.
    #[must_use]
    pub fn is_other_data(&self, known: Option<DataPoint>, progress: Option<Progress>) -> bool {
        !self.link.data.own().has_all_of(known, progress) && !mutants::believes_strangers()
    }

    /// Whether a log has spoken here, as far as the data and this agent know.
    pub async fn has_spoken(&self, log_id: LogId) -> Result<bool, StoreError> {
        if lock(&self.link.data.markers).heard(log_id).is_some() {
            return Ok(true);
        }
        let live = self.link.live().await?;
        let mut command = redis::cmd("HEXISTS");
        command.arg(live.connection.control_key()).arg(Field::Mark(log_id));
        live.connection.or_unavailable(live.connection.ask(&command).await)
    }

    /// Takes note of a log that speaks here, also where it is refused: its word is owed.
    pub fn heard(&self, log_id: LogId, heard: Heard) {
        self.link.data.raise(log_id, heard);
    }

    /// Compares the data itself with what a coordinator knows of it, and fences it if it is not
    /// that.
    async fn look_again(
        &self,
        log_id: LogId,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Result<Option<String>, StoreError> {
        let data = &self.link.data;
        let live = self.link.live().await?;
        let connection = &live.connection;
        let found = connection.or_unavailable(identity(connection).await)?;
        let told = known.map(|known| Known::told(known, progress));
        let quarantined = data.is_quarantined();
        let waits = || quarantined.clone().unwrap_or_else(|| "the data is fenced".to_owned());
        match data.own().meets(found, told) {
            Meeting::Serves(open) => {
                self.link.went_on(data.goes_on_with(open));
                if known.is_some() {
                    data.saw_ended(open.incarnation, found.ended);
                }
                return Ok(None);
            }
            Meeting::Fenced => {
                data.quarantine(waits());
                return Ok(Some(waits()));
            }
            Meeting::Unlike => {}
        }
        if let Some(known) = known
            && self.data().await?.has_served(log_id, known)
        {
            let why = "the data was repaired meanwhile; the coordinator asks for its present state";
            return Ok(Some(why.to_owned()));
        }
        let as_found = |incarnation| {
            let data = DataPoint { incarnation, seq: found.seq };
            Known { data, ended: 0 }
        };
        let told = told.or_else(|| found.incarnation.map(as_found));
        let not_as_told = || not_as_known(found, told?, "its coordinator knew");
        let reason = quarantined.clone().or_else(not_as_told).unwrap_or_else(waits);
        data.quarantine(reason.clone());
        fence(connection, found.incarnation).await?;
        Ok(Some(reason))
    }
}
