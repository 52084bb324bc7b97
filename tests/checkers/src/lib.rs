//! Histories of what clients asked for and were told, and checkers of what must be true of them.
//!
//! ```text
//! tasks ──► Recorder ──► JSON lines ──► History ──► check_all ──► reports
//!           (recorder)   (event)        (history)   one file a checker
//! ```
//!
//! | checker | promise | file |
//! |---|---|---|
//! | [`list_append`] | isolated: strictly serialisable | `list_append/` |
//! | [`register`] | isolated: each key linearizable | `register.rs` |
//! | [`bank`] | atomic, isolated: the total is constant | `bank.rs` |
//! | [`counter`] | once: every increment counts once | `counter.rs` |
//! | [`atomicity`] | atomic, durable: all branches or none, as told | `atomicity.rs` |
//! | [`liveness`] | finishing: nothing is left open | `liveness.rs` |
//!
//! Checkers are pure functions of a [`History`]. What a client was not told stays indeterminate: an operation with an
//! `info`, or without a completion, may have taken effect at any time since, or never, and no checker assumes either. A
//! verdict says what was found in one history: that nothing was found is no proof that nothing is there.

pub mod action;
pub mod atomicity;
pub mod bank;
pub mod counter;
pub mod document;
pub mod event;
pub mod generate;
pub mod history;
pub mod list_append;
pub mod liveness;
pub mod recorder;
pub mod register;
pub mod report;
#[cfg(test)]
mod testing;

pub use action::{Action, Add, Count, Mark, MicroOp, RegisterOp, Scalar, Transfer};
pub use document::{Document, Ending, FinalCount, FinalState, FinalTransaction};
pub use event::{Body, Event, Kind, Process};
pub use history::{History, Operation, Outcome, ParseError};
pub use recorder::{Recorder, Token};
pub use report::{Anomaly, Checker, Name, Report, Verdict};

/// Runs this checker.
#[must_use]
pub fn check(checker: Checker, history: &History) -> Report {
    match checker {
        Checker::ListAppend => list_append::check(history),
        Checker::Register => register::check(history),
        Checker::Bank => bank::check(history),
        Checker::Counter => counter::check(history),
        Checker::Atomicity => atomicity::check(history),
        Checker::Liveness => liveness::check(history),
    }
}

/// Runs every checker.
#[must_use]
pub fn check_all(history: &History) -> Vec<Report> {
    Checker::ALL.iter().map(|checker| check(*checker, history)).collect()
}
