//! Random histories that are right by construction, from a seed: what the checkers must accept, and what mutations spoil.
//!
//! A world takes one action at a time, at a moment between its invocation and its completion, so that the order of these
//! moments explains the history. Some operations fail without an effect; of some the client is told nothing, and these
//! take effect before, long after, or never.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::action::{Action, Add, Count, Mark, MicroOp, RegisterOp, Transfer};
use crate::document::{Document, Ending, FinalCount, FinalState, FinalTransaction};
use crate::event::{Body, Event, Kind, Process};

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Transactions of one to four reads and appends.
    ListAppend,
    /// Reads, writes and comparisons.
    Register,
    /// Transfers and snapshots.
    Bank,
    /// Increments and readings.
    Counter,
    /// Marks, and the last state.
    Marks,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ListAppend, Self::Register, Self::Bank, Self::Counter, Self::Marks];
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of what kind.
    pub workload: Workload,
    /// How many operations.
    pub operations: usize,
    /// How many clients at a time.
    pub processes: usize,
    /// From what.
    pub seed: u64,
}

/// Makes it.
#[must_use]
pub fn generate(plan: Plan) -> Vec<Event> {
    let mut run = Run {
        rng: StdRng::seed_from_u64(plan.seed),
        world: World::new(plan.workload),
        events: Vec::new(),
        late: Vec::new(),
    };
    if let Some(document) = run.world.opening() {
        run.observe(document);
    }
    let mut clients: Vec<Client> =
        (0..plan.processes as i64).map(|process| Client { process, state: State::Idle }).collect();
    let (mut left, mut busy) = (plan.operations, 0);
    while left > 0 || busy > 0 {
        let place = run.rng.random_range(0..clients.len());
        let client = &mut clients[place];
        match std::mem::replace(&mut client.state, State::Idle) {
            State::Idle if left > 0 => {
                left -= 1;
                busy += 1;
                client.state = State::Asked(run.invoke(client.process));
            }
            State::Idle => {}
            State::Asked(action) => match run.decide(client.process, action) {
                Decided::Ended => busy -= 1,
                Decided::Lost => {
                    busy -= 1;
                    client.process += plan.processes as i64;
                }
                Decided::Answered(action) => client.state = State::Answered(action),
            },
            State::Answered(action) => {
                busy -= 1;
                run.push(Kind::Ok, client.process, action);
            }
        }
        run.catch_up();
    }
    for document in run.world.closing() {
        run.observe(document);
    }
    run.events
}

/// The lines of these events.
///
/// # Panics
///
/// Never: every event is a line.
#[must_use]
pub fn to_lines(events: &[Event]) -> String {
    let line = |event: &Event| event.to_line().expect("an event is a line") + "\n";
    events.iter().map(line).collect()
}

struct Client {
    process: i64,
    state: State,
}

enum State {
    Idle,
    Asked(Action),
    Answered(Action),
}

enum Decided {
    Ended,
    Lost,
    Answered(Action),
}

struct Run {
    rng: StdRng,
    world: World,
    events: Vec<Event>,
    /// What takes effect after its client was told nothing.
    late: Vec<Action>,
}

impl Run {
    fn event(&mut self, kind: Kind, process: Process, body: Body) {
        let index = self.events.len() as u64;
        self.events.push(Event { index, kind, process, body, time_ns: index * 1_000, error: None });
    }

    fn push(&mut self, kind: Kind, process: i64, action: Action) {
        self.event(kind, Process::Client(process), Body::Action(action));
    }

    fn observe(&mut self, document: Document) {
        self.event(Kind::Info, Process::Other("audit".to_owned()), Body::Document(document));
    }

    fn invoke(&mut self, process: i64) -> Action {
        let action = self.world.ask(&mut self.rng);
        self.push(Kind::Invoke, process, action.clone());
        action
    }

