//! Transactions as the public API shows them, from three sources: active ones, just decided ones,
//! and log records.

use assent_common::coordinator::{Branch, Failure, Outcome};
use assent_common::outcome::{Heuristic, Refusal, Replies};
use assent_common::record::{AnswerRecord, Answered, Committed, EndedByHand, Identity, Record};
use assent_common::time::Millis;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{
    BranchProgress, BranchReport, TransactionState, TransactionView,
};
use assent_common::{Attempt, ErrorCode, ParticipantName, TransactionId};
use assent_engine::{Active, Core, Decided, Lane};
use serde_json::value::RawValue;

use super::shared::Engine;
use crate::clock::rfc3339;

/// An active transaction.
pub(super) fn view(core: &Core, id: TransactionId) -> Option<TransactionView> {
    let number = core.number_of(id)?;
    core.active(number).map(|active| view_of_active(core, active))
}

/// An active transaction as it stands.
pub(super) fn view_of_active(core: &Core, active: &Active) -> TransactionView {
    let identity = &active.accepted.identity;
    let machine = &active.machine;
    let known = machine.outcome().filter(|_| !machine.answer_is_held_back());
    let names = active.accepted.participants.iter();
    let branches = (0..)
        .map(Branch)
        .zip(names)
        .map(|(branch, participant)| {
            let status = machine.branch_status(branch);
            let silent = silent_lane(core, active, branch, status.progress);
            let replies = match &known {
                Some((Outcome::Committed { replies, .. }, _)) => replies.get(branch.index()),
                _ => None,
            };
            BranchReport {
                participant: participant.clone(),
                state: status.progress,
                replies: replies.and_then(raw),
                tries: status.tries,
                last_error: status.last_error.or_else(|| silent?.last_error.clone()),
                next_try_at: status
                    .next_try_at
                    .or_else(|| silent?.breaker.next_probe_at())
                    .map(rfc3339),
            }
        })
        .collect();
    let participants = || active.accepted.participants.iter();
    let error = match &known {
        Some((Outcome::Aborted(failure), _)) => Some(problem_of_failure(
            identity.id,
            failure,
            participants(),
            Some(OutcomeWord::Aborted),
        )),
        Some(_) => None,
        None => machine
            .last_failure()
            .map(|failure| problem_of_failure(identity.id, failure, participants(), None)),
    };
    TransactionView {
        id: identity.id,
        name: identity.name.clone(),
        outcome: known.as_ref().map_or(OutcomeWord::Pending, |(outcome, _)| word(outcome)),
        state: machine.state_word(),
        applied: known.as_ref().and_then(|(outcome, _)| applied(outcome)),
        branches,
        error,
        attempt: machine.attempt().0,
        created_at: Some(rfc3339(identity.created_at)),
        deadline_at: known.is_none().then(|| rfc3339(active.accepted.deadline)),
        decided_at: known.map(|(_, decided_at)| rfc3339(decided_at)),
        seq: None,
        expires_at: None,
        ends_at: None,
    }
}

/// The lane of a branch that waits for a participant that does not answer: what is known of it is
/// what the branch has met, while its message is out.
fn silent_lane<'a>(
    core: &'a Core,
    active: &Active,
    branch: Branch,
    at: BranchProgress,
) -> Option<&'a Lane> {
    let waits = matches!(
        at,
        BranchProgress::Preparing | BranchProgress::Committing | BranchProgress::Aborting
    );
    let lane = active.lanes.get(branch.index()).map(|lane| &core.lanes()[*lane])?;
    (waits && lane.up == Some(false)).then_some(lane)
}

/// A transaction whose answer is given now.
pub(super) fn view_of_decided(decided: &Decided) -> TransactionView {
    let Decided { accepted, attempt, outcome, decided_at, .. } = decided;
    let names = || accepted.participants.iter();
    let state = match outcome {
        Outcome::Committed { applied: true, .. } => TransactionState::Ended,
        Outcome::Committed { applied: false, .. } => TransactionState::Committing,
        Outcome::Aborted(_) => TransactionState::Aborting,
    };
    ended(&accepted.identity, *attempt, *decided_at, state, names(), outcome)
}

impl Engine {
    /// An ended transaction; `None` for records that answer for none.
    pub(super) fn view_of_record(&self, record: Record) -> Option<TransactionView> {
        let (attempt, mut view) = view_of_record(record)?;
        let (abandoned, by_hand) = {
            let core = self.core();
            let history = core.history();
            (history.abandoned_of(view.id, attempt), history.by_hand_of(view.id))
        };
        for branch in
            view.branches.iter_mut().filter(|branch| abandoned.contains(&branch.participant))
        {
            branch.state = BranchProgress::Abandoned;
            view.applied = view.applied.map(|_| false);
        }
        for EndedByHand { participant, outcome, detail, .. } in by_hand {
            let branch = view.branches.iter_mut().find(|it| it.participant == participant);
            let Some(branch) = branch else { continue };
            branch.state = outcome.into();
            branch.last_error = Some(detail);
            if outcome == Heuristic::Aborted {
                view.applied = view.applied.map(|_| false);
            }
        }
        Some(view)
    }
}

