//! One HTTP exchange, and the one match that says what it means.
//!
//! Owns: the connection pool, the time limits, the token, the size limit of answers. It must never retry, never follow
//! a redirect and never go through a proxy: each of those lets somebody else answer, or says a thing twice.
//!
//! ```text
//! send ──error, timeout, reset, cut short──────────────> Unknown
//!   └──> status + media type + body ──> judge ──┬─ 2xx of the media type asked for ──> Said
//!                                               ├─ 4xx/5xx problem of ours ──────────> Problem
//!                                               └─ anything else ────────────────────> Unknown
//! ```

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::{DeserializeOwned, IgnoredAny};
use url::Url;

use assent_common::mutant::Mutant;
use assent_common::outcome::{Failed, Refusal};
use assent_common::wire::problem::Problem;
use assent_common::wire::{MEDIA_TYPE, PROBLEM_MEDIA_TYPE, too_deep_at};
use assent_common::{limits, text};

use crate::mutant;
pub use crate::token::Token;

/// The media type of the public API's answers and of all requests.
const JSON_MEDIA_TYPE: &str = "application/json";

/// Idle connections kept to one host: a dispatcher has few requests in flight, tools have one.
const POOL_IDLE_PER_HOST_MAX: usize = 32;

/// How long an idle connection is kept, and how often it is probed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// What an HTTP client may take, and as whom it speaks.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Milliseconds to establish a connection.
    pub connect_timeout_ms: u64,
    /// Milliseconds from the request to the last byte of its answer; calls that wait on purpose add their wait.
    pub request_timeout_ms: u64,
    /// The bearer token, where the server asks for one.
    pub token: Option<Token>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { connect_timeout_ms: 1_000, request_timeout_ms: 5_000, token: None }
    }
}

/// The HTTP client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The token does not fit into a header.
    #[error("the token has characters that a header cannot carry")]
    Token,
}

/// The text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no base URL: write http://host:port, with a path if the API is mounted below one"
)]
pub struct InvalidBaseUrl(String);

impl InvalidBaseUrl {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Nothing is known of what the other side did; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// This copy of a request has reached nobody; the text is for people.
#[derive(Debug)]
pub(crate) struct NotSent(pub(crate) String);

/// Why a call that changes nothing, or an operator's call, has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server refuses, and says why.
    #[error("{}: {}", .0.code, .0.detail)]
    Rejected(Box<Problem>),
    /// Nothing is known.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(problem) => {
                Self::Refused(Refusal::new(problem.code, problem.detail))
            }
            CallError::Unknown(Unknown(why)) => Self::Unknown(why),
        }
    }
}

/// A pool of connections; cheap to clone, shared by the clients of many servers.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    request_timeout: Duration,
    authorization: Option<HeaderValue>,
}

