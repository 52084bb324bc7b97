//! Ownership: one agent has a Redis for itself. The protocol's machine runs in the agent, and Redis
//! keeps what it says. Several times the capacity of the scripts, because a batch is a look at the
//! data and one `MULTI`/`EXEC`. The other agents of the Redis stand by: they pass on to the owner
//! what they are told, and one of them takes over when the owner is gone.
//!
//! ```text
//!   nobody (no owner key) ── SET owner, WATCH it, read the control hash ──► owner
//!        ▲                                                                    │
//!        └── another agent claims: every EXEC and script of the owner  ◄──────┘
//!                                  fails from there; it stands by
//!
//!   a round:  outcomes, prepares ──► machine ──► MULTI  control fields, writes  EXEC  WATCH owner
//!                         │ what nothing stands in the way of   ▲
//!                         └── MGET, evaluate.lua, GET owner ────┘
//! ```
//!
//! **What keeps it safe.** The owner key is watched from before the control hash is read, and again
//! in the same breath as every `EXEC`; an `EXEC` succeeds only if nobody has touched the key since,
//! so that a take-over, a flush or a full resynchronisation stops the old owner before its next
//! write (invariant 12). The scripts compare the same key. Which of the two is used is therefore a
//! matter of speed only: the fields in the control hash are the same, and whatever goes wrong here
//! (an error, an unclear `EXEC`) ends in forgetting all that is in memory and reading the hash
//! again.
//!
//! **Where Redis refuses some writes and takes others** (no memory, a right that was lost), the
//! owner goes on by scripts ([`WriteWay::Script`]). A machine cannot take a step back, so Redis is
//! asked before each step what of it would be taken.
//!
//! It must never answer before the `EXEC` that keeps the answer, and never write outside of one.

mod apply;
mod ask;
mod by_script;
mod candidates;
mod claim;
mod company;
mod counters;
mod evaluate;
mod exec;
mod guard;
mod intake;
mod look;
mod old_locks;
mod restore;
mod round;
mod sole;

use std::collections::HashMap;
use std::sync::Arc;

use assent_common::LogId;
use assent_common::outcome::{Call, Prepared};
use assent_common::participant::{Heard, Participant};

pub(super) use by_script::looked_at;
pub(super) use claim::{Claims, go_by_script, held, watch_again};
pub use guard::{Guard, OtherOwner};
use old_locks::OldLocks;
pub(super) use sole::Rounds;

/// Who runs the protocol for this connection's life.
#[derive(Debug)]
pub(super) enum Turn {
    /// This agent.
    Sole(Box<Owner>),
    /// Another agent, to which this one passes on what it is told.
    Standby(Arc<OtherOwner>),
    /// Another agent, to which nothing can be passed on; or nobody, because the data is not what
    /// this agent knew.
    Aside,
}

/// What an agent has at stake when it looks who owns the Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stake {
    /// Nothing: it leaves the Redis to an owner that lives.
    Nothing,
    /// It was told something, and can pass it on to nobody.
    Work,
}

/// What is kept of a branch whose prepare comes.
#[derive(Debug)]
enum KeptBranch {
    Nothing,
    /// It is staged, with writes.
    Writes,
    /// It is staged, and only reads.
    Reads,
    /// That answers for it.
    Answer(Call<Prepared>),
}

/// Why the rest of a batch must go another way. What has no answer yet was not done.
#[derive(Debug)]
pub(super) enum Lost {
    /// The ownership, or the connection.
    Ownership(String),
    /// Redis refuses the writes of a round: by scripts it is found out which.
    Refused(String),
}

/// How an owner writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteWay {
    /// By `EXEC`, on a connection that watches the owner key.
    Exec,
    /// By a script that compares the owner key: what its user may not do, or Redis does not take,
    /// is refused for each branch by itself.
    Script,
}

/// What the sole owner knows: all that the control hash holds.
#[derive(Debug)]
pub(super) struct Owner {
    /// The value of the owner key, new for each connection.
    guard: Guard,
    way: WriteWay,
    machine: Participant,
    /// How many branches have ended in this incarnation.
    ended: u64,
    /// What the hash holds of each log; the machine may have heard more.
    stored: HashMap<LogId, Heard>,
    /// How far each log was on disk, as the hash holds it.
    told: HashMap<LogId, u64>,
    short_keys: look::ShortKeys,
    old_locks: OldLocks,
    /// Whether a batch is under way. One that is dropped half-way, because its caller went away,
    /// leaves this behind: the machine has taken steps then that no `EXEC` keeps.
    busy: bool,
}

impl Owner {
    /// Begins a batch; no if one was dropped half-way, so that what is in memory is worth nothing.
    pub(super) fn begin_batch(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// The batch is kept.
    pub(super) fn end_batch(&mut self) {
        self.busy = false;
    }

    /// The value of the owner key.
    pub(super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(super) const fn way(&self) -> WriteWay {
        self.way
    }

    /// Writes by scripts from now on: nothing was refused yet, so that the machine is right.
    pub(super) const fn go_by_script(&mut self) {
        self.way = WriteWay::Script;
    }
}
