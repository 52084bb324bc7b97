//! Which data it is, and how far it is (invariant 12): a backup that was put back has fewer votes,
//! or fewer outcomes, than somebody has heard of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use assent_common::wire::resync::{DataPoint, Progress, Served};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::connection::Pools;
use super::mutants;
use crate::mutex::lock;
use crate::store::{StoreError, new_incarnation};

/// Which server and which database this is.
const PLACE: &str = "(SELECT system_identifier::text FROM pg_control_system()) || '/' || \
     (SELECT oid::text FROM pg_database WHERE datname = current_database())";

/// What the data is.
const LOOK: &str = "SELECT d.place = (SELECT system_identifier::text FROM pg_control_system()) || \
     '/' || (SELECT oid::text FROM pg_database WHERE datname = current_database()), \
     d.incarnation, d.seq, d.ended, d.fenced, d.served FROM assent.data d";

const TEXT: tokio_postgres::types::Type = tokio_postgres::types::Type::TEXT;

/// What this agent knows of the data.
#[derive(Debug)]
pub(super) struct DataMemory {
    known: Mutex<DataAsSeen>,
    quarantine: Mutex<Option<String>>,
    /// Which look at the data this is; see `DataView`.
    view: AtomicU64,
}

/// As far as it was seen, or told.
#[derive(Debug, Clone, Copy, Default)]
struct DataAsSeen {
    incarnation: u64,
    /// The highest number that was read: it may not be on disk, and then goes with a killed server.
    seen: u64,
    /// The number and the count that are on disk for sure.
    seq: u64,
    ended: u64,
}

/// What the row says.
#[derive(Debug, Clone)]
pub(super) struct DataRow {
    is_here: bool,
    pub(super) incarnation: u64,
    pub(super) seq: u64,
    pub(super) ended: u64,
    fenced: Option<String>,
    pub(super) served: Vec<Served>,
}

impl DataRow {
    fn of(row: &Row) -> Self {
        let served: String = row.get(5);
        Self {
            is_here: row.get(0),
            incarnation: number(row, 1),
            seq: number(row, 2),
            ended: number(row, 3),
            fenced: row.get(4),
            served: serde_json::from_str(&served).unwrap_or_default(),
        }
    }
}

/// A number that is never negative.
pub(super) fn number(row: &Row, place: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(place)).unwrap_or_default()
}

