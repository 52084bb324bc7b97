//! The participants: where each is reached.

use std::borrow::Cow;

use assent_common::wire::ACTOR;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{ParticipantList, ParticipantRequest, ParticipantView};
use assent_common::{ErrorCode, ParticipantName};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::extract::{JsonBody, PathOf};
use super::reply::{self, Rejection};
use super::state::HttpState;

/// The registered participants, by name.
#[utoipa::path(
    get, path = "/v1/participants", operation_id = "listParticipants", tag = "participants",
    responses((status = 200, description = "All of them", body = ParticipantList)),
)]
pub(super) async fn list(State(state): State<HttpState>) -> Response {
    let participants = state.engine().participants();
    reply::json(StatusCode::OK, &ParticipantList { participants })
}

/// One participant.
#[utoipa::path(
    get, path = "/v1/participants/{name}", operation_id = "getParticipant", tag = "participants",
    params(("name" = String, Path, description = "The participant's name")),
    responses(
        (status = 200, description = "The participant", body = ParticipantView),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn describe(
    State(state): State<HttpState>,
    PathOf(name): PathOf<ParticipantName>,
) -> Result<Response, Rejection> {
    let participants = state.engine().participants();
    match participants.into_iter().find(|participant| participant.name == name) {
        Some(participant) => Ok(reply::json(StatusCode::OK, &participant)),
        None => Err(Rejection::from(Problem {
            participant: Some(name.to_string()),
            ..Problem::new(ErrorCode::NotFound, format!("no participant {name} is registered"))
        })),
    }
}

/// Registers a participant, or moves it to another address. Durable when answered; its unfinished branches are told
/// their outcomes at the new address. On the admin listener: whoever has an address registered is sent the participants'
/// token and the ops of others.
#[utoipa::path(
    put, path = "/v1/participants/{name}", operation_id = "setParticipant", tag = "admin",
    params(
        ("name" = String, Path, description = "The participant's name"),
        ("Assent-Actor" = Option<String>, Header, description = "Who asks for it, for the log"),
    ),
    request_body(content = ParticipantRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The participant", body = ParticipantView),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn set(
    State(state): State<HttpState>,
    PathOf(name): PathOf<ParticipantName>,
    headers: HeaderMap,
    JsonBody { value: request, .. }: JsonBody<ParticipantRequest>,
) -> Result<Response, Rejection> {
    let participant = state.engine().set_participant(&name, &request.url).await?;
    let (url, actor) = (&participant.url, actor_of(&headers));
    tracing::info!(participant = %name, url, %actor, "a participant was registered");
    Ok(reply::json(StatusCode::OK, &participant))
}

/// Removes a participant that no unfinished transaction needs.
#[utoipa::path(
    delete, path = "/v1/participants/{name}", operation_id = "removeParticipant", tag = "admin",
    params(
        ("name" = String, Path, description = "The participant's name"),
        ("Assent-Actor" = Option<String>, Header, description = "Who asks for it, for the log"),
    ),
    responses(
        (status = 204, description = "Removed, durably"),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn remove(
    State(state): State<HttpState>,
    PathOf(name): PathOf<ParticipantName>,
    headers: HeaderMap,
) -> Result<StatusCode, Rejection> {
    state.engine().remove_participant(&name).await?;
    tracing::info!(participant = %name, actor = %actor_of(&headers), "a participant was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Who says that they ask for it. Nobody checks that: it is for the log.
fn actor_of(headers: &HeaderMap) -> Cow<'_, str> {
    let named = headers.get(ACTOR).map(|name| String::from_utf8_lossy(name.as_bytes()));
    named.unwrap_or(Cow::Borrowed("unknown"))
}
