//! PostgreSQL's own two-phase commit across two clusters, coordinated by the client.
//!
//! In one go to both at once: `BEGIN`, the update (prepared), `PREPARE TRANSACTION`; then the
//! decision to a file that all clients share; then `COMMIT PREPARED` to both at once. No
//! coordinator process and no HTTP: that favours PostgreSQL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{join3, try_join};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_postgres::{NoTls, Statement};

use super::decision::Decisions;
use super::drive::{Client, End, Tally, Transfer, drive};
use super::server::{Server, Usage, Watch, as_nobody, prepare_dir, run, take_port};
use super::{ACCOUNTS, CONNECTIONS_MAX, OPENING_BALANCE, check_sums, find};

/// What is set, beside the defaults.
const SETTINGS: [(&str, &str); 8] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("max_prepared_transactions", "500"),
    ("shared_buffers", "256MB"),
    ("lock_timeout", "1s"),
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
];

/// Two clusters.
pub(crate) struct Postgres {
    ports: [u16; 2],
    version: String,
    decisions: Decisions,
    servers: [Server; 2],
    moved: i64,
}

impl Postgres {
    pub(super) async fn start(dir: &Path) -> Result<Self, String> {
        let bin = bin().ok_or("PostgreSQL is not installed")?;
        let first = start_cluster(&bin, &dir.join("a")).await?;
        let second = start_cluster(&bin, &dir.join("b")).await?;
        let ports = [first.1, second.1];
        let decisions =
            Decisions::open(&dir.join("decisions")).map_err(|error| error.to_string())?;
        let admin = connect(ports[0]).await?;
        let row = admin.query_one("SHOW server_version", &[]).await.map_err(words)?;
        let version = row.get(0);
        Ok(Self { ports, version, decisions, servers: [first.0, second.0], moved: 0 })
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "version": self.version,
            "settings": SETTINGS.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "max_connections": CONNECTIONS_MAX,
            "rows": ACCOUNTS,
            "decision": "a file, fdatasync before COMMIT PREPARED, group commit",
            "transport": "TCP on loopback, one connection to each cluster for each client",
        })
    }

    pub(super) async fn measure(
        &mut self,
        clients: usize,
        duration: Duration,
        seed: u64,
    ) -> Result<(Tally, Usage), String> {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            let (first, second) =
                try_join(Branch::connect(self.ports[0]), Branch::connect(self.ports[1])).await?;
            let decisions = self.decisions.clone();
            connected.push(PostgresClient { branches: [first, second], decisions });
        }
        let watch = Watch::new(self.servers.iter().map(Server::pid));
        let measured = drive(connected, duration, seed, &watch).await?;
        self.moved += measured.0.moved;
        let mut sums = [0; 2];
        for (port, sum) in self.ports.iter().zip(&mut sums) {
            let client = connect(*port).await?;
            let left = client.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).await;
            if left.map_err(words)?.get::<_, i64>(0) != 0 {
                return Err("PostgreSQL: prepared transactions are left".to_owned());
            }
            let row = client.query_one("SELECT sum(balance)::bigint FROM acct", &[]).await;
            *sum = row.map_err(words)?.get(0);
        }
        check_sums("PostgreSQL", sums, self.moved)?;
        Ok(measured)
    }
}

/// Where `initdb` and `postgres` are: Debian keeps them out of the path.
fn bin() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    dirs.sort();
    dirs.reverse();
    find(&["initdb"], &dirs)?.parent().map(Path::to_owned)
}

async fn start_cluster(bin: &Path, dir: &Path) -> Result<(Server, u16), String> {
    prepare_dir(dir).map_err(|error| error.to_string())?;
    let data = dir.join("data");
    let mut init = as_nobody(&bin.join("initdb"));
    init.current_dir(dir).arg("-D").arg(&data);
    init.args(["-U", "bench", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
    run(init, &dir.join("initdb.log"))?;
    let held = take_port()?;
    let port = held.number();
    let mut command = as_nobody(&bin.join("postgres"));
    command.current_dir(dir).arg("-D").arg(&data).args(["-p", &port.to_string()]);
    command.args(["-c", &format!("max_connections={CONNECTIONS_MAX}")]);
    for (name, value) in SETTINGS {
        command.args(["-c", &format!("{name}={value}")]);
    }
    // SIGINT is its fast shutdown: connections are cut, and nothing is left to recover.
    let mut server = Server::start(command, &dir.join("server.log"), Signal::INT, vec![held])?;
    let client = server.wait(async || connect(port).await).await?;
    let fill = format!(
        "CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL); \
         INSERT INTO acct SELECT n, {OPENING_BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) n; \
         VACUUM ANALYZE acct; CHECKPOINT"
    );
    for statement in fill.split("; ") {
        client.batch_execute(statement).await.map_err(words)?;
    }
    Ok((server, port))
}

async fn connect(port: u16) -> Result<tokio_postgres::Client, String> {
    let config = format!("host=127.0.0.1 port={port} user=bench dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(words)?;
    // It ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

fn words(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("PostgreSQL: {}", error.message()),
        None => format!("PostgreSQL: {error}"),
    }
}

/// A client's connection to one cluster.
struct Branch {
    client: tokio_postgres::Client,
    update: Statement,
}

struct PostgresClient {
    branches: [Branch; 2],
    decisions: Decisions,
}

impl Branch {
    async fn connect(port: u16) -> Result<Self, String> {
        let client = connect(port).await?;
        let update = "UPDATE acct SET balance = balance + $1 WHERE id = $2";
        let update = client.prepare(update).await.map_err(words)?;
        Ok(Self { client, update })
    }

    /// The vote: prepared, or the reason why not. The three go out together.
    async fn prepare(&self, id: &str, account: u32, by: i64) -> Result<(), String> {
        let account = i32::try_from(account).map_err(|error| error.to_string())?;
        let prepare = format!("PREPARE TRANSACTION '{id}'");
        let (begun, updated, prepared) = join3(
            self.client.batch_execute("BEGIN"),
            self.client.execute(&self.update, &[&by, &account]),
            self.client.batch_execute(&prepare),
        )
        .await;
        begun.and(updated).map_err(words)?;
        prepared.map_err(words)
    }

    async fn say(&self, words_of: &str, id: &str) -> Result<(), String> {
        self.client.batch_execute(&format!("{words_of} '{id}'")).await.map_err(words)
    }

    /// Leaves nothing behind, whatever became of the prepare.
    async fn abort(&self, id: &str, vote: &Result<(), String>) -> Result<(), String> {
        match vote {
            Ok(()) => self.say("ROLLBACK PREPARED", id).await,
            // A failed `PREPARE TRANSACTION` has rolled back.
            Err(_) => self.client.batch_execute("ROLLBACK").await.map_err(words),
        }
    }
}

impl Client for PostgresClient {
    async fn transfer(&mut self, transfer: &Transfer) -> Result<End, String> {
        let Transfer { id, from, to, amount } = transfer;
        let [first, second] = &self.branches;
        let votes =
            tokio::join!(first.prepare(id, *from, -amount), second.prepare(id, *to, *amount));
        if votes.0.is_err() || votes.1.is_err() {
            try_join(first.abort(id, &votes.0), second.abort(id, &votes.1)).await?;
            return Ok(End::Failed);
        }
        self.decisions.commit(id).await?;
        try_join(first.say("COMMIT PREPARED", id), second.say("COMMIT PREPARED", id)).await?;
        Ok(End::Committed)
    }
}
