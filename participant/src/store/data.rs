//! Which data it is that this agent goes on with, and how far it has seen it (invariant 12).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use assent_common::ids::{LogId, TxNumber};
use assent_common::participant::{Found, Heard, Known, OwnData, Unlogged};
use assent_common::wire::resync::{DataPoint, Progress};
use redis::RedisResult;
use uuid::Uuid;

use super::StoreError;
use super::connection::Connection;
use super::control::{Field, read_identity, read_mark};
use super::markers::{Marker, Markers};
use crate::mutex::lock;

/// No owner writes to fenced data, because no agent resynchronised with it.
pub(super) use assent_common::participant::FENCED;

/// What this agent knows of the data.
#[derive(Debug)]
pub(super) struct DataIdentity {
    /// The incarnation of the data that this agent resynchronised with last.
    incarnation: AtomicU64,
    quarantine: RwLock<Option<String>>,
    /// The highest vote number that this agent has seen: lower on a reconnect means that votes were
    /// lost.
    seq_seen: AtomicU64,
    /// The highest count of ended branches that this agent has seen.
    ended_seen: AtomicU64,
    /// Which look at the data this is; see `DataView`.
    view: AtomicU64,
    /// What was left of branches, and what each log has said of itself.
    pub(super) markers: Mutex<Markers>,
    /// What one phase came to, until its log has it: the done-markers, as they are in the data.
    pub(super) unlogged: Mutex<Unlogged<Arc<[u8]>>>,
}

impl DataIdentity {
    /// Of an agent that starts with this data.
    pub(super) fn begin(own: OwnData) -> Self {
        let Known { data, ended } = own.known;
        let identity = Self {
            incarnation: AtomicU64::new(data.incarnation),
            quarantine: RwLock::new(None),
            seq_seen: AtomicU64::new(data.seq),
            ended_seen: AtomicU64::new(ended),
            view: AtomicU64::new(new_incarnation()),
            markers: Mutex::default(),
            unlogged: Mutex::new(Unlogged::new(data)),
        };
        if own.is_quarantined {
            // No script of this agent runs before it knows of the data's next incarnation.
            identity.quarantine("it was fenced before this agent started".to_owned());
        }
        identity
    }

    /// The incarnation of the data that this agent resynchronised with last.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The data that this agent goes on with, and how far it has seen it.
    pub(super) fn known(&self) -> Known {
        let data = DataPoint {
            incarnation: self.incarnation(),
            seq: self.seq_seen.load(Ordering::Acquire),
        };
        Known { data, ended: self.ended_seen.load(Ordering::Acquire) }
    }

    /// The same, and whether it is in order.
    pub(super) fn own(&self) -> OwnData {
        let is_quarantined = self.is_quarantined().is_some();
        OwnData { known: self.known(), is_quarantined }
    }

    /// How many branches have ended in the data, as far as this agent has seen.
    pub(super) fn progress(&self) -> Option<Progress> {
        let Known { data, ended } = self.known();
        let incarnation = data.incarnation;
        self.is_quarantined().is_none().then_some(Progress { incarnation, ended })
    }

    /// Takes note of a vote that was given.
    pub(super) fn saw(&self, incarnation: u64, seq: u64) {
        // A number of data that is no more says nothing of the data that is.
        if incarnation == self.incarnation() {
            self.seq_seen.fetch_max(seq, Ordering::AcqRel);
        }
    }

    /// Takes note of how many branches have ended.
    pub(super) fn saw_ended(&self, incarnation: u64, ended: u64) {
        if incarnation == self.incarnation() {
            self.ended_seen.fetch_max(ended, Ordering::AcqRel);
        }
    }

    /// Which look at the data this is.
    pub(super) fn view(&self) -> u64 {
        self.view.load(Ordering::Acquire)
    }

    /// Another look begins.
    pub(super) fn next_view(&self) {
        self.view.store(new_incarnation(), Ordering::Release);
    }

