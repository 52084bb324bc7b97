//! The coordinator over HTTP, against participants whose answers the tests choose.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod fake;
mod idempotency;
mod operators;
mod participants;
mod reading;
mod refusals;
mod rig;
mod sick;
mod submitting;
