//! Writing a transaction in Rust.
//!
//! ```
//! use assent_client::Transaction;
//!
//! let transfer = Transaction::new()
//!     .name("transfer")
//!     .branch("bank-a", |ops| ops.op(["DECRBY", "acct:alice", "30"]).expect_ge(0))
//!     .branch("bank-b", |ops| ops.op(["INCRBY", "acct:bob", "30"]))
//!     .build()?;
//! # Ok::<(), assent_client::transaction::InvalidTransaction>(())
//! ```

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use assent_common::command::{Expect, OpRequest};
use assent_common::ids::InvalidId;
use assent_common::sql::SqlOp;
use assent_common::time::DurationMs;
use assent_common::value::Arg;
use assent_common::wire::transaction::{Ack, BranchRequest, Protocol, TransactionRequest};
use assent_common::{ParticipantName, TransactionId};

use crate::sealed::SealedTransaction;

/// Why the parts make no transaction.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTransaction {
    /// A participant's name is none.
    #[error("{name:?} cannot name a participant")]
    Participant {
        /// The text.
        name: String,
        /// The rule that it breaks.
        #[source]
        source: InvalidId,
    },
    /// An expectation stands before the first op.
    #[error("an expectation must follow the op whose reply it is about")]
    ExpectationWithoutOp,
    /// Escrow is asked for before the first op, or of a statement.
    #[error("escrow must follow the command that is done in it")]
    EscrowWithoutOp,
    /// The ops or the input cannot be written as JSON.
    #[error("the ops or the input cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// A transaction being written; see the module.
#[derive(Debug, Default)]
pub struct Transaction {
    id: Option<TransactionId>,
    name: Option<String>,
    branches: Vec<(String, Ops)>,
    /// Whether the id is not of this object.
    is_kept: bool,
    timeout: Option<DurationMs>,
    ack: Ack,
    protocol: Protocol,
}

impl Transaction {
    /// One without branches yet, under an id made here: the id also is the idempotency key, so that it can be asked
    /// about, and submitted again, whatever becomes of the first answer.
    #[must_use]
    pub fn new() -> Self {
        Self { id: TransactionId::new(uuid::Uuid::now_v7()).ok(), ..Self::default() }
    }

    /// Its id, to keep before it is submitted.
    #[must_use]
    pub const fn id(&self) -> Option<TransactionId> {
        self.id
    }

    /// Another id, kept earlier.
    #[must_use]
    pub const fn with_id(mut self, id: TransactionId) -> Self {
        (self.id, self.is_kept) = (Some(id), true);
        self
    }

    /// A label for people.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long it may take to decide.
    #[must_use]
    pub const fn timeout(mut self, timeout: DurationMs) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// When `committed` is answered.
    #[must_use]
    pub const fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// What makes it committed. Only a transaction [without an id](Self::without_id) can be implicit.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Without the id that was made here: nobody can ask for it again, and it must not be submitted again when its answer
    /// is lost.
    #[must_use]
    pub const fn without_id(mut self) -> Self {
        self.id = None;
        self
    }

    /// Its part at one participant.
    #[must_use]
    pub fn branch(mut self, participant: &str, write: impl FnOnce(Ops) -> Ops) -> Self {
        self.branches.push((participant.to_owned(), write(Ops::default())));
        self
    }

    /// The transaction, ready to be sent by an [`AssentClient`](crate::AssentClient), if its parts
    /// are valid.
    pub fn seal(self) -> Result<SealedTransaction, InvalidTransaction> {
        let is_kept = self.is_kept;
        Ok(SealedTransaction::new(self.build()?, is_kept))
    }

    /// The request, if its parts are valid.
    pub fn build(self) -> Result<TransactionRequest, InvalidTransaction> {
        let Self { id, name, branches, timeout, ack, protocol, is_kept: _ } = self;
        let branches = branches
            .into_iter()
            .map(|(name, ops)| ops.build(name))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(TransactionRequest { id, name, branches, timeout, ack, protocol })
    }
}

/// An op of either kind. A branch has ops of one kind, which its coordinator checks.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum WrittenOp {
    Command(OpRequest),
    Statement(SqlOp),
}

/// The ops of a branch being written.
#[derive(Debug, Default)]
pub struct Ops {
    ops: Vec<WrittenOp>,
    input: Option<Box<RawValue>>,
    problem: Option<InvalidTransaction>,
}

