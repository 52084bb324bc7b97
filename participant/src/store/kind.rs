//! Which server this is, and what it can: the one place that reads its version.
//!
//! Valkey answers `redis_version` too, with the version of Redis that it left (7.2.4, whatever its own), so that a version
//! means nothing without the kind. What depends on a version asks [`Features`], or stands in [`super::requirements`].

use std::collections::HashMap;
use std::fmt;

/// Who makes the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerKind {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        })
    }
}

/// A version: major, minor, patch. Numbers of different kinds of servers cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u16, pub u16, pub u16);

impl Version {
    /// From text like `7.0.15` or `9.1.0-rc1`; what cannot be read counts as 0, which is older than anything.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().unwrap_or(0)
        };
        let mut parts = text.split('.').map(digits);
        let mut next = || parts.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a server is: its kind and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId {
    /// Who makes it.
    pub kind: ServerKind,
    /// The version, as its maker counts.
    pub version: Version,
}

impl ServerId {
    /// From the fields of `INFO`.
    #[must_use]
    pub fn of_info(info: &HashMap<&str, &str>) -> Self {
        let version = |field| info.get(field).map(|text| Version::read(text));
        match version("valkey_version") {
            Some(version) => Self { kind: ServerKind::Valkey, version },
            None => {
                let version = version("redis_version").unwrap_or_default();
                Self { kind: ServerKind::Redis, version }
            }
        }
    }

    /// Whether it is at least this Redis, or at least this Valkey.
    #[must_use]
    pub fn is_from(&self, redis: Version, valkey: Version) -> bool {
        match self.kind {
            ServerKind::Redis => self.version >= redis,
            ServerKind::Valkey => self.version >= valkey,
        }
    }

    /// What it can.
    #[must_use]
    pub fn features(&self) -> Features {
        /// The first Valkey: a Redis 7.2.4 under another name.
        const VALKEY: Version = Version(7, 2, 0);
        Features {
            expire_time: self.is_from(Version(7, 0, 0), VALKEY),
            acl_dryrun: self.is_from(Version(7, 0, 0), VALKEY),
            field_expiry: self.is_from(Version(7, 4, 0), Version(9, 0, 0)),
            shortest_scores: self.is_from(Version(7, 2, 0), VALKEY),
            base_file: self.is_from(Version(7, 0, 0), VALKEY),
            cuts_torn_file: self.kind == ServerKind::Valkey && self.version >= Version(9, 1, 2),
        }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.version)
    }
}

/// What a server can, as far as it depends on its kind and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `PEXPIRETIME`, without which an owner leaves keys that expire to the script.
    pub expire_time: bool,
    /// `ACL DRYRUN`, and the same for scripts.
    pub acl_dryrun: bool,
    /// Fields of hashes may expire: `HPEXPIREAT`, `HPEXPIRETIME`.
    pub field_expiry: bool,
    /// The scores of sorted sets are spelt with the fewest digits that read as the same number (`0.1`); before, with 17
    /// (`0.10000000000000001`).
    pub shortest_scores: bool,
    /// The append-only file is a base, which a rewrite has written, and what was appended to it.
    pub base_file: bool,
    /// An append-only file that is torn within a `MULTI` is cut before it; elsewhere it is rewritten after each start of the
    /// server, which is why the agent needs `BGREWRITEAOF` there.
    pub cuts_torn_file: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(fields: &[(&str, &str)]) -> ServerId {
        ServerId::of_info(&fields.iter().map(|(name, value)| (*name, *value)).collect())
    }

    #[test]
    fn valkey_is_known_by_its_own_version() {
        let valkey = id(&[("redis_version", "7.2.4"), ("valkey_version", "9.1.2")]);
        assert_eq!(valkey.to_string(), "Valkey 9.1.2");
        assert!(valkey.features().field_expiry);
        let redis = id(&[("redis_version", "7.2.4")]);
        assert_eq!(redis.to_string(), "Redis 7.2.4");
        assert!(!redis.features().field_expiry);
        assert!(redis.features().shortest_scores);
        for (version, expire) in
            [("6.2.14", false), ("7.0.15", false), ("7.4.0", true), ("8.2.3", true)]
        {
            assert_eq!(id(&[("redis_version", version)]).features().field_expiry, expire);
        }
        let valkey = id(&[("redis_version", "7.2.4"), ("valkey_version", "8.1.0")]);
        assert!(!valkey.features().field_expiry);
        assert_eq!(id(&[]).version, Version(0, 0, 0));
    }

    #[test]
    fn a_version_is_three_numbers_whatever_follows() {
        assert_eq!(Version::read("7.0.15"), Version(7, 0, 15));
        assert_eq!(Version::read("9.1.0-rc1"), Version(9, 1, 0));
        assert_eq!(Version::read("8.2"), Version(8, 2, 0));
        assert_eq!(Version::read("unstable"), Version(0, 0, 0));
    }
}
