//! The clients of the history: appends to lists and reads of them across participants, registers, a counter whose value
//! and increments are at two participants, and marks that are at all of them.

use std::time::Duration;

use assent_checkers::{Action, Add, Count, Mark, MicroOp, Recorder, RegisterOp};
use assent_client::interactive::op;
use assent_client::transaction::Ops;
use assent_client::{CoordinatorClient, Interactive, SubmitError, Transaction};
use assent_common::IdempotencyKey;
use assent_common::time::DurationMs;
use assent_common::wire::interactive::BeginRequest;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchReport, Protocol, TransactionView};
use serde_json::Value;
use tokio::sync::watch;

pub(super) const PARTICIPANTS: [&str; 3] = ["bank-a", "bank-b", "bank-c"];

/// The counter's value at the first participant, the ids of its increments at the second.
pub(super) const COUNTER: &str = "counter";

/// The ids of the marks, at every participant.
pub(super) const MARKS: &str = "marks";

/// Operations of a client on one set of keys, before it goes on to the next.
const ROUND: usize = 40;

/// Sets of keys; the last one is kept.
const ROUNDS: usize = 30;

/// Lists of a round, spread over the participants.
const LISTS: u64 = 6;

/// Between two tries, and between two operations.
const PAUSE: Duration = Duration::from_millis(10);

/// How often a client that does not give up asks.
const STUBBORN: usize = 1_000;

/// One client: one thing at a time.
pub(super) struct Client {
    name: i64,
    api: CoordinatorClient,
    recorder: Recorder,
    done: usize,
    random: u64,
}

/// What came of a transaction.
enum Told {
    /// Committed, with the replies of each branch.
    Committed(Vec<Value>),
    /// It has no effect.
    Refused(String),
    /// Not known.
    Unknown(String),
}

fn replies(view: &TransactionView) -> Option<Vec<Value>> {
    let of_branch = |branch: &BranchReport| {
        let replies = branch.replies.as_ref()?;
        serde_json::from_str(replies.get()).ok()
    };
    view.branches.iter().map(of_branch).collect()
}

