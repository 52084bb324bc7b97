//! The agent on a real PostgreSQL, through HTTP.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod conflicts;
mod harness;
mod losses;
mod outcomes;
mod requirements;
mod statements;
