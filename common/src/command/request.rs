//! An op as it arrives: a Redis command, and perhaps what its reply is expected to be.

use serde::{Deserialize, Serialize};

use crate::value::Arg;

/// One Redis command of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpRequest {
    /// The command's name and its arguments.
    pub cmd: Vec<Arg>,
}
