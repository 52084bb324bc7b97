//! A transaction's changes of state as server-sent events.
//!
//! The first event is the state at the time of asking, the last one has the state `ended`; the stream ends after it. A
//! state that is over before its event could be written is passed over: an event says what is, not what was.

use std::convert::Infallible;
use std::time::Duration;

use assent_common::TransactionId;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{BranchProgress, TransactionState, TransactionView};
use assent_edge::Caller;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::extract::{ClientOf, PathOf};
use super::reply::Rejection;
use super::state::HttpState;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often a comment keeps a quiet stream alive, below the idle timeout of common proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The id of the last event. The others are `<epoch>.<version>`: versions begin anew with each life of the process.
const ENDED: &str = "ended";

/// Follows a transaction: one event for each change of state, each with the whole transaction.
///
/// A client that comes again with `Last-Event-ID` is told the present state at once if it differs from that event's, and
/// 204 if that event was the last one, which makes an `EventSource` stop.
#[utoipa::path(
    get, path = "/v1/transactions/{id}/events", operation_id = "followTransaction", tag = "transactions",
    params(
        ("id" = String, Path, description = "The transaction's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen"),
    ),
    responses(
        (status = 200, description = "Events whose `data` is a transaction", body = TransactionView,
            content_type = "text/event-stream"),
        (status = 204, description = "The last event has been seen"),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn follow(
    State(state): State<HttpState>,
    PathOf(id): PathOf<TransactionId>,
    headers: HeaderMap,
    ClientOf(client): ClientOf,
) -> Result<Response, Rejection> {
    let last_seen = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let view = state.engine().transaction(id)?;
    if view.state == TransactionState::Ended && last_seen == Some(ENDED) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follower = Follower {
        watches: state.watch()?,
        stopped: state.shared.stopped.clone(),
        epoch: state.engine().identity().epoch.0,
        state,
        id,
        last_seen: last_seen.map(ToOwned::to_owned),
        told: None,
        changes: None,
        client,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One client's way along a transaction.
struct Follower {
    state: HttpState,
    id: TransactionId,
    epoch: u64,
    /// The id of the last event of an earlier connection; looked at once.
    last_seen: Option<String>,
    /// What the last event said.
    told: Option<Standing>,
    changes: Option<watch::Receiver<u64>>,
    stopped: watch::Receiver<bool>,
    client: Caller,
    #[expect(dead_code, reason = "held as long as the stream lives")]
    watches: OwnedSemaphorePermit,
}

/// What makes a new event if it changes.
#[derive(PartialEq, Eq)]
struct Standing {
    state: TransactionState,
    outcome: OutcomeWord,
    applied: Option<bool>,
    attempt: u32,
    branches: Vec<BranchProgress>,
}

impl Standing {
    fn of(view: &TransactionView) -> Self {
        Self {
            state: view.state,
            outcome: view.outcome,
            applied: view.applied,
            attempt: view.attempt,
            branches: view.branches.iter().map(|branch| branch.state).collect(),
        }
    }
}

impl Follower {
    /// The next event, when there is one; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.told.as_ref().is_some_and(|told| told.state == TransactionState::Ended) {
                return None;
            }
            if self.changes.is_none() {
                self.changes = self.state.engine().changes(self.id);
            }
            let engine = self.state.engine();
            let active =
                self.changes.as_mut().and_then(|changes| engine.at_version(self.id, changes));
            let (version, view) = match active {
                Some((version, view)) => (Some(version), view),
                None => (None, engine.transaction(self.id).ok()?),
            };
            let standing = Standing::of(&view);
            let event_id = match version {
                _ if view.state == TransactionState::Ended => ENDED.to_owned(),
                version => format!("{}.{}", self.epoch, version.unwrap_or(0)),
            };
            let seen = self.last_seen.take().is_some_and(|last_seen| last_seen == event_id);
            if self.told.as_ref() != Some(&standing) {
                self.told = Some(standing);
                if !seen {
                    return Event::default().id(event_id).json_data(&view).ok();
                }
            }
            let Some(changes) = &mut self.changes else { continue };
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        // It ended, and can be looked up.
                        self.changes = None;
                    }
                }
                _closing = self.stopped.wait_for(|stopped| *stopped) => return None,
                () = self.client.has_left() => return None,
            }
        }
    }
}
