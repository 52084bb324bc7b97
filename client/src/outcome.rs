//! What came of a transaction: committed, aborted, rejected or unknown. Never two of these in one.

use assent_common::outcome::Refusal;
use assent_common::value::Arg;
use assent_common::wire::branch::HolderBody;
use assent_common::wire::hook::Veto;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{TransactionState, TransactionView};
use assent_common::{ErrorCode, TransactionId};
use serde::Deserialize as _;
use serde_json::Value;

use crate::transaction::InvalidTransaction;
use crate::transport::{Heard, NotSent, Unknown, parse};

/// Every branch applies: now, or as soon as its participant answers.
#[derive(Debug, Clone)]
pub struct CommittedTransaction {
    /// The transaction, as its coordinator tells it.
    pub view: TransactionView,
    /// The base URL of the coordinator that took it.
    pub coordinator: String,
}

impl CommittedTransaction {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.view.id
    }

    /// Whether every branch has applied. Without it some participant has not acknowledged yet: it
    /// was not waited for (`"ack": "decided"`), or it did not answer in time. The outcome stands.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.view.applied == Some(true)
    }

    /// The replies of a participant, as JSON: of the ops in their order, and then the hook's. Empty
    /// if it has no part in it. [`reply_bytes`] gives the bytes of one.
    #[must_use]
    pub fn replies(&self, participant: &str) -> Vec<Value> {
        let of = |name: &str| name == participant;
        let branch = self.view.branches.iter().find(|branch| of(branch.participant.as_str()));
        let replies = branch.and_then(|branch| branch.replies.as_ref());
        replies.and_then(|replies| serde_json::from_str(replies.get()).ok()).unwrap_or_default()
    }

    /// What the hook of a participant replied.
    #[must_use]
    pub fn hook_reply(&self, participant: &str) -> Option<Value> {
        self.replies(participant).pop()?.as_object_mut()?.remove("hook")
    }
}

/// The bytes of a reply that is text, other bytes (`{"base64": "…"}` in JSON), or an integer.
#[must_use]
pub fn reply_bytes(reply: &Value) -> Option<Vec<u8>> {
    Arg::deserialize(reply).ok().map(|Arg(bytes)| bytes)
}

/// What came of a transaction that is not known to be committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransactionError {
    /// No branch applies, now or later. If it is [retryable](Self::retryable), a new attempt, under
    /// a new id, may help.
    #[error("aborted: {0}")]
    Aborted(Box<Cause>),
    /// This copy of the request has begun nothing. If the same was sent by an earlier process, that
    /// one may have committed.
    #[error("rejected: {0}")]
    Rejected(Box<Cause>),
    /// It may have committed, or may yet. Submit the same again, or attach its id; never run it
    /// anew under another id.
    #[error("not known: {0}")]
    Unknown(Box<Cause>),
}

/// Why, and of which transaction.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Cause {
    /// The transaction, if it is known.
    pub id: Option<TransactionId>,
    /// The base URL of the coordinator that was asked.
    pub coordinator: Option<String>,
    /// What happened.
    pub why: CauseKind,
}

impl Cause {
    /// The coordinator's error document; nothing where there is none.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match &self.why {
            CauseKind::Problem(problem) => Some(problem),
            CauseKind::NotSent(_) | CauseKind::Pending(_) | CauseKind::Unclear(_) => None,
        }
    }

    /// The error code; `not_sent` where there was no connection.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match &self.why {
            CauseKind::Problem(problem) => Some(problem.code.as_str()),
            CauseKind::NotSent(_) => Some("not_sent"),
            CauseKind::Pending(_) | CauseKind::Unclear(_) => None,
        }
    }

    /// The code and the reason of a hook's veto.
    #[must_use]
    pub fn veto(&self) -> Option<Veto> {
        self.problem()?.veto()
    }
}

/// What happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CauseKind {
    /// The coordinator says so, or this client in its words.
    #[error("{}: {}", .0.code, .0.detail)]
    Problem(Problem),
    /// There was no connection, so that nothing was sent.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The coordinator has it, and there is no outcome yet.
    #[error("it is {0:?}: there is no outcome yet")]
    Pending(TransactionState),
    /// There is no answer, or none of Assent's.
    #[error("{0}")]
    Unclear(String),
}

