//! The way to the Redis of one service: opened lazily, one connection at a time, and never used
//! before the handshake has said whose data is behind it (invariant 12).

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use assent_common::participant::OwnData;
use redis::RedisError;
use tokio::sync::watch;

use super::connection::{Connection, ServerMemory};
use super::data::{DataIdentity, claim, identity_or_new};
use super::lives::{KnownLives, LivesInRedis};
use super::owner::{Claims, OtherOwner, Stake, Turn};
use super::replicas::Replicas;
use super::whole::Trust;
use super::{StoreError, StoreOptions};
use crate::mutex::lock;

/// While a server is down, every batch would try to connect; within this time they share one
/// failure.
const FAILURE_SHARED: Duration = Duration::from_millis(50);

/// Whether the store can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// The connection is up, and the data is that of this agent's start.
    Ready,
    /// There is no connection; the next call tries again.
    Disconnected(String),
    /// Redis has started anew, and what it has loaded is not verified yet: nothing is voted
    /// meanwhile.
    Verifying(String),
    /// The data is not what it should be (invariant 12): everything is refused until it is
    /// resynchronised.
    Quarantined(String),
}

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Whether what this life of the server has loaded is whole.
    pub(super) trust: Trust,
    pub(super) replicas: Replicas,
    /// The owner's rounds run one after the other.
    pub(super) turn: tokio::sync::RwLock<Turn>,
    /// Who owns the Redis, if that is another agent: as the turn says it, without waiting for it.
    pub(super) stands_by_for: RwLock<Option<Arc<OtherOwner>>>,
}

/// The one connection, or the way to it.
#[derive(Debug)]
pub struct Link {
    pub(super) memory: Arc<ServerMemory>,
    pub(super) data: DataIdentity,
    pub(super) lives: KnownLives,
    pub(super) claims: Claims,
    current: RwLock<Option<Arc<Live>>>,
    /// Held while connecting; keeps the last failure.
    connecting: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    last_error: Mutex<Option<String>>,
    /// Counts how often the connection, or who owns the Redis, has changed.
    pub(super) changes: watch::Sender<u64>,
}

impl Live {
    async fn new(connection: Connection) -> Result<Self, StoreError> {
        Ok(Self {
            trust: connection.or_unavailable(Trust::ask(&connection).await)?,
            replicas: Replicas::new(connection.options()),
            connection,
            turn: tokio::sync::RwLock::new(Turn::Aside),
            stands_by_for: RwLock::new(None),
        })
    }

    pub(super) fn stands_by_for(&self) -> Option<Arc<OtherOwner>> {
        self.stands_by_for.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another turn in the place of this one.
    pub(super) fn turns(&self, turn: &mut Turn, next: Turn) {
        let other = match &next {
            Turn::Standby(owner) => Some(Arc::clone(owner)),
            Turn::Aside | Turn::Sole(_) => None,
        };
        *self.stands_by_for.write().unwrap_or_else(PoisonError::into_inner) = other;
        *turn = next;
    }
}

impl Link {
    /// Connects, checks the settings of Redis, and reads or makes the incarnation of its data.
    pub(super) async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let memory = ServerMemory::new(options);
        let live = Live::new(memory.open().await?).await?;
        let connection = &live.connection;
        let found = connection.or_unavailable(identity_or_new(connection).await)?;
        let own = OwnData::begins(found);
        claim(connection).await?;
        for violation in &connection.violations {
            tracing::warn!(violation, "unsafe Redis: committed transactions may be lost");
        }
        let link = Self {
            memory,
            data: DataIdentity::begin(own),
            lives: KnownLives::default(),
            claims: Claims::new(),
            current: RwLock::new(None),
            connecting: tokio::sync::Mutex::default(),
            last_error: Mutex::default(),
            changes: watch::Sender::default(),
        };
        if !own.is_quarantined {
            link.data.compare(connection, own.known, found).await?;
        }
        link.begin(&live).await?;
        if let Err(error) = live.trust.verify(connection).await {
            tracing::warn!(%error, "the data that Redis has loaded is not verified yet");
        }
        link.set(Some(Arc::new(live)));
        Ok(link)
    }

