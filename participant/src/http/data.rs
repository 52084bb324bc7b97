//! The data behind this participant: what it is, and what a coordinator says of it after a loss.

use axum::extract::State;
use axum::response::Response;

use assent_common::wire::problem::Problem;
use assent_common::wire::resync::{DataView, Resync, Resynced};

use super::body::JsonBody;
use super::reply::{Rejection, protocol};
use crate::service::App;

/// What the data is now: its incarnation, the number of the last vote, and whether it is fenced.
#[utoipa::path(
    get, path = "/v1/data", operation_id = "getData", tag = "protocol",
    responses(
        (status = 200, description = "The data", body = DataView,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "An error", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get(State(app): State<App>) -> Result<Response, Rejection> {
    Ok(protocol(&app.agent.data().await?))
}

/// Takes a part of what a log has committed and the data may lack. With the last part of the last
/// log that is owed the data is made whole and opened.
#[utoipa::path(
    post, path = "/v1/data/resync", operation_id = "resyncData", tag = "protocol",
    request_body = Resync,
    responses(
        (status = 200, description = "What is owed, or the open data", body = Resynced,
            content_type = "application/vnd.assent+json"),
        (status = "default", description = "The part was not taken", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn resync(
    State(app): State<App>,
    JsonBody(part, _held): JsonBody<Resync>,
) -> Result<Response, Rejection> {
    Ok(protocol(&app.resync(part).await?))
}
