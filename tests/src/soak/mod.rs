//! A soak: real processes, list-append and a bank, and losses of data again and again; then the verdict of every checker,
//! and of the `adya` crate.
//!
//! One run is a seed, a kind of server and a time. In runs of an odd seed the coordinator dies as well, and every
//! transaction has a key; in the others half have none, and some are implicit.

mod load;
mod nemesis;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assent_checkers::{Checker, Document, FinalState, History, Recorder, check};
use assent_process::RedisOptions;
use assent_servers::Server;

use self::load::{Load, PARTICIPANTS, Shared, account, accounts};
use self::nemesis::{Done, Nemesis, wait_open};
use crate::cluster::{Cluster, Options};
use crate::{audit, plain, second_opinion, wait_settled};

const CLIENTS: u64 = 6;

/// Bytes of a segment of the log: the product's default.
const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;

/// What is shown of a report.
const LINES_MAX: usize = 12;
const LINE_MAX: usize = 240;

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is tested: the program `assent`.
    pub assent: PathBuf,
    /// On which server.
    pub server: Server,
    /// What is drawn.
    pub seed: u64,
    /// How long things break.
    pub time: Duration,
    /// Where the history of the run is written.
    pub history: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Operations of the history.
    pub operations: usize,
    /// Those that were told to be committed.
    pub committed: u64,
    /// Those of one branch.
    pub one_branch: u64,
    /// What was broken.
    pub done: Done,
    /// What does not hold.
    pub wrong: Vec<String>,
}

/// Runs it.
///
/// # Panics
/// If the cluster does not come to rest after everything is healed.
pub async fn run(plan: &Plan) -> Verdict {
    let program = plan.server.program().to_owned();
    let options = Options {
        participants: PARTICIPANTS.to_vec(),
        linked: true,
        redis: RedisOptions { program, ..RedisOptions::default() },
        // The product itself, which takes no small ones.
        segment_bytes: SEGMENT_BYTES,
        ..Options::default()
    };
    let binary = plan.assent.to_str().expect("a path in UTF-8");
    let mut cluster = Cluster::start(binary, options).await;
    let recorder = Recorder::create(&plan.history).expect("the history is a new file");
    let kills_coordinator = plan.seed % 2 == 1;
    let shared = Shared::open(cluster.api.clone(), recorder.clone(), kills_coordinator).await;
    let load = Load::start(shared, CLIENTS, plan.seed);
    let mut nemesis = Nemesis::new(&mut cluster, recorder.clone(), plan.seed, kills_coordinator);
    nemesis.run(Instant::now() + plan.time, &load.shared).await;
    let done = nemesis.done;
    let shared = load.stop().await;
    let (committed, one_branch) = (shared.committed(), shared.one_branch());
    // First that everything comes to rest, then what is there.
    wait_open(&cluster).await;
    wait_settled(&cluster).await;
    shared.read_all().await;
    wait_settled(&cluster).await;
    observe(&cluster, &recorder).await;
    drop(shared);
    let history = recorder.finish().expect("the history is written");
    let wrong = verdicts(&history, &plan.history);
    Verdict { operations: history.operations.len(), committed, one_branch, done, wrong }
}

/// What the data says past the agents.
async fn observe(cluster: &Cluster, recorder: &Recorder) {
    let mut balances = std::collections::BTreeMap::new();
    for one in accounts() {
        let redis = &cluster.peers[one.0].redis;
        let balance: Option<i64> = plain::run(redis, &["GET", &account(one)]).await;
        balances.insert(account(one), balance.unwrap_or(0));
    }
    recorder.observe(Document::FinalBalances(balances));
    let mut state = FinalState::default();
    for left in audit::leftovers(cluster).await.expect("the servers answer") {
        let (peer, field) = left.split_once(' ').expect("a participant and a field");
        let fields = if field.starts_with("l:") { &mut state.locked } else { &mut state.staged };
        fields.entry(peer.to_owned()).or_default().push(field.to_owned());
    }
    recorder.observe(Document::FinalState(state));
}

/// What does not hold, by our checkers and by `adya`.
fn verdicts(history: &History, file: &Path) -> Vec<String> {
    let ours = [Checker::ListAppend, Checker::Bank, Checker::Liveness];
    let reports = ours.map(|checker| check(checker, history));
    let wrong = reports.iter().filter(|report| !report.holds());
    let mut wrong: Vec<String> = wrong.map(|report| shortened(&report.to_string())).collect();
    let text = std::fs::read_to_string(file).expect("the history can be read");
    wrong.extend(second_opinion::adya(&text).err());
    wrong
}

/// The history has the rest.
fn shortened(report: &str) -> String {
    let cut = |line: &str| line.chars().take(LINE_MAX).collect::<String>();
    report.lines().take(LINES_MAX).map(cut).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, committed, one_branch, done, wrong } = self;
        write!(
            f,
            "{operations} operations, {committed} committed, {one_branch} of one branch; {done}: "
        )?;
        if wrong.is_empty() {
            return f.write_str("holds");
        }
        write!(f, "DOES NOT HOLD\n{}", wrong.join("\n"))
    }
}
