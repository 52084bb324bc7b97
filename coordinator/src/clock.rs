//! The process's clock, read at the edge and passed into the core. It decides when, never whether.
//!
//! It begins with the wall clock's time and goes on by the monotonic one. A wall clock that is set
//! back would otherwise put off every deadline, retry and collection by as much, and one that is
//! set forward would end them all at once.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assent_common::time::{Micros, Millis};

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::new(SystemTime::now(), Instant::now()));

/// Where the clock began.
struct Clock {
    wall_us: u64,
    began: Instant,
}

impl Clock {
    fn new(wall: SystemTime, began: Instant) -> Self {
        let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_us: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX), began }
    }

    fn at(&self, moment: Instant) -> Micros {
        let since_us = moment.saturating_duration_since(self.began).as_micros();
        Micros(self.wall_us.saturating_add(u64::try_from(since_us).unwrap_or(u64::MAX)))
    }
}

/// The present moment.
#[must_use]
pub fn now() -> Millis {
    micros().millis()
}

/// The present moment, as the engine takes it.
#[must_use]
pub fn micros() -> Micros {
    CLOCK.at(Instant::now())
}

/// How long it is until a moment.
#[must_use]
pub fn until(moment: Micros) -> Duration {
    Duration::from_micros(moment.since(micros()))
}

/// A moment as RFC 3339 text, for people.
#[must_use]
pub fn rfc3339(moment: Millis) -> String {
    let ms = i64::try_from(moment.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| moment.0.to_string(), |timestamp| format!("{timestamp:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_wall_clock_and_goes_on_whatever_becomes_of_that() {
        let (wall, began) = (UNIX_EPOCH + Duration::from_millis(1_000_000), Instant::now());
        let clock = Clock::new(wall, began);
        assert_eq!(clock.at(began), Micros(1_000_000_000));
        assert_eq!(clock.at(began + Duration::from_secs(5)), Micros(1_005_000_000));
        let (first, second) = (micros(), micros());
        assert!(second >= first && first > clock.at(began));
    }
}
