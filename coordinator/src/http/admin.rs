//! What only operators may do: hurry a transaction, give up a branch, accept a loss.

use assent_common::text::check_override;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{
    AbandonRequest, ForcedRemoval, ParticipantView, TransactionView,
};
use assent_common::{ErrorCode, ParticipantName, TransactionId};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::extract::{JsonBody, NoBody, PathOf, PathOfTwo};
use super::reply::{self, Rejection};
use super::state::HttpState;

/// Sends everything that a transaction waits to send, now.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/retry", operation_id = "retryTransaction", tag = "admin",
    params(("id" = String, Path, description = "The transaction's id")),
    responses(
        (status = 200, description = "The transaction as it stands", body = TransactionView),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn retry(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    NoBody: NoBody,
) -> Result<Response, Rejection> {
    let view = state.engine().retry(id)?;
    tracing::info!(%id, "an operator hurries a transaction");
    Ok(reply::json(StatusCode::OK, &view))
}

/// Gives up a branch of a decided transaction: its participant is not told the outcome any more. Recorded with who and
/// why; there is no way back.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/branches/{participant}/abandon", operation_id = "abandonBranch",
    tag = "admin",
    params(
        ("id" = String, Path, description = "The transaction's id"),
        ("participant" = String, Path, description = "The branch's participant"),
    ),
    request_body(content = AbandonRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The transaction as it stands", body = TransactionView),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn abandon(
    State(state): State<HttpState>,
    PathOfTwo(id, participant): PathOfTwo<TransactionId, ParticipantName>,
    JsonBody { value: request, .. }: JsonBody<AbandonRequest>,
) -> Result<Response, Rejection> {
    let AbandonRequest { actor, reason } = checked(request)?;
    let view = state.engine().abandon(id, &participant, actor, reason).await?;
    Ok(reply::json(StatusCode::OK, &view))
}

/// Puts up with what a participant's Redis lost and the log does not have any more: what the log has is redone, and the
/// data is opened. Recorded with who and why; there is no way back.
#[utoipa::path(
    post, path = "/v1/participants/{name}/accept-loss", operation_id = "acceptLoss", tag = "admin",
    params(("name" = String, Path, description = "The participant's name")),
    request_body(content = AbandonRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The participant", body = ParticipantView),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn accept_loss(
    State(state): State<HttpState>,
    PathOf(name): PathOf<ParticipantName>,
    JsonBody { value: request, .. }: JsonBody<AbandonRequest>,
) -> Result<Response, Rejection> {
    let AbandonRequest { actor, reason } = checked(request)?;
    let view = state.engine().accept_loss(&name, actor, reason).await?;
    Ok(reply::json(StatusCode::OK, &view))
}

/// Removes a participant that is gone for good, with everything that it was not told yet: branches of its transactions
/// are given up, each recorded with who and why. There is no way back: committed writes that it has not applied are lost.
#[utoipa::path(
    post, path = "/v1/participants/{name}/remove", operation_id = "removeParticipantByForce", tag = "admin",
    params(("name" = String, Path, description = "The participant's name")),
    request_body(content = AbandonRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "What was given up", body = ForcedRemoval),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn remove_by_force(
    State(state): State<HttpState>,
    PathOf(name): PathOf<ParticipantName>,
    JsonBody { value: request, .. }: JsonBody<AbandonRequest>,
) -> Result<Response, Rejection> {
    let removal = state.engine().remove_participant_by_force(&name, &checked(request)?).await?;
    Ok(reply::json(StatusCode::OK, &removal))
}

fn checked(request: AbandonRequest) -> Result<AbandonRequest, Rejection> {
    match check_override(&request.actor, &request.reason) {
        Ok(()) => Ok(request),
        Err(detail) => Err(Rejection::new(ErrorCode::BadRequest, detail)),
    }
}