    fn decide(&mut self, process: i64, action: Action) -> Decided {
        match self.rng.random_range(0..100) {
            0..8 => {
                self.push(Kind::Fail, process, action);
                Decided::Ended
            }
            8..12 => {
                match self.rng.random_range(0..3) {
                    0 => self.late.push(action.clone()),
                    1 => drop(self.world.apply(&action)),
                    _ => {}
                }
                self.push(Kind::Info, process, action);
                Decided::Lost
            }
            _ => match self.world.apply(&action) {
                Some(answered) => Decided::Answered(answered),
                None => {
                    self.push(Kind::Fail, process, action);
                    Decided::Ended
                }
            },
        }
    }

    fn catch_up(&mut self) {
        if !self.late.is_empty() && self.rng.random_range(0..20) == 0 {
            let place = self.rng.random_range(0..self.late.len());
            let action = self.late.swap_remove(place);
            let _ = self.world.apply(&action);
        }
    }
}

/// Appends to a list before another one takes its place.
const LIST_LENGTH: i64 = 24;
const LISTS: usize = 6;
/// Registers in use, and the operations on them before others take their places.
const REGISTERS: i64 = 3;
const REGISTER_USES: i64 = 200;
const ACCOUNTS: [&str; 4] = ["a:0", "a:1", "b:0", "b:1"];
const BRANCHES: [&str; 3] = ["a", "b", "c"];
const OPENING: i64 = 100;

/// The data, and what was asked of it so far.
struct World {
    workload: Workload,
    asked: i64,
    /// The lists in use, each with the appends that were asked for.
    in_use: Vec<(i64, i64)>,
    lists: BTreeMap<i64, Vec<i64>>,
    registers: BTreeMap<i64, i64>,
    balances: BTreeMap<String, i64>,
    counter: FinalCount,
    marks: BTreeMap<String, Vec<String>>,
}

impl World {
    fn new(workload: Workload) -> Self {
        Self {
            workload,
            asked: 0,
            in_use: (0..LISTS as i64).map(|key| (key, 0)).collect(),
            lists: BTreeMap::new(),
            registers: BTreeMap::new(),
            balances: ACCOUNTS.map(|account| (account.to_owned(), OPENING)).into(),
            counter: FinalCount { value: 0, ids: Some(Vec::new()), at_least: None },
            marks: BRANCHES.map(|branch| (branch.to_owned(), Vec::new())).into(),
        }
    }

    fn opening(&self) -> Option<Document> {
        let bank = self.workload == Workload::Bank;
        bank.then(|| Document::OpeningBalances(self.balances.clone()))
    }

    fn closing(&self) -> Vec<Document> {
        match self.workload {
            Workload::ListAppend | Workload::Register => Vec::new(),
            Workload::Bank => vec![Document::FinalBalances(self.balances.clone())],
            Workload::Counter => {
                vec![Document::FinalCounts([("c".to_owned(), self.counter.clone())].into())]
            }
            Workload::Marks => {
                let all: std::collections::BTreeSet<&String> =
                    self.marks.values().flatten().collect();
                let committed = |id: &&String| FinalTransaction {
                    id: (*id).clone(),
                    ending: Ending::Committed,
                };
                let transactions = all.iter().map(committed).collect();
                let state = FinalState { transactions, ..FinalState::default() };
                vec![Document::FinalMarks(self.marks.clone()), Document::FinalState(state)]
            }
        }
    }

