//! Health, version, metrics, and the document.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use assent_common::ErrorCode;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::VersionView;

use super::reply::{Rejection, json};
use crate::health::Verdict;
use crate::service::App;

/// The process turns.
#[utoipa::path(
    get, path = "/livez", operation_id = "livez", tag = "server",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether this participant can vote: Redis answers, holds the data of this agent's start, and keeps what it is given.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "server",
    params(("verbose" = Option<String>, Query, description = "List every check")),
    responses(
        (status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "It cannot", body = String, content_type = "text/plain"),
    ),
)]
pub(crate) async fn readyz(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let checks = app.checks().await;
    let failing = checks.iter().any(|check| check.verdict == Verdict::Failing);
    let status = if failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let mut text = String::new();
    if verbose || failing {
        checks.iter().for_each(|check| text.push_str(&check.line()));
    }
    text.push_str(if failing { "not ready\n" } else { "ready\n" });
    (status, text).into_response()
}

/// What runs here, and the promises that it cannot keep.
#[utoipa::path(
    get, path = "/v1/version", operation_id = "version", tag = "server",
    responses((status = 200, description = "The version", body = VersionView)),
)]
pub(crate) async fn version(State(app): State<App>) -> Response {
    json(&VersionView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: "participant".to_owned(),
        log_id: None,
        epoch: None,
        name: Some(app.name.to_string()),
        admin_listen: app.admin_listen.map(|address| address.to_string()),
        warnings: app.store.warnings(),
    })
}

/// The metrics, in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "server",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
        (status = 404, description = "The host application exposes them itself", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Rejection> {
    let Some(render) = &app.metrics_text else {
        let detail = "this process exposes its metrics elsewhere, or not at all";
        return Err(Rejection::new(ErrorCode::NotFound, detail));
    };
    app.gauge();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render.render())
        .into_response())
}