impl TransactionError {
    /// Why, and of which transaction.
    #[must_use]
    pub const fn cause(&self) -> &Cause {
        match self {
            Self::Aborted(cause) | Self::Rejected(cause) | Self::Unknown(cause) => cause,
        }
    }

    fn into_cause(self) -> Box<Cause> {
        match self {
            Self::Aborted(cause) | Self::Rejected(cause) | Self::Unknown(cause) => cause,
        }
    }

    /// The coordinator's error document; nothing where there is none.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        self.cause().problem()
    }

    /// The error code; `not_sent` where there was no connection.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        self.cause().code()
    }

    /// Whether the same work may succeed if it is done again: after `Aborted` as a new transaction,
    /// after `Rejected` the same one too. Never of `Unknown`, which may be done already: submit the
    /// same one again, or attach its id.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match (self, &self.cause().why) {
            (Self::Unknown(_), _) => false,
            (_, CauseKind::Problem(problem)) => problem.retryable,
            (_, CauseKind::NotSent(_)) => true,
            // It was given up before its commit.
            (Self::Rejected(_), CauseKind::Unclear(_)) => true,
            (_, CauseKind::Pending(_) | CauseKind::Unclear(_)) => false,
        }
    }

    /// The transaction's id, if it is known.
    #[must_use]
    pub const fn id(&self) -> Option<TransactionId> {
        self.cause().id
    }

    /// The coordinator that was asked.
    #[must_use]
    pub fn coordinator(&self) -> Option<&str> {
        self.cause().coordinator.as_deref()
    }

    /// The participant of the branch to blame.
    #[must_use]
    pub fn participant(&self) -> Option<&str> {
        self.problem()?.participant.as_deref()
    }

    /// The op of that branch to blame, from 0.
    #[must_use]
    pub fn op(&self) -> Option<u32> {
        self.problem()?.op
    }

    /// The reply that a false expectation met.
    #[must_use]
    pub fn reply(&self) -> Option<Value> {
        serde_json::from_str(self.problem()?.reply.as_ref()?.get()).ok()
    }

    /// Who holds the lock, in a conflict.
    #[must_use]
    pub fn holder(&self) -> Option<&HolderBody> {
        self.problem()?.holder.as_ref()
    }

    /// The code and the reason of a hook's veto.
    #[must_use]
    pub fn veto(&self) -> Option<Veto> {
        self.cause().veto()
    }

    /// Whether it is unknown because the coordinator itself has no outcome yet.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.cause().why, CauseKind::Pending(_))
    }

    /// Whether nobody was reached.
    pub(crate) const fn is_not_sent(&self) -> bool {
        matches!(self.cause().why, CauseKind::NotSent(_))
    }

    /// A no of this client.
    pub(crate) fn refused(asked: AskedOf<'_>, code: ErrorCode, why: impl Into<String>) -> Self {
        Self::Rejected(asked.cause(CauseKind::Problem(Problem::new(code, why))))
    }

    /// The same as one that knows nothing of the outcome: of a question, or where an earlier copy
    /// of the request may have been taken.
    pub(crate) fn into_unknown(self) -> Self {
        Self::Unknown(self.into_cause())
    }

    /// The same of a transaction that nobody has committed.
    pub(crate) fn into_nothing_done(self) -> Self {
        match self {
            Self::Unknown(cause) => {
                let why = CauseKind::Unclear(format!("nothing was done: {}", cause.why));
                Self::Rejected(Box::new(Cause { why, ..*cause }))
            }
            known => known,
        }
    }
}

impl From<InvalidTransaction> for TransactionError {
    fn from(invalid: InvalidTransaction) -> Self {
        let refusal = Refusal::new(ErrorCode::BadRequest, invalid.to_string());
        let why = CauseKind::Problem(refusal.into());
        Self::Rejected(Box::new(Cause { id: None, coordinator: None, why }))
    }
}

