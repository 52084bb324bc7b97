//! Why the store could not be opened or asked.

use assent_common::ErrorCode;
use assent_common::outcome::{Failed, Refusal};

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
    #[error("Redis at {address} would lose votes: {}", violations.join("; "))]
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
    /// The URL is not one of PostgreSQL, or what it names is not there.
    #[error("the PostgreSQL URL {address} is not valid: {reason}")]
    PostgresBadUrl {
        /// The URL without user and password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no connection to PostgreSQL, or it broke.
    #[error("PostgreSQL at {address} is not available: {reason}")]
    PostgresUnavailable {
        /// The URL without user and password.
        address: String,
        /// What was met.
        reason: String,
    },
    /// PostgreSQL is there, and has no connection left for this.
    #[error("PostgreSQL at {address} has too much to do: {reason}")]
    PostgresBusy {
        /// The URL without user and password.
        address: String,
        /// What there is none left of.
        reason: String,
    },
    /// The settings of PostgreSQL would lose votes, or leave no room for any.
    #[error("PostgreSQL at {address} cannot be used: {}", violations.join("; "))]
    PostgresUnsafe {
        /// The URL without user and password.
        address: String,
        /// What is wrong, and the fix.
        violations: Vec<String>,
    },
    /// Another participant keeps its branches in this database.
    #[error(
        "the database {address} belongs to participant {owner}, so that {name} cannot use it: each \
         participant needs a database of its own; several agents of one participant carry the same \
         name"
    )]
    PostgresClaimed {
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
    /// As the answer to a message of which it is not known what came.
    #[must_use]
    pub fn unknown(&self) -> Failed {
        Failed::Unknown(self.to_string())
    }

    /// As the answer to a message that was not even begun.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Refuses { code, .. } => *code,
            Self::PostgresBusy { .. } => ErrorCode::Overloaded,
            Self::PostgresUnavailable { .. } => ErrorCode::PostgresUnavailable,
            _ => ErrorCode::RedisUnavailable,
        };
        Refusal::new(code, self.to_string())
    }
}
