//! A participant that speaks the batch protocol and says what it is told to say.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::branch::{
    Answer, Answers, Batch, HolderBody, Message, Mode, StateWord, VoteWord,
};
use assent_common::{ErrorCode, TxNumber, Txid, limits};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(10);

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Prepare,
    Commit,
    Abort,
    Settle,
}

/// What the participant says to a message.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// The good answer: yes or committed, applied, aborted.
    Good,
    /// A definite no.
    No(ErrorCode),
    /// A conflict with this transaction.
    HeldBy(Txid),
    /// A no because of an expectation, with the reply that was met.
    Met(&'static str),
    /// The good answer, with replies of that many bytes.
    Large(usize),
    /// A no with a detail and a reply of that many bytes.
    LongNo(usize),
    /// Ask again by the call that waits.
    Wait,
    /// To an abort: it has been applied.
    AlreadyCommitted,
    /// The participant itself does not know.
    Unknown,
    /// A proxy's answer.
    BadGateway,
    /// The good answer, when [`Fake::release`] is called.
    Hold,
    /// No answer ever; the connection stays open.
    Silence,
}

/// A message that was heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) kind: Kind,
    pub(crate) txid: Txid,
    pub(crate) ops: Option<String>,
}

struct Shared {
    next: Mutex<HashMap<Kind, VecDeque<Say>>>,
    always: Mutex<HashMap<Kind, Say>>,
    heard: watch::Sender<Vec<Heard>>,
    batch_bytes: Mutex<Vec<usize>>,
    low_water: Mutex<Option<TxNumber>>,
    stale_log: Mutex<Option<String>>,
    released: watch::Sender<bool>,
}

/// A participant.
pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            next: Mutex::default(),
            always: Mutex::default(),
            heard: watch::channel(Vec::new()).0,
            batch_bytes: Mutex::default(),
            low_water: Mutex::default(),
            stale_log: Mutex::default(),
            released: watch::channel(false).0,
        });
        let router = Router::new()
            .route("/v1/batch", post(batch))
            .route("/v1/branches/{txid}/prepare", post(prepare))
            .layer(DefaultBodyLimit::max(limits::BATCH_BYTES_MAX))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    /// What to say to the next messages of a kind, one each.
    pub(crate) fn next(&self, kind: Kind, say: impl IntoIterator<Item = Say>) {
        self.shared.next.lock().unwrap().entry(kind).or_default().extend(say);
    }

    /// What to say to all messages of a kind from here on.
    pub(crate) fn always(&self, kind: Kind, say: Say) {
        self.shared.always.lock().unwrap().insert(kind, say);
    }

    /// Lets what is held go, and holds nothing any more.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Says, or says no more, that the coordinator's log is an old copy, and does nothing for it.
    pub(crate) fn calls_the_log_stale(&self, why: Option<&str>) {
        *self.shared.stale_log.lock().unwrap() = why.map(str::to_owned);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.borrow().clone()
    }

    /// How large the batches were, in the order of their arrival.
    pub(crate) fn batch_bytes(&self) -> Vec<usize> {
        self.shared.batch_bytes.lock().unwrap().clone()
    }

    /// The low-water mark of the last batch.
    pub(crate) fn low_water(&self) -> Option<TxNumber> {
        *self.shared.low_water.lock().unwrap()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.heard().iter().filter(|heard| heard.kind == kind).count()
    }

    /// Waits until this many messages of a kind were heard; returns the last one.
    pub(crate) async fn hears(&self, kind: Kind, count: usize) -> Heard {
        let mut heard = self.shared.heard.subscribe();
        let of_kind = |all: &Vec<Heard>| all.iter().filter(|heard| heard.kind == kind).count();
        let enough = heard.wait_for(|all| of_kind(all) >= count);
        within(enough, || format!("{count} × {kind:?}, heard {:?}", self.heard())).await.unwrap();
        self.heard().into_iter().rfind(|heard| heard.kind == kind).unwrap()
    }
}

/// Waits for something that must happen; if it does not, tells how far it came.
pub(crate) async fn within<T>(
    future: impl Future<Output = T>,
    state: impl FnOnce() -> String,
) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {}", state()),
    }
}

async fn batch(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    shared.batch_bytes.lock().unwrap().push(body.len());
    let batch: Batch<Box<RawValue>> = serde_json::from_slice(&body).unwrap();
    *shared.low_water.lock().unwrap() = Some(batch.low_water);
    let mut answers = Vec::new();
    let stale_log = shared.stale_log.lock().unwrap().clone();
    for message in &batch.messages {
        if stale_log.is_some() {
            answers.push(no(kind_of(message), ErrorCode::StaleLog, None));
            continue;
        }
        match answer(&shared, message).await {
            Some(answer) => answers.push(answer),
            None => return bad_gateway(),
        }
    }
    said(&Answers { answers, progress: None, stale_log, stale_log_shown: None, life: None })
}

