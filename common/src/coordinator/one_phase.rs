//! One phase: a transaction of one branch. The branch prepares and commits in one script, so that there is no decision
//! to log; but an answer that is lost leaves the outcome unknown, and then the branch is asked.
//!
//! The question is an abort: a branch that never heard of the transaction fences it, one that has applied it says so.
//! A refusal is definite only if no earlier try is under way: a delayed duplicate could still be applied after it, so
//! that the branch is fenced first.

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, Effect, Entry, Failure, Input, Outcome, PrepareCall};
use super::no_vote::too_late;
use super::state::{
    AnswerDurability, Closing, ClosingRecord, NoVote, OnePhase, OnePhaseCall, Purpose, State,
    Transaction,
};
use crate::backoff::Backoff;
use crate::branch::{BranchAnswer, BranchMessage};
use crate::code::ErrorCode;
use crate::ids::Attempt;
use crate::outcome::{Aborted, Call, Done, Prepared, Refusal};
use crate::time::Millis;

/// The only branch.
const ONLY: Branch = Branch(0);

impl OnePhase {
    pub(super) fn start(
        attempt: Attempt,
        met: Option<Failure>,
        effects: &mut Vec<Effect>,
    ) -> State {
        effects.push(Effect::prepare(ONLY, attempt, PrepareCall::Batched));
        State::OnePhase(Self { attempt, call: OnePhaseCall::Sent { tries: 0, last: None }, met })
    }

    pub(super) fn recovered(attempt: Attempt, now: Millis) -> Self {
        let detail = "the coordinator was restarted before it heard what came of the only branch";
        let refusal = Refusal::new(ErrorCode::Interrupted, detail);
        let failure = Failure { branch: Some(ONLY), refusal };
        let call = OnePhaseCall::Asking { delivery: Delivery::due_now(now), failure };
        Self { attempt, call, met: None }
    }

    pub(super) fn wake_at(&self, deadline: Millis) -> Option<Millis> {
        match &self.call {
            OnePhaseCall::Sent { .. } => Some(deadline),
            OnePhaseCall::Resend { at, .. } => Some((*at).min(deadline)),
            OnePhaseCall::Asking { delivery, .. } => delivery.due_at(),
        }
    }

    /// Sends the question.
    fn ask(attempt: Attempt, failure: Failure, effects: &mut Vec<Effect>) -> State {
        effects.push(Effect::send(ONLY, attempt, BranchMessage::Abort));
        let call = OnePhaseCall::Asking { delivery: Delivery::FIRST, failure };
        State::OnePhase(Self { attempt, call, met: None })
    }
}

