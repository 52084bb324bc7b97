//! Plain Redis clients, past the agents: what any other program beside the service sees.

use assent_process::RedisServer;
use redis::aio::MultiplexedConnection;

/// A connection of its own.
pub async fn connect(server: &RedisServer) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(server.url())?.get_multiplexed_async_connection().await
}

/// A connection that looks like another agent of the participant: while it lives, an agent that starts there does not own
/// the Redis, and works by the scripts.
pub async fn keep_company(
    server: &RedisServer,
    participant: &str,
) -> redis::RedisResult<MultiplexedConnection> {
    let mut connection = connect(server).await?;
    let name = format!("assent-agent:{participant}:company.1");
    command(&["CLIENT", "SETNAME", &name]).query_async::<()>(&mut connection).await?;
    Ok(connection)
}

/// Runs one command, which may fail.
pub async fn try_run<T: redis::FromRedisValue>(
    server: &RedisServer,
    words: &[&str],
) -> redis::RedisResult<T> {
    command(words).query_async(&mut connect(server).await?).await
}

/// Runs one command.
///
/// # Panics
/// If it fails.
pub async fn run<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    match try_run(server, words).await {
        Ok(found) => found,
        Err(error) => panic!("{words:?} at {}: {error}", server.url()),
    }
}

/// A command of these words.
#[must_use]
pub fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}
