//! A Redis: whether it keeps what it acknowledged. Reads only; the agent makes the same demands when it starts.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assent_participant::store::StoreOptions;
use redis::aio::MultiplexedConnection;

use super::{Check, Verdict};
use crate::exit::chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Clocks matter to people who read logs, never to safety.
const SKEW_MAX_MS: i128 = 1_000;

/// Settings of CONFIG, the value that each must have, and why.
const REQUIRED: [(&str, &str, &str); 3] = [
    ("appendonly", "yes", "without it nothing survives a restart"),
    ("appendfsync", "always", "a vote must be on disk before it is given"),
    ("no-appendfsync-on-rewrite", "no", "a rewrite would switch the fsync off"),
];

pub(super) async fn check(url: &str) -> Vec<Check> {
    let address = StoreOptions::new(url).address();
    let what = |about: &str| format!("redis {address}: {about}");
    match look(url).await {
        Ok(seen) => judge(&seen, &what),
        Err(error) => {
            let fix = "start it, or correct the URL, the user or the password";
            vec![Check::bad(Verdict::Failing, what("reachable"), error, fix)]
        }
    }
}

/// What a server said of itself.
#[derive(Debug, Default)]
struct Seen {
    info: HashMap<String, String>,
    /// Absent where CONFIG is not allowed.
    config: Option<HashMap<String, String>>,
    /// Its clock minus ours.
    skew_ms: i128,
}

async fn look(url: &str) -> Result<Seen, String> {
    let told = |error: redis::RedisError| chain(&error);
    let client = redis::Client::open(url).map_err(told)?;
    let connecting = client.get_multiplexed_async_connection();
    let mut connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(told)?;
    let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(told)?;
    let info = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let config = redis::cmd("CONFIG").arg("GET").arg("*").query_async(&mut connection).await;
    let skew_ms = skew(&mut connection).await.map_err(told)?;
    Ok(Seen { info, config: config.ok(), skew_ms })
}

async fn skew(connection: &mut MultiplexedConnection) -> redis::RedisResult<i128> {
    let (seconds, micros): (i128, i128) = redis::cmd("TIME").query_async(connection).await?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Ok(seconds * 1_000 + micros / 1_000 - ours.cast_signed())
}

fn judge(seen: &Seen, what: &dyn Fn(&str) -> String) -> Vec<Check> {
    let info = |name: &str| seen.info.get(name).map_or("", String::as_str);
    let mut checks = vec![version(info("redis_version"), what)];
    for (setting, wanted, why) in REQUIRED {
        checks.push(match seen.config.as_ref().map(|config| config.get(setting)) {
            Some(Some(value)) if value == wanted => Check::ok(what(setting), value),
            Some(value) => {
                let found = value.map_or("absent", String::as_str);
                let fix = format!(
                    "{why}: redis-cli CONFIG SET {setting} {wanted} && redis-cli CONFIG REWRITE"
                );
                Check::bad(Verdict::Failing, what(setting), found, fix)
            }
            None => {
                let fix = format!(
                    "must be {wanted} ({why}): allow this user `+config|get`, or look yourself"
                );
                Check::bad(Verdict::Warning, what(setting), "CONFIG GET is not allowed", fix)
            }
        });
    }
    checks.push(policy(info("maxmemory_policy"), info("maxmemory"), what));
    if info("aof_last_write_status") == "err" {
        let fix = "its disk is full or failing: free space, then read its log";
        checks.push(Check::bad(Verdict::Failing, what("last AOF write"), "failed", fix));
    }
    if info("role") != "master" {
        let fix = "point the agent at the master";
        checks.push(Check::bad(Verdict::Failing, what("role"), info("role"), fix));
    }
    checks.push(if seen.skew_ms.abs() > SKEW_MAX_MS {
        let found = format!("{} ms from here", seen.skew_ms);
        Check::bad(
            Verdict::Warning,
            what("clock"),
            found,
            "run NTP there and here; safety does not depend on it",
        )
    } else {
        Check::ok(what("clock"), format!("{} ms from here", seen.skew_ms))
    });
    checks
}

fn version(version: &str, what: &dyn Fn(&str) -> String) -> Check {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number >= (6, 2) {
        Check::ok(what("version"), version)
    } else {
        Check::bad(
            Verdict::Failing,
            what("version"),
            version,
            "6.2 is the oldest that works: upgrade Redis",
        )
    }
}

fn policy(policy: &str, maxmemory: &str, what: &dyn Fn(&str) -> String) -> Check {
    let found = format!("{policy}, maxmemory {maxmemory}");
    if !policy.starts_with("allkeys") {
        return Check::ok(what("maxmemory-policy"), found);
    }
    let fix = "it evicts locks and staged writes: redis-cli CONFIG SET maxmemory-policy noeviction && redis-cli \
               CONFIG REWRITE";
    Check::bad(Verdict::Failing, what("maxmemory-policy"), found, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(info: &[(&str, &str)], config: &[(&str, &str)]) -> Seen {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let safe =
            [("redis_version", "7.0.15"), ("role", "master"), ("maxmemory_policy", "noeviction")];
        let mut all: HashMap<_, _> = map(&safe);
        all.extend(map(info));
        Seen { info: all, config: Some(map(config)), skew_ms: 3 }
    }

    const SAFE: [(&str, &str); 3] =
        [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];

    fn bad(seen: &Seen) -> Vec<String> {
        let checks = judge(seen, &|about| about.to_owned());
        checks
            .into_iter()
            .filter(|check| check.verdict != Verdict::Ok)
            .map(|check| format!("{check:?}"))
            .collect()
    }

    #[test]
    fn a_safe_server_has_nothing_to_change() {
        assert_eq!(bad(&seen(&[], &SAFE)), Vec::<String>::new());
    }

    #[test]
    fn each_unsafe_value_has_its_exact_fix() {
        let config = [
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("no-appendfsync-on-rewrite", "no"),
        ];
        let found = bad(&seen(&[("maxmemory_policy", "allkeys-lru")], &config));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("CONFIG SET appendfsync always"), "{found:?}");
        assert!(found[1].contains("CONFIG SET maxmemory-policy noeviction"), "{found:?}");
        assert_eq!(bad(&Seen { config: None, ..seen(&[("role", "slave")], &[]) }).len(), 4);
    }
}