impl Transaction {
    /// The moment of something, or an operator's word.
    pub(super) fn one_phase_step(
        &self,
        one_phase: OnePhase,
        now: Millis,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> State {
        let OnePhase { attempt, call, met } = one_phase;
        let is_late = now >= self.spec().deadline;
        let call = match (call, input) {
            (OnePhaseCall::Sent { last, .. }, Input::Tick) if is_late => {
                let refusal = too_late(ErrorCode::Timeout, last.as_ref());
                let late = Failure { branch: Some(ONLY), refusal };
                return OnePhase::ask(attempt, met.unwrap_or(late), effects);
            }
            (OnePhaseCall::Resend { why, .. }, Input::Tick) if is_late => {
                let refusal = too_late(why.code(), Some(&why));
                return OnePhase::ask(attempt, Failure { branch: Some(ONLY), refusal }, effects);
            }
            (OnePhaseCall::Resend { at, tries, why }, input)
                if at <= now || input == Input::RetryNow =>
            {
                effects.push(Effect::prepare(ONLY, attempt, PrepareCall::Batched));
                OnePhaseCall::Sent { tries, last: Some(why) }
            }
            (OnePhaseCall::Asking { mut delivery, failure }, input) => {
                if input == Input::RetryNow {
                    delivery.hurry(now);
                }
                if delivery.take_due(now) {
                    effects.push(Effect::send(ONLY, attempt, BranchMessage::Abort));
                }
                OnePhaseCall::Asking { delivery, failure }
            }
            // An early tick.
            (call, _) => call,
        };
        State::OnePhase(OnePhase { attempt, call, met })
    }

    /// The branch has answered to the attempt.
    pub(super) fn one_phase_answered(
        &mut self,
        one_phase: OnePhase,
        now: Millis,
        answer: BranchAnswer,
        effects: &mut Vec<Effect>,
    ) -> State {
        let OnePhase { attempt, call, met } = one_phase;
        match (call, answer) {
            (_, BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done)))) => {
                self.close_committed(attempt, now, done, effects)
            }
            (OnePhaseCall::Sent { tries, .. }, BranchAnswer::Prepared(call)) => {
                self.prepare_answered((attempt, met), tries, now, self.heard(call), effects)
            }
            (OnePhaseCall::Asking { delivery, failure }, BranchAnswer::Aborted(call)) => {
                self.question_answered((attempt, failure), delivery, now, call, effects)
            }
            // A late answer to what is not asked any more.
            (call, _) => State::OnePhase(OnePhase { attempt, call, met }),
        }
    }

    fn prepare_answered(
        &mut self,
        (attempt, met): (Attempt, Option<Failure>),
        tries: u32,
        now: Millis,
        call: Call<Prepared>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let at = now.plus(Backoff::PREPARE.delay_ms(tries, self.seed(ONLY)));
        let unclear = |why: NoVote, met| {
            let call = OnePhaseCall::Resend { at, tries: tries + 1, why };
            State::OnePhase(OnePhase { attempt, call, met })
        };
        match call {
            Call::Applied(Prepared::Committed(done)) => {
                self.close_committed(attempt, now, done, effects)
            }
            Call::Applied(Prepared::Wait(holder)) if tries == 0 => {
                effects.push(Effect::prepare(ONLY, attempt, PrepareCall::Waiting));
                let call = OnePhaseCall::Sent { tries: 1, last: Some(NoVote::Held(holder)) };
                State::OnePhase(OnePhase { attempt, call, met })
            }
            Call::Applied(Prepared::Wait(holder)) => unclear(NoVote::Held(holder), met),
            Call::Applied(Prepared::Yes(_)) => {
                let why = "the participant only staged a branch that it was to apply";
                unclear(NoVote::Unknown(why.to_owned()), met)
            }
            Call::Unknown(why) => unclear(NoVote::Unknown(why), met),
            Call::Refused(refusal) => {
                let failure = Failure { branch: Some(ONLY), refusal };
                if tries == 0 && failure.refusal.code != ErrorCode::WrongState {
                    self.failed(attempt, now, failure, effects)
                } else {
                    OnePhase::ask(attempt, failure, effects)
                }
            }
        }
    }

    fn question_answered(
        &mut self,
        (attempt, failure): (Attempt, Failure),
        mut delivery: Delivery,
        now: Millis,
        call: Call<Aborted>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let problem = match call {
            Call::Applied(Aborted::AlreadyCommitted(done)) => {
                return self.close_committed(attempt, now, done, effects);
            }
            Call::Applied(Aborted::Fenced) => return self.failed(attempt, now, failure, effects),
            Call::Refused(Refusal { code, detail, .. }) => Problem::Refused { code, detail },
            Call::Unknown(why) => Problem::Unknown(why),
        };
        delivery.failed(now, self.seed(ONLY), problem);
        let call = OnePhaseCall::Asking { delivery, failure };
        State::OnePhase(OnePhase { attempt, call, met: None })
    }

    /// The branch has applied: that is the decision, and it is durable there. The answer's record follows lazily; until
    /// it is durable the branch keeps its done-marker. A reader left none: its answer is kept before it is told, if it
    /// must be kept at all.
    fn close_committed(
        &self,
        attempt: Attempt,
        now: Millis,
        Done { replies, written }: Done,
        effects: &mut Vec<Effect>,
    ) -> State {
        let outcome = Outcome::Committed { applied: true, replies: vec![replies] };
        let record = match (self.spec().purpose, self.spec().answer) {
            (Purpose::Read, AnswerDurability::BeforeAnswer) => ClosingRecord::TellWhenDurable,
            (Purpose::HookDecides, AnswerDurability::BeforeAnswer) if written.is_none() => {
                ClosingRecord::TellWhenDurable
            }
            (Purpose::Write | Purpose::HookDecides, _) | (_, AnswerDurability::Lazy) => {
                effects.push(Effect::Answer(outcome.clone()));
                ClosingRecord::Told
            }
        };
        let told = outcome.clone();
        let entry = Entry::Answered { attempt, decided_at: now, outcome: told, written };
        effects.push(Effect::Persist(entry));
        let (abandoned, recorded) = (Vec::new(), Vec::new());
        State::Closing(Closing { attempt, outcome, decided_at: now, record, abandoned, recorded })
    }
}
