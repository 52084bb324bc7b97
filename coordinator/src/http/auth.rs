//! The bearer token. Probes are open; everything else wants the token of its listener, if one is configured.

use assent_client::Token;
use assent_common::ErrorCode;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::reply::Rejection;

/// Lets a request through if it carries the token.
pub(super) async fn require_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(Some(&token), request.headers()) {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

/// The answer to a request that does not carry the token, where one is wanted.
pub(super) fn refusal(wanted: Option<&Token>, headers: &HeaderMap) -> Option<Response> {
    let sent = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if wanted.is_none_or(|token| token.admits(sent)) {
        return None;
    }
    let detail = "the bearer token is missing or wrong";
    Some(Rejection::new(ErrorCode::Unauthorized, detail).into_response())
}
