//! The servers that the tests run on: several versions of Redis and Valkey beside each other, as `make servers` installs
//! them.
//!
//! A test that is about Assent runs on [`chosen`], which `ASSENT_TEST_SERVER` names; `make test` runs the important ones once
//! for each server. A test that is about the differences of servers goes through [`all`], or asks for one by [`named`].

pub mod file;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The environment variable that names the server to test on, one of [`NAMES`]; without it, the system's Redis.
pub const CHOICE: &str = "ASSENT_TEST_SERVER";

/// The environment variable that says where the servers are; without it, `target/servers` of the workspace.
pub const FOLDER: &str = "ASSENT_SERVERS_DIR";

/// All names, the same as the programs in the folder.
pub const NAMES: [&str; 4] = ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-9.1"];

/// Who makes a server. Their versions say different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

/// A server program that is installed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// One of [`NAMES`], or `redis-server` for the system's.
    pub name: &'static str,
    /// Who makes it.
    pub kind: Kind,
    /// Its version, as the program says it: `(7, 0, 15)`.
    pub version: (u16, u16, u16),
    /// The program.
    pub program: PathBuf,
}

impl Server {
    fn at(name: &'static str, program: PathBuf) -> Option<Self> {
        let output = Command::new(&program).arg("--version").output().ok()?;
        let (kind, version) = parse(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { name, kind, version, program })
    }

    /// The program as text, as options take it.
    ///
    /// # Panics
    /// If its path is not UTF-8.
    #[must_use]
    pub fn program(&self) -> &str {
        self.program.to_str().expect("a path in UTF-8")
    }

    /// Whether it is a Redis of this version or a later one.
    #[must_use]
    pub fn is_redis_from(&self, major: u16, minor: u16) -> bool {
        self.kind == Kind::Redis && self.version >= (major, minor, 0)
    }

    /// Whether it is the oldest one that Assent takes, without what came later: sole ownership, `PEXPIRETIME`.
    #[must_use]
    pub fn is_redis_6_2(&self) -> bool {
        self.kind == Kind::Redis && self.version < (7, 0, 0)
    }

    /// Whether it is a Valkey of this version or a later one.
    #[must_use]
    pub fn is_valkey_from(&self, major: u16, minor: u16) -> bool {
        self.kind == Kind::Valkey && self.version >= (major, minor, 0)
    }
}

/// The server that a test runs on which is about Assent and not about servers.
///
/// # Panics
/// If the server that the environment asks for is none, or is not installed.
#[must_use]
pub fn chosen() -> Server {
    static CHOSEN: OnceLock<Server> = OnceLock::new();
    CHOSEN.get_or_init(choose).clone()
}

fn choose() -> Server {
    let Ok(name) = std::env::var(CHOICE) else {
        let system = Server::at("redis-server", "redis-server".into());
        return system.expect("redis-server must be installed: `make redis`");
    };
    let known = NAMES.into_iter().find(|known| *known == name);
    let known = known.unwrap_or_else(|| panic!("{CHOICE}={name}: there are {NAMES:?}"));
    let server = installed(known);
    server.unwrap_or_else(|| panic!("{CHOICE}={name}: it is not in {}", folder().display()))
}

/// Every server that is installed. What is not there is said; with `CI=true` everything must be.
///
/// # Panics
/// If none is there, or if one is missing where `CI=true`.
#[must_use]
pub fn all() -> Vec<Server> {
    let servers: Vec<_> = NAMES.into_iter().filter_map(named).collect();
    assert!(!servers.is_empty(), "no server is in {}: `make servers`", folder().display());
    servers
}

/// The server of this name, one of [`NAMES`]. If it is not there that is said; with `CI=true` it must be.
///
/// # Panics
/// If it is missing where `CI=true`, or if there is no such name.
#[must_use]
pub fn named(name: &'static str) -> Option<Server> {
    assert!(NAMES.contains(&name), "{name} is none of {NAMES:?}");
    let server = installed(name);
    if server.is_none() {
        let said =
            format!("{name} is not in {}, and not tested: `make servers`", folder().display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
        let _nobody_reads = writeln!(std::io::stderr(), "{said}");
    }
    server
}

fn installed(name: &'static str) -> Option<Server> {
    Server::at(name, folder().join(name))
}

fn folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers");
    std::env::var_os(FOLDER).map_or_else(default, PathBuf::from)
}

/// `Redis server v=7.0.15 sha=...`
fn parse(said: &str) -> Option<(Kind, (u16, u16, u16))> {
    let mut words = said.split_whitespace();
    let kind = match words.next()? {
        "Redis" => Kind::Redis,
        "Valkey" => Kind::Valkey,
        _ => return None,
    };
    let version = words.find_map(|word| word.strip_prefix("v="))?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    Some((kind, (next()?, next()?, next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_the_program_says_it() {
        let redis = parse("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n");
        assert_eq!(redis, Some((Kind::Redis, (7, 0, 15))));
        let valkey = parse("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64");
        assert_eq!(valkey, Some((Kind::Valkey, (9, 1, 2))));
        assert_eq!(parse("Python 3.11.7"), None);
    }

    #[test]
    fn every_server_is_what_its_name_says() {
        for server in all() {
            let kind = format!("{:?}", server.kind).to_lowercase();
            let (major, minor, _) = server.version;
            assert_eq!(server.name, format!("{kind}-{major}.{minor}"));
        }
    }
}
