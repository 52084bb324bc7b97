//! A network link between two processes, of whatever protocol: a TCP proxy that cuts, delays, throttles, and swallows.
//!
//! ```text
//! client ──requests──> Link ──requests──> server      a message is what one read of the socket brings
//!        <──answers───      <──answers───
//! ```
//!
//! What it holds back it delivers when it is healed, late, as a network does that sends again; also if the client has
//! gone away meanwhile. What is of HTTP only (a request that comes twice, an answer of somebody else) is in
//! [`proxy`](crate::proxy).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wait::wait_for;

/// The most that one message has.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Which way a fault works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Answers,
    /// Both.
    Both,
}

impl Way {
    const fn covers(self, way: Self) -> bool {
        matches!(
            (self, way),
            (Self::Both, _) | (Self::Requests, Self::Requests) | (Self::Answers, Self::Answers)
        )
    }
}

/// Which requests a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One in so many.
    Every(u64),
    /// Those that hold this text.
    With(&'static str),
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is healed.
    None,
    /// Breaks the connection instead of delivering these requests.
    CutBefore(Which),
    /// Delivers these requests, and breaks the connection instead of their answers.
    CutAfter(Which),
    /// Everything comes so many milliseconds later.
    Delay(Way, u64),
    /// So many bytes a second, each way.
    Throttle(u64),
    /// Connections stay open, and nothing passes.
    BlackHole(Way),
    /// The requests with this text do not pass; all else does.
    Hold(&'static str),
}

#[derive(Debug)]
struct Inner {
    upstream: watch::Sender<SocketAddr>,
    fault: watch::Sender<Fault>,
    requests: AtomicU64,
    met: watch::Sender<u64>,
}

/// A link, alive as long as the test's runtime.
#[derive(Debug, Clone)]
pub struct Link {
    address: SocketAddr,
    inner: Arc<Inner>,
}

/// One connection through the link.
struct LinkConnection {
    inner: Arc<Inner>,
    /// The next answer is to be lost.
    is_cut: AtomicBool,
}

impl Link {
    /// Starts a link to a server at this address, `host:port`, or at a base URL of that.
    ///
    /// # Panics
    /// If it is no address of this machine.
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.rsplit('/').next().and_then(|address| address.parse().ok());
        let inner = Arc::new(Inner {
            upstream: watch::Sender::new(upstream.expect("a server's address")),
            fault: watch::Sender::new(Fault::None),
            requests: AtomicU64::new(0),
            met: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a link listens");
        let address = listener.local_addr().expect("a bound address");
        let accepted = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&accepted)));
            }
        });
        Self { address, inner }
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of an HTTP server behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this from now on.
    pub fn set(&self, fault: Fault) {
        self.inner.fault.send_replace(fault);
    }

    /// Takes new connections to another server: the name has moved.
    pub fn point_at(&self, upstream: SocketAddr) {
        self.inner.upstream.send_replace(upstream);
    }

    /// How many messages have met a fault.
    #[must_use]
    pub fn met(&self) -> u64 {
        *self.inner.met.borrow()
    }

    /// Waits until so many more messages have met a fault than `before`.
    pub async fn wait_met(&self, before: u64, more: u64) {
        wait_for("messages to meet the fault", || async {
            let met = self.met() - before;
            if met >= more { Ok(()) } else { Err(format!("{met} of {more}")) }
        })
        .await;
    }
}

impl Inner {
    fn meets(&self) {
        self.met.send_modify(|met| *met += 1);
    }

    fn hits(&self, which: Which, message: &[u8]) -> bool {
        match which {
            Which::Every(n) => {
                (self.requests.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(n.max(1))
            }
            Which::With(text) => has(message, text),
        }
    }

    /// Waits until the message may pass.
    async fn hold(&self, way: Way, message: &[u8]) {
        let mut fault = self.fault.subscribe();
        let holds = |fault: &Fault| match *fault {
            Fault::BlackHole(covered) => covered.covers(way),
            Fault::Hold(text) => way == Way::Requests && has(message, text),
            _ => false,
        };
        if holds(&fault.borrow_and_update()) {
            self.meets();
            // The link's end opens it as well.
            let _gone = fault.wait_for(|fault| !holds(fault)).await;
        }
        let slow_ms = match *self.fault.borrow() {
            Fault::Delay(covered, ms) if covered.covers(way) => ms,
            Fault::Throttle(bytes_per_s) => message.len() as u64 * 1_000 / bytes_per_s.max(1),
            _ => return,
        };
        self.meets();
        tokio::time::sleep(Duration::from_millis(slow_ms)).await;
    }
}

fn has(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn carry(client: TcpStream, inner: Arc<Inner>) {
    let upstream = *inner.upstream.borrow();
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    // Batching small packets would be another delay than the one asked for.
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let connection = LinkConnection { inner, is_cut: AtomicBool::new(false) };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first ends both: the other side meets a connection that is closed.
    tokio::select! {
        () = connection.requests(from_client, to_server) => {}
        () = connection.answers(from_server, to_client) => {}
    }
}

impl LinkConnection {
    async fn requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let message = &buffer[..length];
            self.inner.hold(Way::Requests, message).await;
            let fault = *self.inner.fault.borrow();
            match fault {
                Fault::CutBefore(which) if self.inner.hits(which, message) => {
                    self.inner.meets();
                    return;
                }
                Fault::CutAfter(which) if self.inner.hits(which, message) => {
                    self.inner.meets();
                    self.is_cut.store(true, Ordering::Release);
                }
                _ => {}
            }
            if to.write_all(message).await.is_err() {
                return;
            }
        }
    }

    async fn answers(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if self.is_cut.load(Ordering::Acquire) {
                return;
            }
            let message = &buffer[..length];
            self.inner.hold(Way::Answers, message).await;
            if to.write_all(message).await.is_err() {
                return;
            }
        }
    }
}
