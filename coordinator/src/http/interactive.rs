//! Interactive transactions: begin, read and stage, commit or abort.

#![allow(
    unused_qualifications,
    reason = "the macro of utoipa writes in full what it was given in short"
)]

use std::time::Duration;

use assent_common::wire::interactive::{InteractiveView, OpsRequest};
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, TransactionId, limits};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::time::Instant;

use super::extract::{ClientOf, JsonBody, NoBody, PathOf, preferred_wait_ms};
use super::reply::{self, Rejection};
use super::state::HttpState;
use super::transactions::{answer_to, wait_for_outcome};
use crate::engine::{Origin, Submitted};

/// Reads and stages: the replies are what the ops come to behind everything that was staged before.
///
/// Nothing is locked, and nobody else sees it. A call that is refused has staged nothing, and its
/// number may come again; a number that was done is answered again, and not done again. Without ops
/// a call keeps the transaction alive.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/ops", operation_id = "stageOps", tag = "transactions",
    params(("id" = String, Path, description = "The transaction's id")),
    request_body(content = OpsRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "Staged", body = InteractiveView),
        (status = "default", description = "Nothing was staged; where `outcome` is `aborted`, the \
            transaction has ended", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn ops(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    JsonBody { value: request, held, .. }: JsonBody<OpsRequest>,
) -> Result<Response, Rejection> {
    let view = state.interactive().ops(id, request).await?;
    drop(held);
    Ok(reply::json(StatusCode::OK, &view))
}

/// Commits: every key that was touched must be what it was when it was first read, else the
/// transaction is aborted with `read_changed`. Said again, it answers what became of it.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/commit", operation_id = "commitTransaction",
    tag = "transactions",
    params(
        ("id" = String, Path, description = "The transaction's id"),
        ("Prefer" = Option<String>, Header,
            description = "`wait=N` seconds, at most 60; `respond-async` is `wait=0`"),
    ),
    responses(
        (status = 200, description = "Committed", body = TransactionView),
        (status = 202, description = "Not known yet: ask at `Location`", body = TransactionView,
            headers(("Location" = String, description = "Where to ask"),
                    ("Retry-After" = String, description = "Seconds"))),
        (status = "default", description = "Aborted, where `outcome` says so; else its commit has \
            not begun", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn commit(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    headers: HeaderMap,
    ClientOf(client): ClientOf,
    NoBody: NoBody,
) -> Result<Response, Rejection> {
    let preferred_ms = preferred_wait_ms(&headers).map(|ms| ms.min(limits::WAIT_MAX_MS));
    let (submission, fingerprint) = match state.interactive().commit(id) {
        Ok(transaction) => transaction,
        Err(problem) if problem.code == ErrorCode::NotFound => {
            state.engine().transaction(id).map_err(|_| problem)?;
            let _watches = state.watch()?;
            let wait_ms = preferred_ms.unwrap_or(limits::WAIT_BEYOND_TIMEOUT_MS);
            let view = wait_for_outcome(&state, id, wait_ms, &client).await?;
            return Ok(answer_to(&Submitted { view, origin: Origin::Replayed }));
        }
        Err(problem) => return Err(problem.into()),
    };
    let mut held = state.budget().hold();
    if !held.grow(submission.ops_bytes()) {
        let detail = "the requests under way hold all the memory that they may; its commit has \
                      not begun";
        return Err(Rejection::new(ErrorCode::Overloaded, detail));
    }
    let wait_ms = preferred_ms
        .unwrap_or_else(|| submission.timeout_ms + limits::WAIT_BEYOND_TIMEOUT_MS)
        .min(limits::WAIT_MAX_MS);
    let wait = client.waits_until(Instant::now() + Duration::from_millis(wait_ms));
    let engine = state.engine();
    let submitted = engine.submit(submission, held, None, Some(fingerprint), wait).await;
    state.interactive().came(id, &submitted);
    Ok(answer_to(&submitted?))
}

/// Gives it up. Twice is once.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/abort", operation_id = "abortTransaction",
    tag = "transactions",
    params(("id" = String, Path, description = "The transaction's id")),
    responses(
        (status = 200, description = "Aborted", body = TransactionView),
        (status = "default", description = "It is not active", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn abort(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    NoBody: NoBody,
) -> Result<Response, Rejection> {
    let problem = state.interactive().abort(id)?;
    Ok(reply::json(StatusCode::OK, &crate::interactive::view_of_ended(id, *problem)))
}
