//! The protocol's endpoints, and the branches for people.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use assent_common::branch::BranchMessage;
use assent_common::wire::branch::{
    Answer, Answers, BranchList, BranchState, BranchView, CoordinatorList,
};
use assent_common::wire::interactive::EvaluateRequest;
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, Txid};

use super::body::{JsonBody, RawBody, txid};
use super::reply::{Rejection, json, protocol};
use crate::forward::SentBy;
use crate::service::App;
use crate::wire::{Batch, Message};

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
    Extension(sent_by): Extension<SentBy>,
    JsonBody(batch, raw): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    let answers = app.batch(batch, sent_by, raw.bytes.clone()).await?;
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
    Extension(sent_by): Extension<SentBy>,
    JsonBody(mut batch, raw): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    let Message::Prepare(prepare) = take_only(&mut batch, &path)? else {
        return Err(not_the_paths());
    };
    let answer = app.prepare_waiting(batch, prepare, sent_by, raw.bytes.clone()).await?;
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
    Extension(sent_by): Extension<SentBy>,
    JsonBody(batch, raw): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, (batch, sent_by, raw), &path, BranchMessage::Commit).await
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
    Extension(sent_by): Extension<SentBy>,
    JsonBody(batch, raw): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, (batch, sent_by, raw), &path, BranchMessage::Abort).await
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
    Extension(sent_by): Extension<SentBy>,
    JsonBody(batch, raw): JsonBody<Batch>,
) -> Result<Response, Rejection> {
    single(&app, (batch, sent_by, raw), &path, BranchMessage::Settle).await
}

/// The answer to the one message of a batch that the path names.
async fn single(
    app: &App,
    (mut batch, sent_by, raw): (Batch, SentBy, RawBody),
    path: &str,
    kind: BranchMessage<()>,
) -> Result<Response, Rejection> {
    let message = take_only(&mut batch, path)?;
    if message.kind() != kind {
        return Err(not_the_paths());
    }
    batch.messages.push(message);
    let answers: Answers = app.batch(batch, sent_by, raw.bytes.clone()).await?;
    Ok(protocol(&answers.answers[0]))
}

/// The message: of the branch that the path says, and no other.
fn take_only(batch: &mut Batch, path: &str) -> Result<Message, Rejection> {
    let path: Txid = txid(path)?;
    let count = batch.messages.len();
    match batch.messages.pop().filter(|_| count == 1) {
        Some(message) if message.txid() == path => Ok(message),
        Some(_) => Err(not_the_paths()),
        None => {
            let detail = format!("{count} messages where one is taken");
            Err(Rejection::new(ErrorCode::BadRequest, detail))
        }
    }
}

fn not_the_paths() -> Rejection {
    Rejection::new(ErrorCode::BadRequest, "the message is not the path's")
}

/// Says what ops would come to. Nothing is locked, and nothing is kept: what was answered may be
/// over a moment later.
#[utoipa::path(
    post, path = "/v1/evaluate", operation_id = "evaluate", tag = "protocol",
    request_body = EvaluateRequest,
    responses(
        (status = 200, description = "What a branch of one phase would answer", body = Answer,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "Nothing was evaluated", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn evaluate(
    State(app): State<App>,
    JsonBody(request, _held): JsonBody<EvaluateRequest>,
) -> Result<Response, Rejection> {
    Ok(protocol(&app.agent.evaluate(request).await?))
}

/// What to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    state: Option<BranchState>,
    by_hand: Option<bool>,
}

/// The branches of one state: those that are prepared, in doubt or about to be told; or those of
/// which a mark is left. Or those that were ended by hand, until that is forgotten.
#[utoipa::path(
    get, path = "/v1/branches", operation_id = "listBranches", tag = "branches",
    params(
        ("state" = Option<BranchState>, Query,
            description = "Which state; `prepared` is the default"),
        ("by_hand" = Option<bool>, Query, description = "Those that were ended by hand, and have \
            not been forgotten; with no `state`")),
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
    let Query(ListQuery { state, by_hand }) = query
        .map_err(|error| Rejection::new(ErrorCode::BadRequest, format!("the query: {error}")))?;
    if by_hand == Some(true) {
        if state.is_some() {
            let detail = "the query: `by_hand` goes with no `state`";
            return Err(Rejection::new(ErrorCode::BadRequest, detail));
        }
        return Ok(json(&app.ended_by_hand().await?));
    }
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