impl Http {
    /// Sets up the pool. Connects to nobody yet.
    pub fn new(options: &HttpOptions) -> Result<Self, BuildError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_millis(options.connect_timeout_ms)));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(TCP_KEEPALIVE));
        // What the pool does say twice is a request of which no byte was written, because its connection was closed
        // while it was idle.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(POOL_IDLE_PER_HOST_MAX)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let authorization = match &options.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .map_err(|_| BuildError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let request_timeout = Duration::from_millis(options.request_timeout_ms);
        Ok(Self { client, request_timeout, authorization })
    }

    /// Says it once, and tells what came of it.
    pub(crate) async fn say(&self, request: Request) -> Heard {
        let heard = self.say_if_connected(request).await;
        heard.unwrap_or_else(|NotSent(why)| Heard::Unknown(Unknown(why)))
    }

    /// The same; an error if this copy of the request has reached nobody.
    pub(crate) async fn say_if_connected(&self, request: Request) -> Result<Heard, NotSent> {
        let expected = request.expects;
        let again = mutant::is(Mutant::RetriesUnclear).then(|| request.clone());
        match self.exchange_or_again(request, again).await {
            Ok(answer) => Ok(judge(expected, answer)),
            Err(Unanswered::NotConnected(Unknown(why))) => Err(NotSent(why)),
            Err(unanswered) => Ok(Heard::Unknown(unanswered.into())),
        }
    }

    /// The body of an answer of JSON from a server that is not Assent's. What other answers say is
    /// whether it is worth while to ask again.
    pub(crate) async fn say_to_stranger(&self, request: Request) -> Result<Bytes, Unheard> {
        match self.exchange_if_connected(request).await {
            Ok(RawAnswer { status: 200, media_type, body }) => match media_type.as_str() {
                JSON_MEDIA_TYPE => Ok(body),
                _ => Err(Unheard::Useless("its answer is not application/json".to_owned())),
            },
            Err(Unanswered::TooLarge { status: 200, bytes_max }) => {
                Err(Unheard::TooLarge { bytes_max })
            }
            Ok(RawAnswer { status, .. }) | Err(Unanswered::TooLarge { status, .. }) => {
                Err(Unheard::of_status(status))
            }
            Err(unanswered) => Err(Unheard::Unknown(unanswered.into())),
        }
    }

    /// Says it once; twice only as a mutant.
    async fn exchange_or_again(
        &self,
        request: Request,
        again: Option<Request>,
    ) -> Result<RawAnswer, Unanswered> {
        match (self.exchange_if_connected(request).await, again) {
            (Err(_), Some(again)) => self.exchange_if_connected(again).await,
            (answered, _) => answered,
        }
    }

    /// The status and the body of an answer of plain text, for probes and metrics. Whether the text
    /// is Assent's is for the caller to see: it has no media type of its own.
    pub(crate) async fn text(&self, request: Request) -> Result<(u16, String), Unknown> {
        let RawAnswer { status, media_type, body } = self.exchange(request).await?;
        match (media_type.as_str(), std::str::from_utf8(&body)) {
            ("text/plain", Ok(text)) => Ok((status, text.to_owned())),
            _ => match judge(Media::Json, RawAnswer { status, media_type, body }) {
                Heard::Problem(problem) => Err(Unknown(not_taken(&problem))),
                Heard::Unknown(unknown) => Err(unknown),
                Heard::Said { status, body } => Err(foreign(status, JSON_MEDIA_TYPE, body.len())),
            },
        }
    }

    async fn exchange(&self, request: Request) -> Result<RawAnswer, Unknown> {
        self.exchange_if_connected(request).await.map_err(Unknown::from)
    }

    /// The same, and whether this copy of the request has reached nobody.
    async fn exchange_if_connected(&self, request: Request) -> Result<RawAnswer, Unanswered> {
        let limit = self.request_timeout + Duration::from_millis(request.wait_ms);
        let bytes_max = request.answer_bytes_max;
        let request = self.prepared(request).map_err(Unanswered::NotConnected)?;
        let answered = async {
            let response = self.client.request(request).await.map_err(|error| {
                let unknown = describe(&error);
                match error.is_connect() {
                    true => Unanswered::NotConnected(unknown),
                    false => Unanswered::Unknown(unknown),
                }
            })?;
            RawAnswer::read(response, bytes_max).await
        };
        let late = || Unknown(format!("no answer within {} ms", limit.as_millis()));
        let answered = tokio::time::timeout(limit, answered).await;
        answered.unwrap_or_else(|_| Err(Unanswered::Unknown(late())))
    }

    /// The request with everything that is the same for all.
    fn prepared(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, Unknown> {
        let Request { method, url, mut headers, body, expects, .. } = request;
        headers.insert(ACCEPT, HeaderValue::from_static(expects.name()));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON_MEDIA_TYPE));
        }
        let mut prepared = hyper::Request::new(Full::from(body.unwrap_or_default()));
        *prepared.method_mut() = method;
        *prepared.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|error| Unknown(format!("the request has no valid address: {error}")))?;
        *prepared.headers_mut() = headers;
        Ok(prepared)
    }
}

/// Every kind of transport error means the same: it is not known whether the other side acted. Even a refused
/// connection says nothing of an earlier message for the same branch.
fn describe(error: &dyn std::error::Error) -> Unknown {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Unknown(text::cut_owned(text, limits::DETAIL_BYTES_MAX))
}

/// Why there is no answer.
#[derive(Debug)]
enum Unanswered {
    /// There was no connection, so that this copy of the request was not sent.
    NotConnected(Unknown),
    /// It is not known what became of it.
    Unknown(Unknown),
    /// There is an answer of this status, with more bytes than may be read.
    TooLarge { status: u16, bytes_max: usize },
}

impl From<Unanswered> for Unknown {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotConnected(unknown) | Unanswered::Unknown(unknown) => unknown,
            Unanswered::TooLarge { bytes_max, .. } => {
                Self(format!("the answer has more than {bytes_max} bytes"))
            }
        }
    }
}

