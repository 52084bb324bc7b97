//! Lists that strangers send, read up to their limits. A body of some megabytes can hold a million
//! of the smallest ops, and each becomes a structure of some hundred bytes.
//!
//! What is beyond a limit is skipped, not refused: one element beyond it is kept, so that whoever
//! checks the count refuses the request with the code and the words of that limit.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits;
use crate::value::Arg;

/// The ops of a branch, as whoever reads a message keeps them.
pub trait ReadOps<'de>: Sized {
    /// Reads them.
    fn read_ops<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl<'de> ReadOps<'de> for Box<RawValue> {
    fn read_ops<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

pub(super) fn ops<'de, Ops, D>(deserializer: D) -> Result<Ops, D::Error>
where
    Ops: ReadOps<'de>,
    D: Deserializer<'de>,
{
    Ops::read_ops(deserializer)
}

/// The same, where they may be left out.
pub(super) fn ops_given<'de, Ops, D>(deserializer: D) -> Result<Option<Ops>, D::Error>
where
    Ops: ReadOps<'de>,
    D: Deserializer<'de>,
{
    Ops::read_ops(deserializer).map(Some)
}

pub(crate) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arg>, D::Error> {
    list(deserializer, limits::ARGS_PER_OP_MAX)
}

/// The same, where they may be left out.
pub(super) fn words_given<'de, D>(deserializer: D) -> Result<Option<Vec<Arg>>, D::Error>
where
    D: Deserializer<'de>,
{
    words(deserializer).map(Some)
}

/// The parameters of a statement, where they are given.
pub(super) fn params_given<'de, D>(deserializer: D) -> Result<Option<Vec<Box<RawValue>>>, D::Error>
where
    D: Deserializer<'de>,
{
    list(deserializer, limits::ARGS_PER_OP_MAX).map(Some)
}

pub(super) fn branches<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, limits::BRANCHES_MAX)
}

/// The same, where they may be left out.
pub(super) fn branches_given<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    branches(deserializer).map(Some)
}

/// The ops of one call of an interactive transaction, at all participants.
pub(super) fn interactive_ops<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, limits::OPS_PER_BRANCH_MAX)
}

pub(super) fn messages<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, limits::BATCH_MESSAGES_MAX)
}

fn list<'de, T, D>(deserializer: D, max: usize) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Bounded::new(max, |_: &T| true))
}

/// Keeps `max` elements and one more, or those up to the first that there is no room for.
pub(crate) struct Bounded<T, R> {
    max: usize,
    room: R,
    of: PhantomData<T>,
}

impl<T, R: FnMut(&T) -> bool> Bounded<T, R> {
    pub(crate) const fn new(max: usize, room: R) -> Self {
        Self { max, room, of: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, R: FnMut(&T) -> bool> Visitor<'de> for Bounded<T, R> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while let Some(element) = list.next_element()? {
            let is_last = !(self.room)(&element) || kept.len() == self.max;
            kept.push(element);
            if is_last {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::ErrorCode;
    use crate::command::{OpRequest, ValidatedBranch};
    use crate::wire::branch::Batch;
    use crate::wire::transaction::TransactionRequest;

    fn read(json: &str) -> Vec<OpRequest> {
        Vec::read_ops(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    fn repeated(element: &str, count: usize) -> String {
        format!("[{}]", vec![element; count].join(","))
    }

    /// What is skipped must be refused: a branch that lost its last ops would commit without them.
    #[test]
    fn what_is_beyond_a_limit_is_skipped_and_refused() {
        let wide = |words| format!(r#"{{"cmd":["DEL",{}}}"#, &repeated("0", words - 1)[1..]);
        let each = limits::WORDS_PER_BRANCH_MAX / 100;
        for (json, kept) in [
            (repeated(r#"{"cmd":[]}"#, 100_000), limits::OPS_PER_BRANCH_MAX + 1),
            (repeated(&wide(each), 1_000), 101),
            (repeated(&wide(100_000), 1), 1),
        ] {
            let ops = read(&json);
            assert_eq!(ops.len(), kept);
            assert!(ops.iter().all(|op| op.cmd.len() <= limits::ARGS_PER_OP_MAX + 1));
            let code = ValidatedBranch::new(ops).unwrap_err().code;
            assert_eq!(code, ErrorCode::TooManyOps);
        }
        let most = repeated(r#"{"cmd":["GET","k"]}"#, limits::OPS_PER_BRANCH_MAX);
        assert_eq!(
            ValidatedBranch::new(read(&most)).unwrap().ops.len(),
            limits::OPS_PER_BRANCH_MAX
        );
    }

    #[test]
    fn lists_of_branches_and_messages_have_one_element_beyond_their_limit() {
        let branch = r#"{"participant":"a","ops":[]}"#;
        let body = format!(r#"{{"branches":{}}}"#, repeated(branch, 10_000));
        let request: TransactionRequest = serde_json::from_str(&body).unwrap();
        assert_eq!(request.branches.len(), limits::BRANCHES_MAX + 1);
        assert_eq!(request.validate().unwrap_err().code, ErrorCode::TooManyOps);
        let log = "01976f3e8f007000800000000000000a";
        let message = format!(r#"{{"commit":{{"txid":"{log}.1.1.0"}}}}"#);
        let messages = repeated(&message, 10_000);
        let body = format!(
            r#"{{"participant":"a","coordinator":{{"log_id":"{log}","epoch":1,"url":"http://c"}},
                "low_water":{{"epoch":1,"n":0}},"messages":{messages}}}"#
        );
        let batch: Batch = serde_json::from_str(&body).unwrap();
        assert_eq!(batch.messages.len(), limits::BATCH_MESSAGES_MAX + 1);
    }
}
