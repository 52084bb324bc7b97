//! The clients of the history: appends to lists and reads of them across participants, by any
//! door; registers; a counter whose value and increments are at two participants; and marks that
//! are at all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assent_checkers::{Action, Add, Count, Mark, Recorder, RegisterOp, Token};
use assent_client::Transaction;
use serde_json::Value;
use tokio::sync::watch;

use super::doors::{Door, Doors, STUBBORN, Told};
use super::lists::{ListSteps, Step};

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
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Where the numbers of the processes begin that stand for the second of two transactions that a
/// client sends in one piece.
const SECOND: i64 = 1_000;

/// What became of the transactions by one door.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DoorCounts {
    pub(super) committed: u64,
    pub(super) refused: u64,
    pub(super) unclear: u64,
}

/// What became of those of all clients.
pub(super) type Tally = Arc<Mutex<BTreeMap<Door, DoorCounts>>>;

/// One client: one thing at a time.
pub(super) struct Client {
    name: i64,
    doors: Doors,
    recorder: Recorder,
    tally: Tally,
    done: usize,
    random: u64,
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Writes down what came of an operation.
fn end(token: Token, told: Told, answered: impl FnOnce(&[Value]) -> Option<Action>) {
    match told {
        Told::Committed(replies) => match answered(&replies) {
            Some(action) => token.ok(action),
            None => panic!("replies of another shape: {replies:?}"),
        },
        Told::Refused(why) => token.fail(why),
        Told::Unknown(why) => token.info(why),
    }
}

impl Client {
    pub(super) fn new(name: i64, doors: Doors, recorder: Recorder, tally: Tally) -> Self {
        Self { name, doors, recorder, tally, done: 0, random: name.unsigned_abs() + 1 }
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
            match self.pick(10) {
                0..6 => self.lists().await,
                6 | 7 => self.some_register().await,
                8 => self.count().await,
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

    /// Runs an operation, and writes down what came of it. `answered` finds the answers in the
    /// replies.
    async fn record(
        &self,
        action: Action,
        transaction: Transaction,
        answered: impl FnOnce(&[Value]) -> Option<Action>,
    ) {
        let token = self.recorder.invoke(self.name, action);
        let told = self.doors.submit(transaction, self.done, STUBBORN).await;
        end(token, told, answered);
    }

    /// Two to four steps on the lists of the round, by any door.
    async fn lists(&mut self) {
        let door = Door::ALL[usize::try_from(self.pick(5)).expect("a door")];
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..2 + self.pick(3) {
            let (list, is_append) = (self.pick(LISTS), self.pick(2) == 0);
            // An element is appended to a key once.
            if !is_append || !steps.iter().any(|other| other.list == list && other.is_append) {
                steps.push(Step { list, is_append, is_hooks: false });
            }
        }
        match door {
            Door::Http => steps.sort_by_key(|step| step.place()),
            Door::Hook => {
                for (place, step) in steps.iter_mut().enumerate() {
                    step.is_hooks = place == 0 || self.pick(2) == 0;
                }
                steps.sort_by_key(|step| {
                    (step.place(), step.is_hooks, step.is_hooks && step.is_append)
                });
            }
            Door::Watch => steps.sort_by_key(|step| step.is_append),
            Door::Interactive | Door::Exec => {}
        }
        let first = ListSteps { round: self.round(), element: self.element(), steps };
        let mut copies = vec![first];
        if door == Door::Exec {
            let second = ListSteps { element: -self.element(), ..copies[0].clone() };
            copies.push(second);
        }
        let processes = [self.name, self.name + SECOND];
        let begun = copies.iter().zip(processes);
        let tokens: Vec<Token> =
            begun.map(|(one, process)| self.recorder.invoke(process, one.action())).collect();
        let told = self.doors.ask(door, &copies, self.done).await;
        for ((token, told), one) in tokens.into_iter().zip(told).zip(&copies) {
            self.count_in(door, &told);
            end(token, told, |replies| one.answered(replies));
        }
    }

    fn count_in(&self, door: Door, told: &Told) {
        let mut tally = self.tally.lock().unwrap();
        let counts = tally.entry(door).or_default();
        match told {
            Told::Committed(_) => counts.committed += 1,
            Told::Refused(_) => counts.refused += 1,
            Told::Unknown(_) => counts.unclear += 1,
        }
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
        self.record(action, transaction, |replies| {
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
            self.record(count(None), look, answered).await;
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
        self.record(action.clone(), transaction, |_| Some(action)).await;
    }

    async fn mark(&mut self) {
        let id = self.element().to_string();
        let mut transaction = Transaction::default();
        for participant in PARTICIPANTS {
            transaction = transaction.branch(participant, |ops| ops.op(["RPUSH", MARKS, &id]));
        }
        let branches = PARTICIPANTS.map(str::to_owned).to_vec();
        let action = Action::Mark(Mark { id, branches });
        self.record(action.clone(), transaction, |_| Some(action)).await;
    }
}
