//! What a participant shows of what it holds: its branches, and whose they are.
//!
//! ```text
//! GET /v1/branches          BranchList
//! GET /v1/branches/{txid}   BranchView
//! GET /v1/coordinators      CoordinatorList
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{LogId, TransactionId, Txid};
use crate::outcome::Heuristic;
use crate::wire::redo::WrittenView;

/// A branch as a participant shows it: `GET /v1/branches`, `GET /v1/branches/{txid}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BranchView {
    /// The branch's transaction.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// What is kept of it.
    pub state: BranchState,
    /// The public id, where the branch is prepared or was ended by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<TransactionId>,
    /// Where its outcome is asked for, where the branch is prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// Since when this agent has seen it in doubt, in milliseconds before now; where it is in
    /// doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_doubt_ms: Option<u64>,
    /// The keys that it locks, where the branch is prepared; those that it was to write, where it
    /// was ended by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The last thing that was learned in asking for the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What a branch of one phase wrote, until its log has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<WrittenView>,
    /// Who ended it by hand, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHandView>,
}

/// An operator's word on a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByHandView {
    /// How the branch was ended.
    #[schema(value_type = String)]
    pub outcome: Heuristic,
    /// Who ended it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Whether its log is known to say otherwise.
    pub is_damage: bool,
}

/// What a participant keeps of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BranchState {
    /// Staged, voted yes, locks held.
    Prepared,
    /// Applied; a done-marker is left.
    Applied,
    /// Aborted; a fence is left.
    Aborted,
}

impl BranchState {
    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Applied => "applied",
            Self::Aborted => "aborted",
        }
    }
}

/// `GET /v1/coordinators`: whose messages a participant has had, and whether it can ask them about
/// branches in doubt. It asks each for its version, to find that out.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorList {
    /// By their logs.
    pub coordinators: Vec<CoordinatorView>,
}

/// A coordinator as a participant knows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorView {
    /// Its log.
    #[schema(value_type = String)]
    pub log_id: LogId,
    /// The highest life of it that this participant's Redis has seen.
    pub epoch: u64,
    /// Where it is asked; absent if it has not spoken since this agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Why it is refused, if it speaks for an old or a forked copy of the log, and the log has not
    /// been heard since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_log: Option<String>,
    /// Why it cannot be asked, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The log of the server that answers at `url`, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub found_log: Option<LogId>,
    /// Whether the log found there has taken the place of this one: it began to speak here after
    /// this one's last word, and no branch of this one waits here. Then there is no `error`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
}

/// The list of branches.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BranchList {
    /// The branches.
    pub branches: Vec<BranchView>,
    /// Whether there are more than one list shows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}
