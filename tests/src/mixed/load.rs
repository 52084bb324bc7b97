//! The clients of a mixed load.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use assent_checkers::{Document, Recorder};
use assent_client::{CoordinatorClient, SubmitError};
use assent_common::IdempotencyKey;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchReport, TransactionRequest, TransactionView};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::servers::{DATABASES, MixedCluster};
use super::work::{MixedWork, PLACES, account, accounts, list, reads_of_all};
use crate::plain;
use crate::wait::wait_for;

/// What each account begins with.
const OPENING: i64 = 1_000;

/// Lists that there are at each database: a row that is not there cannot be locked.
const LISTS_MAX: i64 = 5_000;

/// The share of transactions that have a key, and of the others the share that is implicit.
const HAS_KEY: f64 = 0.7;
const IMPLICIT: f64 = 0.4;

/// Between two tries under one key, and how long a client tries.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// The client that reads all at the end.
const READER: i64 = 900;

/// What became of the transactions, as their clients were told.
#[derive(Debug, Default)]
pub(super) struct MixedTold {
    pub(super) committed: watch::Sender<u64>,
    pub(super) aborted: AtomicU64,
    pub(super) unknown: AtomicU64,
}

/// What the clients share.
#[derive(Debug)]
pub(super) struct MixedClients {
    api: CoordinatorClient,
    recorder: Recorder,
    /// The next element; each is appended once.
    elements: AtomicI64,
    pub(super) told: MixedTold,
}

/// The clients at work.
pub(super) struct MixedLoad {
    pub(super) clients: Arc<MixedClients>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Makes the tables, and the money.
pub(super) async fn open(mixed: &MixedCluster, recorder: &Recorder) {
    let mut opening = std::collections::BTreeMap::new();
    for one in accounts() {
        opening.insert(account(one), OPENING);
    }
    for (place, name) in (1..).zip(DATABASES) {
        let mut sql = "CREATE TABLE acct (k text PRIMARY KEY, balance bigint NOT NULL); \
             CREATE TABLE lists (k text PRIMARY KEY, v bigint[] NOT NULL DEFAULT '{}'); \
             CREATE TABLE marks (id text NOT NULL);"
            .to_owned();
        for one in accounts().filter(|one| one.0 == place) {
            sql.push_str(&format!("INSERT INTO acct VALUES ('{}', {OPENING});", account(one)));
        }
        let (prefix, last) = (list(place, 0), LISTS_MAX - 1);
        let prefix = prefix.trim_end_matches('0');
        sql.push_str(&format!(
            "INSERT INTO lists SELECT '{prefix}' || n FROM generate_series(0, {last}) n; ANALYZE"
        ));
        mixed.sql(name, &sql).await;
    }
    let redis = &mixed.cluster.peers[0].redis;
    for one in accounts().filter(|one| one.0 == 0) {
        plain::run::<()>(redis, &["SET", &account(one), &OPENING.to_string()]).await;
    }
    recorder.observe(Document::OpeningBalances(opening));
}

fn request(work: &MixedWork, is_implicit: bool) -> TransactionRequest {
    let branches: Vec<Value> = work
        .branches()
        .into_iter()
        .map(|(place, ops)| json!({"participant": PLACES[place], "ops": ops}))
        .collect();
    let protocol = if is_implicit { "implicit" } else { "logged" };
    let body = json!({"timeout": "3s", "protocol": protocol, "branches": branches});
    serde_json::from_str(&body.to_string()).expect("a transaction")
}

/// The replies of all branches.
fn replies(view: &TransactionView) -> Option<Vec<Value>> {
    let of_branch = |branch: &BranchReport| -> Option<Vec<Value>> {
        serde_json::from_str(branch.replies.as_ref()?.get()).ok()
    };
    let branches: Option<Vec<_>> = view.branches.iter().map(of_branch).collect();
    Some(branches?.concat())
}

impl MixedClients {
    /// Waits until so many more transactions have committed.
    pub(super) async fn wait_committed(&self, more: u64) {
        let mut committed = self.told.committed.subscribe();
        let until = *committed.borrow() + more;
        let _never = committed.wait_for(|committed| *committed >= until).await;
    }

