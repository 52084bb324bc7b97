//! What a listener answers with: each request to its handler.
//!
//! `POST /v1/transactions` is nearly all that a busy coordinator hears. It goes straight from the connection to its
//! handler: the router would match, clone, box and wrap it at a tenth of what a transaction costs. Everything else goes
//! through the router, which has that path too, so that both ways are the same handler.

use std::convert::Infallible;

use assent_client::Token;
use assent_edge::Answers;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request};
use axum::response::{IntoResponse as _, Response};
use tower::Service as _;

use super::auth;
use super::extract::{ClientOf, JsonBody};
use super::state::HttpState;
use super::transactions;

/// What a listener answers with.
pub(crate) struct Surface {
    router: Router,
    /// Where transactions are taken.
    submits: Option<Submits>,
}

/// The short way.
struct Submits {
    state: HttpState,
    token: Option<Token>,
}

impl Surface {
    pub(super) const fn new(router: Router) -> Self {
        Self { router, submits: None }
    }

    /// The same, with the short way to submit a transaction.
    pub(super) fn taking_transactions(self, state: HttpState, token: Option<Token>) -> Self {
        Self { submits: Some(Submits { state, token }), ..self }
    }
}

impl Answers for Surface {
    async fn answer(&self, request: Request<Body>) -> Response {
        match &self.submits {
            Some(submits) if is_submission(&request) => {
                let (head, body) = request.into_parts();
                submits.answer(head.headers, ClientOf::of(&head.extensions), body).await
            }
            _ => {
                let answered = self.router.clone().call(request).await;
                answered.unwrap_or_else(|never: Infallible| match never {})
            }
        }
    }
}

fn is_submission<B>(request: &Request<B>) -> bool {
    request.method() == Method::POST && request.uri().path() == transactions::PATH
}

impl Submits {
    async fn answer(&self, headers: HeaderMap, client: ClientOf, body: Body) -> Response {
        if let Some(refused) = auth::refusal(self.token.as_ref(), &headers) {
            return refused;
        }
        match JsonBody::of(&headers, body, &self.state).await {
            Ok(body) => {
                let state = State(self.state.clone());
                transactions::submit(state, headers, client, body).await.into_response()
            }
            Err(rejection) => rejection.into_response(),
        }
    }
}
