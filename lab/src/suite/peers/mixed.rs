//! A transfer between a Redis and a PostgreSQL database, by Assent: the same closed loop as that of
//! the peers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use assent_client::{CoordinatorAdmin, Http, HttpOptions};
use assent_process::{
    Assent, Port, PostgresServer, ProcessError, RedisOptions, RedisServer, coordinator_arguments,
    init_log, participant_arguments,
};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::drive::{Client, End, Tally, Transfer, drive};
use super::server::{Usage, Watch};
use super::{ACCOUNTS, CONNECTIONS_MAX, OPENING_BALANCE, check_sums};
use crate::bench::http::HttpConnection;

/// Accounts that are written or read by one command.
const CHUNK: u32 = 10_000;

/// The database, as that of the peer is set up.
const SETTINGS: [&str; 3] =
    ["max_prepared_transactions=500", "shared_buffers=256MB", "synchronous_commit=on"];

/// A coordinator, and a participant with each.
pub(super) struct RedisAndPostgres {
    api: SocketAddr,
    redis: RedisServer,
    postgres: PostgresServer,
    /// The coordinator first.
    processes: Vec<Assent>,
    moved: i64,
    _ports: Vec<[Port; 2]>,
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn of_process(error: ProcessError) -> String {
    format!("Assent: {error}")
}

impl RedisAndPostgres {
    pub(super) async fn start(dir: &Path, binary: &Path, isolation: &str) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(words)?;
        let redis = RedisServer::start(dir.join("redis"), RedisOptions::default()).await;
        let redis = redis.map_err(of_process)?;
        let connections = format!("max_connections={CONNECTIONS_MAX}");
        let settings = SETTINGS.into_iter().chain([connections.as_str()]);
        let postgres = PostgresServer::start(dir.join("postgres"), settings).await;
        let postgres = postgres.map_err(of_process)?;
        let log = dir.join("log");
        init_log(binary, &log, None).map_err(of_process)?;
        let mut processes = Vec::new();
        let mut all_ports = Vec::new();
        for name in ["coordinator", "cache", "ledger"] {
            let ports = Port::pair().map_err(of_process)?;
            let arguments = match name {
                "coordinator" => coordinator_arguments(&log, &ports),
                "cache" => participant_arguments(name, &redis.url(), &ports),
                _ => {
                    let mut arguments = participant_arguments(name, "", &ports);
                    arguments.retain(|word| !word.starts_with("--redis"));
                    arguments.push(format!("--postgres={}", postgres.url("postgres")));
                    arguments.push(format!("--postgres-isolation={isolation}"));
                    arguments
                }
            };
            let (url, log) = (ports[0].url(), dir.join(format!("{name}.log")));
            let process = Assent::start(name, binary, arguments, &url, &log).await;
            processes.push(process.map_err(of_process)?);
            all_ports.push(ports);
        }
        let http = Http::new(&HttpOptions::default()).map_err(words)?;
        let admin = CoordinatorAdmin::new(&http, &all_ports[0][1].url()).map_err(words)?;
        for process in &processes[1..] {
            let name = process.name().parse().map_err(words)?;
            admin.set_participant(&name, process.url()).await.map_err(words)?;
        }
        let api = all_ports[0][0].address().parse().map_err(words)?;
        let started = Self { api, redis, postgres, processes, moved: 0, _ports: all_ports };
        started.fill().await?;
        Ok(started)
    }

    async fn database(&self) -> Result<tokio_postgres::Client, String> {
        let url = self.postgres.url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.map_err(words)?;
        // It ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    async fn cache(&self) -> Result<redis::aio::MultiplexedConnection, String> {
        let client = redis::Client::open(self.redis.url()).map_err(words)?;
        client.get_multiplexed_async_connection().await.map_err(words)
    }

    async fn fill(&self) -> Result<(), String> {
        let mut cache = self.cache().await?;
        for first in (0..ACCOUNTS).step_by(CHUNK as usize) {
            let mut set = redis::cmd("MSET");
            for account in first..first + CHUNK {
                set.arg(format!("acct:{account}")).arg(OPENING_BALANCE);
            }
            set.query_async::<()>(&mut cache).await.map_err(words)?;
        }
        let database = self.database().await?;
        let fill = format!(
            "CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL); INSERT INTO acct \
             SELECT n, {OPENING_BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) n; \
             VACUUM ANALYZE acct; CHECKPOINT"
        );
        for statement in fill.split("; ") {
            database.batch_execute(statement).await.map_err(words)?;
        }
        Ok(())
    }

    pub(super) async fn measure(
        &mut self,
        clients: usize,
        duration: Duration,
        seed: u64,
    ) -> Result<(Tally, Usage), String> {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            connected.push(MixedClient(HttpConnection::connect(self.api).await.map_err(words)?));
        }
        let servers = [self.redis.pid(), self.postgres.pid()];
        let watch = Watch::new(servers.into_iter().chain(self.processes.iter().map(Assent::pid)));
        let measured = drive(connected, duration, seed, &watch).await?;
        self.moved += measured.0.moved;
        let database = self.database().await?;
        let left = "SELECT count(*) FROM pg_prepared_xacts";
        if database.query_one(left, &[]).await.map_err(words)?.get::<_, i64>(0) != 0 {
            return Err("Assent: prepared transactions are left".to_owned());
        }
        let sum = "SELECT sum(balance)::bigint FROM acct";
        let in_database = database.query_one(sum, &[]).await.map_err(words)?.get(0);
        let mut cache = self.cache().await?;
        let mut in_redis = 0;
        for first in (0..ACCOUNTS).step_by(CHUNK as usize) {
            let mut get = redis::cmd("MGET");
            for account in first..first + CHUNK {
                get.arg(format!("acct:{account}"));
            }
            let balances: Vec<i64> = get.query_async(&mut cache).await.map_err(words)?;
            in_redis += balances.into_iter().sum::<i64>();
        }
        check_sums("Assent", [in_redis, in_database], self.moved)?;
        Ok(measured)
    }
}

struct MixedClient(HttpConnection);

impl Client for MixedClient {
    async fn transfer(&mut self, transfer: &Transfer) -> Result<End, String> {
        let Transfer { from, to, amount, .. } = transfer;
        let take = json!({"cmd": ["INCRBY", format!("acct:{from}"), (-amount).to_string()]});
        let give = json!({"sql": "UPDATE acct SET balance = balance + $1 WHERE id = $2",
                          "params": [amount, to]});
        let body = json!({"branches": [
            {"participant": "cache", "ops": [take]},
            {"participant": "ledger", "ops": [give]},
        ]});
        let body = body.to_string();
        let (_, answer) = self.0.post("/v1/transactions", None, &body).await.map_err(words)?;
        let answer: Value = serde_json::from_slice(answer).map_err(words)?;
        match answer["outcome"].as_str() {
            Some("committed") => Ok(End::Committed),
            Some("aborted") => Ok(End::Failed),
            // Of the sums nothing could be said then.
            _ => Err(format!("Assent: no outcome of a transfer: {answer}")),
        }
    }
}
