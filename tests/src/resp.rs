//! Clients of the coordinator's port for Redis clients.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};

/// A connection that waits for each answer as long as it takes.
pub async fn connect(address: &str) -> RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let client = redis::Client::open(format!("redis://{address}/"))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn pipe<L: AsRef<str>>(lines: &[L]) -> Pipeline {
    let mut pipeline = redis::pipe();
    for line in lines {
        for (place, word) in line.as_ref().split(' ').enumerate() {
            if place == 0 {
                pipeline.cmd(word)
            } else {
                pipeline.arg(word)
            };
        }
    }
    pipeline
}

/// The replies of what is sent in one piece, errors among them.
pub async fn send<L: AsRef<str>>(
    connection: &mut MultiplexedConnection,
    lines: &[L],
) -> RedisResult<Vec<Value>> {
    connection.send_packed_commands(&pipe(lines), 0, lines.len()).await
}

/// What an `EXEC` came to, as its client was told.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecTold {
    /// It is committed, with these replies.
    Committed(Vec<Value>),
    /// It has no effect; nil where a watched key has changed.
    Aborted(Option<RedisError>),
    /// Nobody knows, or it is committed and its replies are not kept any more.
    Unclear(RedisError),
}

/// What its answer says.
///
/// # Panics
/// If that is no answer of `EXEC`.
#[must_use]
pub fn told(answer: RedisResult<Value>) -> ExecTold {
    match answer.map(Value::extract_error) {
        Ok(Ok(Value::Array(replies))) => ExecTold::Committed(replies),
        Ok(Ok(Value::Nil)) => ExecTold::Aborted(None),
        Ok(Ok(value)) => panic!("EXEC answered {value:?}"),
        Ok(Err(error)) if matches!(error.code(), Some("UNKNOWN" | "COMMITTED")) => {
            ExecTold::Unclear(error)
        }
        Ok(Err(error)) => ExecTold::Aborted(Some(error)),
        // There is no answer.
        Err(error) => ExecTold::Unclear(error),
    }
}
