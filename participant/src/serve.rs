//! The sidecar: a participant with two listeners of its own.
//!
//! ```text
//! bind both ──> start the participant ──> serve ── shutdown ──> drain, up to the deadline ──> stop its tasks
//! ```
//!
//! Prints nothing: the addresses are the handle's to tell. A request that the deadline cuts off is *not known* to its
//! coordinator, which asks again.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{Error, Options, Participant};

/// How the sidecar runs.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The participant.
    pub participant: Options,
    /// The API for coordinators.
    pub listen: SocketAddr,
    /// The API for operators.
    pub admin_listen: SocketAddr,
    /// Who may be let in.
    pub exposure: Exposure,
    /// Milliseconds that requests in flight are waited for at the end.
    pub drain_timeout_ms: u64,
}

/// Whether an address that others can reach needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// It does.
    #[default]
    TokenOrLoopback,
    /// The operator says that the network keeps strangers out.
    Insecure,
}

/// The addresses that are listened on; the ports are real ones where 0 was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The API for coordinators.
    pub public: SocketAddr,
    /// The API for operators.
    pub admin: SocketAddr,
}

/// A sidecar that serves.
#[derive(Debug)]
pub struct Serving {
    addresses: Addresses,
    warnings: Vec<String>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The settings of Redis under which the durability promise does not hold.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns when it has shut down.
    pub async fn finished(self) {
        // A panic in the task has been reported where it happened.
        let _ = self.task.await;
    }
}

/// Serves a participant until `shutdown` is ready; returns once both addresses are bound and its Redis is checked.
pub async fn serve(
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Serving, Error> {
    let ServeOptions { mut participant, listen, admin_listen, exposure, drain_timeout_ms } =
        options;
    if exposure == Exposure::TokenOrLoopback && participant.token.is_none() {
        for address in [listen, admin_listen] {
            if !address.ip().is_loopback() {
                return Err(Error::Exposed(address));
            }
        }
    }
    let (public, public_address) = bind(listen, "--listen").await?;
    let (admin, admin_address) = bind(admin_listen, "--admin-listen").await?;
    participant.admin_listen = Some(admin_address);
    let participant = Participant::start(participant).await?;
    let warnings = participant.warnings();
    let (stop, stopping) = watch::channel(());
    let mut servers = JoinSet::new();
    servers.spawn(listen_on(public, participant.router(), stopping.clone()));
    servers.spawn(listen_on(admin, participant.admin_router(), stopping));
    let task = tokio::spawn(async move {
        shutdown.await;
        participant.drain();
        stop.send_replace(());
        let drained = async { while servers.join_next().await.is_some() {} };
        let deadline = Duration::from_millis(drain_timeout_ms);
        if tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::warn!(drain_timeout_ms, "requests in flight were cut off");
            servers.abort_all();
        }
        participant.shutdown().await;
    });
    let addresses = Addresses { public: public_address, admin: admin_address };
    Ok(Serving { addresses, warnings, task })
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, flag, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn listen_on(listener: TcpListener, router: Router, mut stopping: watch::Receiver<()>) {
    let listener = listener.tap_io(|stream| {
        // Answers are one small write each; a delay would be a round trip's.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    });
    let stopped = async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopping.changed().await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "a listener ended");
    }
}
