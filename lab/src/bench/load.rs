//! Clients at work for a while, and what they saw.
//!
//! ```text
//! connect ── warm up ──┬─ window: what is answered in it is counted ─┬── the rest is answered ── Tally
//!                    begin                                          end
//! ```
//!
//! **Closed loop**: each client waits for its answer before it goes on; the latency counts from its
//! start. **Open loop**: see [`pace`](super::pace); the latency counts from the intended start, and
//! the arrivals of the window are waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assent::Failure;
use hdrhistogram::Histogram;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use super::client::{Asking, Client, Done, Targets, Told, Way};
use super::pace::{Arrivals, Moments};
use super::unit::Changes;
use super::workload::{Drawer, Workload};

/// What is not counted: connections warm up, and so do caches.
const WARM_UP: Duration = Duration::from_millis(300);

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// How long the arrivals of an open loop are served after the window, at most; longer if the window
/// is.
const DRAIN_MIN: Duration = Duration::from_secs(5);

/// When clients begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// When their last answer is there.
    Closed,
    /// At so many moments a second.
    Open(f64),
}

/// One way at work.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) way: Way,
    pub(super) workload: Workload,
    pub(super) clients: usize,
    pub(super) pace: Pace,
    pub(super) duration: Duration,
    /// Never the same twice in a bench.
    pub(super) number: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// What clients know, for the check of the data.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Added at each place by all that was committed, in the window or not.
    pub(super) sums: Vec<i64>,
    /// Outcomes to be asked for.
    pub(super) pending: Vec<Pending>,
    /// Stamps of values that were not stored.
    pub(super) not_stored: Vec<u64>,
    /// Reads that found what nobody wrote.
    pub(super) misread: u64,
    /// Jobs that were answered.
    pub(super) answered: u64,
}

/// A transaction whose outcome is to be asked for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) changes: Changes,
    pub(super) stamp: Option<u64>,
}

/// What the clients saw.
#[derive(Debug)]
pub(super) struct Tally {
    /// Jobs that were committed in the window.
    pub(super) committed: u64,
    /// Those that were aborted or refused in it, by code.
    pub(super) failed: BTreeMap<String, u64>,
    /// Outcomes that were not known in it.
    pub(super) pending: u64,
    /// Committed ones that took more than one attempt at the coordinator.
    pub(super) retried: u64,
    /// Attempts beyond the first of all committed ones.
    pub(super) retries: u64,
    pub(super) latency_us: Histogram<u64>,
    /// How late a free client began, in an open loop: the error of the generator.
    pub(super) lateness_us: Histogram<u64>,
    /// Arrivals that nobody served; their latency counts as their age then.
    pub(super) unserved: u64,
    pub(super) seconds: f64,
    pub(super) ledger: Ledger,
}

/// Clients that are at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) window: Window,
    tally: Arc<Mutex<Tally>>,
    arrivals: Option<Arc<Arrivals>>,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Window {
    pub(super) fn contains(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }

    fn duration(&self) -> Duration {
        self.end - self.begin
    }
}

/// Starts the clients.
pub(super) async fn start(run: Run, targets: &Targets) -> Result<Running, Failure> {
    let Run { way, workload, clients, pace, duration, number } = run;
    let places = workload.shape().places();
    let connected = Client::connect(way, targets, places, clients)
        .await
        .map_err(|error| Failure::of("the load generator cannot connect", &error))?;
    let now = Instant::now();
    let window = Window { begin: now + WARM_UP, end: now + WARM_UP + duration };
    let tally = Arc::new(Mutex::new(Tally::new(places, duration.as_secs_f64())?));
    let mut tasks = JoinSet::new();
    let arrivals = match pace {
        Pace::Closed => None,
        Pace::Open(rate) => {
            let arrivals = Arc::new(Arrivals::new());
            let (coming, moments) = (Arc::clone(&arrivals), Moments::new(now, rate, number));
            tasks.spawn_blocking(move || {
                let came = coming.come(moments, window.end, clients);
                came.map_err(|error| Failure::of("the timer of the open loop", &error))
            });
            Some(arrivals)
        }
    };
    for (client, connection) in connected.into_iter().enumerate() {
        let worker = Worker {
            connection,
            workload: workload.clone(),
            rng: SmallRng::seed_from_u64(number << 32 | client as u64),
            drawer: Drawer { client: client as u64, clients: clients as u64, stamp: 0 },
            run: number,
            window,
            tally: Arc::clone(&tally),
        };
        match &arrivals {
            None => tasks.spawn(worker.closed()),
            Some(arrivals) => tasks.spawn(worker.open(Arc::clone(arrivals))),
        };
    }
    Ok(Running { window, tally, arrivals, tasks })
}