impl Ops {
    /// A Redis command: its name and its arguments.
    #[must_use]
    pub fn op<A: Into<Arg>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        let cmd = words.into_iter().map(Into::into).collect();
        self.ops.push(WrittenOp::Command(OpRequest { cmd, expect: None, escrow: false }));
        self
    }

    /// A statement, at a participant with a PostgreSQL database; its parameters are `$1`, `$2`, …
    /// It replies the number of rows that it changed, or `{"rows": […]}`.
    #[must_use]
    pub fn sql<P: Into<serde_json::Value>>(
        mut self,
        statement: &str,
        params: impl IntoIterator<Item = P>,
    ) -> Self {
        let params = params.into_iter().map(|param| to_raw_value(&param.into()));
        match params.collect() {
            Ok(params) => {
                let sql = statement.to_owned();
                self.ops.push(WrittenOp::Statement(SqlOp { sql, params, expect: None }));
            }
            Err(error) => self.problem = Some(InvalidTransaction::Json(error)),
        }
        self
    }

    /// What the participant's hook decides about, beside the ops or instead of them: anything that
    /// is JSON. What the hook replies stands behind the replies of the ops.
    #[must_use]
    pub fn input(mut self, input: &impl Serialize) -> Self {
        match to_raw_value(input) {
            Ok(input) => self.input = Some(input),
            Err(error) => self.problem = Some(InvalidTransaction::Json(error)),
        }
        self
    }

    /// The last op adds to a counter that many add to at once: it shares it with others that do the same, and replies with
    /// what the value may be. See [`OpRequest::escrow`].
    #[must_use]
    pub fn escrow(mut self) -> Self {
        match self.ops.last_mut() {
            Some(WrittenOp::Command(op)) => op.escrow = true,
            Some(WrittenOp::Statement(_)) | None => {
                self.problem = Some(InvalidTransaction::EscrowWithoutOp);
            }
        }
        self
    }

    /// The last op's reply must be this; the transaction is aborted if it is not. So do the others below.
    #[must_use]
    pub fn expect_eq(self, value: impl Into<Arg>) -> Self {
        self.expecting(|expect| expect.eq = Some(Some(value.into())))
    }

    /// The reply must be a number, this or greater.
    #[must_use]
    pub fn expect_ge(self, number: i64) -> Self {
        self.expecting(|expect| expect.ge = Some(Some(Arg(number.to_string().into_bytes()))))
    }

    /// The reply must be a number, this or less.
    #[must_use]
    pub fn expect_le(self, number: i64) -> Self {
        self.expecting(|expect| expect.le = Some(Some(Arg(number.to_string().into_bytes()))))
    }

    /// The reply must be there: not nil, not 0, not an empty array.
    #[must_use]
    pub fn expect_exists(self) -> Self {
        self.expecting(|expect| expect.exists = Some(Some(true)))
    }

    /// The reply must not be there.
    #[must_use]
    pub fn expect_missing(self) -> Self {
        self.expecting(|expect| expect.exists = Some(Some(false)))
    }

    /// Any other expectation.
    #[must_use]
    pub fn expect(self, expectation: Expect) -> Self {
        self.expecting(|expect| *expect = expectation)
    }

    fn expecting(mut self, set: impl FnOnce(&mut Expect)) -> Self {
        match self.ops.last_mut() {
            Some(WrittenOp::Command(op)) => set(op.expect.get_or_insert_default()),
            Some(WrittenOp::Statement(op)) => set(op.expect.get_or_insert_default()),
            None => self.problem = Some(InvalidTransaction::ExpectationWithoutOp),
        }
        self
    }

    fn build(self, name: String) -> Result<BranchRequest, InvalidTransaction> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let participant: ParticipantName = match name.parse() {
            Ok(participant) => participant,
            Err(source) => return Err(InvalidTransaction::Participant { name, source }),
        };
        let ops = to_raw_value(&self.ops).map_err(InvalidTransaction::Json)?;
        Ok(BranchRequest { participant, ops, input: self.input })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_is_the_json_of_the_contract() {
        let transfer = Transaction::new()
            .with_id("0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap())
            .name("transfer")
            .timeout(DurationMs(5_000))
            .branch("bank-a", |ops| ops.op(["DECRBY", "acct:alice", "30"]).expect_ge(0))
            .branch("bank-b", |ops| ops.op(["INCRBY", "acct:bob", "30"]).escrow())
            .build()
            .unwrap();
        assert_eq!(
            serde_json::to_value(&transfer).unwrap(),
            json!({
                "id": "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e",
                "name": "transfer",
                "branches": [
                    {"participant": "bank-a",
                     "ops": [{"cmd": ["DECRBY", "acct:alice", "30"], "expect": {"ge": "0"}}]},
                    {"participant": "bank-b", "ops": [{"cmd": ["INCRBY", "acct:bob", "30"], "escrow": true}]},
                ],
                "timeout": "5s",
                "ack": "applied",
            })
        );
    }

    #[test]
    fn a_statement_stands_beside_its_parameters() {
        let row = Transaction::new()
            .branch("shop", |ops| {
                ops.sql("UPDATE acct SET x = $1 WHERE id = $2", [json!(30), json!("alice")])
                    .expect_eq("1")
                    .sql("SELECT 1", [(); 0])
            })
            .build()
            .unwrap();
        let ops: serde_json::Value = serde_json::from_str(row.branches[0].ops.get()).unwrap();
        assert_eq!(
            ops,
            json!([
                {"sql": "UPDATE acct SET x = $1 WHERE id = $2", "params": [30, "alice"],
                 "expect": {"eq": "1"}},
                {"sql": "SELECT 1"},
            ])
        );
        let reserved = Transaction::new().branch("a", |ops| ops.sql("SELECT 1", [(); 0]).escrow());
        assert!(matches!(reserved.build(), Err(InvalidTransaction::EscrowWithoutOp)));
    }

    #[test]
    fn what_is_no_transaction_is_refused_before_it_is_sent() {
        let misplaced = Transaction::new().branch("a", |ops| ops.expect_ge(0)).build();
        assert!(matches!(misplaced, Err(InvalidTransaction::ExpectationWithoutOp)));
        let nothing = Transaction::new().branch("a", Ops::escrow).build();
        assert!(matches!(nothing, Err(InvalidTransaction::EscrowWithoutOp)));
        let misnamed = Transaction::new().branch("a b", |ops| ops).build();
        assert!(matches!(misnamed, Err(InvalidTransaction::Participant { .. })));
    }
}