/// Whether a branch has no replies; here each has an op.
fn has_unheard(view: &TransactionView) -> bool {
    let is_unheard = |branch: &BranchReport| {
        branch.replies.as_ref().is_some_and(|replies| replies.get() == "[]")
    };
    view.branches.iter().any(is_unheard)
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

impl Client {
    pub(super) fn new(name: i64, api: CoordinatorClient, recorder: Recorder) -> Self {
        Self { name, api, recorder, done: 0, random: name.unsigned_abs() + 1 }
    }

    /// Below `bound`; the same in every run.
    fn pick(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % bound
    }

    /// The first values, so that no register is read before it is written.
    pub(super) async fn open(mut self) {
        for round in 0..ROUNDS {
            self.done += 1;
            self.register(format!("r{round}"), RegisterOp::Write(0)).await;
        }
    }

    pub(super) async fn run(mut self, stop: watch::Receiver<bool>, ended: watch::Sender<u64>) {
        self.done = 1_000;
        while !*stop.borrow() {
            self.done += 1;
            match self.pick(8) {
                0..4 => self.lists().await,
                4 | 5 => self.some_register().await,
                6 => self.count().await,
                _ => self.mark().await,
            }
            ended.send_modify(|ended| *ended += 1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn round(&self) -> usize {
        ((self.done - 1_000) / ROUND).min(ROUNDS - 1)
    }

    /// A number of this client's own.
    fn element(&self) -> i64 {
        self.name * 1_000_000 + i64::try_from(self.done).expect("few operations")
    }

    /// Asks, so many times at most, under one key. Of what need not be known for certain, every other is implicit: asked for
    /// once, without a key.
    async fn submit(&self, transaction: Transaction, tries: usize) -> Told {
        let key: IdempotencyKey = format!("{}-{}", self.name, self.done).parse().expect("a key");
        let is_implicit = tries < STUBBORN && self.done.is_multiple_of(2);
        let (transaction, key, tries) = match is_implicit {
            true => (transaction.protocol(Protocol::Implicit), None, 1),
            false => (transaction, Some(&key), tries),
        };
        let request = transaction.timeout(DurationMs(1_500)).build().expect("a transaction");
        let mut last = String::new();
        for n in 0..tries {
            match self.api.submit(&request, key, None).await {
                // Finished by others, before the coordinator had heard a vote.
                Ok(view) if is_implicit && has_unheard(&view) => {
                    return Told::Unknown("committed, and replies are missing".to_owned());
                }
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    return replies(&view).map_or_else(
                        || Told::Unknown("committed, and no replies".to_owned()),
                        Told::Committed,
                    );
                }
                Err(SubmitError::Aborted(problem)) => return Told::Refused(problem.detail),
                // Later on it says nothing of what the first try began.
                Err(SubmitError::Rejected(problem)) if n == 0 => {
                    return Told::Refused(problem.detail);
                }
                other => last = format!("{other:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Told::Unknown(last)
    }

    /// The same steps, each by a call of its own, committed on what they have read.
    async fn interactively(&self, calls: Vec<(&'static str, Vec<String>)>) -> Told {
        // Before the commit nothing is done, whatever becomes of it.
        let asked = BeginRequest { timeout: Some(DurationMs(1_500)), ..BeginRequest::default() };
        let mut tx = match Interactive::begin_as(&self.api, asked).await {
            Ok(tx) => tx,
            Err(error) => return Told::Refused(error.to_string()),
        };
        let mut replies = Vec::new();
        for (participant, words) in calls {
            match tx.ops([op(participant, words.iter().map(String::as_str))]).await {
                Ok(reply) => replies.extend(reply),
                Err(error) => return Told::Refused(error.to_string()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut last = String::new();
        for n in 0..3 {
            match tx.commit(None).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => {
                    return Told::Committed(vec![Value::Array(replies)]);
                }
                Err(SubmitError::Aborted(problem)) => return Told::Refused(problem.detail),
                Err(SubmitError::Rejected(problem)) if n == 0 => {
                    return Told::Refused(problem.detail);
                }
                other => last = format!("{other:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Told::Unknown(last)
    }

    /// Runs an operation, and writes down what came of it. `answered` finds the answers in the replies.
    async fn record(
        &self,
        action: Action,
        told: impl Future<Output = Told>,
        answered: impl FnOnce(&[Value]) -> Option<Action>,
    ) {
        let token = self.recorder.invoke(self.name, action);
        match told.await {
            Told::Committed(replies) => match answered(&replies) {
                Some(action) => token.ok(action),
                None => panic!("replies of another shape: {replies:?}"),
            },
            Told::Refused(why) => token.fail(why),
            Told::Unknown(why) => token.info(why),
        }
    }

    /// Two to four steps on the lists of the round.
    async fn lists(&mut self) {
        let mut steps: Vec<(u64, bool)> = Vec::new();
        for _ in 0..2 + self.pick(3) {
            let step = (self.pick(LISTS), self.pick(2) == 0);
            // An element is appended to a key once.
            if !step.1 || !steps.contains(&step) {
                steps.push(step);
            }
        }
        // In the order of the branches, so that the replies come in the order of the steps.
        steps.sort_by_key(|(list, _)| list % 3);
        let (round, element) = (self.round(), self.element());
        let key = |list: u64| format!("l{round}-{list}");
        let mut transaction = Transaction::default();
        for (place, participant) in (0..).zip(PARTICIPANTS) {
            let here: Vec<_> = steps.iter().filter(|(list, _)| list % 3 == place).collect();
            if here.is_empty() {
                continue;
            }
            transaction = transaction.branch(participant, |mut ops: Ops| {
                for (list, is_append) in here {
                    ops = if *is_append {
                        ops.op(["RPUSH", &key(*list), &element.to_string()])
                    } else {
                        ops.op(["LRANGE", &key(*list), "0", "-1"])
                    };
                }
                ops
            });
        }
        let asked = steps.iter().map(|(list, is_append)| {
            if *is_append {
                MicroOp::append(key(*list), element)
            } else {
                MicroOp::read(key(*list))
            }
        });
        let action = Action::Txn(asked.collect());
        let calls = steps.iter().map(|(list, is_append)| {
            let (key, element) = (key(*list), element.to_string());
            let words = match is_append {
                true => ["RPUSH", &key, &element].map(str::to_owned).to_vec(),
                false => ["LRANGE", &key, "0", "-1"].map(str::to_owned).to_vec(),
            };
            (PARTICIPANTS[usize::try_from(*list % 3).expect("below 3")], words)
        });
        let calls: Vec<_> = calls.collect();
        let is_interactive = self.pick(3) == 0;
        let told = async {
            match is_interactive {
                true => self.interactively(calls).await,
                false => self.submit(transaction, 3).await,
            }
        };
        self.record(action, told, |replies| {
            let mut replies =
                replies.iter().flat_map(|branch| branch.as_array().into_iter().flatten());
            let answered = steps.iter().map(|(list, is_append)| {
                let reply = replies.next()?;
                if *is_append {
                    return Some(MicroOp::append(key(*list), element));
                }
                let elements: Option<Vec<i64>> = reply.as_array()?.iter().map(integer).collect();
                Some(MicroOp::saw(key(*list), elements?))
            });
            answered.collect::<Option<_>>().map(Action::Txn)
        })
        .await;
    }

    async fn some_register(&mut self) {
        let key = format!("r{}", self.round());
        let op = match self.pick(3) {
            0 => RegisterOp::Read(None),
            1 => RegisterOp::Write(i64::try_from(self.pick(5)).expect("small")),
            _ => {
                let (old, new) = (self.pick(5), self.pick(5));
                RegisterOp::Cas(
                    i64::try_from(old).expect("small"),
                    i64::try_from(new).expect("small"),
                )
            }
        };
        self.register(key, op).await;
    }

    /// At one participant: of one phase.
    async fn register(&mut self, key: String, op: RegisterOp) {
        let transaction = Transaction::default().branch(PARTICIPANTS[2], |ops| match &op {
            RegisterOp::Read(_) => ops.op(["GET", &key]),
            RegisterOp::Write(value) => ops.op(["SET", &key, &value.to_string()]),
            RegisterOp::Cas(old, new) => ops
                .op(["GET", &key])
                .expect_eq(old.to_string().as_str())
                .op(["SET", &key, &new.to_string()]),
        });
        let action = Action::Register(key.clone().into(), op);
        self.record(action, self.submit(transaction, STUBBORN), |replies| {
            let op = match op {
                RegisterOp::Read(_) => RegisterOp::Read(Some(integer(&replies[0][0])?)),
                op => op,
            };
            Some(Action::Register(key.into(), op))
        })
        .await;
    }

    /// An increment with its id, often in escrow, or a look.
    async fn count(&mut self) {
        let counter = COUNTER.to_owned();
        if self.pick(3) == 0 {
            let look =
                Transaction::default().branch(PARTICIPANTS[0], |ops| ops.op(["GET", COUNTER]));
            let count = |value| Action::Count(Count { counter: counter.clone(), value });
            let answered =
                |replies: &[Value]| Some(count(Some(integer(&replies[0][0]).unwrap_or(0))));
            self.record(count(None), self.submit(look, STUBBORN), answered).await;
            return;
        }
        let id = self.element().to_string();
        let by = i64::try_from(self.pick(14)).expect("small") - 4;
        // Some share the counter, some have it for themselves; the bound is for all.
        let in_escrow = self.pick(3) > 0;
        let transaction = Transaction::default()
            .branch(PARTICIPANTS[0], |ops| {
                let ops = ops.op(["INCRBY", COUNTER, &by.to_string()]).expect_ge(0);
                if in_escrow { ops.escrow() } else { ops }
            })
            .branch(PARTICIPANTS[1], |ops| ops.op(["RPUSH", COUNTER, &id]));
        let action = Action::Add(Add { counter, id, by });
        let told = self.submit(transaction, STUBBORN);
        self.record(action.clone(), told, |_| Some(action)).await;
    }

    async fn mark(&mut self) {
        let id = self.element().to_string();
        let mut transaction = Transaction::default();
        for participant in PARTICIPANTS {
            transaction = transaction.branch(participant, |ops| ops.op(["RPUSH", MARKS, &id]));
        }
        let branches = PARTICIPANTS.map(str::to_owned).to_vec();
        let action = Action::Mark(Mark { id, branches });
        let told = self.submit(transaction, STUBBORN);
        self.record(action.clone(), told, |_| Some(action)).await;
    }
}
