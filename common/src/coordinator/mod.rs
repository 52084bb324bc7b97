//! The coordinator's half of the protocol: one machine per transaction, presumed abort with the log as a peer.
//!
//! ```text
//!               conflict, time left
//!          ┌──────────────────────────┐
//!          ▼                          │
//!      Preparing ── all yes ──► Deciding ── durable ──► Committing ── all applied ──► Closing ──► Ended
//!          │                                                                            ▲
//!          └────────────── a no, or the deadline ───────────────────────────────────────┘
//!
//!      implicit:
//!      Preparing ── all yes ───────────────────────────────────► Committing
//!          └── a no, or the deadline ──► Settling ── all yes ──────►┘
//!                                           └── one is fenced: aborted, or tried again
//!
//!      Beginning ─ durable ─► OnePhase ── committed, a no ───────────────────────────► Closing ──► Ended
//!                                 └── deadline while unclear ──► (asks and fences) ──┘
//! ```
//!
//! [`Transaction::step`] is the one transition function. It does no I/O and owns no clock: `now` comes in, messages and
//! records go out as [`Effect`]s. Every `Send` is answered by exactly one input with the result of that call, `Unknown`
//! included; every `Persist` by one [`Input::Persisted`], or the process has stopped.

pub mod authority;
mod by_hand;
mod committing;
mod delivery;
mod effect;
mod hearing;
mod machine;
mod no_vote;
mod one_phase;
mod preparing;
mod records;
pub mod recovery;
pub mod replay;
pub mod resync;
mod settling;
mod state;
mod strays;
mod view;

#[cfg(test)]
mod tests;

pub use delivery::{Delivery, Problem};
pub use effect::{
    Branch, BranchSet, Effect, Entry, Failure, FromBranch, Input, Note, Outcome, PrepareCall,
    ToBranch,
};
pub use hearing::Hearing;
pub use machine::Illegal;
pub use records::Subject;
pub use state::{
    AnswerDurability, Closing, ClosingRecord, Committing, Contention, DecisionRecord, EndedByHand,
    NoVote, OnePhase, OnePhaseCall, Preparing, Purpose, SettleState, Settling, Spec, State, Stray,
    Transaction, VoteState,
};
pub use view::BranchStatus;
