//! The rows, most important first.

use super::super::kind::{ServerKind, Version};
use super::super::rights;
use super::{Hidden, Met, Range, Requirement, Seen, Servers, Weight};

/// The first patch of each series without a hole that others have used: series, Redis or Valkey, patch.
const PATCHED: [(ServerKind, Version); 5] = [
    (ServerKind::Redis, Version(7, 4, 9)),
    (ServerKind::Redis, Version(8, 0, 6)),
    (ServerKind::Redis, Version(8, 2, 6)),
    (ServerKind::Redis, Version(8, 4, 4)),
    (ServerKind::Redis, Version(8, 6, 3)),
];

/// The oldest version whose scripts and commands are what the Lua here expects.
const VERSION_MIN: Version = Version(6, 2, 0);

const fn of(redis: Option<Range>, valkey: Option<Range>) -> Servers {
    Servers { redis, valkey }
}

/// What the promises need of a server.
pub static TABLE: &[Requirement] = &[
    Requirement {
        name: "version",
        needs: "6.2 or later",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "the scripts need commands of 6.2",
        fix: "upgrade the server",
        source: "tests on 6.2.14, 7.0.15, 8.2.3 and Valkey 9.1.2",
        met: version,
    },
    Requirement {
        name: "role",
        needs: "master",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "a replica takes no writes, and loses its own when it is synchronised",
        fix: "point the agent at the master; it resolves the host name again for every connection",
        source: "tested: REPLICAOF under load",
        met: |seen| info(seen, "role", |role| role == "master"),
    },
    Requirement {
        name: "loading",
        needs: "0",
        of: Servers::ALL,
        weight: Weight::Waits,
        why: "the server is still loading its file",
        fix: "wait until it is done; an agent waits too, a starting one for two minutes",
        source: "INFO persistence",
        met: |seen| info(seen, "loading", |loading| loading == "0"),
    },
    Requirement {
        name: "appendonly",
        needs: "yes",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "without the append-only file nothing survives a restart",
        fix: "redis-cli CONFIG SET appendonly yes, wait until INFO says aof_rewrite_in_progress:0, and only \
              then redis-cli CONFIG REWRITE: a crash before would come back empty",
        source: "tested: a crash during the first rewrite comes back with no key, on all four",
        met: |seen| seen.setting("appendonly", |value| value == "yes"),
    },
    Requirement {
        name: "first rewrite",
        needs: "over",
        of: Servers::ALL,
        weight: Weight::Waits,
        why: "until the first append-only file is complete, a restart loses acknowledged writes",
        fix: "wait until INFO says aof_rewrite_in_progress:0; an agent waits too, a starting one \
              for two minutes",
        source: "tested: the same",
        met: first_rewrite,
    },
    Requirement {
        name: "appendfsync",
        needs: "always",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "a vote must be on disk before it is given",
        fix: "redis-cli CONFIG SET appendfsync always && redis-cli CONFIG REWRITE",
        source: "redis.io, persistence",
        met: |seen| seen.setting("appendfsync", |value| value == "always"),
    },
    Requirement {
        name: "no-appendfsync-on-rewrite",
        needs: "no",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "a rewrite would switch the fsync off",
        fix: "redis-cli CONFIG SET no-appendfsync-on-rewrite no && redis-cli CONFIG REWRITE",
        source: "redis.conf",
        met: |seen| seen.setting("no-appendfsync-on-rewrite", |value| value == "no"),
    },
    Requirement {
        name: "aof_last_write_status",
        needs: "ok",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "the disk of the server is full or failing",
        fix: "free space, then look at the log of the server",
        source: "INFO persistence",
        met: |seen| info(seen, "aof_last_write_status", |status| status == "ok"),
    },
    Requirement {
        name: "io-threads",
        needs: "1",
        of: of(Some(Range::from(Version(8, 0, 0))), Some(Range::from(Version(8, 0, 0)))),
        weight: Weight::Refused,
        why: "with more, the server answers before the write is on disk",
        fix: "set `io-threads 1` in the server's configuration and restart it",
        source: "tested: seen on 8.2.3 and, rarely, on Valkey 9.1.2; 6.2 and 7.0 are right with 4",
        met: |seen| seen.setting("io-threads", |value| value == "1"),
    },
    Requirement {
        name: "user default",
        needs: "allowed all keys and commands",
        of: of(
            Some(Range::between(Version(7, 0, 0), Version(8, 4, 4))),
            Some(Range::between(Version(0, 0, 0), Version(9, 1, 2))),
        ),
        weight: Weight::Refused,
        why: "the append-only file is loaded with that user's rights: what it may not run is dropped from every MULTI",
        fix: "give it `~* &* +@all`; it may be off, or have a password: \
              redis-cli ACL SETUSER default '~*' '&*' +@all, then ACL SAVE or CONFIG REWRITE; if the \
              server was started so, start it again",
        source: "redis#14541, fixed in 8.4.4 and 8.6; valkey#3983, right in 9.1.2; tested",
        met: default_user,
    },
    Requirement {
        name: "unexpected_error_replies",
        needs: "0",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "the server has dropped commands of its append-only file, or of its master: data is \
              missing, and nothing else shows that",
        fix: "look for CRITICAL in its log; give the user default all rights, and start the server \
              again before it rewrites its file, which still has what was dropped (if nothing that \
              matters was: redis-cli CONFIG RESETSTAT)",
        source: "INFO stats; tested: a file that was loaded by a limited user, on 7.0 and 8.2",
        met: |seen| {
            let is_none = |count: &str| count.is_empty() || count == "0";
            info(seen, "unexpected_error_replies", is_none)
        },
    },
    Requirement {
        name: "cluster_enabled",
        needs: "0",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "a branch with keys in several slots could be decided and never applied",
        fix: "use a server without cluster mode: no cluster of Redis or Valkey is supported",
        source: "tested: CROSSSLOT at the commit",
        met: |seen| info(seen, "cluster_enabled", |enabled| enabled == "0"),
    },
    Requirement {
        name: "Lua",
        needs: "available",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "scripts say what the ops of a branch come to",
        fix: "load the server's scripting engine (Valkey 9.1: the module lua), and allow the agent's user \
              `+eval +evalsha +script|load`",
        source: "tested: MODULE UNLOAD lua",
        met: lua,
    },
    Requirement {
        name: "rights",
        needs: "all that an agent uses",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "a branch that may not write what it voted for would wait for ever",
        fix: "`assent doctor --redis URL --acl` prints the least rights that work",
        source: "tested: a user without SET voted, and wrote nothing",
        met: rights_of_agent,
    },
    Requirement {
        name: "maxmemory-policy",
        needs: "noeviction or volatile-…",
        of: Servers::ALL,
        weight: Weight::Refused,
        why: "other policies may evict locks and staged writes",
        fix: "redis-cli CONFIG SET maxmemory-policy noeviction && redis-cli CONFIG REWRITE",
        source: "redis.io, eviction",
        met: |seen| info(seen, "maxmemory_policy", |policy| !policy.starts_with("allkeys")),
    },
    Requirement {
        name: "patch level",
        needs: "the first of its series without known security holes",
        of: of(Some(Range::from(Version(7, 4, 0))), None),
        weight: Weight::Advice,
        why: "whoever may run a script can take over the server",
        fix: "upgrade within the series: 7.4.9, 8.0.6, 8.2.6, 8.4.4, 8.6.3",
        source: "CVE-2025-49844, CVE-2025-67733, CVE-2026-23631",
        met: patch_level,
    },
    Requirement {
        name: "aof-load-corrupt-tail-max-size",
        needs: "0",
        of: of(Some(Range::from(Version(8, 4, 0))), None),
        weight: Weight::Advice,
        why: "the server would silently cut votes off a damaged file; the agent notices what is missing",
        fix: "redis-cli CONFIG SET aof-load-corrupt-tail-max-size 0 && redis-cli CONFIG REWRITE",
        source: "redis#14058",
        met: |seen| seen.setting("aof-load-corrupt-tail-max-size", |value| value == "0"),
    },
    Requirement {
        name: "activedefrag",
        needs: "no",
        of: of(Some(Range::between(Version(8, 0, 0), Version(8, 10, 0))), None),
        weight: Weight::Advice,
        why: "a file written while it runs may be unreadable",
        fix: "redis-cli CONFIG SET activedefrag no && redis-cli CONFIG REWRITE",
        source: "redis#15539, fixed in 8.10",
        met: |seen| seen.setting("activedefrag", |value| value == "no"),
    },
];

