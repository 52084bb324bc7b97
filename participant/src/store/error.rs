//! Why the store could not be opened or asked.

use assent_common::ErrorCode;
use assent_common::outcome::Refusal;

/// Why the store could not be opened or asked. Never shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The URL is not one of Redis.
    #[error("the Redis URL {address} is not valid: {reason}")]
    BadUrl {
        /// The URL without user and password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no connection, or it broke.
    #[error("Redis at {address} is not available: {reason}")]
    Unavailable {
        /// The URL without user and password.
        address: String,
        /// What was met.
        reason: String,
    },
    /// It is there, and refuses what an agent needs of it: it has no memory left, say.
    #[error("Redis at {address} refuses what an agent needs of it: {reason}")]
    Refuses {
        /// The URL without user and password.
        address: String,
        /// What kind of no it is.
        code: ErrorCode,
        /// The words of Redis.
        reason: String,
    },
    /// The settings of Redis would lose votes.
    #[error("Redis at {address} would lose votes:\n  - {}", violations.join("\n  - "))]
    Unsafe {
        /// The URL without user and password.
        address: String,
        /// Each setting with its value and the fix.
        violations: Vec<String>,
    },
    /// It will be fit to be used by itself, in a while.
    #[error("Redis at {address} is not ready yet:\n  - {}", reasons.join("\n  - "))]
    NotYet {
        /// The URL without user and password.
        address: String,
        /// What is waited for.
        reasons: Vec<String>,
    },
    /// Another participant keeps its branches there.
    #[error(
        "Redis at {address} belongs to participant {owner}, so that {name} cannot use it: each participant needs a \
         Redis, or a database of one, of its own; several agents of one participant carry the same name"
    )]
    Claimed {
        /// The URL without user and password.
        address: String,
        /// Whose it is.
        owner: String,
        /// Who wanted it.
        name: String,
    },
    /// What is stored under the control key cannot be read.
    #[error("the control hash {key} holds what this version cannot read: {reason}")]
    Corrupt {
        /// The control key.
        key: String,
        /// What was met.
        reason: String,
    },
}

impl StoreError {
    /// As the answer to a message that was not even begun.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Refuses { code, .. } => *code,
            _ => ErrorCode::RedisUnavailable,
        };
        Refusal::new(code, self.to_string())
    }
}
