//! The clients of a soak: appends to lists and reads of them, transfers between accounts and looks at all of them; of each a
//! third at one participant, which is one phase.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use assent_checkers::{Action, Document, MicroOp, Recorder, Transfer};
use assent_client::transaction::Ops;
use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::IdempotencyKey;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchReport, Protocol, TransactionView};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wait::wait_for;

/// The participants of a soak.
pub(super) const PARTICIPANTS: [&str; 3] = ["bank-a", "bank-b", "bank-c"];

const OPENING: i64 = 1_000;

/// Accounts at each participant.
const ACCOUNTS: usize = 4;

/// Lists in use at a time at each participant, and elements after which the next ones are taken: a list is read as a
/// whole, so it must not grow for ever.
const LISTS: i64 = 3;
const ELEMENTS_OF_A_ROUND: i64 = 150;

/// The share of transactions with one branch.
const ONE_BRANCH: f64 = 1.0 / 3.0;

/// Of those that are asked for once, the share that is implicit.
const IMPLICIT: f64 = 0.3;

const TIMEOUT_MS: u64 = 3_000;

/// Between two tries under one key, and how long a client tries.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// The client that reads all at the end.
const READER: i64 = 900;

/// What the clients share.
#[derive(Debug)]
pub(super) struct Shared {
    api: CoordinatorClient,
    recorder: Recorder,
    /// The next element; each is appended once.
    elements: AtomicI64,
    committed: watch::Sender<u64>,
    one_branch: AtomicU64,
    /// Whether every transaction has a key, and is asked for until its outcome is known. Without that a coordinator that dies
    /// may take what one phase or an implicit transaction wrote with it (docs/start/guarantees.md).
    all_have_keys: bool,
}

/// The clients at work.
pub(super) struct Load {
    pub(super) shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
}

/// One transaction.
enum Work {
    /// At each participant, by its place.
    Lists(Vec<(usize, MicroOp)>),
    /// From an account to another: place of the participant, number.
    Pay {
        from: (usize, usize),
        to: (usize, usize),
        amount: i64,
    },
    Balances,
}

pub(super) fn account((place, number): (usize, usize)) -> String {
    format!("acct:{place}:{number}")
}

/// Every account: the place of its participant, and its number there.
pub(super) fn accounts() -> impl Iterator<Item = (usize, usize)> {
    (0..PARTICIPANTS.len()).flat_map(|place| (0..ACCOUNTS).map(move |number| (place, number)))
}

impl Work {
    fn draw(random: &mut StdRng, elements: &AtomicI64) -> Self {
        let at_one = random.random_bool(ONE_BRANCH);
        let place = random.random_range(0..PARTICIPANTS.len());
        match random.random_range(0..100) {
            0..60 => {
                let first = elements.load(Ordering::Relaxed) / ELEMENTS_OF_A_ROUND * LISTS;
                let places: Vec<usize> = (0..PARTICIPANTS.len()).collect();
                let mut lists: Vec<(usize, i64)> = places
                    .iter()
                    .filter(|other| !at_one || **other == place)
                    .flat_map(|place| (first..first + LISTS).map(move |list| (*place, list)))
                    .collect();
                lists.shuffle(random);
                lists.truncate(random.random_range(1..=if at_one { 3 } else { 4 }));
                lists.sort_unstable();
                let steps = lists.into_iter().map(|(place, list)| {
                    let key = format!("list:{place}:{list}");
                    let step = if random.random_bool(0.6) {
                        MicroOp::append(key, elements.fetch_add(1, Ordering::Relaxed))
                    } else {
                        MicroOp::read(key)
                    };
                    (place, step)
                });
                Self::Lists(steps.collect())
            }
            60..93 => {
                let mine: Vec<_> =
                    accounts().filter(|account| !at_one || account.0 == place).collect();
                let two: Vec<_> = mine.choose_multiple(random, 2).copied().collect();
                Self::Pay { from: two[0], to: two[1], amount: random.random_range(1..=40) }
            }
            _ => Self::Balances,
        }
    }

