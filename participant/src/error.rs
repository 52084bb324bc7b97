//! Why a participant does not run.

use assent_client::{BuildError, InvalidBaseUrl};
use assent_common::ids::InvalidId;

use crate::store::StoreError;

/// Why a participant cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("the participant's name {name:?} is not valid: {source}")]
    Name {
        /// The text.
        name: String,
        /// The rule that it breaks.
        #[source]
        source: InvalidId,
    },
    /// Its Redis, or its database, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A hook reads and stages in a Redis.
    #[error("a participant with a PostgreSQL database takes no hook")]
    HookWithoutRedis,
    /// The HTTP client for coordinators cannot be set up.
    #[error("the client for coordinators cannot be set up: {0}")]
    Http(#[from] BuildError),
    /// Other agents could not be told where this one is.
    #[error("the address of this agent for others (--advertised-url): {0}")]
    Address(#[from] InvalidBaseUrl),
    /// One of those that may be asked could not be.
    #[error("{setting}: {source}")]
    Listed {
        /// The flag that lists it.
        setting: &'static str,
        /// What is wrong with it.
        source: InvalidBaseUrl,
    },
    /// There is a token for coordinators, and none to send it to.
    #[error(
        "there is a token for coordinators, but no coordinator to send it to: list their base \
         URLs with --coordinator"
    )]
    NoCoordinators,
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({flag}): {source}; does another agent run here? Each needs \
         addresses of its own"
    )]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// An address that others can reach needs a token.
    #[error(
        "{0} can be reached from outside: configure a token, or accept the risk with --insecure"
    )]
    Exposed(std::net::SocketAddr),
}
