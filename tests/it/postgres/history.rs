//! A history of Redis and PostgreSQL together, while everything is killed, and what the checkers
//! say of it (promises *isolated*, *atomic*, *once*, *finishing*). `make mixed-soak` runs long
//! ones.

use std::time::Duration;

use assent_tests::mixed::{KilledProcess, MixedPlan, run};
use tempfile::TempDir;

use crate::ASSENT;

/// How long things break.
const TIME: Duration = Duration::from_secs(15);

/// Without so many committed a run proves little.
const COMMITTED_MIN: u64 = 100;

/// Every process is killed at least once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "how much the run proves")]
async fn redis_and_two_databases_are_strictly_serialisable_whatever_is_killed() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let history = dir.path().join("history.jsonl");
    let plan = MixedPlan { assent: ASSENT.into(), seed: 15, clients: 6, time: TIME, history };
    let verdict = run(&plan).await;
    eprintln!("{verdict}");
    assert!(verdict.wrong.is_empty(), "{verdict}");
    assert!(verdict.told[0] > COMMITTED_MIN, "it proves little: {verdict}");
    for process in KilledProcess::ALL {
        assert!(verdict.broken.kills.contains_key(&process), "{process:?} lived: {verdict}");
    }
}
