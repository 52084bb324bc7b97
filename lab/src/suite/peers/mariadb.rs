//! MariaDB's XA across two servers, coordinated by the client.
//!
//! In one round trip to both at once: `XA START`, the update, `XA END`, `XA PREPARE`; then the
//! decision to a file that all clients share; then `XA COMMIT` to both at once. No coordinator
//! process and no HTTP: that favours MariaDB.

use std::path::Path;
use std::time::Duration;

use futures_util::future::try_join;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::decision::Decisions;
use super::drive::{Client, End, Tally, Transfer, drive};
use super::server::{Server, Usage, Watch, as_nobody, prepare_dir, run, take_port};
use super::{ACCOUNTS, CONNECTIONS_MAX, OPENING_BALANCE, check_sums, find};

/// What is set, beside the defaults. There is no binary log.
const SETTINGS: [(&str, &str); 5] = [
    ("innodb-flush-log-at-trx-commit", "1"),
    ("sync-binlog", "1"),
    ("innodb-buffer-pool-size", "256M"),
    ("innodb-lock-wait-timeout", "1"),
    ("bind-address", "127.0.0.1"),
];

/// Rows of one `INSERT`.
const CHUNK: u32 = 10_000;

/// Two servers.
pub(crate) struct Mariadb {
    ports: [u16; 2],
    version: String,
    decisions: Decisions,
    servers: [Server; 2],
    moved: i64,
}

impl Mariadb {
    pub(super) async fn start(dir: &Path) -> Result<Self, String> {
        let server = find(&["mariadbd"], &[]).ok_or("MariaDB is not installed")?;
        let install = find(&["mariadb-install-db"], &[]).ok_or("mariadb-install-db is missing")?;
        let first = start_server(&server, &install, &dir.join("a")).await?;
        let second = start_server(&server, &install, &dir.join("b")).await?;
        let ports = [first.1, second.1];
        let decisions =
            Decisions::open(&dir.join("decisions")).map_err(|error| error.to_string())?;
        let version: Option<String> =
            connect(ports[0]).await?.query_first("SELECT VERSION()").await.map_err(words)?;
        let version = version.unwrap_or_default();
        Ok(Self { ports, version, decisions, servers: [first.0, second.0], moved: 0 })
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "version": self.version,
            "settings": SETTINGS.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "binary_log": "off",
            "max_connections": CONNECTIONS_MAX,
            "rows": ACCOUNTS,
            "decision": "a file, fdatasync before XA COMMIT, group commit",
            "transport": "TCP on loopback, one connection to each server for each client",
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
            let (first, second) = try_join(connect(self.ports[0]), connect(self.ports[1])).await?;
            let decisions = self.decisions.clone();
            connected.push(MariadbClient { branches: [first, second], decisions });
        }
        let watch = Watch::new(self.servers.iter().map(Server::pid));
        let measured = drive(connected, duration, seed, &watch).await?;
        self.moved += measured.0.moved;
        let mut sums = [0; 2];
        for (port, sum) in self.ports.iter().zip(&mut sums) {
            let mut client = connect(*port).await?;
            let left: Vec<mysql_async::Row> = client.query("XA RECOVER").await.map_err(words)?;
            if !left.is_empty() {
                return Err("MariaDB: prepared transactions are left".to_owned());
            }
            let found = client.query_first("SELECT CAST(SUM(balance) AS SIGNED) FROM acct").await;
            *sum = found.map_err(words)?.unwrap_or(0);
        }
        check_sums("MariaDB", sums, self.moved)?;
        Ok(measured)
    }
}

