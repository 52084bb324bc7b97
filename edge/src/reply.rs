//! Errors on their way out, as problem documents.

use assent_common::text;
use assent_common::wire::PROBLEM_MEDIA_TYPE;
use assent_common::wire::problem::Problem;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

/// Seconds after which a request that was shed may come again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Bytes of a path that an error repeats.
const PATH_SHOWN_BYTES_MAX: usize = 200;

/// What is said of a path that does not exist, where this API answers.
#[must_use]
pub fn no_such_path(path: &str, api: &str) -> String {
    format!("there is no path {} in {api}", text::cut(path, PATH_SHOWN_BYTES_MAX))
}

/// What is said of a method that the path does not have, where this API answers.
#[must_use]
pub fn no_such_method(api: &str) -> String {
    format!("the path has other methods only in {api}")
}

/// An error with the status and the headers of its code.
#[must_use]
pub fn problem(problem: &Problem) -> Response {
    // No type of ours fails to serialise; if one did, the status would still be right.
    let mut response = Response::new(Body::from(serde_json::to_vec(problem).unwrap_or_default()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
    match problem.status {
        401 => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        429 | 503 => {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        _ => {}
    }
    response
}
