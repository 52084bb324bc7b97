//! The bearer token. Health probes are open; everything else needs the token if one is configured.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use assent_common::ErrorCode;

use super::App;
use super::reply::Rejection;

/// Lets a request through if no token is configured, or if it carries the token.
pub(crate) async fn require_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &app.token else { return next.run(request).await };
    let sent = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if token.admits(sent) {
        return next.run(request).await;
    }
    Rejection::new(ErrorCode::Unauthorized, "the bearer token is missing or wrong").into_response()
}
