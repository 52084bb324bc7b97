//! Probes, version, metrics.

use std::borrow::Cow;
use std::fmt::Write as _;

use assent_common::ErrorCode;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::VersionView;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::reply::{self, RETRY_AFTER_SECONDS, Rejection};
use super::state::HttpState;
use crate::metrics as metric;

const METRICS_MEDIA_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// Whether a check holds; if not, why.
type Check = (&'static str, Result<(), Cow<'static, str>>);

/// Whether the process turns. Restart it if not.
#[utoipa::path(
    get, path = "/livez", operation_id = "livez", tag = "health", security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(super) async fn livez(State(state): State<HttpState>) -> Response {
    // The engine's lock can be taken; if it could not, this would not answer.
    let _either = state.engine().is_draining();
    reply::text(StatusCode::OK, "ok\n")
}

/// Whether it takes transactions: recovered, and not about to stop. Participants that are down do not count: their
/// branches wait, everybody else's go on.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "health", security(()),
    params(("verbose" = Option<String>, Query, description = "One line for each check")),
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "It does not, at present", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn readyz(State(state): State<HttpState>, RawQuery(query): RawQuery) -> Response {
    let checks = checks(&state);
    let failed = checks.iter().find_map(|(_, check)| check.clone().err());
    let verbose = query.is_some_and(|query| query.split('&').any(is_verbose));
    match failed {
        None if !verbose => reply::text(StatusCode::OK, "ok\n"),
        None => reply::text(StatusCode::OK, lines(&checks)),
        Some(why) if !verbose => Rejection::new(ErrorCode::NotReady, why).into_response(),
        Some(_) => {
            let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, lines(&checks));
            let headers = response.headers_mut();
            headers.insert(axum::http::header::RETRY_AFTER, RETRY_AFTER_SECONDS);
            response
        }
    }
}

fn is_verbose(parameter: &str) -> bool {
    matches!(parameter, "verbose" | "verbose=" | "verbose=1" | "verbose=true")
}

fn checks(state: &HttpState) -> [Check; 4] {
    let draining = state.engine().is_draining();
    let stopped = *state.shared.stopped.borrow();
    [
        // Nothing is served before the log is replayed and the plan of recovery is made.
        ("recovery", Ok(())),
        (
            "copy",
            if state.engine().stale_log().is_some() {
                let why = "the decision log is an old or a forked copy: a participant has heard a \
                           later life";
                Err(why.into())
            } else {
                Ok(())
            },
        ),
        ("draining", if draining { Err("the coordinator is draining".into()) } else { Ok(()) }),
        // A log that cannot be written ends the process. Before that, the next segment cannot be
        // made ready.
        ("log", if stopped { Err("the decision log is closed".into()) } else { log(state) }),
    ]
}

fn log(state: &HttpState) -> Result<(), Cow<'static, str>> {
    match state.engine().log_trouble() {
        None => Ok(()),
        Some(why) => Err(format!(
            "the disk does not take the next segment of the decision log ({why}): make room, or \
             the process stops when it needs it"
        )
        .into()),
    }
}

/// The checks in the form that Kubernetes made usual.
fn lines(checks: &[Check]) -> String {
    let mut lines = String::new();
    for (name, check) in checks {
        // Writing to a string does not fail.
        let _infallible = match check {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) => writeln!(lines, "[-]{name} failed: {why}"),
        };
    }
    lines
}

/// What runs here: the version of the software, the log and the process life.
#[utoipa::path(
    get, path = "/v1/version", operation_id = "getVersion", tag = "health",
    responses((status = 200, description = "This coordinator", body = VersionView)),
)]
pub(super) async fn version(State(state): State<HttpState>) -> Response {
    let identity = state.engine().identity();
    let version = VersionView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: "coordinator".to_owned(),
        log_id: Some(identity.log_id.to_string()),
        epoch: Some(identity.epoch.0),
        name: None,
        admin_listen: None,
        warnings: Vec::new(),
    };
    reply::json(StatusCode::OK, &version)
}

/// The metrics, in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "health",
    responses(
        (status = 200, description = "All of them", body = String, content_type = "text/plain; version=0.0.4"),
        (status = 404, description = "This process records no metrics", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn metrics(State(state): State<HttpState>) -> Result<Response, Rejection> {
    let Some(recorder) = &state.shared.metrics else {
        return Err(Rejection::new(ErrorCode::NotFound, "this process records no metrics"));
    };
    let counts = state.engine().counts();
    metric::observe(&counts);
    metric::observe_interactive(&state.interactive().counts());
    let text = metric::without_removed(&recorder.render(), &counts.removed);
    Ok(reply::with_type(StatusCode::OK, METRICS_MEDIA_TYPE, text))
}
