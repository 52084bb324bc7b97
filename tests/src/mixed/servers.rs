//! A coordinator, a participant with a Redis, and two with a database each, of one PostgreSQL
//! server: a transaction that has a branch in both has two prepared transactions there.

use std::path::Path;

use assent_process::{Assent, Port, PostgresServer, participant_arguments};
use tokio_postgres::{Client, NoTls};

use crate::cluster::{Cluster, Options, args};
use crate::link::Link;
use crate::wait::wait_for;
use crate::wait_settled;

/// The participant with a Redis.
pub const CACHE: &str = "cache";

/// The participants with a database, which has the same name.
pub const DATABASES: [&str; 2] = ["ledger", "orders"];

/// A table of few rows would be read as a whole, and every writer be in the way of every other.
/// Without that, what has no index would be compiled each time: its cost is beyond all bounds.
const BY_INDEX: [&str; 2] = ["enable_seqscan=off", "jit=off"];

/// A participant with a database.
#[derive(Debug)]
pub struct DatabasePeer {
    /// Its name in transactions, and that of its database.
    pub name: &'static str,
    /// The agent.
    pub agent: Assent,
    /// The way from it to the server.
    pub link: Link,
    _ports: [Port; 2],
}

/// The processes.
#[derive(Debug)]
pub struct MixedCluster {
    /// The coordinator, and the participant with a Redis.
    pub cluster: Cluster,
    /// The server of both databases.
    pub postgres: PostgresServer,
    /// In the order of [`DATABASES`].
    pub databases: Vec<DatabasePeer>,
}

impl DatabasePeer {
    /// Starts an agent beside the database of its name.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(
        binary: &Path,
        name: &'static str,
        server: &PostgresServer,
        dir: &Path,
    ) -> Self {
        let ports = Port::pair().unwrap_or_else(|error| panic!("{error}"));
        let link = Link::start(&format!("127.0.0.1:{}", server.port())).await;
        let mut arguments = participant_arguments(name, "", &ports);
        arguments.retain(|word| !word.starts_with("--redis"));
        arguments.push(format!("--postgres=postgres://app@{}/{name}", link.address()));
        arguments.extend(args(["--resolve-interval", "300ms", "--sweep-interval", "300ms"]));
        let (url, log) = (ports[0].url(), dir.join(format!("{name}.log")));
        let agent = Assent::start(name, binary, arguments, &url, &log).await;
        let agent = agent.unwrap_or_else(|error| panic!("{error}"));
        Self { name, agent, link, _ports: ports }
    }
}

impl MixedCluster {
    /// Starts everything, and returns when everything is ready.
    ///
    /// # Panics
    /// If something does not start.
    pub async fn start(binary: &str, options: Options) -> Self {
        let cluster =
            Cluster::start(binary, Options { participants: vec![CACHE], ..options }).await;
        let postgres = PostgresServer::start(cluster.dir().join("postgres"), BY_INDEX).await;
        let postgres = postgres.unwrap_or_else(|error| panic!("{error}"));
        let mut mixed = Self { cluster, postgres, databases: Vec::new() };
        let dir = mixed.cluster.dir().to_owned();
        for name in DATABASES {
            mixed.sql("postgres", &format!("CREATE DATABASE {name}")).await;
            let peer = DatabasePeer::start(binary.as_ref(), name, &mixed.postgres, &dir).await;
            let admin = mixed.cluster.admin();
            let name = name.parse().expect("a participant's name");
            let set = admin.set_participant(&name, peer.agent.url()).await;
            set.unwrap_or_else(|error| panic!("{name} cannot be registered: {error}"));
            mixed.databases.push(peer);
        }
        mixed
    }

    /// A plain client of a database, past the agents.
    pub async fn client(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements past the agents.
    ///
    /// # Panics
    /// If they fail.
    pub async fn sql(&self, database: &str, sql: &str) {
        let client = self.client(database).await.expect("the server answers");
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The texts of the only column of a query.
    ///
    /// # Panics
    /// If it fails.
    pub async fn texts(&self, database: &str, sql: &str) -> Vec<String> {
        let client = self.client(database).await.expect("the server answers");
        let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The names of all prepared transactions of the server.
    pub async fn prepared(&self) -> Result<Vec<String>, tokio_postgres::Error> {
        let client = self.client("postgres").await?;
        let rows = client.query("SELECT gid FROM pg_prepared_xacts", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Waits until nothing is prepared, locked or staged anywhere (the promise *finishing*).
    pub async fn wait_settled(&self) {
        wait_for("no prepared transaction to be left", || async {
            match self.prepared().await {
                Ok(left) if left.is_empty() => Ok(()),
                Ok(left) => Err(format!("prepared: {left:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        wait_settled(&self.cluster).await;
    }
}
