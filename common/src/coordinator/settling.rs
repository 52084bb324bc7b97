//! Giving up an implicit transaction. Its votes are its decision, so that whoever finds them all may have decided commit
//! already: a coordinator that misses one must not abort on its own word. It asks the branches whose vote it does not
//! know, and the question fences those that have none.
//!
//! One fence decides: that branch will never be staged, so that nobody can ever find all votes, and the others may be
//! aborted. If every branch turns out to be staged, it is committed, whatever was to be its end.
//!
//! ```text
//!  Asking ── fenced ──► the attempt is aborted
//!    │ ├─── prepared ──► Staged ── its vote, said again ──► Yes
//!    │ ├─── applied by hand ──────────────────────────────► Yes
//!    │ └─── applied ───► Applied                             all of these: committed
//!    └── the late answer to its prepare: yes ──────────────► Yes
//! ```

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, BranchSet, Effect, Failure, Input, PrepareCall};
use super::state::{Closing, Preparing, SettleState, Settling, State, Transaction, VoteState};
use crate::branch::BranchMessage;
use crate::code::ErrorCode;
use crate::outcome::{Call, Prepared, Refusal, Settled, Vote};
use crate::time::Millis;

impl Settling {
    /// Whether somebody has found all votes.
    fn is_applied(&self) -> bool {
        self.branches.contains(&SettleState::Applied)
    }

    pub(super) fn wake_at(&self) -> Option<Millis> {
        let due = self.branches.iter().filter_map(|branch| match branch {
            SettleState::Asking(delivery) | SettleState::Staged(delivery) => delivery.due_at(),
            SettleState::Yes(_) | SettleState::Applied => None,
        });
        due.min()
    }
}

impl Transaction {
    /// Asks every branch whose vote is not known.
    pub(super) fn settle(
        &self,
        preparing: Preparing,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        let Preparing { attempt, votes, .. } = preparing;
        let branches = (0..).map(Branch).zip(votes).map(|(branch, vote)| match vote {
            VoteState::Yes(vote) => SettleState::Yes(vote),
            VoteState::Later | VoteState::Asked { .. } | VoteState::Resend { .. } => {
                effects.push(Effect::send(branch, attempt, BranchMessage::Settle));
                SettleState::Asking(Delivery::FIRST)
            }
        });
        State::Settling(Settling { attempt, branches: branches.collect(), failure })
    }

