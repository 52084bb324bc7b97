//! What a transaction shows of itself: to people, and to a branch that asks for its outcome.

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, Failure, Outcome};
use super::state::{
    Closing, ClosingRecord, DecisionRecord, EndedByHand, NoVote, OnePhaseCall, SettleState, State,
    Transaction, VoteState,
};
use crate::code::ErrorCode;
use crate::ids::Attempt;
use crate::outcome::Refusal;
use crate::time::Millis;
use crate::wire::outcome::BranchOutcome;
use crate::wire::transaction::{BranchProgress, Protocol, TransactionState};

/// How often an outcome is said in vain before it is thought that it will not be heard soon: half a second of tries.
const IN_VAIN_TRIES: u32 = 4;

/// Where a branch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchStatus {
    /// In a word.
    pub progress: BranchProgress,
    /// How often its present message was sent without a clear answer.
    pub tries: u32,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// When its message is sent next.
    pub next_try_at: Option<Millis>,
}

impl BranchStatus {
    const fn quiet(progress: BranchProgress) -> Self {
        Self { progress, tries: 0, last_error: None, next_try_at: None }
    }

    /// The prepare is out, perhaps not for the first time.
    fn asked(tries: u32, last: Option<&NoVote>) -> Self {
        let last_error = last.map(ToString::to_string);
        Self { tries, last_error, ..Self::quiet(BranchProgress::Preparing) }
    }

    /// Asked what it did. Until an answer fails too, the reason is what it is asked for.
    fn of_question(delivery: &Delivery, asked_for: &Failure, done: BranchProgress) -> Self {
        let mut status = Self::of_delivery(delivery, BranchProgress::Preparing, done);
        if !delivery.is_over() && status.last_error.is_none() {
            let Refusal { code, detail, .. } = &asked_for.refusal;
            status.last_error = Some(format!("{code}: {detail}"));
        }
        status
    }

    /// The last try of its message met this.
    fn after(problem: &Problem, under_way: BranchProgress) -> Self {
        let (progress, error) = match problem {
            Problem::Unknown(why) => (under_way, why.clone()),
            Problem::Refused { code: ErrorCode::BranchLost, detail } => {
                (BranchProgress::Lost, detail.clone())
            }
            Problem::Refused { code, detail } => (under_way, format!("{code}: {detail}")),
        };
        Self { last_error: Some(error), ..Self::quiet(progress) }
    }

    fn of_delivery(delivery: &Delivery, under_way: BranchProgress, done: BranchProgress) -> Self {
        match delivery {
            Delivery::Sent { tries, problem: None } => {
                Self { tries: *tries, ..Self::quiet(under_way) }
            }
            Delivery::Sent { tries, problem: Some(problem) } => {
                Self { tries: *tries, ..Self::after(problem, under_way) }
            }
            Delivery::Due { at, tries, problem } => {
                let next_try_at = Some(*at);
                Self { tries: *tries, next_try_at, ..Self::after(problem, under_way) }
            }
            Delivery::Done | Delivery::Recorded => Self::quiet(done),
            Delivery::Abandoned => Self::quiet(BranchProgress::Abandoned),
            // Who did it and why, the machine knows.
            Delivery::Heuristic => Self::quiet(BranchProgress::HeuristicAborted),
        }
    }
}

impl Transaction {
    /// Where the transaction stands, in a word.
    #[must_use]
    pub const fn state_word(&self) -> TransactionState {
        match &self.state() {
            State::New | State::Beginning { .. } | State::Preparing(_) => {
                TransactionState::Preparing
            }
            State::OnePhase(one_phase) => match one_phase.call {
                OnePhaseCall::Sent { .. } | OnePhaseCall::Resend { .. } => {
                    TransactionState::Preparing
                }
                OnePhaseCall::Asking { .. } => TransactionState::Asking,
            },
            State::Settling(_) => TransactionState::Asking,
            State::Pausing { .. } => TransactionState::Retrying,
            State::Deciding { .. } => TransactionState::Deciding,
            State::Committing(_) => TransactionState::Committing,
            State::Closing(closing) => match (&closing.outcome, closing.record) {
                (Outcome::Committed { .. }, ClosingRecord::TellWhenDurable) => {
                    TransactionState::Committing
                }
                // So its client is answered, and nobody may hear less of it later.
                (Outcome::Committed { applied: true, .. }, _) => TransactionState::Ended,
                (Outcome::Committed { applied: false, .. }, _) => TransactionState::Committing,
                (Outcome::Aborted(_), _) => TransactionState::Aborting,
            },
            State::Ended(_) => TransactionState::Ended,
        }
    }

