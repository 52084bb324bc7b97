//! How patient and how roomy a server's listeners are.

use std::time::Duration;

/// Connections of one listener at the most, if the process may have that many descriptors: each takes some 16 KiB.
const CONNECTIONS_DEFAULT: usize = 20_000;

/// How patient and how roomy a server's listeners are.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Milliseconds for the head of a request, from its first byte, and for a new connection's first one.
    pub header_timeout_ms: u64,
    /// Milliseconds for the whole body of a request.
    pub body_timeout_ms: u64,
    /// Milliseconds that a connection may be idle between requests. Longer than Assent's own clients keep theirs, so that
    /// it is not the server that closes a connection on which a request is just being sent.
    pub idle_timeout_ms: u64,
    /// Milliseconds that a client may take no byte of an answer.
    pub write_timeout_ms: u64,
    /// Connections of the public listener at the most. Fewer where the process has not the descriptors for them.
    pub connections_max: usize,
    /// Bytes of requests that are held at a time: bodies that are read, and ops of transactions under way.
    pub request_bytes_max: usize,
    /// Names that a request may be addressed to, beside those of this machine, where no token is asked for.
    pub allowed_hosts: Vec<String>,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_timeout_ms: 120_000,
            write_timeout_ms: 30_000,
            connections_max: CONNECTIONS_DEFAULT,
            request_bytes_max: 256 * 1024 * 1024,
            allowed_hosts: Vec::new(),
        }
    }
}

/// The same as durations, for the connections.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the head of a request, and for a new connection's first one.
    pub header: Duration,
    /// For the whole body of a request.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
    /// That a client may take no byte of an answer.
    pub write: Duration,
}

impl Patience {
    /// That of these options.
    #[must_use]
    pub const fn new(options: &EdgeOptions) -> Self {
        Self {
            header: Duration::from_millis(options.header_timeout_ms),
            body: Duration::from_millis(options.body_timeout_ms),
            idle: Duration::from_millis(options.idle_timeout_ms),
            write: Duration::from_millis(options.write_timeout_ms),
        }
    }

    /// How often a connection is looked at: what may happen meanwhile is never late by more than its own limit.
    pub(crate) fn shortest(&self) -> Duration {
        self.header.min(self.idle).min(self.write).max(Duration::from_millis(1))
    }
}