    /// The ops at each participant, in the order of the steps.
    fn branches(&self) -> BTreeMap<usize, Vec<Vec<String>>> {
        let mut branches: BTreeMap<usize, Vec<Vec<String>>> = BTreeMap::new();
        let mut push = |place: usize, words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            branches.entry(place).or_default().push(words);
        };
        match self {
            Self::Lists(steps) => {
                for (place, step) in steps {
                    match step {
                        MicroOp::Append(key, element) => {
                            push(*place, &["RPUSH", &key.to_string(), &element.to_string()]);
                        }
                        MicroOp::Read(key, _) => {
                            push(*place, &["LRANGE", &key.to_string(), "0", "-1"]);
                        }
                    }
                }
            }
            Self::Pay { from, to, amount } => {
                push(from.0, &["DECRBY", &account(*from), &amount.to_string()]);
                push(to.0, &["INCRBY", &account(*to), &amount.to_string()]);
            }
            Self::Balances => {
                for one in accounts() {
                    push(one.0, &["GET", &account(one)]);
                }
            }
        }
        branches
    }

    fn action(&self) -> Action {
        match self {
            Self::Lists(steps) => Action::Txn(steps.iter().map(|(_, step)| step.clone()).collect()),
            Self::Pay { from, to, amount } => Action::Transfer(Transfer {
                from: account(*from),
                to: account(*to),
                amount: *amount,
            }),
            Self::Balances => Action::Balances(None),
        }
    }

    /// The action with the answers, if the replies are such.
    fn answered(&self, view: &TransactionView) -> Option<Action> {
        // Branches and steps are both in the order of the participants.
        let mut replies = Vec::new();
        for branch in &view.branches {
            replies.extend(replies_of(branch)?);
        }
        let mut replies = replies.into_iter();
        match self {
            Self::Pay { .. } => (replies.len() == 2).then(|| self.action()),
            Self::Balances => {
                let balances =
                    accounts().map(|one| Some((account(one), integer(&replies.next()?)?)));
                Some(Action::Balances(Some(balances.collect::<Option<_>>()?)))
            }
            Self::Lists(steps) => {
                let answered = steps.iter().map(|(_, step)| {
                    let reply = replies.next()?;
                    Some(match step {
                        MicroOp::Append(..) => step.clone(),
                        MicroOp::Read(key, _) => {
                            let elements = reply.as_array()?.iter().map(integer);
                            MicroOp::Read(key.clone(), Some(elements.collect::<Option<_>>()?))
                        }
                    })
                });
                Some(Action::Txn(answered.collect::<Option<_>>()?))
            }
        }
    }
}

fn replies_of(branch: &BranchReport) -> Option<Vec<Value>> {
    serde_json::from_str(branch.replies.as_ref()?.get()).ok()
}

/// A number as Redis replies it, or as a text. An account that is not there has nothing.
fn integer(reply: &Value) -> Option<i64> {
    if reply.is_null() {
        return Some(0);
    }
    reply.as_i64().or_else(|| reply.as_str()?.parse().ok())
}

impl Shared {
    /// Opens the bank, so that the log knows the balances too.
    pub(super) async fn open(
        api: CoordinatorClient,
        recorder: Recorder,
        all_have_keys: bool,
    ) -> Self {
        let mut transaction = Transaction::new();
        for (place, name) in PARTICIPANTS.iter().enumerate() {
            transaction = transaction.branch(name, |ops| {
                (0..ACCOUNTS).fold(ops, |ops, number| {
                    ops.op(["SET", &account((place, number)), &OPENING.to_string()])
                })
            });
        }
        let request = transaction.build().expect("a transaction");
        api.submit(&request, None, None).await.expect("the bank is opened before anything breaks");
        let balances = accounts().map(|one| (account(one), OPENING));
        recorder.observe(Document::OpeningBalances(balances.collect()));
        Self {
            api,
            recorder,
            elements: AtomicI64::new(0),
            committed: watch::Sender::new(0),
            one_branch: AtomicU64::new(0),
            all_have_keys,
        }
    }

    /// How many transactions a client was told to be committed.
    pub(super) fn committed(&self) -> u64 {
        *self.committed.borrow()
    }

    /// How many transactions of one branch were asked for.
    pub(super) fn one_branch(&self) -> u64 {
        self.one_branch.load(Ordering::Relaxed)
    }

    /// Waits until so many more transactions have committed.
    pub(super) async fn wait_committed(&self, more: u64) {
        let until = self.committed() + more;
        let mut committed = self.committed.subscribe();
        let _never = committed.wait_for(|committed| *committed >= until).await;
    }

