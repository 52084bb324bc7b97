//! What the promises need of a server: one table, [`TABLE`]. It is checked at every connect and by the pulse, shown by
//! `assent doctor`, and printed as `docs/reference/servers.md`.
//!
//! ```text
//! look ── INFO, CONFIG GET …, ACL GETUSER …, EVAL, MULTI … DISCARD ──► Seen ── judge ──► Finding, one for each row
//! ```
//!
//! What a row asks is pure: it sees what the server said, and nothing else.

mod look;
mod page;
mod rows;

use std::collections::HashMap;

use super::kind::{ServerId, ServerKind, Version};
use super::rights::Rights;

pub(super) use look::{look, look_again};
pub use page::page;
pub use rows::TABLE;

/// What comes of a row that is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is said, and the agent works.
    Advice,
    /// The agent waits until it is met; that is a matter of time.
    Waits,
    /// The agent does not work with this server, unless it is told to put up with it.
    Refused,
}

/// Versions of one kind of server: from one, before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    from: Version,
    before: Option<Version>,
}

impl Range {
    const ALL: Self = Self::from(Version(0, 0, 0));

    const fn from(from: Version) -> Self {
        Self { from, before: None }
    }

    const fn between(from: Version, before: Version) -> Self {
        Self { from, before: Some(before) }
    }

    fn has(&self, version: Version) -> bool {
        version >= self.from && self.before.is_none_or(|before| version < before)
    }
}

/// The servers that a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers {
    redis: Option<Range>,
    valkey: Option<Range>,
}

impl Servers {
    const ALL: Self = Self { redis: Some(Range::ALL), valkey: Some(Range::ALL) };

    fn have(&self, id: ServerId) -> bool {
        let range = match id.kind {
            ServerKind::Redis => self.redis,
            ServerKind::Valkey => self.valkey,
        };
        range.is_some_and(|range| range.has(id.version))
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Requirement {
    /// What is looked at.
    pub name: &'static str,
    /// What it must be, in words.
    pub needs: &'static str,
    /// The servers that it is asked of.
    pub of: Servers,
    /// What comes of it if it is not so.
    pub weight: Weight,
    /// What would happen.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// How we know.
    pub source: &'static str,
    met: fn(&Seen) -> Met,
}

/// Whether a row is met, with what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Met {
    Yes(String),
    No(String),
    /// It is not, and what to do depends on what was found.
    Lacks {
        found: String,
        fix: String,
    },
    /// It could not be looked at: what kept us, and what to do about that. At most this comes of it.
    Hidden(Weight, &'static str, &'static str),
    /// Only this server is in no state to be asked; another row says so.
    NotAsked,
}

/// Why a part of a server cannot be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// The agent's user may not.
    Forbidden,
    /// The server has no command of that name.
    NoCommand,
}

/// What a server said of itself.
#[derive(Debug, Clone)]
struct Seen {
    id: ServerId,
    info: HashMap<String, String>,
    config: Result<HashMap<String, String>, Hidden>,
    /// The keys and commands of the user `default`.
    default_user: Result<(String, String), Hidden>,
    /// Those of the agent's user.
    own_rules: Result<(String, String), Hidden>,
    /// What it says to a script that does nothing.
    lua: Result<(), String>,
    rights: Rights,
    /// [`Examined::file_off_in`] of the look before.
    file_off_in: Option<String>,
    /// The name of the agent's user.
    user: String,
}

