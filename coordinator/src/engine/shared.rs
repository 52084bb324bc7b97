//! The engine, and what its tasks share: the core and the desk under one lock.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use assent_client::participant::ParticipantClient;
use assent_client::transport::Http;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, TransactionId};
use assent_engine::{Core, problem_of};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::desk::Desk;
use crate::log::LogHandle;

/// The coordinator's engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) held: Mutex<Guarded>,
    pub(super) log: LogHandle,
    /// Who we are, in every batch.
    pub(super) identity: CoordinatorRef,
    /// The connections to participants.
    pub(super) http: Http,
    /// Where lanes run; steps also come from the log's thread, which is none of the runtime's.
    pub(super) runtime: Handle,
    /// Wakes the timer task when an earlier moment than it sleeps to was armed.
    pub(super) timer: Notify,
    /// Whether a registered participant may not have heard yet which life speaks.
    pub(super) unmet: AtomicBool,
}

/// What is under the one lock.
pub(super) struct Guarded {
    pub(super) core: Core,
    pub(super) desk: Desk,
}

/// The core, while it is held. When it is let go, what the turn has left to do is done.
pub(super) struct Turn<'a> {
    pub(super) held: MutexGuard<'a, Guarded>,
    pub(super) shared: &'a Arc<Shared>,
}

impl Turn<'_> {
    pub(super) fn desk(&self) -> &Desk {
        &self.held.desk
    }

    pub(super) fn desk_mut(&mut self) -> &mut Desk {
        &mut self.held.desk
    }

    /// The connection to a participant, if it is registered.
    pub(super) fn client(&self, place: usize) -> Option<Arc<ParticipantClient>> {
        let Guarded { core, desk } = &*self.held;
        core.lanes()[place].url()?;
        desk.client(place)
    }
}

impl Deref for Turn<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.held.core
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.held.core
    }
}

pub(super) fn stopping() -> Problem {
    Problem::new(ErrorCode::NotReady, "the process is stopping; the change may not be durable")
}

/// Nothing is known here under this id.
pub(super) fn not_found(id: TransactionId) -> Problem {
    let detail = format!(
        "transaction {id} was not found: it is neither active nor within the retention; its \
         outcome is unknown"
    );
    problem_of(id, ErrorCode::NotFound, detail)
}
