//! The machine's tests: here what they share and the transition table; beside this, the promises of two phases, of one
//! phase, and of recovery, each by name.

mod by_hand;
mod implicit;
mod one_phase;
mod recovery;
mod table;
mod two_phase;

use super::state::{
    AnswerDurability, Closing, ClosingRecord, Committing, Contention, DecisionRecord, OnePhaseCall,
    Preparing, Purpose, SettleState, Spec, State, Stray, Transaction, VoteState,
};
use super::{
    Branch, BranchSet, Delivery, Effect, Entry, Failure, FromBranch, Input, Note, Outcome,
    PrepareCall, ToBranch,
};
use crate::branch::{BranchAnswer, BranchMessage};
use crate::code::ErrorCode;
use crate::ids::{Attempt, Epoch, TransactionId, TxNumber, Txid};
use crate::outcome::{
    Aborted, Applied, Call, Done, Heuristic, Holder, Prepared, Refusal, Settled, Vote, Written,
};
use crate::time::Millis;
use crate::wire::transaction::{Ack, BranchProgress, Protocol};

const A: Branch = Branch(0);
const B: Branch = Branch(1);
const FIRST: Attempt = Attempt::FIRST;
const SECOND: Attempt = Attempt(1);
const START: Millis = Millis(100);
const DEADLINE: Millis = Millis(1_000);

fn number() -> TxNumber {
    TxNumber { epoch: Epoch(3), n: 42 }
}

fn spec(branches: u16) -> Spec {
    Spec {
        number: number(),
        branches,
        ack: Ack::Applied,
        deadline: DEADLINE,
        answer: AnswerDurability::Lazy,
        purpose: Purpose::Write,
        protocol: Protocol::Logged,
        contention: Contention::Waits,
        hooked: BranchSet::NONE,
    }
}

fn implicit_spec() -> Spec {
    Spec { protocol: Protocol::Implicit, ..spec(2) }
}

/// A machine under test, its clock, and all that it has ever answered.
#[derive(Clone)]
struct Rig {
    machine: Transaction,
    now: Millis,
    answers: Vec<Outcome>,
}

impl Rig {
    fn new(spec: Spec) -> Self {
        Self::of(Transaction::new(spec))
    }

    fn of(machine: Transaction) -> Self {
        Self { machine, now: START, answers: Vec::new() }
    }

    /// A rig whose machine has begun.
    fn begun(spec: Spec) -> Self {
        let mut rig = Self::new(spec);
        rig.feed(Input::Begin);
        rig
    }

    /// Steps, and returns the effects in short.
    fn feed(&mut self, input: Input) -> Vec<String> {
        let mut effects = Vec::new();
        self.machine.step(self.now, input, &mut effects).unwrap();
        self.answers.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Answer(outcome) => Some(outcome.clone()),
            Effect::Send(_) | Effect::Persist(_) | Effect::Note(_) => None,
        }));
        effects.iter().map(effect_text).collect()
    }

    /// Steps through inputs that are not looked at.
    fn after(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        for input in inputs {
            self.feed(input);
        }
        self
    }

    /// Lets time pass until the machine wants to be woken, and wakes it.
    fn wake(&mut self) -> Vec<String> {
        self.now = self.machine.wake_at().unwrap().max(self.now);
        self.feed(Input::Tick)
    }

    fn at(mut self, now: Millis) -> Self {
        self.now = now;
        self
    }

    fn text(&self) -> String {
        machine_text(&self.machine)
    }
}

fn vote(branch: Branch) -> Vote {
    Vote { replies: format!("[{}]", branch.0).into(), redo: [1][..].into(), incarnation: 7, seq: 1 }
}

fn answered(branch: Branch, attempt: Attempt, answer: BranchAnswer) -> Input {
    Input::Answered(FromBranch { branch, attempt, answer })
}

fn prepared(branch: Branch, attempt: Attempt, prepared: Prepared) -> Input {
    answered(branch, attempt, BranchAnswer::Prepared(Call::Applied(prepared)))
}

fn yes(branch: Branch, attempt: Attempt) -> Input {
    prepared(branch, attempt, Prepared::Yes(vote(branch)))
}

