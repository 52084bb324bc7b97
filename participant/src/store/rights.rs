//! What the agent's user may do: the one list of the commands that the agent and its scripts use, and the way to find out
//! which of them are allowed.
//!
//! They are queued in a `MULTI` that is discarded: Redis checks the rights of a command, and whether it has it at all, when
//! it is queued, and nothing is run. That needs no right of an administrator, as `ACL DRYRUN` does; it is there in every
//! version; and it is about the connection's own user, whatever that is.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, ServerError, Value};
use uuid::Uuid;

use super::kind::{Features, ServerId};

/// Who needs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Every agent.
    Always,
    /// An owner that writes by `EXEC`; without it, it writes by scripts, more slowly.
    Owner,
    /// An owner and its standbys; without it, they know each other by a pulse in Redis.
    Names,
    /// A branch that asks for a digest (`ASSENT.DIGEST`); without it, that branch is refused.
    Digest,
    /// A command that runs on copies; without it, that command is refused.
    Copies,
}

/// A command that the agent or its scripts use.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// As an ACL names it.
    pub name: &'static str,
    /// Who needs it.
    pub need: Need,
    /// Whether it stands in the append-only file.
    pub writes: bool,
    /// Words that are a whole command, to be queued and never run; `K` is a key below the control
    /// hash, which does not exist. Empty for what may not be queued, and for what is run with every
    /// connection anyway.
    probe: &'static [&'static str],
}

