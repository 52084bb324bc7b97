//! The commands of operators: they talk to running servers, or look at what those left on disk.

pub(crate) mod branch;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod participants;
pub(crate) mod tx;
pub(crate) mod tx_run;

use std::future::Future;

use crate::exit::Failure;
use crate::runtime;

/// Runs a client command: it waits more than it works.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime::start(1)?.block_on(future)
}
