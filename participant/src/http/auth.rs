//! The bearer token. Health probes are open; everything else needs the token if one is configured.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use assent_client::pass_on::PASSED_ON;
use assent_common::ErrorCode;

use super::reply::Rejection;
use crate::forward::SentBy;
use crate::service::App;

/// Lets a request through if no token is configured, or if it carries the token.
pub(crate) async fn require_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(&app, &request) {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    }
}

/// The same, for what an agent may pass on: it shows instead that it is one of this Redis.
pub(crate) async fn require_speaker(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let sent_by = match request.headers().get(PASSED_ON) {
        Some(proof) => app.passed_on_as(proof.as_bytes()).map(SentBy::Agent).ok_or_else(|| {
            let detail = "this agent does not accept the proof of who passes this on: it does not \
                          own that Redis, or their tokens differ";
            Rejection::new(ErrorCode::NotOwner, detail)
        }),
        None => refusal(&app, &request).map_or(Ok(SentBy::Coordinator), Err),
    };
    match sent_by {
        Ok(sent_by) => {
            request.extensions_mut().insert(sent_by);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn refusal(app: &App, request: &Request) -> Option<Rejection> {
    let token = app.token.as_ref()?;
    let sent = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let detail = "the bearer token is missing or wrong";
    (!token.admits(sent)).then(|| Rejection::new(ErrorCode::Unauthorized, detail))
}
