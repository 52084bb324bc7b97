//! Request bodies: type, size and shape are checked here, once. Decoded from bytes, which is cheaper than a `Json`
//! extractor on the hot path.

use assent_edge::{Gathered, Held, gather};
use axum::Extension;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use assent_common::wire::{MEDIA_TYPE, place_of, read_json};
use assent_common::{ErrorCode, Txid};

use super::reply::Rejection;
use crate::service::App;

/// Bytes of a body that a router takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit(pub(crate) usize);

/// A body of JSON, and what it was read from.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) RawBody);

/// The bytes of a body, and the memory that they were granted, for as long as they are worked at.
pub(crate) struct RawBody {
    pub(crate) bytes: Bytes,
    _held: Held,
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &App) -> Result<Self, Rejection> {
        let (mut head, body) = request.into_parts();
        expect_json(&head.headers)?;
        let limit = Extension::<BodyLimit>::from_request_parts(&mut head, app).await;
        let Ok(Extension(BodyLimit(bytes_max))) = limit else {
            return Err(Rejection::new(ErrorCode::Internal, "the router has no limit of bodies"));
        };
        let Gathered { bytes, held } = gather(body, bytes_max, &app.budget).await?;
        if bytes.is_empty() {
            let detail = "the body is empty; send a JSON object as `application/json`";
            return Err(Rejection::new(ErrorCode::BadRequest, detail));
        }
        match read_json(&bytes) {
            Ok(value) => Ok(Self(value, RawBody { bytes, _held: held })),
            Err(error) => {
                let place = place_of(&bytes, &error);
                let place = if place.is_empty() { place } else { format!("`{place}`: ") };
                let detail = format!("the body does not parse: {place}{error}");
                Err(Rejection::new(ErrorCode::BadRequest, detail))
            }
        }
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), Rejection> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let detail = "the body has a `Content-Encoding`; send it as it is";
        return Err(Rejection::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    if ["application/json", MEDIA_TYPE].iter().any(|ours| media_type.eq_ignore_ascii_case(ours)) {
        return Ok(());
    }
    let detail = format!("the body's content type is {media_type:?}, not application/json");
    Err(Rejection::new(ErrorCode::UnsupportedMediaType, detail))
}

/// The txid of a path.
pub(crate) fn txid(text: &str) -> Result<Txid, Rejection> {
    text.parse()
        .map_err(|error| Rejection::new(ErrorCode::BadRequest, format!("the path: {error}")))
}
