//! Deterministic simulation of the protocol: many coordinators, participants and clients, a network that loses, doubles,
//! delays and reorders, processes that die at any place, logs that are torn, Redis servers that lose data.
//!
//! The machines are those of `assent-common`, which production runs; everything around them is a double. One seed
//! decides everything: the same [`Config`] gives the same run, byte for byte. See `README.md` beside this package's
//! manifest.

mod agent;
mod client;
mod config;
mod coordinator;
mod heal;
mod hook;
mod lanes;
mod log;
mod mutants;
mod network;
mod operator;
mod oracle;
mod queue;
mod random;
mod recovery;
mod redis;
pub mod regression;
mod repair;
mod report;
mod request;
mod resync;
mod settling;
mod trace;
mod trouble;
mod unlogged;
mod world;

pub use config::{Config, Losses};
pub use mutants::Mutant;
pub use oracle::{CHECKS, Violation};
pub use report::Report;

use trace::Trace;
use world::World;

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it has met.
    pub report: Report,
    /// What went wrong, if anything did.
    pub result: Result<(), Violation>,
    /// The story, if one was wanted.
    pub trace: String,
}

/// Runs a world to its end.
#[must_use]
pub fn run(config: Config) -> Run {
    simulate(config, Trace::default())
}

/// Runs it, and tells what happens.
#[must_use]
pub fn tell(config: Config) -> Run {
    simulate(config, Trace::new(true))
}

fn simulate(config: Config, trace: Trace) -> Run {
    let mut world = World::new(config, trace);
    let result = world.run();
    Run { report: world.report, result, trace: world.trace.into_text() }
}