fn info(seen: &Seen, name: &str, is_met: fn(&str) -> bool) -> Met {
    let value = seen.info(name);
    if is_met(value) { Met::Yes(value.to_owned()) } else { Met::No(format!("{value:?}")) }
}

fn version(seen: &Seen) -> Met {
    let found = seen.id.to_string();
    if seen.id.version >= VERSION_MIN { Met::Yes(found) } else { Met::No(found) }
}

fn first_rewrite(seen: &Seen) -> Met {
    if seen.is_first_rewrite() { Met::No("under way".into()) } else { Met::Yes("over".into()) }
}

fn default_user(seen: &Seen) -> Met {
    let (keys, commands) = match &seen.default_user {
        Ok(user) => user,
        Err(Hidden::Forbidden) => {
            return Met::Hidden(
                Weight::Advice,
                "ACL GETUSER is not allowed",
                "allow the agent's user `+acl|getuser`, or look yourself: ACL GETUSER default",
            );
        }
        Err(Hidden::NoCommand) => {
            let fix = "look yourself into the server's configuration";
            return Met::Hidden(Weight::Advice, "ACL is renamed there", fix);
        }
    };
    let found = format!("{keys} {commands}");
    let has_keys = keys.split(' ').any(|pattern| pattern == "~*");
    let mut rules = commands.split(' ');
    let has_commands = rules.next() == Some("+@all") && rules.all(rights::spares_the_file);
    if has_keys && has_commands {
        Met::Yes(found)
    } else {
        // Without keys it begins with a space.
        Met::No(format!("limited to {:?}", found.trim()))
    }
}

