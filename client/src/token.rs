//! The bearer token, of whoever asks and of whoever is asked. It is never printed.

use std::fmt;

/// A bearer token (RFC 6750).
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the token as it stands in its file, without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself, to send.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether an `Authorization` header carries this token. Compares in a time that depends on the length of what was
    /// sent only, so that a token cannot be guessed byte by byte. An empty token admits nobody.
    #[must_use]
    pub fn admits(&self, authorization: &[u8]) -> bool {
        let (sent, token) = (bearer(authorization), self.0.as_bytes());
        let mut difference = sent.len() ^ token.len();
        for (index, byte) in sent.iter().enumerate() {
            let expected = token.get(index).copied().unwrap_or(0);
            difference |= usize::from(std::hint::black_box(byte ^ expected));
        }
        difference == 0 && !token.is_empty()
    }
}

/// The token of an `Authorization` header; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(authorization: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"bearer ";
    match authorization.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token.trim_ascii(),
        Some(_) | None => b"",
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_under_its_scheme_is_admitted() {
        let token = Token::new("s3cret\n");
        assert!(token.admits(b"Bearer s3cret") && token.admits(b"bearer  s3cret "));
        let wrong: [&[u8]; 7] = [
            b"",
            b"s3cret",
            b"Basic s3cret",
            b"Bearer",
            b"Bearer s3cre",
            b"Bearer S3cret",
            b"Bearer s3cret\0",
        ];
        for wrong in wrong {
            assert!(!token.admits(wrong), "{}", wrong.escape_ascii());
        }
        assert!(!Token::new("").admits(b"Bearer "));
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
