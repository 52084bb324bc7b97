//! `assent dev`: coordinator, participants and their Redis servers on this machine, for as long as it runs. The servers
//! of Assent are in this process; each `redis-server` is a child of it, with AOF always, killed at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use assent_client::HttpOptions;
use assent_common::ParticipantName;
use assent_coordinator::log::{self, LogOptions};
use assent_coordinator::{Coordinator, CoordinatorOptions, RespOptions, Running};
use assent_edge::EdgeOptions;
use assent_participant::{MetricsText, Options, ServeOptions, Serving, serve};
use assent_process::{RedisOptions, RedisServer};
use assent_resp::{Routes, Rule};
use clap::Args;
use futures_util::future::try_join_all;
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
    redis_url: String,
}

/// All that runs. The Redis servers end with it.
struct Everything {
    coordinator: Running,
    participants: Vec<Serving>,
    stop: watch::Sender<()>,
    addresses: Addresses,
    _redis: Vec<RedisServer>,
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
    if let Some(hook) = args.hooks.iter().find(|hook| !args.participants.contains(&hook.name)) {
        return Err(Failure::usage(format!("--hook: no participant {} is started", hook.name)));
    }
    let redis = try_join_all(args.participants.iter().map(|name| {
        let options =
            RedisOptions { program: args.redis.redis_server.clone(), ..RedisOptions::default() };
        RedisServer::start(dir.join(name.as_str()), options)
    }))
    .await
    .map_err(|error| Failure::error(error.to_string()))?;
    let metrics = telemetry::start_metrics()?;
    let (stop, stopping) = watch::channel(());
    let mut participants = Vec::new();
    let mut shown = Vec::new();
    for (name, redis) in args.participants.iter().zip(&redis) {
        let mut options = Options::new(name.as_str(), redis.url());
        let hook = args.hooks.iter().find(|hook| hook.name == *name);
        let url = hook.map(|hook| &*hook.url);
        options.hook = of_hook(url, None, options.hook_timeout_ms)?;
        let serving = start_participant(options, metrics.clone(), stopping.clone()).await?;
        shown.push(ParticipantAddresses {
            name: name.clone(),
            url: format!("http://{}", serving.addresses().public),
            admin_url: format!("http://{}", serving.addresses().admin),
            redis_url: redis.url(),
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
    Ok(Everything { coordinator, participants, stop, addresses, _redis: redis })
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
    for one in participants {
        let ParticipantAddresses { name, url, redis_url, .. } = one;
        output::line(&format!("participant  {name}  {url}  {redis_url}  (AOF, fsync always)"))?;
    }
    let [first, second, ..] = participants.as_slice() else { return Ok(()) };
    output::line("try:")?;
    output::line(&format!(
        "  curl -s {url}/v1/transactions -H 'Content-Type: application/json' -d '{{\"branches\": [\
         {{\"participant\": \"{}\", \"ops\": [{{\"cmd\": [\"DECRBY\", \"acct:alice\", 30]}}]}}, \
         {{\"participant\": \"{}\", \"ops\": [{{\"cmd\": [\"INCRBY\", \"acct:bob\", 30]}}]}}]}}'",
        first.name, second.name
    ))?;
    output::line(&format!("  redis-cli -u {} GET acct:bob", second.redis_url))?;
    output::line(&format!("  assent tx list --url {url}"))
}
