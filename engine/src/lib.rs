//! The coordinator's engine without its I/O: every transaction that is under way, what is queued
//! for which participant, who stands in line for which lock, what is known of the participants'
//! data, and what the log is to keep.
//!
//! **This crate does no I/O, owns no clock, and draws no random number.** Whatever happens is a
//! call of one of the doors of [`Core`], with the present moment where that matters; what the shell
//! is to do then are [`Errand`]s and records in [`Core::outbox`]. The coordinator and the simulator
//! (`tests/sim`) are two shells around this one engine.
//!
//! ```text
//! submit ─────► ┌──────────────── Core ──────────────────────────────────────────┐
//! tick ───────► │ machine.step(now, input) ─► effects: Send    ─► queue of a lane │ ─► assemble
//! batch_came ─► │                                      Persist ─► outbox          │ ─► outbox
//! durable ────► │                                      Answer  ─► errand          │ ─► errands
//!               └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each door takes a whole batch, and the log gets all of a turn's records at once: one wake-up of
//! its writer and one sync are dear, and serve a hundred records as well as one.

mod active;
mod admission;
mod behind;
mod compaction;
mod core;
mod data;
mod driver;
mod errand;
mod fingerprint;
mod history;
mod holders;
mod interactive;
mod lane;
mod lanes;
mod lives;
mod mutants;
mod numbers;
mod outbound;
mod outbox;
mod participants;
mod queues;
mod resync;
mod start;
mod step;
mod submit;
mod variant;

pub use self::core::{Core, CoreSettings};
pub use active::{Accepted, Active, Decided, RequestOps, Ticket};
pub use admission::AdmissionLimits;
pub use compaction::Compaction;
pub use data::LaneData;
pub use errand::{Errand, Notice};
pub use fingerprint::Fingerprint;
pub use history::History;
pub use interactive::{
    ActiveSession, CallEvaluation, EvaluationReplies, InteractiveCounts, InteractiveTransactions,
    OpsCall,
};
pub use lane::{
    Assembled, BatchCame, Came, Idle, LANE_PATIENCE_MS, LifeHeard, Outgoing, PassedOps, Sent,
};
pub use lanes::{Lane, Lanes, not_registered};
pub use numbers::NumberMap;
pub use outbox::{SEGMENT_BYTES_FOR_ALL, decision_bytes_max};
pub use resync::{DataReport, KnownData, LogReading, ResyncCall, ResyncHeard};
pub use start::{NextLife, Replaying, Resumption};
pub use submit::{NewTransaction, Taken, mismatch, of_participant, problem_of};
pub use variant::Variant;
