//! What comes in: paths, queries, headers and bodies, each parsed once, each with an error that names it.

use std::convert::Infallible;
use std::error::Error as _;
use std::fmt::Display;
use std::str::FromStr;

use assent_common::ids::InvalidId;
use assent_common::wire::{place_of, read_json};
use assent_common::{ErrorCode, IdempotencyKey, limits};
use assent_edge::{Caller, Gathered, Held, gather};
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reply::Rejection;
use super::state::HttpState;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The one parameter of a path.
pub(super) struct PathOf<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for PathOf<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        text.parse().map(Self).map_err(bad_path)
    }
}

/// The two parameters of a path.
pub(super) struct PathOfTwo<T, U>(pub(super) T, pub(super) U);

impl<S, T, U> FromRequestParts<S> for PathOfTwo<T, U>
where
    S: Send + Sync,
    T: FromStr<Err: Display>,
    U: FromStr<Err: Display>,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        type Both = Path<(String, String)>;
        let Path((first, second)) =
            Both::from_request_parts(parts, state).await.map_err(bad_path)?;
        Ok(Self(first.parse().map_err(bad_path)?, second.parse().map_err(bad_path)?))
    }
}

fn bad_path(error: impl Display) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, format!("the path: {error}"))
}

/// The query; an unknown parameter is an error.
pub(super) struct QueryOf<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        let query = Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            // The rejection's own words are the same for every query; its source says what is wrong.
            let error =
                rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
            Rejection::new(ErrorCode::BadRequest, format!("the query: {error}"))
        })?;
        Ok(Self(query.0))
    }
}

/// A body of JSON, with the bytes that it was.
pub(super) struct JsonBody<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
    /// The memory that it was granted, for as long as something of it is kept.
    pub(super) held: Held,
}

impl<T: DeserializeOwned> FromRequest<HttpState> for JsonBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &HttpState) -> Result<Self, Rejection> {
        let (head, body) = request.into_parts();
        Self::of(&head.headers, body, state).await
    }
}

impl<T: DeserializeOwned> JsonBody<T> {
    /// Reads the body, which the headers must call JSON.
    pub(super) async fn of(
        headers: &HeaderMap,
        body: Body,
        state: &HttpState,
    ) -> Result<Self, Rejection> {
        if body.is_end_stream() {
            return Err(empty());
        }
        expect_json(headers)?;
        let Gathered { bytes, held } = gather(body, limits::BODY_BYTES_MAX, state.budget()).await?;
        let value = read(&bytes)?;
        Ok(Self { value, bytes, held })
    }
}

/// That a request says nothing beside its path: it has no body, or an empty object. What is asked
/// for and not done, as ops in the body of a commit, is refused and not passed over.
pub(super) struct NoBody;

/// An empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl FromRequest<HttpState> for NoBody {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &HttpState) -> Result<Self, Rejection> {
        let (head, body) = request.into_parts();
        if body.is_end_stream() {
            return Ok(Self);
        }
        let gathered = gather(body, limits::BODY_BYTES_MAX, state.budget()).await?;
        if !gathered.bytes.is_empty() {
            expect_json(&head.headers)?;
            let NoFields {} = read(&gathered.bytes)?;
        }
        Ok(Self)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    if bytes.is_empty() {
        return Err(empty());
    }
    read_json(bytes).map_err(|error| {
        let place = place_of(bytes, &error);
        let place = if place.is_empty() { place } else { format!("`{place}`: ") };
        Rejection::new(ErrorCode::BadRequest, format!("the body: {place}{error}"))
    })
}

fn empty() -> Rejection {
    let detail = "the body is empty; send a JSON object as `application/json`, `{}` if there is \
                  nothing to say";
    Rejection::new(ErrorCode::BadRequest, detail)
}

fn expect_json(headers: &HeaderMap) -> Result<(), Rejection> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let detail = "the body has a `Content-Encoding`; send it as it is";
        return Err(Rejection::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let sent = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = sent.split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("the body's content type is {media_type:?}, not application/json");
    Err(Rejection::new(ErrorCode::UnsupportedMediaType, detail))
}

/// The idempotency key, as a quoted string of structured fields (RFC 9651, section 3.3.3) or as it stands.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Rejection> {
    let bad = |why: &str| {
        Rejection::new(ErrorCode::BadRequest, format!("the header `Idempotency-Key`: {why}"))
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("it is there twice"));
    }
    let text = value.to_str().map_err(|_| bad("it is no ASCII text"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(|| bad("its quotes are not closed"))?,
        None => text.to_owned(),
    };
    key.parse().map(Some).map_err(|error: InvalidId| bad(&error.to_string()))
}

/// The inside of a quoted string, given what follows its first quote.
fn unquoted(quoted: &str) -> Option<String> {
    let mut inside = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => inside.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => inside.push(other),
        }
    }
    chars.next().is_none().then_some(inside)
}

/// The client that asks. One that came past the edge, as in tests, never leaves.
pub(super) struct ClientOf(pub(super) Caller);

impl ClientOf {
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<Caller>().cloned().unwrap_or_default())
    }
}

impl<S: Sync> FromRequestParts<S> for ClientOf {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// How long the client is willing to wait, in milliseconds, if it says (RFC 7240). A preference that cannot be read is
/// ignored, as that RFC wants it.
pub(super) fn preferred_wait_ms(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut respond_async = None;
    for preference in values.flat_map(|value| value.split(',')) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("wait") {
            let seconds = value.trim().trim_matches('"').parse::<u64>().ok();
            if let Some(seconds) = seconds {
                return Some(seconds.saturating_mul(1_000).min(limits::WAIT_MAX_MS));
            }
        } else if name.eq_ignore_ascii_case("respond-async") {
            respond_async = Some(0);
        }
    }
    respond_async
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_is_read_quoted_and_raw() {
        let key = |values: &[&'static str]| {
            let key = idempotency_key(&headers(IDEMPOTENCY_KEY, values)).ok()?;
            Some(key.map(|key| key.to_string()))
        };
        assert_eq!(key(&[]), Some(None));
        assert_eq!(key(&["order-17"]), Some(Some("order-17".to_owned())));
        assert_eq!(key(&[r#""order-17""#]), Some(Some("order-17".to_owned())));
        assert_eq!(key(&[r#""a \"b\" \\""#]), Some(Some(r#"a "b" \"#.to_owned())));
        for bad in [&["\"open"][..], &[""], &["\"\""], &["\"a\"b"], &[r#""\a""#], &["a", "a"]] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_wait_is_read_among_other_preferences_and_capped() {
        let wait = |values: &[&'static str]| preferred_wait_ms(&headers(PREFER, values));
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["wait=10"]), Some(10_000));
        assert_eq!(wait(&["respond-async"]), Some(0));
        assert_eq!(wait(&["respond-async, wait=2"]), Some(2_000));
        assert_eq!(wait(&["handling=lenient", "Wait=3"]), Some(3_000));
        assert_eq!(wait(&["wait=99999999999999999"]), Some(limits::WAIT_MAX_MS));
        for unreadable in ["wait", "wait=", "wait=soon", "wait=-1", "waiting=5"] {
            assert_eq!(wait(&[unreadable]), None, "{unreadable}");
        }
    }
}