    /// The connection, opened if need be.
    pub(super) async fn live(&self) -> Result<Arc<Live>, StoreError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let mut failure = self.connecting.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if let Some((at, error)) = &*failure
            && at.elapsed() < FAILURE_SHARED
        {
            return Err(error.clone());
        }
        match self.reconnect().await {
            Ok(live) => {
                *failure = None;
                let live = Arc::new(live);
                tracing::info!(run_id = live.connection.server.run_id, "connected to Redis again");
                self.set(Some(Arc::clone(&live)));
                Ok(live)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                *lock(&self.last_error) = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// The connection, once what its server has loaded is verified.
    pub(super) async fn verified(&self) -> Result<Arc<Live>, StoreError> {
        let live = self.live().await?;
        live.trust.verify(&live.connection).await?;
        Ok(live)
    }

    /// Connects again, and compares the data with what this agent knew.
    async fn reconnect(&self) -> Result<Live, StoreError> {
        let live = Live::new(self.memory.open().await?).await?;
        let connection = &live.connection;
        self.data.next_view();
        self.data.look(connection).await?;
        if let Err(error) = self.lives.tell(&LivesInRedis { connection, data: &self.data }).await {
            // A full Redis is no reason not to serve what can be served.
            tracing::warn!(%error, "the lives of logs that were heard are not in the data yet");
        }
        connection.or_unavailable(live.trust.recognise(connection).await)?;
        self.begin(&live).await?;
        Ok(live)
    }

    /// The last steps of every handshake: a look at what others did in one phase, and who owns the
    /// Redis.
    async fn begin(&self, live: &Live) -> Result<(), StoreError> {
        let connection = &live.connection;
        self.data.look_for_one_phase(connection).await?;
        let next = self.claims.arbitrate(connection, &self.data, Stake::Nothing).await?;
        live.turns(&mut *live.turn.write().await, next);
        Ok(())
    }

    pub(super) fn current(&self) -> Option<Arc<Live>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_current(&self, live: &Live) -> bool {
        self.current().is_some_and(|current| std::ptr::eq(&*current, live))
    }

    fn set(&self, live: Option<Arc<Live>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = live;
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Gives up a connection that failed; the next call opens another.
    pub(super) fn give_up(&self, failed: &Live, why: &str) {
        if self.is_current(failed) {
            tracing::warn!(why, "the connection to Redis is given up");
            *lock(&self.last_error) = Some(why.to_owned());
            self.set(None);
        }
    }

    /// The error of a call; a connection that broke with it is given up, so that the next call
    /// opens another.
    pub(super) fn given_up(&self, live: &Live, error: &RedisError) -> StoreError {
        if error.is_io_error() {
            self.give_up(live, &error.to_string());
        }
        live.connection.unavailable(error)
    }

    /// Gives up the connection if this agent goes on with other data: what it knows is of the data
    /// before.
    pub(super) fn went_on(&self, is_other_data: bool) {
        if is_other_data && let Some(live) = self.current() {
            self.give_up(&live, "the data was repaired");
        }
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let live = self.live().await?;
        let answer = live.connection.send(&redis::cmd("PING")).await;
        answer.map(drop).map_err(|error| self.given_up(&live, &error))
    }

    /// Whether the store can be used, as far as is known without asking.
    #[must_use]
    pub fn state(&self) -> StoreState {
        if let Some(reason) = self.data.is_quarantined() {
            return StoreState::Quarantined(reason);
        }
        match self.current() {
            Some(live) => live.trust.waits_for().map_or(StoreState::Ready, StoreState::Verifying),
            None => {
                let last_error = lock(&self.last_error).clone();
                StoreState::Disconnected(last_error.unwrap_or_default())
            }
        }
    }

    /// The settings of Redis that would lose votes, which the operator chose to put up with.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.current().map(|live| live.connection.violations.clone()).unwrap_or_default()
    }

    /// Which replicas are missing; nothing if there are as many as votes need, and the last votes
    /// were acknowledged.
    pub async fn replicas_missing(&self) -> Result<Option<String>, StoreError> {
        if self.memory.options.min_replicas == 0 {
            return Ok(None);
        }
        let live = self.live().await?;
        let missing = live.replicas.missing(&live.connection).await;
        missing.map_err(|error| self.given_up(&live, &error))
    }

    /// What the last look found, where one takes too long: the connection waits for replicas.
    pub fn replicas_missed(&self) -> Option<String> {
        self.current()?.replicas.missed()
    }
}
