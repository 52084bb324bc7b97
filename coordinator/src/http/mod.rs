//! The HTTP surfaces of the coordinator: the public API, and the admin API beside it.
//!
//! Owns: paths, methods, headers, the shape of answers, who may call what. It decides nothing about transactions: every
//! handler is a translation of one call of the [`Engine`](crate::Engine). Nothing here retries, and no value of a transaction is logged.
//!
//! ```text
//! public  POST transactions, ops, commit, abort        ─┐
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
mod interactive;
mod participants;
mod reply;
mod serve;
mod state;
mod transactions;

use std::sync::LazyLock;

use assent_client::Token;
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use reply::CoordinatorFace;

pub use documents::errors_markdown;
pub(crate) use serve::Surface;
pub use state::HttpState;

static OPENAPI_JSON: LazyLock<String> = LazyLock::new(openapi_json);

/// The API of clients and participants.
pub(crate) fn public_surface(state: HttpState) -> Surface {
    let token = state.shared.api_token.clone();
    let routes = read_routes().merge(write_routes());
    let router = router(state.clone(), routes, token.clone(), CoordinatorFace::Public);
    Surface::new(router).taking_transactions(state, token)
}

/// The API of operators.
pub(crate) fn admin_surface(state: HttpState) -> Surface {
    let token = state.shared.admin_token.clone();
    let routes = read_routes().merge(admin_routes());
    Surface::new(router(state, routes, token, CoordinatorFace::Operators))
}

/// The OpenAPI 3.1 description of both listeners, as JSON.
#[must_use]
pub fn openapi_json() -> String {
    let routes = read_routes().merge(write_routes()).merge(admin_routes()).merge(probe_routes());
    documents::described(routes.into_openapi())
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenapi", tag = "documents",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
async fn openapi() -> Response {
    reply::with_type(StatusCode::OK, documents::JSON, OPENAPI_JSON.as_str())
}

/// What changes something, save what only operators may.
fn write_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(transactions::submit))
        .routes(routes!(interactive::ops))
        .routes(routes!(interactive::commit))
        .routes(routes!(interactive::abort))
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
        .routes(routes!(openapi))
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

fn router(
    state: HttpState,
    routes: OpenApiRouter<HttpState>,
    token: Option<Token>,
    face: CoordinatorFace,
) -> Router {
    let (guarded, _document) = routes.split_for_parts();
    let (open, _document) = probe_routes().split_for_parts();
    let other_method = move || std::future::ready(face.method_not_allowed());
    let guarded = guarded.method_not_allowed_fallback(other_method);
    let guarded = match token {
        Some(token) => guarded.route_layer(from_fn_with_state(token, auth::require_token)),
        None => guarded,
    };
    let open = open.method_not_allowed_fallback(other_method);
    let other_path = move |uri: Uri| std::future::ready(face.not_found(&uri));
    catching_panics(guarded.merge(open).fallback(other_path).with_state(state))
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
