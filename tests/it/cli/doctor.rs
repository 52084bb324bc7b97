//! `assent doctor` during outages: it asks everybody, and is red whenever a customer's key is held.

use assent_tests::wait::wait_for;
use assent_tests::{Cluster, Options, plain};
use serde_json::Value;

use super::held::stage;
use super::ops::{assent, stdout};
use crate::ASSENT;

/// The checks of a run that are not well: what each is about, and what was found.
async fn complaints(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
    let words = [&["-o", "json", "doctor"], words].concat();
    let run = assent(cluster, &words).await;
    let checks: Vec<Value> = serde_json::from_str(&stdout(&run)).unwrap();
    let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    let bad = checks.iter().filter(|check| check["verdict"] != "ok");
    let bad = bad.map(|check| (text(check, "what"), text(check, "found")));
    (run.status.code(), bad.collect())
}

/// Waits until doctor complains of this in these words.
async fn complains_of(cluster: &Cluster, flags: &[&str], about: &str, in_words: &str) {
    wait_for(&format!("doctor finds {about}: {in_words}"), async || {
        let (code, bad) = complaints(cluster, flags).await;
        let is_found =
            |(what, found): &(String, String)| what.contains(about) && found.contains(in_words);
        match bad.iter().any(is_found) {
            true if code == Some(1) => Ok(()),
            _ => Err(format!("{code:?} {bad:?}")),
        }
    })
    .await;
}

/// D4: neither coordinator has anything to say of such a branch, and a customer's key is locked by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_held_too_long_is_red_with_and_without_a_coordinator() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let (_, txid) = stage(&cluster, 1).await;
    let held = ["--held-max", "500ms"];
    complains_of(&cluster, &held, "bank-a", &txid.to_string()).await;
    complains_of(&cluster, &held, "branches held", "keys held:1").await;
    cluster.coordinator.kill9();
    let url = cluster.peers[0].agent.url().to_owned();
    let flags = [&held[..], &["--participant", &url]].concat();
    complains_of(&cluster, &flags, "branches held", "keys held:1").await;
}

/// D6 and D4: the agent is up, its Redis hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_seen_by_the_coordinator_too() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    assert_eq!(complaints(&cluster, &[]).await, (Some(0), Vec::new()));
    cluster.peers[1].redis.pause();
    complains_of(&cluster, &[], "bank-b", "its Redis does not answer it").await;
    let list = assent(&cluster, &["-o", "json", "participants", "list"]).await;
    let list: Value = serde_json::from_str(&stdout(&list)).unwrap();
    let bank_b = &list["participants"][1];
    assert_eq!((&bank_b["up"], &bank_b["redis_up"]), (&true.into(), &false.into()), "{bank_b}");
    cluster.peers[1].redis.resume();
    wait_for("doctor is content again", async || {
        let (code, bad) = complaints(&cluster, &[]).await;
        if code == Some(0) { Ok(()) } else { Err(format!("{bad:?}")) }
    })
    .await;
    let value: Option<String> = plain::run(&cluster.peers[1].redis, &["GET", "none"]).await;
    assert_eq!(value, None);
}