    fn ask(&mut self, rng: &mut StdRng) -> Action {
        self.asked += 1;
        let id = format!("t{}", self.asked);
        match self.workload {
            Workload::ListAppend => self.ask_lists(rng),
            Workload::Register => {
                let used_up = self.asked / REGISTER_USES * REGISTERS;
                let (key, value) =
                    (used_up + rng.random_range(0..REGISTERS), rng.random_range(0..4));
                let op = match rng.random_range(0..3) {
                    0 => RegisterOp::Read(None),
                    1 => RegisterOp::Write(value),
                    _ => RegisterOp::Cas(rng.random_range(0..4), value),
                };
                Action::Register(key.into(), op)
            }
            Workload::Bank if rng.random_bool(0.3) => Action::Balances(None),
            Workload::Bank => {
                let from = rng.random_range(0..ACCOUNTS.len());
                let to = (from + rng.random_range(1..ACCOUNTS.len())) % ACCOUNTS.len();
                Action::Transfer(Transfer {
                    from: ACCOUNTS[from].to_owned(),
                    to: ACCOUNTS[to].to_owned(),
                    amount: rng.random_range(1..40),
                })
            }
            Workload::Counter if rng.random_bool(0.3) => {
                Action::Count(Count { counter: "c".to_owned(), value: None })
            }
            Workload::Counter => {
                Action::Add(Add { counter: "c".to_owned(), id, by: rng.random_range(1..4) })
            }
            Workload::Marks => {
                let some = BRANCHES.iter().filter(|_| rng.random_bool(0.6));
                let mut branches: Vec<String> = some.map(|one| (*one).to_owned()).collect();
                if branches.is_empty() {
                    branches.push(BRANCHES[0].to_owned());
                }
                Action::Mark(Mark { id, branches })
            }
        }
    }

    fn ask_lists(&mut self, rng: &mut StdRng) -> Action {
        let newest = |lists: &[(i64, i64)]| lists.iter().map(|(key, _)| *key).max().unwrap_or(0);
        let mut step = || {
            let place = rng.random_range(0..self.in_use.len());
            let (key, appended) = self.in_use[place];
            if rng.random_bool(0.5) {
                return MicroOp::read(key);
            }
            self.in_use[place].1 += 1;
            if appended + 1 == LIST_LENGTH {
                self.in_use[place] = (newest(&self.in_use) + 1, 0);
            }
            MicroOp::append(key, appended + 1)
        };
        let first = step();
        let mut steps = vec![first];
        for _ in 0..self.asked % 4 {
            steps.push(step());
        }
        Action::Txn(steps)
    }

    /// What it answers; nothing if it is refused.
    fn apply(&mut self, action: &Action) -> Option<Action> {
        let mut answered = action.clone();
        match &mut answered {
            Action::Txn(steps) => {
                for step in steps {
                    match step {
                        MicroOp::Append(crate::Scalar::Int(key), element) => {
                            self.lists.entry(*key).or_default().push(*element);
                        }
                        MicroOp::Read(crate::Scalar::Int(key), elements) => {
                            *elements = Some(self.lists.get(key).cloned().unwrap_or_default());
                        }
                        MicroOp::Append(..) | MicroOp::Read(..) => return None,
                    }
                }
            }
            Action::Register(crate::Scalar::Int(key), op) => {
                let held = self.registers.get(key).copied();
                match op {
                    RegisterOp::Read(value) => *value = held,
                    RegisterOp::Cas(old, _) if held != Some(*old) => return None,
                    RegisterOp::Write(new) | RegisterOp::Cas(_, new) => {
                        self.registers.insert(*key, *new);
                    }
                }
            }
            Action::Register(..) => return None,
            Action::Balances(balances) => *balances = Some(self.balances.clone()),
            Action::Transfer(Transfer { from, to, amount }) => {
                if self.balances[from.as_str()] < *amount {
                    return None;
                }
                *self.balances.entry(from.clone()).or_default() -= *amount;
                *self.balances.entry(to.clone()).or_default() += *amount;
            }
            Action::Count(count) => count.value = Some(self.counter.value),
            Action::Add(add) => {
                self.counter.value += add.by;
                self.counter.ids.get_or_insert_default().push(add.id.clone());
            }
            Action::Mark(Mark { id, branches }) => {
                for branch in branches {
                    self.marks.entry(branch.clone()).or_default().push(id.clone());
                }
            }
        }
        Some(answered)
    }
}
