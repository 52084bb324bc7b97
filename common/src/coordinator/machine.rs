//! The machine: the one transition function.

use std::mem;

use super::delivery::Delivery;
use super::effect::{Branch, BranchSet, Effect, Entry, Failure, FromBranch, Input, Note, Outcome};
use super::state::{
    AnswerDurability, Closing, ClosingRecord, Committing, Contention, DecisionRecord, OnePhase,
    Preparing, Purpose, Spec, State, Stray, Transaction, VoteState,
};
use crate::backoff::{Backoff, spread};
use crate::branch::BranchAnswer;
use crate::code::ErrorCode;
use crate::ids::{Attempt, TxNumber};
use crate::limits;
use crate::outcome::{Call, Prepared, Refusal, Vote};
use crate::time::Millis;

/// An input that the state has no transition for. A bug of the shell; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transaction {number:?}: no transition from {state} by {input}")]
pub struct Illegal {
    /// The transaction.
    pub number: TxNumber,
    /// The state's name.
    pub state: &'static str,
    /// The input's name.
    pub input: &'static str,
}

impl Transaction {
    /// A transaction that has not begun.
    #[must_use]
    pub const fn new(spec: Spec) -> Self {
        Self {
            spec,
            state: State::New,
            strays: Vec::new(),
            by_hand: Vec::new(),
            decision_bytes_max: limits::DECISION_BYTES_MAX,
        }
    }

    /// The same, of a log whose records hold no more bytes than this, if that is less than the usual limit.
    #[must_use]
    pub fn with_decision_bytes_max(mut self, bytes: usize) -> Self {
        self.decision_bytes_max = self.decision_bytes_max.min(bytes);
        self
    }

    /// A transaction whose decision was found in the log without its end: every branch is told (again).
    #[must_use]
    pub fn recovered_commit(
        spec: Spec,
        attempt: Attempt,
        votes: Vec<Vote>,
        decided_at: Millis,
        now: Millis,
    ) -> Self {
        let deliveries = votes.iter().map(|_| Delivery::due_now(now)).collect();
        let record = DecisionRecord::Durable;
        let state =
            State::Committing(Committing { attempt, votes, decided_at, deliveries, record });
        Self { state, ..Self::new(spec) }
    }

    /// A one-phase transaction that was begun and whose answer is not in the log: the branch is asked, and fenced if
    /// it never heard of it.
    #[must_use]
    pub fn recovered_one_phase(spec: Spec, attempt: Attempt, now: Millis) -> Self {
        let state = State::OnePhase(OnePhase::recovered(attempt, now));
        Self { state, ..Self::new(spec) }
    }

