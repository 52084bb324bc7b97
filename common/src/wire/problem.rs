//! Errors on the wire: RFC 9457 problem documents with a code.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::code::ErrorCode;
use crate::ids::TransactionId;
use crate::limits;
use crate::outcome::Refusal;
use crate::text;
use crate::value::given;
use crate::wire::branch::HolderBody;
use crate::wire::hook::Veto;

/// An error answer, `application/problem+json`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference of the code's documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's meaning, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, for people: what happened, to what, what to do next.
    pub detail: String,
    /// The code.
    pub code: ErrorCode,
    /// Whether the same work may succeed if it is done again: after an abort as a new transaction.
    pub retryable: bool,
    /// The transaction, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<TransactionId>,
    /// `aborted`, where the transaction was aborted; absent where nothing was begun or nothing is known.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeWord>,
    /// The participant of the branch to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    /// The op of that branch to blame, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<u32>,
    /// Who holds the lock, in a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderBody>,
    /// The reply that a false expectation met; or the code and the reason of a veto.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub reply: Option<Box<RawValue>>,
}

/// What is known of a transaction's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeWord {
    /// Every branch applies.
    Committed,
    /// No branch applies.
    Aborted,
    /// Not known yet.
    Pending,
}

impl Problem {
    /// A problem with its code and sentence only.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/errors#{code}"),
            title: code.meaning(),
            status: code.status(),
            detail: text::cut_owned(detail.into(), limits::DETAIL_BYTES_MAX),
            code,
            retryable: code.retryable(),
            id: None,
            outcome: None,
            participant: None,
            op: None,
            holder: None,
            reply: None,
        }
    }
}

impl Problem {
    /// What the hook of the participant said, if it vetoed.
    #[must_use]
    pub fn veto(&self) -> Option<Veto> {
        let reply = self.reply.as_ref().filter(|_| self.code == ErrorCode::Vetoed)?;
        serde_json::from_str(reply.get()).ok()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            op: refusal.op,
            holder: refusal.holder.map(HolderBody::from),
            reply: refusal.reply.and_then(|reply| RawValue::from_string(reply.to_string()).ok()),
            ..Self::new(refusal.code, refusal.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::branch::Answer;

    /// Who expected a value and met nil hears of it: `null` is not the same as no word.
    #[test]
    fn a_reply_of_nil_comes_through_the_answer_of_a_branch_and_the_problem() {
        let answer: Answer = serde_json::from_str(r#"{"vote":"no","reply":null}"#).unwrap();
        assert_eq!(answer.reply.as_ref().map(|reply| reply.get()), Some("null"));
        assert!(serde_json::to_string(&answer).unwrap().contains(r#""reply":null"#));

        let refusal = Refusal::new(ErrorCode::ExpectationFailed, "met nil");
        let refusal = Refusal { reply: Some("null".into()), ..refusal };
        let body = serde_json::to_string(&Problem::from(refusal)).unwrap();
        assert!(body.contains(r#""reply":null"#), "{body}");
        let problem: Problem = serde_json::from_str(&body).unwrap();
        assert_eq!(problem.reply.as_ref().map(|reply| reply.get()), Some("null"));

        let wordless: Answer = serde_json::from_str(r#"{"vote":"no"}"#).unwrap();
        assert!(wordless.reply.is_none());
    }
}
