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
use std::net::SocketAddr;
use std::time::Duration;

use assent_common::wire::transaction::{AbandonRequest, VersionView};
use clap::Args;

use crate::exit::Failure;
use crate::runtime;

/// Runs a client command: it waits more than it works.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime::start(1)?.block_on(future)
}

/// How long a look takes that only helps.
const LOOK_TIME: Duration = Duration::from_millis(2_500);

/// Whether a URL leads to the port of a participant's API for operators, which is not the one for
/// coordinators.
fn is_admin(url: &str, version: &VersionView) -> bool {
    let listen = version.admin_listen.as_deref();
    let listen: Option<SocketAddr> = listen.and_then(|listen| listen.parse().ok());
    let port = reqwest::Url::parse(url).ok().and_then(|url| url.port_or_known_default());
    listen.is_some_and(|listen| port == Some(listen.port()))
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
