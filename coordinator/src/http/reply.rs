//! Answers: media types, statuses, and errors as problem documents.

use std::any::Any;

use assent_common::ErrorCode;
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::problem::Problem;
use assent_edge::{no_such_method, no_such_path};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response as HttpResponse, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOCOL: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Seconds after which a request that was shed, or whose outcome was not known, may come again.
pub(super) const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Rejection(Box<Problem>);

impl Rejection {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        problem(&self.0)
    }
}

/// An error with the status of its code.
pub(super) fn problem(problem: &Problem) -> Response {
    assent_edge::problem(problem)
}

/// An answer for clients.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    body(status, JSON, value)
}

/// What participants believe: an answer of Assent's own media type.
pub(super) fn protocol(value: &impl Serialize) -> Response {
    body(StatusCode::OK, PROTOCOL, value)
}

/// An answer for people.
pub(super) fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    with_type(status, TEXT, text)
}

pub(super) fn with_type(
    status: StatusCode,
    media_type: HeaderValue,
    body: impl Into<Body>,
) -> Response {
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

fn body(status: StatusCode, media_type: HeaderValue, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(status, media_type, bytes),
        // No type of ours fails to serialise; if one did, the status must not say otherwise.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Which of a coordinator's two APIs a listener has. Who asks the wrong one is told so.
#[derive(Debug, Clone, Copy)]
pub(super) enum CoordinatorFace {
    Public,
    Operators,
}

impl CoordinatorFace {
    /// What answers, and where the rest is.
    const fn in_words(self) -> &'static str {
        match self {
            Self::Public => {
                "a coordinator's public API; its API for operators has another address \
                 (--admin-listen), and so has each participant"
            }
            Self::Operators => {
                "a coordinator's API for operators; its public API has another address (--listen), \
                 and so has each participant"
            }
        }
    }

    /// The answer to a path that does not exist.
    pub(super) fn not_found(self, uri: &Uri) -> Rejection {
        let detail = no_such_path(uri.path(), self.in_words());
        Rejection::new(ErrorCode::NotFound, detail)
    }

    /// The answer to a method that the path does not have; the router adds `Allow`.
    pub(super) fn method_not_allowed(self) -> Rejection {
        let detail = no_such_method(self.in_words());
        Rejection::new(ErrorCode::MethodNotAllowed, detail)
    }
}

/// The answer of a handler that panicked. What it said may hold values, so it is passed on to nobody.
#[cfg_attr(not(panic = "unwind"), expect(dead_code, reason = "a panic ends the process"))]
pub(super) fn of_panic(_said: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked; this is a bug in Assent");
    let detail = "a fault in Assent itself; whether something was begun is not known";
    problem(&Problem::new(ErrorCode::Internal, detail))
}
