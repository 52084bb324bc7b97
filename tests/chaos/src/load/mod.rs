//! Clients that do transactions all the while, ask again for what they were not told, and write down both.
//!
//! Each has two numbers in the history: one for what it does, one for the mark that the same transaction leaves in every
//! branch that writes.

mod work;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assent_checkers::{Action, Mark, Recorder, Token as Operation};
use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::TransactionId;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{Protocol, TransactionView};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

pub(crate) use self::work::{
    COUNTERS, OPENING_BALANCE, STOCK, Work, World, account_names, add_key, balance_key,
};

/// Marks are written under numbers from here on.
const MARKS_FROM: i64 = 1_000;

/// How long a transaction may take to decide.
const TIMEOUT_MS: u64 = 5_000;

/// The share of implicit transactions, which have no ids: what is not known of them at first stays so.
const IMPLICIT_SHARE: f64 = 0.25;

/// The pauses before the same is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(1_000);

/// How long an answer is asked for again, before the client goes on without it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of the transactions so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) committed: AtomicU64,
    pub(crate) aborted: AtomicU64,
    /// Given up without an answer.
    pub(crate) unknown: AtomicU64,
    /// Not taken by the coordinator: nothing was begun.
    pub(crate) rejected: AtomicU64,
    /// Not known from the first answer, and asked for again.
    pub(crate) unclear_at_first: AtomicU64,
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) world: Arc<World>,
    pub(crate) recorder: Recorder,
    pub(crate) tally: Arc<Tally>,
    /// The ids of all transactions.
    ids: Arc<Mutex<Vec<TransactionId>>>,
    client: CoordinatorClient,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// What became of one transaction.
pub(crate) enum Told {
    Committed(Box<TransactionView>),
    Aborted(String),
    Unknown(String),
}

impl Load {
    /// Nobody does anything yet.
    pub(crate) fn new(client: CoordinatorClient, world: World, recorder: Recorder) -> Self {
        Self {
            world: Arc::new(world),
            recorder,
            tally: Arc::default(),
            ids: Arc::default(),
            client,
            stop: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Starts so many clients that do so many transactions a second between them, at most.
    pub(crate) fn start(&mut self, clients: u32, per_second: u32, seed: u64) {
        let pace = Duration::from_secs(1) * clients / per_second.max(1);
        for number in 0..clients {
            let one = Client {
                number: i64::from(number),
                rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number.into())),
                world: Arc::clone(&self.world),
                recorder: self.recorder.clone(),
                tally: Arc::clone(&self.tally),
                ids: Arc::clone(&self.ids),
                client: self.client.clone(),
            };
            self.tasks.spawn(one.run(Arc::clone(&self.stop), pace));
        }
    }

    /// Lets every client end what it has begun. A client that panicked has broken the run.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| format!("a client ended badly: {error}"))?;
        }
        Ok(())
    }

    /// The ids of all transactions so far.
    pub(crate) fn ids(&self) -> Vec<TransactionId> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does one more, as a client of its own. For the reads that end a history.
    pub(crate) async fn once(&self, number: i64, work: Work) {
        let one = Client {
            number,
            rng: StdRng::seed_from_u64(0),
            world: Arc::clone(&self.world),
            recorder: self.recorder.clone(),
            tally: Arc::clone(&self.tally),
            ids: Arc::clone(&self.ids),
            client: self.client.clone(),
        };
        one.transact(work, Protocol::Logged).await;
    }
}

struct Client {
    number: i64,
    rng: StdRng,
    world: Arc<World>,
    recorder: Recorder,
    tally: Arc<Tally>,
    ids: Arc<Mutex<Vec<TransactionId>>>,
    client: CoordinatorClient,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>, pace: Duration) {
        while !stop.load(Ordering::Relaxed) {
            let next = Instant::now() + pace.mul_f64(self.rng.random_range(0.5..1.5));
            let work = self.world.draw(&mut self.rng);
            let protocol = self.protocol();
            self.transact(work, protocol).await;
            tokio::time::sleep_until(next.into()).await;
        }
    }

    async fn transact(&self, work: Work, protocol: Protocol) {
        let transaction = Transaction::new().timeout(DurationMs(TIMEOUT_MS));
        let Some(id) = transaction.id() else { return };
        let transaction = match protocol {
            Protocol::Logged => {
                self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                transaction
            }
            // Here the id is the name of its marks only: the coordinator does not hear of it.
            Protocol::Implicit => transaction.protocol(Protocol::Implicit).without_id(),
        };
        let id = id.to_string();
        let Ok(transaction) = work.write(transaction, &id) else { return };
        let asked = self.recorder.invoke(self.number, work.action(&id));
        let mark = work.marks_at().map(|branches| {
            let mark = Action::Mark(Mark { id: id.clone(), branches });
            (self.recorder.invoke(MARKS_FROM + self.number, mark.clone()), mark)
        });
        let told = self.submit(&transaction, protocol).await;
        match &told {
            Told::Committed(_) => self.tally.committed.fetch_add(1, Ordering::Relaxed),
            Told::Aborted(_) => self.tally.aborted.fetch_add(1, Ordering::Relaxed),
            Told::Unknown(_) => self.tally.unknown.fetch_add(1, Ordering::Relaxed),
        };
        if let Some((operation, mark)) = mark {
            end(operation, &told, Some(mark));
        }
        let answered = match &told {
            Told::Committed(view) => work.answered(&id, view),
            Told::Aborted(_) | Told::Unknown(_) => None,
        };
        end(asked, &told, answered);
    }

    /// What decides the next transaction, if it has several branches.
    fn protocol(&mut self) -> Protocol {
        if self.rng.random_bool(IMPLICIT_SHARE) { Protocol::Implicit } else { Protocol::Logged }
    }

    /// Asks until it is told, or has no patience left; what has no id is asked for once.
    async fn submit(
        &self,
        transaction: &assent_common::wire::transaction::TransactionRequest,
        protocol: Protocol,
    ) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let (mut pause, mut unclear) = (RETRY_FIRST, false);
        loop {
            let why = match self.client.submit(transaction, None, None).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    return Told::Committed(Box::new(view));
                }
                Ok(view) => format!("{} is pending", view.id),
                Err(SubmitError::Aborted(problem)) => {
                    return Told::Aborted(problem.code.to_string());
                }
                // Nothing was begun by this request; an earlier one may have.
                Err(SubmitError::Rejected(problem)) if !unclear => {
                    self.tally.rejected.fetch_add(1, Ordering::Relaxed);
                    return Told::Aborted(format!("not taken: {}", problem.code));
                }
                Err(error) => error.to_string(),
            };
            if !unclear {
                unclear = true;
                self.tally.unclear_at_first.fetch_add(1, Ordering::Relaxed);
            }
            if protocol == Protocol::Implicit || Instant::now() >= deadline {
                return Told::Unknown(why);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

fn end(operation: Operation, told: &Told, answered: Option<Action>) {
    match (told, answered) {
        (Told::Committed(_), Some(answered)) => operation.ok(answered),
        // Committed, and the replies are not what was asked for: the product has lied, or kept no replies.
        (Told::Committed(_), None) => operation.info("committed, without replies that can be read"),
        (Told::Aborted(why), _) => operation.fail(why),
        (Told::Unknown(why), _) => operation.info(why),
    }
}