fn wait(branch: Branch, attempt: Attempt) -> Input {
    let id: TransactionId = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap();
    let txid: Txid = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.99.0".parse().unwrap();
    prepared(branch, attempt, Prepared::Wait(Holder { id, txid, key: "k".to_owned() }))
}

fn no(branch: Branch, attempt: Attempt, code: ErrorCode) -> Input {
    answered(branch, attempt, BranchAnswer::Prepared(Call::Refused(Refusal::new(code, "no"))))
}

fn no_answer(branch: Branch, attempt: Attempt) -> Input {
    answered(branch, attempt, BranchAnswer::Prepared(Call::Unknown("lost".to_owned())))
}

fn applied(branch: Branch) -> Input {
    answered(branch, FIRST, BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 })))
}

fn commit_refused(branch: Branch, code: ErrorCode) -> Input {
    answered(branch, FIRST, BranchAnswer::Applied(Call::Refused(Refusal::new(code, "no"))))
}

fn commit_unknown(branch: Branch) -> Input {
    answered(branch, FIRST, BranchAnswer::Applied(Call::Unknown("lost".to_owned())))
}

fn fenced(branch: Branch, attempt: Attempt) -> Input {
    answered(branch, attempt, BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)))
}

fn already(branch: Branch, attempt: Attempt) -> Input {
    let written = Written { redo: b"w"[..].into(), incarnation: 7, seq: 17 };
    let done = Done { replies: "[5]".into(), written: Some(written) };
    answered(branch, attempt, BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))))
}

fn abort_unknown(branch: Branch, attempt: Attempt) -> Input {
    answered(branch, attempt, BranchAnswer::Aborted(Call::Unknown("lost".to_owned())))
}

fn settled(branch: Branch, settled: Settled) -> Input {
    answered(branch, FIRST, BranchAnswer::Settled(Call::Applied(settled)))
}

fn settle_unknown(branch: Branch) -> Input {
    answered(branch, FIRST, BranchAnswer::Settled(Call::Unknown("lost".to_owned())))
}

fn abort_refused(branch: Branch, attempt: Attempt, code: ErrorCode) -> Input {
    answered(branch, attempt, BranchAnswer::Aborted(Call::Refused(Refusal::new(code, "by ana"))))
}

fn noted_by_hand(branch: Branch, outcome: Heuristic) -> Input {
    Input::Noted(Note::EndedByHand { branch, outcome, detail: "by ana".to_owned() })
}

fn noted(branches: &[Branch]) -> Input {
    Input::Noted(Note::Acknowledged(branches.to_vec()))
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Send(ToBranch { branch, attempt, message }) => {
            let message = match message {
                BranchMessage::Prepare(PrepareCall::Batched) => "prepare",
                BranchMessage::Prepare(PrepareCall::Waiting) => "prepare waiting",
                BranchMessage::Commit => "commit",
                BranchMessage::Abort => "abort",
                BranchMessage::Settle => "settle",
            };
            format!("{message} {}.{}", branch.0, attempt.0)
        }
        Effect::Persist(Entry::Begun(attempt)) => format!("persist begun .{}", attempt.0),
        Effect::Persist(Entry::Committed { attempt, votes, .. }) => {
            format!("persist commit .{} of {}", attempt.0, votes.len())
        }
        Effect::Persist(Entry::Ended) => "persist end".to_owned(),
        Effect::Persist(Entry::Answered { attempt, outcome, written, .. }) => {
            let wrote = written.as_ref().map_or_else(String::new, |it| format!(" seq {}", it.seq));
            format!("persist answer .{} {}{wrote}", attempt.0, outcome_text(outcome))
        }
        Effect::Note(Note::Acknowledged(branches)) => {
            let branches: Vec<_> = branches.iter().map(|branch| branch.0.to_string()).collect();
            format!("note {} acknowledged", branches.join("+"))
        }
        Effect::Note(Note::EndedByHand { branch, outcome, .. }) => {
            format!("note {} {} by hand", branch.0, outcome.as_str())
        }
        Effect::Answer(outcome) => format!("answer {}", outcome_text(outcome)),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { applied: true, replies } => format!("applied {}", replies.join("+")),
        Outcome::Committed { applied: false, replies } => {
            format!("committed {}", replies.join("+"))
        }
        Outcome::Aborted(Failure { branch: Some(branch), refusal }) => {
            format!("aborted {} by {}", refusal.code, branch.0)
        }
        Outcome::Aborted(Failure { branch: None, refusal }) => format!("aborted {}", refusal.code),
    }
}

