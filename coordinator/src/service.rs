//! The running coordinator: binds before it works, recovers, serves, compacts, and drains when told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assent_client::transport::{BuildError, Http, HttpOptions, Token};
use assent_common::ParticipantName;
use assent_edge::{Descriptors, EdgeOptions, HostRule, Listener};
use assent_resp::Routes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::{AdmissionLimits, Engine, vital};
use crate::http::{self, HttpState};
use crate::log::{LogError, LogOptions, SEGMENT_BYTES_DEFAULT};
use crate::recovery::{self, RecoveryReport, Start, StartError};
use crate::resp::EngineDoor;

/// How often the log is looked through for segments that may go.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(30);

/// How a coordinator is set up.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// The directory of the decision log, made by `assent init`.
    pub data_dir: PathBuf,
    /// Where the public API listens.
    pub listen: SocketAddr,
    /// Where the admin API and the metrics listen.
    pub admin_listen: SocketAddr,
    /// The door for Redis clients, if it is open.
    pub resp: Option<RespOptions>,
    /// The base URL of the public API as participants reach it; the listening address if absent.
    pub advertised_url: Option<String>,
    /// Participants of the configuration; they override those registered over the API.
    pub participants: BTreeMap<ParticipantName, String>,
    /// Who may call what.
    pub tokens: Tokens,
    /// Whether an address beyond this machine may be served without tokens.
    pub exposure: Exposure,
    /// How long answers of ended transactions are kept, in milliseconds.
    pub retention_ms: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
    /// How long a batch to a participant may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a connection to a participant may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How patient and how roomy the listeners are.
    pub edge: EdgeOptions,
    /// How much may be under way.
    pub admission: AdmissionLimits,
    /// Renders the metrics, where a recorder is installed.
    pub metrics: Option<PrometheusHandle>,
}

/// The door for Redis clients.
#[derive(Debug, Clone)]
pub struct RespOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// At which participant each key lies.
    pub routes: Routes,
}

/// Bearer tokens; where one is absent, no token is asked for, or sent.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Wanted of clients of the public API.
    pub api: Option<Token>,
    /// Wanted of clients of the admin API.
    pub admin: Option<Token>,
    /// Sent to participants.
    pub participants: Option<Token>,
}

/// Whether an address beyond this machine may be served without tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// No: starting refuses.
    #[default]
    TokensRequired,
    /// Yes: said explicitly by `--insecure`.
    Insecure,
}

impl CoordinatorOptions {
    /// The defaults, with the log in this directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7701)),
            resp: None,
            advertised_url: None,
            participants: BTreeMap::new(),
            tokens: Tokens::default(),
            exposure: Exposure::TokensRequired,
            retention_ms: 24 * 3_600_000,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            request_timeout_ms: 10_000,
            connect_timeout_ms: 1_000,
            edge: EdgeOptions::default(),
            admission: AdmissionLimits::default(),
            metrics: None,
        }
    }
}

