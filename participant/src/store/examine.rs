//! A look at a server without an agent, for `assent doctor`: what an agent would see, in the agent's own time limits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::connection::ServerMemory;
use super::requirements::Examined;
use super::{StoreError, StoreOptions};

/// What a look at a server found.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The server, and what came of each requirement.
    pub server: Examined,
    /// How long its answer to `TIME` took.
    pub took: Duration,
    /// Its clock minus ours, in milliseconds.
    pub skew_ms: i128,
}

/// Looks at a server as an agent does when it connects, and changes nothing.
pub async fn examine(options: &StoreOptions) -> Result<Examination, StoreError> {
    let connection = ServerMemory::new(options.clone()).connect().await?;
    let began = Instant::now();
    let (seconds, micros): (i128, i128) =
        connection.or_unavailable(connection.ask(&redis::cmd("TIME")).await)?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let skew_ms = seconds * 1_000 + micros / 1_000 - ours.cast_signed();
    Ok(Examination { server: connection.server, took: began.elapsed(), skew_ms })
}
