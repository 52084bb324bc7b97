//! Assent's participant: stages a service's writes in the service's own Redis, votes, and applies
//! or drops them.
//!
//! A library first: it mounts into a service's own router. The sidecar is the same library with a
//! `main` ([`serve`]).
//!
//! ```no_run
//! # async fn app() -> Result<(), assent_participant::Error> {
//! use assent_participant::Participant;
//!
//! let participant = Participant::builder("bank-a").redis("redis://127.0.0.1:6379").build().await?;
//! let app: axum::Router = axum::Router::new().nest("/assent", participant.router());
//! // … serve `app`, then:
//! participant.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Several participants of one name may serve one Redis: one owns it, and the others pass on to it
//! what they are told. All that must survive is in that Redis; what an agent keeps in memory only
//! makes it faster. It never ends a branch on its own account:
//! only on the word of the branch's own log, or of an operator.
//!
//! ```text
//! http/ ──> forward ──> agent ──> store/ ──> lua/ at Redis
//!             │           ▲
//!  the owner ◄┘           │
//! resolver ───┘        sweeper, pulse ──> store/
//! ```

mod agent;
mod answers;
mod by_hand;
mod error;
mod forward;
mod health;
pub mod hook;
pub mod http;
mod known;
mod leftovers;
pub mod metrics;
mod mutex;
mod operator;
mod ops;
mod options;
pub mod postgres;
mod reach;
mod resolver;
mod resource;
mod serve;
mod service;
pub mod store;
mod waiters;
mod wire;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use assent_client::{Http, HttpOptions, ParticipantClient};
use assent_common::ParticipantName;
use assent_common::participant::resolver::Resolver;
use assent_edge::Budget;

use crate::agent::{Agent, Running};
use crate::hook::{Hook, HookDoor, Hooks};
use crate::known::Known;
use crate::metrics::{KeptIn, Metrics};
use crate::postgres::Database;
use crate::reach::Reach;
use crate::resource::Resource;
use crate::service::Shared;
use crate::store::{AgentAddress, Store, StoreError, StoreOptions};

pub use assent_client::Token;
pub use error::Error;
pub use options::{MetricsText, Options};
pub use postgres::requirements::page as postgres_page;
pub use postgres::{Isolation, PostgresOptions, examine_postgres};
pub use serve::{Addresses, Exposure, ServeOptions, Serving, serve};

/// The shortest time between two scans for branches in doubt, in milliseconds: a scan reads the
/// whole control hash.
const SCAN_INTERVAL_MIN_MS: u64 = 100;

/// Between two looks at the data that no traffic asks for, in milliseconds: one `HMGET` each.
const PULSE_INTERVAL_MS: u64 = 1_000;

/// A participant that runs: its background tasks go with it.
#[derive(Debug)]
pub struct Participant {
    shared: Arc<Shared>,
    running: watch::Sender<Running>,
    tasks: Vec<JoinHandle<()>>,
}

/// How long an agent that starts waits for a server that will be fit in time: one that loads its
/// file, say.
const START_WAIT_MAX: Duration = Duration::from_secs(120);

/// How long until it looks again.
const START_WAIT_STEP: Duration = Duration::from_millis(500);

/// Connects, and waits for a server that needs nothing but time: whoever supervises the agent need
/// not start it again and again.
async fn connect(options: StoreOptions) -> Result<Store, StoreError> {
    let mut waited = Duration::ZERO;
    loop {
        match Store::connect(options.clone()).await {
            Err(error @ StoreError::NotYet { .. }) if waited < START_WAIT_MAX => {
                if waited.is_zero() {
                    tracing::warn!(%error, "waiting for Redis");
                }
            }
            result => return result,
        }
        tokio::time::sleep(START_WAIT_STEP).await;
        waited += START_WAIT_STEP;
    }
}