    /// Does one transaction and writes down what came of it.
    async fn transact(&self, client: i64, key: &str, work: &MixedWork, random: &mut StdRng) {
        let has_key = random.random_bool(HAS_KEY);
        let is_implicit = !has_key && random.random_bool(IMPLICIT);
        let request = request(work, is_implicit);
        let key: IdempotencyKey = key.parse().expect("a key");
        let token = self.recorder.invoke(client, work.action());
        let deadline = Instant::now() + PATIENCE;
        let mut is_first = true;
        let why = loop {
            let refused = match self.api.submit(&request, has_key.then_some(&key), None).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    self.told.committed.send_modify(|committed| *committed += 1);
                    match replies(&view).and_then(|replies| work.answered(&replies)) {
                        Some(answered) => token.ok(answered),
                        // Finished by others, or told again: what was read is not known.
                        None => token.info("committed, without its replies"),
                    }
                    return;
                }
                Ok(view) => Err(format!("{:?}", view.outcome)),
                Err(SubmitError::Aborted(problem)) => Ok(problem),
                // Later on it says nothing of what the first try began.
                Err(SubmitError::Rejected(problem)) if is_first => Ok(problem),
                Err(error) => Err(error.to_string()),
            };
            match refused {
                Ok(problem) => {
                    self.told.aborted.fetch_add(1, Ordering::Relaxed);
                    return token.fail(problem.detail);
                }
                Err(why) if Instant::now() > deadline || !has_key => break why,
                Err(_) => is_first = false,
            }
            tokio::time::sleep(PAUSE).await;
        };
        self.told.unknown.fetch_add(1, Ordering::Relaxed);
        token.info(why);
    }

    /// Reads every list that there ever was, and every account, of servers at rest.
    pub(super) async fn read_all(&self) {
        let last = self.elements.load(Ordering::Relaxed);
        let asked = AtomicU64::new(0);
        for work in reads_of_all(last).chain([MixedWork::Balances]) {
            wait_for("a read of servers at rest", || async {
                let before = *self.told.committed.borrow();
                let key = format!("last-{}", asked.fetch_add(1, Ordering::Relaxed));
                self.transact(READER, &key, &work, &mut StdRng::seed_from_u64(0)).await;
                if *self.told.committed.borrow() > before { Ok(()) } else { Err("refused") }
            })
            .await;
        }
    }
}

impl MixedLoad {
    /// Starts so many clients.
    pub(super) fn start(
        api: CoordinatorClient,
        recorder: Recorder,
        clients: u64,
        seed: u64,
    ) -> Self {
        let (elements, told) = (AtomicI64::new(0), MixedTold::default());
        let shared = Arc::new(MixedClients { api, recorder, elements, told });
        let stop = watch::Sender::new(false);
        let tasks = (0..clients).map(|client| {
            let (shared, stop) = (Arc::clone(&shared), stop.subscribe());
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(client));
            tokio::spawn(async move {
                let number = i64::try_from(client).expect("few clients");
                for n in 0_u64.. {
                    if *stop.borrow() {
                        break;
                    }
                    let (key, elements) = (format!("{client}-{n}"), &shared.elements);
                    let last = elements.load(Ordering::Relaxed);
                    let next = || elements.fetch_add(1, Ordering::Relaxed);
                    let work = MixedWork::draw(&mut random, &key, next, last);
                    shared.transact(number, &key, &work, &mut random).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { clients: shared, stop, tasks }
    }

    /// Lets every client end what it has begun.
    pub(super) async fn stop(self) -> Arc<MixedClients> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("a client ends by itself");
        }
        self.clients
    }
}
