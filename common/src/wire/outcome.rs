//! The answer to a participant's question: what became of this transaction?

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{LogId, Txid};
use crate::wire::bounded;
use crate::wire::branch::BranchAddress;

/// `POST /v1/transactions/{txid}/resolve`: the question of a branch of an implicit transaction. The log that began it may
/// know nothing of it, and then asks the branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveQuestion {
    /// All branches, as the staged record has them.
    #[serde(deserialize_with = "bounded::branches")]
    pub branches: Vec<BranchAddress>,
}

/// `GET /v1/transactions/{txid}/outcome`, and the answer to a [`ResolveQuestion`]. Believed only under Assent's media type, and only if it names the txid that
/// was asked about and the log that decides it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeAnswer {
    /// The transaction that was asked about.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// The log that answers.
    #[schema(value_type = String)]
    pub log_id: LogId,
    /// What became of it.
    pub outcome: BranchOutcome,
}

/// What a log says of a transaction to a branch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BranchOutcome {
    /// Decided: apply.
    Committed,
    /// Decided, or presumed because the log has no record of it: drop.
    Aborted,
    /// Not decided yet: ask again.
    Undecided,
    /// Not for this log to say: hold, and tell a human.
    UnknownAuthority,
}
