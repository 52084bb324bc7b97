//! Bodies: read within a time, within a size, and within what memory there is.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use assent_common::wire::problem::Problem;
use assent_common::wire::too_deep_at;
use assent_common::{ErrorCode, limits};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::budget::{self, Budget, Held};

/// The body took longer than the server waits.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive within {} ms", .0.as_millis())]
pub(crate) struct Slow(Duration);

/// A body that must be over in a time. Slow drips count as nothing: the limit is one of the whole.
pub(crate) struct InTime {
    inner: Incoming,
    limit: Duration,
    wait: Wait,
}

/// How the body is waited for. Most come with their heads: they are there when they are asked for
/// again, and need no timer.
enum Wait {
    Not,
    Again,
    Until(Pin<Box<Sleep>>),
}

impl InTime {
    pub(crate) fn new(inner: Incoming, limit: Duration) -> Self {
        Self { inner, limit, wait: Wait::Not }
    }
}

impl http_body::Body for InTime {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        loop {
            match &mut this.wait {
                Wait::Not => {
                    // The connection passes on what it has read only when somebody has asked.
                    this.wait = Wait::Again;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Wait::Again => {
                    this.wait = Wait::Until(Box::pin(tokio::time::sleep(this.limit)));
                }
                Wait::Until(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(Slow(this.limit).into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body, and the memory that was granted for it.
#[derive(Debug)]
pub struct Gathered {
    /// The bytes.
    pub bytes: Bytes,
    /// As many bytes of the budget.
    pub held: Held,
}

/// Reads a body up to the limit, as far as the budget goes. The usual one is a single chunk, and is not copied.
pub async fn gather(body: Body, bytes_max: usize, budget: &Budget) -> Result<Gathered, Problem> {
    let mut held = budget.hold();
    let mut body = body;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    // Told before it is read, if its head says so.
    let mut size = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    while size <= bytes_max {
        let Some(chunk) = next(&mut body).await? else {
            let bytes =
                if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() };
            return with_room_to_parse(bytes, held);
        };
        if !held.grow(chunk.len()) {
            drop((first, rest));
            discard(body, bytes_max).await;
            return Err(no_room(budget));
        }
        size = size.max(first.len() + rest.len() + chunk.len());
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    drop((first, rest, held));
    discard(body, bytes_max).await;
    let detail = format!("the body is larger than {bytes_max} bytes");
    Err(Problem::new(ErrorCode::BodyTooLarge, detail))
}

fn with_room_to_parse(bytes: Bytes, mut held: Held) -> Result<Gathered, Problem> {
    if let Some(at) = too_deep_at(&bytes, limits::JSON_DEPTH_MAX) {
        let detail = format!(
            "the body has more than {} arrays and objects inside each other, at byte {at}",
            limits::JSON_DEPTH_MAX
        );
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    let needed = budget::bytes_to_parse(&bytes);
    let budget = held.budget().clone();
    if held.grow(needed) {
        return Ok(Gathered { bytes, held });
    }
    if held.bytes().saturating_add(needed) > budget.total() {
        let detail = "the body has more values than there is memory for; split the request";
        return Err(Problem::new(ErrorCode::BodyTooLarge, detail));
    }
    Err(no_room(&budget))
}

/// The next chunk; `None` at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    if body.is_end_stream() {
        return Ok(None);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cut_off(&error))?;
        // What is no data is a trailer, which says nothing to us.
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// The body ended early: the client stopped, or was too slow.
fn cut_off(error: &(dyn Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(slow) = error.downcast_ref::<Slow>() {
            return Problem::new(ErrorCode::RequestTimeout, slow.to_string());
        }
        cause = error.source();
    }
    Problem::new(ErrorCode::BadRequest, "the body was cut short")
}

fn no_room(budget: &Budget) -> Problem {
    let detail = format!(
        "requests hold all {} bytes that are allowed; nothing was begun, try again",
        budget.total()
    );
    Problem::new(ErrorCode::Overloaded, detail)
}

/// Reads on for a while: a client that is still sending would lose the answer with the connection.
async fn discard(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Ok(Some(chunk)) = next(&mut body).await {
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}
