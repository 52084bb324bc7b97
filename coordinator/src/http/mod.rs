//! The HTTP surfaces of the coordinator: the public API, and the admin API beside it.
//!
//! Owns: paths, methods, headers, the shape of answers, who may call what. It decides nothing about transactions: every
//! handler is a translation of one call of the [`Engine`]. Nothing here retries, and no value of a transaction is logged.
//!
//! ```text
//! public  POST transactions                           ─┐
//! both    everything that reads · health · documents  ─┼─► Engine
//! admin   PUT|DELETE participants · retry · abandon · accept-loss · remove ─┘
//! ```
//!
//! Errors are problem documents throughout, from the router's own (no such path, a handler that panicked) to the
//! engine's. `POST /v1/transactions` has a way of its own past the router, in `serve.rs`.

mod admin;
mod auth;
mod documents;
mod events;
mod extract;
mod health;
mod json_path;
mod participants;
mod reply;
mod serve;
mod transactions;

use std::sync::Arc;

use assent_client::Token;
use assent_common::ErrorCode;
use assent_edge::{Budget, Descriptors};
use axum::Router;
use axum::middleware::from_fn_with_state;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::reply::Rejection;
use crate::engine::Engine;
use crate::service::CoordinatorOptions;

pub use documents::{errors_markdown, openapi_json};
pub(crate) use serve::Surface;

/// Requests that wait for a transaction to change (long polls and event streams) at a time; more
/// are told `overloaded`. Each holds a connection and a task for as long as its client likes.
const WATCHERS_MAX: usize = 10_000;

/// The same, of a listener with so many connections: the other half is for those who want something
/// at once.
const fn watchers_max(connections_max: usize) -> usize {
    let half = connections_max.div_ceil(2);
    if half < WATCHERS_MAX { half } else { WATCHERS_MAX }
}

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    api_token: Option<Token>,
    admin_token: Option<Token>,
    metrics: Option<PrometheusHandle>,
    /// Becomes true when the servers close: whoever waits on purpose stops waiting.
    stopped: watch::Receiver<bool>,
    watchers: Arc<Semaphore>,
    watchers_max: usize,
    /// The memory that requests may hold, on both listeners.
    budget: Budget,
}

impl HttpState {
    pub(crate) fn new(
        engine: Engine,
        options: &CoordinatorOptions,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let edge = &options.edge;
        let watchers_max = watchers_max(Descriptors::of_process(edge.connections_max).public);
        let shared = Shared {
            engine,
            api_token: options.tokens.api.clone(),
            admin_token: options.tokens.admin.clone(),
            metrics: options.metrics.clone(),
            stopped,
            watchers: Arc::new(Semaphore::new(watchers_max)),
            watchers_max,
            budget: Budget::new(edge.request_bytes_max),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// The right to wait for a transaction to change, while the permit is held.
    fn watch(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.shared.watchers).try_acquire_owned().map_err(|_| {
            let most = self.shared.watchers_max;
            let detail = format!("{most} requests wait for changes; poll without waiting");
            Rejection::new(ErrorCode::Overloaded, detail)
        })
    }
}

/// The API of clients and participants.
pub(crate) fn public_surface(state: HttpState) -> Surface {
    let token = state.shared.api_token.clone();
    let router = router(state.clone(), read_routes().merge(write_routes()), token.clone());
    Surface::new(router).taking_transactions(state, token)
}

/// The API of operators.
pub(crate) fn admin_surface(state: HttpState) -> Surface {
    let token = state.shared.admin_token.clone();
    Surface::new(router(state, read_routes().merge(admin_routes()), token))
}

/// Every route there is, for the document.
fn documented_routes() -> OpenApiRouter<HttpState> {
    read_routes().merge(write_routes()).merge(admin_routes()).merge(probe_routes())
}

/// What changes something, save what only operators may.
fn write_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(transactions::submit))
        .routes(routes!(transactions::resolve))
}

/// What changes nothing.
fn read_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(transactions::list))
        .routes(routes!(transactions::describe))
        .routes(routes!(transactions::outcome))
        .routes(routes!(events::follow))
        .routes(routes!(participants::list))
        .routes(routes!(participants::describe))
        .routes(routes!(health::version))
        .routes(routes!(health::metrics))
        .routes(routes!(documents::openapi))
        .routes(routes!(documents::errors))
}

/// What only operators may change.
fn admin_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(participants::set, participants::remove))
        .routes(routes!(admin::retry))
        .routes(routes!(admin::abandon))
        .routes(routes!(admin::accept_loss))
        .routes(routes!(admin::remove_by_force))
}

/// What is open to everybody: an orchestrator's probes carry no token.
fn probe_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new().routes(routes!(health::livez)).routes(routes!(health::readyz))
}

fn router(state: HttpState, routes: OpenApiRouter<HttpState>, token: Option<Token>) -> Router {
    let (guarded, _document) = routes.split_for_parts();
    let (open, _document) = probe_routes().split_for_parts();
    let guarded = guarded.method_not_allowed_fallback(reply::method_not_allowed);
    let guarded = match token {
        Some(token) => guarded.route_layer(from_fn_with_state(token, auth::require_token)),
        None => guarded,
    };
    let open = open.method_not_allowed_fallback(reply::method_not_allowed);
    catching_panics(guarded.merge(open).fallback(reply::not_found).with_state(state))
}

/// Where a panic unwinds, its handler answers for it. Where it ends the process, as in releases, there is nothing to
/// catch, and the hot path is spared the layer.
#[cfg(panic = "unwind")]
fn catching_panics(router: Router) -> Router {
    router.layer(tower_http::catch_panic::CatchPanicLayer::custom(reply::of_panic))
}

#[cfg(not(panic = "unwind"))]
fn catching_panics(router: Router) -> Router {
    router
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_internal() {
        async fn faulty() {
            panic!("a fault of ours");
        }
        let router = catching_panics(Router::new().route("/", get(faulty)));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains(r#""code":"internal""#), "{text}");
        assert!(!text.contains("a fault of ours"), "{text}");
    }
}
