//! What is kept, for people, for the resolver and for health: reads, the sweep, and what operators
//! decided by hand.

use std::collections::{BTreeMap, HashMap};

use assent_common::ids::{Epoch, LogId, TxNumber, Txid};
use assent_common::participant::{Branches, Heard};
use assent_common::wire::branch::BranchState;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::data::{column, number};
use super::database::Database;
use super::kept::{KeptInDatabase, KeptVote, VOTE, kept};
use super::mutants;
use crate::mutex::lock;
use crate::store::{ByHand, InDoubt, StoreError, StoredBranch};

/// JsonRows that one call of the sweep deletes.
const SWEPT_PER_CALL_MAX: i64 = 10_000;

type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

impl Database {
    async fn rows(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, StoreError> {
        let client = self.own().await?;
        self.connections.within(client.query_typed(sql, params)).await
    }

    /// The same, on disk when it returns.
    async fn durably(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, StoreError> {
        let session = self.connections.session().await?;
        let rows = self.connections.within(session.client().query_typed(sql, params)).await?;
        session.give_back();
        Ok(rows)
    }

    /// Every branch in doubt. Also looks up what operators decided by hand.
    pub(crate) async fn in_doubt(&self) -> Result<Vec<InDoubt>, StoreError> {
        let prepared = format!(
            "SELECT b.txid, {VOTE} FROM (SELECT substr(gid, $1) AS txid FROM pg_prepared_xacts \
             WHERE database = current_database() AND starts_with(gid, $2)) b \
             LEFT JOIN assent.votes v USING (txid) ORDER BY v.seq"
        );
        let behind = i32::try_from(self.gid_prefix.len() + 1).unwrap_or(i32::MAX);
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&behind, Type::INT4), (&self.gid_prefix, Type::TEXT)];
        let rows = self.rows(&prepared, &params).await?;
        let decided = self.rows("SELECT txid, decided FROM assent.by_hand", &[]).await?;
        *lock(&self.by_hand) = decided.iter().filter_map(by_hand).collect();
        Ok(mutants::found(rows.iter().filter_map(in_doubt).collect()))
    }

    /// Up to `count_max` branches of which a mark is left, and whether there are more.
    pub(crate) async fn marked(
        &self,
        state: BranchState,
        count_max: usize,
    ) -> Result<(Vec<Txid>, bool), StoreError> {
        let mut txids: Vec<Txid> = match state {
            BranchState::Prepared => self.in_doubt().await?.iter().map(|it| it.txid).collect(),
            BranchState::Applied | BranchState::Aborted => {
                const MARKED: &str = "SELECT txid FROM assent.markers WHERE fence = $1 \
                     ORDER BY log_id, epoch, n LIMIT $2";
                let fence = state == BranchState::Aborted;
                let most = column(count_max as u64 + 1);
                let params: [(&(dyn ToSql + Sync), Type); 2] =
                    [(&fence, Type::BOOL), (&most, Type::INT8)];
                self.rows(MARKED, &params).await?.iter().filter_map(txid).collect()
            }
        };
        let more = txids.len() > count_max;
        txids.truncate(count_max);
        Ok((txids, more))
    }

    /// What is kept of one branch, if anything.
    pub(crate) async fn branch(&self, txid: Txid) -> Result<Option<StoredBranch>, StoreError> {
        let incarnation = self.identity.incarnation();
        let (state, in_doubt, written) = match kept(self, txid).await? {
            KeptInDatabase::Nothing => return Ok(None),
            KeptInDatabase::Fenced => (BranchState::Aborted, None, None),
            KeptInDatabase::Prepared(vote) => {
                (BranchState::Prepared, vote.map(|vote| vote_in_doubt(txid, &vote)), None)
            }
            KeptInDatabase::Applied(vote) => {
                let vote = vote.filter(|vote| vote.one_phase);
                (BranchState::Applied, None, vote.and_then(|vote| vote.done(incarnation).written))
            }
        };
        Ok(Some(StoredBranch { state, in_doubt, written }))
    }

    /// Drops the done-marker or fence of a branch, and who left it, on an operator's word.
    pub(crate) async fn forget(&self, txid: Txid) -> Result<(), StoreError> {
        const FORGET: &str = "WITH m AS (DELETE FROM assent.markers WHERE txid = $1), \
             v AS (DELETE FROM assent.votes WHERE txid = $1) \
             DELETE FROM assent.by_hand WHERE txid = $1";
        self.durably(FORGET, &[(&txid.to_string(), Type::TEXT)]).await?;
        lock(&self.by_hand).remove(&txid);
        Ok(())
    }

    /// Up to `count_max` done-markers of implicit transactions that the lives of their coordinators
    /// left behind, with all branches.
    pub(crate) async fn left_behind(
        &self,
        count_max: usize,
    ) -> Result<Vec<(Txid, Branches)>, StoreError> {
        let left = format!(
            "SELECT m.txid, {VOTE} FROM assent.markers m JOIN assent.logs l USING (log_id) \
             JOIN assent.votes v USING (txid) WHERE m.implicit AND m.epoch < l.epoch \
             AND (m.epoch, m.n) < (l.low_epoch, l.low_n) LIMIT $1"
        );
        let rows = self.rows(&left, &[(&column(count_max as u64), Type::INT8)]).await?;
        let of = |row: &Row| Some((txid(row)?, KeptVote::of(row, 1)?.branches));
        Ok(rows.iter().filter_map(of).collect())
    }

