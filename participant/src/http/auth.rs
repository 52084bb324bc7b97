//! The bearer token. Health probes are open; everything else needs the token if one is configured.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use assent_client::Token;
use assent_common::ErrorCode;

use super::App;
use super::reply::Rejection;

/// Lets a request through if no token is configured, or if it carries the token.
pub(crate) async fn require_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &app.token else { return next.run(request).await };
    let sent = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    if is_same(sent, token) {
        return next.run(request).await;
    }
    Rejection::new(ErrorCode::Unauthorized, "the bearer token is missing or wrong").into_response()
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
}
