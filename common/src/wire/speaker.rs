//! Who speaks, in a batch and of lost data.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{Epoch, LogId};
use crate::lives::Proof;

/// Who speaks: the log that decides, the process life, and where to ask for outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorRef {
    /// The identity of the decision log.
    #[schema(value_type = String)]
    pub log_id: LogId,
    /// The process life. A participant that has seen a later one refuses this one's prepares.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// The base URL of the coordinator's public API, for questions about branches in doubt.
    pub url: String,
    /// What tells this log from an old copy of it. An older version says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Proof>,
}
