//! Typed HTTP clients of both of Assent's APIs, and the Rust SDK.
//!
//! Owns the one place that turns an answer into [`Call`](assent_common::outcome::Call):
//! [`transport`]. It never says a thing twice: whether it may be said again is for the protocol's
//! machines to know, and for who uses [`AssentClient`]. It never logs bodies or tokens.
//!
//! ```text
//! AssentClient ► CoordinatorClient ─┐                    ┌─ Said(body)     of the right media type
//! Interactive                      ─┼─ Endpoint ─ Http ► ├─ Problem(code)  an error document of ours
//! ParticipantClient, Admin variants ┘                    └─ Unknown(why)   everything else
//! ```

pub mod client;
pub mod coordinator;
pub mod crash;
pub mod hook;
pub mod interactive;
pub mod mutant;
pub mod outcome;
pub mod participant;
pub mod pass_on;
mod sealed;
pub mod settle;
mod token;
pub mod transaction;
pub mod transport;

pub use client::{AssentClient, RunOptions};
pub use coordinator::{CoordinatorAdmin, CoordinatorClient, ListFilter, SubmitError};
pub use interactive::Interactive;
pub use outcome::{CommittedTransaction, TransactionError, reply_bytes};
pub use participant::{ParticipantAdmin, ParticipantClient};
pub use sealed::SealedTransaction;
pub use token::Token;
pub use transaction::Transaction;
pub use transport::{
    BuildError, CallError, Http, HttpOptions, InvalidBaseUrl, Unknown, parse_base_url,
};

/// The examples of the guide compile.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../docs/guides/rust.md")]
mod guide {}