impl Running {
    /// Waits until all is answered.
    pub(super) async fn finish(mut self) -> Result<Tally, Failure> {
        let drain = self.window.duration().max(DRAIN_MIN);
        let limit = self.window.end + drain;
        if let Some(arrivals) = self.arrivals.take() {
            let mut ended = 0;
            let tasks = &mut self.tasks;
            let all = async {
                while let Some(end) = tasks.join_next().await {
                    ended += 1;
                    end.map_err(|error| Failure::of("a client", &error))??;
                }
                Ok::<_, Failure>(())
            };
            match tokio::time::timeout_at(limit.into(), all).await {
                Ok(done) => done?,
                Err(_too_late) => lock(&self.tally).give_up(&arrivals, self.window),
            }
        }
        while let Some(end) = self.tasks.join_next().await {
            end.map_err(|error| Failure::of("a client", &error))??;
        }
        let tally = Arc::try_unwrap(self.tally)
            .map_err(|_| Failure::error("a client still holds the tally"))?;
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    connection: Client,
    workload: Workload,
    rng: SmallRng,
    drawer: Drawer,
    run: u64,
    window: Window,
    tally: Arc<Mutex<Tally>>,
}

impl Worker {
    async fn closed(mut self) -> Result<(), Failure> {
        for n in 0.. {
            let began = Instant::now();
            if began >= self.window.end {
                break;
            }
            let done = self.perform(n).await?;
            let now = Instant::now();
            let counts = self.window.contains(now);
            lock(&self.tally).note(done, counts, counts.then_some(now - began));
        }
        Ok(())
    }

    async fn open(mut self, arrivals: Arc<Arrivals>) -> Result<(), Failure> {
        for n in 0.. {
            let free = Instant::now();
            let Some(intended) = arrivals.next().await else { break };
            let began = Instant::now();
            let done = self.perform(n).await?;
            let now = Instant::now();
            let counts = self.window.contains(intended);
            let mut tally = lock(&self.tally);
            tally.note(done, self.window.contains(now), counts.then_some(now - intended));
            // Whoever waited for the arrival should have begun with it.
            if counts && free <= intended {
                tally.lateness_us.saturating_record(micros(began - intended));
            }
        }
        Ok(())
    }

    async fn perform(&mut self, n: u64) -> Result<Done, Failure> {
        let client = self.drawer.client;
        // A run has fewer than 2^20 clients, and a client fewer than 2^28 jobs.
        let stamp = self.run << 48 | client << 28 | n;
        let job = self.workload.draw(&mut self.rng, Drawer { stamp, ..self.drawer });
        self.connection.perform(&job, Asking { run: self.run, client, n }).await
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    fn new(places: usize, seconds: f64) -> Result<Self, Failure> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .map_err(|error| Failure::of("cannot make a histogram", &error))
        };
        Ok(Self {
            committed: 0,
            failed: BTreeMap::new(),
            pending: 0,
            retried: 0,
            retries: 0,
            latency_us: histogram()?,
            lateness_us: histogram()?,
            unserved: 0,
            seconds,
            ledger: Ledger { sums: vec![0; places], ..Ledger::default() },
        })
    }

    /// `counts`: it was answered in the window. The latency is there if it counts, and is that of a
    /// committed one.
    fn note(&mut self, done: Done, counts: bool, latency: Option<Duration>) {
        let Done { told, changes, stamp, misread } = done;
        self.ledger.answered += 1;
        self.ledger.misread += misread;
        match told {
            Told::Committed { retries } => {
                changes.apply(&mut self.ledger.sums);
                if let Some(latency) = latency {
                    self.latency_us.saturating_record(micros(latency));
                }
                if counts {
                    self.committed += 1;
                    self.retried += u64::from(retries > 0);
                    self.retries += u64::from(retries);
                }
            }
            Told::Aborted(code) | Told::Refused(code) => {
                self.ledger.not_stored.extend(stamp);
                if counts {
                    *self.failed.entry(code).or_default() += 1;
                }
            }
            Told::Pending(id) => {
                self.ledger.pending.push(Pending { id, changes, stamp });
                self.pending += u64::from(counts);
            }
        }
    }