    pub(super) fn settling_step(
        &mut self,
        settling: Settling,
        now: Millis,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> State {
        match input {
            Input::Tick => self.send_due_settles(settling, now, false, effects),
            Input::RetryNow => self.send_due_settles(settling, now, true, effects),
            Input::DataLost(branch) | Input::Abandon { branch, .. } if settling.is_applied() => {
                self.cannot_be_staged(settling, now, branch, effects)
            }
            Input::DataLost(branch) => {
                let failure = Failure { branch: Some(branch), ..settling.failure };
                self.abort_all(settling.attempt, BranchSet::NONE, now, failure, effects)
            }
            Input::Abandon { branch, .. } => self.abandon_unsettled(settling, now, branch, effects),
            _ => State::Settling(settling),
        }
    }

    pub(super) fn settle_answered(
        &mut self,
        mut settling: Settling,
        now: Millis,
        branch: Branch,
        call: Call<Settled>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let (seed, attempt) = (self.seed(branch), settling.attempt);
        let Some(state) = settling.branches.get_mut(branch.index()) else {
            return State::Settling(settling);
        };
        let SettleState::Asking(delivery) = state else { return State::Settling(settling) };
        match call {
            Call::Applied(Settled::Fenced) => {
                return self.cannot_be_staged(settling, now, branch, effects);
            }
            Call::Applied(Settled::Prepared) => {
                effects.push(Effect::prepare(branch, attempt, PrepareCall::Batched));
                *state = SettleState::Staged(Delivery::FIRST);
            }
            Call::Applied(Settled::Applied) => *state = SettleState::Applied,
            // It had voted, and says nothing of the votes of the others.
            Call::Refused(Refusal { code: ErrorCode::HeuristicCommitted, .. }) => {
                *state = SettleState::Yes(Vote::unheard());
            }
            Call::Refused(Refusal { code, detail, .. }) => {
                delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            Call::Unknown(why) => delivery.failed(now, seed, Problem::Unknown(why)),
        }
        self.decide_if_settled(settling, now, effects)
    }

    /// The answer to a prepare, of before or again.
    pub(super) fn late_vote(
        &mut self,
        mut settling: Settling,
        now: Millis,
        branch: Branch,
        call: Call<Prepared>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let (seed, attempt) = (self.seed(branch), settling.attempt);
        let Some(state) = settling.branches.get_mut(branch.index()) else {
            return State::Settling(settling);
        };
        match (&mut *state, call) {
            (SettleState::Yes(_) | SettleState::Applied, _) => {}
            (_, Call::Applied(Prepared::Yes(vote))) => *state = SettleState::Yes(vote),
            (_, Call::Refused(refusal)) if refusal.code == ErrorCode::Fenced => {
                return self.cannot_be_staged(settling, now, branch, effects);
            }
            (SettleState::Asking(_), _) => {}
            // Somebody has committed it since it said that it is staged: it is asked again.
            (SettleState::Staged(_), Call::Refused(refusal))
                if refusal.code == ErrorCode::WrongState =>
            {
                effects.push(Effect::send(branch, attempt, BranchMessage::Settle));
                *state = SettleState::Asking(Delivery::FIRST);
            }
            (SettleState::Staged(delivery), Call::Refused(Refusal { code, detail, .. })) => {
                delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            (SettleState::Staged(delivery), Call::Unknown(why)) => {
                delivery.failed(now, seed, Problem::Unknown(why));
            }
            (SettleState::Staged(delivery), Call::Applied(_)) => {
                let why = "the participant's answer is none to a prepare of a staged branch";
                delivery.failed(now, seed, Problem::Unknown(why.to_owned()));
            }
        }
        self.decide_if_settled(settling, now, effects)
    }

    /// A branch will never be staged: nobody can find all votes, and the others may be aborted. Unless one is applied: then
    /// somebody has found them all, and this one's vote is lost. The decision stands, and its commit will be refused, which
    /// is an alarm.
    fn cannot_be_staged(
        &mut self,
        mut settling: Settling,
        now: Millis,
        branch: Branch,
        effects: &mut Vec<Effect>,
    ) -> State {
        if settling.is_applied() {
            if let Some(state) = settling.branches.get_mut(branch.index()) {
                *state = SettleState::Applied;
            }
            return self.decide_if_settled(settling, now, effects);
        }
        let Settling { attempt, failure, .. } = settling;
        self.stray_aborts(attempt, BranchSet::NONE.with(branch), effects);
        self.failed(attempt, now, failure, effects)
    }

    fn decide_if_settled(
        &self,
        settling: Settling,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        let votes: Option<Vec<Vote>> = settling.branches.iter().map(SettleState::vote).collect();
        match votes {
            Some(votes) => self.decide_implicitly(settling.attempt, votes, now, effects),
            None => State::Settling(settling),
        }
    }

    fn send_due_settles(
        &self,
        mut settling: Settling,
        now: Millis,
        hurry: bool,
        effects: &mut Vec<Effect>,
    ) -> State {
        let attempt = settling.attempt;
        for (branch, state) in (0..).map(Branch).zip(&mut settling.branches) {
            let (delivery, message) = match state {
                SettleState::Asking(delivery) => (delivery, BranchMessage::Settle),
                SettleState::Staged(delivery) => {
                    (delivery, BranchMessage::Prepare(PrepareCall::Batched))
                }
                SettleState::Yes(_) | SettleState::Applied => continue,
            };
            if hurry {
                delivery.hurry(now);
            }
            if delivery.take_due(now) {
                effects.push(Effect::send(branch, attempt, message));
            }
        }
        State::Settling(settling)
    }

    /// An operator gives up a branch that cannot be asked: whether it voted will never be known, and the others are
    /// aborted on the operator's word (invariant 16).
    fn abandon_unsettled(
        &mut self,
        settling: Settling,
        now: Millis,
        branch: Branch,
        effects: &mut Vec<Effect>,
    ) -> State {
        let Settling { attempt, failure, .. } = settling;
        self.stray_aborts(attempt, BranchSet::NONE.with(branch), effects);
        match self.close_aborted(attempt, now, failure, effects) {
            State::Closing(closing) => {
                State::Closing(Closing { abandoned: vec![branch], ..closing })
            }
            state => state,
        }
    }
}

impl SettleState {
    /// The vote of a branch that has one. Of one that is applied nothing is known but that: it has no writes that the
    /// log could say again, and no number.
    fn vote(&self) -> Option<Vote> {
        match self {
            Self::Yes(vote) => Some(vote.clone()),
            Self::Applied => Some(Vote::unheard()),
            Self::Asking(_) | Self::Staged(_) => None,
        }
    }
}
