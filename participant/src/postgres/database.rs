//! The database: its connections, which data it is, and whether it can be used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assent_common::ids::{LogId, TransactionId, Txid};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::resync::{DataPoint, Progress, Served};
use tokio_postgres::Client;

use super::connection::{Pools, ServerLook};
use super::data::{DataMemory, number};
use super::lives::LivesInPostgres;
use super::mutants;
use super::options::PostgresOptions;
use super::said::words;
use crate::mutex::lock;
use crate::store::requirements::Weight;
use crate::store::{ByHand, KnownLives, NotAdmitted, Says, StoreError, StoreState};

/// While a server is down, every batch would try to connect; within this time they share one
/// failure.
const FAILURE_SHARED: Duration = Duration::from_millis(50);

/// What logs have said of fenced data.
#[derive(Debug, Default)]
pub(super) struct LogWords {
    pub(super) served: Vec<Served>,
    pub(super) lost: BTreeSet<Txid>,
}

/// The database of one service, as one agent uses it.
#[derive(Debug)]
pub(crate) struct Database {
    pub(super) options: PostgresOptions,
    pub(super) connections: Pools,
    server: Mutex<ServerLook>,
    pub(super) identity: DataMemory,
    pub(super) lives: KnownLives,
    /// What the names of prepared transactions begin with: unique in the cluster.
    pub(super) gid_prefix: String,
    /// What operators decided by hand, as the last scan found it.
    pub(super) by_hand: Mutex<BTreeMap<Txid, ByHand>>,
    /// What the logs have said since the data was fenced.
    pub(super) words: tokio::sync::Mutex<LogWords>,
    /// The branches whose statements run here, by the process of their session.
    pub(super) running: Mutex<HashMap<i32, (Txid, TransactionId)>>,
    pub(super) flushes: Flushes,
    /// Held while connecting; keeps the last failure.
    connecting: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    last_error: Mutex<Option<String>>,
}