const fn reads(name: &'static str, probe: &'static [&'static str]) -> Right {
    Right { name, need: Need::Always, writes: false, probe }
}

const fn writes(name: &'static str, probe: &'static [&'static str]) -> Right {
    Right { name, need: Need::Always, writes: true, probe }
}

const fn owner(name: &'static str, probe: &'static [&'static str]) -> Right {
    Right { name, need: Need::Owner, writes: false, probe }
}

/// Every command that is used, but for those that only some versions have (see [`of_features`]).
pub static RIGHTS: &[Right] = &[
    reads("acl|getuser", &[]),
    reads("config|get", &[]),
    reads("info", &["INFO"]),
    reads("ping", &["PING"]),
    reads("time", &["TIME"]),
    reads("wait", &["WAIT", "0", "1"]),
    reads("eval", &["EVAL", "return 1", "0"]),
    reads("evalsha", &["EVALSHA", "0000000000000000000000000000000000000000", "0"]),
    reads("script|load", &["SCRIPT", "LOAD", "return 1"]),
    reads("multi", &[]),
    reads("discard", &[]),
    reads("get", &["GET", "K"]),
    reads("hexists", &["HEXISTS", "K", "f"]),
    reads("hget", &["HGET", "K", "f"]),
    reads("hgetall", &["HGETALL", "K"]),
    reads("hlen", &["HLEN", "K"]),
    reads("hmget", &["HMGET", "K", "f"]),
    reads("hscan", &["HSCAN", "K", "0"]),
    reads("hstrlen", &["HSTRLEN", "K", "f"]),
    reads("llen", &["LLEN", "K"]),
    reads("lrange", &["LRANGE", "K", "0", "0"]),
    reads("memory|usage", &["MEMORY", "USAGE", "K"]),
    reads("pttl", &["PTTL", "K"]),
    reads("scard", &["SCARD", "K"]),
    reads("sismember", &["SISMEMBER", "K", "m"]),
    reads("smembers", &["SMEMBERS", "K"]),
    reads("strlen", &["STRLEN", "K"]),
    reads("type", &["TYPE", "K"]),
    reads("xinfo|stream", &["XINFO", "STREAM", "K"]),
    reads("xlen", &["XLEN", "K"]),
    reads("xrange", &["XRANGE", "K", "-", "+"]),
    reads("xrevrange", &["XREVRANGE", "K", "+", "-"]),
    reads("zcard", &["ZCARD", "K"]),
    reads("zrange", &["ZRANGE", "K", "0", "0"]),
    reads("zscore", &["ZSCORE", "K", "m"]),
    writes("del", &["DEL", "K"]),
    writes("hdel", &["HDEL", "K", "f"]),
    writes("hincrby", &["HINCRBY", "K", "f", "1"]),
    writes("hincrbyfloat", &["HINCRBYFLOAT", "K", "f", "1"]),
    writes("hset", &["HSET", "K", "f", "v"]),
    writes("hsetnx", &["HSETNX", "K", "f", "v"]),
    writes("incrby", &["INCRBY", "K", "1"]),
    writes("lpop", &["LPOP", "K"]),
    writes("lpush", &["LPUSH", "K", "v"]),
    writes("lrem", &["LREM", "K", "0", "v"]),
    writes("lset", &["LSET", "K", "0", "v"]),
    writes("ltrim", &["LTRIM", "K", "0", "0"]),
    writes("persist", &["PERSIST", "K"]),
    writes("pexpireat", &["PEXPIREAT", "K", "1"]),
    writes("rpop", &["RPOP", "K"]),
    writes("rpush", &["RPUSH", "K", "v"]),
    writes("sadd", &["SADD", "K", "m"]),
    writes("set", &["SET", "K", "v"]),
    writes("srem", &["SREM", "K", "m"]),
    writes("unlink", &["UNLINK", "K"]),
    writes("xadd", &["XADD", "K", "*", "f", "v"]),
    writes("xdel", &["XDEL", "K", "0-1"]),
    writes("zadd", &["ZADD", "K", "1", "m"]),
    writes("zrem", &["ZREM", "K", "m"]),
    Right { need: Need::Names, ..reads("client|list", &["CLIENT", "LIST"]) },
    Right { need: Need::Names, ..reads("client|setname", &["CLIENT", "SETNAME", "n"]) },
    owner("exec", &[]),
    owner("getrange", &["GETRANGE", "K", "0", "0"]),
    owner("mget", &["MGET", "K"]),
    Right { need: Need::Owner, ..writes("mset", &["MSET", "K", "v"]) },
    owner("watch", &[]),
    Right { need: Need::Digest, ..reads("dump", &["DUMP", "K"]) },
    Right { need: Need::Digest, ..reads("hkeys", &["HKEYS", "K"]) },
    Right { need: Need::Copies, ..reads("copy", &["COPY", "K", "K"]) },
    Right { need: Need::Copies, ..writes("restore", &["RESTORE", "K", "0", ""]) },
];

/// Of servers that have, or need, this: a command, and how it is tried.
static SOME: [Right; 4] = [
    reads("bgrewriteaof", &["BGREWRITEAOF"]),
    reads("pexpiretime", &["PEXPIRETIME", "K"]),
    reads("hpexpiretime", &["HPEXPIRETIME", "K", "FIELDS", "1", "f"]),
    writes("hpexpireat", &["HPEXPIREAT", "K", "1", "FIELDS", "1", "f"]),
];

impl Right {
    fn command(&self, control_key: &str) -> Cmd {
        let mut command = Cmd::new();
        for word in self.probe {
            match *word {
                "K" => command.arg(format!("{control_key}:probe")),
                word => command.arg(word),
            };
        }
        command
    }
}

/// The commands that are used on a server that can do this.
pub fn of_features(features: &Features) -> impl Iterator<Item = &'static Right> + use<> {
    let [rewrite, expire_time, field_expire_time, field_expire] = &SOME;
    let some = [
        (!features.cuts_torn_file, rewrite),
        (features.expire_time, expire_time),
        (features.field_expiry, field_expire_time),
        (features.field_expiry, field_expire),
    ];
    let some = some.into_iter().filter_map(|(is_used, right)| is_used.then_some(right));
    RIGHTS.iter().chain(some)
}

/// The rules of a user with the least rights that work: all but the password and the patterns of
/// the keys.
fn least_rules(features: &Features, control_key: &str) -> Vec<String> {
    let mut rules = vec![
        "on".to_owned(),
        ">PASSWORD".to_owned(),
        "resetkeys".to_owned(),
        format!("~{control_key}*"),
        "~YOUR-KEYS*".to_owned(),
        "resetchannels".to_owned(),
        "-@all".to_owned(),
    ];
    let mut names: Vec<&str> = of_features(features).map(|right| right.name).collect();
    names.sort_unstable();
    rules.extend(names.into_iter().map(|name| format!("+{name}")));
    rules
}

/// The command that makes that user, quoted for a shell.
#[must_use]
pub fn least_acl(features: &Features, control_key: &str) -> String {
    let rules = least_rules(features, control_key);
    let rules: Vec<String> = rules.iter().map(|rule| quoted(rule)).collect();
    format!("ACL SETUSER agent {}", rules.join(" "))
}

/// The line of an ACL file, or of `redis.conf`, that makes that user. Nothing is quoted there.
#[must_use]
pub fn least_acl_of_file(features: &Features, control_key: &str) -> String {
    format!("user agent {}", least_rules(features, control_key).join(" "))
}

/// A word as a shell takes it for itself.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-@:._/".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{word}'") }
}

/// Whether a rule of the user `default` leaves it what the append-only file consists of.
pub(super) fn spares_the_file(rule: &str) -> bool {
    const SPARED: [&str; 5] = ["@dangerous", "@admin", "@pubsub", "@connection", "@scripting"];
    match rule.strip_prefix('-') {
        None => true,
        Some(category) if category.starts_with('@') => SPARED.contains(&category),
        Some(name) => !RIGHTS.iter().chain(&SOME).any(|right| right.writes && right.name == name),
    }
}

/// What the agent's user may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The rules that would give it what it lacks; not known where that cannot be tried out.
    missing: Option<Vec<String>>,
    /// Of `MULTI` and `DISCARD`, those that it may not use, so that nothing could be tried out.
    untried: Vec<&'static str>,
    /// Whether it may do all that an owner does which writes by `EXEC`.
    may_exec: bool,
    /// Whether it may name its connection, and list those of others.
    names: bool,
    /// Whether it may read and write every key.
    all_keys: bool,
    /// Whether it may make a digest of a key.
    digests: bool,
}