async fn prepare(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let batch: Batch<Box<RawValue>> = serde_json::from_slice(&body).unwrap();
    match answer(&shared, &batch.messages[0]).await {
        Some(answer) => said(&answer),
        None => bad_gateway(),
    }
}

fn said(value: &impl Serialize) -> Response {
    ([(CONTENT_TYPE, MEDIA_TYPE)], serde_json::to_vec(value).unwrap()).into_response()
}

fn bad_gateway() -> Response {
    (StatusCode::BAD_GATEWAY, "upstream went away").into_response()
}

fn kind_of(message: &Message<Box<RawValue>>) -> Kind {
    match message {
        Message::Prepare(_) => Kind::Prepare,
        Message::Commit(_) => Kind::Commit,
        Message::Abort(_) => Kind::Abort,
        Message::Settle(_) => Kind::Settle,
    }
}

async fn answer(shared: &Shared, message: &Message<Box<RawValue>>) -> Option<Answer> {
    let kind = kind_of(message);
    let ops = match message {
        Message::Prepare(prepare) => Some(prepare.ops.get().to_owned()),
        Message::Commit(_) | Message::Abort(_) | Message::Settle(_) => None,
    };
    let heard = Heard { kind, txid: message.txid(), ops };
    let say = say(shared, kind);
    shared.heard.send_modify(|all| all.push(heard));
    match say {
        Say::Good => Some(good(message)),
        Say::No(code) => Some(no(kind, code, None)),
        Say::HeldBy(txid) => Some(Answer {
            holder: wait(message).holder.map(|holder| HolderBody { txid, ..holder }),
            ..no(kind, ErrorCode::LockConflict, None)
        }),
        Say::Met(reply) => Some(no(kind, ErrorCode::ExpectationFailed, Some(reply))),
        Say::Large(bytes) => {
            let replies = RawValue::from_string(format!("[\"{}\"]", "x".repeat(bytes))).ok();
            Some(Answer { replies, ..good(message) })
        }
        Say::LongNo(bytes) => {
            let reply = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).ok();
            let detail = Some("x".repeat(bytes));
            Some(Answer { reply, detail, ..no(kind, ErrorCode::ExpectationFailed, None) })
        }
        Say::Wait => Some(wait(message)),
        Say::AlreadyCommitted => Some(Answer {
            state: Some(StateWord::AlreadyCommitted),
            replies: json("[70]"),
            ..Answer::default()
        }),
        Say::Unknown => Some(unknown(kind)),
        Say::BadGateway => None,
        Say::Hold => {
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released).await.unwrap();
            Some(good(message))
        }
        Say::Silence => std::future::pending().await,
    }
}

fn say(shared: &Shared, kind: Kind) -> Say {
    let next = shared.next.lock().unwrap().get_mut(&kind).and_then(VecDeque::pop_front);
    let always = || shared.always.lock().unwrap().get(&kind).cloned();
    next.or_else(always).unwrap_or(Say::Good)
}

fn good(message: &Message<Box<RawValue>>) -> Answer {
    match message {
        Message::Prepare(prepare) => {
            let replies = json("[70]");
            match prepare.mode {
                Mode::OnePhase => {
                    Answer { vote: Some(VoteWord::Committed), replies, ..Answer::default() }
                }
                Mode::TwoPhase => Answer {
                    vote: Some(VoteWord::Yes),
                    replies,
                    redo: serde_json::from_str("\"cmVkbw==\"").ok(),
                    incarnation: Some(1),
                    seq: Some(1),
                    ..Answer::default()
                },
            }
        }
        Message::Commit(_) => Answer { state: Some(StateWord::Applied), ..Answer::default() },
        Message::Abort(_) | Message::Settle(_) => {
            Answer { state: Some(StateWord::Aborted), ..Answer::default() }
        }
    }
}

fn no(kind: Kind, code: ErrorCode, reply: Option<&str>) -> Answer {
    let (vote, state) = match kind {
        Kind::Prepare => (Some(VoteWord::No), None),
        Kind::Commit | Kind::Abort | Kind::Settle => (None, Some(StateWord::Refused)),
    };
    Answer {
        vote,
        state,
        code: Some(code),
        detail: Some("the fake says no".to_owned()),
        op: Some(0),
        reply: reply.and_then(json),
        ..Answer::default()
    }
}

fn unknown(kind: Kind) -> Answer {
    let (vote, state) = match kind {
        Kind::Prepare => (Some(VoteWord::Unknown), None),
        Kind::Commit | Kind::Abort | Kind::Settle => (None, Some(StateWord::Unknown)),
    };
    Answer { vote, state, detail: Some("Redis did not say".to_owned()), ..Answer::default() }
}

fn wait(message: &Message<Box<RawValue>>) -> Answer {
    let Message::Prepare(prepare) = message else { panic!("only a prepare waits") };
    let holder = HolderBody { id: prepare.id, txid: prepare.txid, key: "acct:alice".to_owned() };
    Answer { vote: Some(VoteWord::Wait), holder: Some(holder), ..Answer::default() }
}

fn json(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}
