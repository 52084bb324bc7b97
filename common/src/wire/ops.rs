//! The ops of a branch, of either kind: Redis commands or statements. What they are shows in the
//! first one, and a branch has ops of one kind.

use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::command::{Expect, OpRequest};
use crate::limits;
use crate::sql::SqlOp;
use crate::value::{Arg, given};
use crate::wire::bounded::{self, ReadOps};

/// The ops of a branch, as they arrive.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum BranchOps {
    /// Commands, for a participant with a Redis; also no ops at all.
    Redis(Vec<OpRequest>),
    /// Statements, for a participant with a PostgreSQL database.
    Sql(Vec<SqlOp>),
}

impl From<Vec<OpRequest>> for BranchOps {
    fn from(ops: Vec<OpRequest>) -> Self {
        Self::Redis(ops)
    }
}

/// An op of either kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyOp {
    #[serde(default, deserialize_with = "bounded::words_given")]
    cmd: Option<Vec<Arg>>,
    #[serde(default, deserialize_with = "given")]
    sql: Option<String>,
    #[serde(default, deserialize_with = "bounded::params_given")]
    params: Option<Vec<Box<RawValue>>>,
    #[serde(default, deserialize_with = "given")]
    expect: Option<Expect>,
    #[serde(default, deserialize_with = "given")]
    escrow: Option<bool>,
}

/// An op whose kind is known.
enum Either {
    Redis(OpRequest),
    Sql(SqlOp),
}

impl AnyOp {
    fn either<E: serde::de::Error>(self) -> Result<Either, E> {
        let Self { cmd, sql, params, expect, escrow } = self;
        match (cmd, sql) {
            (Some(_), None) if params.is_some() => {
                Err(E::custom("`params` are of a statement (`sql`), not of a command (`cmd`)"))
            }
            (Some(cmd), None) => {
                Ok(Either::Redis(OpRequest { cmd, expect, escrow: escrow.unwrap_or(false) }))
            }
            (None, Some(_)) if escrow.is_some() => {
                Err(E::custom("`escrow` is for a command (`cmd`), not for a statement (`sql`)"))
            }
            (None, Some(sql)) => {
                Ok(Either::Sql(SqlOp { sql, params: params.unwrap_or_default(), expect }))
            }
            (Some(_), Some(_)) => {
                Err(E::custom("an op is a command (`cmd`) or a statement (`sql`)"))
            }
            (None, None) => Err(E::missing_field("cmd")),
        }
    }
}

impl<'de> ReadOps<'de> for BranchOps {
    fn read_ops<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OpsVisitor)
    }
}

/// Keeps the ops up to their limits, and one more: whoever checks them refuses the branch.
struct OpsVisitor;

impl<'de> Visitor<'de> for OpsVisitor {
    type Value = BranchOps;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BranchOps, A::Error> {
        let (mut commands, mut statements) = (Vec::new(), Vec::new());
        let mut words = 0_usize;
        while let Some(op) = list.next_element::<AnyOp>()? {
            match op.either::<A::Error>()? {
                Either::Redis(op) => {
                    words += op.cmd.len();
                    commands.push(op);
                }
                Either::Sql(op) => {
                    words += op.params.len();
                    statements.push(op);
                }
            }
            if !commands.is_empty() && !statements.is_empty() {
                let detail = "a branch has commands (`cmd`) or statements (`sql`), not both";
                return Err(A::Error::custom(detail));
            }
            let count = commands.len() + statements.len();
            if words > limits::WORDS_PER_BRANCH_MAX || count > limits::OPS_PER_BRANCH_MAX {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(match statements.is_empty() {
            true => BranchOps::Redis(commands),
            false => BranchOps::Sql(statements),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<BranchOps, String> {
        let mut reader = serde_json::Deserializer::from_str(json);
        BranchOps::read_ops(&mut reader).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_op_says_of_which_kind_a_branch_is() {
        assert!(matches!(read("[]"), Ok(BranchOps::Redis(ops)) if ops.is_empty()));
        let commands = r#"[{"cmd":["GET","k"],"expect":{"ge":1},"escrow":true}]"#;
        assert!(matches!(read(commands), Ok(BranchOps::Redis(ops)) if ops[0].escrow));
        let statements = r#"[{"sql":"SELECT $1","params":[1.50, {"a": [1]}]},{"sql":"TABLE t"}]"#;
        let Ok(BranchOps::Sql(ops)) = read(statements) else { panic!("statements") };
        let params: Vec<_> = ops[0].params.iter().map(|param| param.get()).collect();
        assert_eq!(params, ["1.50", r#"{"a": [1]}"#], "as they were written");
    }

    #[test]
    fn an_op_of_no_kind_or_of_two_is_refused() {
        for (json, word) in [
            (r#"[{}]"#, "missing field `cmd`"),
            (r#"[{"cmd":["GET","k"],"sql":"TABLE t"}]"#, "or a statement"),
            (r#"[{"cmd":["GET","k"]},{"sql":"TABLE t"}]"#, "not both"),
            (r#"[{"cmd":["GET","k"],"params":[1]}]"#, "`params`"),
            (r#"[{"sql":"TABLE t","escrow":false}]"#, "`escrow`"),
            (r#"[{"sql":null}]"#, "null"),
            (r#"[{"sql":"TABLE t","parms":[1]}]"#, "parms"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    /// What is skipped must be refused: a branch that lost its last ops would commit without them.
    #[test]
    fn statements_beyond_a_limit_are_skipped_and_refused() {
        let many = format!("[{}]", vec![r#"{"sql":"TABLE t"}"#; 10_000].join(","));
        let Ok(BranchOps::Sql(ops)) = read(&many) else { panic!("statements") };
        assert_eq!(ops.len(), limits::OPS_PER_BRANCH_MAX + 1);
        assert!(crate::sql::SqlBranch::new(ops).is_err());
    }
}