impl Rights {
    /// The rules that it lacks and needs; `None` if that is not known.
    pub(super) fn missing(&self) -> Option<&[String]> {
        self.missing.as_deref()
    }

    /// Which of `MULTI` and `DISCARD` it may not use.
    pub(super) fn untried(&self) -> &[&'static str] {
        &self.untried
    }

    /// Whether an owner may write by `EXEC`.
    pub(super) const fn may_exec(&self) -> bool {
        self.may_exec
    }

    /// Whether it may read and write every key. Where it may not, only the scripts say before a
    /// vote whether a branch may write its keys.
    pub(super) const fn has_all_keys(&self) -> bool {
        self.all_keys
    }

    /// Whether agents know each other by the names of their connections.
    pub(super) const fn has_names(&self) -> bool {
        self.names
    }

    /// In words.
    pub(super) fn summary(&self) -> &'static str {
        match (self.may_exec, self.all_keys) {
            (false, _) => {
                "all that is needed; without WATCH and EXEC, everything is written by scripts"
            }
            (true, _) if !self.names => {
                "all that is needed; without CLIENT LIST, an owner is known by a pulse in Redis"
            }
            (true, _) if !self.digests => "all that is needed, and no ASSENT.DIGEST",
            (true, false) => "all that is used; the keys are limited, so that each is asked for",
            (true, true) => "all that is used",
        }
    }
}

/// What an error of a queued command says about rights.
fn is_missing(error: &ServerError) -> bool {
    let text = error.to_string();
    error.code() == "NOPERM" || text.contains("unknown command")
}

fn is_about_keys(error: &ServerError) -> bool {
    error.to_string().contains("access")
}

