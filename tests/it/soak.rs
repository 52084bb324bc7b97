//! A short soak on each server: data is lost again and again under load, and no checker finds anything (promises *atomic*,
//! *isolated*, *durable*). `make soak` runs long ones.

use std::time::Duration;

use assent_tests::soak::{Plan, run};
use tempfile::TempDir;

use crate::ASSENT;

/// How long things break.
const TIME: Duration = Duration::from_secs(6);

async fn soak(server: &'static str, seed: u64) {
    let Some(server) = assent_servers::named(server) else { return };
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let history = dir.path().join("history.jsonl");
    let plan = Plan { assent: ASSENT.into(), server, seed, time: TIME, history };
    let verdict = run(&plan).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
    assert!(verdict.one_branch > 0, "it proves little: {verdict}");
}

macro_rules! soaks {
    ($($name:ident: $server:literal, $seed:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            soak($server, $seed).await;
        })+
    };
}

soaks! {
    nothing_is_lost_for_good_on_redis_6_2: "redis-6.2", 2;
    nothing_is_lost_for_good_on_redis_7_0: "redis-7.0", 1;
    nothing_is_lost_for_good_on_redis_8_2: "redis-8.2", 2;
    nothing_is_lost_for_good_on_valkey_9_1: "valkey-9.1", 1;
}
