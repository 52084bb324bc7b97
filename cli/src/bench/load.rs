//! Closed-loop clients that transfer, in one of three ways, for a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use tokio::task::JoinSet;

use super::http::HttpConnection;
use super::resp::{OwnConnection, SharedConnection};
use crate::exit::Failure;

/// What is not counted: connections warm up, and so do caches.
const WARM_UP: Duration = Duration::from_millis(300);

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// How the transfers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Plain `MULTI`/`EXEC` at both servers, connections of one's own.
    Floor,
    /// The same over shared connections.
    FloorPipelined,
    /// Through Assent.
    Assent,
}

/// Where to.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    pub(super) coordinator: SocketAddr,
    pub(super) redis: [u16; 2],
    pub(super) accounts: u32,
    /// Accounts that each branch changes.
    pub(super) writes: usize,
    /// `applied` or `decided`.
    pub(super) ack: &'static str,
    pub(super) keys: Keys,
}

/// What the clients saw.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) committed: u64,
    pub(super) aborted: u64,
    /// Committed transfers before and within the measured time, for the check of the sums.
    pub(super) moved: i64,
    pub(super) latency_us: Histogram<u64>,
    pub(super) seconds: f64,
}

enum Client {
    Own(Box<[OwnConnection; 2]>),
    Shared([SharedConnection; 2]),
    Http(Box<HttpConnection>),
}

enum Done {
    Committed,
    Aborted,
}

/// Runs this many clients; `at_begin` is called when the measured time begins, `at_end` when it is over.
pub(super) async fn run(
    way: Way,
    targets: &Targets,
    clients: usize,
    duration: Duration,
    run: u64,
    mut at: impl FnMut(Moment),
) -> Result<Tally, Failure> {
    let measuring = Arc::new(AtomicBool::new(false));
    let stopping = Arc::new(AtomicBool::new(false));
    let failed = |error: std::io::Error| Failure::of("the load generator", &error);
    let shared = match way {
        Way::FloorPipelined => Some([
            SharedConnection::connect(targets.redis[0]).await.map_err(failed)?,
            SharedConnection::connect(targets.redis[1]).await.map_err(failed)?,
        ]),
        Way::Floor | Way::Assent => None,
    };
    let mut tasks = JoinSet::new();
    for number in 0..clients as u64 {
        let client = match (way, &shared) {
            (Way::FloorPipelined, Some(shared)) => Client::Shared(shared.clone()),
            (Way::Assent, _) => Client::Http(Box::new(
                HttpConnection::connect(targets.coordinator).await.map_err(failed)?,
            )),
            (Way::Floor | Way::FloorPipelined, _) => Client::Own(Box::new([
                OwnConnection::connect(targets.redis[0]).await.map_err(failed)?,
                OwnConnection::connect(targets.redis[1]).await.map_err(failed)?,
            ])),
        };
        let (measuring, stopping) = (Arc::clone(&measuring), Arc::clone(&stopping));
        tasks.spawn(client.work(targets.clone(), (run, number), measuring, stopping));
    }
    tokio::time::sleep(WARM_UP).await;
    at(Moment::Begin);
    measuring.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(duration).await;
    measuring.store(false, Ordering::Relaxed);
    at(Moment::End);
    let seconds = began.elapsed().as_secs_f64();
    stopping.store(true, Ordering::Relaxed);
    let mut total = Tally { seconds, ..Tally::new()? };
    while let Some(ended) = tasks.join_next().await {
        total.add(&ended.map_err(|error| Failure::of("a client", &error))??);
    }
    Ok(total)
}

/// Whether transfers carry idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keys {
    /// No: a lost answer cannot be asked for again.
    None,
    /// Each has its own.
    Each,
}

impl From<bool> for Keys {
    fn from(each: bool) -> Self {
        if each { Self::Each } else { Self::None }
    }
}

/// When the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The measured time begins.
    Begin,
    /// It is over.
    End,
}

