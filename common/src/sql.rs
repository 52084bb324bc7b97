//! Statements of a branch at a PostgreSQL database, as they arrive and as they may be run.
//!
//! What a statement does is PostgreSQL's to say. What is checked here needs no database: how many
//! there are, how large, and that each is of a kind that neither ends the transaction nor outlives
//! it. It must never let a statement through that could commit.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::ErrorCode;
use crate::command::{Expect, check_condition};
use crate::limits;
use crate::outcome::Refusal;
use crate::value::given;

/// One statement of a branch at a PostgreSQL database.
///
/// It replies the number of rows that it changed, or, if it returns rows, `{"rows": […]}`, an array
/// of objects.
/// `expect` is about that number; of a statement that returns rows, about the first column of the
/// first one (`exists`: whether there is one).
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlOp {
    /// The statement; its parameters are `$1`, `$2`, …
    pub sql: String,
    /// The parameters, in order: texts, numbers, booleans and `null` as PostgreSQL reads them;
    /// arrays and objects as JSON text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<serde_json::Value>, required = false)]
    pub params: Vec<Box<RawValue>>,
    /// What the reply must be; the branch votes no if it is not.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Expect, required = false)]
    pub expect: Option<Expect>,
}

/// Statements that may be run in a branch.
#[derive(Debug, Clone)]
pub struct SqlBranch {
    ops: Vec<SqlOp>,
}

/// The words that a statement may begin with. None of them can end a transaction, change the
/// session, or do what PostgreSQL cannot take back.
const BEGINNINGS: [&str; 9] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE", "CALL"];

impl SqlBranch {
    /// Checks the ops of a branch. The refusal names the op.
    pub fn new(ops: Vec<SqlOp>) -> Result<Self, Refusal> {
        if ops.len() > limits::OPS_PER_BRANCH_MAX {
            let detail = format!("the branch has more than {} ops", limits::OPS_PER_BRANCH_MAX);
            return Err(Refusal::new(ErrorCode::TooManyOps, detail));
        }
        let mut bytes = 0;
        for (op, place) in ops.iter().zip(0..) {
            bytes += op.bytes();
            op.check(bytes).map_err(|refusal| refusal.at_op(place))?;
        }
        Ok(Self { ops })
    }

    /// The ops, in order.
    #[must_use]
    pub fn ops(&self) -> &[SqlOp] {
        &self.ops
    }
}

impl SqlOp {
    fn bytes(&self) -> usize {
        self.sql.len() + self.params.iter().map(|param| param.get().len()).sum::<usize>()
    }

    fn check(&self, bytes: usize) -> Result<(), Refusal> {
        if self.params.len() > limits::ARGS_PER_OP_MAX {
            let detail = format!("the op has more than {} parameters", limits::ARGS_PER_OP_MAX);
            return Err(Refusal::new(ErrorCode::TooManyOps, detail));
        }
        if bytes > limits::BRANCH_BYTES_MAX {
            let detail = format!("the branch has more than {} bytes", limits::BRANCH_BYTES_MAX);
            return Err(Refusal::new(ErrorCode::TooLarge, detail));
        }
        if self.sql.contains('\0') {
            return Err(Refusal::new(ErrorCode::BadArguments, "the statement has a zero byte"));
        }
        let word = first_word(&self.sql);
        if !BEGINNINGS.iter().any(|it| it.eq_ignore_ascii_case(word)) {
            let detail = format!(
                "a statement begins with one of {}; this one with {:?}",
                BEGINNINGS.join(", "),
                crate::text::cut(word, 40)
            );
            return Err(Refusal::new(ErrorCode::UnsupportedCommand, detail));
        }
        match &self.expect {
            Some(expect) => check_condition("the statement", expect),
            None => Ok(()),
        }
    }
}

/// The first word of a statement, behind spaces, comments and parentheses; empty if it begins with
/// something else.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// What stands behind a comment that may have others inside; nothing if it does not end.
fn behind_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, inside);
        } else if let Some(behind) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, behind);
            if depth == 0 {
                return rest;
            }
        } else {
            let next = rest.char_indices().nth(1).map_or(rest.len(), |(at, _)| at);
            rest = &rest[next..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(sql: &str) -> Result<SqlBranch, Refusal> {
        let op = SqlOp { sql: sql.to_owned(), params: Vec::new(), expect: None };
        SqlBranch::new(vec![op])
    }

    /// Promise *nothing of a branch is applied before its outcome*: no statement of it commits.
    #[test]
    fn only_statements_that_end_no_transaction_are_taken() {
        for sql in [
            "SELECT 1",
            "  select 1",
            "((SELECT 1) UNION SELECT 2)",
            "-- why\nUPDATE t SET a = 1",
            "/* a /* nested */ one */ INSERT INTO t VALUES (1)",
            "with a as (select 1) delete from t",
            "TABLE t",
            "CALL p()",
        ] {
            assert!(branch(sql).is_ok(), "{sql}");
        }
        for sql in [
            "COMMIT",
            "/* SELECT */ COMMIT",
            "-- SELECT",
            "/* SELECT 1",
            "",
            ";",
            "; SELECT 1",
            "BEGIN",
            "END",
            "ROLLBACK",
            "PREPARE TRANSACTION 'x'",
            "SET search_path TO evil",
            "SELECTED",
            "selec\u{212a}t",
            "DO 'begin commit; end'",
            "LISTEN x",
            "COPY t FROM STDIN",
            "\u{a0}SELECT 1",
        ] {
            let refusal = branch(sql).expect_err(sql);
            assert_eq!(
                (refusal.code, refusal.op),
                (ErrorCode::UnsupportedCommand, Some(0)),
                "{sql}"
            );
        }
        assert_eq!(branch("SELECT '\0'").unwrap_err().code, ErrorCode::BadArguments);
    }

    #[test]
    fn what_is_too_much_is_refused_by_name() {
        let op = |sql: String, params: usize| SqlOp {
            sql,
            params: (0..params).map(|_| RawValue::from_string("1".to_owned()).unwrap()).collect(),
            expect: None,
        };
        let code = |ops| SqlBranch::new(ops).unwrap_err().code;
        let small = op("SELECT 1".to_owned(), 0);
        assert_eq!(code(vec![small; limits::OPS_PER_BRANCH_MAX + 1]), ErrorCode::TooManyOps);
        let wide = op("SELECT 1".to_owned(), limits::ARGS_PER_OP_MAX + 1);
        assert_eq!(code(vec![wide]), ErrorCode::TooManyOps);
        let long = op(format!("SELECT '{}'", "x".repeat(limits::BRANCH_BYTES_MAX)), 0);
        assert_eq!(code(vec![long]), ErrorCode::TooLarge);
        let empty = Expect::default();
        let says_nothing = SqlOp { expect: Some(empty), ..op("SELECT 1".to_owned(), 0) };
        assert_eq!(code(vec![says_nothing]), ErrorCode::BadArguments);
    }
}
