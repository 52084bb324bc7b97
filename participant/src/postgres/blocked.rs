//! Who holds what a statement waits for. PostgreSQL says so only while it waits, and to another
//! session.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use assent_common::ErrorCode;
use assent_common::ids::{TransactionId, Txid};
use assent_common::limits;
use assent_common::outcome::{Holder, Refusal};
use assent_common::text::cut;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::database::Database;
use crate::mutex::lock;
use crate::store::StoreError;

/// How long a statement runs before anybody looks what it waits for: half of the longest wait for a
/// lock. Each further look comes after twice that time, so that a long statement costs few.
const FIRST_LOOK: Duration = Duration::from_millis(limits::SQL_LOCK_WAIT_MS / 2);

/// Bytes of a name that are shown.
const NAME_SHOWN_MAX: usize = 80;

/// The holder of the lock that a session waits for: of a prepared transaction, which has no
/// session, its name and the id of its vote; else the session, and its user. And the table, where
/// that is known.
const BLOCKER: &str = "SELECT p.gid, v.id, h.pid, a.usename::text, \
     coalesce(w.relation, t.relation)::regclass::text \
     FROM pg_locks w CROSS JOIN LATERAL pg_blocking_pids(w.pid) AS blockers \
     JOIN pg_locks h ON h.granted AND coalesce(h.pid, 0) = ANY (blockers) \
     AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid) \
     IS NOT DISTINCT FROM \
     (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid) \
     LEFT JOIN pg_locks x ON h.pid IS NULL AND x.pid IS NULL \
     AND x.locktype = 'transactionid' AND x.virtualtransaction = h.virtualtransaction \
     LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid \
     LEFT JOIN assent.votes v ON p.gid = $2 || v.txid \
     LEFT JOIN pg_stat_activity a ON a.pid = h.pid \
     LEFT JOIN pg_locks t ON t.pid = w.pid AND t.granted AND t.locktype = 'tuple' \
     WHERE w.pid = $1 AND NOT w.granted LIMIT 1";

/// Who holds a lock.
#[derive(Debug)]
enum Blocker {
    Branch(Holder),
    /// Not a branch of Assent, in words.
    Other(String),
}

/// A branch whose statements run here, for as long as this lives.
pub(super) struct RunningBranch<'a> {
    database: &'a Database,
    pid: i32,
}

impl<'a> RunningBranch<'a> {
    pub(super) fn new(database: &'a Database, pid: i32, txid: Txid, id: TransactionId) -> Self {
        lock(&database.running).insert(pid, (txid, id));
        Self { database, pid }
    }

    /// Runs a statement. If it meets a conflict, that names who held the lock, where it was seen.
    pub(super) async fn watch<T>(
        &self,
        statement: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let seen = Mutex::new(None);
        let came = tokio::select! {
            biased;
            came = statement => came,
            never = self.look(&seen) => match never {},
        };
        came.map_err(|refusal| match lock(&seen).take() {
            Some(blocker) if refusal.code == ErrorCode::LockConflict => blocker.named(refusal),
            _ => refusal,
        })
    }

    async fn look(&self, seen: &Mutex<Option<Blocker>>) -> Infallible {
        let mut pause = FIRST_LOOK;
        loop {
            tokio::time::sleep(pause).await;
            pause *= 2;
            // Without an answer the conflict has no name, and that is all.
            if let Ok(Some(blocker)) = blocker(self.database, self.pid).await {
                *lock(seen) = Some(blocker);
            }
        }
    }
}

impl Drop for RunningBranch<'_> {
    fn drop(&mut self) {
        lock(&self.database.running).remove(&self.pid);
    }
}

impl Blocker {
    fn named(self, refusal: Refusal) -> Refusal {
        let said = &refusal.detail;
        match self {
            Self::Branch(holder) => {
                let Holder { id, key, .. } = &holder;
                let detail = format!("{said}: {key} is locked by transaction {id}");
                Refusal { detail, holder: Some(holder), ..refusal }
            }
            Self::Other(who) => Refusal { detail: format!("{said}: {who}"), ..refusal },
        }
    }

    fn of(database: &Database, row: &Row) -> Self {
        let table: Option<String> = row.get(4);
        let key = table.map_or_else(|| "a row".to_owned(), |table| format!("a row of {table}"));
        let gid: Option<String> = row.get(0);
        if let Some(gid) = gid {
            let txid = gid.strip_prefix(&database.gid_prefix).and_then(|txid| txid.parse().ok());
            let id = row.get::<_, Option<String>>(1).and_then(|id| id.parse().ok());
            return match (txid, id) {
                (Some(txid), Some(id)) => Self::Branch(Holder { id, txid, key }),
                _ => {
                    let gid = cut(&gid, NAME_SHOWN_MAX);
                    Self::Other(format!("{key} is locked by the prepared transaction '{gid}'"))
                }
            };
        }
        let pid: Option<i32> = row.get(2);
        let running = pid.and_then(|pid| lock(&database.running).get(&pid).copied());
        match running {
            Some((txid, id)) => Self::Branch(Holder { id, txid, key }),
            None => {
                let user: Option<String> = row.get(3);
                let (pid, user) = (pid.unwrap_or_default(), user.unwrap_or_default());
                Self::Other(format!("{key} is locked by session {pid} of user {user}"))
            }
        }
    }
}

async fn blocker(database: &Database, pid: i32) -> Result<Option<Blocker>, StoreError> {
    let client = database.own().await?;
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&pid, Type::INT4), (&database.gid_prefix, Type::TEXT)];
    let rows = database.connections.within(client.query_typed(BLOCKER, &params)).await?;
    Ok(rows.first().map(|row| Blocker::of(database, row)))
}