impl Tally {
    fn new() -> Result<Self, Failure> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .map_err(|error| Failure::of("cannot make a histogram", &error))?;
        Ok(Self { committed: 0, aborted: 0, moved: 0, latency_us, seconds: 0.0 })
    }

    fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.moved += other.moved;
        // Both have the same bounds.
        let _same = self.latency_us.add(&other.latency_us);
    }
}

impl Client {
    async fn work(
        mut self,
        targets: Targets,
        (run, number): (u64, u64),
        measuring: Arc<AtomicBool>,
        stopping: Arc<AtomicBool>,
    ) -> Result<Tally, Failure> {
        let mut rng = SmallRng::seed_from_u64(run << 32 | number);
        let mut tally = Tally::new()?;
        let mut n = 0_u64;
        while !stopping.load(Ordering::Relaxed) {
            let mut accounts = || -> Vec<String> {
                let any = |_| account(rng.random_range(0..targets.accounts));
                (0..targets.writes).map(any).collect()
            };
            let accounts = [accounts(), accounts()];
            // From the first server to the second, or back.
            let amount = if rng.random() { 1 } else { -1 };
            let counted = measuring.load(Ordering::Relaxed);
            let began = Instant::now();
            let key = (run, number, n);
            n += 1;
            match self.transfer(accounts, amount, &targets, key).await? {
                Done::Committed => {
                    tally.moved += amount * i64::try_from(targets.writes).unwrap_or(0);
                    if counted && measuring.load(Ordering::Relaxed) {
                        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                        tally.committed += 1;
                        tally.latency_us.saturating_record(micros);
                    }
                }
                Done::Aborted => tally.aborted += u64::from(counted),
            }
        }
        Ok(tally)
    }

    async fn transfer(
        &mut self,
        [from, to]: [Vec<String>; 2],
        amount: i64,
        targets: &Targets,
        (run, number, n): (u64, u64, u64),
    ) -> Result<Done, Failure> {
        let failed = |error: std::io::Error| Failure::of("a transfer", &error);
        match self {
            Self::Own(connections) => {
                let [first, second] = &mut **connections;
                tokio::try_join!(first.add(&from, -amount), second.add(&to, amount))
                    .map_err(failed)?;
                Ok(Done::Committed)
            }
            Self::Shared([first, second]) => {
                tokio::try_join!(first.add(from, -amount), second.add(to, amount))
                    .map_err(failed)?;
                Ok(Done::Committed)
            }
            Self::Http(connection) => {
                let ack = targets.ack;
                let ops = |command: &str, accounts: &[String]| {
                    let op = |account| format!(r#"{{"cmd":["{command}","{account}",{amount}]}}"#);
                    accounts.iter().map(op).collect::<Vec<_>>().join(",")
                };
                let body = format!(
                    r#"{{"branches":[{{"participant":"{}","ops":[{}]}},{{"participant":"{}","ops":[{}]}}],"ack":"{ack}"}}"#,
                    super::PARTICIPANTS[0],
                    ops("DECRBY", &from),
                    super::PARTICIPANTS[1],
                    ops("INCRBY", &to),
                );
                let key = match targets.keys {
                    Keys::None => None,
                    Keys::Each => Some(format!("bench-{run}-{number}-{n}")),
                };
                let posted = connection.post("/v1/transactions", key.as_deref(), &body).await;
                let (status, answer) = posted.map_err(failed)?;
                judge(status, answer)
            }
        }
    }
}

/// The bench wants the plain outcomes; anything else would spoil its sums.
fn judge(status: u16, answer: &[u8]) -> Result<Done, Failure> {
    let text = String::from_utf8_lossy(answer);
    let says = |outcome: &str| text.contains(&format!("\"outcome\":\"{outcome}\""));
    match status {
        200 if says("committed") => Ok(Done::Committed),
        400..=599 if says("aborted") => Ok(Done::Aborted),
        _ => Err(Failure::error(format!("a transfer was answered HTTP {status}: {text}"))),
    }
}

/// The key of an account.
pub(super) fn account(number: u32) -> String {
    format!("acct:{number}")
}
