//! How a participant is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assent_client::{HttpOptions, Token};
use assent_common::limits;
use assent_edge::EdgeOptions;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

use crate::hook::HookDoor;
use crate::postgres::PostgresOptions;
use crate::store::{AgentAddress, StoreOptions};

/// How often histograms are folded, so that they do not grow between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How a participant is set up, the sidecar's and the embedded one's.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name that transactions know it by.
    pub name: String,
    /// The service's Redis.
    pub store: StoreOptions,
    /// The service's PostgreSQL database, in place of a Redis.
    pub postgres: Option<PostgresOptions>,
    /// Milliseconds that a branch may be in doubt before its coordinator is asked.
    pub resolve_interval_ms: u64,
    /// Milliseconds between two collections of marks that are below a low-water mark.
    pub sweep_interval_ms: u64,
    /// The token that requests must carry, health probes excepted.
    pub token: Option<Token>,
    /// Base URLs of the coordinators that are asked for outcomes. Needed where they have a token; without one, and without
    /// this list, the coordinator is asked that a message names.
    pub coordinators: Vec<String>,
    /// Base URLs of participants that are asked about branches of implicit transactions. Without this list, and without a
    /// token, those are asked that a message names.
    pub peers: Vec<String>,
    /// How coordinators are asked; its token is the coordinator's.
    pub http: HttpOptions,
    /// Where the other agents of the same Redis reach this one's API; without it they cannot pass
    /// anything on to it, so that it owns the Redis only while no other agent is there.
    pub address: Option<AgentAddress>,
    /// Where the admin router is served, if it is: said in the version, so that operators' commands find it.
    pub admin_listen: Option<std::net::SocketAddr>,
    /// Bytes of requests that are held at a time; more are told `overloaded`.
    pub request_bytes_max: usize,
    /// What decides about branches that have an `input`, if something does.
    pub hook: Option<HookDoor>,
    /// Milliseconds that it may take for one branch, what it reads included.
    pub hook_timeout_ms: u64,
    /// What `/metrics` shows; a host application that has its own endpoint leaves it out.
    pub metrics_text: Option<MetricsText>,
}

impl Options {
    /// The options for this name and Redis that one would choose.
    pub fn new(name: impl Into<String>, redis_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            store: StoreOptions::new(redis_url),
            postgres: None,
            resolve_interval_ms: 2_000,
            sweep_interval_ms: 10_000,
            token: None,
            coordinators: Vec::new(),
            peers: Vec::new(),
            http: HttpOptions::default(),
            address: None,
            admin_listen: None,
            request_bytes_max: EdgeOptions::default().request_bytes_max,
            hook: None,
            hook_timeout_ms: limits::HOOK_TIMEOUT_DEFAULT_MS,
            metrics_text: None,
        }
    }
}

/// Where `/metrics` gets its text from: the recorder that the process's `main` installed.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> String + Send + Sync>);

impl MetricsText {
    /// Calls this for the text.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }

    /// Installs a recorder of metrics for the whole process, and shows what it has: for a service
    /// that has none of its own. To be called once, in a runtime of tokio.
    pub fn install() -> Result<Self, BuildError> {
        let builder = crate::metrics::configure(PrometheusBuilder::new())?;
        let recorder = builder.install_recorder()?;
        let upkeep = recorder.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self::new(move || recorder.render()))
    }

    pub(crate) fn render(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsText(…)")
    }
}
