//! Interactive transactions: asks participants what a call comes to, and runs the commit. What is
//! staged is kept by [`assent_engine::InteractiveTransactions`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use assent_client::mutant;
use assent_common::outcome::{Call, Done, Prepared};
use assent_common::time::Millis;
use assent_common::wire::interactive::{
    ActiveWord, BeginRequest, EvaluateRequest, InteractiveView, OpsRequest,
};
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::submission::Submission;
use assent_common::wire::transaction::{TransactionState, TransactionView};
use assent_common::{ErrorCode, ParticipantName, TransactionId, limits};
use assent_engine::{
    ActiveSession, CallEvaluation, EvaluationReplies, InteractiveCounts, InteractiveTransactions,
    OpsCall, Variant, of_participant, problem_of,
};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock;
use crate::engine::{Engine, Fingerprint, Submitted};

/// The interactive transactions of this coordinator.
pub(crate) struct InteractiveDoor {
    engine: Engine,
    sessions: Mutex<InteractiveTransactions>,
}

/// A call that is under way; if nobody waits for it any more, it is over.
struct UnderWay<'a> {
    door: &'a InteractiveDoor,
    id: TransactionId,
    seq: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.door.sessions().call_left(self.id, self.seq);
    }
}

impl InteractiveDoor {
    pub(crate) fn new(engine: Engine) -> Self {
        let sessions = InteractiveTransactions::new(Variant::of(mutant::chosen()));
        Self { engine, sessions: Mutex::new(sessions) }
    }

    fn sessions(&self) -> MutexGuard<'_, InteractiveTransactions> {
        // Each change of it is whole before the next statement that could panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one.
    pub(crate) fn begin(&self, asked: BeginRequest) -> Result<InteractiveView, Problem> {
        asked.check()?;
        if self.engine.is_draining() {
            let detail = "this coordinator is about to stop; nothing was begun";
            return Err(Problem::new(ErrorCode::NotReady, detail));
        }
        let id = match asked.id {
            Some(id) => id,
            None => TransactionId::new(Uuid::now_v7())
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?,
        };
        let is_run = asked.id.is_some() && self.engine.transaction(id).is_ok();
        if is_run {
            let detail = "a transaction has been run under this id".to_owned();
            return Err(problem_of(id, ErrorCode::IdempotencyMismatch, detail));
        }
        let session = self.sessions().begin(id, asked, clock::now())?;
        Ok(shown(session, None))
    }

    /// One as every transaction is shown, if it was begun here and not committed.
    pub(crate) fn view(&self, id: TransactionId) -> Option<TransactionView> {
        Some(match self.sessions().find(id, clock::now())? {
            Ok(session) => view_of_active(&session),
            Err(why) => view_of_ended(id, *why),
        })
    }

    /// A call of its client.
    pub(crate) async fn ops(
        &self,
        id: TransactionId,
        request: OpsRequest,
    ) -> Result<InteractiveView, Problem> {
        let called = self.sessions().call(id, request.clone(), clock::now());
        let evaluations = match called.map_err(|problem| self.unless_run(id, problem))? {
            OpsCall::Again(session, replies) => return Ok(shown(session, Some(replies))),
            OpsCall::New(evaluations) => evaluations,
        };
        let _under_way = UnderWay { door: self, id, seq: request.seq };
        let asked = evaluations.into_iter().map(async |evaluation| {
            let replies = self.evaluate(&evaluation).await;
            (evaluation, replies)
        });
        let answered = join_all(asked).await;
        let (session, replies) = self.sessions().called(id, &request, answered, clock::now())?;
        Ok(shown(session, Some(replies)))
    }

    async fn evaluate(&self, evaluation: &CallEvaluation) -> EvaluationReplies {
        let CallEvaluation { participant, ops, .. } = evaluation;
        let client = self.engine.client_of(participant)?;
        let request = EvaluateRequest { participant: participant.clone(), ops: ops.clone() };
        let replies = match client.evaluate(&request).await {
            Call::Applied(Prepared::Committed(Done { replies, .. })) => replies,
            Call::Refused(refusal) => return Err(Problem::from(refusal)),
            Call::Applied(_) => return Err(silent(participant, "it answers otherwise")),
            Call::Unknown(why) => return Err(silent(participant, &why)),
        };
        serde_json::from_str(&replies).map_err(|error| silent(participant, &error.to_string()))
    }

