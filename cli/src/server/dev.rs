//! `assent dev`: coordinator, participants and their servers on this machine, for as long as it
//! runs. The servers of Assent are in this process. Each `redis-server` is a child of it, with AOF
//! always, killed at the end; each `postgres` too, which is stopped in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use assent_client::HttpOptions;
use assent_common::ParticipantName;
use assent_coordinator::log::{self, LogOptions};
use assent_coordinator::{Coordinator, CoordinatorOptions, RespOptions, Running};
use assent_edge::EdgeOptions;
use assent_participant::{MetricsText, Options, PostgresOptions, ServeOptions, Serving, serve};
use assent_process::{PostgresServer, ProcessError, RedisOptions, RedisServer};
use assent_resp::{Routes, Rule};
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::watch;

use crate::args::RedisProgram;
use crate::config::{NamedUrl, of_hook};
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, Format};
use crate::server::init::of_log;
use crate::{runtime, telemetry};

/// What is in flight at the end of a development server is not waited for long.
const DRAIN_MS: u64 = 2_000;

/// Connections of one listener.
const DEV_CONNECTIONS_MAX: usize = 1_000;

/// The directory of the decision log, in the one that holds everything.
const LOG_DIR: &str = "decisions";

/// The flags of `assent dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Participants to start, each with a Redis of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bank-a,bank-b,stock",
        value_name = "NAME,…"
    )]
    participants: Vec<ParticipantName>,
    /// A participant with a PostgreSQL database: of a server that is started for it, or the one at
    /// this URL. Repeatable
    #[arg(long, value_name = "NAME[=URL]")]
    postgres: Vec<DatabasePlace>,
    /// Address of the coordinator's public API
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDR")]
    listen: SocketAddr,
    /// Address of the coordinator's admin API
    #[arg(long, default_value = "127.0.0.1:7701", value_name = "ADDR")]
    admin_listen: SocketAddr,
    /// Address of the port for Redis clients, where the keys `NAME:*` lie at participant NAME
    #[arg(long, default_value = "127.0.0.1:7702", value_name = "ADDR")]
    resp_listen: SocketAddr,
    /// Keep the data in this directory; without it a temporary one is deleted at the end
    #[arg(long, value_name = "DIR")]
    retain: Option<PathBuf>,
    /// URL of a participant's hook, which decides about branches with an input. Repeatable
    #[arg(long = "hook", value_name = "NAME=URL")]
    hooks: Vec<NamedUrl>,
    #[command(flatten)]
    redis: RedisProgram,
}

/// A participant with a database, and where that is, if it is there already.
#[derive(Debug, Clone)]
struct DatabasePlace {
    name: ParticipantName,
    url: Option<String>,
}

impl FromStr for DatabasePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) => (name, Some(url.trim().to_owned())),
            None => (text, None),
        };
        let name = name.trim().parse().map_err(|error| format!("{error}"))?;
        Ok(Self { name, url })
    }
}

/// Where everything is; the document of `-o json`.
#[derive(Debug, Serialize)]
struct Addresses {
    url: String,
    admin_url: String,
    /// Where Redis clients are served.
    resp: Option<SocketAddr>,
    log_id: String,
    /// Of the decision log, as `assent coordinator` and `assent log` take it.
    data_dir: PathBuf,
    participants: Vec<ParticipantAddresses>,
}

#[derive(Debug, Serialize)]
struct ParticipantAddresses {
    name: ParticipantName,
    url: String,
    admin_url: String,
    #[serde(flatten)]
    keeps: WhereKept,
}

/// Where a participant keeps its branches, without a password.
#[derive(Debug, Serialize)]
enum WhereKept {
    #[serde(rename = "redis_url")]
    Redis(String),
    #[serde(rename = "postgres_url")]
    Postgres(String),
}

/// All that runs. The servers of others end with it.
struct Everything {
    coordinator: Running,
    participants: Vec<Serving>,
    stop: watch::Sender<()>,
    addresses: Addresses,
    servers: ServersOfOthers,
}

/// The servers that are started for participants.
struct ServersOfOthers {
    redis: Vec<RedisServer>,
    /// One for each participant with a database; none where there is a URL.
    postgres: Vec<Option<PostgresServer>>,
}

pub(crate) fn run(args: DevArgs, format: Format) -> Result<Exit, Failure> {
    let began = Instant::now();
    let (dir, _deleted_at_the_end) = directory(args.retain.as_deref())?;
    runtime::start(runtime::workers_default())?.block_on(async {
        let stop = tokio::spawn(runtime::stop_signal());
        let everything = start(args, dir).await?;
        match format {
            Format::Json => output::json_line(&everything.addresses)?,
            Format::Id => output::line(&everything.addresses.url)?,
            Format::Table => tell(&everything.addresses)?,
        }
        output::talk(&format!("ready in {:.1} s", began.elapsed().as_secs_f64()));
        stop.await.map_err(|error| Failure::of("the signal handler ended", &error))??;
        everything.stop().await;
        Ok(Exit::Ok)
    })
}

