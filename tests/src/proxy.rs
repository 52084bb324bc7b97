//! An HTTP proxy between two of our servers that does what networks and ingresses do: loses, delays, repeats, answers
//! for somebody else.
//!
//! ```text
//! request ──> gate before? hold ──> fault? ──yes──> the fault's answer
//!                                      │ no
//!                                      └──> upstream (perhaps twice) ──> gate after? hold ──> answer
//! ```

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use tokio::sync::watch;

use crate::wait::wait_for;

/// What the proxy does with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: passes it on.
    None,
    /// Answers itself, as a server that is not ours.
    Answer {
        /// The status.
        status: u16,
        /// The media type.
        media_type: &'static str,
        /// The body.
        body: &'static str,
    },
    /// Passes it on, and answers with the first half of the body, well framed, under the right media type.
    HalfBody,
    /// Breaks the connection instead of passing it on.
    CutBefore,
    /// Passes it on, and breaks the connection instead of answering.
    CutAfter,
    /// Passes it on twice, one after the other, and answers with the second answer.
    Twice,
    /// Passes it on twice at once, and answers with one of the answers. Not between a coordinator and a participant: there
    /// a copy may still be under way when another is answered, which one phase does not bear (`tests/model/README.md`).
    TwiceAtOnce,
    /// Passes it on after this many milliseconds.
    Delay(u64),
}

/// Where a gate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before the request is passed on.
    Before,
    /// After upstream has answered, before the answer is passed back.
    After,
}

#[derive(Debug, Clone)]
struct Gate {
    at: At,
    word: &'static str,
    open: watch::Sender<bool>,
}

/// A request that went through, for saying it again later.
#[derive(Debug, Clone)]
pub struct Recorded {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug)]
struct Inner {
    upstream: String,
    client: reqwest::Client,
    fault: Mutex<Fault>,
    gate: Mutex<Option<Gate>>,
    held: watch::Sender<u64>,
    recorded: Mutex<Vec<Recorded>>,
    passed: watch::Sender<u64>,
}

/// A proxy, alive as long as the test's runtime.
#[derive(Debug, Clone)]
pub struct Proxy {
    url: String,
    inner: Arc<Inner>,
}

impl Proxy {
    /// Starts a proxy for the server at this base URL.
    pub async fn start(upstream: &str) -> Self {
        // No connection is used twice, so that what is repeated comes on another one.
        let client = reqwest::Client::builder().no_proxy().retry(reqwest::retry::never());
        let client = client.pool_max_idle_per_host(0).build();
        let inner = Arc::new(Inner {
            upstream: upstream.to_owned(),
            client: client.expect("an HTTP client"),
            fault: Mutex::new(Fault::None),
            gate: Mutex::new(None),
            held: watch::Sender::new(0),
            recorded: Mutex::new(Vec::new()),
            passed: watch::Sender::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a proxy listens");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let router = Router::new().fallback(handle).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Does this with every request from now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.inner.fault) = fault;
    }

    /// Holds every exchange whose request has this word, until [`open`](Self::open).
    pub fn close(&self, at: At, word: &'static str) {
        *lock(&self.inner.gate) = Some(Gate { at, word, open: watch::Sender::new(false) });
    }

    /// Lets go what is held, and holds nothing more.
    pub fn open(&self) {
        if let Some(gate) = lock(&self.inner.gate).take() {
            gate.open.send_replace(true);
        }
    }

    /// Waits until something is held.
    pub async fn wait_held(&self) {
        wait_for("the proxy to hold an exchange", || async {
            if *self.inner.held.borrow() > 0 { Ok(()) } else { Err("it holds none") }
        })
        .await;
    }

    /// Whether it holds an exchange right now.
    #[must_use]
    pub fn holds(&self) -> bool {
        *self.inner.held.borrow() > 0
    }

    /// How many requests it has taken, faults included, but for looks at a participant's data: those come by the clock.
    #[must_use]
    pub fn taken(&self) -> u64 {
        *self.inner.passed.borrow()
    }

    /// How many of the requests that went through hold this word.
    #[must_use]
    pub fn passed_with(&self, word: &str) -> usize {
        let recorded = lock(&self.inner.recorded);
        let holds = |request: &&Recorded| String::from_utf8_lossy(&request.body).contains(word);
        recorded.iter().filter(holds).count()
    }

    /// Says everything that was ever said again, the last first, and returns how many that were.
    pub async fn replay_reversed(&self) -> usize {
        let recorded = lock(&self.inner.recorded).clone();
        for request in recorded.iter().rev() {
            let _whatever_it_says = self.inner.forward(request).await;
        }
        recorded.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the proxy's lock")
}

impl Inner {
    async fn forward(
        &self,
        recorded: &Recorded,
    ) -> reqwest::Result<(StatusCode, HeaderValue, Bytes)> {
        let Recorded { method, path, headers, body } = recorded;
        let request = self
            .client
            .request(method.clone(), format!("{}{path}", self.upstream))
            .headers(headers.clone())
            .body(body.clone());
        let response = request.send().await?;
        let status = response.status();
        let media_type = response.headers().get(CONTENT_TYPE).cloned();
        let media_type = media_type.unwrap_or_else(|| HeaderValue::from_static("text/plain"));
        Ok((status, media_type, response.bytes().await?))
    }

    async fn hold(&self, at: At, body: &str) {
        let open = match &*lock(&self.gate) {
            Some(gate) if gate.at == at && body.contains(gate.word) => gate.open.subscribe(),
            _ => return,
        };
        let mut open = open;
        self.held.send_modify(|held| *held += 1);
        // The gate's end opens it as well.
        let _gone = open.wait_for(|open| *open).await;
        self.held.send_modify(|held| *held -= 1);
    }
}

/// Whether a coordinator only looks at a participant's data: a batch without messages, and the question that follows.
fn is_look(request: &str) -> bool {
    request.starts_with("/v1/data") || request.contains("\"messages\":[]")
}

async fn handle(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return cut() };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let text = format!("{path} {}", String::from_utf8_lossy(&body));
    if !is_look(&text) {
        inner.passed.send_modify(|passed| *passed += 1);
    }
    let mut headers = parts.headers;
    // These are of the connection; the client makes its own.
    for of_connection in [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING] {
        headers.remove(of_connection);
    }
    let request = Recorded { method: parts.method, path, headers, body };
    inner.hold(At::Before, &text).await;
    let fault = lock(&inner.fault).clone();
    match fault {
        Fault::Answer { status, media_type, body } => return answer(status, media_type, body),
        Fault::CutBefore => return cut(),
        Fault::Delay(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Fault::Twice => {
            let _first = inner.forward(&request).await;
        }
        Fault::TwiceAtOnce | Fault::None | Fault::HalfBody | Fault::CutAfter => {}
    }
    let answered = match fault {
        Fault::TwiceAtOnce => tokio::join!(inner.forward(&request), inner.forward(&request)).1,
        _ => inner.forward(&request).await,
    };
    if request.method == Method::POST {
        lock(&inner.recorded).push(request);
    }
    inner.hold(At::After, &text).await;
    let Ok((status, media_type, bytes)) = answered else { return cut() };
    let bytes = match fault {
        Fault::CutAfter => return cut(),
        Fault::HalfBody => bytes.slice(..bytes.len() / 2),
        _ => bytes,
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

fn answer(status: u16, media_type: &'static str, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer that promises more than it sends: the server must break the connection.
fn cut() -> Response {
    let broken =
        futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    let mut response = Response::new(Body::from_stream(broken));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("1000"));
    response
}