    /// How many there are, and how others have ended.
    pub(crate) fn counts(&self) -> InteractiveCounts {
        self.sessions().counts(clock::now())
    }

    /// The transaction that commits one: the same again, if its answer was lost.
    pub(crate) fn commit(&self, id: TransactionId) -> Result<(Submission, Fingerprint), Problem> {
        let request = self.sessions().commit(id, clock::now())?;
        let bytes = serde_json::to_vec(&request)
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        Fingerprint::of(request, &bytes)
    }

    /// What came of that transaction. When it is decided, it answers for itself.
    pub(crate) fn came(&self, id: TransactionId, submitted: &Result<Submitted, Problem>) {
        let is_decided = match submitted {
            Ok(Submitted { view, .. }) => view.outcome != OutcomeWord::Pending,
            Err(problem) => problem.outcome == Some(OutcomeWord::Aborted),
        };
        if is_decided {
            self.sessions().committed(id);
        }
    }

    /// Its client gives it up.
    pub(crate) fn abort(&self, id: TransactionId) -> Result<Box<Problem>, Problem> {
        let aborted = self.sessions().abort(id, clock::now());
        aborted.map_err(|problem| self.unless_run(id, problem))
    }

    /// What is not active may have been committed, or aborted by its commit.
    fn unless_run(&self, id: TransactionId, problem: Problem) -> Problem {
        if problem.code != ErrorCode::NotFound {
            return problem;
        }
        match self.engine.transaction(id) {
            Ok(view) => {
                let detail = "it is not active any more: its commit has begun".to_owned();
                let outcome = Some(view.outcome);
                Problem { outcome, ..problem_of(id, ErrorCode::WrongState, detail) }
            }
            Err(_) => problem,
        }
    }
}

/// Nothing was staged by it, so that it may be asked again.
fn silent(participant: &ParticipantName, why: &str) -> Problem {
    let detail = format!("participant {participant}: {why}; nothing was staged by this call");
    of_participant(participant, ErrorCode::ParticipantUnreachable, detail)
}

/// One that is active, as every transaction is shown.
pub(crate) fn view_of_active(session: &ActiveSession) -> TransactionView {
    let begun_at = Millis(session.ends_at.0.saturating_sub(limits::INTERACTIVE_AGE_MAX_MS));
    TransactionView {
        name: session.name.clone(),
        state: TransactionState::Active,
        created_at: Some(clock::rfc3339(begun_at)),
        deadline_at: Some(clock::rfc3339(session.expires_at)),
        seq: Some(session.seq),
        expires_at: Some(clock::rfc3339(session.expires_at)),
        ends_at: Some(clock::rfc3339(session.ends_at)),
        ..bare(session.id, OutcomeWord::Pending)
    }
}

/// One that ended without a commit.
pub(crate) fn view_of_ended(id: TransactionId, why: Problem) -> TransactionView {
    TransactionView { error: Some(why), ..bare(id, OutcomeWord::Aborted) }
}

fn bare(id: TransactionId, outcome: OutcomeWord) -> TransactionView {
    TransactionView {
        id,
        name: None,
        outcome,
        state: TransactionState::Ended,
        applied: None,
        branches: Vec::new(),
        error: None,
        attempt: 0,
        created_at: None,
        deadline_at: None,
        decided_at: None,
        seq: None,
        expires_at: None,
        ends_at: None,
    }
}

fn shown(session: ActiveSession, replies: Option<Box<RawValue>>) -> InteractiveView {
    let ActiveSession { id, name, seq, expires_at, ends_at } = session;
    InteractiveView {
        id,
        name,
        outcome: ActiveWord::Active,
        seq,
        replies,
        expires_at: clock::rfc3339(expires_at),
        ends_at: clock::rfc3339(ends_at),
    }
}
