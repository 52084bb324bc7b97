//! Clients whose answers were lost: they send the same request with the same key again, and must
//! get the same transaction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use assent::Failure;
use assent_common::TxNumber;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use super::super::http::HttpConnection;
use super::report;
use super::transfer::Transfer;

/// Clients at once.
const CLIENTS: usize = 64;

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What asking again came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Repeats {
    /// Transactions asked for again, each once.
    pub(super) asked: u64,
    pub(super) clients: usize,
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Asks again for as many transactions, from the first on.
pub(super) async fn run(url: &str, first: Transfer, count: u64) -> Result<Repeats, Failure> {
    let address: SocketAddr = url
        .trim_start_matches("http://")
        .parse()
        .map_err(|error| Failure::of("the coordinator's address", &error))?;
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(ask(address, first, count, Arc::clone(&next)));
    }
    let mut latency_us = histogram()?;
    while let Some(ended) = clients.join_next().await {
        let of_client = ended.map_err(|error| Failure::of("a client", &error))??;
        // Both have the same bounds.
        let _same = latency_us.add(&of_client);
    }
    let ms = |quantile: f64| latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
    let rate = count as f64 / (report::ms(began.elapsed()) / 1_000.0);
    Ok(Repeats { asked: count, clients: CLIENTS, rate, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

async fn ask(
    address: SocketAddr,
    first: Transfer,
    count: u64,
    next: Arc<AtomicU64>,
) -> Result<Histogram<u64>, Failure> {
    let failed = |error: std::io::Error| Failure::of("a repeated request", &error);
    let mut connection = HttpConnection::connect(address).await.map_err(failed)?;
    let mut latency_us = histogram()?;
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        if place >= count {
            return Ok(latency_us);
        }
        let number = TxNumber { n: first.number.n + place, ..first.number };
        let transfer = Transfer { number, ..first };
        let (body, key) = (transfer.body(), transfer.key());
        let began = Instant::now();
        let (status, answer) =
            connection.post("/v1/transactions", Some(&key), &body).await.map_err(failed)?;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        latency_us.saturating_record(micros);
        let text = String::from_utf8_lossy(answer);
        if status != 200 || !text.contains(r#""outcome":"committed""#) {
            return Err(Failure::error(format!(
                "a repeated request was answered HTTP {status}: {text}"
            )));
        }
    }
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .map_err(|error| Failure::of("cannot make a histogram", &error))
}
