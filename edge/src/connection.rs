//! One connection: its requests, one after another, and the time that each part of them may take.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody as _};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::activity::{Activity, Stage};
use crate::body::InTime;
use crate::caller::Caller;
use crate::hosts::HostRule;
use crate::listener::{Listener, Serves, accept};
use crate::options::{EdgeOptions, Patience};
use crate::reply::problem;
use crate::seldom::Seldom;
use crate::stream::Stream;

/// What answers the requests of a listener.
pub trait Answers: Send + Sync + 'static {
    /// Answers one.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response> + Send;
}

/// What the connections of a listener share.
struct Shared<A> {
    name: &'static str,
    answers: A,
    hosts: HostRule,
    patience: Patience,
    unauthorized: Seldom,
}

/// Serves HTTP: see [`accept`]. `hosts` says by which names the listener may be addressed.
pub async fn serve<A: Answers>(
    listener: Listener,
    hosts: HostRule,
    options: &EdgeOptions,
    answers: A,
    stopped: watch::Receiver<bool>,
) {
    let shared = Shared {
        name: listener.name,
        answers,
        hosts,
        patience: Patience::new(options),
        unauthorized: Seldom::minutely(),
    };
    accept(listener, Arc::new(shared), stopped).await;
}

impl<A: Answers> Serves for Shared<A> {
    async fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        activity: Arc<Activity>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let tcp = Arc::new(tcp);
        let client = Caller::of(&tcp);
        let stream = Stream::new(tcp, Arc::clone(&activity));
        let service = service_fn(|mut request: Request<Incoming>| {
            activity.enter(Stage::Busy);
            request.extensions_mut().insert(client.clone());
            let (shared, activity) = (&self, &activity);
            async move {
                let response = answer(shared, peer, request).await;
                Ok::<_, Infallible>(until_it_is_out(response, activity))
            }
        });
        // A client may close its side when it has asked; it still wants the answer.
        let mut server = http1::Builder::new();
        let mut connection =
            pin!(server.half_close(true).serve_connection(TokioIo::new(stream), service));
        let mut is_leaving = false;
        let next_look = || {
            let look = Instant::now() + self.patience.shortest();
            let deadline = activity.deadline(&self.patience);
            deadline.map_or(look, |deadline| look.min(Instant::from_std(deadline)))
        };
        let mut look = pin!(sleep_until(next_look()));
        loop {
            tokio::select! {
                biased;
                // An error is a client that went away or does not speak HTTP; whoever hung up asks again.
                _served = connection.as_mut() => return,
                () = look.as_mut() => {
                    let now = Instant::now().into_std();
                    if activity.deadline(&self.patience).is_some_and(|deadline| deadline <= now) {
                        return;
                    }
                    look.as_mut().reset(next_look());
                }
                () = activity.asked_to_leave() => {
                    if activity.expendable_since().is_some() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
                _ = stopped.wait_for(|stopped| *stopped), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn answer<A: Answers>(
    shared: &Shared<A>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response {
    let refused = shared.hosts.refusal(request.method(), request.uri(), request.headers());
    if let Some(refused) = refused {
        return problem(&refused);
    }
    let request = request.map(|body| {
        if body.is_end_stream() {
            Body::empty()
        } else {
            Body::new(InTime::new(body, shared.patience.body))
        }
    });
    let response = shared.answers.answer(request).await;
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(left_out) = shared.unauthorized.now()
    {
        let listener = shared.name;
        tracing::warn!(
            listener,
            %peer,
            left_out,
            "a request was refused with 401: its bearer token is missing or wrong; see the \
             token files of the server and of who asks"
        );
    }
    response
}

/// The connection is idle again when the answer is out: at once for one that is whole, at its end for a stream.
fn until_it_is_out(response: Response, activity: &Arc<Activity>) -> Response {
    if response.body().size_hint().exact().is_some() {
        activity.enter(Stage::Idle);
        return response;
    }
    response.map(|inner| Body::new(Streamed { inner, activity: Arc::clone(activity) }))
}

/// A body that comes bit by bit.
struct Streamed {
    inner: Body,
    activity: Arc<Activity>,
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.activity.enter(Stage::Idle);
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