    /// What does not change.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where the transaction stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Aborts that are still being delivered.
    #[must_use]
    pub fn strays(&self) -> &[Stray] {
        &self.strays
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// When [`Input::Tick`] is wanted, if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        let own = match &self.state {
            State::Preparing(preparing) => preparing
                .votes
                .iter()
                .filter_map(|vote| match vote {
                    VoteState::Resend { at, .. } => Some(*at),
                    VoteState::Later | VoteState::Asked { .. } | VoteState::Yes(_) => None,
                })
                .chain([self.spec.deadline])
                .min(),
            State::Settling(settling) => settling.wake_at(),
            State::Pausing { resume_at, .. } => Some(*resume_at),
            State::OnePhase(one_phase) => one_phase.wake_at(self.spec.deadline),
            State::Committing(Committing { deliveries, .. }) => {
                deliveries.iter().filter_map(Delivery::due_at).min()
            }
            State::New
            | State::Beginning { .. }
            | State::Deciding { .. }
            | State::Closing(_)
            | State::Ended(_) => None,
        };
        self.strays.iter().filter_map(|stray| stray.delivery.due_at()).chain(own).min()
    }

    /// The one transition function. An input without a transition changes nothing and is an error; a late or repeated
    /// answer is none: it is ignored.
    #[expect(clippy::too_many_lines, reason = "the transitions are read as one table")]
    pub fn step(
        &mut self,
        now: Millis,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Illegal> {
        if let Input::Abandon { attempt, .. } = input
            && attempt != self.attempt()
        {
            return Ok(());
        }
        let state = mem::replace(&mut self.state, State::New);
        if let Input::Noted(Note::EndedByHand { branch, outcome, detail }) = &input {
            self.by_hand_is_recorded(*branch, *outcome, detail);
        }
        if matches!(input, Input::Tick | Input::RetryNow) {
            self.send_due_strays(now, matches!(input, Input::RetryNow), effects);
        }
        let next = match (state, input) {
            (State::New, Input::Begin) => self.begin(Attempt::FIRST, None, effects),
            (State::Beginning { attempt, met }, Input::Persisted) => {
                OnePhase::start(attempt, met, effects)
            }
            (State::OnePhase(one_phase), input @ (Input::Tick | Input::RetryNow)) => {
                self.one_phase_step(one_phase, now, input, effects)
            }
            (State::Preparing(preparing), Input::Tick) => {
                self.preparing_tick(preparing, now, effects)
            }
            (State::Preparing(mut preparing), Input::RetryNow) => {
                preparing.votes.iter_mut().for_each(|vote| vote.hurry(now));
                self.preparing_tick(preparing, now, effects)
            }
            (State::Preparing(preparing), Input::DataLost(branch)) => {
                self.data_lost(preparing, now, branch, effects)
            }
            (
                State::Settling(settling),
                input
                @ (Input::Tick | Input::RetryNow | Input::DataLost(_) | Input::Abandon { .. }),
            ) => self.settling_step(settling, now, input, effects),
            (
                State::Pausing { next, resume_at, failure },
                input @ (Input::Tick | Input::RetryNow),
            ) if resume_at <= now || input == Input::RetryNow => {
                if now < self.spec.deadline {
                    self.begin(next, Some(failure), effects)
                } else {
                    self.close_aborted(next, now, failure, effects)
                }
            }
            (State::Deciding { attempt, votes, decided_at }, Input::Persisted) => {
                self.decided(attempt, votes, decided_at, DecisionRecord::Durable, effects)
            }
            (State::Committing(committing), Input::Persisted)
                if committing.record == DecisionRecord::UnderWay =>
            {
                State::Committing(Committing { record: DecisionRecord::Durable, ..committing })
            }
            (State::Committing(committing), Input::Tick) => self.send_due(committing, now, effects),
            (State::Committing(mut committing), Input::RetryNow) => {
                committing.deliveries.iter_mut().for_each(|delivery| delivery.hurry(now));
                self.send_due(committing, now, effects)
            }
            (State::Committing(committing), Input::Abandon { branch, .. }) => {
                self.abandon_strays(branch);
                self.abandoned(committing, branch, effects)
            }
            (State::Committing(committing), Input::Noted(note)) => {
                self.noted(committing, note, effects)
            }
            (State::Closing(closing), Input::Persisted) => Self::closed(closing, effects),
            (State::Closing(mut closing), Input::Abandon { branch, .. }) => {
                if self.abandon_strays(branch) {
                    closing.abandoned.push(branch);
                }
                State::Closing(closing)
            }
            (state, Input::Answered(from)) => self.answered(state, now, from, effects),
            (state, Input::DataLost(_) | Input::Noted(_) | Input::Tick | Input::RetryNow) => state,
            (state, input @ (Input::Begin | Input::Persisted | Input::Abandon { .. })) => {
                let illegal =
                    Illegal { number: self.spec.number, state: state.name(), input: input.name() };
                self.state = state;
                return Err(illegal);
            }
        };
        self.state = self.end_if_over(next);
        Ok(())
    }

    /// What branches say. An answer that comes late or twice changes nothing: what it tells is
    /// known, or a stray abort takes care of it.
    fn answered(
        &mut self,
        state: State,
        now: Millis,
        FromBranch { branch, attempt, answer }: FromBranch,
        effects: &mut Vec<Effect>,
    ) -> State {
        match (state, answer) {
            (State::OnePhase(one_phase), answer) if attempt == one_phase.attempt => {
                self.one_phase_answered(one_phase, now, answer, effects)
            }
            (State::Preparing(preparing), BranchAnswer::Prepared(call))
                if attempt == preparing.attempt =>
            {
                self.vote_arrived(preparing, now, branch, self.heard(call), effects)
            }
            (State::Settling(settling), BranchAnswer::Prepared(call))
                if attempt == settling.attempt =>
            {
                self.late_vote(settling, now, branch, call, effects)
            }
            (State::Settling(settling), BranchAnswer::Settled(call))
                if attempt == settling.attempt =>
            {
                self.settle_answered(settling, now, branch, call, effects)
            }
            (State::Committing(committing), BranchAnswer::Applied(call)) => {
                self.commit_answered(committing, now, branch, call, effects)
            }
            // An abort of an attempt that was given up, whatever came after it.
            (state, BranchAnswer::Aborted(call)) => {
                self.stray_answered(now, branch, attempt, call, effects);
                state
            }
            (state, _) => state,
        }
    }

    /// Sends an attempt's prepares; one phase that writes and whose answer must be kept records its begin first.
    fn begin(&self, attempt: Attempt, met: Option<Failure>, effects: &mut Vec<Effect>) -> State {
        if self.spec.branches == 1 {
            return match (self.spec.purpose, self.spec.answer) {
                (Purpose::Write | Purpose::HookDecides, AnswerDurability::BeforeAnswer) => {
                    effects.push(Effect::Persist(Entry::Begun(attempt)));
                    State::Beginning { attempt, met }
                }
                (Purpose::Read, _) | (_, AnswerDurability::Lazy) => {
                    OnePhase::start(attempt, met, effects)
                }
            };
        }
        let hooked = self.spec.hooked;
        let is_first = |branch| hooked == BranchSet::NONE || hooked.has(branch);
        let mut preparing =
            Preparing { attempt, votes: vec![VoteState::Later; self.spec.branches.into()], met };
        preparing.ask(is_first, effects);
        State::Preparing(preparing)
    }

    /// An attempt is definitely aborted: a conflict is tried again while there is time (invariant 15), anything else
    /// closes.
    pub(super) fn failed(
        &mut self,
        attempt: Attempt,
        now: Millis,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        let delay_ms = Backoff::CONFLICT.delay_ms(attempt.0, spread(self.spec.number.n));
        let resume_at = now.plus(delay_ms);
        let tries_again = failure.refusal.code == ErrorCode::LockConflict
            && self.spec.contention == Contention::Waits
            && resume_at < self.spec.deadline;
        if tries_again {
            return State::Pausing { next: attempt.next(), resume_at, failure };
        }
        self.close_aborted(attempt, now, failure, effects)
    }

    /// What a participant has answered to a prepare: that it would have to wait is a no to who does
    /// not wait.
    pub(super) fn heard(&self, call: Call<Prepared>) -> Call<Prepared> {
        match call {
            Call::Applied(Prepared::Wait(holder))
                if self.spec.contention == Contention::GivesUp =>
            {
                Call::Refused(Refusal::lock_conflict(holder))
            }
            call => call,
        }
    }

    pub(super) fn close_aborted(
        &self,
        attempt: Attempt,
        now: Millis,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        let outcome = Outcome::Aborted(failure);
        let record = match self.spec.answer {
            AnswerDurability::BeforeAnswer => ClosingRecord::TellWhenDurable,
            AnswerDurability::Lazy => {
                effects.push(Effect::Answer(outcome.clone()));
                ClosingRecord::Told
            }
        };
        let told = outcome.clone();
        let entry = Entry::Answered { attempt, decided_at: now, outcome: told, written: None };
        effects.push(Effect::Persist(entry));
        let (abandoned, recorded) = (Vec::new(), Vec::new());
        State::Closing(Closing { attempt, outcome, decided_at: now, record, abandoned, recorded })
    }

    fn closed(closing: Closing, effects: &mut Vec<Effect>) -> State {
        if closing.record == ClosingRecord::TellWhenDurable {
            effects.push(Effect::Answer(closing.outcome.clone()));
        }
        let record = match closing.record {
            ClosingRecord::BehindDecision => ClosingRecord::Told,
            ClosingRecord::TellWhenDurable | ClosingRecord::Told | ClosingRecord::Durable => {
                ClosingRecord::Durable
            }
        };
        State::Closing(Closing { record, ..closing })
    }

    /// Ends when the last record is durable and no abort is under way.
    fn end_if_over(&mut self, state: State) -> State {
        self.strays.retain(|stray| !stray.delivery.is_over());
        match state {
            State::Closing(Closing { record: ClosingRecord::Durable, outcome, .. })
                if self.strays.is_empty() =>
            {
                State::Ended(outcome)
            }
            state => state,
        }
    }

    /// The seed of a branch's jitter.
    pub(super) fn seed(&self, branch: Branch) -> u64 {
        spread(self.spec.number.n ^ (u64::from(branch.0) << 48))
    }
}

impl Input {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Answered(_) => "answered",
            Self::Persisted => "persisted",
            Self::Tick => "tick",
            Self::RetryNow => "retry now",
            Self::Abandon { .. } => "abandon",
            Self::Noted(_) => "noted",
            Self::DataLost(_) => "data lost",
        }
    }
}
