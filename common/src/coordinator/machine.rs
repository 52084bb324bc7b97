//! The machine: its states, each owning its data, and the one transition function.

use std::mem;

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, Effect, Entry, Failure, Input, Message, Outcome};
use super::one_phase::OnePhase;
use crate::backoff::{Backoff, spread};
use crate::code::ErrorCode;
use crate::ids::{Attempt, TxNumber};
use crate::outcome::{Aborted, Applied, Call, Prepared, Refusal, Vote};
use crate::time::Millis;
use crate::wire::transaction::Ack;

/// What does not change in a transaction's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Its place in the log's order.
    pub number: TxNumber,
    /// How many branches it has, at least one.
    pub branches: u16,
    /// When `committed` is answered.
    pub ack: Ack,
    /// Until when it must be decided.
    pub deadline: Millis,
    /// Whether an answer must be durable before it is given.
    pub answer: AnswerDurability,
}

/// Whether an answer that needs no decision record must be durable before the client hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerDurability {
    /// The client cannot ask again by a key of its own: the record follows lazily.
    Lazy,
    /// The client sent a key or an id: one key is one outcome, over restarts too.
    BeforeAnswer,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    spec: Spec,
    state: State,
    /// Aborts of branches of attempts that were given up; they outlive the attempt.
    strays: Vec<Stray>,
}

/// Where the transaction stands; every phase owns its data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Not begun.
    New,
    /// One phase: the begin record is on its way to disk.
    Beginning(Attempt),
    /// One phase: the only branch decides.
    OnePhase(OnePhase),
    /// Votes are being collected.
    Preparing(Preparing),
    /// The attempt is definitely aborted by a conflict; the next one is due.
    Pausing {
        /// The next attempt.
        next: Attempt,
        /// When it begins.
        resume_at: Millis,
        /// What the last one met.
        failure: Failure,
    },
    /// All votes are yes; the decision is on its way to disk. No way back.
    Deciding {
        /// The attempt that commits.
        attempt: Attempt,
        /// The votes.
        votes: Vec<Vote>,
        /// When it was decided.
        decided_at: Millis,
    },
    /// The decision is durable; branches are told until all have acknowledged.
    Committing(Committing),
    /// The outcome is fixed and nothing but records and stray aborts is left.
    Closing(Closing),
    /// Nothing is left to do.
    Ended(Outcome),
}

/// Votes are being collected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preparing {
    /// The attempt.
    pub attempt: Attempt,
    /// The branches' votes.
    pub votes: Vec<VoteState>,
}

/// Where a vote stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VoteState {
    /// The prepare is out; its result will come.
    Asked {
        /// Earlier tries, whose results were not known.
        tries: u32,
    },
    /// The last result was not known; the same prepare goes out again.
    Resend {
        /// When.
        at: Millis,
        /// Tries so far.
        tries: u32,
        /// What came of the last one.
        why: String,
    },
    /// Yes.
    Yes(Vote),
}

/// The decision is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committing {
    /// The attempt that commits.
    pub attempt: Attempt,
    /// The votes; their redo is what a branch that lost its data is repaired from.
    pub votes: Vec<Vote>,
    /// When it was decided.
    pub decided_at: Millis,
    /// The deliveries, by branch.
    pub deliveries: Vec<Delivery>,
}

/// The outcome is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Closing {
    /// The attempt that it came out of.
    pub attempt: Attempt,
    /// The outcome.
    pub outcome: Outcome,
    /// When it was decided.
    pub decided_at: Millis,
    /// What the record handed to the log last is for.
    pub record: ClosingRecord,
}

/// What becomes of the last record of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosingRecord {
    /// On its way; the client hears when it is durable.
    TellWhenDurable,
    /// On its way; the client has heard.
    Told,
    /// Durable.
    Durable,
}