/// A number as its column has it: none of them comes that far.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl DataMemory {
    /// Makes the tables and the only row, where they are missing, and claims the data.
    pub(super) async fn begin(
        client: &Client,
        participant: Option<&str>,
    ) -> Result<(Self, Option<String>), tokio_postgres::Error> {
        let made = "SELECT to_regclass('assent.by_hand') IS NOT NULL";
        if !client.query_typed_one(made, &[]).await?.get::<_, bool>(0) {
            // One transaction; agents that start at once make the tables one after the other.
            // Where they are made, not even `IF NOT EXISTS` is run: it would wait for all that is
            // prepared.
            let lock = "SELECT pg_advisory_xact_lock(5273890411);";
            let schema = [lock, include_str!("schema.sql")].concat();
            client.batch_execute(&schema).await?;
        }
        let insert = format!(
            "INSERT INTO assent.data (place, incarnation) VALUES ({PLACE}, {}) \
             ON CONFLICT DO NOTHING",
            new_incarnation()
        );
        client.batch_execute(&insert).await?;
        let found = DataRow::of(&client.query_typed_one(LOOK, &[]).await?);
        // What was read is on disk when this is.
        client.batch_execute("BEGIN; SET LOCAL synchronous_commit = on").await?;
        let claim = "UPDATE assent.data SET participant = coalesce(participant, $1) \
             RETURNING participant";
        let param = (&participant as &(dyn ToSql + Sync), TEXT);
        let row = client.query_typed_one(claim, &[param]).await?;
        client.batch_execute("COMMIT").await?;
        let owner: Option<String> = row.get(0);
        let other = owner.filter(|owner| participant.is_some_and(|name| name != owner));
        let DataRow { incarnation, seq, ended, .. } = found;
        let identity = Self {
            known: Mutex::new(DataAsSeen { incarnation, seen: seq, seq, ended }),
            quarantine: Mutex::default(),
            view: AtomicU64::new(new_incarnation()),
        };
        Ok((identity, other))
    }

    fn known(&self) -> DataAsSeen {
        *lock(&self.known)
    }

    /// Why everything is refused, if it is.
    pub(super) fn is_quarantined(&self) -> Option<String> {
        lock(&self.quarantine).clone()
    }

    /// Which look at the data this is.
    pub(super) fn view(&self) -> u64 {
        self.view.load(Ordering::Acquire)
    }

    /// The data that votes are given on.
    pub(super) fn incarnation(&self) -> u64 {
        self.known().incarnation
    }

    /// Takes note of a vote that is on disk, and of ends that are.
    pub(super) fn saw(&self, incarnation: u64, seq: u64, ended: u64) {
        let mut known = lock(&self.known);
        if known.incarnation == incarnation {
            known.seq = known.seq.max(seq);
            known.seen = known.seen.max(seq);
            known.ended = known.ended.max(ended);
        }
    }

    /// How many branches have ended, as far as that is on disk.
    pub(super) fn progress(&self) -> Option<Progress> {
        let DataAsSeen { incarnation, ended, .. } = self.known();
        self.is_quarantined().is_none().then_some(Progress { incarnation, ended })
    }

    /// Whether this agent has seen all of the data that a log knows.
    pub(super) fn has_all_of(&self, known: Option<DataPoint>, progress: Option<Progress>) -> bool {
        let own = self.known();
        let has_votes =
            known.is_none_or(|known| known.incarnation == own.incarnation && known.seq <= own.seen);
        let has_ends = progress
            .is_none_or(|told| told.incarnation != own.incarnation || told.ended <= own.ended);
        has_votes && has_ends
    }

    /// What the data is, compared with what this agent knew.
    pub(super) async fn look(&self, pools: &Pools, client: &Client) -> Result<DataRow, StoreError> {
        // Before the row is read: what is seen from then on may be newer than what it says.
        let own = self.known();
        let row = pools.within(client.query_typed_one(LOOK, &[])).await?;
        let found = DataRow::of(&row);
        if let Some(why) = &found.fenced {
            self.quarantine(why);
            return Ok(found);
        }
        let wrong = if !found.is_here {
            Some("it is a copy, of another server or another database".to_owned())
        } else if found.incarnation == own.incarnation {
            let has_all =
                found.seq >= own.seq && found.ended >= own.ended || mutants::follows_less();
            let DataRow { seq, ended, .. } = found;
            (!has_all).then(|| {
                format!(
                    "it has {seq} votes and {ended} ends, and this agent knew {} and {}: a backup \
                     was put back, or the server lost what it had acknowledged",
                    own.seq, own.ended
                )
            })
        } else {
            // Another agent has had it opened again.
            None
        };
        match wrong {
            Some(why) => self.fence(pools, client, &why).await?,
            None => {
                let DataRow { incarnation, seq, .. } = found;
                let mut known = lock(&self.known);
                let same = (known.incarnation == incarnation).then_some(*known);
                *known = DataAsSeen { incarnation, seen: seq, ..same.unwrap_or_default() };
                *lock(&self.quarantine) = None;
            }
        }
        Ok(found)
    }

    fn quarantine(&self, why: &str) {
        let mut quarantine = lock(&self.quarantine);
        if quarantine.is_none() {
            tracing::error!(why, "quarantined: the data in PostgreSQL is not what was known of it");
            self.view.store(new_incarnation(), Ordering::Release);
        }
        *quarantine = Some(why.to_owned());
    }

    /// Nothing is done on this data any more, by any agent, before the logs have said what it is.
    pub(super) async fn fence(
        &self,
        pools: &Pools,
        client: &Client,
        why: &str,
    ) -> Result<(), StoreError> {
        let fence = "UPDATE assent.data SET fenced = coalesce(fenced, $1)";
        pools.within(client.query_typed(fence, &[(&why, TEXT)])).await?;
        self.quarantine(why);
        Ok(())
    }

    /// Opens the data, under another incarnation.
    pub(super) async fn open(
        &self,
        pools: &Pools,
        client: &Client,
        open: DataPoint,
        served: &[Served],
    ) -> Result<(), StoreError> {
        let DataPoint { incarnation, seq } = open;
        let open = format!(
            "UPDATE assent.data SET place = {PLACE}, incarnation = {}, seq = {}, ended = 0, \
             fenced = NULL, served = $1",
            column(incarnation),
            column(seq)
        );
        let served = serde_json::to_string(served).unwrap_or_default();
        pools.within(client.query_typed(&open, &[(&served, TEXT)])).await?;
        *lock(&self.known) = DataAsSeen { incarnation, seen: seq, seq, ended: 0 };
        *lock(&self.quarantine) = None;
        tracing::warn!(incarnation, "the data in PostgreSQL is open again");
        Ok(())
    }
}
