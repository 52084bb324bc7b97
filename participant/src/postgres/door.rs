//! How a connection is made: by the URL, and with the password of now.

use std::path::PathBuf;
use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::options::PostgresOptions;
use super::said::words;
use crate::store::StoreError;

/// A setting that a session has only if nobody between drops what the agent sends.
const OF_SESSION: &str = "-c assent.session=kept";

/// What a pooler says that takes no settings.
const SAID_BY_POOLER: &str = "unsupported startup parameter";

/// The way to a database.
#[derive(Debug, Clone)]
pub(super) struct DatabaseDoor {
    config: Config,
    password_file: Option<PathBuf>,
    address: String,
    timeout: Duration,
}

impl DatabaseDoor {
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let address = options.address();
        let bad = |reason: String| StoreError::PostgresBadUrl { address: address.clone(), reason };
        // The words of the parser may quote the URL.
        let config = options.url.parse::<Config>();
        let mut config = config.map_err(|_| bad("it is none of postgres://user@host/db".into()))?;
        config.application_name("assent").connect_timeout(options.call_timeout);
        let timeout = options.call_timeout;
        let password_file = options.password_file.clone();
        let door = Self { config, password_file, address: address.clone(), timeout };
        door.password().map_err(|(file, error)| {
            bad(format!("the password file {}: {error}", file.display()))
        })?;
        Ok(door.with_settings(OF_SESSION))
    }

    /// The same, with more settings of the session.
    pub(super) fn with_settings(mut self, settings: &str) -> Self {
        let options = match self.config.get_options() {
            Some(given) => format!("{given} {settings}"),
            None => settings.to_owned(),
        };
        self.config.options(options);
        self
    }

    /// Where it leads, without user and password.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// How it is configured, without the password of a file.
    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// Connects, within the time that a call may take.
    pub(super) async fn connect(&self) -> Result<Client, StoreError> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(Ok((client, _task))) => Ok(client),
            Ok(Err(error)) => Err(self.unavailable(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// That there is no connection, with what to do where that is known.
    pub(super) fn unavailable(&self, error: &Error) -> StoreError {
        let words = words(error);
        let reason = match words.contains(SAID_BY_POOLER) {
            true => format!("{words}: a pooler stands between; connect to PostgreSQL itself"),
            false => words,
        };
        StoreError::PostgresUnavailable { address: self.address.clone(), reason }
    }

    fn silent(&self) -> StoreError {
        let reason = format!("no connection within {:?}", self.timeout);
        StoreError::PostgresUnavailable { address: self.address.clone(), reason }
    }

    /// Has the server stop what a session runs.
    pub(super) async fn cancel(token: tokio_postgres::CancelToken) {
        // Nothing depends on whether it does.
        let _ = token.cancel_query(NoTls).await;
    }

    async fn open(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let mut config = self.config.clone();
        // One that cannot be read just now is written just now, perhaps: the server says no.
        if let Ok(Some(password)) = self.password() {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = words(&error), "a connection to PostgreSQL has ended");
            }
        });
        Ok((client, task))
    }

    fn password(&self) -> Result<Option<String>, (PathBuf, std::io::Error)> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let read = std::fs::read_to_string(file).map_err(|error| (file.clone(), error))?;
        Ok(Some(read.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// For the pool: each new connection is made anew, by this door's own settings.
impl Connect for DatabaseDoor {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        self.open().boxed()
    }
}
