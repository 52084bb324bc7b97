//! The connection: opened lazily, one at a time, and never used before the handshake has said whose
//! data is behind it (invariant 12). A multiplexed connection does not reconnect by itself, so that
//! one connection is one process life of the server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use assent_common::participant::{Found, OwnData, Unlogged};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use uuid::Uuid;

use super::control::Field;
use super::decode;
use super::mutants;
use super::owner::{Beats, Estranged, Guard, Stake, Turn};
use super::requirements::{self, Examined, Weight};
use super::scripts::{Script, Scripts};
use super::standby::StandsByFor;
use super::whole::Trust;
use super::writable::Writes;
use super::{Store, StoreError, StoreOptions, StoreState, lock, rights, unlogged};
use crate::store::markers::Markers;

/// While a server is down, every batch would try to connect; within this time they share one
/// failure.
const FAILURE_SHARED: Duration = Duration::from_millis(50);

/// No owner writes to fenced data, because no agent resynchronised with it.
pub(super) use assent_common::participant::FENCED;

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Examined,
    /// What is wrong with the server, which the operator chose to put up with.
    pub(super) violations: Vec<String>,
    /// Whether what this life of the server has loaded is whole.
    pub(super) trust: Trust,
    /// The owner's rounds run one after the other.
    pub(super) turn: tokio::sync::RwLock<Turn>,
    /// Who owns the Redis, if that is another agent.
    pub(super) stands_by_for: StandsByFor,
    /// The rules that the agent's user needs and has lost since it connected.
    pub(super) rights_lost: Mutex<Vec<String>>,
    /// Why votes would not count, as far as is known: too few replicas are online, or they did not
    /// acknowledge the last ones.
    pub(super) lacks_replicas: Mutex<Option<String>>,
}

/// The one connection, or the way to it.
#[derive(Debug, Default)]
pub(super) struct Link {
    current: RwLock<Option<Arc<Live>>>,
    /// Held while connecting; keeps the last failure.
    connecting: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    last_error: Mutex<Option<String>>,
    /// How many times it was asked who owns the Redis.
    pub(super) claims: AtomicU64,
    /// Other agents that this one cannot reach.
    pub(super) estranged: Mutex<Estranged>,
    /// The pulse of an owner that the server does not list.
    pub(super) beats: Mutex<Beats>,
    /// What this agent last set the owner key to, or tried to.
    pub(super) claimed: Mutex<Option<Guard>>,
    /// Counts how often the connection, or who owns the Redis, has changed.
    pub(super) changes: tokio::sync::watch::Sender<u64>,
}

impl Link {
    pub(super) fn current(&self) -> Option<Arc<Live>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_current(&self, live: &Arc<Live>) -> bool {
        self.current().is_some_and(|current| Arc::ptr_eq(&current, live))
    }

    fn set(&self, live: Option<Arc<Live>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = live;
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// What a Redis error says, for people.
pub(super) fn reason(error: &RedisError) -> String {
    error.to_string()
}

pub(super) fn unavailable(options: &StoreOptions, error: &RedisError) -> StoreError {
    let (address, reason) = (options.address(), reason(error));
    match decode::refuses(error) {
        Some(code) => StoreError::Refuses { address, code, reason },
        None => StoreError::Unavailable { address, reason },
    }
}

/// Why a server does not show what must be known of it: where that is a right of the agent's user,
/// with the command that gives it.
pub(super) fn not_shown(options: &StoreOptions, user: &str, error: &RedisError) -> StoreError {
    let found = unavailable(options, error);
    let right = decode::command_denied(&error.to_string()).map(|name| rights::quoted(&name));
    match (found, right) {
        (StoreError::Refuses { address, code, reason }, Some(right)) => {
            let user = rights::quoted(user);
            let reason = format!("{reason}; allow it: redis-cli ACL SETUSER {user} +{right}");
            StoreError::Refuses { address, code, reason }
        }
        (found, _) => found,
    }
}

/// [`Examined::file_off_in`] of the last look, over all connections.
pub(super) type FileOffIn = Mutex<Option<String>>;

/// Connects, and looks at the server. `off_in` is [`Examined::file_off_in`] of the last look.
pub(super) async fn connect(
    options: &StoreOptions,
    off_in: Option<String>,
) -> Result<(MultiplexedConnection, Examined), StoreError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout));
    let client = options.client()?;
    let user = client.get_connection_info().redis_settings().username();
    let user = user.unwrap_or("default").to_owned();
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connection.map_err(|error| unavailable(options, &error))?;
    let server = requirements::look(&mut connection, &user, &options.control_key, off_in).await;
    let server = server.map_err(|error| not_shown(options, &user, &error))?;
    Ok((connection, server))
}