impl Seen {
    fn info(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    /// Whether the first append-only file is being written. A server that was started without one
    /// has no base until then. One that had a file before shows the size of that, so that the agent
    /// remembers that it saw the file switched off.
    fn is_first_rewrite(&self) -> bool {
        let is_on = self.info("aof_enabled") == "1";
        let was_off = self.file_off_in.as_deref() == Some(self.info("run_id"));
        let fields = ["aof_rewrite_in_progress", "aof_rewrite_scheduled"];
        let runs = fields.iter().any(|field| self.info(field) == "1");
        // One that failed is tried again by the server, after a while.
        let has_failed = self.info("aof_last_bgrewrite_status") == "err";
        let is_first = self.info("aof_base_size") == "0";
        is_on && (was_off && (runs || has_failed) || is_first && runs)
    }

    /// Compares a setting.
    fn setting(&self, name: &str, is_met: impl Fn(&str) -> bool) -> Met {
        match &self.config {
            Ok(config) => match config.get(name).map(String::as_str) {
                Some(value) if is_met(value) => Met::Yes(value.to_owned()),
                Some(value) => Met::No(value.to_owned()),
                None => Met::NotAsked,
            },
            Err(Hidden::Forbidden) => Met::Hidden(
                Weight::Refused,
                "CONFIG GET is not allowed",
                "allow the agent's user CONFIG GET: redis-cli ACL SETUSER USER '+config|get'",
            ),
            Err(Hidden::NoCommand) => Met::Hidden(
                Weight::Refused,
                "CONFIG is renamed or disabled there",
                "no right of the agent's user helps: take `rename-command CONFIG` out of the server's \
                 configuration; or look there yourself, and start the agent with --allow-unsafe-redis",
            ),
        }
    }
}

/// What came of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What comes of it, and what to do; nothing if all is well.
    pub problem: Option<Problem>,
}

/// What is wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What comes of it.
    pub weight: Weight,
    /// What it must be.
    pub needs: &'static str,
    /// What would happen.
    pub why: &'static str,
    /// What to do.
    pub fix: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, found, problem } = self;
        match problem {
            None => write!(f, "{name} is {found}"),
            Some(Problem { needs, why, fix, .. }) => {
                write!(f, "{name} is {found} and must be {needs} ({why}): {fix}")
            }
        }
    }
}

/// What a server is, and what came of each row that it is asked.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Its kind and version.
    pub id: ServerId,
    /// The id of its process life.
    pub run_id: String,
    /// The rows.
    pub findings: Vec<Finding>,
    /// The bytes of one request, or of one queued transaction, above which it cuts the connection.
    pub request_bytes_max: Option<usize>,
    /// What the agent's user may do.
    pub rights: Rights,
    /// The id of the process life that had no complete append-only file: it was off, or its first
    /// rewrite is under way.
    pub(super) file_off_in: Option<String>,
    /// The name of the agent's user.
    user: String,
    /// Its keys and commands.
    own_rules: Result<(String, String), Hidden>,
}

impl Examined {
    /// The name of the agent's user.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Whether the agent's user has the same keys and commands as at another look.
    pub(super) fn has_the_rules_of(&self, other: &Self) -> bool {
        self.own_rules == other.own_rules
    }

    /// The rows of this weight that are not met, in words.
    #[must_use]
    pub fn problems(&self, weight: Weight) -> Vec<String> {
        let is_it = |finding: &&Finding| {
            finding.problem.as_ref().is_some_and(|problem| problem.weight == weight)
        };
        self.findings.iter().filter(is_it).map(ToString::to_string).collect()
    }
}

fn judge(seen: Seen) -> Examined {
    let findings = TABLE.iter().filter(|row| row.of.have(seen.id)).filter_map(|row| {
        let (name, needs, why) = (row.name, row.needs, row.why);
        let problem = |weight, fix: &str| Some(Problem { weight, needs, why, fix: fix.into() });
        Some(match (row.met)(&seen) {
            Met::NotAsked => return None,
            Met::Yes(found) => Finding { name, found, problem: None },
            Met::No(found) => Finding { name, found, problem: problem(row.weight, row.fix) },
            Met::Lacks { found, fix } => {
                Finding { name, found, problem: problem(row.weight, &fix) }
            }
            Met::Hidden(most, why_not, fix) => {
                let found = format!("not known, because {why_not},");
                Finding { name, found, problem: problem(row.weight.min(most), fix) }
            }
        })
    });
    let findings = findings.collect();
    let is_off = seen.info("aof_enabled") == "0" || seen.is_first_rewrite();
    let limit =
        seen.config.as_ref().ok().and_then(|config| config.get("client-query-buffer-limit"));
    Examined {
        id: seen.id,
        run_id: seen.info("run_id").to_owned(),
        file_off_in: is_off.then(|| seen.info("run_id").to_owned()),
        findings,
        request_bytes_max: limit.and_then(|limit| limit.parse().ok()),
        rights: seen.rights,
        user: seen.user,
        own_rules: seen.own_rules,
    }
}
