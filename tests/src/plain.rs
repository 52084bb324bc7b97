//! Plain Redis clients, past the agents: what any other program beside the service sees.

use assent_process::RedisServer;
use redis::aio::MultiplexedConnection;

/// A connection of its own.
pub async fn connect(server: &RedisServer) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(server.url())?.get_multiplexed_async_connection().await
}

/// Takes from the user of an agent what guards an `EXEC`: an agent that starts there writes by
/// scripts.
pub async fn forbid_watch(server: &RedisServer) -> redis::RedisResult<()> {
    try_run(server, &["ACL", "SETUSER", "default", "-watch"]).await
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