/// Connects to a server that keeps the promises.
async fn open(options: &StoreOptions, file_off_in: &FileOffIn) -> Result<Live, StoreError> {
    let off_in = lock(file_off_in).clone();
    let (mut connection, server) = connect(options, off_in).await?;
    lock(file_off_in).clone_from(&server.file_off_in);
    let violations = fit(&server, options)?;
    for advice in server.problems(Weight::Advice) {
        tracing::warn!(advice, "the server works, but its settings could be better");
    }
    let turn = tokio::sync::RwLock::new(Turn::Aside);
    let trust = Trust::ask(&mut connection).await.map_err(|error| unavailable(options, &error))?;
    let stands_by_for = StandsByFor::default();
    let rights_lost = Mutex::default();
    let not_seen = "which replicas there are is not known yet";
    let lacks_replicas = Mutex::new((options.min_replicas > 0).then(|| not_seen.to_owned()));
    Ok(Live {
        connection,
        server,
        violations,
        trust,
        turn,
        stands_by_for,
        rights_lost,
        lacks_replicas,
    })
}

/// What would lose votes, if the operator chose to put up with it; else that is an error, as is
/// what must be waited for.
pub(super) fn fit(server: &Examined, options: &StoreOptions) -> Result<Vec<String>, StoreError> {
    let reasons = server.problems(Weight::Waits);
    if !reasons.is_empty() {
        return Err(StoreError::NotYet { address: options.address(), reasons });
    }
    let violations = server.problems(Weight::Refused);
    if mutants::minds(&violations) && !options.allow_unsafe_redis {
        return Err(StoreError::Unsafe { address: options.address(), violations });
    }
    Ok(violations)
}

/// A random number below 2^53, which a script's numbers can hold; never that of fenced data.
pub(super) fn new_incarnation() -> u64 {
    const MASK: u128 = (1 << 53) - 1;
    // The last 62 bits of a UUIDv7 are random.
    u64::try_from(Uuid::now_v7().as_u128() & MASK).unwrap_or_default().max(1)
}

/// What the control hash says of the data.
pub(super) async fn identity(live: &Live, key: &str) -> RedisResult<Found> {
    let mut command = redis::cmd("HMGET");
    let [inc, seq] = [Field::Incarnation, Field::Seq];
    command.arg(key).arg(inc).arg(seq).arg(Field::Ended).arg(Field::Expected);
    let found: [Option<u64>; 4] = command.query_async(&mut live.connection.clone()).await?;
    let [incarnation, seq, ended, expected] = found;
    let or_none = Option::unwrap_or_default;
    Ok(Found { incarnation, seq: or_none(seq), ended: or_none(ended), expected: or_none(expected) })
}

async fn find_or_create_incarnation(live: &Live, key: &str) -> RedisResult<Found> {
    let found = identity(live, key).await?;
    if found.incarnation.is_some() {
        return Ok(found);
    }
    let mut command = redis::cmd("HSETNX");
    command.arg(key).arg(Field::Incarnation).arg(new_incarnation());
    let () = command.query_async(&mut live.connection.clone()).await?;
    // Another agent may have been first.
    identity(live, key).await
}

/// Writes the participant's name into the control hash, or finds its own there. Branches are known
/// by txid only, so that two participants with one control hash would take each other's branches
/// for their own.
pub(super) async fn claim(live: &Live, options: &StoreOptions) -> Result<(), StoreError> {
    let Some(name) = &options.participant else { return Ok(()) };
    let failed = |error: RedisError| unavailable(options, &error);
    let connection = &mut live.connection.clone();
    let mut reads = redis::cmd("HGET");
    reads.arg(&options.control_key).arg(Field::Participant);
    let mut owner: Option<String> = reads.query_async(connection).await.map_err(failed)?;
    if owner.is_none() {
        // Only then: a Redis without memory refuses it, and has outcomes to be told.
        let mut command = redis::cmd("HSETNX");
        command.arg(&options.control_key).arg(Field::Participant).arg(name.as_str());
        let () = command.query_async(connection).await.map_err(failed)?;
        owner = reads.query_async(connection).await.map_err(failed)?;
    }
    let owner = owner.unwrap_or_default();
    if owner == name.as_str() {
        return Ok(());
    }
    Err(StoreError::Claimed { address: options.address(), owner, name: name.to_string() })
}