/// Opens what this participant keeps its branches in: the database, if there is one.
async fn open(
    name: &ParticipantName,
    store: StoreOptions,
    postgres: Option<PostgresOptions>,
    address: AgentAddress,
) -> Result<Resource, StoreError> {
    let participant = Some(name.clone());
    Ok(match postgres {
        Some(postgres) => {
            let claim = PostgresOptions { participant, ..postgres };
            Resource::Postgres(Box::new(Database::connect(claim).await?))
        }
        None => {
            let claim = StoreOptions { participant, standby: address, ..store };
            Resource::Redis(Arc::new(connect(claim).await?))
        }
    })
}

/// The client of other agents of the same Redis, which have to reach this one by such a client too.
fn to_agents(peers: &HttpOptions, own: Option<&AgentAddress>) -> Result<Http, Error> {
    let agents = Http::new(&HttpOptions { token: None, ..peers.clone() })?;
    if let Some(AgentAddress::Url(url)) = own {
        ParticipantClient::new(&agents, url)?;
    }
    Ok(agents)
}

impl Participant {
    /// Sets up a participant of this name.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder { options: Options::new(name, "redis://127.0.0.1:6379") }
    }

    /// Connects to its Redis, checks the settings there, and starts the background tasks.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let name: ParticipantName = match options.name.parse() {
            Ok(name) => name,
            Err(source) => return Err(Error::Name { name: options.name, source }),
        };
        let coordinators_known =
            Known::coordinators(&options.coordinators, options.http.token.as_ref())?;
        if coordinators_known.is_useless() {
            return Err(Error::NoCoordinators);
        }
        let peers_known = Known::peers(&options.peers, options.token.as_ref())?;
        let http = Http::new(&options.http)?;
        // A coordinator has one token for all its participants, so that this one's own is the
        // others' too.
        let peers = HttpOptions { token: options.token.clone(), ..options.http };
        let agents = to_agents(&peers, options.address.as_ref())?;
        let peers = Http::new(&peers)?;
        if options.postgres.is_some() && options.hook.is_some() {
            return Err(Error::HookWithoutRedis);
        }
        let address = options.address.unwrap_or(AgentAddress::Nowhere);
        let store = open(&name, options.store, options.postgres, address).await?;
        let kept_in = store.redis().map_or(KeptIn::Postgres, |_| KeptIn::Redis);
        let hook = options.hook.zip(store.redis().cloned());
        let store = Arc::new(store);
        metrics::describe(&name);
        let metrics = Metrics::new(&name, kept_in);
        let (running, stopping) = watch::channel(Running::Yes);
        let reach = Arc::new(Reach::default());
        let agent = Agent::new(
            name.clone(),
            Arc::clone(&store),
            metrics.clone(),
            Arc::clone(&reach),
            stopping.clone(),
            Hooks::new(hook, options.hook_timeout_ms, &metrics),
        );
        let shared = Arc::new(Shared {
            name,
            agent,
            store,
            reach,
            http,
            peers,
            agents,
            coordinators_known,
            peers_known,
            metrics,
            token: options.token,
            admin_listen: options.admin_listen,
            metrics_text: options.metrics_text,
            budget: Budget::new(options.request_bytes_max),
            resolver: Mutex::new(Resolver::new(options.resolve_interval_ms)),
            running: stopping.clone(),
            started: Instant::now(),
            asking: Shared::asking(),
            vouched: Mutex::default(),
            scanned: AtomicBool::new(false),
        });
        let scan_interval_ms = (options.resolve_interval_ms / 2).max(SCAN_INTERVAL_MIN_MS);
        let resolver = resolver::run(Arc::clone(&shared), scan_interval_ms, stopping.clone());
        let pulse = pulse(Arc::clone(&shared), stopping.clone());
        let by_hand = operator::compare(Arc::clone(&shared), stopping.clone());
        let sweeper = sweep(Arc::clone(&shared), options.sweep_interval_ms, stopping);
        let tasks = vec![
            tokio::spawn(resolver),
            tokio::spawn(pulse),
            tokio::spawn(by_hand),
            tokio::spawn(sweeper),
        ];
        Ok(Self { shared, running, tasks })
    }

    /// The API for coordinators, to nest into any application.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::public(&self.shared)
    }

    /// The API for operators: for a listener that only they can reach.
    pub fn admin_router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::admin(&self.shared)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ParticipantName {
        &self.shared.name
    }

    /// The settings of Redis under which the durability promise does not hold.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.shared.store.warnings()
    }

    /// Waits for nothing more: prepares that wait for a lock are told of the conflict, `/readyz`
    /// fails.
    pub(crate) fn drain(&self) {
        self.running.send_replace(Running::Stopping);
    }

    /// Stops the background tasks, and returns when they have ended. Branches in doubt stay so:
    /// their outcomes come with the next start, or from another agent.
    pub async fn shutdown(mut self) {
        self.drain();
        for task in std::mem::take(&mut self.tasks) {
            // A task that panicked has ended as well.
            let _ = task.await;
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.drain();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Looks at the data, whether or not anybody asks for it.
async fn pulse(app: Arc<Shared>, mut running: watch::Receiver<Running>) {
    loop {
        tokio::select! {
            _ = running.wait_for(|running| *running == Running::Stopping) => return,
            () = tokio::time::sleep(Duration::from_millis(PULSE_INTERVAL_MS)) => {}
        }
        app.look_at_store().await;
    }
}

/// Collects marks that an agent left behind when it stopped.
async fn sweep(app: Arc<Shared>, interval_ms: u64, mut running: watch::Receiver<Running>) {
    loop {
        tokio::select! {
            _ = running.wait_for(|running| *running == Running::Stopping) => return,
            () = tokio::time::sleep(Duration::from_millis(interval_ms)) => {}
        }
        for collected in [app.store.sweep().await, leftovers::forget(&app).await] {
            match collected {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "marks collected"),
                Err(error) => tracing::warn!(%error, "marks cannot be collected"),
            }
        }
    }
}

/// The examples of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/embed.md")]
mod guide {}

/// Sets up a [`Participant`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    options: Options,
}