fn lua(seen: &Seen) -> Met {
    match &seen.lua {
        Ok(()) => Met::Yes("there".to_owned()),
        Err(error) => Met::No(format!("not there ({error})")),
    }
}

/// What a rule allows, for people.
fn named(rule: &str) -> String {
    match rule.strip_prefix('~') {
        Some(keys) => format!("the keys {keys}"),
        None => rule.trim_start_matches('+').to_uppercase().replace('|', " "),
    }
}

fn rights_of_agent(seen: &Seen) -> Met {
    match seen.rights.missing() {
        None if seen.rights.untried() == ["discard"] => Met::Hidden(
            Weight::Advice,
            "DISCARD is not allowed",
            "allow the agent's user DISCARD: redis-cli ACL SETUSER USER +discard",
        ),
        None => Met::Hidden(
            Weight::Advice,
            "MULTI is not allowed",
            "allow the agent's user MULTI: redis-cli ACL SETUSER USER +multi",
        ),
        Some([]) => Met::Yes(seen.rights.summary().to_owned()),
        Some(missing) => {
            let untried = seen.rights.untried().iter().map(|name| format!("+{name}"));
            let missing: Vec<String> = missing.iter().cloned().chain(untried).collect();
            let names: Vec<String> = missing.iter().map(|rule| named(rule)).collect();
            let rules: Vec<String> = missing.iter().map(|rule| rights::quoted(rule)).collect();
            Met::Lacks {
                found: format!("without {}", names.join(", ")),
                fix: format!(
                    "allow its user what is missing: redis-cli ACL SETUSER USER {}; all that is \
                     used: `assent doctor --redis URL --acl`; a command that was renamed must get \
                     its name back",
                    rules.join(" ")
                ),
            }
        }
    }
}

fn patch_level(seen: &Seen) -> Met {
    let Version(major, minor, patch) = seen.id.version;
    let series = |(kind, Version(a, b, _)): &&(ServerKind, Version)| {
        *kind == seen.id.kind && (*a, *b) == (major, minor)
    };
    match PATCHED.iter().find(series) {
        Some((_, Version(_, _, first))) if patch < *first => Met::No(seen.id.to_string()),
        _ => Met::Yes(seen.id.to_string()),
    }
}
