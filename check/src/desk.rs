//! Where a participant asks about its branches in doubt: answers for all logs of a check, each
//! below a path of its own, and counts the questions.
//!
//! ```text
//! GET /{log}/v1/transactions/{txid}/outcome     what the script says, one answer after the other
//! GET /{log}/v1/version                         whose log it is
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assent_common::ids::LogId;
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::outcome::{BranchOutcome, OutcomeAnswer};
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::VersionView;
use assent_common::{Attempt, ErrorCode, Txid};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::script::LogSays;

/// The desk; it closes when this is dropped.
#[derive(Debug)]
pub(crate) struct QuestionDesk {
    addr: SocketAddr,
    book: Arc<QuestionBook>,
    server: JoinHandle<()>,
}

/// What is to be said, and how often was asked.
#[derive(Debug)]
struct QuestionBook {
    says: Mutex<HashMap<Txid, VecDeque<LogSays>>>,
    /// Counts all answers.
    asked: watch::Sender<u64>,
}

impl Drop for QuestionDesk {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl QuestionDesk {
    /// Opens it.
    pub(crate) async fn open(listen: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let book = Arc::new(QuestionBook { says: Mutex::default(), asked: watch::channel(0).0 });
        let router = Router::new()
            .route("/{log}/v1/transactions/{txid}/outcome", get(outcome))
            .route("/{log}/v1/version", get(version))
            .with_state(Arc::clone(&book));
        let server = tokio::spawn(async move {
            // It ends with the check; what it could not answer was not asked.
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self { addr, book, server })
    }

    /// Where it listens.
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What is said to the next questions about a branch; then it is undecided.
    pub(crate) fn says(&self, txid: Txid, says: Vec<LogSays>) {
        self.book.says().insert(txid, says.into());
    }

    /// What is still to be said about a branch.
    pub(crate) fn left(&self, txid: Txid) -> Vec<LogSays> {
        self.book.says().get(&txid).map(|left| left.iter().copied().collect()).unwrap_or_default()
    }

    /// Tells when another question was answered.
    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.book.asked.subscribe()
    }
}

impl QuestionBook {
    fn says(&self) -> MutexGuard<'_, HashMap<Txid, VecDeque<LogSays>>> {
        self.says.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn outcome(
    State(book): State<Arc<QuestionBook>>,
    Path((_, txid)): Path<(String, String)>,
) -> Response {
    let Ok(txid) = txid.parse::<Txid>() else {
        return problem(ErrorCode::BadRequest, "that is no txid");
    };
    let next = book.says().get_mut(&txid).and_then(VecDeque::pop_front);
    let answer = said(txid, next.unwrap_or(LogSays::Undecided));
    book.asked.send_modify(|asked| *asked += 1);
    answer
}

fn said(txid: Txid, says: LogSays) -> Response {
    let log_id = txid.log_id;
    let answer = |outcome| OutcomeAnswer { txid, log_id, outcome };
    let ours = |answer: &OutcomeAnswer| body(StatusCode::OK, MEDIA_TYPE, answer);
    match says {
        LogSays::Committed => ours(&answer(BranchOutcome::Committed)),
        LogSays::Aborted => ours(&answer(BranchOutcome::Aborted)),
        LogSays::Undecided => ours(&answer(BranchOutcome::Undecided)),
        LogSays::UnknownAuthority => ours(&answer(BranchOutcome::UnknownAuthority)),
        LogSays::ForeignNotFound => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        LogSays::ForeignMediaType => {
            body(StatusCode::OK, "application/json", &answer(BranchOutcome::Aborted))
        }
        LogSays::OfAnotherBranch => {
            let another = Txid { attempt: Attempt(txid.attempt.0 + 1), ..txid };
            ours(&OutcomeAnswer { txid: another, ..answer(BranchOutcome::Aborted) })
        }
        LogSays::ByAnotherLog => {
            let another = LogId(Uuid::now_v7());
            ours(&OutcomeAnswer { log_id: another, ..answer(BranchOutcome::Aborted) })
        }
        LogSays::Problem => problem(ErrorCode::NotFound, "nothing is known under this id"),
    }
}

async fn version(Path(log): Path<String>) -> Json<VersionView> {
    Json(VersionView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: "coordinator".to_owned(),
        log_id: Some(log),
        epoch: None,
        name: None,
        admin_listen: None,
        warnings: Vec::new(),
    })
}

fn problem(code: ErrorCode, detail: &str) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    body(status, "application/problem+json", &Problem::new(code, detail))
}

fn body(status: StatusCode, media_type: &'static str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(CONTENT_TYPE, media_type)], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