    /// Why everything is refused, if it is.
    pub(super) fn is_quarantined(&self) -> Option<String> {
        self.quarantine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn quarantine(&self, reason: String) {
        self.quarantine_of(self.incarnation(), reason);
    }

    /// The same, if this agent still goes on with that data: what was found wrong with it may be
    /// repaired by now.
    pub(super) fn quarantine_of(&self, incarnation: u64, reason: String) -> bool {
        let mut quarantine = self.quarantine.write().unwrap_or_else(PoisonError::into_inner);
        let is_of_now = self.incarnation() == incarnation;
        if is_of_now && quarantine.is_none() {
            tracing::error!(reason, "quarantined: the data in Redis is not what this agent knew");
            *quarantine = Some(reason);
        }
        is_of_now
    }

    /// Data of another incarnation was met.
    pub(super) fn quarantine_foreign(&self, found: &str) {
        let reason = format!(
            "the data has incarnation {found:?}, this agent started with {}: Redis was flushed, \
             restored or replaced",
            self.incarnation()
        );
        self.quarantine(reason);
    }

    /// Goes on with this data. Whether it is other data: then what a connection knows is of the
    /// data before, and the connection is to be given up.
    #[must_use]
    pub(super) fn goes_on_with(&self, data: DataPoint) -> bool {
        lock(&self.unlogged).goes_on_with(data);
        let mut own = self.own();
        let is_other = own.goes_on_with(data);
        let Known { data, ended } = own.known;
        if !is_other {
            self.seq_seen.fetch_max(data.seq, Ordering::AcqRel);
            return false;
        }
        {
            // Who compared the data with what was known before finds this lock, and then what is
            // known now.
            let mut quarantine = self.quarantine.write().unwrap_or_else(PoisonError::into_inner);
            // What was seen of other data says nothing of this; until this is known, no vote on it
            // is taken for seen.
            self.seq_seen.store(data.seq, Ordering::Release);
            self.ended_seen.store(ended, Ordering::Release);
            self.incarnation.store(data.incarnation, Ordering::Release);
            *quarantine = None;
        }
        tracing::warn!(incarnation = data.incarnation, seq = data.seq, "the data is open");
        true
    }

    /// Takes note of a log that speaks here; the highest mark that is known of it.
    pub(super) fn raise(&self, log_id: LogId, said: Heard) -> TxNumber {
        let low_water = lock(&self.markers).raise(log_id, said);
        lock(&self.unlogged).let_go(log_id, low_water);
        low_water
    }

    /// Takes note of markers that were left.
    pub(super) fn left(&self, left: &[Marker]) {
        for marker in left {
            if let Marker::Fence(txid) = marker {
                lock(&self.unlogged).forget(*txid);
            }
        }
        let mut markers = lock(&self.markers);
        for marker in left {
            markers.left(*marker);
        }
    }

    /// Reads the other fields that the pattern has, and returns what was heard of each log,
    /// by this agent or by the hash: the pattern has its marks too.
    pub(super) async fn scan_markers(
        &self,
        connection: &Connection,
        pattern: &str,
        mut found: impl FnMut(Field<'_>, Vec<u8>),
    ) -> RedisResult<HashMap<LogId, Heard>> {
        let mut heard = lock(&self.markers).all_heard();
        let scanned = connection.scan(pattern, |field, value| match Field::parse(field) {
            // The hash may know more of a log than this agent, or less.
            Some(Field::Mark(log_id)) => {
                if let Some(stored) = read_mark(&value) {
                    let known = heard.entry(log_id).or_insert(stored);
                    *known = known.and(stored);
                }
            }
            Some(field) => found(field, value),
            None => {}
        });
        scanned.await?;
        Ok(heard)
    }
}

/// A random number below 2^53, which a script's numbers can hold; never that of fenced data.
pub(crate) fn new_incarnation() -> u64 {
    const MASK: u128 = (1 << 53) - 1;
    // The last 62 bits of a UUIDv7 are random.
    u64::try_from(Uuid::now_v7().as_u128() & MASK).unwrap_or_default().max(1)
}

/// What the control hash says of the data.
pub(super) async fn identity(connection: &Connection) -> RedisResult<Found> {
    let mut command = redis::cmd("HMGET");
    command.arg(connection.control_key()).arg(&Field::OF_IDENTITY);
    connection.ask(&command).await.map(read_identity)
}

/// The same; data that says nothing yet gets an incarnation.
pub(super) async fn identity_or_new(connection: &Connection) -> RedisResult<Found> {
    let found = identity(connection).await?;
    if found.incarnation.is_some() {
        return Ok(found);
    }
    let mut command = redis::cmd("HSETNX");
    command.arg(connection.control_key()).arg(Field::Incarnation).arg(new_incarnation());
    let () = connection.ask(&command).await?;
    // Another agent may have been first.
    identity(connection).await
}

/// Writes the participant's name into the control hash, or finds its own there. Branches are known
/// by txid only, so that two participants with one control hash would take each other's branches
/// for their own.
pub(super) async fn claim(connection: &Connection) -> Result<(), StoreError> {
    let options = connection.options();
    let Some(name) = &options.participant else { return Ok(()) };
    let read = async || connection.or_unavailable(connection.field(Field::Participant).await);
    let mut owner: Option<String> = read().await?;
    if owner.is_none() {
        // Only then: a Redis without memory refuses it, and has outcomes to be told.
        let mut command = redis::cmd("HSETNX");
        command.arg(connection.control_key()).arg(Field::Participant).arg(name.as_str());
        let () = connection.or_unavailable(connection.ask(&command).await)?;
        owner = read().await?;
    }
    let owner = owner.unwrap_or_default();
    if owner == name.as_str() {
        return Ok(());
    }
    Err(StoreError::Claimed { address: options.address(), owner, name: name.to_string() })
}