/// Why a server that is not Assent's has said nothing.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// It has answered more than may be read.
    TooLarge { bytes_max: usize },
    /// It has answered, and nothing that it was asked for.
    Useless(String),
    /// It is not known what it says.
    Unknown(Unknown),
}

impl Unheard {
    /// By the status of an answer. Some say themselves that it is a matter of time; of the others
    /// nobody knows, and the same is answered again as a rule.
    fn of_status(status: u16) -> Self {
        let hint = match status {
            408 | 425 | 429 | 502..=504 => {
                return Self::Unknown(Unknown(format!("its answer has status {status}")));
            }
            300..=399 => "no redirect is followed: correct the URL",
            401 | 403 => "the token is not the one that it wants",
            404 => "nothing is served at that path",
            405 => "that path takes no POST",
            413 => "it takes no question of that size",
            415 => "it takes no application/json",
            500 => "it has failed: its own log says why",
            _ => "an answer has status 200",
        };
        Self::Useless(format!("its answer has status {status}: {hint}"))
    }
}

/// What to say, to whom, and what an answer must look like.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) expects: Media,
    /// Milliseconds that the server may wait on purpose.
    pub(crate) wait_ms: u64,
    /// Bytes that the answer may have.
    answer_bytes_max: usize,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url, expects: Media) -> Self {
        let (headers, answer_bytes_max) = (HeaderMap::new(), limits::BATCH_BYTES_MAX);
        Self { method, url, headers, body: None, expects, wait_ms: 0, answer_bytes_max }
    }

    pub(crate) fn get(url: Url) -> Self {
        Self::new(Method::GET, url, Media::Json)
    }

    pub(crate) fn json(mut self, value: &impl serde::Serialize) -> Result<Self, Unknown> {
        let body = serde_json::to_vec(value)
            .map_err(|error| Unknown(format!("the request cannot be written: {error}")))?;
        self.body = Some(body.into());
        Ok(self)
    }

    pub(crate) fn at_most(mut self, answer_bytes_max: usize) -> Self {
        self.answer_bytes_max = answer_bytes_max;
        self
    }

    pub(crate) fn waiting(mut self, wait_ms: u64) -> Self {
        self.wait_ms = wait_ms;
        self
    }
}

/// The media types that carry meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// What coordinators and participants say to each other.
    Protocol,
    /// The public API.
    Json,
    /// The public API, where a success may have nothing to say.
    JsonOrNothing,
}

impl Media {
    const fn name(self) -> &'static str {
        match self {
            Self::Protocol => MEDIA_TYPE,
            Self::Json | Self::JsonOrNothing => JSON_MEDIA_TYPE,
        }
    }
}

/// An answer as it came.
struct RawAnswer {
    status: u16,
    /// Without parameters, in lower case; empty if there is none.
    media_type: String,
    body: Bytes,
}

impl RawAnswer {
    async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Self, Unanswered> {
        let status = response.status().as_u16();
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_ascii_lowercase())
            .unwrap_or_default();
        // One chunk is the usual case, and is passed on without a copy.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Unanswered::Unknown(describe(&error)))?;
            let Ok(chunk) = frame.into_data() else { continue };
            if first.len() + rest.len() + chunk.len() > bytes_max {
                return Err(Unanswered::TooLarge { status, bytes_max });
            }
            if first.is_empty() {
                first = chunk;
            } else {
                rest.extend_from_slice(&chunk);
            }
        }
        let body = if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() };
        Ok(Self { status, media_type, body })
    }
}

/// What the other side said, if it was the other side that spoke.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A success, of the media type that was asked for. The body is not yet parsed.
    Said {
        /// The status, 200 to 299.
        status: u16,
        /// The body.
        body: Bytes,
    },
    /// An error document with a code of ours.
    Problem(Box<Problem>),
    /// Not known.
    Unknown(Unknown),
}

/// The match. Whatever is not recognisably Assent's own word is *unknown*: an ingress answers 404 and 502, a captive
/// portal answers 200, a wrong port answers anything.
fn judge(expected: Media, answer: RawAnswer) -> Heard {
    let RawAnswer { status, media_type, body } = answer;
    match (status, media_type.as_str()) {
        (200..=299, found) if found == expected.name() => Heard::Said { status, body },
        (204, "") if expected == Media::JsonOrNothing => Heard::Said { status, body },
        (400..=599, PROBLEM_MEDIA_TYPE) => match read::<Problem>(&body) {
            Ok(mut problem) if problem.status == status => {
                problem.title = text::cut_owned(problem.title, limits::DETAIL_BYTES_MAX);
                problem.detail = text::cut_owned(problem.detail, limits::DETAIL_BYTES_MAX);
                Heard::Problem(Box::new(problem))
            }
            _ => Heard::Unknown(foreign(status, &media_type, body.len())),
        },
        (_, found) => Heard::Unknown(foreign(status, found, body.len())),
    }
}

