//! The tests of `../store`, by an owner that writes by scripts, because its user may not `WATCH`.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not their helpers")]

#[path = "../store/bounds.rs"]
mod bounds;
#[path = "../store/differential/mod.rs"]
mod differential;
#[path = "../store/escrow.rs"]
mod escrow;
#[path = "../store/fields.rs"]
mod fields;
#[path = "../store/harness.rs"]
mod harness;
#[path = "../store/implicit.rs"]
mod implicit;
#[path = "../store/locks.rs"]
mod locks;
#[path = "../store/outcomes.rs"]
mod outcomes;
#[path = "../store/repair.rs"]
mod repair;
#[path = "../store/server.rs"]
mod server;
#[path = "../store/unlogged.rs"]
mod unlogged;
#[path = "../store/votes.rs"]
mod votes;
#[path = "../store/whole.rs"]
mod whole;
#[path = "../store/wire.rs"]
mod wire;

/// Whether the stores of these tests write by scripts.
pub(crate) const BY_SCRIPT: bool = true;
