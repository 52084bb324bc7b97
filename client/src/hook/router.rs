//! A hook as a route of axum.

use std::sync::Arc;

use assent_common::limits;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

use super::{Hook, Unanswerable, answer_hook};
use crate::token::Token;

/// A router that serves a hook at a path, to merge into the service's own; `token` is that of the
/// agent's `hook_token_file`.
///
/// A hook that has failed is answered 500, and the agent asks again, a few times; one that is
/// unclear is answered 503, and the agent asks again as long as there is time.
pub fn hook_router<S>(path: &str, hook: impl Hook, token: Option<Token>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let served = Arc::new((hook, token));
    Router::new().route(path, post(serve)).with_state(served)
}

async fn serve<H: Hook>(
    State(served): State<Arc<(H, Option<Token>)>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (hook, token) = &*served;
    let authorization = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    if token.as_ref().is_some_and(|token| !token.admits(authorization)) {
        return (StatusCode::UNAUTHORIZED, "the token is missing or wrong").into_response();
    }
    let Ok(question) = to_bytes(body, limits::HOOK_QUESTION_BYTES_MAX).await else {
        let why = "the question did not come whole, or is too large";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    match answer_hook(hook, &question).await {
        Ok(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error @ Unanswerable::NoQuestion(_)) => {
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        Err(error @ Unanswerable::Failed(_)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
        Err(error @ Unanswerable::Unclear(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}
