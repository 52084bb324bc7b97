//! The protocol's endpoints, and the branches for people.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use assent_common::wire::branch::{
    Answer, Answers, Batch, BranchList, BranchState, BranchView, CoordinatorList, Message,
};
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, Txid};

use super::App;
use super::body::{JsonBody, txid};
use super::reply::{Rejection, json, protocol};

/// Answers several messages of one coordinator, in order. Nothing in a batch waits.
#[utoipa::path(
    post, path = "/v1/batch", operation_id = "batch", tag = "protocol",
    request_body = Batch,
    responses(
        (status = 200, description = "One answer for each message, in order", body = Answers,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The batch was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn batch(
    State(app): State<App>,
    JsonBody(batch, _held): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    let answers = app.batch(batch).await?;
    Ok(protocol(&answers))
}

/// Prepares one branch. May wait, as long as the message's `wait_ms` says, for a younger holder of
/// its locks.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/prepare", operation_id = "prepareBranch", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body(content = Batch, description = "A batch of that one message"),
    responses(
        (status = 200, description = "The vote", body = Answer,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The message was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn prepare(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(batch, _held): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    only_message(&batch, &path, Kind::Prepare)?;
    let answer = app.prepare_waiting(batch).await?;
    Ok(protocol(&answer))
}

/// Applies one branch that voted yes.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/commit", operation_id = "commitBranch", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body(content = Batch, description = "A batch of that one message"),
    responses(
        (status = 200, description = "What became of it", body = Answer,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The message was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn commit(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(batch, _held): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, batch, &path, Kind::Commit).await
}

/// Drops one branch, and fences it.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/abort", operation_id = "abortBranch", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body(content = Batch, description = "A batch of that one message"),
    responses(
        (status = 200, description = "What became of it", body = Answer,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The message was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn abort(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(batch, _held): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, batch, &path, Kind::Abort).await
}

/// Says what is kept of one branch of an implicit transaction, and fences it if that is nothing.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/settle", operation_id = "settleBranch", tag = "protocol",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body(content = Batch, description = "A batch of that one message"),
    responses(
        (status = 200, description = "What is kept of it", body = Answer,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The message was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn settle(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(batch, _held): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, batch, &path, Kind::Settle).await
}

/// The answer to the one message of a batch that the path names.
async fn single(app: &App, batch: Batch, path: &str, kind: Kind) -> Result<Response, Rejection> {
    only_message(&batch, path, kind)?;
    let answers: Answers = app.batch(batch).await?;
    match answers.answers.as_slice() {
        [answer] => Ok(protocol(answer)),
        _ => Err(Rejection::new(ErrorCode::Internal, "one message, and not one answer")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prepare,
    Commit,
    Abort,
    Settle,
}

/// The body must say what the path says, and no more.
fn only_message(batch: &Batch, path: &str, kind: Kind) -> Result<(), Rejection> {
    let path: Txid = txid(path)?;
    let [message] = batch.messages.as_slice() else {
        let detail = format!("{} messages where one is taken", batch.messages.len());
        return Err(Rejection::new(ErrorCode::BadRequest, detail));
    };
    let found = match message {
        Message::Prepare(_) => Kind::Prepare,
        Message::Commit(_) => Kind::Commit,
        Message::Abort(_) => Kind::Abort,
        Message::Settle(_) => Kind::Settle,
    };
    if message.txid() != path || found != kind {
        return Err(Rejection::new(ErrorCode::BadRequest, "the message is not the path's"));
    }
    Ok(())
}

/// What to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    state: Option<BranchState>,
}

/// The branches of one state: those that are prepared, in doubt or about to be told; or those of
/// which a mark is left.
#[utoipa::path(
    get, path = "/v1/branches", operation_id = "listBranches", tag = "branches",
    params(("state" = Option<BranchState>, Query, description = "Which state; `prepared` is the default")),
    responses(
        (status = 200, description = "The branches", body = BranchList),
        (status = "default", description = "An error", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Rejection> {
    let Query(ListQuery { state }) = query
        .map_err(|error| Rejection::new(ErrorCode::BadRequest, format!("the query: {error}")))?;
    let list = match state.unwrap_or(BranchState::Prepared) {
        BranchState::Prepared => BranchList { branches: app.prepared().await?, more: false },
        state @ (BranchState::Applied | BranchState::Aborted) => app.marked(state).await?,
    };
    Ok(json(&list))
}

/// Whose messages this participant has had, and whether it can ask them about branches in doubt:
/// each is asked for its version.
#[utoipa::path(
    get, path = "/v1/coordinators", operation_id = "listCoordinators", tag = "branches",
    responses(
        (status = 200, description = "The coordinators", body = CoordinatorList),
        (status = "default", description = "An error", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn coordinators(State(app): State<App>) -> Result<Response, Rejection> {
    Ok(json(&app.coordinators().await?))
}

/// What is kept of one branch. A branch of which nothing is kept says nothing about its outcome.
#[utoipa::path(
    get, path = "/v1/branches/{txid}", operation_id = "getBranch", tag = "branches",
    params(("txid" = String, Path, description = "The branch's transaction")),
    responses(
        (status = 200, description = "The branch", body = BranchView),
        (status = "default", description = "An error", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(
    State(app): State<App>,
    Path(path): Path<String>,
) -> Result<Response, Rejection> {
    let view = app.branch(txid(&path)?).await?;
    Ok(json(&view).into_response())
}
