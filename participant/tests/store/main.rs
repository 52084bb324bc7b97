//! The store and its scripts against a real Redis.

mod differential;
mod harness;
mod locks;
mod outcomes;
mod server;
mod votes;
