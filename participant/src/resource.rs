//! Where the branches of this participant are kept: a Redis or a PostgreSQL database. The agent,
//! the resolver, the operator's part and the HTTP face are the same for both.
//!
//! It must never decide anything: it passes on, by the kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::command::Lock;
use assent_common::outcome::Refusal;
use assent_common::participant::{Branches, Heard};
use assent_common::sql::SqlBranch;
use assent_common::wire::branch::{BranchState, CoordinatorRef};
use assent_common::wire::ops::BranchOps;
use assent_common::wire::resync::{DataPoint, DataView, Progress, Resync, Resynced};
use assent_common::{Epoch, ErrorCode, LogId, TxNumber, Txid};

use crate::ops::check_ops;
use crate::postgres::{Database, execute};
use crate::store::{
    ByHand, CheckedPrepare, InDoubt, Link, NotAdmitted, Says, Store, StoreError, StoredBranch,
    ValidatedBranch,
};

/// What keeps the branches.
#[derive(Debug)]
pub(crate) enum Resource {
    Redis(Arc<Store>),
    Postgres(Box<Database>),
}

/// The ops of a branch, checked, of the kind that its resource runs.
#[derive(Debug, Clone)]
pub(crate) enum CheckedOps {
    Redis(ValidatedBranch),
    Sql(SqlBranch),
}

impl CheckedOps {
    /// The keys that the agent knows to be locked: PostgreSQL finds its locks itself.
    pub(crate) fn locks(&self) -> &[Lock] {
        match self {
            Self::Redis(branch) => &branch.locks,
            Self::Sql(_) => &[],
        }
    }
}

/// The same call, whichever it is.
macro_rules! of_either {
    ($resource:ident, $it:ident => $call:expr) => {
        match $resource {
            Resource::Redis($it) => $call,
            Resource::Postgres($it) => $call,
        }
    };
}

impl Resource {
    /// What it is, for people.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "Redis",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// The Redis, if it is one.
    pub(crate) const fn redis(&self) -> Option<&Arc<Store>> {
        match self {
            Self::Redis(store) => Some(store),
            Self::Postgres(_) => None,
        }
    }

    /// The database, if it is one.
    pub(crate) const fn postgres(&self) -> Option<&Database> {
        match self {
            Self::Redis(_) => None,
            Self::Postgres(postgres) => Some(postgres),
        }
    }