    /// Does one transaction and writes down what came of it.
    async fn transact(&self, client: i64, key: &str, work: &Work, random: &mut StdRng) {
        let branches = work.branches();
        let is_one = branches.len() == 1;
        self.one_branch.fetch_add(u64::from(is_one), Ordering::Relaxed);
        let mut transaction = Transaction::default().timeout(DurationMs(TIMEOUT_MS));
        for (place, commands) in branches {
            transaction = transaction.branch(PARTICIPANTS[place], |ops| {
                commands.into_iter().fold(ops, |ops: Ops, words| {
                    let takes = words[0] == "DECRBY";
                    let ops = ops.op(words.iter().map(String::as_str));
                    if takes { ops.expect_ge(0) } else { ops }
                })
            });
        }
        let has_key = self.all_have_keys || random.random_bool(0.5);
        let is_implicit = !has_key && random.random_bool(IMPLICIT);
        if is_implicit {
            transaction = transaction.protocol(Protocol::Implicit);
        }
        let request = transaction.build().expect("a transaction");
        let key: IdempotencyKey = key.parse().expect("a key");
        let token = self.recorder.invoke(client, work.action());
        let deadline = Instant::now() + PATIENCE;
        let mut is_first = true;
        let why = loop {
            match self.api.submit(&request, has_key.then_some(&key), None).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    self.committed.send_modify(|committed| *committed += 1);
                    match work.answered(&view) {
                        Some(answered) => token.ok(answered),
                        // Finished by others, or told again: committed, and what was read is not known.
                        None => token.info("committed, without its replies"),
                    }
                    return;
                }
                Err(SubmitError::Aborted(problem)) => return token.fail(problem.detail),
                Err(SubmitError::Rejected(problem)) if is_first => {
                    return token.fail(problem.detail);
                }
                Ok(view) if Instant::now() > deadline || !has_key => {
                    break format!("{:?}", view.outcome);
                }
                Err(error) if Instant::now() > deadline || !has_key => break error.to_string(),
                _ => is_first = false,
            }
            tokio::time::sleep(PAUSE).await;
        };
        token.info(why);
    }
}

impl Load {
    /// Starts so many clients.
    pub(super) fn start(shared: Shared, clients: u64, seed: u64) -> Self {
        let (shared, stop) = (Arc::new(shared), watch::Sender::new(false));
        let clients = (0..clients).map(|client| {
            let (shared, stop) = (Arc::clone(&shared), stop.subscribe());
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(client));
            tokio::spawn(async move {
                let number = i64::try_from(client).expect("few clients");
                for n in 0_u64.. {
                    if *stop.borrow() {
                        break;
                    }
                    let work = Work::draw(&mut random, &shared.elements);
                    shared.transact(number, &format!("{client}-{n}"), &work, &mut random).await;
                }
            })
        });
        let clients = clients.collect();
        Self { shared, stop, clients }
    }

    /// Lets every client end what it has begun.
    pub(super) async fn stop(self) -> Arc<Shared> {
        self.stop.send_replace(true);
        for client in self.clients {
            client.await.expect("a client ends by itself");
        }
        self.shared
    }
}

impl Shared {
    /// Reads every list that there ever was and every account, of a cluster at rest.
    pub(super) async fn read_all(&self) {
        let last = self.elements.load(Ordering::Relaxed) / ELEMENTS_OF_A_ROUND;
        let mut works = vec![Work::Balances];
        for round in 0..=last {
            let places = 0..PARTICIPANTS.len();
            let lists = places.flat_map(|place| {
                let lists = round * LISTS..(round + 1) * LISTS;
                lists.map(move |list| (place, MicroOp::read(format!("list:{place}:{list}"))))
            });
            works.push(Work::Lists(lists.collect()));
        }
        let asked = AtomicU64::new(0);
        for work in &works {
            // Refused while a loss that came last is being made whole.
            wait_for("a read of a cluster at rest", || async {
                let before = self.committed();
                let key = format!("last-{}", asked.fetch_add(1, Ordering::Relaxed));
                self.transact(READER, &key, work, &mut StdRng::seed_from_u64(0)).await;
                if self.committed() > before { Ok(()) } else { Err("it was refused") }
            })
            .await;
        }
    }
}
