//! The door for Redis clients: a command is a transaction of one command, and what stands between
//! `MULTI` and `EXEC` is one transaction over all participants that its keys lie at.
//!
//! ```text
//! bytes ── request ──► session ── planned ──► a group, run as one ──► the engine
//!                         │                          │
//!        connect, said, unsupported                  └── shape, refusal ── reply ──► bytes
//! ```
//!
//! Nothing here decides an outcome: whatever is not clearly committed or aborted is said to be
//! unknown, with the id by which to ask. Nothing here locks anything before `EXEC`.

mod connect;
mod connection;
mod merging;
mod metric;
mod planned;
mod refusal;
mod reply;
mod request;
mod route;
mod said;
mod session;
mod shape;
mod unsupported;
mod watch;

pub use connect::Rules;
pub use connection::{EngineAccess, Service};
pub use metric::describe as describe_metrics;
pub use planned::DoorRequest;
pub use route::{InvalidRule, Routes, Rule};
