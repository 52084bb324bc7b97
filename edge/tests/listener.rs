//! What strangers may do to a listener: real connections, each with a limit that it meets.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;

use assent_edge::{Answers, Budget, EdgeOptions, HostRule, Listener, gather, problem, serve};
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

const BODY_BYTES_MAX: usize = 1_000;

/// Answers `/held` when told to, `/big` with more than sockets hold, and anything else with the length of its body.
#[derive(Clone)]
struct Echo {
    budget: Budget,
    held: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
}

impl Answers for Echo {
    async fn answer(&self, request: Request<Body>) -> Response {
        match request.uri().path() {
            "/held" => {
                self.held.add_permits(1);
                let _permit = self.let_go.acquire().await.unwrap();
                Response::new(Body::from("held"))
            }
            "/big" => Response::new(Body::from(vec![b'x'; 64 << 20])),
            _ => match gather(request.into_body(), BODY_BYTES_MAX, &self.budget).await {
                Ok(gathered) => Response::new(Body::from(gathered.bytes.len().to_string())),
                Err(refused) => problem(&refused),
            },
        }
    }
}

struct Rig {
    address: SocketAddr,
    echo: Echo,
    _running: watch::Sender<bool>,
}

/// Limits that a test outlives; each test shortens its own.
fn patient() -> EdgeOptions {
    EdgeOptions {
        header_timeout_ms: 600_000,
        body_timeout_ms: 600_000,
        idle_timeout_ms: 600_000,
        write_timeout_ms: 600_000,
        ..EdgeOptions::default()
    }
}

async fn rig(options: EdgeOptions) -> Rig {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let echo = Echo {
        budget: Budget::new(options.request_bytes_max),
        held: Arc::new(Semaphore::new(0)),
        let_go: Arc::new(Semaphore::new(0)),
    };
    let listener = Listener { socket, name: "test", connections_max: options.connections_max };
    let hosts = HostRule::new(address, false, []);
    let (running, stopped) = watch::channel(false);
    let answers = echo.clone();
    tokio::spawn(async move { serve(listener, hosts, &options, answers, stopped).await });
    Rig { address, echo, _running: running }
}

impl Rig {
    async fn open(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        stream
    }
}

/// All that comes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _reset = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The answer of a connection that stays open.
async fn answered(stream: &mut TcpStream, with: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(with) {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "closed: {text:?}");
    }
    String::from_utf8_lossy(&text).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_closed() {
    let rig = rig(EdgeOptions { header_timeout_ms: 50, ..patient() }).await;
    for first in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "] {
        assert_eq!(rest(rig.open(first).await).await, "", "{}", first.escape_ascii());
    }
    // The next head on a connection that was idle has the same time.
    let mut stream = rig.open(GET).await;
    answered(&mut stream, "\r\n\r\n0").await;
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_own_time() {
    let rig = rig(EdgeOptions { idle_timeout_ms: 50, ..patient() }).await;
    let stream = rig.open(GET).await;
    assert!(rest(stream).await.ends_with("\r\n\r\n0"));
}

#[tokio::test]
async fn a_body_that_drips_is_answered_408() {
    let rig = rig(EdgeOptions { body_timeout_ms: 200, ..patient() }).await;
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nx";
    let (mut reading, mut writing) = rig.open(head).await.into_split();
    // Bytes keep coming: each of them is in time, the whole is not.
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let mut text = String::new();
    while !text.contains("request_timeout") {
        let mut chunk = [0; 4_096];
        let count = reading.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    drip.abort();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("problem+json"), "{text}");
}

#[tokio::test]
async fn who_takes_no_answer_is_closed() {
    let rig = rig(EdgeOptions { write_timeout_ms: 100, ..patient() }).await;
    let stream = rig.open(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // What is sent cannot end before the connection does, because nobody reads.
    while stream.ready(tokio::io::Interest::ERROR | tokio::io::Interest::WRITABLE).await.is_ok() {
        if stream
            .try_write(b"GET / HTTP/1.1\r\n")
            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_listener_closes_the_longest_idle_connection_and_none_that_is_busy() {
    let rig = rig(EdgeOptions { connections_max: 3, ..patient() }).await;
    let mut busy = rig.open(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    rig.echo.held.acquire().await.unwrap().forget();
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = rig.open(GET).await;
        answered(&mut stream, "\r\n\r\n0").await;
        idle.push(stream);
    }
    // Many more than there is room for, one after another: each is served.
    for _ in 0..20 {
        let mut stream = rig.open(GET).await;
        answered(&mut stream, "\r\n\r\n0").await;
        idle.push(stream);
    }
    for closed in idle.drain(..idle.len() - 3) {
        assert_eq!(rest(closed).await, "");
    }
    rig.echo.let_go.add_permits(1);
    assert!(answered(&mut busy, "held").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_head_that_is_none_gets_a_problem_document() {
    let rig = rig(patient()).await;
    let (uri, header) = ("x".repeat(100_000), "x".repeat(1 << 20));
    for (request, status, code) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /{uri} HTTP/1.1\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nX: {header}\r\n\r\n"), 431, "headers_too_large"),
    ] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        // It may be refused before it is all sent.
        let _refused = stream.write_all(request.as_bytes()).await;
        let answer = rest(stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
}

#[tokio::test]
async fn who_closes_its_side_after_the_request_still_gets_the_answer() {
    let rig = rig(patient()).await;
    let mut stream = rig.open(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    rig.echo.held.acquire().await.unwrap().forget();
    rig.echo.let_go.add_permits(1);
    assert!(rest(stream).await.ends_with("held"));
}

#[tokio::test]
async fn bodies_that_are_read_share_one_budget() {
    let rig = rig(EdgeOptions { request_bytes_max: 1_000, ..patient() }).await;
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 800\r\n\r\n";
    let mut first = rig.open(head).await;
    first.write_all(&[b'x'; 700]).await.unwrap();
    while rig.echo.budget.left() > 300 {
        tokio::task::yield_now().await;
    }
    let mut second = rig.open(head).await;
    second.write_all(&[b'x'; 800]).await.unwrap();
    let refused = answered(&mut second, "overloaded").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after"), "{refused}");
    first.write_all(&[b'x'; 100]).await.unwrap();
    answered(&mut first, "\r\n\r\n800").await;
    // Given back with the request.
    while rig.echo.budget.left() < rig.echo.budget.total() {
        tokio::task::yield_now().await;
    }
    let mut larger =
        rig.open(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n").await;
    larger.write_all(&[b'x'; 1_001]).await.unwrap();
    answered(&mut larger, "body_too_large").await;
}
