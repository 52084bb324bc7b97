//! The bearer token. Probes are open; everything else wants the token of its listener, if one is configured.

use assent_client::Token;
use assent_common::ErrorCode;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::reply::Rejection;

/// Lets a request through if it carries the token.
pub(super) async fn require_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    let sent = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if token.admits(sent) {
        return next.run(request).await;
    }
    let detail = "the bearer token is missing or wrong";
    let mut response = Rejection::new(ErrorCode::Unauthorized, detail).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