impl Store {
    /// Connects, checks the settings of Redis, and reads or makes the incarnation of its data.
    pub async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let file_off_in = FileOffIn::default();
        let live = open(&options, &file_off_in).await?;
        let identity = find_or_create_incarnation(&live, &options.control_key).await;
        let found = identity.map_err(|error| unavailable(&options, &error))?;
        let own = OwnData::begins(found);
        let data = own.known.data;
        claim(&live, &options).await?;
        for violation in &live.violations {
            tracing::warn!(violation, "unsafe Redis: committed transactions may be lost");
        }
        let store = Self {
            owner_key: format!("{}:owner", options.control_key),
            agent: Uuid::now_v7().simple().to_string(),
            options,
            file_off_in,
            incarnation: AtomicU64::new(data.incarnation),
            view: AtomicU64::new(new_incarnation()),
            link: Link::default(),
            scripts: Scripts::default(),
            quarantine: RwLock::new(None),
            seq_seen: AtomicU64::new(data.seq),
            ended_seen: AtomicU64::new(own.known.ended),
            markers: Mutex::new(Markers::default()),
            unlogged: Mutex::new(Unlogged::new(data)),
            lives: Mutex::default(),
            nameless: Mutex::default(),
            stale: Mutex::default(),
            has_stale: AtomicBool::new(false),
            served: Mutex::default(),
            words: tokio::sync::Mutex::default(),
            by_hand: Mutex::default(),
            writes: Writes::default(),
        };
        if own.is_quarantined {
            // No script of this agent runs before it knows of the data's next incarnation.
            store.quarantine("it was fenced before this agent started".to_owned());
        } else {
            store.compare(&live, store.known(), found).await?;
        }
        unlogged::look(&store, &live).await?;
        live.begin(store.arbitrate(&live, Stake::Nothing).await?).await;
        if let Err(error) = store.verify(&live).await {
            tracing::warn!(%error, "the data that Redis has loaded is not verified yet");
        }
        store.link.set(Some(Arc::new(live)));
        Ok(store)
    }

    /// Loads a script into the server, and remembers its digest.
    pub(super) async fn load(&self, live: &Live, script: Script) -> RedisResult<()> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(mutants::script(script.source()));
        let digest: String = command.query_async(&mut live.connection.clone()).await?;
        self.scripts.learn(script, digest.into());
        Ok(())
    }

    /// The connection, opened if need be.
    pub(super) async fn live(&self) -> Result<Arc<Live>, StoreError> {
        if let Some(live) = self.link.current() {
            return Ok(live);
        }
        let mut failure = self.link.connecting.lock().await;
        if let Some(live) = self.link.current() {
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
                tracing::info!(run_id = live.server.run_id, "connected to Redis again");
                self.link.set(Some(Arc::clone(&live)));
                Ok(live)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                *lock(&self.link.last_error) = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Connects again, and compares the data with what this agent knew.
    async fn reconnect(&self) -> Result<Arc<Live>, StoreError> {
        let live = open(&self.options, &self.file_off_in).await?;
        self.view.store(new_incarnation(), Ordering::Release);
        // Before Redis is asked: a vote of the connection that was given up may still arrive there,
        // and then here.
        let known = self.known();
        let identity = identity(&live, &self.options.control_key).await;
        let found = identity.map_err(|error| unavailable(&self.options, &error))?;
        self.compare(&live, known, found).await?;
        if let Err(error) = self.tell_lives(&live).await {
            // A full Redis is no reason not to serve what can be served.
            tracing::warn!(%error, "the lives of logs that were heard are not in the data yet");
        }
        unlogged::look(self, &live).await?;
        self.recognise(&live).await.map_err(|error| unavailable(&self.options, &error))?;
        live.begin(self.arbitrate(&live, Stake::Nothing).await?).await;
        Ok(Arc::new(live))
    }

    /// Keeps the turn in order, now and then: the sole owner forgets what was swept, and writes by
    /// `EXEC` again if it may; who stands aside looks whether it is alone by now.
    pub(super) async fn take_turn(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let mut turn = live.turn.write().await;
        match &mut *turn {
            Turn::Sole(owner) => {
                owner.sweep();
                if !self.watch_again(live, owner).await? {
                    self.disconnect(live, "another agent owns this Redis");
                }
            }
            Turn::Aside => self.arbitrate_again(live, &mut turn, Stake::Nothing).await?,
            // Whether the other still owns the Redis, the pulse looks.
            Turn::Standby(_) => {}
        }
        Ok(())
    }

    /// Gives up a connection that failed; the next call opens another.
    pub(super) fn disconnect(&self, failed: &Arc<Live>, why: &str) {
        if self.link.is_current(failed) {
            tracing::warn!(why, "the connection to Redis is given up");
            *lock(&self.link.last_error) = Some(why.to_owned());
            self.link.set(None);
        }
    }

    /// Whether the store can be used, as far as is known without asking.
    #[must_use]
    pub fn state(&self) -> StoreState {
        if let Some(reason) = self.is_quarantined() {
            return StoreState::Quarantined(reason);
        }
        match self.link.current() {
            Some(live) => live.trust.waits_for().map_or(StoreState::Ready, StoreState::Verifying),
            None => {
                let last_error = lock(&self.link.last_error).clone();
                StoreState::Disconnected(last_error.unwrap_or_default())
            }
        }
    }

    /// Whether this agent owns its Redis. Only an owner holds the turn for itself for longer than a
    /// look.
    #[must_use]
    pub fn is_sole_owner(&self) -> bool {
        let live = self.link.current();
        live.is_some_and(|live| {
            live.turn.try_read().map_or(true, |turn| matches!(*turn, Turn::Sole(_)))
        })
    }

    /// The settings of Redis that would lose votes, which the operator chose to put up with.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.link.current().map(|live| live.violations.clone()).unwrap_or_default()
    }
}
