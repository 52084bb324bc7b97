//! The way to the database: a pool for branches, each of whose connections is reset before its next
//! use, and one connection of the agent's own.
//!
//! The agent's own connection commits without waiting for the disk. What it writes there precedes,
//! in the one log of the server, a prepare or a commit that waits. What must be durable by itself
//! goes by the pool.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::Client;

use super::door::DatabaseDoor;
use super::options::PostgresOptions;
use super::requirements::PostgresSeen;
use super::said::words;
use crate::mutex::lock;
use crate::store::StoreError;
use crate::store::requirements::{Finding, Weight};

/// What the connection of a branch is reset by. Settings, advisory locks and temporary tables
/// outlive a transaction that was prepared.
const RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// A session that holds a transaction open, because its agent hangs, is ended after this time: its
/// branch was not prepared.
const IDLE_MS: u64 = 30_000;

/// How long a branch waits for a connection of the pool.
const POOL_WAIT: Duration = Duration::from_secs(2);

/// What is prepared for longer than this is said in the log of an agent that connects.
const OLD: Duration = Duration::from_secs(60);

/// The ways to one database.
#[derive(Debug)]
pub(super) struct Pools {
    pool: Pool,
    door: DatabaseDoor,
    options: PostgresOptions,
    own: Mutex<Option<Arc<Client>>>,
}

/// What a server is, and what of it speaks against the promises.
#[derive(Debug, Clone)]
pub(super) struct ServerLook {
    pub(super) version: String,
    pub(super) prepared_max: i32,
    findings: Vec<Finding>,
    /// Whether the server would answer a commit before it is on disk.
    commits_late: bool,
}

impl ServerLook {
    /// The rows of this weight that are not met, in words.
    pub(super) fn problems(&self, weight: Weight) -> Vec<String> {
        let is_it = |finding: &&Finding| {
            finding.problem.as_ref().is_some_and(|problem| problem.weight == weight)
        };
        self.findings.iter().filter(is_it).map(ToString::to_string).collect()
    }
}

/// Looks at a server as an agent does when it connects: what came of each requirement. Nothing is
/// changed. What is prepared for longer than `old` is found.
pub async fn examine_postgres(
    options: &PostgresOptions,
    old: Duration,
) -> Result<Vec<Finding>, StoreError> {
    let door = DatabaseDoor::new(options)?;
    let client = door.connect().await?;
    let seen = PostgresSeen::ask(&client, options, old).await;
    Ok(seen.map_err(|error| door.unavailable(&error))?.judge())
}

/// A connection of the agent's own, to a server that will do.
async fn connect(
    door: &DatabaseDoor,
    options: &PostgresOptions,
) -> Result<(Client, ServerLook), StoreError> {
    let client = door.connect().await?;
    let failed = |error| door.unavailable(&error);
    let seen = PostgresSeen::ask(&client, options, OLD).await.map_err(failed)?;
    let look = ServerLook {
        findings: seen.judge(),
        commits_late: seen.commits_late(),
        prepared_max: seen.prepared_max,
        version: seen.version,
    };
    let violations = look.problems(Weight::Refused);
    if !(violations.is_empty() || options.allow_unsafe) {
        let address = door.address().to_owned();
        return Err(StoreError::PostgresUnsafe { address, violations });
    }
    // Not before: a pooler would pass it on to others.
    commit_late(&client).await.map_err(failed)?;
    Ok((client, look))
}

impl Pools {
    /// Connects once, looks at the server, and sets up the pool.
    pub(super) async fn open(
        options: &PostgresOptions,
    ) -> Result<(Self, Arc<Client>, ServerLook), StoreError> {
        let door = DatabaseDoor::new(options)?;
        let (client, look) = connect(&door, options).await?;
        let waits = if look.commits_late { " -c synchronous_commit=on" } else { "" };
        let of_branches = door.clone().with_settings(&format!(
            "-c idle_in_transaction_session_timeout={IDLE_MS} \
             -c client_connection_check_interval=1000{waits}"
        ));
        let recycling_method = RecyclingMethod::Custom(RESET.to_owned());
        let config = of_branches.config();
        let manager = ManagerConfig { recycling_method };
        let manager = Manager::from_connect(config, of_branches, manager);
        let pool = Pool::builder(manager)
            .max_size(options.connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(options.call_timeout))
            .recycle_timeout(Some(options.call_timeout))
            .build();
        let unusable =
            |reason| StoreError::PostgresUnavailable { address: door.address().to_owned(), reason };
        let pool = pool.map_err(|error| unusable(error.to_string()))?;
        let pools = Self { pool, door, options: options.clone(), own: Mutex::default() };
        Ok((pools, Arc::new(client), look))
    }

    /// Where it is, without user and password.
    pub(super) fn address(&self) -> &str {
        self.door.address()
    }

    /// A connection for a branch, or for what must be durable by itself.
    pub(super) async fn session(&self) -> Result<PoolSession, StoreError> {
        match self.pool.get().await {
            Ok(object) => Ok(PoolSession { object: Some(object) }),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let reason = "all connections for branches are in use".to_owned();
                Err(StoreError::PostgresBusy { address: self.address().to_owned(), reason })
            }
            Err(PoolError::Backend(error)) => Err(self.door.unavailable(&error)),
            Err(error) => Err(self.unavailable(error.to_string())),
        }
    }

    /// The agent's own connection, if there is one that has not broken.
    pub(super) fn own(&self) -> Option<Arc<Client>> {
        lock(&self.own).clone().filter(|client| !client.is_closed())
    }

    /// Another one of the agent's own, and what the server is; nobody uses it before it is set.
    pub(super) async fn connect_own(&self) -> Result<(Arc<Client>, ServerLook), StoreError> {
        let (client, look) = connect(&self.door, &self.options).await?;
        Ok((Arc::new(client), look))
    }

    pub(super) fn set_own(&self, client: Arc<Client>) {
        *lock(&self.own) = Some(client);
    }

    /// Waits for a call of the agent's own no longer than one may take. A connection that is silent
    /// is given up.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.options.call_timeout, call).await {
            Ok(result) => result.map_err(|error| self.unavailable(words(&error))),
            Err(_) => {
                *lock(&self.own) = None;
                Err(self.unavailable(format!("no answer within {:?}", self.options.call_timeout)))
            }
        }
    }

    pub(super) fn unavailable(&self, reason: String) -> StoreError {
        StoreError::PostgresUnavailable { address: self.address().to_owned(), reason }
    }
}

/// A connection of the pool. Unless it is said to be clean, it is closed, so that whatever is open
/// there is rolled back.
pub(super) struct PoolSession {
    object: Option<Object>,
}

impl PoolSession {
    pub(super) fn client(&self) -> &Client {
        // It is there until it is dropped or given back.
        self.object.as_ref().expect("a session in use has its connection")
    }

    /// Gives it back: no transaction is open there.
    pub(super) fn give_back(mut self) {
        self.object = None;
    }
}

impl Drop for PoolSession {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// What is committed on this connection does not wait for the disk.
async fn commit_late(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("SET synchronous_commit = off").await
}
