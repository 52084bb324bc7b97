//! The value of the owner key: who owns the Redis, and how the others reach it.

use std::fmt;

use assent_client::Token;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// `<agent>.<claim> <secret> <base URL>`: the name of the owner's connection, what only those can
/// tell who may read the key, and where the owner is reached, if it is. Empty for nobody. An older
/// version has the first word only.
#[derive(Clone, PartialEq, Eq)]
pub struct Guard(String);

/// What the name of a connection ends in that has no name in the server's list.
pub(super) const PULSE: &str = ".p";

/// The agent that owns the Redis, as another agent of it finds it.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherOwner {
    guard: Guard,
    client: Option<u64>,
    url: String,
}

impl Guard {
    /// A new one, whose secret nobody can guess.
    pub(super) fn new(connection: &str, url: Option<&str>) -> Self {
        // The most of a UUIDv7 is random.
        let secret = [(); 2].map(|()| Uuid::now_v7().simple().to_string()).concat();
        Self(format!("{connection} {secret} {}", url.unwrap_or_default()))
    }

    pub(in super::super) fn read(value: Option<String>) -> Self {
        Self(value.unwrap_or_default())
    }

    pub(in super::super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the owner's connection, which may be shown.
    pub(in super::super) fn connection(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Whether its owner is known by a pulse only.
    pub(in super::super) fn has_pulse(&self) -> bool {
        self.connection().ends_with(PULSE)
    }

    /// The agent.
    pub(super) fn agent(&self) -> &str {
        self.connection().split('.').next().unwrap_or_default()
    }

    fn url(&self) -> Option<&str> {
        let url = self.0.splitn(3, ' ').nth(2)?;
        // It is shown to people. Whoever may write the key could write anything.
        (!url.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic())).then_some(url)
    }

    /// What shows the owner that who says something to it may read the owner key, and has the
    /// participant's token: a hash, because whoever may write the key could name an address that
    /// the token is not for.
    #[must_use]
    pub fn proof(&self, token: Option<&Token>, word: &str) -> String {
        let token = Sha256::digest(token.map_or("", Token::expose));
        let hash = Sha256::new().chain_update(token).chain_update(&self.0);
        let hash = hash.chain_update([0]).chain_update(word).finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.connection()).finish()
    }
}

impl OtherOwner {
    /// Nothing if it says no address.
    pub(super) fn new(guard: &Guard, client: Option<u64>) -> Option<Self> {
        let url = guard.url()?.to_owned();
        Some(Self { guard: guard.clone(), client, url })
    }

    pub(in super::super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The id of its connection in the server's list, where that has shown it.
    pub(in super::super) const fn client(&self) -> Option<u64> {
        self.client
    }

    /// The base URL of its API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// [`Guard::proof`].
    #[must_use]
    pub fn proof(&self, token: Option<&Token>, word: &str) -> String {
        self.guard.proof(token, word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secrets and values never reach logs.
    #[test]
    fn the_secret_is_not_shown_and_no_two_are_alike() {
        let guard = Guard::new("one.1.a", Some("http://127.0.0.1:7710"));
        assert_eq!(guard.connection(), "one.1.a");
        assert_eq!(guard.url(), Some("http://127.0.0.1:7710"));
        assert_eq!(format!("{guard:?}"), "Guard(\"one.1.a\")");
        assert_ne!(guard, Guard::new("one.1.a", Some("http://127.0.0.1:7710")));
        assert_eq!(Guard::new("one.1.s", None).url(), None);
        let older = Guard::read(Some("one.1".to_owned()));
        assert_eq!((older.connection(), older.url()), ("one.1", None));
        for url in ["http://a b", "http://a\n[+] data", "http://a\u{202e}"] {
            assert_eq!(Guard::read(Some(format!("one.1.a s3cret {url}"))).url(), None, "{url:?}");
        }
    }

    #[test]
    fn a_proof_is_of_one_ownership_one_token_and_one_word() {
        let guard = Guard::new("one.1.a", None);
        let token = Token::new("s3cret");
        let proof = guard.proof(Some(&token), "batch");
        assert_eq!(proof, guard.proof(Some(&token), "batch"));
        assert!(!proof.contains("s3cret"));
        for other in [
            guard.proof(None, "batch"),
            guard.proof(Some(&token), "ends"),
            Guard::new("one.1.a", None).proof(Some(&token), "batch"),
        ] {
            assert_ne!(proof, other);
        }
    }
}
