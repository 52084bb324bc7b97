//! An op as it arrives: a Redis command, and perhaps what its reply is expected to be.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::command::Expect;
use crate::limits;
use crate::value::{Arg, given};
use crate::wire::bounded::{self, Bounded, ReadOps};

/// One Redis command of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpRequest {
    /// The command's name and its arguments.
    #[serde(deserialize_with = "bounded::words")]
    pub cmd: Vec<Arg>,
    /// What the reply must be; the branch votes no if it is not.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Expect, required = false)]
    pub expect: Option<Expect>,
    /// Whether the op is done in escrow: it shares its counter with others that do the same, as long as the bounds of all
    /// hold by every outcome of all. Its reply is `{"at_least": …, "at_most": …}`: what the value may be behind it, by the
    /// outcomes of those who held the counter before. For `INCR`, `DECR`, `INCRBY`, `DECRBY` and `HINCRBY`; `expect` may
    /// hold `ge`, `gt`, `le` and `lt`, which are exact. A branch that has a key in escrow does nothing else with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escrow: bool,
}

impl OpRequest {
    /// The name of the handler of ops in escrow.
    pub const ESCROW_HANDLER: &'static str = "ESCROW";

    /// The name of the handler of `ASSENT.DIGEST`.
    pub const DIGEST_HANDLER: &'static str = "DIGEST";

    /// The op that asks for a digest of a key.
    #[must_use]
    pub fn digest(key: Arg) -> Self {
        Self { cmd: vec![Arg::from("ASSENT.DIGEST"), key], expect: None, escrow: false }
    }

    /// The op of these words, expecting nothing.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { cmd: words.into_iter().map(Arg::from).collect(), expect: None, escrow: false }
    }
}

impl<'de> ReadOps<'de> for Vec<OpRequest> {
    fn read_ops<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut words = 0_usize;
        let room = |op: &OpRequest| {
            words += op.cmd.len();
            words <= limits::WORDS_PER_BRANCH_MAX
        };
        deserializer.deserialize_seq(Bounded::new(limits::OPS_PER_BRANCH_MAX, room))
    }
}
