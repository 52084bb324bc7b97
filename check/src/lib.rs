//! Holds a participant to the participant protocol (`docs/reference/participant-protocol.md`): any
//! participant, in any language, over any store.
//!
//! Each duty of the protocol is a script, which is data: what is said, and which answer is right.
//! One driver plays all scripts, as a coordinator with logs of its own, and serves the questions of
//! branches in doubt.
//!
//! ```text
//! duties (data) ──► driver ── batches ──────────► participant
//!                     │  ▲                            │
//!                 fit (pure)                          │ asks about branches in doubt
//!                     ▼  └── desk (what the log says) ◄┘
//!                  report
//! ```
//!
//! Nothing is said twice by itself, and every wait has an end. It must never run on a participant
//! that somebody needs: it leaves logs behind that will never speak again.

mod desk;
mod driver;
mod duties;
mod duty;
mod examples;
mod fit;
mod report;
mod scene;
mod script;
mod stage;
mod voice;

pub use driver::check;
pub use duties::duties;
pub use duty::{Duty, DutyNeeds};
pub use examples::{ExampleBranch, ExampleBranches, InvalidExamples};
pub use report::{DutyReport, DutyVerdict, Shortfall};
pub use stage::{CheckError, CheckOptions};
