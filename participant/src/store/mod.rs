//! The service's own Redis: staging, locks, markers. Everything that this crate knows of Redis is
//! here and in `lua/`.
//!
//! ```text
//! execute(messages) ── commits, aborts, then prepares, in rounds ── look, step, keep (owner/)
//!        answers    ◄───────────────────────────────────────────────────────┘
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
mod by_hand;
mod call;
mod connection;
mod control;
mod decode;
mod error;
mod evaluate;
mod examine;
mod execute;
mod fence;
mod inspect;
pub mod kind;
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
mod scripts;
mod sorted;
mod standby;
mod unlogged;
mod whole;
mod work;
mod writable;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use assent_common::ids::{LogId, TransactionId, Txid};
use assent_common::lives::Remembered;
use assent_common::outcome::Refusal;
use assent_common::participant::{Branches, Reports, Unlogged};
use assent_common::wire::branch::Mode;
use assent_common::wire::resync::Served;

pub use assent_common::command::ValidatedBranch;
pub use control::{ByHand, kept_keys};
pub use error::StoreError;
pub use evaluate::evaluate;
pub use examine::{Examination, examine};
pub use inspect::{InDoubt, StoreFacts, StoredBranch};
pub use lives::{NotAdmitted, Says};
pub use options::{AgentAddress, StoreOptions};
pub use owner::{Guard, OtherOwner};
pub use packed::{RedoError, decode_redo};

/// How a branch is to be prepared, checked.
#[derive(Debug, Clone)]
pub struct CheckedPrepare {
    /// The public id of its transaction, which is its age.
    pub id: TransactionId,
    /// Whether a decision follows.
    pub mode: Mode,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
    /// The ops.
    pub branch: ValidatedBranch,
    /// The no to it if nothing is kept of it yet; what is kept answers for itself.
    pub if_new: Option<Box<Refusal>>,
}

/// Whether the store can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// The connection is up, and the data is that of this agent's start.
    Ready,
    /// There is no connection; the next call tries again.
    Disconnected(String),
    /// Redis has started anew, and what it has loaded is not verified yet: nothing is voted
    /// meanwhile.
    Verifying(String),
    /// The data is not what it should be (invariant 12): everything is refused until it is
    /// resynchronised.
    Quarantined(String),
}

/// The Redis of one service, as one agent uses it.
#[derive(Debug)]
pub struct Store {
    options: StoreOptions,
    /// The incarnation of the data that this agent resynchronised with last.
    incarnation: AtomicU64,
    /// The key that says which agent has the Redis for itself.
    owner_key: String,
    /// This agent, among those of the participant.
    agent: String,
    link: connection::Link,
    scripts: scripts::Scripts,
    quarantine: RwLock<Option<String>>,
    /// The highest vote number that this agent has seen: lower on a reconnect means that votes were
    /// lost.
    seq_seen: AtomicU64,
    /// The highest count of ended branches that this agent has seen.
    ended_seen: AtomicU64,
    /// Which look at the data this is; see `DataView`.
    view: AtomicU64,
    markers: Mutex<markers::Markers>,
    /// What one phase came to, until its log has it: the done-markers, as they are in the data.
    unlogged: Mutex<Unlogged<Arc<[u8]>>>,
    /// What this agent remembers of the lives of each log that it has heard.
    lives: Mutex<HashMap<LogId, Remembered>>,
    /// Logs that say no life, and of which none was known when they were first heard here.
    nameless: Mutex<HashSet<LogId>>,
    file_off_in: connection::FileOffIn,
    /// The logs of which a copy was refused since they were last heard themselves, and why.
    stale: Mutex<BTreeMap<LogId, String>>,
    has_stale: AtomicBool,
    /// The logs whose word the repair took that opened the data of this incarnation.
    served: Mutex<Option<(u64, Vec<Served>)>>,
    /// What logs have said of the data while it is fenced.
    words: tokio::sync::Mutex<Reports>,
    /// What operators decided by hand, as the last scan found it.
    by_hand: Mutex<BTreeMap<Txid, ByHand>>,
    /// Whether Redis takes writes, as the last pulse saw.
    writes: writable::Writes,
}

impl Store {
    /// The incarnation of the data that this agent resynchronised with last.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The options that the store was opened with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    fn owner_key(&self) -> &str {
        &self.owner_key
    }

    /// The key that an owner changes each second that the server does not list.
    fn pulse_key(&self) -> String {
        format!("{}:pulse", self.options.control_key)
    }

    fn is_quarantined(&self) -> Option<String> {
        self.quarantine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn quarantine(&self, reason: String) {
        self.quarantine_of(self.incarnation(), reason);
    }

    /// The same, if this agent still goes on with that data: what was found wrong with it may be
    /// repaired by now.
    fn quarantine_of(&self, incarnation: u64, reason: String) -> bool {
        let mut quarantine = self.quarantine.write().unwrap_or_else(PoisonError::into_inner);
        let is_of_now = self.incarnation() == incarnation;
        if is_of_now && quarantine.is_none() {
            tracing::error!(reason, "quarantined: the data in Redis is not what this agent knew");
            *quarantine = Some(reason);
        }
        is_of_now
    }
}

/// The data behind these locks is valid between any two statements, so a panic elsewhere does not
/// spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
