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
use tokio_postgres::{Client, Config, NoTls};

use super::options::PostgresOptions;
use super::said::words;
use crate::mutex::lock;
use crate::store::StoreError;

/// What the connection of a branch is reset by. Settings, advisory locks and temporary tables
/// outlive a transaction that was prepared.
const RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// A session that holds a transaction open, because its agent hangs, is ended after this time: its
/// branch was not prepared.
const IDLE_MS: u64 = 30_000;

/// How long a branch waits for a connection of the pool.
const POOL_WAIT: Duration = Duration::from_secs(2);

/// What is asked of the server, and what it may do to votes.
const LOOK: &str = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
     current_setting('fsync'), current_setting('full_page_writes'), \
     current_setting('synchronous_commit'), current_setting('max_prepared_transactions')::int, \
     current_setting('server_version')";

/// The oldest major version that is used: what is set for each session exists there.
const VERSION_MIN: i32 = 14;

/// The ways to one database.
#[derive(Debug)]
pub(super) struct Pools {
    pool: Pool,
    config: Config,
    address: String,
    call_timeout: Duration,
    own: Mutex<Option<Arc<Client>>>,
}

/// What a server is, and what of it speaks against the promises.
#[derive(Debug, Clone)]
pub(super) struct ServerLook {
    pub(super) version: String,
    pub(super) prepared_max: i32,
    pub(super) violations: Vec<String>,
    /// Whether the server would answer a commit before it is on disk.
    commits_late: bool,
}

impl Pools {
    /// Connects once, looks at the server, and sets up the pool.
    pub(super) async fn open(options: &PostgresOptions) -> Result<(Self, ServerLook), StoreError> {
        let address = options.address();
        let config = config(options)?;
        let client = connect(&config, &address, options.call_timeout).await?;
        let look = look(&client).await.map_err(|why| unavailable(&address, why))?;
        commit_late(&client).await.map_err(|error| unavailable(&address, words(&error)))?;
        if !(look.violations.is_empty() || options.allow_unsafe) {
            let violations = look.violations;
            return Err(StoreError::PostgresUnsafe { address, violations });
        }
        let mut of_branches = config.clone();
        let waits = if look.commits_late { " -c synchronous_commit=on" } else { "" };
        let settings = format!(
            "-c idle_in_transaction_session_timeout={IDLE_MS} \
             -c client_connection_check_interval=1000{waits}"
        );
        with_settings(&mut of_branches, &settings);
        let recycling_method = RecyclingMethod::Custom(RESET.to_owned());
        let manager = Manager::from_config(of_branches, NoTls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(options.connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(options.call_timeout))
            .recycle_timeout(Some(options.call_timeout))
            .build()
            .map_err(|error| unavailable(&address, error.to_string()))?;
        let connections = Self {
            pool,
            config,
            address,
            call_timeout: options.call_timeout,
            own: Mutex::new(Some(Arc::new(client))),
        };
        Ok((connections, look))
    }

    /// Where it is, without user and password.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A connection for a branch, or for what must be durable by itself.
    pub(super) async fn session(&self) -> Result<PoolSession, StoreError> {
        match self.pool.get().await {
            Ok(object) => Ok(PoolSession { object: Some(object) }),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let reason = "all connections for branches are in use".to_owned();
                Err(StoreError::PostgresBusy { address: self.address.clone(), reason })
            }
            Err(PoolError::Backend(error)) => Err(self.unavailable(words(&error))),
            Err(error) => Err(self.unavailable(error.to_string())),
        }
    }

    /// The agent's own connection, if there is one that has not broken.
    pub(super) fn own(&self) -> Option<Arc<Client>> {
        lock(&self.own).clone().filter(|client| !client.is_closed())
    }

    /// Another one of the agent's own; nobody uses it before it is set.
    pub(super) async fn connect_own(&self) -> Result<Arc<Client>, StoreError> {
        let client = Arc::new(connect(&self.config, &self.address, self.call_timeout).await?);
        self.within(commit_late(&client)).await?;
        Ok(client)
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
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(result) => result.map_err(|error| self.unavailable(words(&error))),
            Err(_) => {
                *lock(&self.own) = None;
                Err(self.unavailable(format!("no answer within {:?}", self.call_timeout)))
            }
        }
    }

    pub(super) fn unavailable(&self, reason: String) -> StoreError {
        unavailable(&self.address, reason)
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

async fn connect(config: &Config, address: &str, timeout: Duration) -> Result<Client, StoreError> {
    match tokio::time::timeout(timeout, config.connect(NoTls)).await {
        Ok(Ok((client, connection))) => {
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = words(&error), "a connection to PostgreSQL has ended");
                }
            });
            Ok(client)
        }
        Ok(Err(error)) => Err(unavailable(address, words(&error))),
        Err(_) => Err(unavailable(address, format!("no connection within {timeout:?}"))),
    }
}

fn config(options: &PostgresOptions) -> Result<Config, StoreError> {
    let address = options.address();
    let bad = |reason: String| StoreError::BadUrl { address: address.clone(), reason };
    // The words of the parser may quote the URL.
    let mut config: Config =
        options.url.parse().map_err(|_| bad("it is none of postgres://user@host/db".to_owned()))?;
    if let Some(file) = &options.password_file {
        let password = std::fs::read_to_string(file)
            .map_err(|error| bad(format!("the password file {}: {error}", file.display())))?;
        config.password(password.trim_end_matches(['\r', '\n']));
    }
    config.application_name("assent").connect_timeout(options.call_timeout);
    Ok(config)
}

fn with_settings(config: &mut Config, settings: &str) {
    let options = match config.get_options() {
        Some(given) => format!("{given} {settings}"),
        None => settings.to_owned(),
    };
    config.options(options);
}

async fn look(client: &Client) -> Result<ServerLook, String> {
    let row = client.query_typed_one(LOOK, &[]).await.map_err(|error| words(&error))?;
    let version: i32 = row.get(0);
    let mut violations = Vec::new();
    let mut needs = |is_met: bool, what: &str| {
        if !is_met {
            violations.push(what.to_owned());
        }
    };
    let setting = |place: usize| row.get::<_, String>(place);
    needs(version / 10_000 >= VERSION_MIN, "it is older than PostgreSQL 14: upgrade it");
    needs(!row.get::<_, bool>(1), "it is a standby, which takes no writes: name the primary");
    needs(setting(2) == "on", "`fsync` is off: a vote that is lost in a crash was no vote");
    needs(setting(3) == "on", "`full_page_writes` is off: a crash may damage what was voted");
    let prepared_max: i32 = row.get(5);
    needs(
        prepared_max > 0,
        "`max_prepared_transactions` is 0: set it to more than the transactions that may be in \
         doubt at once, 100 for example, and restart the server",
    );
    let commits_late = setting(4) == "off";
    Ok(ServerLook { version: setting(6), prepared_max, violations, commits_late })
}

fn unavailable(address: &str, reason: String) -> StoreError {
    StoreError::PostgresUnavailable { address: address.to_owned(), reason }
}
