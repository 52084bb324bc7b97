//! The bearer token. Probes are open; everything else wants the token of its listener, if one is configured.

use assent_client::Token;
use assent_common::ErrorCode;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::reply::Rejection;

/// Lets a request through if it carries the token.
pub(super) async fn require_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    let sent = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if is_same(bearer(sent), &token) {
        return next.run(request).await;
    }
    let detail = "the bearer token is missing or wrong";
    let mut response = Rejection::new(ErrorCode::Unauthorized, detail).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The token of an `Authorization` header; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"bearer ";
    match header.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token.trim_ascii(),
        Some(_) | None => b"",
    }
}

/// Compares in a time that depends on the length of what was sent only, so that a token cannot be guessed byte by byte.
fn is_same(sent: &[u8], token: &Token) -> bool {
    let token = token.expose().as_bytes();
    let mut difference = sent.len() ^ token.len();
    for (index, byte) in sent.iter().enumerate() {
        let expected = token.get(index).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0 && !token.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new("s3cret");
        assert!(is_same(b"s3cret", &token));
        for wrong in [&b""[..], b"s3cre", b"s3cret ", b"S3cret", b"s3cret\0"] {
            assert!(!is_same(wrong, &token));
        }
        assert!(!is_same(b"", &Token::new("")));
    }

    #[test]
    fn the_scheme_must_be_bearer() {
        assert_eq!(bearer(b"Bearer abc"), b"abc");
        assert_eq!(bearer(b"bearer  abc "), b"abc");
        for wrong in [&b""[..], b"abc", b"Basic abc", b"Bearer"] {
            assert_eq!(bearer(wrong), b"");
        }
    }
}
