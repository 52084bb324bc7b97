//! The coordinator: takes transactions over HTTP, drives prepare and commit at the participants, and keeps every
//! decision in a log of its own.
//!
//! [`Coordinator::start`] opens the log, recovers, and serves; [`Running`] is what is left to do with it: read its
//! addresses, drain it, stop it. The protocol itself is in `assent_common::coordinator`.

pub mod clock;
pub mod engine;
pub mod http;
mod interactive;
pub mod log;
pub mod metrics;
mod recovery;
mod resp;
mod service;

pub use engine::Engine;
pub use recovery::{RecoveryReport, StartError};
pub use service::{
    Coordinator, CoordinatorOptions, Exposure, RespOptions, Running, ServiceError, Tokens,
};