    /// The connection to a Redis, and who owns that: nobody owns a database.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.redis().map(|store| store.link())
    }

    /// The refusal of what only a Redis can do.
    pub(crate) fn no_redis(&self, what: &str) -> Refusal {
        let detail = format!("{what} is not for a participant with {}", self.kind());
        Refusal::new(ErrorCode::UnsupportedCommand, detail)
    }

    /// Checks the ops of a branch.
    pub(crate) fn check(&self, ops: BranchOps) -> Result<CheckedOps, Refusal> {
        match (self, ops) {
            (Self::Redis(store), BranchOps::Redis(ops)) => {
                check_ops(store, ops).map(CheckedOps::Redis)
            }
            (Self::Postgres(_), BranchOps::Sql(ops)) => SqlBranch::new(ops).map(CheckedOps::Sql),
            // A branch without ops is of either kind.
            (Self::Postgres(_), BranchOps::Redis(ops)) if ops.is_empty() => {
                SqlBranch::new(Vec::new()).map(CheckedOps::Sql)
            }
            (Self::Redis(_), BranchOps::Sql(_)) => Err(self.no_redis("a statement (`sql`)")),
            (Self::Postgres(_), BranchOps::Redis(_)) => Err(self.no_redis("a command (`cmd`)")),
        }
    }

    /// Has messages done; the answers are in their order.
    pub(crate) async fn execute(
        &self,
        coordinator: &CoordinatorRef,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare<CheckedOps>>)>,
    ) -> Vec<BranchAnswer> {
        // What was checked by `check` is of the kind that this is.
        match self {
            Self::Redis(store) => {
                let messages = of_kind(messages, |ops| match ops {
                    CheckedOps::Redis(branch) => Some(branch),
                    CheckedOps::Sql(_) => None,
                });
                store.execute(coordinator, low_water, messages).await
            }
            Self::Postgres(postgres) => {
                let messages = of_kind(messages, |ops| match ops {
                    CheckedOps::Sql(branch) => Some(branch),
                    CheckedOps::Redis(_) => None,
                });
                execute(postgres, coordinator, low_water, messages).await
            }
        }
    }

    /// Why this life of a coordinator may not speak here.
    pub(crate) async fn admit_life(
        &self,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Option<NotAdmitted> {
        of_either!(self, it => it.admit_life(coordinator, says).await)
    }

    /// Why nothing may be done for a coordinator that knows this of the data.
    pub(crate) async fn admit(
        &self,
        log_id: LogId,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Option<Refusal> {
        match self {
            Self::Redis(store) => store.admit(log_id, known, progress).await,
            Self::Postgres(postgres) => postgres.admit(known, progress).await,
        }
    }

    /// Takes note of a log that speaks here. A database has it in a row already.
    pub(crate) fn heard(&self, log_id: LogId, heard: Heard) {
        if let Self::Redis(store) = self {
            store.heard(log_id, heard);
        }
    }

    pub(crate) fn is_other_data(
        &self,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> bool {
        of_either!(self, it => it.is_other_data(known, progress))
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        of_either!(self, it => it.progress())
    }

    pub(crate) async fn data(&self) -> Result<DataView, StoreError> {
        of_either!(self, it => it.data().await)
    }

    pub(crate) async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        of_either!(self, it => it.resync(part).await)
    }

    pub(crate) async fn has_spoken(&self, log_id: LogId) -> Result<bool, StoreError> {
        of_either!(self, it => it.has_spoken(log_id).await)
    }

    pub(crate) fn stale_logs(&self) -> BTreeMap<LogId, String> {
        of_either!(self, it => it.stale_logs())
    }

    pub(crate) async fn epochs(&self) -> Result<BTreeMap<LogId, Epoch>, StoreError> {
        of_either!(self, it => it.epochs().await)
    }

    pub(crate) async fn in_doubt(&self) -> Result<Vec<InDoubt>, StoreError> {
        of_either!(self, it => it.in_doubt().await)
    }

    pub(crate) async fn marked(
        &self,
        state: BranchState,
        count_max: usize,
    ) -> Result<(Vec<Txid>, bool), StoreError> {
        of_either!(self, it => it.marked(state, count_max).await)
    }

    pub(crate) async fn branch(&self, txid: Txid) -> Result<Option<StoredBranch>, StoreError> {
        of_either!(self, it => it.branch(txid).await)
    }

    pub(crate) async fn forget(&self, txid: Txid) -> Result<(), StoreError> {
        of_either!(self, it => it.forget(txid).await)
    }

    pub(crate) async fn left_behind(
        &self,
        count_max: usize,
    ) -> Result<Vec<(Txid, Branches)>, StoreError> {
        of_either!(self, it => it.left_behind(count_max).await)
    }

    pub(crate) async fn forget_left_behind(&self, txids: &[Txid]) -> Result<usize, StoreError> {
        of_either!(self, it => it.forget_left_behind(txids).await)
    }

    pub(crate) async fn sweep(&self) -> Result<usize, StoreError> {
        of_either!(self, it => it.sweep().await)
    }

    pub(crate) async fn keep_by_hand(
        &self,
        txid: Txid,
        by_hand: &ByHand,
    ) -> Result<(), StoreError> {
        of_either!(self, it => it.keep_by_hand(txid, by_hand).await)
    }

    pub(crate) async fn by_hand(
        &self,
        txids: &[Txid],
    ) -> Result<HashMap<Txid, ByHand>, StoreError> {
        of_either!(self, it => it.by_hand(txids).await)
    }

    pub(crate) async fn forget_by_hand(&self, txid: Txid) -> Result<(), StoreError> {
        of_either!(self, it => it.forget_by_hand(txid).await)
    }

    pub(crate) fn all_by_hand(&self) -> BTreeMap<Txid, ByHand> {
        of_either!(self, it => it.all_by_hand())
    }

    /// Looks at the data, and thereby whether what keeps it answers.
    pub(crate) async fn pulse(&self) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.link().pulse().await,
            Self::Postgres(postgres) => postgres.pulse().await,
        }
    }

    /// The settings under which the durability promise does not hold.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self {
            Self::Redis(store) => store.link().warnings(),
            Self::Postgres(postgres) => postgres.warnings(),
        }
    }
}

fn of_kind<B>(
    messages: Vec<(Txid, BranchMessage<CheckedPrepare<CheckedOps>>)>,
    branch: impl Fn(CheckedOps) -> Option<B>,
) -> Vec<(Txid, BranchMessage<CheckedPrepare<B>>)> {
    let of_kind = |(txid, message): (Txid, BranchMessage<CheckedPrepare<CheckedOps>>)| {
        let message = match message {
            BranchMessage::Prepare(CheckedPrepare {
                id,
                mode,
                branches,
                branch: ops,
                if_new,
                hooked,
            }) => {
                let branch = branch(ops)?;
                BranchMessage::Prepare(CheckedPrepare {
                    id,
                    mode,
                    branches,
                    branch,
                    if_new,
                    hooked,
                })
            }
            BranchMessage::Commit => BranchMessage::Commit,
            BranchMessage::Abort => BranchMessage::Abort,
            BranchMessage::Settle => BranchMessage::Settle,
        };
        Some((txid, message))
    };
    messages.into_iter().filter_map(of_kind).collect()
}
