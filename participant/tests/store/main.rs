//! The store against a real Redis, as its owner by `EXEC`. `../scripts` runs the same tests by the
//! scripts.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not their helpers")]

mod bounds;
mod by_script;
mod differential;
mod digest;
mod documented;
mod escrow;
mod evaluated;
mod fields;
mod harness;
mod implicit;
mod large;
mod locks;
mod outcomes;
mod owner;
mod pulse;
mod repair;
mod requirements;
mod server;
mod standby;
mod unlogged;
mod votes;
mod whole;
mod wire;

/// Whether the stores of these tests write by scripts.
pub(crate) const BY_SCRIPT: bool = false;
