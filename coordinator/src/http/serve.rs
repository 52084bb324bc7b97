//! The listeners: connections in, each request to its handler.
//!
//! `POST /v1/transactions` is nearly all that a busy coordinator hears. It goes straight from the connection to its
//! handler: the router would match, clone, box and wrap it at a tenth of what a transaction costs. Everything else goes
//! through the router, which has that path too, so that both ways are the same handler.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use assent_client::Token;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service as _;

use super::HttpState;
use super::auth;
use super::extract::JsonBody;
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

    async fn answer(&self, request: Request<Incoming>) -> Response {
        match &self.submits {
            Some(submits) if is_submission(&request) => {
                let (head, body) = request.into_parts();
                submits.answer(head.headers, Body::new(body)).await
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
    async fn answer(&self, headers: HeaderMap, body: Body) -> Response {
        if let Some(refused) = auth::refusal(self.token.as_ref(), &headers) {
            return refused;
        }
        match JsonBody::of(&headers, body).await {
            Ok(body) => {
                transactions::submit(State(self.state.clone()), headers, body).await.into_response()
            }
            Err(rejection) => rejection.into_response(),
        }
    }
}

/// Accepts until told to stop; then lets the requests that are under way finish, and closes the idle connections.
pub(crate) async fn serve(
    mut listener: TcpListener,
    surface: Surface,
    mut stopped: watch::Receiver<bool>,
) {
    let surface = Arc::new(surface);
    let mut connections = JoinSet::new();
    let closing = stopped.clone();
    loop {
        tokio::select! {
            // Waits, where the process has no descriptor left.
            (stream, _) = Listener::accept(&mut listener) => {
                // Answers are small and waited for.
                let _unsupported = stream.set_nodelay(true);
                connections.spawn(connection(stream, Arc::clone(&surface), closing.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, surface: Arc<Surface>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let surface = &surface;
        async move { Ok::<_, Infallible>(surface.answer(request).await) }
    });
    let mut connection =
        pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        // An error is a client that went away or does not speak HTTP; whoever hung up asks again.
        _served = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _served = connection.await;
}
