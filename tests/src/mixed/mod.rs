//! Redis and PostgreSQL in one history: list-append, a bank and marks over a Redis and two
//! databases of one server, while every process is killed again and again; then the verdict of
//! every checker, and of the `adya` crate.
//!
//! ```text
//! load ── work ──► coordinator ──┬── agent ── Redis        nemesis: kills all of them,
//!                                ├── agent ── Link ─┐               and spoils the links
//!                                └── agent ── Link ─┴─ PostgreSQL
//! ```

mod load;
mod nemesis;
pub mod servers;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use assent_checkers::{Checker, Document, FinalState, History, Recorder, check};

use self::load::{MixedLoad, open};
use self::nemesis::MixedNemesis;
pub use self::nemesis::{KilledProcess, MixedBroken};
use self::servers::{DATABASES, MixedCluster};
use self::work::{PLACES, account, accounts};
use crate::cluster::Options;
use crate::{audit, plain, second_opinion};

/// Things that are broken between two looks at what the clients have seen so far.
const BETWEEN_LOOKS: usize = 8;

/// What is shown of a report.
const LINES_MAX: usize = 12;
const LINE_MAX: usize = 240;

/// One run.
#[derive(Debug, Clone)]
pub struct MixedPlan {
    /// What is tested: the program `assent`.
    pub assent: PathBuf,
    /// What is drawn.
    pub seed: u64,
    /// How many clients there are.
    pub clients: u64,
    /// How long things break.
    pub time: Duration,
    /// Where the history of the run is written.
    pub history: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct MixedVerdict {
    /// Operations of the history.
    pub operations: usize,
    /// What the clients were told: committed, aborted, nothing definite.
    pub told: [u64; 3],
    /// What was broken.
    pub broken: MixedBroken,
    /// The money at each participant in the end.
    pub sums: BTreeMap<&'static str, i64>,
    /// Prepared transactions in the end.
    pub prepared_left: usize,
    /// What does not hold.
    pub wrong: Vec<String>,
}

/// Runs it.
///
/// # Panics
/// If the servers do not come to rest after everything is healed.
pub async fn run(plan: &MixedPlan) -> MixedVerdict {
    let binary = plan.assent.to_str().expect("a path in UTF-8");
    // The product itself takes no small segments.
    let options = Options { segment_bytes: 64 * 1024 * 1024, ..Options::default() };
    let mut mixed = MixedCluster::start(binary, options).await;
    let recorder = Recorder::create(&plan.history).expect("the history is a new file");
    open(&mixed, &recorder).await;
    let api = mixed.cluster.api.clone();
    let load = MixedLoad::start(api, recorder.clone(), plan.clients, plan.seed);
    let mut nemesis = MixedNemesis::new(&mut mixed, recorder.clone(), plan.seed);
    let until = Instant::now() + plan.time;
    let mut wrong = Vec::new();
    while Instant::now() < until && wrong.is_empty() {
        for _ in 0..BETWEEN_LOOKS {
            nemesis.once(&load.clients).await;
        }
        wrong = reports(&recorder.history(), &[Checker::ListAppend]);
    }
    let broken = nemesis.broken;
    let clients = load.stop().await;
    let told = &clients.told;
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    let told = [*told.committed.borrow(), count(&told.aborted), count(&told.unknown)];
    // First that everything comes to rest, then what is there.
    if wrong.is_empty() {
        mixed.wait_settled().await;
        clients.read_all().await;
        mixed.wait_settled().await;
    }
    let (sums, prepared_left) = observe(&mixed, &recorder).await;
    drop(clients);
    let history = recorder.finish().expect("the history is written");
    if wrong.is_empty() {
        wrong = verdicts(&history, &plan.history);
    }
    let operations = history.operations.len();
    MixedVerdict { operations, told, broken, sums, prepared_left, wrong }
}

/// What the data says past the agents: the money at each participant, and how many transactions
/// are prepared.
async fn observe(
    mixed: &MixedCluster,
    recorder: &Recorder,
) -> (BTreeMap<&'static str, i64>, usize) {
    let redis = &mixed.cluster.peers[0].redis;
    let (mut balances, mut marks) = (BTreeMap::new(), BTreeMap::new());
    for one in accounts().filter(|one| one.0 == 0) {
        let balance: Option<i64> = plain::run(redis, &["GET", &account(one)]).await;
        balances.insert(account(one), balance.unwrap_or(0));
    }
    marks.insert(PLACES[0].to_owned(), plain::run(redis, &["LRANGE", "marks", "0", "-1"]).await);
    for name in DATABASES {
        let rows = mixed.texts(name, "SELECT k || ' ' || balance FROM acct").await;
        for row in rows {
            let (key, balance) = row.split_once(' ').expect("two words");
            balances.insert(key.to_owned(), balance.parse().expect("a number"));
        }
        marks.insert(name.to_owned(), mixed.texts(name, "SELECT id FROM marks").await);
    }
    let sum = |place: usize| {
        let mine = accounts().filter(|one| one.0 == place);
        mine.filter_map(|one| balances.get(&account(one))).sum()
    };
    let sums = (0..).zip(PLACES).map(|(place, name)| (name, sum(place))).collect();
    recorder.observe(Document::FinalBalances(balances));
    recorder.observe(Document::FinalMarks(marks));
    let mut state = FinalState::default();
    for left in audit::leftovers(&mixed.cluster).await.expect("the servers answer") {
        let (peer, field) = left.split_once(' ').expect("a participant and a field");
        let fields = if field.starts_with("l:") { &mut state.locked } else { &mut state.staged };
        fields.entry(peer.to_owned()).or_default().push(field.to_owned());
    }
    let prepared = mixed.prepared().await.expect("the server answers");
    let count = prepared.len();
    if count > 0 {
        state.staged.insert("postgres".to_owned(), prepared);
    }
    recorder.observe(Document::FinalState(state));
    (sums, count)
}

/// What does not hold by these checkers.
fn reports(history: &History, checkers: &[Checker]) -> Vec<String> {
    let reports = checkers.iter().map(|checker| check(*checker, history));
    let wrong = reports.filter(|report| !report.holds());
    wrong.map(|report| shortened(&report.to_string())).collect()
}

/// What does not hold, by our checkers and by `adya`.
fn verdicts(history: &History, file: &Path) -> Vec<String> {
    let ours = [Checker::ListAppend, Checker::Bank, Checker::Atomicity, Checker::Liveness];
    let mut wrong = reports(history, &ours);
    let text = std::fs::read_to_string(file).expect("the history can be read");
    wrong.extend(second_opinion::adya(&text).err());
    wrong
}

/// The history has the rest.
fn shortened(report: &str) -> String {
    let cut = |line: &str| line.chars().take(LINE_MAX).collect::<String>();
    report.lines().take(LINES_MAX).map(cut).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for MixedVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, told: [committed, aborted, unknown], .. } = self;
        write!(f, "{operations} operations, {committed} committed, {aborted} aborted, ")?;
        write!(f, "{unknown} unknown; killed")?;
        for (victim, count) in &self.broken.kills {
            write!(f, " {victim:?} {count},")?;
        }
        write!(f, " bad links {}; money", self.broken.links)?;
        for (name, sum) in &self.sums {
            write!(f, " {name} {sum},")?;
        }
        let total: i64 = self.sums.values().sum();
        write!(f, " together {total}; {} prepared left: ", self.prepared_left)?;
        if self.wrong.is_empty() {
            return f.write_str("holds");
        }
        write!(f, "THE HISTORY DOES NOT HOLD\n{}", self.wrong.join("\n"))
    }
}
