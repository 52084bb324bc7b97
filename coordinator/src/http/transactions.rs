//! Transactions: run one, look at one, list them, and answer a participant's question for an outcome.

#![allow(
    unused_qualifications,
    reason = "the macro of utoipa writes in full what it was given in short"
)]

use std::pin::pin;
use std::time::Duration;

use assent_common::time::DurationMs;
use assent_common::wire::interactive::{BeginRequest, InteractiveView, RunOrBegin};
use assent_common::wire::outcome::{OutcomeAnswer, ResolveQuestion};
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{TransactionPage, TransactionState, TransactionView};
use assent_common::{ErrorCode, ParticipantName, TransactionId, Txid, limits};
use assent_edge::Caller;
use axum::extract::State;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::extract::{ClientOf, JsonBody, PathOf, QueryOf, idempotency_key, preferred_wait_ms};
use super::reply::{self, RETRY_AFTER_SECONDS, Rejection};
use super::state::HttpState;
use crate::engine::{Fingerprint, ListFilter, Origin, Submitted};

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where transactions are submitted, and listed.
pub(super) const PATH: &str = "/v1/transactions";

/// Runs a transaction: every branch applies, or none does. Without `branches` it begins one, whose
/// ops come by calls of their own.
///
/// Waits for the outcome as long as `Prefer: wait` says, or until shortly after the transaction's timeout. The same
/// `Idempotency-Key`, or the same `id`, with the same request gets the same transaction again, whatever bytes say it.
#[utoipa::path(
    post, path = "/v1/transactions", operation_id = "submitTransaction", tag = "transactions",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "1 to 255 printable ASCII characters, quoted or not: one key is one outcome"),
        ("Prefer" = Option<String>, Header,
            description = "`wait=N` seconds, at most 60; `respond-async` is `wait=0`"),
    ),
    request_body(content = RunOrBegin, content_type = "application/json"),
    responses(
        (status = 200, description = "Committed", body = TransactionView,
            headers(("Idempotent-Replayed" = String, description = "`true` if it came before"))),
        (status = 201, description = "Begun: it had no `branches`", body = InteractiveView,
            headers(("Location" = String, description = "Its address"))),
        (status = 202, description = "Not known yet: ask at `Location`", body = TransactionView,
            headers(("Location" = String, description = "Where to ask"),
                    ("Retry-After" = String, description = "Seconds"))),
        (status = "4XX",
            description = "Aborted, where `outcome` says so; else this request began nothing",
            body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The same, for reasons of a participant or of this server",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn submit(
    State(state): State<HttpState>,
    headers: HeaderMap,
    ClientOf(client): ClientOf,
    JsonBody { value: request, bytes, mut held }: JsonBody<RunOrBegin>,
) -> Result<Response, Rejection> {
    let request = match request {
        RunOrBegin::Run(request) => request,
        RunOrBegin::Begin(request) => return begin(&state, &headers, request),
    };
    let key = idempotency_key(&headers)?;
    // Only who can ask again needs to be told apart from somebody else.
    let (submission, fingerprint) = if key.is_some() || request.id.is_some() {
        let (submission, fingerprint) = Fingerprint::of(request, &bytes)?;
        (submission, Some(fingerprint))
    } else {
        (request.validate()?, None)
    };
    let wait_ms = preferred_wait_ms(&headers)
        .unwrap_or_else(|| submission.timeout_ms + limits::WAIT_BEYOND_TIMEOUT_MS)
        .min(limits::WAIT_MAX_MS);
    drop(bytes);
    held.shrink_to(submission.ops_bytes());
    let until = Instant::now() + Duration::from_millis(wait_ms);
    let wait = client.waits_until(until);
    let submitted = state.engine().submit(submission, held, key, fingerprint, wait).await?;
    Ok(answer_to(&submitted))
}

pub(super) fn answer_to(Submitted { view, origin }: &Submitted) -> Response {
    let mut response = answer(view);
    if *origin == Origin::Replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Begins an interactive transaction, for a submission that has no branches.
fn begin(
    state: &HttpState,
    headers: &HeaderMap,
    request: BeginRequest,
) -> Result<Response, Rejection> {
    if idempotency_key(headers)?.is_some() {
        let detail = "an interactive transaction takes no `Idempotency-Key`: choose its `id`, and \
                      begin it again under that";
        return Err(Rejection::new(ErrorCode::BadRequest, detail));
    }
    let view = state.interactive().begin(request)?;
    let mut response = reply::json(StatusCode::CREATED, &view);
    if let Ok(location) = HeaderValue::try_from(format!("{PATH}/{}", view.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A transaction as the answer to its submission.
fn answer(view: &TransactionView) -> Response {
    match view.outcome {
        OutcomeWord::Committed => reply::json(StatusCode::OK, view),
        OutcomeWord::Aborted => reply::problem(&view.why_aborted()),
        OutcomeWord::Pending => {
            let mut response = reply::json(StatusCode::ACCEPTED, view);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            if let Ok(location) = HeaderValue::try_from(format!("{PATH}/{}", view.id)) {
                headers.insert(LOCATION, location);
            }
            response
        }
    }
}

/// The query of [`describe`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DescribeQuery {
    /// Answer when the transaction is aborted, or committed and applied everywhere; or when this time is over, at most
    /// `60s`.
    #[param(value_type = Option<String>, example = "10s")]
    wait: Option<DurationMs>,
}

/// A transaction: its state, its branches, their last errors and next tries.
#[utoipa::path(
    get, path = "/v1/transactions/{id}", operation_id = "getTransaction", tag = "transactions",
    params(("id" = String, Path, description = "The transaction's id"), DescribeQuery),
    responses(
        (status = 200, description = "What is known of it, whatever its outcome", body = TransactionView),
        (status = "default", description = "Not found; that says nothing about an outcome",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn describe(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    QueryOf(query): QueryOf<DescribeQuery>,
    ClientOf(client): ClientOf,
) -> Result<Response, Rejection> {
    if let Some(view) = state.interactive().view(id) {
        return Ok(reply::json(StatusCode::OK, &view));
    }
    let view = match query.wait {
        None => state.engine().transaction(id)?,
        Some(DurationMs(wait_ms)) => {
            let _watches = state.watch()?;
            wait_for_outcome(&state, id, wait_ms.min(limits::WAIT_MAX_MS), &client).await?
        }
    };
    Ok(reply::json(StatusCode::OK, &view))
}

/// Waits until nothing that a client wants to know of a transaction will change any more.
pub(super) async fn wait_for_outcome(
    state: &HttpState,
    id: TransactionId,
    wait_ms: u64,
    client: &Caller,
) -> Result<TransactionView, Problem> {
    let until = Instant::now() + Duration::from_millis(wait_ms);
    let mut waiting = pin!(client.waits_until(until));
    let mut is_over = wait_ms == 0;
    let mut stopped = state.shared.stopped.clone();
    loop {
        // Subscribed before it is read, so that no change falls in between.
        let changes = state.engine().changes(id);
        let view = state.engine().transaction(id)?;
        if is_settled(&view) || is_over {
            return Ok(view);
        }
        // It was begun between the two questions.
        let Some(mut changes) = changes else { continue };
        tokio::select! {
            // An error means that it ended, and can be looked up.
            _changed = changes.changed() => {}
            () = &mut waiting => is_over = true,
            _closing = stopped.wait_for(|stopped| *stopped) => return state.engine().transaction(id),
        }
    }
}

const fn is_settled(view: &TransactionView) -> bool {
    match (view.state, view.outcome) {
        // Committed and ended, but not applied everywhere: a branch was given up.
        (TransactionState::Ended, _) | (_, OutcomeWord::Aborted) => true,
        (_, OutcomeWord::Committed) => matches!(view.applied, Some(true)),
        (_, OutcomeWord::Pending) => false,
    }
}

/// The query of [`list`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those of this outcome.
    #[param(inline)]
    outcome: Option<OutcomeWord>,
    /// Only those with a branch at this participant.
    #[param(value_type = Option<String>)]
    participant: Option<ParticipantName>,
    /// Only those with a branch that voted yes, or may have, and has not acknowledged an outcome.
    #[serde(default)]
    in_doubt: bool,
    /// Only those begun longer ago than this.
    #[param(value_type = Option<String>, example = "30s")]
    older_than: Option<DurationMs>,
    /// How many at the most, 1 to 500.
    page_size: Option<usize>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Active transactions and the latest ended ones, newest first. A page may be short, or empty, and yet not be the last.
#[utoipa::path(
    get, path = "/v1/transactions", operation_id = "listTransactions", tag = "transactions",
    params(ListQuery),
    responses(
        (status = 200, description = "A page", body = TransactionPage),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Response, Rejection> {
    let ListQuery { outcome, participant, in_doubt, older_than, page_size, page_token } = query;
    if page_size.is_some_and(|size| !(1..=limits::PAGE_SIZE_MAX).contains(&size)) {
        let detail = format!("`page_size` must be 1 to {}", limits::PAGE_SIZE_MAX);
        return Err(Rejection::new(ErrorCode::BadRequest, detail));
    }
    let older_than_ms = older_than.map(|age| age.0);
    let filter =
        ListFilter { outcome, participant, in_doubt, older_than_ms, page_size, page_token };
    // It reads records back from disk.
    let page = blocking(move || state.engine().list(&filter)).await?;
    Ok(reply::json(StatusCode::OK, &page))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Rejection> {
    let worked = tokio::task::spawn_blocking(work).await;
    let stopping = |_| Rejection::new(ErrorCode::NotReady, "the process is stopping");
    Ok(worked.map_err(stopping)??)
}

/// What became of a branch's transaction, for its participant. Presumed abort answers here: for transactions of this
/// log that it knows nothing of.
#[utoipa::path(
    get, path = "/v1/transactions/{txid}/outcome", operation_id = "getOutcome", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction, `<log id>.<epoch>.<n>.<attempt>`")),
    responses(
        (status = 200, description = "The answer; believed only if it names the txid and its log",
            body = OutcomeAnswer, content_type = "application/vnd.assent+json"),
        (status = "default", description = "No answer: nothing is said about an outcome",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn outcome(
    State(state): State<HttpState>,
    PathOf(txid): PathOf<Txid>,
) -> Response {
    reply::protocol(&state.engine().outcome(txid))
}

/// What became of the transaction of a branch whose votes are its decision, for its participant. What this log knows nothing
/// of is found out by asking the branches, and fencing those that have not voted: at the addresses that are registered.
#[utoipa::path(
    post, path = "/v1/transactions/{txid}/resolve", operation_id = "resolveTransaction", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction, `<log id>.<epoch>.<n>.<attempt>`")),
    request_body(content = ResolveQuestion, description = "Its branches, as the staged record has them"),
    responses(
        (status = 200, description = "The answer; believed only if it names the txid and its log",
            body = OutcomeAnswer, content_type = "application/vnd.assent+json"),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resolve(
    State(state): State<HttpState>,
    PathOf(txid): PathOf<Txid>,
    JsonBody { value: question, .. }: JsonBody<ResolveQuestion>,
) -> Result<Response, Rejection> {
    let ResolveQuestion { branches } = question;
    if !(1..=limits::BRANCHES_MAX).contains(&branches.len()) {
        let detail = format!("`branches` must have 1 to {}", limits::BRANCHES_MAX);
        return Err(Rejection::new(ErrorCode::BadRequest, detail));
    }
    Ok(reply::protocol(&state.engine().resolve(txid, branches).await?))
}
