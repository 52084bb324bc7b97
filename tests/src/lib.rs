//! The harness: real coordinators, participants and Redis servers that a test may kill, proxies that lie, clients that
//! keep account, and an audit that looks past the agents.
//!
//! ```text
//! Cluster ──┬─ coordinator ──(Proxy)──┬─ participant ── Redis     all processes of their own, ended at the drop
//!           │                         └─ participant ── Redis     each ── may be a Link, which cuts, delays, swallows
//! Bank ─────┘ transfers, with a mark of each in every branch; Load: clients that go on with them
//! audit     ─ by plain Redis clients: nothing locked or staged, every mark in all of its branches or in none
//! ```
//!
//! Nothing here waits for a time: [`wait::wait_for`] waits for a condition, and says what it saw last.

pub mod aof;
pub mod audit;
pub mod bank;
pub mod cluster;
pub mod hook;
pub mod limit;
pub mod link;
pub mod load;
pub mod messenger;
pub mod mixed;
pub mod plain;
pub mod proxy;
pub mod resp;
pub mod second_opinion;
pub mod soak;
pub mod wait;

pub use audit::wait_settled;
pub use bank::{Bank, Told, Transfer};
pub use cluster::{Cluster, Options, Peer};
pub use link::Link;
pub use load::Load;
pub use wait::{BOUND, wait_for, wait_for_up_to};
