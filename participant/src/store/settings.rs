//! Whether a Redis keeps what it acknowledged: the settings that durable votes need, each with its fix.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::kind::{ServerId, Version};

/// What a server says of itself at the handshake.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Its kind and version.
    pub(super) id: ServerId,
    /// The id of its process life.
    pub(super) run_id: String,
    /// The settings that would lose votes, each with its value and the fix.
    pub(super) violations: Vec<String>,
}

/// A setting of CONFIG, the value that it must have, and why.
const REQUIRED: [(&str, &str, &str); 3] = [
    ("appendonly", "yes", "without the append-only file nothing survives a restart"),
    ("appendfsync", "always", "a vote must be on disk before it is given"),
    ("no-appendfsync-on-rewrite", "no", "a rewrite would switch the fsync off"),
];

/// The oldest version whose scripts and commands are what the Lua here expects.
const VERSION_MIN: Version = Version(6, 2, 0);

/// Asks the server for its settings.
pub(super) async fn inspect(connection: &mut MultiplexedConnection) -> RedisResult<Server> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let config =
        redis::cmd("CONFIG").arg("GET").arg("*append*").query_async::<Value>(connection).await;
    // Managed servers may forbid CONFIG: then what it says is not known, which is a violation of its own.
    let config = match config {
        Ok(value) => Some(redis::from_redis_value::<HashMap<String, String>>(value)?),
        Err(error) if !error.is_io_error() => None,
        Err(error) => return Err(error),
    };
    Ok(judge(&info, config.as_ref()))
}

fn judge(info: &str, config: Option<&HashMap<String, String>>) -> Server {
    let info: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let field = |name: &str| info.get(name).copied().unwrap_or_default();
    let mut violations = Vec::new();
    for (setting, wanted, why) in REQUIRED {
        match config.map(|config| config.get(setting).map_or("", String::as_str)) {
            Some(value) if value == wanted => {}
            Some(value) => violations.push(format!(
                "{setting} is {value:?} and must be {wanted:?} ({why}): redis-cli CONFIG SET {setting} {wanted} && \
                 redis-cli CONFIG REWRITE"
            )),
            None => violations.push(format!(
                "{setting} cannot be checked, because CONFIG GET is not allowed; it must be {wanted:?} ({why}): allow \
                 the agent's user `+config|get`"
            )),
        }
    }
    let policy = field("maxmemory_policy");
    if policy.starts_with("allkeys") {
        violations.push(format!(
            "maxmemory-policy is {policy:?}, which evicts locks and staged writes: redis-cli CONFIG SET \
             maxmemory-policy noeviction && redis-cli CONFIG REWRITE"
        ));
    }
    if field("aof_last_write_status") == "err" {
        violations.push(
            "aof_last_write_status is \"err\": the disk of Redis is full or failing; free space, then look into the \
             log of Redis"
                .to_owned(),
        );
    }
    if field("role") != "master" {
        violations.push(format!(
            "role is {:?} and must be \"master\": point the agent at the master",
            field("role")
        ));
    }
    let id = ServerId::of_info(&info);
    if id.version < VERSION_MIN {
        violations.push(format!(
            "the server is {id}; {VERSION_MIN} is the oldest that works: upgrade it"
        ));
    }
    if field("loading") == "1" {
        violations
            .push("loading is \"1\": Redis is reading its file; wait until it is done".to_owned());
    }
    Server { id, run_id: field("run_id").to_owned(), violations }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\nloading:0\r\nmaxmemory_policy:noeviction\r\n";

    fn config(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let safe = REQUIRED.iter().map(|(name, value, _)| (*name, *value));
        safe.chain(pairs.iter().copied()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_safe_server_has_no_violations() {
        let server = judge(GOOD, Some(&config(&[])));
        assert_eq!(server.violations, Vec::<String>::new());
        assert_eq!(
            (server.id.to_string().as_str(), server.run_id.as_str()),
            ("Redis 7.0.15", "abc")
        );
    }

    #[test]
    fn each_violation_names_the_setting_the_value_and_the_fix() {
        let server = judge(GOOD, Some(&config(&[("appendfsync", "everysec")])));
        assert_eq!(server.violations.len(), 1);
        for part in
            ["appendfsync", "\"everysec\"", "CONFIG SET appendfsync always", "CONFIG REWRITE"]
        {
            assert!(server.violations[0].contains(part), "{:?}", server.violations);
        }
        let bad = GOOD
            .replace("noeviction", "allkeys-lru")
            .replace("7.0.15", "6.0.9")
            .replace("role:master", "role:slave")
            .replace("loading:0", "loading:1\r\naof_last_write_status:err");
        assert_eq!(judge(&bad, Some(&config(&[]))).violations.len(), 5);
        assert_eq!(judge(GOOD, None).violations.len(), REQUIRED.len());
    }
}
