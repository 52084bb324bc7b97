//! Request bodies: type, size and shape are checked here, once. Decoded from bytes, which is cheaper than a `Json`
//! extractor on the hot path.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use serde::de::DeserializeOwned;

use assent_common::wire::MEDIA_TYPE;
use assent_common::{ErrorCode, Txid};

use super::reply::Rejection;

/// A body of JSON.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let media_type = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map_or("", str::trim);
        if !["application/json", MEDIA_TYPE]
            .iter()
            .any(|ours| media_type.eq_ignore_ascii_case(ours))
        {
            return Err(Rejection::new(
                ErrorCode::UnsupportedMediaType,
                format!("the body's content type is {media_type:?}, not application/json"),
            ));
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| {
                match rejection.into_response().status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Rejection::new(
                        ErrorCode::BodyTooLarge,
                        "the body is larger than this endpoint takes",
                    ),
                    _ => Rejection::new(ErrorCode::BadRequest, "the body was cut short"),
                }
            })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Rejection::new(ErrorCode::BadRequest, format!("the body does not parse: {error}"))
        })
    }
}

/// The txid of a path.
pub(crate) fn txid(text: &str) -> Result<Txid, Rejection> {
    text.parse()
        .map_err(|error| Rejection::new(ErrorCode::BadRequest, format!("the path: {error}")))
}
