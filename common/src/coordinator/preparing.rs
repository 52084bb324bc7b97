//! Collecting votes: from the prepares to the decision, or to the aborts of an attempt that is given up.

use super::delivery::Delivery;
use super::effect::{Branch, BranchSet, Effect, Entry, Failure, PrepareCall};
use super::no_vote::deadline_failure;
use super::state::{DecisionRecord, NoVote, Preparing, State, Stray, Transaction, VoteState};
use crate::backoff::Backoff;
use crate::branch::BranchMessage;
use crate::code::ErrorCode;
use crate::ids::Attempt;
use crate::outcome::{Call, Prepared, Refusal, Vote};
use crate::time::Millis;
use crate::wire::transaction::Protocol;

impl Transaction {
    pub(super) fn vote_arrived(
        &mut self,
        mut preparing: Preparing,
        now: Millis,
        branch: Branch,
        call: Call<Prepared>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let seed = self.seed(branch);
        let attempt = preparing.attempt;
        let Some(vote) = preparing.votes.get_mut(branch.index()) else {
            return State::Preparing(preparing);
        };
        let VoteState::Asked { tries, .. } = *vote else {
            return State::Preparing(preparing);
        };
        match call {
            Call::Applied(Prepared::Yes(yes)) => *vote = VoteState::Yes(yes),
            Call::Applied(Prepared::Wait(holder)) if tries == 0 => {
                *vote = VoteState::Asked { tries: 1, last: Some(NoVote::Held(holder)) };
                effects.push(Effect::prepare(branch, attempt, PrepareCall::Waiting));
            }
            Call::Applied(Prepared::Wait(holder)) => {
                *vote = resend(now, tries, seed, NoVote::Held(holder));
            }
            Call::Applied(Prepared::Committed(_)) => {
                let detail = "the participant applied a branch that it was asked to prepare only";
                let refusal = Refusal::new(ErrorCode::Internal, detail);
                let failure = Failure { branch: Some(branch), refusal };
                return self.give_up(preparing, now, failure, effects);
            }
            Call::Unknown(why) => *vote = resend(now, tries, seed, NoVote::Unknown(why)),
            Call::Refused(refusal) if self.spec().protocol == Protocol::Implicit => {
                let failure = Failure { branch: Some(branch), refusal };
                return self.settle(preparing, failure, effects);
            }
            Call::Refused(refusal) => {
                // Nothing is staged by a definite no, so that it needs no abort; unless an earlier try of this
                // prepare is still under way somewhere, or somebody has applied the branch by hand.
                let unasked = preparing.unasked();
                if tries == 0 && refusal.code != ErrorCode::WrongState {
                    self.stray_aborts(attempt, unasked.with(branch), effects);
                } else {
                    self.stray_aborts(attempt, unasked, effects);
                }
                return self.failed(
                    attempt,
                    now,
                    Failure { branch: Some(branch), refusal },
                    effects,
                );
            }
        }
        if preparing.votes.iter().all(|vote| matches!(vote, VoteState::Yes(_) | VoteState::Later)) {
            preparing.ask(|_| true, effects);
        }
        if preparing.votes.iter().all(|vote| matches!(vote, VoteState::Yes(_))) {
            if self.spec().protocol == Protocol::Implicit {
                let votes = preparing.votes.into_iter().filter_map(VoteState::yes).collect();
                return self.decide_implicitly(attempt, votes, now, effects);
            }
            let bytes: usize = preparing.votes.iter().map(VoteState::bytes).sum();
            if bytes <= self.decision_bytes_max {
                return Self::decide(preparing, now, effects);
            }
            let detail = format!(
                "the writes and replies of all branches are {bytes} bytes; at most {} fit into one decision",
                self.decision_bytes_max
            );
            let refusal = Refusal::new(ErrorCode::TooLarge, detail);
            return self.give_up(preparing, now, Failure { branch: None, refusal }, effects);
        }
        State::Preparing(preparing)
    }

    /// All N votes are yes, of one attempt: the only way to a commit record (invariant 5).
    pub(super) fn decide(preparing: Preparing, now: Millis, effects: &mut Vec<Effect>) -> State {
        let votes: Vec<Vote> = preparing.votes.into_iter().filter_map(VoteState::yes).collect();
        effects.push(Effect::Persist(Entry::Committed {
            attempt: preparing.attempt,
            votes: votes.clone(),
            decided_at: now,
        }));
        State::Deciding { attempt: preparing.attempt, votes, decided_at: now }
    }