    /// The attempt that is under way, or that the outcome came of.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        match self.state() {
            State::New | State::Ended(_) => Attempt::FIRST,
            State::Beginning { attempt, .. } | State::Deciding { attempt, .. } => *attempt,
            State::OnePhase(one_phase) => one_phase.attempt,
            State::Preparing(preparing) => preparing.attempt,
            State::Settling(settling) => settling.attempt,
            State::Pausing { next, .. } => *next,
            State::Committing(committing) => committing.attempt,
            State::Closing(closing) => closing.attempt,
        }
    }

    /// The outcome, where it is known to be durable or to need no record; with the moment of the decision.
    #[must_use]
    pub fn outcome(&self) -> Option<(Outcome, Millis)> {
        match self.state() {
            State::Committing(committing) => {
                let replies = committing.votes.iter().map(|vote| vote.replies.clone()).collect();
                Some((Outcome::Committed { applied: false, replies }, committing.decided_at))
            }
            // Whoever heard of an abort whose record a crash then swallows could see the same key commit later.
            State::Closing(closing) if closing.record == ClosingRecord::TellWhenDurable => None,
            State::Closing(closing) => Some((closing.outcome.clone(), closing.decided_at)),
            State::New
            | State::Beginning { .. }
            | State::OnePhase(_)
            | State::Preparing(_)
            | State::Settling(_)
            | State::Pausing { .. }
            | State::Deciding { .. }
            | State::Ended(_) => None,
        }
    }

    /// Whether the outcome must not be told yet, because its record is not durable.
    #[must_use]
    pub fn answer_is_held_back(&self) -> bool {
        matches!(self.state(), State::Closing(closing) if closing.record == ClosingRecord::TellWhenDurable)
    }

    /// Whether the outcome is fixed, and only to be delivered and recorded.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        matches!(self.state(), State::Committing(_) | State::Closing(_) | State::Ended(_))
    }

    /// Whether the transaction cannot be decided before a branch has answered.
    #[must_use]
    pub fn waits_for_vote(&self, branch: Branch) -> bool {
        match self.state() {
            State::OnePhase(_) => true,
            State::Preparing(preparing) => {
                let vote = preparing.votes.get(branch.index());
                !matches!(vote, Some(VoteState::Yes(_)))
            }
            State::Settling(settling) => {
                let state = settling.branches.get(branch.index());
                matches!(state, Some(SettleState::Asking(_) | SettleState::Staged(_)))
            }
            State::New
            | State::Beginning { .. }
            | State::Pausing { .. }
            | State::Deciding { .. }
            | State::Committing(_)
            | State::Closing(_)
            | State::Ended(_) => false,
        }
    }

    /// Whether nothing of it can come to an end for now, so that nothing is gained by waiting, and nothing lost by stopping: its
    /// records are durable, and each branch that it waits for is away, or was told in vain for some time.
    #[must_use]
    pub fn waits_in_vain(&self, is_away: impl Fn(Branch) -> bool) -> bool {
        let in_vain = |branch: Branch, delivery: &Delivery| {
            delivery.is_over() || delivery.tries() >= IN_VAIN_TRIES || is_away(branch)
        };
        let waits = match self.state() {
            State::OnePhase(one_phase) => match &one_phase.call {
                OnePhaseCall::Asking { delivery, .. } => in_vain(Branch(0), delivery),
                OnePhaseCall::Sent { .. } | OnePhaseCall::Resend { .. } => false,
            },
            State::Settling(settling) => {
                (0..).map(Branch).zip(&settling.branches).all(|(branch, state)| match state {
                    SettleState::Asking(delivery) | SettleState::Staged(delivery) => {
                        in_vain(branch, delivery)
                    }
                    SettleState::Yes(_) | SettleState::Applied => true,
                })
            }
            State::Committing(committing) => {
                let mut told = (0..).map(Branch).zip(&committing.deliveries);
                committing.record == DecisionRecord::Durable
                    && told.all(|(branch, delivery)| in_vain(branch, delivery))
            }
            State::Closing(closing) => closing.record == ClosingRecord::Durable,
            State::New
            | State::Beginning { .. }
            | State::Preparing(_)
            | State::Pausing { .. }
            | State::Deciding { .. }
            | State::Ended(_) => false,
        };
        waits && self.strays().iter().all(|stray| in_vain(stray.branch, &stray.delivery))
    }

    /// Whether nothing is left to do but to write its last record, which is on its way to the log.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state_word() == TransactionState::Ended && self.strays().is_empty()
    }

    /// Whether a branch has not acknowledged the outcome that it was told, or the abort of an earlier attempt.
    #[must_use]
    pub fn owes_an_answer(&self, branch: Branch) -> bool {
        let is_told = match self.state() {
            State::Committing(committing) => {
                committing.deliveries.get(branch.index()).is_some_and(|told| !told.is_over())
            }
            _ => false,
        };
        is_told || self.strays().iter().any(|stray| stray.branch == branch)
    }

    /// Whether a branch will never be told anything of the transaction again, by this life or a next one: the low-water mark
    /// of its participant may pass it, though other branches have not ended (invariant 10). Of an implicit transaction
    /// the branches keep their markers for each other, until it has ended everywhere.
    #[must_use]
    pub fn is_over_at(&self, branch: Branch) -> bool {
        let is_logged = self.spec().protocol == Protocol::Logged;
        let is_told = match self.state() {
            State::Committing(committing) => match committing.deliveries.get(branch.index()) {
                Some(Delivery::Recorded) => true,
                Some(Delivery::Heuristic) => self.by_hand(branch).is_some_and(|it| it.is_recorded),
                _ => false,
            },
            State::Closing(Closing { outcome: Outcome::Committed { .. }, recorded, .. }) => {
                recorded.contains(&branch)
            }
            // No attempt follows, and a next life presumes abort. An only branch it would ask, if it finds no answer.
            State::Closing(Closing { outcome: Outcome::Aborted(_), .. }) => {
                self.spec().branches > 1
            }
            State::Ended(_) => return true,
            _ => false,
        };
        is_logged && is_told && self.strays().iter().all(|stray| stray.branch != branch)
    }

    /// Why the last attempt was aborted, while a next one is due.
    #[must_use]
    pub const fn last_failure(&self) -> Option<&Failure> {
        match self.state() {
            State::Pausing { failure, .. } => Some(failure),
            State::Settling(settling) => Some(&settling.failure),
            _ => None,
        }
    }

    /// The answer to a branch in doubt that knows the transaction by this attempt (invariant 7: only for transactions
    /// that are active here; presumed abort is [`super::recovery`]'s).
    #[must_use]
    pub fn outcome_for(&self, attempt: Attempt) -> BranchOutcome {
        let current = self.attempt();
        match self.state() {
            State::Committing(_) if attempt == current => BranchOutcome::Committed,
            State::Closing(closing) => match closing.outcome {
                Outcome::Committed { .. } if attempt == current => BranchOutcome::Committed,
                Outcome::Committed { .. } | Outcome::Aborted(_) => BranchOutcome::Aborted,
            },
            _ if attempt < current => BranchOutcome::Aborted,
            _ => BranchOutcome::Undecided,
        }
    }

    /// Where a branch stands.
    #[must_use]
    pub fn branch_status(&self, branch: Branch) -> BranchStatus {
        let status = self.status_by_state(branch);
        let by_hand = match self.state() {
            State::Committing(_) if status.progress != BranchProgress::HeuristicAborted => None,
            State::Committing(_) | State::Closing(_) | State::Ended(_) => self.by_hand(branch),
            _ => None,
        };
        match by_hand {
            Some(EndedByHand { outcome, detail, .. }) => BranchStatus {
                last_error: Some(detail.clone()),
                ..BranchStatus::quiet((*outcome).into())
            },
            None => status,
        }
    }

    fn status_by_state(&self, branch: Branch) -> BranchStatus {
        let stray = self.strays().iter().find(|stray| stray.branch == branch);
        match self.state() {
            State::Committing(committing) => committing.deliveries.get(branch.index()).map_or_else(
                || BranchStatus::quiet(BranchProgress::Committing),
                |delivery| {
                    let under_way = BranchProgress::Committing;
                    BranchStatus::of_delivery(delivery, under_way, BranchProgress::Applied)
                },
            ),
            State::Preparing(preparing) => match preparing.votes.get(branch.index()) {
                Some(VoteState::Yes(_)) => BranchStatus::quiet(BranchProgress::Prepared),
                Some(VoteState::Resend { at, tries, why }) => BranchStatus {
                    progress: BranchProgress::Preparing,
                    tries: *tries,
                    last_error: Some(why.to_string()),
                    next_try_at: Some(*at),
                },
                Some(VoteState::Asked { tries, last }) => {
                    BranchStatus::asked(*tries, last.as_ref())
                }
                Some(VoteState::Later) | None => BranchStatus::quiet(BranchProgress::Preparing),
            },
            State::Settling(settling) => match settling.branches.get(branch.index()) {
                Some(SettleState::Asking(delivery)) => {
                    BranchStatus::of_question(delivery, &settling.failure, BranchProgress::Prepared)
                }
                Some(SettleState::Staged(delivery)) => BranchStatus::of_delivery(
                    delivery,
                    BranchProgress::Prepared,
                    BranchProgress::Prepared,
                ),
                Some(SettleState::Yes(_)) | None => BranchStatus::quiet(BranchProgress::Prepared),
                Some(SettleState::Applied) => BranchStatus::quiet(BranchProgress::Applied),
            },
            State::OnePhase(one_phase) => match &one_phase.call {
                OnePhaseCall::Sent { tries, last } => BranchStatus::asked(*tries, last.as_ref()),
                OnePhaseCall::Resend { at, tries, why } => BranchStatus {
                    progress: BranchProgress::Preparing,
                    tries: *tries,
                    last_error: Some(why.to_string()),
                    next_try_at: Some(*at),
                },
                OnePhaseCall::Asking { delivery, failure } => {
                    BranchStatus::of_question(delivery, failure, BranchProgress::Applied)
                }
            },
            State::Deciding { .. } => BranchStatus::quiet(BranchProgress::Prepared),
            State::New | State::Beginning { .. } | State::Pausing { .. } => {
                BranchStatus::quiet(BranchProgress::Preparing)
            }
            State::Closing(closing) if closing.abandoned.contains(&branch) => {
                BranchStatus::quiet(BranchProgress::Abandoned)
            }
            State::Closing(closing) => match (&closing.outcome, stray) {
                (Outcome::Committed { .. }, _) => BranchStatus::quiet(BranchProgress::Applied),
                (Outcome::Aborted(_), Some(stray)) => BranchStatus::of_delivery(
                    &stray.delivery,
                    BranchProgress::Aborting,
                    BranchProgress::Aborted,
                ),
                (Outcome::Aborted(_), None) => BranchStatus::quiet(BranchProgress::Aborted),
            },
            State::Ended(Outcome::Committed { .. }) => BranchStatus::quiet(BranchProgress::Applied),
            State::Ended(Outcome::Aborted(_)) => BranchStatus::quiet(BranchProgress::Aborted),
        }
    }
}
