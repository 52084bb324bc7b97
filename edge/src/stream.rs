//! The bytes of a connection.
//!
//! Also the one place where an answer of hyper's own is met: to a head that it cannot parse it says a status and nothing
//! else, past every handler. Such an answer is replaced by a problem document of the same status.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use assent_common::ErrorCode;
use assent_common::wire::PROBLEM_MEDIA_TYPE;
use assent_common::wire::problem::Problem;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::activity::{Activity, Stage};

/// A client's connection.
pub(crate) struct Stream {
    /// Shared with [`Caller`]s, who only look at it.
    tcp: Arc<TcpStream>,
    activity: Arc<Activity>,
    /// What is sent in place of hyper's own words.
    instead: Option<Bytes>,
}

impl Stream {
    pub(crate) fn new(tcp: Arc<TcpStream>, activity: Arc<Activity>) -> Self {
        Self { tcp, activity, instead: None }
    }

    /// Whether these bytes are hyper's own answer: nobody was asked, so nobody else has one. `None` if they are not.
    fn poll_instead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        all: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            if self.activity.stage() == Stage::Busy {
                return None;
            }
            self.instead = Some(document_of(bytes)?);
        }
        let Self { tcp, instead, .. } = self;
        let document = instead.as_mut()?;
        while document.has_remaining() {
            match poll_with(|| tcp.poll_write_ready(cx), || tcp.try_write(document)) {
                Poll::Ready(Ok(count)) => document.advance(count),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(Ok(all)))
    }
}

const CONTENT_TYPE: &[u8] = b"content-type:";

/// The answer in place of one of hyper's, by the code that fits its status.
fn document_of(answer: &[u8]) -> Option<Bytes> {
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5))?;
    let (code, reason, detail) = match status {
        b"414" => (ErrorCode::UriTooLong, "URI Too Long", "the path and the query are too long"),
        b"431" => (
            ErrorCode::HeadersTooLarge,
            "Request Header Fields Too Large",
            "the headers are too large, or too many",
        ),
        b"400" => (ErrorCode::BadRequest, "Bad Request", "this is not an HTTP/1.1 request"),
        _ => return None,
    };
    // Answers of ours have a type.
    if answer.windows(CONTENT_TYPE.len()).any(|part| part == CONTENT_TYPE) {
        return None;
    }
    let body = serde_json::to_string(&Problem::new(code, detail)).ok()?;
    let text = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        code.status(),
        body.len()
    );
    Some(text.into())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let tcp = &self.tcp;
        let polled = poll_with(|| tcp.poll_read_ready(cx), || tcp.try_read_buf(buf));
        let polled = polled.map_ok(|_count| ());
        if buf.filled().len() > before && self.activity.stage() == Stage::Idle {
            self.activity.enter(Stage::Head);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = match self.poll_instead(cx, buf, buf.len()) {
            Some(polled) => polled,
            None => poll_with(|| self.tcp.poll_write_ready(cx), || self.tcp.try_write(buf)),
        };
        self.activity.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bufs.first().map_or(&[], |first| first);
        let all = bufs.iter().map(|buf| buf.len()).sum();
        let polled = match self.poll_instead(cx, first, all) {
            Some(polled) => polled,
            None => {
                let write = || self.tcp.try_write_vectored(bufs);
                poll_with(|| self.tcp.poll_write_ready(cx), write)
            }
        };
        self.activity.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept back.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.tcp, rustix::net::Shutdown::Write) {
            // It is closed already.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

/// Does something with a socket when it is ready for it.
fn poll_with<T>(
    mut poll_ready: impl FnMut() -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        match poll_ready() {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}
