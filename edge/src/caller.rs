//! Whether the client of a request is still there, for those who let it wait.
//!
//! A client may close its side when it has asked, and still reads the answer: hyper serves it, and
//! so does not notice one that has closed both. Nobody can tell the two apart before the answer is
//! written. So a wait of a client that has closed its side is cut short, and it is told what is
//! known by then: whoever has gone holds no descriptor for longer.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// How often it is looked at, and how long a client that has closed its side waits at least.
const LOOK: Duration = Duration::from_secs(1);

/// The client of a request, as each request's extensions have it. The default never leaves.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Weak: the connection's end closes the descriptor.
    tcp: Option<Weak<TcpStream>>,
}

impl Caller {
    /// The client at the other end.
    #[must_use]
    pub fn of(tcp: &Arc<TcpStream>) -> Self {
        Self { tcp: Some(Arc::downgrade(tcp)) }
    }

    /// Whether it has closed its side of the connection, or the connection has ended.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        let Some(tcp) = &self.tcp else { return false };
        let Some(tcp) = tcp.upgrade() else { return true };
        // Polled once, and not by the connection's task, whose own wait for bytes stays as it is.
        let ready = pin!(tcp.ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            std::task::Poll::Ready(Err(_)) => true,
            std::task::Poll::Pending => false,
        }
    }

    /// Waits until then, or until a second or so after the client has closed its side.
    pub async fn waits_until(&self, until: Instant) {
        let _in_time = timeout_at(until, self.has_left()).await;
    }

    /// Waits until a second or so after the client has closed its side.
    pub async fn has_left(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.has_closed() {
                return;
            }
        }
    }
}
