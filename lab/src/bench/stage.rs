//! The processes of a bench, what is in their Redis, and what they spend.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent::{Failure, exit::chain};
use assent_client::{CoordinatorAdmin, CoordinatorClient, Http, HttpOptions, ListFilter};
use assent_common::limits;
use assent_common::wire::transaction::TransactionState;
use assent_process::{Cluster, ClusterOptions, Port, RedisBy, RedisOptions};
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::args::Plan;
use super::client::{Keys, Targets};
use super::machine::{Busy, Machine, Spent};
use super::unit::{Escrow, Key, letter};
use super::workload::Family;

/// Keys of one command.
const CHUNK: u64 = 5_000;

/// How long transactions may take to end after the load.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Transactions that an error tells.
const NOT_ENDED_TOLD: usize = 3;

/// The settings of Redis that are not the defaults of [`RedisOptions`]: no rewrite of the file
/// falls into a measurement.
const REDIS_SETTINGS: [(&str, &str); 1] = [("auto-aof-rewrite-percentage", "0")];

/// A coordinator, participants with their Redis, and connections to all.
pub(super) struct Stage {
    cluster: Cluster,
    pub(super) redis: Vec<MultiplexedConnection>,
    admin: CoordinatorAdmin,
    pub(super) api: CoordinatorClient,
    redis_by: RedisBy,
    /// The coordinator's port for Redis clients.
    port: Option<Port>,
}

/// What is beside each figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) assent: String,
    /// `release`, or `debug`: then the figures say nothing.
    pub(super) build: &'static str,
    pub(super) redis: String,
    /// What the servers say of themselves.
    pub(super) appendonly: String,
    pub(super) appendfsync: String,
    pub(super) auto_aof_rewrite_percentage: String,
    pub(super) participants: usize,
    pub(super) agents_of_a_redis: usize,
    pub(super) decision_log: &'static str,
    pub(super) transport: &'static str,
    #[serde(flatten)]
    pub(super) machine: Machine,
}

/// What was spent up to a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    at: Instant,
    busy: Busy,
    coordinator: Spent,
    agents: Spent,
    redis: Spent,
    load: Spent,
    log_syncs: Option<f64>,
}

/// What was spent between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlay {
    pub(super) seconds: f64,
    pub(super) busy_percent: f64,
    pub(super) coordinator: Spent,
    pub(super) agents: Spent,
    pub(super) redis: Spent,
    pub(super) load: Spent,
    pub(super) log_syncs: Option<f64>,
}

impl Stage {
    /// Starts `places` participants with a Redis each.
    pub(super) async fn start(
        binary: &Path,
        dir: &Path,
        places: usize,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        let redis_by = plan.redis_by;
        let names = (0..places).map(name).filter_map(|name| name.parse().ok()).collect();
        let settings = REDIS_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut options = ClusterOptions::new(binary.to_owned(), names);
        options.redis = RedisOptions {
            program: plan.redis_server.clone(),
            settings: settings.to_vec(),
            ..RedisOptions::default()
        };
        options.redis_by = redis_by;
        let port = if plan.redis_port {
            Some(Port::take().map_err(|error| crate::of_process(&error))?)
        } else {
            None
        };
        if let Some(port) = &port {
            let route = |place| format!("--route={}:*={}", letter(place), name(place));
            options.coordinator_arguments.push(format!("--resp-listen={}", port.address()));
            options.coordinator_arguments.extend((0..places).map(route));
        }
        let cluster =
            Cluster::start(dir, &options).await.map_err(|error| crate::of_process(&error))?;
        let mut redis = Vec::new();
        for member in &cluster.members {
            redis.push(connect(&member.redis.url()).await?);
        }
        let http = Http::new(&HttpOptions::default())?;
        let admin = CoordinatorAdmin::new(&http, &cluster.admin_url)?;
        let api = CoordinatorClient::new(&http, cluster.coordinator.url())?;
        Ok(Self { cluster, redis, admin, api, redis_by, port })
    }

