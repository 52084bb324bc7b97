//! When clients begin: at once, one job behind the other, or at moments that do not wait for
//! anybody.
//!
//! **Open loop**: arrivals are a Poisson process of a given rate, drawn beforehand as far as the
//! clients are concerned. A client that is free takes the oldest arrival; its latency counts from
//! the moment of the arrival, not from when a client was free. So a server that stalls is charged
//! for everybody who would have come meanwhile: nothing is omitted because the clients were kept
//! waiting.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::time::Timespec;
use tokio::sync::Semaphore;

/// The moments of a Poisson process.
#[derive(Debug)]
pub(super) struct Moments {
    rng: SmallRng,
    /// On average between two.
    gap_seconds: f64,
    next: Instant,
}

impl Moments {
    pub(super) fn new(begin: Instant, per_second: f64, seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), gap_seconds: 1.0 / per_second, next: begin }
    }
}

impl Iterator for Moments {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        // 1 - u is never 0.
        let u: f64 = self.rng.random();
        self.next += Duration::from_secs_f64(-(1.0 - u).ln() * self.gap_seconds);
        Some(self.next)
    }
}

/// Arrivals that no client has taken yet, the oldest first.
#[derive(Debug)]
pub(super) struct Arrivals {
    queue: Mutex<VecDeque<Instant>>,
    here: Semaphore,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), here: Semaphore::new(0) }
    }

    /// Lets them come until the end, and then `clients` times says that there are no more. It
    /// blocks its thread.
    pub(super) fn come(
        &self,
        moments: Moments,
        end: Instant,
        clients: usize,
    ) -> std::io::Result<()> {
        for moment in moments.take_while(|moment| *moment < end) {
            wait_until(moment)?;
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(moment);
            self.here.add_permits(1);
        }
        self.here.add_permits(clients);
        Ok(())
    }

    /// The oldest arrival, when there is one; `None` when there are no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.here.acquire().await.ok()?.forget();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes all that are left: nobody will serve them.
    pub(super) fn give_up(&self) -> VecDeque<Instant> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The kernel's sleep, which keeps microseconds; that of the runtime keeps milliseconds.
fn wait_until(moment: Instant) -> std::io::Result<()> {
    loop {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let wait = Timespec::try_from(wait).map_err(std::io::Error::other)?;
        // A signal may end it early.
        let _slept = rustix::thread::nanosleep(&wait);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_not_in_step() {
        let begin = Instant::now();
        let moments: Vec<_> = Moments::new(begin, 1_000.0, 3).take(20_000).collect();
        let seconds = (moments[moments.len() - 1] - begin).as_secs_f64();
        assert!((19.0..21.0).contains(&seconds), "20000 arrivals took {seconds} s");
        // Of exponential gaps, 1 - 1/e are below the mean.
        let short = moments.windows(2).filter(|two| two[1] - two[0] < Duration::from_millis(1));
        let share = short.count() as f64 / moments.len() as f64;
        assert!((0.61..0.65).contains(&share), "{share} of the gaps are below the mean");
    }

    #[tokio::test]
    async fn every_arrival_is_served_once_and_then_every_client_ends() {
        let arrivals = Arc::new(Arrivals::new());
        let begin = Instant::now();
        let moments = || Moments::new(begin, 10_000.0, 1);
        let end = begin + Duration::from_millis(50);
        let expected: Vec<_> = moments().take_while(|moment| *moment < end).collect();
        let serve = async || {
            let mut served = Vec::new();
            while let Some(moment) = arrivals.next().await {
                assert!(Instant::now() >= moment, "an arrival came before its time");
                served.push(moment);
            }
            served
        };
        let (coming, all) = (Arc::clone(&arrivals), moments());
        let come = tokio::task::spawn_blocking(move || coming.come(all, end, 2));
        let (come, mut first, second) = tokio::join!(come, serve(), serve());
        come.unwrap().unwrap();
        first.extend(second);
        first.sort();
        assert_eq!(first, expected);
    }
}
