//! `assent doctor` during outages: it asks everybody, and is red whenever a customer's key is held.

use std::path::Path;

use assent_common::crash::CrashPoint;
use assent_process::init_log;
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::limit::LimitService;
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Options, Transfer, plain};
use serde_json::Value;

use super::held::{leave_open, stage};
use super::ops::{assent, assert_exit, stdout};
use super::stderr;
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

/// The coordinator was started again without participants that it knew: one has an outcome to hear,
/// which fails at once; the other is only warned of. Nobody is advised to give up what is not gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_that_the_coordinator_does_not_know_is_named_with_what_to_do() {
    let participants = vec!["bank-a", "bank-b", "stock"];
    let options = Options { participants, proxied: true, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    Bank::open(&cluster, 1).await;
    let id = leave_open(&cluster, "one").await;
    for peer in &cluster.peers[1..] {
        let flag = format!("{}={}", peer.name, peer.url());
        cluster.coordinator.without("--participant", &flag);
    }
    restart(&mut cluster.coordinator).await;

    let (bank_b, stock) = (cluster.peers[1].url(), cluster.peers[2].url());
    let unknown = "the coordinator does not know participant";
    let waited_for = format!("{unknown} bank-b; 1 transaction waits for it");
    complains_of(&cluster, &[], "participant bank-b", &waited_for).await;
    let words = ["doctor", "--held-max", "1ms", "--participant", &stock, "--participant", &bank_b];
    let said = stdout(&assent(&cluster, &words).await);
    for (name, url) in [("bank-b", &bank_b), ("stock", &stock)] {
        let command = format!("assent participants set {name} {url}");
        assert!(said.contains(&command), "{command:?} is missing in: {said}");
    }
    assert!(!said.contains("abandon"), "{said}");
    wait_for("tx describe to say the same", async || {
        let said = stdout(&assent(&cluster, &["tx", "describe", &id]).await);
        let is_told = said.contains("assent participants set bank-b URL");
        if is_told { Ok(()) } else { Err(said) }
    })
    .await;
    let wait = assent(&cluster, &["tx", "wait", &id, "--for", "10ms"]).await;
    assert_exit(&wait, 4);
    assert!(stderr(&wait).contains("not applied yet at"), "{}", stderr(&wait));

    assert_exit(&assent(&cluster, &["participants", "set", "bank-b", &bank_b]).await, 0);
    cluster.peers[1].proxy().open();
    assert_exit(&assent(&cluster, &["tx", "wait", &id, "--for", "20s"]).await, 0);
    let flags = ["--participant", &stock];
    let (code, bad) = complaints(&cluster, &flags).await;
    let only_warned = matches!(&bad[..], [(what, found)] if what.contains(&stock)
        && found.contains(&format!("{unknown} stock")));
    assert!(code == Some(0) && only_warned, "{code:?} {bad:?}");
}

/// What the coordinator tells of a participant.
async fn participant(cluster: &Cluster, place: usize) -> Value {
    let list = assent(cluster, &["-o", "json", "participants", "list"]).await;
    let mut list: Value = serde_json::from_str(&stdout(&list)).unwrap();
    list["participants"][place].take()
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
    let before = participant(&cluster, 1).await;
    cluster.peers[1].redis.pause();
    complains_of(&cluster, &[], "bank-b", "it cannot use its Redis").await;
    wait_for("the coordinator to see that only the Redis hangs", async || {
        let hangs = participant(&cluster, 1).await;
        let is_seen = hangs["up"] == true && hangs["redis_up"] == false;
        // Since when its Redis hangs, not since when its agent answers.
        if is_seen && hangs["since"] != before["since"] { Ok(()) } else { Err(hangs.to_string()) }
    })
    .await;
    cluster.peers[1].redis.resume();
    wait_for("doctor is content again", async || {
        let (code, bad) = complaints(&cluster, &[]).await;
        if code == Some(0) { Ok(()) } else { Err(format!("{bad:?}")) }
    })
    .await;
    let value: Option<String> = plain::run(&cluster.peers[1].redis, &["GET", "none"]).await;
    assert_eq!(value, None);
}

