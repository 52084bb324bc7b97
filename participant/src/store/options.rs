//! How to reach the Redis, and what to put up with.

use std::path::PathBuf;
use std::time::Duration;

use assent_common::{ParticipantName, limits};

/// How a [`super::Store`] is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// `redis://[user:password@]host:port[/db]` or `unix:///path/to.sock`. May hold a password: never shown.
    pub url: String,
    /// A file with the password; read with every connection, so that a new one needs no restart.
    pub password_file: Option<PathBuf>,
    /// Whose branches these are: a Redis that another participant has claimed is refused. `None` claims nothing.
    pub participant: Option<ParticipantName>,
    /// The name of the control hash.
    pub control_key: String,
    /// How long a call may take before its outcome counts as unknown.
    pub response_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Start although the settings of Redis would lose votes; the violations become warnings.
    pub allow_unsafe_redis: bool,
    /// How many replicas must have a vote, and an outcome, before it is answered.
    pub min_replicas: u32,
    /// The most bytes that a key may take in Redis for a command that has no handler: those run on
    /// copies.
    pub shadow_bytes_max: u64,
    /// Where the other agents of the Redis reach this one.
    pub standby: AgentAddress,
}

/// Where other agents reach an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAddress {
    /// Nowhere, or it does not know.
    Nowhere,
    /// The base URL of its API.
    Url(String),
    /// This port, at the address from which it is connected to the Redis.
    Port(u16),
}

impl StoreOptions {
    /// The options for this URL that one would choose.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            participant: None,
            control_key: "assent:ctl".to_owned(),
            response_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            allow_unsafe_redis: false,
            min_replicas: 0,
            shadow_bytes_max: limits::SHADOW_BYTES_MAX,
            standby: AgentAddress::Nowhere,
        }
    }

    /// The URL without its user and password.
    #[must_use]
    pub fn address(&self) -> String {
        match place_of_url(&self.url) {
            (None | Some(""), place) => place.to_owned(),
            (Some(scheme), place) => format!("{scheme}://{place}"),
        }
    }
}

/// The scheme of a server's URL, if it has one, and where it leads: without user and password,
/// which may stand among its parameters too (`?user=…&pass=…`).
pub(crate) fn place_of_url(url: &str) -> (Option<&str>, &str) {
    let (scheme, rest) = url.split_once("://").map_or((None, url), |(it, rest)| (Some(it), rest));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    (scheme, place.split('?').next().unwrap_or_default())
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("address", &self.address())
            .field("password_file", &self.password_file)
            .field("participant", &self.participant)
            .field("control_key", &self.control_key)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("allow_unsafe_redis", &self.allow_unsafe_redis)
            .field("min_replicas", &self.min_replicas)
            .field("shadow_bytes_max", &self.shadow_bytes_max)
            .field("standby", &self.standby)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_never_holds_a_password() {
        for (url, address) in [
            ("redis://:secret@host:6379/3", "redis://host:6379/3"),
            ("redis://user:s@cret@host", "redis://host"),
            ("unix:///run/redis.sock?pass=secret", "unix:///run/redis.sock"),
        ] {
            let options = StoreOptions::new(url);
            assert_eq!(options.address(), address);
            assert!(!format!("{options:?}").contains("cret"), "{options:?}");
        }
    }
}
