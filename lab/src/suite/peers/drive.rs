//! The closed loop that all peers are driven by; the same window as that of `assent-lab bench`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::server::{Usage, Watch};

/// What is not counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// From an account at the first server to one at the second.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    /// Never the same twice.
    pub(super) id: String,
    pub(super) from: u32,
    pub(super) to: u32,
    /// 1, or -1 for the other way.
    pub(super) amount: i64,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Committed,
    /// Neither server changed.
    Failed,
}

/// A client of a peer, with its connections.
pub(super) trait Client: Send + 'static {
    /// Does it, and knows how it ended.
    fn transfer(&mut self, transfer: &Transfer)
    -> impl Future<Output = Result<End, String>> + Send;
}

/// What the clients saw.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) committed: u64,
    pub(super) failed: u64,
    /// By all that were committed, in the window or not.
    pub(super) moved: i64,
    pub(super) latency_us: Histogram<u64>,
    pub(super) seconds: f64,
}

/// Runs the clients. `seed` is never the same twice.
pub(super) async fn drive<C: Client>(
    clients: Vec<C>,
    duration: Duration,
    seed: u64,
    watch: &Watch,
) -> Result<(Tally, Usage), String> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + duration;
    let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(|e| e.to_string())?;
    let seconds = duration.as_secs_f64();
    let tally = Tally { committed: 0, failed: 0, moved: 0, latency_us, seconds };
    let tally = Arc::new(Mutex::new(tally));
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let run = format!("{seed:x}-{number:x}");
        let rng = SmallRng::seed_from_u64(seed << 16 | number as u64);
        tasks.spawn(work(client, rng, run, (begin, end), Arc::clone(&tally)));
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = watch.look();
    tokio::time::sleep_until(end.into()).await;
    let usage = watch.look().since(&before);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    let tally = Arc::try_unwrap(tally).map_err(|_| "a client still holds the tally")?;
    Ok((tally.into_inner().unwrap_or_else(PoisonError::into_inner), usage))
}

async fn work<C: Client>(
    mut client: C,
    mut rng: SmallRng,
    run: String,
    (begin, end): (Instant, Instant),
    tally: Arc<Mutex<Tally>>,
) -> Result<(), String> {
    for n in 0_u64.. {
        let began = Instant::now();
        if began >= end {
            break;
        }
        let mut account = || rng.random_range(0..super::ACCOUNTS);
        let (from, to) = (account(), account());
        let amount = if rng.random() { 1 } else { -1 };
        let id = format!("{run}-{n:x}");
        let told = client.transfer(&Transfer { id, from, to, amount }).await?;
        let now = Instant::now();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        if told == End::Committed {
            tally.moved += amount;
        }
        if begin <= now && now < end {
            match told {
                End::Committed => {
                    tally.committed += 1;
                    let micros = u64::try_from((now - began).as_micros()).unwrap_or(u64::MAX);
                    tally.latency_us.saturating_record(micros);
                }
                End::Failed => tally.failed += 1,
            }
        }
    }
    Ok(())
}