/// A coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} ({flag}): {source}; is another coordinator running?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// An address beyond this machine would be served to anybody.
    #[error(
        "{flag} {addr} is reachable from other machines; configure a token for it, or say --insecure"
    )]
    Exposed {
        /// The address.
        addr: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The HTTP client for participants cannot be made.
    #[error(transparent)]
    Client(#[from] BuildError),
    /// The log or the configuration.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A coordinator that serves.
pub struct Running {
    /// Where the public API listens.
    pub addr: SocketAddr,
    /// Where the admin API listens.
    pub admin_addr: SocketAddr,
    /// Where Redis clients are served, if they are.
    pub resp_addr: Option<SocketAddr>,
    /// What recovery found.
    pub recovery: RecoveryReport,
    engine: Engine,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    background: JoinSet<()>,
}

/// The coordinator.
pub struct Coordinator;

impl Coordinator {
    /// Binds, recovers and serves. Returns when both addresses answer.
    pub async fn start(options: CoordinatorOptions) -> Result<Running, ServiceError> {
        let CoordinatorOptions { tokens, exposure, .. } = &options;
        check_exposure(options.listen, "--listen", tokens.api.is_some(), *exposure)?;
        check_exposure(options.admin_listen, "--admin-listen", tokens.admin.is_some(), *exposure)?;
        let public = bind(options.listen, "--listen").await?;
        let admin = bind(options.admin_listen, "--admin-listen").await?;
        let resp = bind_resp(&options).await?;
        let (addr, admin_addr) =
            (local_addr(&public, options.listen), local_addr(&admin, options.admin_listen));
        let http = Http::new(&HttpOptions {
            connect_timeout_ms: options.connect_timeout_ms,
            request_timeout_ms: options.request_timeout_ms,
            token: options.tokens.participants.clone(),
        })?;
        let mut log = LogOptions::new(&options.data_dir);
        log.segment_bytes = options.segment_bytes;
        let url = options.advertised_url.clone().unwrap_or_else(|| format!("http://{addr}"));
        let participants = options.participants.clone();
        let admission = options.admission;
        let (engine, recovery) =
            recovery::start(Start { log, url, http, participants, admission })?;
        let (stop, stopped) = watch::channel(false);
        let tokens = [options.tokens.api.clone(), options.tokens.admin.clone()];
        let (metrics, edge) = (options.metrics.clone(), &options.edge);
        let state = HttpState::new(engine.clone(), tokens, metrics, edge, stopped.clone());
        let mut servers = JoinSet::new();
        let descriptors = Descriptors::of_process(options.edge.connections_max);
        let resp_addr = resp.as_ref().map(|(_, addr)| *addr);
        if let (Some((socket, _)), Some(RespOptions { routes, .. })) = (resp, &options.resp) {
            let connections_max = descriptors.public;
            let listener = Listener { socket, name: "resp", connections_max };
            let service = resp_service(&state, routes.clone(), &options);
            servers.spawn(assent_edge::accept(listener, Arc::new(service), stopped.clone()));
        }
        let surfaces = [http::public_surface(state.clone()), http::admin_surface(state)];
        let listeners = listeners([public, admin], descriptors);
        let hosts = host_rules([addr, admin_addr], &options);
        for ((listener, surface), hosts) in listeners.into_iter().zip(surfaces).zip(hosts) {
            let (edge, stopped) = (options.edge.clone(), stopped.clone());
            let served = async move {
                assent_edge::serve(listener, hosts, &edge, surface, stopped).await;
            };
            servers.spawn(served);
        }
        let mut background = JoinSet::new();
        background.spawn(vital(engine.clone().run_timers()));
        background.spawn(compact_regularly(engine.clone(), options.retention_ms));
        Ok(Running { addr, admin_addr, resp_addr, recovery, engine, stop, servers, background })
    }
}

impl Running {
    /// The engine, for embedding and for tests.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes no new transactions, waits up to the grace time for the active ones that can end, then stops. What is not
    /// finished then goes on after the next start; nothing is rushed. Returns how many transactions that is.
    pub async fn drain(mut self, grace_ms: u64) -> u64 {
        let grace = Duration::from_millis(grace_ms);
        let drained = tokio::time::timeout(grace, self.engine.drain()).await;
        let left: u64 = self.engine.counts().active.values().sum();
        if drained.is_err() {
            tracing::warn!(
                left,
                grace_ms,
                "the grace time is over; what is left goes on after the next start"
            );
        } else if left > 0 {
            tracing::warn!(
                left,
                "what is left waits for participants that do not answer; it goes on after the next start"
            );
        }
        let _nobody_listens = self.stop.send(true);
        // Open connections get a moment to take their answers; idle ones are closed at once.
        let closing = async { while self.servers.join_next().await.is_some() {} };
        let _cut = tokio::time::timeout(Duration::from_secs(1), closing).await;
        self.background.shutdown().await;
        self.servers.shutdown().await;
        let log = self.engine.log().clone();
        let _closed = tokio::task::spawn_blocking(move || log.close()).await;
        left
    }
}

fn check_exposure(
    addr: SocketAddr,
    flag: &'static str,
    has_token: bool,
    exposure: Exposure,
) -> Result<(), ServiceError> {
    let safe = addr.ip().is_loopback() || has_token || exposure == Exposure::Insecure;
    if safe { Ok(()) } else { Err(ServiceError::Exposed { addr, flag }) }
}

async fn bind(addr: SocketAddr, flag: &'static str) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(addr).await.map_err(|source| ServiceError::Bind { addr, flag, source })
}

/// The socket for Redis clients, and its address, if they are served.
async fn bind_resp(
    options: &CoordinatorOptions,
) -> Result<Option<(TcpListener, SocketAddr)>, ServiceError> {
    let Some(RespOptions { listen, .. }) = options.resp else { return Ok(None) };
    let CoordinatorOptions { tokens, exposure, .. } = options;
    check_exposure(listen, "--resp-listen", tokens.api.is_some(), *exposure)?;
    let socket = bind(listen, "--resp-listen").await?;
    let addr = local_addr(&socket, listen);
    Ok(Some((socket, addr)))
}

/// What serves Redis clients. Their password is the token of the public API.
fn resp_service(
    state: &HttpState,
    routes: Routes,
    options: &CoordinatorOptions,
) -> assent_resp::Service<EngineDoor> {
    let token = options.tokens.api.clone();
    let rules = assent_resp::Rules { routes, token, budget: state.budget().clone() };
    assent_resp::Service::new(EngineDoor(state.engine().clone()), rules, &options.edge)
}

/// The listeners, and how many connections each may have.
fn listeners([public, admin]: [TcpListener; 2], descriptors: Descriptors) -> [Listener; 2] {
    let Descriptors { public: public_max, admin: admin_max } = descriptors;
    [
        Listener { socket: public, name: "api", connections_max: public_max },
        Listener { socket: admin, name: "admin", connections_max: admin_max },
    ]
}

/// By which names each listener is addressed.
fn host_rules([public, admin]: [SocketAddr; 2], options: &CoordinatorOptions) -> [HostRule; 2] {
    let CoordinatorOptions { edge, tokens, advertised_url, .. } = options;
    let hosts = |addr, token: &Option<Token>| {
        let names = edge.allowed_hosts.iter().chain(advertised_url).map(String::as_str);
        HostRule::new(addr, token.is_some(), names)
    };
    [hosts(public, &tokens.api), hosts(admin, &tokens.admin)]
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

async fn compact_regularly(engine: Engine, retention_ms: u64) {
    let mut interval = tokio::time::interval(
        COMPACTION_INTERVAL.min(Duration::from_millis(retention_ms.max(100))),
    );
    loop {
        interval.tick().await;
        let engine = engine.clone();
        let compacted =
            tokio::task::spawn_blocking(move || recovery::compact(&engine, retention_ms)).await;
        match compacted {
            Ok(Ok(_)) => {}
            Ok(Err(LogError::Stopped { .. })) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::error!(%error, "the log could not be compacted; it keeps growing");
            }
        }
    }
}
