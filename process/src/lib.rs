//! Real processes for `assent dev`, the laboratory and the tests: started, waited for, killed by
//! their id, never leaked.
//!
//! ```text
//! Cluster ── RedisServer ─┐
//!            Assent      ─┴─ Child ── owns the process: SIGKILL at drop, and a watchdog that kills
//!                                     it if this process dies first
//! ```
//!
//! Nothing here kills by name, and nothing outlives its [`Child`].

mod assent;
mod child;
mod cluster;
mod ports;
mod postgres;
mod redis;

pub use assent::{
    Assent, coordinator_arguments, find_binary, init_log, participant_arguments, run_to_end,
};
pub use child::{Child, Signal};
pub use cluster::{Cluster, ClusterOptions, Member, RedisBy};
pub use ports::Port;
pub use postgres::PostgresServer;
pub use redis::{AppendFsync, RedisOptions, RedisServer};

use std::path::PathBuf;
use std::time::Duration;

/// How long a process may take to answer after its start, on a busy machine.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A process cannot be started, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not there.
    #[error("{program} is not installed, or not in PATH{advice}")]
    NotFound {
        /// The program.
        program: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no `assent` to start.
    #[error(
        "there is no `assent` program at {path}: build it (`cargo build --release -p assent`), or \
         name another with --assent PATH or ASSENT_BIN"
    )]
    NoAssent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// What was to be a URL is none.
    #[error("{url} is no URL")]
    NoUrl {
        /// The text.
        url: String,
    },
    /// The system refuses.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended before it answered.
    #[error("{name} ended at once ({status}); its last words, in {log}:\n{tail}")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: String,
        /// Its output.
        log: PathBuf,
        /// The end of its output.
        tail: String,
    },
    /// It runs and does not answer.
    #[error("{name} did not answer in {seconds} s ({last}); its output is in {log}")]
    Silent {
        /// The process.
        name: String,
        /// How long it was waited for.
        seconds: u64,
        /// What was met last.
        last: String,
        /// Its output.
        log: PathBuf,
    },
    /// It ended, and not with success.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it said on stderr.
        said: String,
    },
    /// The lock of a port cannot be made.
    #[error("cannot lock a port with {path}: {source}")]
    PortLock {
        /// The lock's file, or their folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No free port.
    #[error("no free port between {first} and {last} on 127.0.0.1")]
    NoPort {
        /// The first one tried.
        first: u16,
        /// The last one tried.
        last: u16,
    },
}