    fn give_up(&mut self, arrivals: &Arrivals, window: Window) {
        let now = Instant::now();
        for intended in arrivals.give_up() {
            if window.contains(intended) {
                self.unserved += 1;
                self.latency_us.saturating_record(micros(now - intended));
            }
        }
    }
}

/// For tests of what is made of a tally.
#[cfg(test)]
pub(super) mod tests_support {
    /// One that has seen nothing, of a window of so many seconds and two places.
    pub(in crate::bench) fn tally(seconds: f64) -> super::Tally {
        super::Tally::new(2, seconds).expect("the bounds are right")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::bench::client::Keys;
    use crate::bench::unit::{Ack, Escrow, Mode, Protocol};
    use crate::bench::workload::Shape;

    const STALL: Duration = Duration::from_millis(400);

    /// A coordinator that commits at once, but for one stall at `stall_at` in which it answers
    /// nobody.
    async fn stalling_coordinator(stall_at: Instant) -> SocketAddr {
        const BODY: &str = r#"{"outcome":"committed","attempt":0}"#;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let now = Instant::now();
                        if (stall_at..stall_at + STALL).contains(&now) {
                            tokio::time::sleep_until((stall_at + STALL).into()).await;
                        }
                        let length = BODY.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{BODY}");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    async fn tally(pace: Pace) -> Tally {
        let stall_at = Instant::now() + WARM_UP + Duration::from_millis(300);
        let targets = Targets {
            coordinator: stalling_coordinator(stall_at).await,
            port: None,
            redis: vec![0, 0],
            names: Arc::from(["a".to_owned(), "b".to_owned()]),
            escrow: Escrow::NotAsked,
            keys: Keys::None,
        };
        let run = Run {
            way: Way::Assent(Mode { ack: Ack::Applied, protocol: Protocol::Logged }),
            workload: Workload::new(Shape::Transfer { writes: 1 }, 10),
            clients: 2,
            pace,
            duration: Duration::from_secs(1),
            number: 1,
        };
        start(run, &targets).await.unwrap().finish().await.unwrap()
    }

    /// What coordinated omission would hide: in the stall, two clients of a closed loop wait once
    /// each; of an open loop, everybody who would have come in those 400 of 1,000 ms is late.
    #[tokio::test]
    async fn a_stall_is_charged_for_everybody_who_would_have_come() {
        let open = tally(Pace::Open(500.0)).await;
        let late = |tally: &Tally| {
            let from = micros(STALL / 2);
            tally.latency_us.count_between(from, LATENCY_US_MAX) as f64
                / tally.latency_us.len() as f64
        };
        // Those of the first half of the stall wait for more than half of it: a fifth of all.
        assert!(late(&open) > 0.1, "only {} of the arrivals were late", late(&open));
        assert!((400..600).contains(&open.latency_us.len()), "{}", open.latency_us.len());
        let closed = tally(Pace::Closed).await;
        assert!(late(&closed) < 0.1, "{} of the closed loop's were late", late(&closed));
    }

    #[test]
    fn only_what_is_answered_in_the_window_counts_but_all_is_in_the_ledger() {
        let mut tally = Tally::new(2, 1.0).unwrap();
        let done = |told| {
            let mut changes = Changes::default();
            changes.add(1, 5);
            Done { told, changes, stamp: Some(7), misread: 0 }
        };
        let ms = Some(Duration::from_millis(2));
        tally.note(done(Told::Committed { retries: 2 }), true, ms);
        tally.note(done(Told::Committed { retries: 0 }), false, None);
        tally.note(done(Told::Aborted("lock_conflict".to_owned())), true, ms);
        tally.note(done(Told::Pending("x".to_owned())), true, ms);
        assert_eq!((tally.committed, tally.retried, tally.retries), (1, 1, 2));
        assert_eq!(tally.failed["lock_conflict"], 1);
        assert_eq!(tally.latency_us.len(), 1);
        assert_eq!(tally.ledger.sums, [0, 10]);
        assert_eq!(tally.ledger.not_stored, [7]);
        assert_eq!((tally.pending, tally.ledger.pending.len()), (1, 1));
    }
}