    /// All N votes are yes, of one attempt, and nothing else is wanted: that is the decision. Its record follows, for the
    /// history and so that a Redis that loses its data can be repaired.
    pub(super) fn decide_implicitly(
        &self,
        attempt: Attempt,
        votes: Vec<Vote>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        let bytes: usize = votes.iter().map(|vote| vote.redo.len() + vote.replies.len()).sum();
        let votes_recorded = if bytes <= self.decision_bytes_max {
            votes.clone()
        } else {
            // It cannot be aborted for that any more: anybody may have seen the votes.
            let bare = |vote: &Vote| Vote { redo: [].into(), replies: "[]".into(), ..*vote };
            votes.iter().map(bare).collect()
        };
        let decision = Entry::Committed { attempt, votes: votes_recorded, decided_at: now };
        effects.push(Effect::Persist(decision));
        self.decided(attempt, votes, now, DecisionRecord::UnderWay, effects)
    }

    pub(super) fn preparing_tick(
        &mut self,
        mut preparing: Preparing,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        if now >= self.spec.deadline {
            let failure = deadline_failure(&preparing);
            return self.give_up(preparing, now, failure, effects);
        }
        let attempt = preparing.attempt;
        for (branch, vote) in (0..).map(Branch).zip(&mut preparing.votes) {
            if let VoteState::Resend { at, tries, why } = vote
                && *at <= now
            {
                *vote = VoteState::Asked { tries: *tries, last: Some(why.clone()) };
                effects.push(Effect::prepare(branch, attempt, PrepareCall::Batched));
            }
        }
        State::Preparing(preparing)
    }

    /// The vote of a branch is gone, or will be when it comes: the attempt cannot commit any more.
    pub(super) fn data_lost(
        &mut self,
        preparing: Preparing,
        now: Millis,
        branch: Branch,
        effects: &mut Vec<Effect>,
    ) -> State {
        let detail = "the participant's Redis lost data, and what was prepared there with it";
        let refusal = Refusal::new(ErrorCode::Quarantined, detail);
        let failure = Failure { branch: Some(branch), refusal };
        self.abort_all(preparing.attempt, preparing.unasked(), now, failure, effects)
    }

    /// Gives an attempt up for good.
    fn give_up(
        &mut self,
        preparing: Preparing,
        now: Millis,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        match self.spec().protocol {
            Protocol::Logged => {
                self.abort_all(preparing.attempt, preparing.unasked(), now, failure, effects)
            }
            Protocol::Implicit => self.settle(preparing, failure, effects),
        }
    }

    /// Aborts every branch of the attempt that was asked, and closes.
    pub(super) fn abort_all(
        &mut self,
        attempt: Attempt,
        unasked: BranchSet,
        now: Millis,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        self.stray_aborts(attempt, unasked, effects);
        self.close_aborted(attempt, now, failure, effects)
    }

    /// Sends an abort to every branch of an attempt, save those that certainly have nothing staged.
    pub(super) fn stray_aborts(
        &mut self,
        attempt: Attempt,
        without: BranchSet,
        effects: &mut Vec<Effect>,
    ) {
        let branches = (0..self.spec.branches).map(Branch).filter(|branch| !without.has(*branch));
        for branch in branches {
            effects.push(Effect::send(branch, attempt, BranchMessage::Abort));
            self.strays.push(Stray { attempt, branch, delivery: Delivery::FIRST });
        }
    }
}

impl Preparing {
    /// Sends the first prepare to those of these branches that have not been asked.
    pub(super) fn ask(&mut self, which: impl Fn(Branch) -> bool, effects: &mut Vec<Effect>) {
        for (branch, vote) in (0..).map(Branch).zip(&mut self.votes) {
            if *vote == VoteState::Later && which(branch) {
                *vote = VoteState::Asked { tries: 0, last: None };
                effects.push(Effect::prepare(branch, self.attempt, PrepareCall::Batched));
            }
        }
    }

    /// The branches that have not been asked.
    fn unasked(&self) -> BranchSet {
        let votes = (0..).map(Branch).zip(&self.votes);
        let unasked = votes.filter(|(_, vote)| **vote == VoteState::Later);
        unasked.map(|(branch, _)| branch).collect()
    }
}

impl VoteState {
    fn yes(self) -> Option<Vote> {
        match self {
            Self::Yes(vote) => Some(vote),
            Self::Later | Self::Asked { .. } | Self::Resend { .. } => None,
        }
    }

    /// What it adds to a decision.
    fn bytes(&self) -> usize {
        match self {
            Self::Yes(vote) => vote.redo.len() + vote.replies.len(),
            Self::Later | Self::Asked { .. } | Self::Resend { .. } => 0,
        }
    }

    /// Makes the next try due now.
    pub(super) fn hurry(&mut self, now: Millis) {
        if let Self::Resend { at, .. } = self {
            *at = now;
        }
    }
}

fn resend(now: Millis, tries: u32, seed: u64, why: NoVote) -> VoteState {
    let at = now.plus(Backoff::PREPARE.delay_ms(tries, seed));
    VoteState::Resend { at, tries: tries + 1, why }
}
