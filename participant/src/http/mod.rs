//! The participant's HTTP surface: two routers, one document.
//!
//! ```text
//! router()        /v1/batch  /v1/branches…                        for coordinators, and to look
//! admin_router()  /v1/branches/{txid}/resolve|forget              for operators
//! both            /livez /readyz  /metrics /v1/version /openapi.json
//! ```
//!
//! Nothing is decided here: handlers parse, call, and answer. Both routers mount into any application, below any path,
//! whatever its state.

mod admin;
mod auth;
mod body;
mod branches;
mod data;
mod probes;
mod reply;

use std::sync::Arc;

use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use assent_common::limits;

use self::reply::ParticipantFace;
use crate::service::App;

/// Bytes of an operator's request.
const ADMIN_BYTES_MAX: usize = 64 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Assent participant",
        description = "Stages a service's writes in the service's own Redis, votes, and applies or drops them as the \
            coordinator decides.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "protocol", description = "What coordinators say"),
        (name = "branches", description = "What is kept here"),
        (name = "operator", description = "The admin listener: an operator's override"),
        (name = "server", description = "On both listeners"),
    ),
)]
struct Document;

/// What coordinators say, and agents pass on.
fn message_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(branches::batch))
        .routes(routes!(branches::prepare))
        .routes(routes!(branches::commit))
        .routes(routes!(branches::abort))
        .routes(routes!(branches::settle))
}

fn look_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(branches::list))
        .routes(routes!(branches::get))
        .routes(routes!(branches::coordinators))
        .routes(routes!(branches::evaluate))
        .routes(routes!(data::get))
        .routes(routes!(data::resync))
}

fn operator_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(admin::resolve)).routes(routes!(admin::forget))
}

fn server_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(probes::version))
        .routes(routes!(probes::metrics))
        .routes(routes!(document))
}

fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(probes::livez)).routes(routes!(probes::readyz))
}

/// The OpenAPI document of both routers.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(message_routes())
        .merge(look_routes())
        .merge(operator_routes())
        .merge(server_routes())
        .merge(open_routes())
        .into_openapi()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
async fn document() -> Response {
    reply::json(&openapi())
}

/// The API for coordinators.
pub(crate) fn public<S: Clone + Send + Sync + 'static>(app: &App) -> Router<S> {
    let (messages, _) = message_routes().split_for_parts();
    let messages = messages.route_layer(from_fn_with_state(Arc::clone(app), auth::require_speaker));
    finish(app, messages, look_routes(), ParticipantFace::Coordinators)
}

/// The API for operators.
pub(crate) fn admin<S: Clone + Send + Sync + 'static>(app: &App) -> Router<S> {
    finish(app, Router::new(), operator_routes(), ParticipantFace::Operators)
}

fn finish<S: Clone + Send + Sync + 'static>(
    app: &App,
    messages: Router<App>,
    routes: OpenApiRouter<App>,
    face: ParticipantFace,
) -> Router<S> {
    let body_bytes_max = match face {
        ParticipantFace::Coordinators => limits::BATCH_BYTES_MAX,
        ParticipantFace::Operators => ADMIN_BYTES_MAX,
    };
    let (guarded, _) = routes.merge(server_routes()).split_for_parts();
    let (open, _) = open_routes().split_for_parts();
    guarded
        .route_layer(from_fn_with_state(Arc::clone(app), auth::require_token))
        .merge(messages)
        .merge(open)
        .fallback(move |uri: Uri| std::future::ready(face.not_found(&uri)))
        .method_not_allowed_fallback(move || std::future::ready(face.method_not_allowed()))
        .layer(Extension(body::BodyLimit(body_bytes_max)))
        .with_state(Arc::clone(app))
}