    pub(super) fn targets(&self, escrow: Escrow, keys: Keys) -> Result<Targets, Failure> {
        let coordinator = self.cluster.coordinator.url().trim_start_matches("http://").parse();
        Ok(Targets {
            coordinator: coordinator.map_err(|error: std::net::AddrParseError| {
                Failure::of("the coordinator's address", &error)
            })?,
            redis: self.cluster.members.iter().map(|member| member.redis.port()).collect(),
            port: self.port.as_ref().map(Port::number),
            names: (0..self.redis.len()).map(name).collect::<Vec<_>>().into(),
            escrow,
            keys,
        })
    }

    pub(super) async fn fill(&self, families: &[Family]) -> Result<(), Failure> {
        for family in families {
            let mut connection = self.redis[family.place].clone();
            for chunk in chunks(family) {
                let mut command = redis::cmd("MSET");
                for key in chunk {
                    command.arg(key).arg(family.opening);
                }
                let () = command.query_async(&mut connection).await.map_err(of_redis)?;
            }
        }
        Ok(())
    }

    pub(super) async fn settings(&mut self, dir: &Path) -> Result<Settings, Failure> {
        let participants = self.redis.len();
        let redis = &mut self.redis[0];
        let info: String =
            redis::cmd("INFO").arg("server").query_async(redis).await.map_err(of_redis)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let version = version.unwrap_or("unknown").trim().to_owned();
        Ok(Settings {
            assent: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            redis: version,
            appendonly: setting(redis, "appendonly").await?,
            appendfsync: setting(redis, "appendfsync").await?,
            auto_aof_rewrite_percentage: setting(redis, "auto-aof-rewrite-percentage").await?,
            participants,
            agents_of_a_redis: 1,
            decision_log: "fdatasync before each answer, group commit",
            transport: match self.redis_by {
                RedisBy::Tcp => "TCP on loopback, HTTP/1.1 keep-alive",
                RedisBy::UnixSocket => {
                    "TCP on loopback, HTTP/1.1 keep-alive; Unix sockets between agents and Redis"
                }
            },
            machine: Machine::here(dir),
        })
    }

