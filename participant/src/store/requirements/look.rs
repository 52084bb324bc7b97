//! Asks a server all that the table wants to know.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, ServerError, Value};

use super::super::kind::ServerId;
use super::super::rights;
use super::{Examined, Hidden, Seen, judge};

/// The settings that are asked for, one by one: several at once came with 7.0, and all of them hold passwords.
const SETTINGS: [&str; 7] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "io-threads",
    "aof-load-corrupt-tail-max-size",
    "activedefrag",
    "client-query-buffer-limit",
];

/// Asks the server, and judges what it says. `off_in` is [`Examined::file_off_in`] of the last
/// look.
pub(in super::super) async fn look(
    connection: &mut MultiplexedConnection,
    user: &str,
    control_key: &str,
    off_in: Option<String>,
) -> RedisResult<Examined> {
    let mut seen = see(connection, user, off_in).await?;
    seen.rights = rights::probe(connection, seen.id, control_key).await?;
    Ok(judge(seen))
}

/// Asks it again. Its rights are not tried out: what is discarded for that would end the owner's watch.
pub(in super::super) async fn look_again(
    connection: &mut MultiplexedConnection,
    before: &Examined,
    off_in: Option<String>,
) -> RedisResult<Examined> {
    let mut seen = see(connection, &before.user, off_in).await?;
    seen.rights = before.rights.clone();
    Ok(judge(seen))
}

async fn see(
    connection: &mut MultiplexedConnection,
    user: &str,
    file_off_in: Option<String>,
) -> RedisResult<Seen> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO");
    for user in ["default", user] {
        pipeline.cmd("ACL").arg("GETUSER").arg(user);
    }
    pipeline.cmd("EVAL").arg("return 1").arg(0);
    for setting in SETTINGS {
        pipeline.cmd("CONFIG").arg("GET").arg(setting);
    }
    let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let info: String = redis::from_redis_value(next().extract_error()?)?;
    let fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    let id = ServerId::of_info(&fields.clone().collect());
    let (default_user, own_rules) = (rules(next()), rules(next()));
    let lua = match next() {
        // Others say that it is busy or loading, which is another row's to say.
        Value::ServerError(error) if ["ERR", "NOPERM"].contains(&error.code()) => {
            Err(error.to_string())
        }
        _ => Ok(()),
    };
    let config = SETTINGS.iter().map(|_| setting(next()));
    let config = config.collect::<Result<Vec<_>, Hidden>>();
    Ok(Seen {
        id,
        info: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        config: config.map(|settings| settings.into_iter().flatten().collect()),
        default_user,
        own_rules,
        lua,
        rights: rights::Rights::default(),
        file_off_in,
        user: user.to_owned(),
    })
}

fn hidden(error: &ServerError) -> Hidden {
    if error.code() == "NOPERM" { Hidden::Forbidden } else { Hidden::NoCommand }
}

/// The answer to a `CONFIG GET`: nothing for a setting that this version does not have.
fn setting(answer: Value) -> Result<HashMap<String, String>, Hidden> {
    match answer {
        Value::ServerError(error) => Err(hidden(&error)),
        answer => Ok(redis::from_redis_value(answer).unwrap_or_default()),
    }
}

/// The keys and commands in the answer to `ACL GETUSER`: names, each followed by its value.
fn rules(answer: Value) -> Result<(String, String), Hidden> {
    let fields = match answer {
        Value::ServerError(error) => return Err(hidden(&error)),
        Value::Array(fields) => fields,
        _ => Vec::new(),
    };
    let word = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap_or_default();
    let text = |value: &Value| match value {
        // The keys, as Redis 6.2 says them.
        Value::Array(patterns) => {
            let patterns = patterns.iter().map(|pattern| format!("~{}", word(pattern)));
            patterns.collect::<Vec<_>>().join(" ")
        }
        value => word(value),
    };
    let of = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find(|pair| text(&pair[0]) == name).map(|pair| text(&pair[1])).unwrap_or_default()
    };
    Ok((of("keys"), of("commands")))
}