fn delivery_text(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Sent { tries, .. } => format!("sent {tries}"),
        Delivery::Due { at, tries, .. } => format!("due {tries} at {}", at.0),
        Delivery::Done => "done".to_owned(),
        Delivery::Recorded => "recorded".to_owned(),
        Delivery::Abandoned => "abandoned".to_owned(),
        Delivery::Heuristic => "heuristic".to_owned(),
    }
}

/// The whole of a machine, in a line.
fn machine_text(machine: &Transaction) -> String {
    let state = match machine.state() {
        State::New => "new".to_owned(),
        State::Beginning { attempt, .. } => format!("beginning .{}", attempt.0),
        State::OnePhase(one_phase) => {
            let call = match &one_phase.call {
                OnePhaseCall::Sent { tries, .. } => format!("sent {tries}"),
                OnePhaseCall::Resend { at, tries, .. } => format!("resend {tries} at {}", at.0),
                OnePhaseCall::Asking { delivery, .. } => {
                    format!("asking, {}", delivery_text(delivery))
                }
            };
            format!("one phase .{} {call}", one_phase.attempt.0)
        }
        State::Preparing(Preparing { attempt, votes, met }) => {
            let votes: Vec<_> = votes.iter().map(vote_text).collect();
            let met = met.as_ref().map(|met| format!(" after {}", met.refusal.code));
            format!("preparing .{} [{}]{}", attempt.0, votes.join(", "), met.unwrap_or_default())
        }
        State::Settling(settling) => {
            let branches: Vec<_> = settling.branches.iter().map(settle_text).collect();
            let (attempt, code) = (settling.attempt.0, settling.failure.refusal.code);
            format!("settling .{attempt} [{}] for {code}", branches.join(", "))
        }
        State::Pausing { next, resume_at, failure } => {
            format!("pausing .{} until {} ({})", next.0, resume_at.0, failure.refusal.code)
        }
        State::Deciding { attempt, .. } => format!("deciding .{}", attempt.0),
        State::Committing(Committing { attempt, deliveries, record, .. }) => {
            let deliveries: Vec<_> = deliveries.iter().map(delivery_text).collect();
            let record = match record {
                DecisionRecord::UnderWay => ", record under way",
                DecisionRecord::Durable => "",
            };
            format!("committing .{} [{}]{record}", attempt.0, deliveries.join(", "))
        }
        State::Closing(Closing { outcome, record, abandoned, .. }) => {
            let record = match record {
                ClosingRecord::BehindDecision => "behind its decision",
                ClosingRecord::TellWhenDurable => "to tell",
                ClosingRecord::Told => "told",
                ClosingRecord::Durable => "durable",
            };
            let abandoned: String =
                abandoned.iter().map(|branch| format!(", {} abandoned", branch.0)).collect();
            format!("closing {}, {record}{abandoned}", outcome_text(outcome))
        }
        State::Ended(outcome) => format!("ended {}", outcome_text(outcome)),
    };
    let strays: Vec<_> = machine.strays().iter().map(stray_text).collect();
    if strays.is_empty() { state } else { format!("{state}; aborts {}", strays.join(", ")) }
}

fn vote_text(vote: &VoteState) -> String {
    match vote {
        VoteState::Later => "later".to_owned(),
        VoteState::Asked { tries, .. } => format!("asked {tries}"),
        VoteState::Resend { at, tries, .. } => format!("resend {tries} at {}", at.0),
        VoteState::Yes(_) => "yes".to_owned(),
    }
}

fn settle_text(state: &SettleState) -> String {
    match state {
        SettleState::Asking(delivery) => format!("asking {}", delivery_text(delivery)),
        SettleState::Staged(delivery) => format!("staged {}", delivery_text(delivery)),
        SettleState::Yes(_) => "yes".to_owned(),
        SettleState::Applied => "applied".to_owned(),
    }
}

fn stray_text(stray: &Stray) -> String {
    format!("{}.{} {}", stray.branch.0, stray.attempt.0, delivery_text(&stray.delivery))
}