/// An answer that is not Assent's, by what can be told of it without a word of it: whoever names an
/// address to a server has no right to read through that server what stands there, and values never
/// reach logs. The name of its media type is the stranger's own word too.
pub(crate) fn foreign(status: u16, media_type: &str, bytes: usize) -> Unknown {
    let class = match media_type {
        "" => "no content type",
        MEDIA_TYPE | PROBLEM_MEDIA_TYPE | JSON_MEDIA_TYPE => "JSON",
        "text/html" => "HTML",
        found if found.starts_with("text/") => "text",
        _ => "another content type",
    };
    let cause = match status {
        300..=399 => "; no redirect is followed",
        404 | 405 => "; another server is there, or Assent's API is below another path",
        _ => "",
    };
    Unknown(format!(
        "an answer of status {status} that is not Assent's ({class}, {bytes} bytes){cause}"
    ))
}

/// A success's body; one that does not parse was cut short or is foreign.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unknown> {
    read(body).map_err(|why| Unknown(format!("the answer's body is not what was asked for: {why}")))
}

/// Reads JSON that is not deeper than any answer of Assent's. The error quotes nothing of it.
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    if let Some(at) = too_deep_at(json, limits::JSON_DEPTH_MAX) {
        let max = limits::JSON_DEPTH_MAX;
        return Err(format!("more than {max} arrays and objects inside each other, at byte {at}"));
    }
    serde_json::from_slice(json).map_err(|error| {
        // Its own words may quote the body.
        let (line, column, bytes) = (error.line(), error.column(), json.len());
        format!("it cannot be read at line {line}, column {column} ({bytes} bytes)")
    })
}

impl Heard {
    /// For calls whose refusal is told apart from not knowing.
    pub(crate) fn into_result<T: DeserializeOwned>(self) -> Result<T, CallError> {
        match self {
            Self::Said { body, .. } => Ok(parse(&body)?),
            Self::Problem(problem) => Err(CallError::Rejected(problem)),
            Self::Unknown(unknown) => Err(CallError::Unknown(unknown)),
        }
    }

    /// For calls that have no answer but that they were done.
    pub(crate) fn into_nothing(self) -> Result<(), CallError> {
        match self {
            Self::Said { status: 204, .. } => Ok(()),
            heard => heard.into_result::<IgnoredAny>().map(|_| ()),
        }
    }

    /// For messages of the protocol: an error document says that the message was not taken, and nothing of what an
    /// earlier copy of it did, so it is *not known*.
    pub(crate) fn into_said<T: DeserializeOwned>(self) -> Result<T, Unknown> {
        match self {
            Self::Said { body, .. } => parse(&body),
            Self::Problem(problem) => Err(Unknown(not_taken(&problem))),
            Self::Unknown(unknown) => Err(unknown),
        }
    }
}

fn not_taken(problem: &Problem) -> String {
    format!("not taken: {}: {}", problem.code, problem.detail)
}

/// The base URL of a server of Assent's, or of a hook.
pub fn parse_base_url(text: &str) -> Result<Url, InvalidBaseUrl> {
    let invalid = || InvalidBaseUrl::of(text);
    let base = Url::parse(text).map_err(|_| invalid())?;
    // A name and a password in it would not be sent, but shown.
    let anonymous = base.username().is_empty() && base.password().is_none();
    let bare = base.query().is_none() && base.fragment().is_none();
    let plain = bare && anonymous && base.has_host();
    match base.scheme() == "http" && plain {
        true => Ok(base),
        false => Err(invalid()),
    }
}

/// A server's base URL, and the way to its paths.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) http: Http,
    base: Url,
}

impl Endpoint {
    pub(crate) fn new(http: &Http, base_url: &str) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { http: http.clone(), base: parse_base_url(base_url)? })
    }

    /// The URL of a path, given by its segments, which are encoded.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) fn base_url(&self) -> &str {
        self.base.as_str()
    }
}