/// An abort on its way to a branch of an attempt that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stray {
    /// The attempt.
    pub attempt: Attempt,
    /// The branch.
    pub branch: Branch,
    /// Where the delivery stands.
    pub delivery: Delivery,
}

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
        Self { spec, state: State::New, strays: Vec::new() }
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
        let state = State::Committing(Committing { attempt, votes, decided_at, deliveries });
        Self { spec, state, strays: Vec::new() }
    }

    /// A one-phase transaction that was begun and whose answer is not in the log: the branch is asked, and fenced if
    /// it never heard of it.
    #[must_use]
    pub fn recovered_one_phase(spec: Spec, attempt: Attempt, now: Millis) -> Self {
        let state = State::OnePhase(OnePhase::recovered(attempt, now));
        Self { spec, state, strays: Vec::new() }
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
                    VoteState::Asked { .. } | VoteState::Yes(_) => None,
                })
                .chain([self.spec.deadline])
                .min(),
            State::Pausing { resume_at, .. } => Some(*resume_at),
            State::OnePhase(one_phase) => one_phase.wake_at(self.spec.deadline),
            State::Committing(Committing { deliveries, .. }) => {
                deliveries.iter().filter_map(Delivery::due_at).min()
            }
            State::New
            | State::Beginning(_)
            | State::Deciding { .. }
            | State::Closing(_)
            | State::Ended(_) => None,
        };
        self.strays.iter().filter_map(|stray| stray.delivery.due_at()).chain(own).min()
    }

    /// The one transition function. An input without a transition changes nothing and is an error; a late or repeated
    /// answer is none: it is ignored.
    pub fn step(
        &mut self,
        now: Millis,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Illegal> {
        let state = mem::replace(&mut self.state, State::New);
        if matches!(input, Input::Tick | Input::RetryNow) {
            self.send_due_strays(now, matches!(input, Input::RetryNow), effects);
        }
        let next = match (state, input) {
            (State::New, Input::Begin) => self.begin(Attempt::FIRST, effects),
            (State::Beginning(attempt), Input::Persisted) => OnePhase::start(attempt, effects),
            (
                State::OnePhase(one_phase),
                input @ (Input::Prepared { .. }
                | Input::Aborted { .. }
                | Input::Tick
                | Input::RetryNow),
            ) => self.one_phase_step(one_phase, now, input, effects),
            (State::Preparing(preparing), Input::Prepared { branch, attempt, call })
                if attempt == preparing.attempt =>
            {
                self.vote_arrived(preparing, now, branch, call, effects)
            }
            (State::Preparing(preparing), Input::Tick) => {
                self.preparing_tick(preparing, now, effects)
            }
            (State::Preparing(mut preparing), Input::RetryNow) => {
                preparing.votes.iter_mut().for_each(|vote| vote.hurry(now));
                self.preparing_tick(preparing, now, effects)
            }
            (State::Pausing { next, resume_at, .. }, Input::Tick) if resume_at <= now => {
                self.begin(next, effects)
            }
            (State::Pausing { next, .. }, Input::RetryNow) => self.begin(next, effects),
            (State::Deciding { attempt, votes, decided_at }, Input::Persisted) => {
                self.decided(attempt, votes, decided_at, effects)
            }
            (State::Committing(committing), Input::Applied { branch, call }) => {
                self.commit_answered(committing, now, branch, call, effects)
            }
            (State::Committing(committing), Input::Tick) => self.send_due(committing, now, effects),
            (State::Committing(mut committing), Input::RetryNow) => {
                committing.deliveries.iter_mut().for_each(|delivery| delivery.hurry(now));
                self.send_due(committing, now, effects)
            }
            (State::Committing(committing), Input::Abandon(branch)) => {
                self.abandon_strays(branch);
                self.abandoned(committing, branch, effects)
            }
            (State::Closing(closing), Input::Persisted) => Self::closed(closing, effects),
            // An abort of an attempt that was given up, whatever came after it.
            (state, Input::Aborted { branch, attempt, call }) => {
                self.stray_answered(now, branch, attempt, call);
                state
            }
            (state @ State::Closing(_), Input::Abandon(branch)) => {
                self.abandon_strays(branch);
                state
            }
            // Answers that come late or twice: what they tell is known, or a stray abort takes care of it.
            (
                state,
                Input::Prepared { .. } | Input::Applied { .. } | Input::Tick | Input::RetryNow,
            ) => state,
            (state, input @ (Input::Begin | Input::Persisted | Input::Abandon(_))) => {
                let illegal =
                    Illegal { number: self.spec.number, state: state.name(), input: input.name() };
                self.state = state;
                return Err(illegal);
            }
        };
        self.state = self.end_if_over(next);
        Ok(())
    }

    /// Sends an attempt's prepares; one phase with an answer to keep records its begin first.
    fn begin(&self, attempt: Attempt, effects: &mut Vec<Effect>) -> State {
        if self.spec.branches == 1 {
            return match self.spec.answer {
                AnswerDurability::Lazy => OnePhase::start(attempt, effects),
                AnswerDurability::BeforeAnswer => {
                    effects.push(Effect::Persist(Entry::Begun(attempt)));
                    State::Beginning(attempt)
                }
            };
        }
        effects.extend((0..self.spec.branches).map(|branch| Effect::Send {
            branch: Branch(branch),
            attempt,
            message: Message::Prepare,
        }));
        let votes = vec![VoteState::Asked { tries: 0 }; usize::from(self.spec.branches)];
        State::Preparing(Preparing { attempt, votes })
    }

    fn vote_arrived(
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
        let VoteState::Asked { tries } = *vote else {
            return State::Preparing(preparing);
        };
        match call {
            Call::Applied(Prepared::Yes(yes)) => *vote = VoteState::Yes(yes),
            Call::Applied(Prepared::Wait(_)) if tries == 0 => {
                *vote = VoteState::Asked { tries: 1 };
                effects.push(Effect::Send { branch, attempt, message: Message::PrepareWaiting });
            }
            Call::Applied(Prepared::Wait(holder)) => {
                *vote = resend(now, tries, seed, holder.to_string());
            }
            Call::Applied(Prepared::Committed(_)) => {
                let detail = "the participant applied a branch that it was asked to prepare only";
                let refusal = Refusal::new(ErrorCode::Internal, detail);
                return self.give_up(
                    preparing,
                    now,
                    Failure { branch: Some(branch), refusal },
                    effects,
                );
            }
            Call::Unknown(why) => *vote = resend(now, tries, seed, why),
            Call::Refused(refusal) => {
                // Nothing is staged by a definite no, so that it needs no abort; unless an earlier try of this
                // prepare is still under way somewhere, or somebody has applied the branch by hand.
                if tries == 0 && refusal.code != ErrorCode::WrongState {
                    preparing.votes.remove(branch.index());
                    self.stray_aborts(&preparing, Some(branch), effects);
                } else {
                    self.stray_aborts(&preparing, None, effects);
                }
                return self.failed(
                    attempt,
                    now,
                    Failure { branch: Some(branch), refusal },
                    effects,
                );
            }
        }
        if preparing.votes.iter().all(|vote| matches!(vote, VoteState::Yes(_))) {
            return Self::decide(preparing, now, effects);
        }
        State::Preparing(preparing)
    }

    /// All N votes are yes, of one attempt: the only way to a commit record (invariant 5).
    fn decide(preparing: Preparing, now: Millis, effects: &mut Vec<Effect>) -> State {
        let votes: Vec<Vote> = preparing
            .votes
            .into_iter()
            .filter_map(|vote| match vote {
                VoteState::Yes(vote) => Some(vote),
                VoteState::Asked { .. } | VoteState::Resend { .. } => None,
            })
            .collect();
        effects.push(Effect::Persist(Entry::Committed {
            attempt: preparing.attempt,
            votes: votes.clone(),
            decided_at: now,
        }));
        State::Deciding { attempt: preparing.attempt, votes, decided_at: now }
    }

    fn preparing_tick(
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
            if let VoteState::Resend { at, tries, .. } = *vote
                && at <= now
            {
                *vote = VoteState::Asked { tries };
                effects.push(Effect::Send { branch, attempt, message: Message::Prepare });
            }
        }
        State::Preparing(preparing)
    }

    /// Aborts every branch of the attempt and closes.
    fn give_up(
        &mut self,
        preparing: Preparing,
        now: Millis,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> State {
        self.stray_aborts(&preparing, None, effects);
        self.close_aborted(preparing.attempt, now, failure, effects)
    }

    /// Sends an abort to every branch of an attempt, save one that certainly has nothing staged and whose vote has
    /// been taken out of the list.
    fn stray_aborts(
        &mut self,
        preparing: &Preparing,
        without: Option<Branch>,
        effects: &mut Vec<Effect>,
    ) {
        let branches =
            (0..self.spec.branches).map(Branch).filter(|branch| Some(*branch) != without);
        for branch in branches {
            let attempt = preparing.attempt;
            effects.push(Effect::Send { branch, attempt, message: Message::Abort });
            self.strays.push(Stray { attempt, branch, delivery: Delivery::FIRST });
        }
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
        if failure.refusal.code == ErrorCode::LockConflict && resume_at < self.spec.deadline {
            return State::Pausing { next: attempt.next(), resume_at, failure };
        }
        self.close_aborted(attempt, now, failure, effects)
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
        let entry = Entry::Answered { attempt, decided_at: now, outcome: outcome.clone() };
        effects.push(Effect::Persist(entry));
        State::Closing(Closing { attempt, outcome, decided_at: now, record })
    }

    /// The decision is durable: from here on there is only commit.
    fn decided(
        &self,
        attempt: Attempt,
        votes: Vec<Vote>,
        decided_at: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        if self.spec.ack == Ack::Decided {
            effects.push(Effect::Answer(committed(&votes, false)));
        }
        effects.extend((0..self.spec.branches).map(|branch| Effect::Send {
            branch: Branch(branch),
            attempt,
            message: Message::Commit,
        }));
        let deliveries = vec![Delivery::FIRST; votes.len()];
        State::Committing(Committing { attempt, votes, decided_at, deliveries })
    }

    fn commit_answered(
        &self,
        mut committing: Committing,
        now: Millis,
        branch: Branch,
        call: Call<Applied>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let seed = self.seed(branch);
        let reads_only =
            committing.votes.get(branch.index()).is_some_and(|vote| vote.redo.is_empty());
        let Some(delivery) = committing.deliveries.get_mut(branch.index()) else {
            return State::Committing(committing);
        };
        match call {
            _ if delivery.is_over() => {}
            Call::Applied(_) => *delivery = Delivery::Done,
            // A reader that lost its locks with its Redis's data has nothing to lose any more.
            Call::Refused(refusal) if reads_only && refusal.code == ErrorCode::BranchLost => {
                *delivery = Delivery::Done;
            }
            Call::Refused(Refusal { code, detail, .. }) => {
                delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            Call::Unknown(why) => delivery.failed(now, seed, Problem::Unknown(why)),
        }
        self.close_committed_if_over(committing, effects)
    }

    fn send_due(
        &self,
        mut committing: Committing,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        let attempt = committing.attempt;
        for (branch, delivery) in (0..).map(Branch).zip(&mut committing.deliveries) {
            if delivery.take_due(now) {
                effects.push(Effect::Send { branch, attempt, message: Message::Commit });
            }
        }
        State::Committing(committing)
    }

    fn abandoned(
        &self,
        mut committing: Committing,
        branch: Branch,
        effects: &mut Vec<Effect>,
    ) -> State {
        if let Some(delivery) = committing.deliveries.get_mut(branch.index())
            && !delivery.is_over()
        {
            *delivery = Delivery::Abandoned;
        }
        self.close_committed_if_over(committing, effects)
    }

    fn close_committed_if_over(&self, committing: Committing, effects: &mut Vec<Effect>) -> State {
        if !committing.deliveries.iter().all(Delivery::is_over) {
            return State::Committing(committing);
        }
        // An abandoned branch is over, and yet nobody may say that it was applied.
        let applied = committing.deliveries.iter().all(|delivery| *delivery == Delivery::Done);
        let outcome = committed(&committing.votes, applied);
        if self.spec.ack == Ack::Applied {
            effects.push(Effect::Answer(outcome.clone()));
        }
        effects.push(Effect::Persist(Entry::Ended));
        State::Closing(Closing {
            attempt: committing.attempt,
            outcome,
            decided_at: committing.decided_at,
            record: ClosingRecord::Told,
        })
    }

    fn closed(closing: Closing, effects: &mut Vec<Effect>) -> State {
        if closing.record == ClosingRecord::TellWhenDurable {
            effects.push(Effect::Answer(closing.outcome.clone()));
        }
        State::Closing(Closing { record: ClosingRecord::Durable, ..closing })
    }

    fn stray_answered(
        &mut self,
        now: Millis,
        branch: Branch,
        attempt: Attempt,
        call: Call<Aborted>,
    ) {
        let seed = self.seed(branch);
        let stray = self.strays.iter_mut().find(|stray| {
            stray.branch == branch && stray.attempt == attempt && !stray.delivery.is_over()
        });
        let Some(stray) = stray else { return };
        match call {
            Call::Applied(Aborted::Fenced) => stray.delivery = Delivery::Done,
            Call::Applied(Aborted::AlreadyCommitted(_)) => stray.delivery.failed(
                now,
                seed,
                Problem::Refused {
                    code: ErrorCode::WrongState,
                    detail: "the participant has applied a branch that this log never committed"
                        .to_owned(),
                },
            ),
            Call::Refused(Refusal { code, detail, .. }) => {
                stray.delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            Call::Unknown(why) => stray.delivery.failed(now, seed, Problem::Unknown(why)),
        }
    }

    fn send_due_strays(&mut self, now: Millis, hurry: bool, effects: &mut Vec<Effect>) {
        for Stray { attempt, branch, delivery } in &mut self.strays {
            if hurry {
                delivery.hurry(now);
            }
            if delivery.take_due(now) {
                effects.push(Effect::Send {
                    branch: *branch,
                    attempt: *attempt,
                    message: Message::Abort,
                });
            }
        }
    }

    fn abandon_strays(&mut self, branch: Branch) {
        for stray in self.strays.iter_mut().filter(|stray| stray.branch == branch) {
            stray.delivery = Delivery::Abandoned;
        }
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

impl VoteState {
    /// Makes the next try due now.
    fn hurry(&mut self, now: Millis) {
        if let Self::Resend { at, .. } = self {
            *at = now;
        }
    }
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Beginning(_) => "beginning",
            Self::OnePhase(_) => "one phase",
            Self::Preparing(_) => "preparing",
            Self::Pausing { .. } => "pausing",
            Self::Deciding { .. } => "deciding",
            Self::Committing(_) => "committing",
            Self::Closing(_) => "closing",
            Self::Ended(_) => "ended",
        }
    }
}

impl Input {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Prepared { .. } => "prepared",
            Self::Applied { .. } => "applied",
            Self::Aborted { .. } => "aborted",
            Self::Persisted => "persisted",
            Self::Tick => "tick",
            Self::RetryNow => "retry now",
            Self::Abandon(_) => "abandon",
        }
    }
}

