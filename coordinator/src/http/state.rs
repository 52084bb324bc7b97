//! What the handlers share.

use std::sync::Arc;

use assent_client::Token;
use assent_common::ErrorCode;
use assent_edge::{Budget, Descriptors, EdgeOptions};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::reply::Rejection;
use crate::engine::Engine;
use crate::interactive::InteractiveDoor;

/// Requests that wait for a transaction to change (long polls and event streams) at a time; more
/// are told `overloaded`. Each holds a connection and a task for as long as its client likes.
const WATCHERS_MAX: usize = 10_000;

/// The same, of a listener with so many connections: the other half is for those who want something
/// at once.
const fn watchers_max(connections_max: usize) -> usize {
    let half = connections_max.div_ceil(2);
    if half < WATCHERS_MAX { half } else { WATCHERS_MAX }
}

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) engine: Engine,
    interactive: InteractiveDoor,
    pub(super) api_token: Option<Token>,
    pub(super) admin_token: Option<Token>,
    pub(super) metrics: Option<PrometheusHandle>,
    /// Becomes true when the servers close: whoever waits on purpose stops waiting.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) watchers: Arc<Semaphore>,
    pub(super) watchers_max: usize,
    /// The memory that requests may hold, on both listeners.
    pub(super) budget: Budget,
}

impl HttpState {
    /// The tokens are those of the public and of the admin listener.
    pub(crate) fn new(
        engine: Engine,
        [api_token, admin_token]: [Option<Token>; 2],
        metrics: Option<PrometheusHandle>,
        edge: &EdgeOptions,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let watchers_max = watchers_max(Descriptors::of_process(edge.connections_max).public);
        let shared = Shared {
            interactive: InteractiveDoor::new(engine.clone()),
            engine,
            api_token,
            admin_token,
            metrics,
            stopped,
            watchers: Arc::new(Semaphore::new(watchers_max)),
            watchers_max,
            budget: Budget::new(edge.request_bytes_max),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(super) fn interactive(&self) -> &InteractiveDoor {
        &self.shared.interactive
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// The right to wait for a transaction to change, while the permit is held.
    pub(super) fn watch(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.shared.watchers).try_acquire_owned().map_err(|_| {
            let most = self.shared.watchers_max;
            let detail = format!("{most} requests wait for changes; poll without waiting");
            Rejection::new(ErrorCode::Overloaded, detail)
        })
    }
}