async fn pipelined(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> RedisResult<Vec<Value>> {
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
}

/// Which of the two commands that everything else is tried out with may not be used. `DISCARD`
/// comes first, where it is an error that changes nothing: who may begin and not discard would be
/// left in a `MULTI`. And what is queued without one would be run.
async fn untried(connection: &mut MultiplexedConnection) -> RedisResult<Vec<&'static str>> {
    let mut untried = Vec::new();
    let mut discards = Pipeline::new();
    discards.cmd("DISCARD");
    let denied = |value: &Value| matches!(value, Value::ServerError(error) if is_missing(error));
    if pipelined(connection, &discards).await?.iter().any(denied) {
        untried.push("discard");
    }
    let mut begins = Pipeline::new();
    begins.cmd("MULTI").cmd("DISCARD");
    if untried.is_empty() && pipelined(connection, &begins).await?.iter().any(denied) {
        untried.push("multi");
    }
    Ok(untried)
}

/// Whether a command may be run on a key that does not exist, and then does nothing at all.
fn is_harmless(right: &Right) -> bool {
    const WRITES: [&str; 12] = [
        "del",
        "hdel",
        "lpop",
        "lrem",
        "ltrim",
        "persist",
        "pexpireat",
        "rpop",
        "srem",
        "unlink",
        "xdel",
        "zrem",
    ];
    let changes_nothing = right.need == Need::Always && right.name != "bgrewriteaof";
    changes_nothing && (!right.writes || WRITES.contains(&right.name))
}

/// The rules that are missing, where nothing can be queued: what is harmless is run. `None` if
/// nothing of that is missing, because the rest is not known.
async fn missing_of_harmless(
    connection: &mut MultiplexedConnection,
    id: ServerId,
    control_key: &str,
) -> RedisResult<Option<Vec<String>>> {
    let features = id.features();
    let harmless = of_features(&features).filter(|right| !right.probe.is_empty());
    let harmless: Vec<&Right> = harmless.filter(|right| is_harmless(right)).collect();
    let mut pipeline = Pipeline::new();
    for right in &harmless {
        pipeline.add_command(right.command(control_key));
    }
    let answers = pipelined(connection, &pipeline).await?;
    let lacks = |answer: &Value| match answer {
        Value::ServerError(error) => is_missing(error) && !is_about_keys(error),
        _ => false,
    };
    let lacking = harmless.iter().zip(&answers).filter(|(_, answer)| lacks(answer));
    let missing: Vec<String> = lacking.map(|(right, _)| format!("+{}", right.name)).collect();
    Ok((!missing.is_empty()).then_some(missing))
}