    /// Waits until the coordinator has ended all that it was given: with `decided`, branches apply
    /// behind the answers, and would burden the next way.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let text = self.admin.metrics().await;
            let text = text.map_err(|error| Failure::of("the coordinator's metrics", &error))?;
            let active = metric(&text, "assent_transactions_active").unwrap_or(0.0);
            if active == 0.0 {
                return Ok(());
            }
            if began.elapsed() > SETTLE_MAX {
                let left = self.not_ended().await;
                return Err(Failure::error(format!(
                    "{active} transactions have not ended in {} s: {left}",
                    SETTLE_MAX.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Some of the transactions that have not ended, as the coordinator tells them, for who has to
    /// find out why.
    async fn not_ended(&self) -> String {
        let filter = ListFilter { page_size: Some(limits::PAGE_SIZE_MAX), ..ListFilter::default() };
        let Ok(page) = self.api.list(&filter).await else { return "no list of them".to_owned() };
        let left = page.transactions.iter().filter(|view| view.state != TransactionState::Ended);
        let left: Vec<String> =
            left.take(NOT_ENDED_TOLD).filter_map(|view| serde_json::to_string(view).ok()).collect();
        left.join(", ")
    }

    /// What was spent so far. The metrics are asked for before the window and after it, and so cost
    /// it nothing.
    pub(super) async fn snapshot(&self, edge: Edge) -> Snapshot {
        let asked = match edge {
            Edge::Begin => of_log(&self.admin).await,
            Edge::End => None,
        };
        let members = &self.cluster.members;
        let mut snapshot = Snapshot {
            at: Instant::now(),
            busy: Busy::now(),
            coordinator: Spent::of(self.cluster.coordinator.pid()),
            agents: members.iter().map(|member| Spent::of(member.agent.pid())).sum(),
            redis: members.iter().map(|member| Spent::of(member.redis.pid())).sum(),
            load: Spent::of(std::process::id()),
            log_syncs: None,
        };
        let log = match edge {
            Edge::Begin => asked,
            Edge::End => of_log(&self.admin).await,
        };
        snapshot.log_syncs = log.map(|(syncs, _)| syncs);
        // By its own count: the kernel's is of whole folios of a file that is written over, a MiB
        // for each record.
        snapshot.coordinator.disk_bytes = log.map_or(0, |(_, bytes)| bytes as u64);
        snapshot
    }
}

/// An edge of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// It opens.
    Begin,
    /// It closes.
    End,
}

impl Snapshot {
    pub(super) fn since(&self, earlier: &Self) -> Outlay {
        Outlay {
            seconds: (self.at - earlier.at).as_secs_f64(),
            busy_percent: self.busy.percent_since(earlier.busy),
            coordinator: self.coordinator.since(earlier.coordinator),
            agents: self.agents.since(earlier.agents),
            redis: self.redis.since(earlier.redis),
            load: self.load.since(earlier.load),
            log_syncs: self.log_syncs.zip(earlier.log_syncs).map(|(now, then)| now - then),
        }
    }
}

/// How often the decision log was synced so far, and the bytes of its records, from the
/// coordinator's metrics.
async fn of_log(admin: &CoordinatorAdmin) -> Option<(f64, f64)> {
    let text = admin.metrics().await.ok()?;
    metric(&text, "assent_log_fsync_duration_seconds_count").zip(metric(&text, "assent_log_bytes"))
}

/// The sum of a metric over its labels; `None` if it is not there.
fn metric(text: &str, name: &str) -> Option<f64> {
    let is_it = |rest: &str| rest.starts_with([' ', '{']);
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(is_it));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The name of the participant at this place.
fn name(place: usize) -> String {
    format!("bank-{}", letter(place))
}

pub(super) async fn connect(url: &str) -> Result<MultiplexedConnection, Failure> {
    // A command of many keys on a busy machine takes its time.
    let config =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let client = redis::Client::open(url).map_err(of_redis)?;
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(of_redis)
}

async fn setting(redis: &mut MultiplexedConnection, name: &str) -> Result<String, Failure> {
    let found: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg(name).query_async(redis).await.map_err(of_redis)?;
    Ok(found.into_iter().nth(1).unwrap_or_else(|| "unknown".to_owned()))
}

pub(super) fn of_redis(error: redis::RedisError) -> Failure {
    Failure::error(format!("Redis: {}", chain(&error)))
}

/// The keys of a family, in commands of a size that Redis does not stall for.
pub(super) fn chunks(family: &Family) -> impl Iterator<Item = Vec<String>> {
    let Family { place, name, keys, .. } = *family;
    let key = move |number| Key { family: name, number }.at(place).to_string();
    (0..keys)
        .step_by(CHUNK as usize)
        .map(move |start| (start..keys.min(start + CHUNK)).map(key).collect())
}

/// The families of all shapes, each once, with the most keys that one of them has.
pub(super) fn merged(families: impl IntoIterator<Item = Family>) -> Arc<[Family]> {
    let mut merged: Vec<Family> = Vec::new();
    for family in families {
        let same = |other: &&mut Family| other.place == family.place && other.name == family.name;
        match merged.iter_mut().find(same) {
            Some(other) => other.keys = other.keys.max(family.keys),
            None => merged.push(family),
        }
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_two_shapes_use_is_there_once_and_large_enough() {
        let family = |place, keys| Family { place, name: "acct", keys, opening: 1 };
        let merged = merged([family(0, 10), family(1, 10), family(0, 30)]);
        assert_eq!(*merged, [family(0, 30), family(1, 10)]);
    }

    #[test]
    fn a_metric_is_summed_up_over_its_labels() {
        let text = "# HELP a_b c\na_b{state=\"x\"} 2\na_b{state=\"y\"} 3\na_b_count 7\n";
        assert_eq!(metric(text, "a_b"), Some(5.0));
        assert_eq!(metric(text, "a_b_count"), Some(7.0));
        assert_eq!(metric(text, "a"), None);
    }

    #[test]
    fn sixteen_participants_have_names() {
        assert_eq!((name(0), name(15)), ("bank-a".to_owned(), "bank-p".to_owned()));
        assert!((0..16).all(|place| name(place).parse::<assent_common::ParticipantName>().is_ok()));
    }

    #[test]
    fn the_chunks_of_a_family_have_every_key_once() {
        let family = Family { place: 0, name: "acct", keys: CHUNK * 2 + 7, opening: 1 };
        let all: Vec<_> = chunks(&family).flatten().collect();
        assert_eq!(all.len() as u64, family.keys);
        assert_eq!(all.last().unwrap(), "a:acct:10006");
    }
}