async fn start_server(program: &Path, install: &Path, dir: &Path) -> Result<(Server, u16), String> {
    prepare_dir(dir).map_err(|error| error.to_string())?;
    let data = dir.join("data");
    let mut init = as_nobody(install);
    init.current_dir(dir).args(["--no-defaults", "--skip-test-db"]);
    init.arg(format!("--datadir={}", data.display()));
    init.arg("--auth-root-authentication-method=normal");
    run(init, &dir.join("install.log"))?;
    let sql = dir.join("init.sql");
    let grant = "CREATE DATABASE IF NOT EXISTS bench;\n\
                 CREATE USER IF NOT EXISTS 'bench'@'127.0.0.1';\n\
                 GRANT ALL ON *.* TO 'bench'@'127.0.0.1';\n";
    std::fs::write(&sql, grant).map_err(|error| error.to_string())?;
    let held = take_port()?;
    let port = held.number();
    let mut command = as_nobody(program);
    command.current_dir(dir).args(["--no-defaults", "--skip-name-resolve", "--skip-log-bin"]);
    command.arg(format!("--datadir={}", data.display())).arg(format!("--port={port}"));
    command.arg(format!("--socket={}", dir.join("s.sock").display()));
    command.arg(format!("--pid-file={}", dir.join("server.pid").display()));
    command.arg(format!("--init-file={}", sql.display()));
    command.arg(format!("--max-connections={}", CONNECTIONS_MAX));
    for (name, value) in SETTINGS {
        command.arg(format!("--{name}={value}"));
    }
    let mut server = Server::start(command, &dir.join("server.log"), Signal::TERM, vec![held])?;
    let mut client = server.wait(async || connect(port).await).await?;
    let table = "CREATE TABLE acct (id INT PRIMARY KEY, balance BIGINT NOT NULL) ENGINE=InnoDB";
    client.query_drop(table).await.map_err(words)?;
    for start in (0..ACCOUNTS).step_by(CHUNK as usize) {
        let rows: Vec<String> = (start..ACCOUNTS.min(start + CHUNK))
            .map(|account| format!("({account},{OPENING_BALANCE})"))
            .collect();
        let insert = format!("INSERT INTO acct VALUES {}", rows.join(","));
        client.query_drop(insert).await.map_err(words)?;
    }
    Ok((server, port))
}

async fn connect(port: u16) -> Result<Conn, String> {
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("bench"))
        .db_name(Some("bench"))
        .prefer_socket(false)
        .tcp_nodelay(true);
    Conn::new(Opts::from(options)).await.map_err(words)
}

fn words(error: mysql_async::Error) -> String {
    format!("MariaDB: {error}")
}

struct MariadbClient {
    branches: [Conn; 2],
    decisions: Decisions,
}

/// The vote: prepared, or the reason why not. All in one round trip.
async fn prepare(branch: &mut Conn, id: &str, account: u32, by: i64) -> Result<(), String> {
    let statements = format!(
        "XA START '{id}';UPDATE acct SET balance=balance+({by}) WHERE id={account};\
         XA END '{id}';XA PREPARE '{id}'"
    );
    branch.query_drop(statements).await.map_err(words)
}

async fn say(branch: &mut Conn, verb: &str, id: &str) -> Result<(), String> {
    branch.query_drop(format!("{verb} '{id}'")).await.map_err(words)
}

/// Leaves nothing behind, whatever became of the prepare.
async fn abort(branch: &mut Conn, id: &str) -> Result<(), String> {
    // An update that failed leaves the transaction active; of one that was prepared this says so.
    let _ended_before = say(branch, "XA END", id).await;
    let rolled_back = say(branch, "XA ROLLBACK", id).await;
    match rolled_back {
        // The server has rolled back a deadlock's victim itself.
        Err(why) if why.contains("XAER_NOTA") || why.contains("XA_RB") => Ok(()),
        other => other,
    }
}

impl Client for MariadbClient {
    async fn transfer(&mut self, transfer: &Transfer) -> Result<End, String> {
        let Transfer { id, from, to, amount } = transfer;
        let [first, second] = &mut self.branches;
        let votes =
            tokio::join!(prepare(first, id, *from, -amount), prepare(second, id, *to, *amount));
        if votes.0.is_err() || votes.1.is_err() {
            try_join(abort(first, id), abort(second, id)).await?;
            return Ok(End::Failed);
        }
        self.decisions.commit(id).await?;
        try_join(say(first, "XA COMMIT", id), say(second, "XA COMMIT", id)).await?;
        Ok(End::Committed)
    }
}
