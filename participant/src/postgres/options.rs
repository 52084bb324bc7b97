//! How to reach the database, and what branches may take of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use assent_common::{ParticipantName, limits};

use crate::store::place_of_url;

/// How a database is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user[:password]@host[:port]/database`. May hold a password: never shown.
    pub url: String,
    /// A file with the password; read with every connection, so that a new one needs no restart.
    pub password_file: Option<PathBuf>,
    /// Whose branches these are: a database that another participant has claimed is refused.
    pub participant: Option<ParticipantName>,
    /// The isolation of branches.
    pub isolation: Isolation,
    /// Pools for branches, beside one of the agent's own.
    pub connections_max: usize,
    /// How long the statements of one branch may take, together, in milliseconds.
    pub branch_timeout_ms: u64,
    /// How long connecting may take, and how long a call of the agent's own.
    pub call_timeout: Duration,
    /// Start although the settings of the server would lose votes.
    pub allow_unsafe: bool,
}

/// The isolation level of branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// What PostgreSQL does by default.
    ReadCommitted,
    /// Snapshot isolation.
    RepeatableRead,
    /// Serialisable: the whole is, if all branches are.
    #[default]
    Serializable,
}

impl Isolation {
    /// The words of SQL.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// The word of a setting.
impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadCommitted => "read-committed",
            Self::RepeatableRead => "repeatable-read",
            Self::Serializable => "serializable",
        })
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];
        all.into_iter().find(|it| it.to_string() == text).ok_or_else(|| {
            format!("{text:?} is none of read-committed, repeatable-read, serializable")
        })
    }
}

impl PostgresOptions {
    /// The options for this URL that one would choose.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            participant: None,
            isolation: Isolation::default(),
            connections_max: limits::SQL_CONNECTIONS_DEFAULT,
            branch_timeout_ms: limits::SQL_BRANCH_MS_DEFAULT,
            call_timeout: Duration::from_secs(5),
            allow_unsafe: false,
        }
    }

    /// The URL without its user, its password and its parameters.
    #[must_use]
    pub fn address(&self) -> String {
        let (scheme, place) = place_of_url(&self.url);
        format!("{}://{place}", scheme.unwrap_or("postgres"))
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("address", &self.address())
            .field("password_file", &self.password_file)
            .field("participant", &self.participant)
            .field("isolation", &self.isolation)
            .field("connections_max", &self.connections_max)
            .field("branch_timeout_ms", &self.branch_timeout_ms)
            .field("call_timeout", &self.call_timeout)
            .field("allow_unsafe", &self.allow_unsafe)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_never_holds_a_password() {
        for (url, address) in [
            ("postgres://app:secret@host:5433/shop", "postgres://host:5433/shop"),
            ("postgresql://app:s@cret@host/shop?sslmode=disable", "postgresql://host/shop"),
            ("postgres://host/shop?user=app&password=secret", "postgres://host/shop"),
        ] {
            let options = PostgresOptions::new(url);
            assert_eq!(options.address(), address);
            assert!(!format!("{options:?}").contains("cret"), "{options:?}");
        }
    }

    #[test]
    fn a_level_is_read_as_it_is_written() {
        for level in [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable]
        {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("chaos".parse::<Isolation>().unwrap_err().contains("repeatable-read"));
    }
}