/// Tries out what this connection's user may do.
pub(super) async fn probe(
    connection: &mut MultiplexedConnection,
    id: ServerId,
    control_key: &str,
) -> RedisResult<Rights> {
    let untried = untried(connection).await?;
    if !untried.is_empty() {
        let missing = missing_of_harmless(connection, id, control_key).await?;
        return Ok(Rights { untried, missing, ..Rights::default() });
    }
    let watched = format!("{control_key}:probe");
    let mut guards = Pipeline::new();
    // Outside of a MULTI the one is an error that changes nothing, and inside the other is none.
    guards.cmd("EXEC").cmd("WATCH").arg(watched);
    let guards = pipelined(connection, &guards).await?;
    let probed: Vec<&Right> =
        of_features(&id.features()).filter(|right| !right.probe.is_empty()).collect();
    let any_key = format!("{}:probe", Uuid::now_v7());
    let mut pipeline = Pipeline::new();
    pipeline.cmd("MULTI");
    for right in &probed {
        pipeline.add_command(right.command(control_key));
    }
    // Harmless even if they were run.
    pipeline.cmd("HDEL").arg(control_key).arg("-");
    pipeline.cmd("GET").arg(&any_key).cmd("PERSIST").arg(&any_key);
    pipeline.cmd("DISCARD");
    let answers = pipelined(connection, &pipeline).await?;
    let denied = |value: &Value| match value {
        Value::ServerError(error) if is_missing(error) => Some(error.clone()),
        _ => None,
    };
    let all = Rights { may_exec: true, names: true, all_keys: true, ..Rights::default() };
    let may_exec = !guards.iter().any(|said| denied(said).is_some());
    let mut rights = Rights { digests: true, may_exec, ..all };
    let mut missing = Vec::new();
    let mut lacks_keys = false;
    for (right, answer) in probed.iter().zip(&answers[1..]) {
        let Some(error) = denied(answer) else { continue };
        if right.need == Need::Copies {
            continue;
        } else if right.need == Need::Digest {
            rights.digests = false;
        } else if right.need == Need::Names {
            rights.names = false;
        } else if is_about_keys(&error) {
            lacks_keys = true;
        } else if right.need == Need::Owner {
            rights.may_exec = false;
        } else {
            missing.push(format!("+{}", right.name));
        }
    }
    let mut others = answers[1 + probed.len()..].iter().map(denied);
    let control = others.next().flatten();
    if lacks_keys || control.as_ref().is_some_and(is_about_keys) {
        missing.push(format!("~{control_key}*"));
    }
    rights.all_keys = others.all(|denied| denied.is_none());
    rights.missing = Some(missing);
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that a script begins to use must come into the list.
    #[test]
    fn every_command_of_the_scripts_is_in_the_list() {
        // Options, types and errors, which stand in quotes as well.
        const NO_COMMANDS: [&str; 26] = [
            "ABSTTL",
            "BYLEX",
            "BYSCORE",
            "COUNT",
            "LCS",
            "RAND",
            "REPLACE",
            "ESCROW",
            "FIELDS",
            "LIMIT",
            "MAXLEN",
            "MISCONF",
            "NOMKSTREAM",
            "NOPERM",
            "NOREPLICAS",
            "OK",
            "OOM",
            "PXAT",
            "READONLY",
            "REV",
            "SAMPLES",
            "STREAM",
            "WITHSCORES",
            "WRONGTYPE",
            "USAGE",
            "XX",
        ];
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lua");
        let files =
            [dir.to_owned(), format!("{dir}/ops")].map(|dir| std::fs::read_dir(dir).unwrap());
        let mut seen = 0;
        for file in files.into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let Ok(source) = std::fs::read_to_string(&file) else { continue };
            for word in source.split('\'') {
                let is_name = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
                if !is_name || NO_COMMANDS.contains(&word) {
                    continue;
                }
                seen += 1;
                let is_it = |right: &&Right| {
                    right.name.split('|').next() == Some(word.to_lowercase().as_str())
                };
                let rights = RIGHTS.iter().chain(&SOME);
                assert!(rights.filter(is_it).count() > 0, "{word} in {}", file.display());
            }
        }
        assert!(seen > 50, "{seen} commands were found");
    }

    /// Redis 6.2 cannot be asked what may be run, so that the script tries it.
    #[test]
    fn every_write_is_tried_where_the_server_cannot_be_asked() {
        // What only other code writes, or newer servers.
        const NEVER_TRIED: [&str; 3] = ["del", "mset", "hpexpireat"];
        let script = include_str!("../lua/rights.lua");
        let trials = script.split("local TRIALS = {").nth(1).unwrap();
        let trials = trials.split("local tried").next().unwrap();
        for right in RIGHTS.iter().filter(|right| right.writes) {
            let is_tried = trials.contains(&format!(" {} = {{", right.name.to_uppercase()));
            assert_eq!(is_tried, !NEVER_TRIED.contains(&right.name), "{}", right.name);
        }
    }

    #[test]
    fn a_shell_takes_each_rule_for_one_word() {
        for (rule, word) in [
            ("+get", "+get"),
            ("-@all", "-@all"),
            ("+acl|getuser", "'+acl|getuser'"),
            ("~*", "'~*'"),
            ("&assent:ctl:ended", "'&assent:ctl:ended'"),
            (">PASSWORD", "'>PASSWORD'"),
        ] {
            assert_eq!(quoted(rule), word);
        }
    }

    #[test]
    fn only_what_is_in_the_file_matters_to_its_reader() {
        for spared in ["+@all", "-@dangerous", "-flushall", "-debug", "+set"] {
            assert!(spares_the_file(spared), "{spared}");
        }
        for limited in ["-set", "-@write", "-hdel", "-@string", "-hpexpireat"] {
            assert!(!spares_the_file(limited), "{limited}");
        }
    }
}
