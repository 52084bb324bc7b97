//! The operator's override: separate from the protocol, loud, with an actor and a reason (invariant 16).

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use assent_client::participant::{ForgetRequest, ResolveRequest};
use assent_common::ErrorCode;
use assent_common::text::check_override;
use assent_common::wire::branch::BranchView;
use assent_common::wire::problem::Problem;

use super::body::{JsonBody, txid};
use super::reply::{Rejection, json};
use crate::service::App;

/// Decides a branch in doubt in its coordinator's place. If the coordinator decided otherwise, the transaction is
/// half applied: this is for a coordinator that is gone for good.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/resolve", operation_id = "resolveBranch", tag = "operator",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body = ResolveRequest,
    responses(
        (status = 200, description = "The branch, resolved", body = BranchView),
        (status = "default", description = "Nothing was done", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn resolve(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(request, _held): JsonBody<ResolveRequest>,
) -> Result<Response, Rejection> {
    check(&request.actor, &request.reason)?;
    let view = app.resolve_by_hand(txid(&path)?, &request).await?;
    Ok(json(&view))
}

/// Drops the mark of a branch that has ended here. A message about it that is still to come then finds nothing: this is
/// for marks that no coordinator will ever collect.
#[utoipa::path(
    post, path = "/v1/branches/{txid}/forget", operation_id = "forgetBranch", tag = "operator",
    params(("txid" = String, Path, description = "The branch's transaction")),
    request_body = ForgetRequest,
    responses(
        (status = 204, description = "Nothing is kept of it any more"),
        (status = "default", description = "Nothing was done", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn forget(
    State(app): State<App>,
    Path(path): Path<String>,
    JsonBody(request, _held): JsonBody<ForgetRequest>,
) -> Result<StatusCode, Rejection> {
    check(&request.actor, &request.reason)?;
    app.forget_by_hand(txid(&path)?, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(actor: &str, reason: &str) -> Result<(), Rejection> {
    check_override(actor, reason).map_err(|detail| Rejection::new(ErrorCode::BadRequest, detail))
}
