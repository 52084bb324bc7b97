//! The process's clock, read at the edge and passed into the core. It decides when, never whether.

use std::time::{SystemTime, UNIX_EPOCH};

use assent_common::time::Millis;

/// The present moment.
#[must_use]
pub fn now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as RFC 3339 text, for people.
#[must_use]
pub fn rfc3339(moment: Millis) -> String {
    let ms = i64::try_from(moment.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| moment.0.to_string(), |timestamp| format!("{timestamp:.3}"))
}