fn directory(retain: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    match retain {
        Some(dir) => Ok((dir.to_owned(), None)),
        None => {
            let temporary = tempfile::Builder::new().prefix("assent-dev-").tempdir()?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

async fn start(args: DevArgs, dir: PathBuf) -> Result<Everything, Failure> {
    check(&args)?;
    // Servers are started in other folders.
    let dir = std::path::absolute(dir)?;
    let servers = ServersOfOthers::start(&args, &dir).await;
    let servers = servers.map_err(|error| Failure::error(error.to_string()))?;
    let metrics = telemetry::start_metrics()?;
    let (stop, stopping) = watch::channel(());
    let mut participants = Vec::new();
    let mut shown = Vec::new();
    for (options, keeps) in of_participants(&args, &servers)? {
        let name = options.name.parse().map_err(|error| Failure::error(format!("{error}")))?;
        let serving = start_participant(options, metrics.clone(), stopping.clone()).await?;
        shown.push(ParticipantAddresses {
            name,
            url: format!("http://{}", serving.addresses().public),
            admin_url: format!("http://{}", serving.addresses().admin),
            keeps,
        });
        participants.push(serving);
    }
    let map = shown.iter().map(|one| (one.name.clone(), one.url.clone())).collect();
    let coordinator = start_coordinator(&args, &dir, map, metrics).await?;
    let addresses = Addresses {
        url: format!("http://{}", coordinator.addr),
        admin_url: format!("http://{}", coordinator.admin_addr),
        resp: coordinator.resp_addr,
        log_id: coordinator.engine().log().log_id().to_string(),
        data_dir: dir.join(LOG_DIR),
        participants: shown,
    };
    Ok(Everything { coordinator, participants, stop, addresses, servers })
}

/// What can be said before anything is started.
fn check(args: &DevArgs) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    let all = args.participants.iter().chain(args.postgres.iter().map(|place| &place.name));
    for name in all {
        if !names.insert(name) {
            return Err(Failure::usage(format!("two participants are called {name}")));
        }
    }
    let has_redis = |hook: &&NamedUrl| args.participants.contains(&hook.name);
    match args.hooks.iter().find(|hook| !has_redis(hook)) {
        None => Ok(()),
        Some(NamedUrl { name, .. }) if names.contains(name) => {
            let no = format!("--hook: participant {name} has a database; hooks need a Redis");
            Err(Failure::usage(no))
        }
        Some(NamedUrl { name, .. }) => {
            Err(Failure::usage(format!("--hook: no participant {name} is started")))
        }
    }
}

impl ServersOfOthers {
    async fn start(args: &DevArgs, dir: &Path) -> Result<Self, ProcessError> {
        let redis = args.participants.iter().map(|name| {
            let program = args.redis.redis_server.clone();
            let options = RedisOptions { program, ..RedisOptions::default() };
            RedisServer::start(dir.join(name.as_str()), options)
        });
        let postgres = args.postgres.iter().map(async |DatabasePlace { name, url }| match url {
            Some(_) => Ok(None),
            None => PostgresServer::start(dir.join(name.as_str()), []).await.map(Some),
        });
        let (redis, postgres) = tokio::join!(try_join_all(redis), try_join_all(postgres));
        Ok(Self { redis: redis?, postgres: postgres? })
    }
}

/// What each participant runs with, and where it keeps its branches: those with a Redis first.
fn of_participants(
    args: &DevArgs,
    servers: &ServersOfOthers,
) -> Result<Vec<(Options, WhereKept)>, Failure> {
    let mut all = Vec::new();
    for (name, redis) in args.participants.iter().zip(&servers.redis) {
        let mut options = Options::new(name.as_str(), redis.url());
        let hook = args.hooks.iter().find(|hook| hook.name == *name);
        options.hook = of_hook(hook.map(|hook| &*hook.url), None, options.hook_timeout_ms)?;
        all.push((options, WhereKept::Redis(redis.url())));
    }
    for (DatabasePlace { name, url }, server) in args.postgres.iter().zip(&servers.postgres) {
        let own = server.as_ref().map(|server| server.url("postgres"));
        let database =
            PostgresOptions::new(url.clone().or_else(|| own.clone()).unwrap_or_default());
        let keeps = WhereKept::Postgres(own.unwrap_or_else(|| database.address()));
        let mut options = Options::new(name.as_str(), "");
        options.postgres = Some(database);
        all.push((options, keeps));
    }
    Ok(all)
}

async fn start_participant(
    mut participant: Options,
    metrics: PrometheusHandle,
    mut stopping: watch::Receiver<()>,
) -> Result<Serving, Failure> {
    participant.http = HttpOptions::default();
    participant.metrics_text = Some(MetricsText::new(move || metrics.render()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServeOptions {
        participant,
        listen: any,
        admin_listen: any,
        exposure: assent_participant::Exposure::default(),
        edge: edge(),
        drain_timeout_ms: DRAIN_MS,
    };
    let shutdown = async move {
        let _sender_gone = stopping.changed().await;
    };
    serve(options, shutdown).await.map_err(|error| Failure::error(chain(&error)))
}

/// The servers share one process, and its descriptors.
fn edge() -> EdgeOptions {
    EdgeOptions { connections_max: DEV_CONNECTIONS_MAX, ..EdgeOptions::default() }
}

/// Keys that begin with the name of a participant lie there.
fn routes(participants: &[ParticipantName]) -> Result<Routes, Failure> {
    let rule =
        |name: &ParticipantName| Rule { pattern: format!("{name}:*"), participant: name.clone() };
    let routes = Routes::new(participants.iter().map(rule).collect());
    routes.map_err(|error| Failure::error(error.to_string()))
}

async fn start_coordinator(
    args: &DevArgs,
    dir: &Path,
    participants: BTreeMap<ParticipantName, String>,
    metrics: PrometheusHandle,
) -> Result<Running, Failure> {
    let log_dir = dir.join(LOG_DIR);
    if !log_dir.exists() {
        log::init(&LogOptions::new(&log_dir)).map_err(of_log)?;
    }
    assent_coordinator::metrics::describe();
    log::describe_metrics();
    let options = CoordinatorOptions {
        listen: args.listen,
        admin_listen: args.admin_listen,
        resp: Some(RespOptions { listen: args.resp_listen, routes: routes(&args.participants)? }),
        participants,
        edge: edge(),
        metrics: Some(metrics),
        ..CoordinatorOptions::new(log_dir)
    };
    Coordinator::start(options).await.map_err(|error| Failure::error(chain(&error)))
}

impl Everything {
    /// The coordinator first: while it drains, the participants still answer it.
    async fn stop(self) {
        output::talk("stopping");
        self.coordinator.drain(DRAIN_MS).await;
        self.stop.send_replace(());
        for participant in self.participants {
            participant.finished().await;
        }
        let postgres = self.servers.postgres.into_iter().flatten();
        join_all(postgres.map(PostgresServer::stop)).await;
    }
}

fn tell(addresses: &Addresses) -> Result<(), Failure> {
    let Addresses { url, admin_url, resp, log_id, data_dir, participants } = addresses;
    let log_dir = data_dir.display();
    output::line(&format!(
        "assent {} dev: for development; not a deployment",
        env!("CARGO_PKG_VERSION")
    ))?;
    output::line(&format!("api          {url}"))?;
    output::line(&format!("admin        {admin_url}  (metrics at /metrics)"))?;
    if let Some(resp) = resp {
        output::line(&format!("resp         {resp}  (keys NAME:* lie at participant NAME)"))?;
    }
    output::line(&format!("log          {log_id} in {log_dir}"))?;
    for ParticipantAddresses { name, url, keeps, .. } in participants {
        let keeps = match keeps {
            WhereKept::Redis(url) => format!("{url}  (AOF, fsync always)"),
            WhereKept::Postgres(url) => url.clone(),
        };
        output::line(&format!("participant  {name}  {url}  {keeps}"))?;
    }
    examples(addresses).iter().try_for_each(|line| output::line(line))
}

/// What one may type first.
fn examples(addresses: &Addresses) -> Vec<String> {
    let Addresses { url, participants, .. } = addresses;
    let redis = participants.iter().filter_map(|one| match &one.keeps {
        WhereKept::Redis(at) => Some((&one.name, at)),
        WhereKept::Postgres(_) => None,
    });
    let redis: Vec<_> = redis.collect();
    let database = participants.iter().find_map(|one| match &one.keeps {
        WhereKept::Postgres(at) => Some((&one.name, at)),
        WhereKept::Redis(_) => None,
    });
    let curl = format!("curl -s {url}/v1/transactions -H 'Content-Type: application/json' -d");
    let mut lines = Vec::new();
    if let [(first, _), (second, at), ..] = redis.as_slice() {
        lines.extend([
            format!(
                "{curl} '{{\"branches\": [{{\"participant\": \"{first}\", \"ops\": \
                 [{{\"cmd\": [\"DECRBY\", \"acct:alice\", 30]}}]}}, \
                 {{\"participant\": \"{second}\", \"ops\": \
                 [{{\"cmd\": [\"INCRBY\", \"acct:bob\", 30]}}]}}]}}'"
            ),
            format!("redis-cli -u {at} GET acct:bob"),
        ]);
    }
    if let ([(first, _), ..], Some((ledger, at))) = (redis.as_slice(), database) {
        lines.extend([
            format!(
                "psql {at} -c 'CREATE TABLE acct (id text PRIMARY KEY, balance bigint NOT NULL)'"
            ),
            format!(
                "{curl} '{{\"branches\": [{{\"participant\": \"{first}\", \"ops\": \
                 [{{\"cmd\": [\"SET\", \"acct:carol\", 30]}}]}}, \
                 {{\"participant\": \"{ledger}\", \"ops\": \
                 [{{\"sql\": \"INSERT INTO acct VALUES ($1, $2)\", \
                 \"params\": [\"carol\", 30]}}]}}]}}'"
            ),
            format!("psql {at} -c 'TABLE acct'"),
        ]);
    }
    if !lines.is_empty() {
        lines.push(format!("assent tx list --url {url}"));
        lines.iter_mut().for_each(|line| line.insert_str(0, "  "));
        lines.insert(0, "try:".to_owned());
    }
    lines
}
