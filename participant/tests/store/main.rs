//! The store and its scripts against a real Redis.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not their helpers")]

mod differential;
mod harness;
mod locks;
mod outcomes;
mod server;
mod votes;
mod wire;