impl Builder {
    /// The service's Redis.
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.options.store.url = url.into();
        self
    }

    /// The service's PostgreSQL database, in place of a Redis.
    pub fn postgres(mut self, url: impl Into<String>) -> Self {
        self.options.postgres = Some(PostgresOptions::new(url));
        self
    }

    /// Starts although the settings of Redis would lose votes; repeated in its health and its
    /// version.
    pub fn allow_unsafe_redis(mut self) -> Self {
        self.options.store.allow_unsafe_redis = true;
        self
    }

    /// Milliseconds that a branch may be in doubt before its coordinator is asked.
    pub fn resolve_interval_ms(mut self, ms: u64) -> Self {
        self.options.resolve_interval_ms = ms;
        self
    }

    /// The token that requests must carry.
    pub fn token(mut self, token: Token) -> Self {
        self.options.token = Some(token);
        self
    }

    /// The token that coordinators ask for, and the base URLs of those that get it.
    pub fn coordinator_token(
        mut self,
        token: Token,
        urls: impl IntoIterator<Item = String>,
    ) -> Self {
        self.options.http.token = Some(token);
        self.options.coordinators.extend(urls);
        self
    }

    /// What decides about branches that have an `input`.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.options.hook = Some(HookDoor::new(hook));
        self
    }

    /// Milliseconds that a hook may take for one branch, what it reads included.
    pub fn hook_timeout_ms(mut self, ms: u64) -> Self {
        self.options.hook_timeout_ms = ms;
        self
    }

    /// The base URL at which the other agents of the same Redis reach [`Participant::router`], with
    /// the path that it is mounted at. Needed where the service runs more than once.
    pub fn address(mut self, url: impl Into<String>) -> Self {
        self.options.address = Some(AgentAddress::Url(url.into()));
        self
    }

    /// What `/metrics` shows. Without it the service shows its recorder by itself, or has none.
    pub fn metrics_text(mut self, text: MetricsText) -> Self {
        self.options.metrics_text = Some(text);
        self
    }

    /// Changes any other option.
    pub fn configure(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Connects to its Redis, checks the settings there, and starts.
    pub async fn build(self) -> Result<Participant, Error> {
        Participant::start(self.options).await
    }
}
