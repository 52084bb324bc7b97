//! Answers: the two media types, and errors as problem documents.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use assent_common::ErrorCode;
use assent_common::outcome::Refusal;
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::problem::Problem;
use assent_edge::{no_such_method, no_such_path};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOCOL: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct Rejection(Box<Problem>);

impl Rejection {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal.into()))
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        assent_edge::problem(&self.0)
    }
}

/// What coordinators believe: an answer of Assent's own media type.
pub(crate) fn protocol(value: &impl Serialize) -> Response {
    body(PROTOCOL, value)
}

/// An answer for everybody else.
pub(crate) fn json(value: &impl Serialize) -> Response {
    body(JSON, value)
}

fn body(media_type: HeaderValue, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(CONTENT_TYPE, media_type)], bytes).into_response(),
        // No type of ours fails to serialise; if one did, the status must not say otherwise.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Which of a participant's two APIs a router is. Each has an address of its own, and who asks the
/// wrong one is told so.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ParticipantFace {
    Coordinators,
    Operators,
}

impl ParticipantFace {
    /// What answers, and where the rest is.
    const fn in_words(self) -> &'static str {
        match self {
            Self::Coordinators => {
                "a participant's API for coordinators; its API for operators has another address \
                 (--admin-listen, or where the service mounts admin_router()), and transactions \
                 are sent to a coordinator"
            }
            Self::Operators => {
                "a participant's API for operators; its API for coordinators has another address \
                 (--listen, or where the service mounts router())"
            }
        }
    }

    /// The answer to a path that does not exist.
    pub(crate) fn not_found(self, uri: &Uri) -> Rejection {
        let detail = no_such_path(uri.path(), self.in_words());
        Rejection::new(ErrorCode::NotFound, detail)
    }

    /// The answer to a method that the path does not have; the router adds `Allow`.
    pub(crate) fn method_not_allowed(self) -> Rejection {
        let detail = no_such_method(self.in_words());
        Rejection::new(ErrorCode::MethodNotAllowed, detail)
    }
}
