//! What is kept of a branch: whether it is prepared, its marker or fence, and its vote.

use std::sync::Arc;

use assent_common::ids::{TransactionId, Txid};
use assent_common::outcome::{Done, Vote, Written};
use assent_common::participant::Branches;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::data::number;
use super::database::Database;
use crate::store::StoreError;

/// What is kept of a branch.
#[derive(Debug)]
pub(super) enum KeptInDatabase {
    Nothing,
    /// It voted yes. Its vote is missing if somebody has deleted the row.
    Prepared(Option<KeptVote>),
    Applied(Option<KeptVote>),
    Fenced,
}

/// A vote as its row has it.
#[derive(Debug, Clone)]
pub(super) struct KeptVote {
    pub(super) id: TransactionId,
    pub(super) coordinator: String,
    pub(super) one_phase: bool,
    seq: u64,
    replies: Arc<str>,
    redo: Arc<[u8]>,
    pub(super) branches: Branches,
}

/// The columns of a vote, in the order of [`KeptVote::of`].
pub(super) const VOTE: &str =
    "v.id, v.coordinator, v.one_phase, v.seq, v.replies, v.redo, v.branches";

impl KeptVote {
    /// The vote of a row whose columns begin there; nothing if there is none.
    pub(super) fn of(row: &Row, first: usize) -> Option<Self> {
        let id: Option<String> = row.get(first);
        let branches: Option<String> = row.get(first + 6);
        let branches = branches.and_then(|json| serde_json::from_str::<Vec<_>>(&json).ok());
        Some(Self {
            id: id?.parse().ok()?,
            coordinator: row.get(first + 1),
            one_phase: row.get(first + 2),
            seq: number(row, first + 3),
            replies: row.get::<_, String>(first + 4).into(),
            redo: row.get::<_, Vec<u8>>(first + 5).into(),
            branches: branches.unwrap_or_default().into(),
        })
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn redo(&self) -> &[u8] {
        &self.redo
    }

    /// As it was given, and is given again.
    pub(super) fn vote(&self, incarnation: u64) -> Vote {
        let (replies, redo) = (Arc::clone(&self.replies), Arc::clone(&self.redo));
        Vote { replies, redo, incarnation, seq: self.seq }
    }

    /// What one phase came to.
    pub(super) fn done(&self, incarnation: u64) -> Done {
        let written = Written { redo: Arc::clone(&self.redo), incarnation, seq: self.seq };
        Done { replies: Arc::clone(&self.replies), written: Some(written) }
    }
}

/// The name of a branch's prepared transaction. It is unique in the cluster, where a transaction
/// may have a branch in another database too.
pub(super) fn gid(database: &Database, txid: Txid) -> String {
    format!("{}{txid}", database.gid_prefix)
}

/// What is kept of a branch. Whether it is prepared is asked first: what ends between the two
/// questions has its marker by the second.
pub(super) async fn kept(database: &Database, txid: Txid) -> Result<KeptInDatabase, StoreError> {
    const PREPARED: &str = "SELECT FROM pg_prepared_xacts WHERE gid = $1";
    let marked = format!(
        "SELECT m.fence, {VOTE} FROM (SELECT $1 AS txid) b \
         LEFT JOIN assent.markers m USING (txid) LEFT JOIN assent.votes v USING (txid)"
    );
    let client = database.own().await?;
    let (name, txid) = (gid(database, txid), txid.to_string());
    let asked = async {
        // Sent together, and run one after the other.
        let gid = [(&name as _, Type::TEXT)];
        let txid = [(&txid as _, Type::TEXT)];
        tokio::try_join!(client.query_typed(PREPARED, &gid), client.query_typed_one(&marked, &txid))
    };
    let (prepared, row) = database.connections.within(asked).await?;
    let vote = KeptVote::of(&row, 1);
    Ok(match row.get::<_, Option<bool>>(0) {
        _ if !prepared.is_empty() => KeptInDatabase::Prepared(vote),
        Some(true) => KeptInDatabase::Fenced,
        Some(false) => KeptInDatabase::Applied(vote),
        None => KeptInDatabase::Nothing,
    })
}