    /// Drops such markers. Returns how many there were.
    pub(crate) async fn forget_left_behind(&self, txids: &[Txid]) -> Result<usize, StoreError> {
        const FORGET: &str = "WITH m AS (DELETE FROM assent.markers \
             WHERE txid = ANY($1) AND implicit RETURNING txid), \
             v AS (DELETE FROM assent.votes WHERE txid IN (SELECT txid FROM m)) \
             SELECT txid FROM m";
        let txids: Vec<String> = txids.iter().map(Txid::to_string).collect();
        Ok(self.rows(FORGET, &[(&txids, Type::TEXT_ARRAY)]).await?.len())
    }

    /// The highest life of each log that spoke here.
    pub(crate) async fn epochs(&self) -> Result<BTreeMap<LogId, Epoch>, StoreError> {
        let rows = self.rows("SELECT log_id, epoch FROM assent.logs WHERE epoch > 0", &[]).await?;
        let of = |row: &Row| {
            let log_id: LogId = row.get::<_, String>(0).parse().ok()?;
            Some((log_id, Epoch(number(row, 1))))
        };
        Ok(rows.iter().filter_map(of).collect())
    }

    /// What was heard of one log.
    pub(crate) async fn heard(&self, log_id: LogId) -> Result<Option<Heard>, StoreError> {
        const HEARD: &str = "SELECT epoch, low_epoch, low_n FROM assent.logs WHERE log_id = $1";
        let rows = self.rows(HEARD, &[(&log_id.to_string(), Type::TEXT)]).await?;
        Ok(rows.first().map(|row| Heard {
            epoch: Epoch(number(row, 0)),
            low_water: TxNumber { epoch: Epoch(number(row, 1)), n: number(row, 2) },
        }))
    }

    /// Deletes the markers and votes below the low-water marks. Returns how many there were.
    ///
    /// A vote goes only if its branch is not prepared: a vote of an earlier try is left without
    /// one.
    pub(crate) async fn sweep(&self) -> Result<usize, StoreError> {
        const BELOW: &str = "(t.epoch, t.n) < (l.low_epoch, l.low_n)";
        let swept = mutants::swept(BELOW);
        let markers = format!(
            "DELETE FROM assent.markers WHERE txid IN (SELECT t.txid FROM assent.markers t \
             JOIN assent.logs l USING (log_id) WHERE {swept} \
             AND (NOT t.implicit OR t.epoch = l.epoch) LIMIT {SWEPT_PER_CALL_MAX}) RETURNING txid"
        );
        let votes = format!(
            "DELETE FROM assent.votes WHERE txid IN (SELECT t.txid FROM assent.votes t \
             JOIN assent.logs l USING (log_id) WHERE {BELOW} \
             AND NOT EXISTS (SELECT FROM assent.markers m WHERE m.txid = t.txid) \
             AND NOT EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.gid = $1 || t.txid) \
             LIMIT {SWEPT_PER_CALL_MAX})"
        );
        let swept = self.rows(&markers, &[]).await?.len();
        self.rows(&votes, &[(&self.gid_prefix, Type::TEXT)]).await?;
        Ok(swept)
    }

    /// Keeps what an operator decided of a branch, durably.
    pub(crate) async fn keep_by_hand(
        &self,
        txid: Txid,
        by_hand: &ByHand,
    ) -> Result<(), StoreError> {
        const KEEP: &str = "INSERT INTO assent.by_hand (txid, decided) VALUES ($1, $2) \
             ON CONFLICT (txid) DO UPDATE SET decided = excluded.decided";
        let (name, decided) = (txid.to_string(), by_hand.value());
        self.durably(KEEP, &[(&name, Type::TEXT), (&decided, Type::TEXT)]).await?;
        lock(&self.by_hand).insert(txid, by_hand.clone());
        Ok(())
    }

    /// What operators decided of these branches.
    pub(crate) async fn by_hand(
        &self,
        txids: &[Txid],
    ) -> Result<HashMap<Txid, ByHand>, StoreError> {
        const DECIDED: &str = "SELECT txid, decided FROM assent.by_hand WHERE txid = ANY($1)";
        let txids: Vec<String> = txids.iter().map(Txid::to_string).collect();
        let rows = self.rows(DECIDED, &[(&txids, Type::TEXT_ARRAY)]).await?;
        Ok(rows.iter().filter_map(by_hand).collect())
    }

    /// Drops what an operator decided of a branch.
    pub(crate) async fn forget_by_hand(&self, txid: Txid) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM assent.by_hand WHERE txid = $1";
        self.durably(FORGET, &[(&txid.to_string(), Type::TEXT)]).await?;
        lock(&self.by_hand).remove(&txid);
        Ok(())
    }

    /// What operators decided, as the last look for branches in doubt has found it.
    pub(crate) fn all_by_hand(&self) -> BTreeMap<Txid, ByHand> {
        lock(&self.by_hand).clone()
    }
}

fn txid(row: &Row) -> Option<Txid> {
    row.get::<_, String>(0).parse().ok()
}

fn by_hand(row: &Row) -> Option<(Txid, ByHand)> {
    Some((txid(row)?, ByHand::read(row.get::<_, String>(1).as_bytes())?))
}

fn in_doubt(row: &Row) -> Option<InDoubt> {
    let txid = txid(row)?;
    let vote = KeptVote::of(row, 1);
    if vote.is_none() {
        tracing::error!(%txid, "a branch is prepared in PostgreSQL, and its row in assent.votes is \
            gone: end it by hand, as its coordinator says (COMMIT PREPARED or ROLLBACK PREPARED)");
    }
    vote.map(|vote| vote_in_doubt(txid, &vote))
}

fn vote_in_doubt(txid: Txid, vote: &KeptVote) -> InDoubt {
    InDoubt {
        txid,
        id: vote.id,
        coordinator: vote.coordinator.clone(),
        seq: vote.seq(),
        keys: Vec::new(),
        written: Vec::new(),
        redo: vote.redo().to_vec(),
        branches: vote.branches.clone(),
    }
}