/// What a request was about, and who was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedOf<'a> {
    pub(crate) id: Option<TransactionId>,
    pub(crate) coordinator: Option<&'a str>,
}

impl AskedOf<'_> {
    fn cause(self, why: CauseKind) -> Box<Cause> {
        Box::new(Cause { id: self.id, coordinator: self.coordinator.map(str::to_owned), why })
    }

    pub(crate) fn unclear(self, why: impl Into<String>) -> TransactionError {
        TransactionError::Unknown(self.cause(CauseKind::Unclear(why.into())))
    }

    pub(crate) fn not_sent(self, NotSent(why): NotSent) -> TransactionError {
        TransactionError::Rejected(self.cause(CauseKind::NotSent(why)))
    }

    pub(crate) fn problem(self, problem: Problem) -> TransactionError {
        let (outcome, code) = (problem.outcome, problem.code);
        let is_named = self.id.is_none() || problem.id == self.id;
        if !is_named && problem.id.is_some() {
            // A proxy that has mixed up two answers.
            return self.unclear("the answer is about another transaction");
        }
        let asked = AskedOf { id: self.id.or(problem.id), ..self };
        let cause = asked.cause(CauseKind::Problem(problem));
        match (outcome, code) {
            // An outcome names its transaction.
            (Some(OutcomeWord::Aborted), _) if is_named => TransactionError::Aborted(cause),
            // A fault inside says nothing of what was begun before it.
            (Some(_), _) | (None, ErrorCode::Internal) => TransactionError::Unknown(cause),
            (None, _) => TransactionError::Rejected(cause),
        }
    }

    /// That its own program has given it up.
    pub(crate) fn cancelled(self) -> TransactionError {
        let why = "it was aborted by its own program";
        TransactionError::Aborted(self.cause(CauseKind::Problem(Problem {
            id: self.id,
            outcome: Some(OutcomeWord::Aborted),
            ..Problem::new(ErrorCode::Cancelled, why)
        })))
    }

    /// The body of a success, or what came of it instead.
    pub(crate) fn said<T: serde::de::DeserializeOwned>(
        self,
        heard: Result<Heard, NotSent>,
    ) -> Result<T, TransactionError> {
        match heard {
            Ok(Heard::Said { body, .. }) => parse(&body).map_err(|Unknown(why)| self.unclear(why)),
            Ok(Heard::Problem(problem)) => Err(self.problem(*problem)),
            Ok(Heard::Unknown(Unknown(why))) => Err(self.unclear(why)),
            Err(not_sent) => Err(self.not_sent(not_sent)),
        }
    }

    /// The story of a transaction, if it is of this one.
    pub(crate) fn view(
        self,
        heard: Result<Heard, NotSent>,
    ) -> Result<TransactionView, TransactionError> {
        let view: TransactionView = self.said(heard)?;
        match self.id {
            Some(id) if id != view.id => {
                Err(self.unclear(format!("asked for {id}, told of {}", view.id)))
            }
            _ => Ok(view),
        }
    }

    /// What a transaction, as its coordinator tells it, has come to.
    pub(crate) fn outcome_of(
        self,
        view: TransactionView,
    ) -> Result<CommittedTransaction, TransactionError> {
        let asked = AskedOf { id: Some(view.id), ..self };
        match view.outcome {
            OutcomeWord::Committed => {
                let coordinator = self.coordinator.unwrap_or_default().to_owned();
                Ok(CommittedTransaction { view, coordinator })
            }
            OutcomeWord::Aborted => {
                let cause = asked.cause(CauseKind::Problem(view.why_aborted()));
                Err(TransactionError::Aborted(cause))
            }
            OutcomeWord::Pending => {
                Err(TransactionError::Unknown(asked.cause(CauseKind::Pending(view.state))))
            }
        }
    }

    pub(crate) fn committed(
        self,
        heard: Result<Heard, NotSent>,
    ) -> Result<CommittedTransaction, TransactionError> {
        self.outcome_of(self.view(heard)?)
    }
}