fn resend(now: Millis, tries: u32, seed: u64, why: String) -> VoteState {
    let at = now.plus(Backoff::PREPARE.delay_ms(tries, seed));
    VoteState::Resend { at, tries: tries + 1, why }
}

fn committed(votes: &[Vote], applied: bool) -> Outcome {
    Outcome::Committed { applied, replies: votes.iter().map(|vote| vote.replies.clone()).collect() }
}

/// What to say when the deadline passes: the first branch without a vote, and why it has none.
fn deadline_failure(preparing: &Preparing) -> Failure {
    let missing = (0..).map(Branch).zip(&preparing.votes).find_map(|(branch, vote)| match vote {
        VoteState::Asked { .. } => {
            let detail = "the deadline passed before the participant voted";
            Some((branch, Refusal::new(ErrorCode::Timeout, detail)))
        }
        VoteState::Resend { why, .. } => {
            let detail = format!("the deadline passed before the participant answered: {why}");
            Some((branch, Refusal::new(ErrorCode::ParticipantUnreachable, detail)))
        }
        VoteState::Yes(_) => None,
    });
    match missing {
        Some((branch, refusal)) => Failure { branch: Some(branch), refusal },
        None => Failure {
            branch: None,
            refusal: Refusal::new(ErrorCode::Timeout, "the deadline passed"),
        },
    }
}