/// With the attempt that the transaction ended with.
fn view_of_record(record: Record) -> Option<(Attempt, TransactionView)> {
    match record {
        Record::Committed(Committed { identity, attempt, decided_at, branches, .. }) => {
            let replies = branches.iter().map(|branch| branch.replies.clone()).collect();
            let outcome = Outcome::Committed { applied: true, replies };
            let names = branches.iter().map(|branch| &branch.participant);
            let state = TransactionState::Ended;
            Some((attempt, ended(&identity, attempt, decided_at, state, names, &outcome)))
        }
        Record::Answered(Answered {
            identity, attempt, decided_at, participants, answer, ..
        }) => {
            let outcome = outcome_of(answer);
            let names = participants.iter();
            let state = TransactionState::Ended;
            Some((attempt, ended(&identity, attempt, decided_at, state, names, &outcome)))
        }
        _ => None,
    }
}

fn outcome_of(answer: AnswerRecord) -> Outcome {
    match answer {
        AnswerRecord::Committed { replies } => {
            Outcome::Committed { applied: true, replies: vec![replies] }
        }
        AnswerRecord::Aborted { branch, code, detail, op, reply } => Outcome::Aborted(Failure {
            branch: branch.map(Branch),
            refusal: Refusal { code, detail, op, holder: None, reply },
        }),
    }
}

fn ended<'a>(
    identity: &Identity,
    attempt: Attempt,
    decided_at: Millis,
    state: TransactionState,
    names: impl Iterator<Item = &'a ParticipantName> + Clone,
    outcome: &Outcome,
) -> TransactionView {
    let (progress, replies): (_, &[Replies]) = match outcome {
        Outcome::Committed { applied: true, replies } => (BranchProgress::Applied, replies),
        Outcome::Committed { applied: false, replies } => (BranchProgress::Committing, replies),
        Outcome::Aborted(_) => (BranchProgress::Aborted, &[]),
    };
    let error = match outcome {
        Outcome::Committed { .. } => None,
        Outcome::Aborted(failure) => Some(problem_of_failure(
            identity.id,
            failure,
            names.clone(),
            Some(OutcomeWord::Aborted),
        )),
    };
    let report = |(place, participant): (usize, &ParticipantName)| BranchReport {
        participant: participant.clone(),
        state: progress,
        replies: replies.get(place).and_then(raw),
        tries: 0,
        last_error: None,
        next_try_at: None,
    };
    TransactionView {
        id: identity.id,
        name: identity.name.clone(),
        outcome: word(outcome),
        state,
        applied: applied(outcome),
        branches: names.enumerate().map(report).collect(),
        error,
        attempt: attempt.0,
        created_at: Some(rfc3339(identity.created_at)),
        deadline_at: None,
        decided_at: Some(rfc3339(decided_at)),
        seq: None,
        expires_at: None,
        ends_at: None,
    }
}

fn problem_of_failure<'a>(
    id: TransactionId,
    failure: &Failure,
    mut names: impl Iterator<Item = &'a ParticipantName>,
    outcome: Option<OutcomeWord>,
) -> Problem {
    let participant = failure.branch.and_then(|branch| names.nth(branch.index()));
    let mut problem = Problem::from(failure.refusal.clone());
    // These are the coordinator's own words, which has no names where it finds them.
    let is_own = matches!(problem.code, ErrorCode::Timeout | ErrorCode::ParticipantUnreachable);
    if let Some(name) = participant.filter(|_| is_own) {
        problem.detail = format!("participant {name}: {}", problem.detail);
    }
    Problem { id: Some(id), outcome, participant: participant.map(ToString::to_string), ..problem }
}

/// Replies come as JSON text from a participant's answer or from the log; both were JSON when they
/// were taken.
fn raw(replies: &Replies) -> Option<Box<RawValue>> {
    RawValue::from_string(replies.to_string()).ok()
}

const fn word(outcome: &Outcome) -> OutcomeWord {
    match outcome {
        Outcome::Committed { .. } => OutcomeWord::Committed,
        Outcome::Aborted(_) => OutcomeWord::Aborted,
    }
}

const fn applied(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Committed { applied, .. } => Some(*applied),
        Outcome::Aborted(_) => None,
    }
}
