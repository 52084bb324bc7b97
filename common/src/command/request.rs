//! An op as it arrives: a Redis command, and perhaps what its reply is expected to be.

use serde::{Deserialize, Serialize};

use crate::command::Expect;
use crate::value::Arg;

/// One Redis command of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpRequest {
    /// The command's name and its arguments.
    pub cmd: Vec<Arg>,
    /// What the reply must be; the branch votes no if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

impl OpRequest {
    /// The op of these words, expecting nothing.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { cmd: words.into_iter().map(Arg::from).collect(), expect: None }
    }
}
