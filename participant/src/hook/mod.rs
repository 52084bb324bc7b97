//! The service's own word in the vote: a hook that is asked about each branch that has an `input`.
//!
//! ```text
//! agent ── ask ──► Hooks ── in its time, again if unclear ──► InProcess (Hook) or Remote (HTTP)
//!   ▲                                                           │ read: evaluated, not locked
//!   └── the branch: digests, the client's ops, the hook's ◄─────┘ stage, reply, or veto
//! ```
//!
//! What comes of it is `assent_common::hook`'s to say, for both kinds of hooks and for the
//! simulator. Nothing is locked while a hook is asked.

mod asking;
mod remote;
mod stage;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use assent_client::Unknown;
use assent_client::hook::ask_hook;
use assent_common::wire::hook::HookReply;
use serde_json::value::RawValue;

pub use assent_client::hook::{Hook, HookCall, HookError, HookStage};

pub(crate) use asking::{HookedBranch, Hooks};
pub use remote::RemoteHook;

/// What a hook of either kind comes to.
pub(crate) type HookFuture<'a> =
    Pin<Box<dyn Future<Output = Result<HookReply, HookError>> + Send + 'a>>;

/// Whether a hook can be asked.
pub(crate) type ReachFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Unknown>> + Send + 'a>>;

/// A hook of either kind.
pub(crate) trait AnyHook: Send + Sync {
    /// Asks it once.
    fn ask<'a>(
        &'a self,
        call: &'a HookCall,
        input: &'a RawValue,
        stage: &'a mut HookStage<'_>,
    ) -> HookFuture<'a>;

    /// Where it is, for people.
    fn place(&self) -> &str;

    /// Whether it can be asked; else why not.
    fn reach(&self) -> ReachFuture<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The hook of a participant.
#[derive(Clone)]
pub struct HookDoor(Arc<dyn AnyHook>);

impl HookDoor {
    /// A hook that is part of this process.
    pub fn new(hook: impl Hook) -> Self {
        Self(Arc::new(InProcess(hook)))
    }
}

impl From<RemoteHook> for HookDoor {
    fn from(hook: RemoteHook) -> Self {
        Self(Arc::new(hook))
    }
}

impl fmt::Debug for HookDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookDoor({})", self.0.place())
    }
}

/// A hook of this process.
struct InProcess<H>(H);

impl<H: Hook> AnyHook for InProcess<H> {
    fn ask<'a>(
        &'a self,
        call: &'a HookCall,
        input: &'a RawValue,
        stage: &'a mut HookStage<'_>,
    ) -> HookFuture<'a> {
        Box::pin(ask_hook(&self.0, call, input, stage))
    }

    fn place(&self) -> &'static str {
        "in this process"
    }
}
