//! The sidecar: a participant with two listeners of its own.
//!
//! ```text
//! bind both ──> start the participant ──> serve ── shutdown ──> drain, up to the deadline ──> stop its tasks
//! ```
//!
//! Prints nothing: the addresses are the handle's to tell. A request that the deadline cuts off is *not known* to its
//! coordinator, which asks again.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use assent_edge::{Answers, Descriptors, EdgeOptions, HostRule, Listener};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::Service as _;

use crate::store::AgentAddress;
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
    /// How patient and how roomy the listeners are.
    pub edge: EdgeOptions,
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
    let ServeOptions { mut participant, listen, admin_listen, exposure, edge, drain_timeout_ms } =
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
    let advertised_url = match &participant.address {
        Some(AgentAddress::Url(url)) => Some(url.clone()),
        Some(AgentAddress::Port(_) | AgentAddress::Nowhere) | None => None,
    };
    participant.address.get_or_insert_with(|| match public_address.ip().is_unspecified() {
        true => AgentAddress::Port(public_address.port()),
        false => AgentAddress::Url(format!("http://{public_address}")),
    });
    let has_token = participant.token.is_some();
    participant.request_bytes_max = edge.request_bytes_max;
    let participant = Participant::start(participant).await?;
    let warnings = participant.warnings();
    let (stop, stopping) = watch::channel(false);
    let descriptors = Descriptors::of_process(edge.connections_max);
    let mut servers = JoinSet::new();
    for (name, socket, address, connections_max, router) in [
        ("participant", public, public_address, descriptors.public, participant.router()),
        ("admin", admin, admin_address, descriptors.admin, participant.admin_router()),
    ] {
        let names = edge.allowed_hosts.iter().chain(&advertised_url).map(String::as_str);
        let hosts = HostRule::new(address, has_token, names);
        let listener = Listener { socket, name, connections_max };
        let (edge, stopping) = (edge.clone(), stopping.clone());
        let served = async move {
            assent_edge::serve(listener, hosts, &edge, Routed(router), stopping).await;
        };
        servers.spawn(served);
    }
    let task = tokio::spawn(async move {
        shutdown.await;
        participant.drain();
        stop.send_replace(true);
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

/// What a router answers.
struct Routed(Router);

impl Answers for Routed {
    async fn answer(&self, request: Request<Body>) -> Response {
        let answered = self.0.clone().call(request).await;
        answered.unwrap_or_else(|never: Infallible| match never {})
    }
}
