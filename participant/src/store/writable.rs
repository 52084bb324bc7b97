//! Whether Redis takes writes. One above `maxmemory`, or without the replicas that it is told to
//! have, aborts every new transaction, and looks well otherwise: what was decided may go on.

use assent_common::code::ErrorCode as C;
use assent_common::text::cut;
use redis::{RedisError, RedisResult};

use super::connection::Connection;
use super::said::refuses;
use crate::mutex::lock;

/// Bytes of the words of Redis that are kept.
const SAID_BYTES_MAX: usize = 200;

/// Asks for a write that does nothing: of a key that does not exist. Redis says before it looks for
/// the key whether it takes writes at all. An error is one of the connection.
pub(super) async fn look(connection: &Connection) -> RedisResult<()> {
    let mut command = redis::cmd("SET");
    command.arg(format!("{}:probe", connection.control_key())).arg("").arg("XX");
    let refused = match connection.send(&command).await {
        Ok(_) => None,
        Err(error) if error.code().is_none() => return Err(error),
        // A right that is missing is another's to say.
        Err(error) => refusal(&error),
    };
    let mut known = lock(&connection.memory.writes_refused);
    match (&*known, &refused) {
        (before, Some(said)) if before.as_ref() != Some(said) => {
            tracing::warn!(
                said,
                "Redis refuses writes; new transactions are aborted until it takes them"
            );
        }
        (Some(_), None) => tracing::info!("Redis takes writes again"),
        _ => {}
    }
    *known = refused;
    Ok(())
}

/// The words of Redis, where it refuses writes of everybody.
fn refusal(error: &RedisError) -> Option<String> {
    let refused = matches!(refuses(error)?, C::RedisOutOfMemory | C::RedisRefuses);
    let code = error.code().filter(|_| refused)?;
    let said = format!("{code} {}", error.detail().unwrap_or_default());
    Some(cut(said.trim_end(), SAID_BYTES_MAX).into_owned())
}
