//! Log lines that strangers can cause: seldom, with the number of those left out.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Lets one line through in a while, and counts the others.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// One line in this time.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// One line in a minute.
    #[must_use]
    pub fn minutely() -> Self {
        Self::new(Duration::from_secs(60))
    }

    /// Whether to write the line now; then with how many that were left out since the last one.
    pub fn now(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < self.every) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_let_through_and_the_others_are_counted() {
        let seldom = Seldom::new(Duration::from_secs(3_600));
        assert_eq!((seldom.now(), seldom.now(), seldom.now()), (Some(0), None, None));
        assert_eq!(seldom.state.lock().unwrap().left_out, 2);
        let always = Seldom::new(Duration::ZERO);
        assert_eq!((always.now(), always.now()), (Some(0), Some(0)));
    }
}
