//! The clients of the demo: closed loops that never believe a silence. An outcome that is not known
//! is asked for again with the same key, until it is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assent::{Failure, exit::chain};
use assent_client::{CoordinatorClient, SubmitError};
use assent_common::IdempotencyKey;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{TransactionRequest, TransactionView};
use hdrhistogram::Histogram;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bank::{Bank, Kind, Plan};

/// The pauses before asking again.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long a client asks for one outcome before the demo counts it as never known.
const RESOLVE_MAX: Duration = Duration::from_secs(90);

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What a client was told, last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Committed.
    Committed,
    /// Aborted, with this code.
    Aborted(String),
    /// Never told.
    Unknown(String),
    /// Not taken, for a reason that no retry changes.
    Rejected(String),
}

/// One transaction that writes, as its client knows it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) id: Option<String>,
    pub(super) writes_at: Vec<usize>,
    pub(super) delta: i64,
    pub(super) told: Told,
}

/// What the clients know together.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
    pub(super) committed: u64,
    pub(super) read_only: u64,
    pub(super) aborted: BTreeMap<String, u64>,
    /// Outcomes that were not known at first, and then were.
    pub(super) resolved: u64,
    pub(super) latency_us: Histogram<u64>,
}

/// The clients at work.
pub(super) struct Clients {
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), Failure>>,
    waiting: Arc<AtomicUsize>,
}

struct Client {
    bank: Bank,
    api: CoordinatorClient,
    ledger: Arc<Mutex<Ledger>>,
    /// Clients that ask for an outcome again.
    waiting: Arc<AtomicUsize>,
    rng: StdRng,
    name: String,
}

/// How a submission ended, with how often it was asked.
struct Answer {
    told: Told,
    view: Option<TransactionView>,
    asked: u32,
    id: Option<String>,
}

impl Clients {
    pub(super) fn start(
        bank: &Bank,
        api: &CoordinatorClient,
        count: usize,
        seed: u64,
    ) -> Result<Self, Failure> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .map_err(|error| Failure::of("cannot make a histogram", &error))?;
        let ledger = Ledger {
            entries: Vec::new(),
            committed: 0,
            read_only: 0,
            aborted: BTreeMap::new(),
            resolved: 0,
            latency_us,
        };
        let ledger = Arc::new(Mutex::new(ledger));
        let (stop, stopping) = watch::channel(false);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let client = Client {
                bank: bank.clone(),
                api: api.clone(),
                ledger: Arc::clone(&ledger),
                waiting: Arc::clone(&waiting),
                rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
                name: format!("demo-{seed}-{number}"),
            };
            tasks.spawn(client.run(stopping.clone()));
        }
        Ok(Self { ledger, stop, tasks, waiting })
    }

    /// Committed and aborted so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        (ledger.committed, ledger.aborted.values().sum())
    }

    /// How many clients wait for an outcome that they were not told.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Begins nothing new, waits until every client knows its last outcome, and returns what they
    /// know.
    pub(super) async fn finish(mut self) -> Result<Ledger, Failure> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| Failure::of("a client ended", &error))??;
        }
        let ledger = Arc::try_unwrap(self.ledger)
            .map_err(|_| Failure::error("a client still holds the ledger"))?;
        Ok(ledger.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Client {
    async fn run(mut self, stopping: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut n = 0_u64;
        while !*stopping.borrow() {
            let plan = self.bank.plan(&mut self.rng);
            let key = format!("{}-{n}", self.name);
            n += 1;
            self.transact(plan, &key).await?;
        }
        Ok(())
    }

    async fn transact(&self, plan: Plan, key: &str) -> Result<(), Failure> {
        let invalid = |error: assent_client::transaction::InvalidTransaction| {
            Failure::of("the demo made no transaction", &error)
        };
        let mut balances = (0, 0);
        if matches!(plan.kind, Kind::Balance | Kind::Amalgamate) {
            let read = self.bank.read(plan).map_err(invalid)?;
            let began = Instant::now();
            let answer = self.submit(&read, &format!("{key}-read")).await?;
            self.note(began, &answer, None);
            let Some(read) = answer.view.as_ref().and_then(balances_of) else { return Ok(()) };
            if plan.kind == Kind::Balance {
                return Ok(());
            }
            balances = read;
        }
        let prepared = self.bank.prepare(plan, key, balances).map_err(invalid)?;
        let began = Instant::now();
        let answer = self.submit(&prepared.request, key).await?;
        let entry = Entry {
            key: key.to_owned(),
            id: answer.id.clone(),
            writes_at: prepared.writes_at,
            delta: prepared.delta,
            told: answer.told.clone(),
        };
        self.note(began, &answer, Some(entry));
        Ok(())
    }

    /// Submits until the outcome is known: the same body under the same key, however often.
    async fn submit(&self, request: &TransactionRequest, key: &str) -> Result<Answer, Failure> {
        let key: IdempotencyKey =
            key.parse().map_err(|error| Failure::of("the demo made no key", &error))?;
        let began = Instant::now();
        let mut pause = RETRY_FIRST;
        let mut asked = 0;
        loop {
            asked += 1;
            let why = match self.api.submit(request, Some(&key), None).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    let id = Some(view.id.to_string());
                    return Ok(self.answer(Told::Committed, Some(view), asked, id));
                }
                Ok(view) => format!("{} is pending", view.id),
                Err(SubmitError::Aborted(problem)) => {
                    let id = problem.id.map(|id| id.to_string());
                    return Ok(self.answer(
                        Told::Aborted(problem.code.to_string()),
                        None,
                        asked,
                        id,
                    ));
                }
                Err(SubmitError::Rejected(problem)) if !problem.retryable => {
                    let told = Told::Rejected(format!("{}: {}", problem.code, problem.detail));
                    return Ok(self.answer(told, None, asked, None));
                }
                Err(error @ (SubmitError::Rejected(_) | SubmitError::Unknown(_))) => chain(&error),
            };
            if asked == 1 {
                self.waiting.fetch_add(1, Ordering::Relaxed);
            }
            if began.elapsed() > RESOLVE_MAX {
                return Ok(self.answer(Told::Unknown(why), None, asked, None));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn answer(
        &self,
        told: Told,
        view: Option<TransactionView>,
        asked: u32,
        id: Option<String>,
    ) -> Answer {
        if asked > 1 {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Answer { told, view, asked, id }
    }

    fn note(&self, began: Instant, answer: &Answer, entry: Option<Entry>) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer.told {
            Told::Committed => {
                ledger.committed += 1;
                ledger.read_only += u64::from(entry.is_none());
            }
            Told::Aborted(code) => *ledger.aborted.entry(code.clone()).or_default() += 1,
            Told::Unknown(_) | Told::Rejected(_) => {}
        }
        if answer.asked > 1 && matches!(answer.told, Told::Committed | Told::Aborted(_)) {
            ledger.resolved += 1;
        }
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        ledger.latency_us.saturating_record(micros);
        ledger.entries.extend(entry);
    }
}

/// The replies of a read: checking and savings.
fn balances_of(view: &TransactionView) -> Option<(i64, i64)> {
    let replies = view.branches.first()?.replies.as_ref()?;
    let [checking, savings]: [String; 2] = serde_json::from_str(replies.get()).ok()?;
    Some((checking.parse().ok()?, savings.parse().ok()?))
}