/// A Redis that is gone is one row, and of one whose agent is gone nothing is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_is_one_row_and_one_without_its_agent_is_not_up() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    cluster.peers[1].redis.kill9();
    complains_of(&cluster, &[], "bank-b", "it cannot use its Redis").await;
    let (_, bad) = complaints(&cluster, &[]).await;
    assert!(matches!(&bad[..], [(what, _)] if what.ends_with("redis")), "{bad:?}");
    cluster.peers[0].agent.kill9();
    wait_for("bank-a is seen to be gone", async || {
        let bank_a = participant(&cluster, 0).await;
        let is_gone = bank_a["up"] == false && bank_a.get("redis_up").is_none();
        if is_gone { Ok(()) } else { Err(bank_a.to_string()) }
    })
    .await;
}

/// A hook where nobody listens is named before the first branch that needs it; others run without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_cannot_be_reached_is_named() {
    let participant = vec!["--hook-url", "http://127.0.0.1:1/assent"];
    let options = Options { participant, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    complains_of(&cluster, &[], "bank-a", "127.0.0.1:1 cannot be reached").await;
    let (_, bad) = complaints(&cluster, &[]).await;
    assert!(bad.iter().all(|(what, _)| what.ends_with(": hook")), "{bad:?}");
    let service = LimitService::start().await;
    let options = Options { participant: service.arguments(), ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    wait_for("doctor has nothing to complain of", async || {
        let (_, bad) = complaints(&cluster, &[]).await;
        if bad.is_empty() { Ok(()) } else { Err(format!("{bad:?}")) }
    })
    .await;
}

/// A coordinator that is gone is a fault for as long as a branch waits for it, and only warned of
/// from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_gone_is_a_fault_only_while_something_waits_for_it() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let (_, txid) = stage(&cluster, 1).await;
    let flags = ["--held-max", "1h"];
    complains_of(&cluster, &flags, "may ask its coordinators", &txid.log_id.to_string()).await;
    let txid = txid.to_string();
    let what = ["branch", "resolve", &txid, "--participant", "bank-a", "--outcome", "aborted"];
    let who = ["--actor", "ana", "--reason", "the log is gone"];
    assert_exit(&assent(&cluster, &[&what[..], &who[..]].concat()).await, 0);
    wait_for("doctor only warns of it", async || {
        let (code, bad) = complaints(&cluster, &flags).await;
        let is_told = bad.iter().any(|(_, found)| found.contains("nothing waits for log"));
        if code == Some(0) && is_told { Ok(()) } else { Err(format!("{code:?} {bad:?}")) }
    })
    .await;
}

/// The log is gone for good, and a new one speaks at its address: a fault for as long as a branch
/// of the old one waits, and none from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_place_a_new_one_took_is_a_fault_only_while_a_branch_of_it_waits() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 1).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = tokio::spawn(async move { bank.ask(&transfer).await });
    wait_crashed(&mut cluster.coordinator).await;
    asking.await.unwrap();
    std::fs::remove_dir_all(cluster.data_dir()).unwrap();
    init_log(Path::new(ASSENT), &cluster.data_dir(), None).unwrap();
    restart(&mut cluster.coordinator).await;

    complains_of(&cluster, &[], "may ask its coordinators", "another log").await;
    for name in ["bank-a", "bank-b"] {
        let words = ["-o", "id", "branch", "list", "--participant", name];
        let txid = stdout(&assent(&cluster, &words).await).trim().to_owned();
        let who = ["--actor", "ana", "--reason", "the log is gone"];
        let what = ["branch", "resolve", &txid, "--participant", name, "--outcome", "aborted"];
        assert_exit(&assent(&cluster, &[&what[..], &who[..]].concat()).await, 0);
    }
    wait_for("doctor is content, and says why", async || {
        let run = assent(&cluster, &["doctor"]).await;
        let is_well = run.status.success() && stdout(&run).contains("was superseded by log");
        if is_well { Ok(()) } else { Err(stdout(&run)) }
    })
    .await;
}