impl Database {
    /// Connects, checks the settings of the server, and makes or finds what is kept there.
    pub(crate) async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        let (connections, client, server) = Pools::open(&options).await?;
        for violation in server.problems(Weight::Refused) {
            tracing::warn!(violation, "unsafe PostgreSQL: committed transactions may be lost");
        }
        for advice in server.problems(Weight::Advice) {
            tracing::warn!(advice, "PostgreSQL is not as it should be");
        }
        let refused = |error: tokio_postgres::Error| connections.unavailable(words(&error));
        let name = options.participant.as_ref().map(ToString::to_string);
        let begun = DataMemory::begin(&client, name.as_deref()).await;
        let (identity, other) = begun.map_err(refused)?;
        if let Some(owner) = other {
            let address = connections.address().to_owned();
            let name = name.unwrap_or_default();
            return Err(StoreError::PostgresClaimed { address, owner, name });
        }
        let oid = "SELECT oid::text FROM pg_database WHERE datname = current_database()";
        let row = client.query_typed_one(oid, &[]).await.map_err(refused)?;
        let gid_prefix = mutants::gid_prefix(format!("assent:{}:", row.get::<_, String>(0)));
        let postgres = Self {
            options,
            connections,
            server: Mutex::new(server),
            identity,
            lives: KnownLives::default(),
            gid_prefix,
            by_hand: Mutex::default(),
            words: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            flushes: Flushes::default(),
            connecting: tokio::sync::Mutex::default(),
            last_error: Mutex::default(),
        };
        postgres.identity.look(&postgres.connections, &client).await?;
        postgres.connections.set_own(client);
        Ok(postgres)
    }

    /// The agent's own connection, opened if need be: then the data is compared with what was known
    /// of it, before anybody uses it.
    pub(super) async fn own(&self) -> Result<Arc<Client>, StoreError> {
        if let Some(client) = self.connections.own() {
            return Ok(client);
        }
        let mut failure = self.connecting.lock().await;
        if let Some(client) = self.connections.own() {
            return Ok(client);
        }
        if let Some((at, error)) = &*failure
            && at.elapsed() < FAILURE_SHARED
        {
            return Err(error.clone());
        }
        match self.connect_again().await {
            Ok(client) => {
                *failure = None;
                *lock(&self.last_error) = None;
                Ok(client)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                *lock(&self.last_error) = Some(error.to_string());
                Err(error)
            }
        }
    }

    async fn connect_again(&self) -> Result<Arc<Client>, StoreError> {
        let (client, server) = self.connections.connect_own().await?;
        *lock(&self.server) = server;
        self.identity.look(&self.connections, &client).await?;
        tracing::info!("connected to PostgreSQL again");
        let store = LivesInPostgres { connections: &self.connections, client: &client };
        if let Err(error) = self.lives.tell(&store).await {
            tracing::warn!(%error, "the lives of logs that were heard are not in the data yet");
        }
        self.connections.set_own(Arc::clone(&client));
        Ok(client)
    }

    /// Looks whether the server answers, and whether the data is still what this agent knew.
    pub(crate) async fn pulse(&self) -> Result<(), StoreError> {
        let client = self.own().await?;
        self.identity.look(&self.connections, &client).await.map(drop)
    }

    /// Whether the store can be used, as far as is known without asking.
    pub(crate) fn state(&self) -> StoreState {
        match (self.identity.is_quarantined(), self.connections.own()) {
            (Some(why), _) => StoreState::Quarantined(why),
            (None, Some(_)) => StoreState::Ready,
            (None, None) => {
                StoreState::Disconnected(lock(&self.last_error).clone().unwrap_or_default())
            }
        }
    }

    /// The settings of the server that would lose votes, which the operator chose to put up with.
    pub(crate) fn warnings(&self) -> Vec<String> {
        lock(&self.server).problems(Weight::Refused)
    }

    /// The server, for people.
    pub(crate) fn server_told(&self) -> String {
        let version = lock(&self.server).version.clone();
        format!("PostgreSQL {version}, branches at {}", self.options.isolation)
    }

    /// How many transactions may be prepared at the same time, in the cluster.
    pub(super) fn prepared_max(&self) -> u64 {
        u64::try_from(lock(&self.server).prepared_max).unwrap_or_default()
    }

    /// Transactions that are prepared in the cluster, whoever began them, and how many may be.
    pub(crate) async fn prepared(&self) -> Result<(u64, u64), StoreError> {
        let client = self.own().await?;
        const COUNT: &str = "SELECT count(*) FROM pg_prepared_xacts";
        let row = self.connections.within(client.query_typed_one(COUNT, &[])).await?;
        Ok((number(&row, 0), self.prepared_max()))
    }

    /// What is prepared by others than participants, and holds back vacuum: the oldest, for people.
    pub(crate) async fn prepared_by_others(&self) -> Result<Option<String>, StoreError> {
        const OLDEST: &str = "SELECT left(gid, 80), owner::text, database::text, \
             extract(epoch FROM clock_timestamp() - prepared)::int8 FROM pg_prepared_xacts \
             WHERE NOT starts_with(gid, 'assent:') \
             AND prepared < clock_timestamp() - interval '1 minute' ORDER BY prepared LIMIT 1";
        let client = self.own().await?;
        let rows = self.connections.within(client.query_typed(OLDEST, &[])).await?;
        Ok(rows.first().map(|row| {
            let [gid, owner, database] = [0, 1, 2].map(|place| row.get::<_, String>(place));
            let seconds = number(row, 3);
            format!(
                "'{gid}' of user {owner} is prepared in database {database} for {seconds} s, by \
                 nobody of Assent: it holds back vacuum there"
            )
        }))
    }

    /// The incarnation of the data, and how many branches have ended in it.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.identity.progress()
    }

    /// Whether a log that knows this of the data knows something else than this agent does.
    pub(crate) fn is_other_data(
        &self,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> bool {
        !self.identity.has_all_of(known, progress)
    }

    /// Whether a log has spoken here.
    pub(crate) async fn has_spoken(&self, log_id: LogId) -> Result<bool, StoreError> {
        Ok(self.heard(log_id).await?.is_some_and(|heard| heard.epoch.0 > 0))
    }

    /// Why this life of a coordinator may not speak here; `None` if it may.
    pub(crate) async fn admit_life(
        &self,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Option<NotAdmitted> {
        if let Some(known) = self.lives.admit_at_once(coordinator, says) {
            return known;
        }
        let admitted = match self.own().await {
            Ok(client) => {
                let store = LivesInPostgres { connections: &self.connections, client: &client };
                self.lives.admit(&store, coordinator, says).await
            }
            Err(error) => Err(error),
        };
        admitted.unwrap_or_else(|error| Some(NotAdmitted::not_compared(&error)))
    }

    /// The logs of which a copy was refused since they were last heard themselves, and why.
    pub(crate) fn stale_logs(&self) -> BTreeMap<LogId, String> {
        self.lives.stale_logs()
    }
}

/// What has reached the disk, as far as calls tell that wait for it: all that was written before
/// such a call *began* has too.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Moments, as numbers.
    clock: AtomicU64,
    /// When the last one began that has come back.
    last: AtomicU64,
}

impl Flushes {
    /// This moment.
    pub(super) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    /// A call that began then has come back.
    pub(super) fn done(&self, began: u64) {
        self.last.fetch_max(began, Ordering::AcqRel);
    }

    /// Whether all that was written at this moment is on disk.
    pub(super) fn cover(&self, written: u64) -> bool {
        self.last.load(Ordering::Acquire) > written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invariant 12: only what began later says that something is on disk.
    #[test]
    fn a_call_that_was_under_way_says_nothing_of_what_was_written_meanwhile() {
        let flushes = Flushes::default();
        let under_way = flushes.now();
        let written = flushes.now();
        flushes.done(under_way);
        assert!(!flushes.cover(written));
        let began = flushes.now();
        assert!(!flushes.cover(written));
        flushes.done(began);
        assert!(flushes.cover(written));
    }
}
