//! Typed HTTP clients of both of Assent's APIs, and the Rust SDK.
//!
//! Owns the one place that turns an answer into [`Call`](assent_common::outcome::Call): [`transport`]. It never retries:
//! whether something may be said again is for the protocol's machines to know. It never logs bodies or tokens.
//!
//! ```text
//! CoordinatorClient ─┐                      ┌─ Said(body)      of the media type that was asked for
//! ParticipantClient ─┼─ Endpoint ─ Http ──> ├─ Problem(code)   an error document with a code of ours
//! (Admin variants)  ─┘                      └─ Unknown(why)    everything else
//! ```

pub mod coordinator;
pub mod crash;
pub mod interactive;
pub mod mutant;
pub mod participant;
pub mod pass_on;
pub mod settle;
mod token;
pub mod transaction;
pub mod transport;

pub use coordinator::{CoordinatorAdmin, CoordinatorClient, ListFilter, SubmitError};
pub use interactive::Interactive;
pub use participant::{ParticipantAdmin, ParticipantClient};
pub use token::Token;
pub use transaction::Transaction;
pub use transport::{BuildError, CallError, Http, HttpOptions, InvalidBaseUrl, Unknown};
