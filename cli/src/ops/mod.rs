//! The commands of operators: they talk to running servers, or look at what those left on disk.

pub(crate) mod branch;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod participant_check;
pub(crate) mod participants;
pub(crate) mod tx;
pub(crate) mod tx_describe;
pub(crate) mod tx_run;

use std::future::Future;

use assent_common::wire::transaction::AbandonRequest;
use clap::Args;

use crate::exit::Failure;
use crate::runtime;

/// Runs a client command: it waits more than it works.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime::start(1)?.block_on(future)
}

/// Who overrides the protocol, and why: recorded with what is done (invariant 16).
#[derive(Debug, Clone, Args)]
pub(crate) struct Override {
    /// Who decides it; recorded
    #[arg(long, value_name = "WHO")]
    actor: String,
    /// Why; recorded
    #[arg(long, value_name = "WHY")]
    reason: String,
}

impl From<Override> for AbandonRequest {
    fn from(Override { actor, reason }: Override) -> Self {
        Self { actor, reason }
    }
}
