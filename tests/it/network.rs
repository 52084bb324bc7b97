//! A network that cuts, delays, throttles and swallows, on every link between two of the processes, under load (promises
//! *atomic*, *once*, *finishing*, *honest*).
//!
//! Each test has one link and goes through all faults of it. After each, transfers must commit again; at the end nothing
//! may be half-applied, locked or staged, and every key must have the one outcome that its client was told.

mod replica;

use assent_client::{CoordinatorClient, Http, HttpOptions, SubmitError, Transaction};
use assent_common::time::DurationMs;
use assent_process::RedisOptions;
use assent_tests::cluster::redis_options;
use assent_tests::link::{Fault, Way, Which};
use assent_tests::load::Load;
use assent_tests::proxy::{self, At};
use assent_tests::{Bank, Cluster, Link, Options, Told, Transfer, plain, wait_settled};

use crate::ASSENT;

const CLIENTS: usize = 3;
const ACCOUNTS: usize = 4;

/// Bytes a second: a batch takes some hundredths.
const SLOW: u64 = 20_000;

/// How many outcomes are asked for once more at the end.
const ASKED_AGAIN: usize = 60;

/// The faults of a link, cutting one request in so many.
fn faults(cut_every: u64) -> [Fault; 9] {
    let which = Which::Every(cut_every);
    [
        Fault::CutBefore(which),
        Fault::CutAfter(which),
        Fault::Delay(Way::Requests, 30),
        Fault::Delay(Way::Answers, 30),
        Fault::Delay(Way::Both, 30),
        Fault::Throttle(SLOW),
        Fault::BlackHole(Way::Requests),
        Fault::BlackHole(Way::Answers),
        Fault::BlackHole(Way::Both),
    ]
}

/// Clients that give up soon: a black hole is met by its time limits, not by its heal.
fn impatient(url: &str) -> CoordinatorClient {
    let options = HttpOptions { request_timeout_ms: 400, ..HttpOptions::default() };
    CoordinatorClient::new(&Http::new(&options).unwrap(), url).unwrap()
}

/// Redis servers that do not wait for further replicas before they serve the first.
fn replicated() -> RedisOptions {
    let settings = vec![("repl-diskless-sync-delay".to_owned(), "0".to_owned())];
    RedisOptions { settings, ..redis_options() }
}

async fn start(proxied: bool) -> (Cluster, Bank) {
    let coordinator = vec!["--request-timeout", "600ms"];
    let redis = replicated();
    let options = Options { linked: true, proxied, coordinator, redis, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let mut bank = Bank::open(&cluster, ACCOUNTS).await;
    bank = bank.through(&impatient(cluster.api.base_url()));
    bank.timeout = DurationMs(800);
    (cluster, bank)
}

/// Ends the load, and looks at everything.
async fn audit(cluster: &Cluster, bank: &Bank, load: Load) {
    let ledger = load.finish().await;
    wait_settled(cluster).await;
    bank.check(cluster, &ledger).await;
    for (transfer, told) in ledger.iter().step_by(ledger.len().div_ceil(ASKED_AGAIN)) {
        assert_eq!(bank.ask(transfer).await, *told, "the answer of {} has changed", transfer.key);
    }
    assert!(ledger.iter().any(|(_, told)| told.is_committed()), "nothing committed");
}

/// Goes through the faults of a link under load.
async fn under_faults(cluster: &Cluster, bank: &Bank, link: &Link, faults: &[Fault]) {
    let load = Load::start(bank, CLIENTS, ACCOUNTS);
    load.wait_committed(12).await;
    for fault in faults {
        let (met, before) = (link.met(), load.counts());
        link.set(*fault);
        if let Fault::BlackHole(_) = fault {
            link.wait_met(met, 1).await;
            load.wait("a client to be told that it did not commit", |now| {
                now.refused + now.unknown > before.refused + before.unknown
            })
            .await;
        } else {
            link.wait_met(met, 6).await;
        }
        link.set(Fault::None);
        load.wait_committed(12).await;
    }
    audit(cluster, bank, load).await;
}

/// Promises *once* and *honest*: what a client did not hear is not known, and its key tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_clients_and_the_coordinator_change_no_outcome() {
    let (cluster, bank) = start(false).await;
    let link = cluster.client_link.clone().unwrap();
    under_faults(&cluster, &bank, &link, &faults(3)).await;
}

/// Promises *atomic* and *finishing*; invariants 6, 8, 11 and 15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_the_coordinator_and_a_participant_change_no_outcome() {
    let (cluster, bank) = start(false).await;
    let link = cluster.peers[1].link.clone().unwrap();
    under_faults(&cluster, &bank, &link, &faults(3)).await;
}

/// Invariants 2, 8 and 12: what Redis did not acknowledge is no vote, and what it did is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_a_participant_and_its_redis_change_no_outcome() {
    let (cluster, bank) = start(false).await;
    let link = cluster.peers[1].redis_link.clone().unwrap();
    under_faults(&cluster, &bank, &link, &faults(25)).await;
}

/// Invariants 3 and 7: a branch in doubt whose question is lost stays in doubt, and asks again. The commits to one
/// participant are held back meanwhile, so that there are such branches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_a_branch_in_doubt_and_its_coordinator_change_no_outcome() {
    let (cluster, bank) = start(true).await;
    let asked = cluster.link.clone().unwrap();
    let proxy = cluster.peers[1].proxy();
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    for fault in faults(1) {
        load.wait_committed(8).await;
        let met = asked.met();
        asked.set(fault);
        proxy.close(At::Before, "{\"commit\":");
        asked.wait_met(met, 1).await;
        asked.set(Fault::None);
        proxy.open();
    }
    audit(&cluster, &bank, load).await;
}

/// Promise *once*; invariants 8 and 15: every request on every HTTP link comes twice, on another connection; between
/// those that bear it, both at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_twice_on_every_link_have_one_effect() {
    let cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    let front = cluster.proxy.clone().unwrap();
    let api = CoordinatorClient::new(&cluster.http, front.url()).unwrap();
    let bank = Bank::open(&cluster, ACCOUNTS).await.through(&api);
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    for fault in [proxy::Fault::Twice, proxy::Fault::TwiceAtOnce] {
        front.set(fault);
        for peer in &cluster.peers {
            peer.proxy().set(proxy::Fault::Twice);
        }
        load.wait_committed(40).await;
        // Branches in doubt, so that questions come twice as well.
        let asked = front.taken();
        cluster.peers[1].proxy().close(At::Before, "{\"commit\":");
        cluster.peers[1].proxy().wait_held().await;
        assent_tests::wait_for("questions", || async {
            let more = front.taken() - asked;
            if more > 2 * CLIENTS as u64 { Ok(()) } else { Err(more.to_string()) }
        })
        .await;
        cluster.peers[1].proxy().open();
    }
    audit(&cluster, &bank, load).await;
}

/// Invariant 15: the client says what it says once. Without a key nothing tells a repetition from a second wish.
#[tokio::test]
async fn a_request_without_a_key_whose_answer_is_lost_has_one_effect() {
    let cluster = Cluster::start(ASSENT, Options { linked: true, ..Options::default() }).await;
    let link = cluster.client_link.clone().unwrap();
    for (n, branches) in [&["bank-a"][..], &["bank-a", "bank-b"]].into_iter().enumerate() {
        let mut add = Transaction::default();
        for participant in branches {
            add = add.branch(participant, |ops| ops.op(["INCR", "n"]));
        }
        link.set(Fault::CutAfter(Which::With("POST ")));
        let told = cluster.api.submit(&add.build().unwrap(), None, None).await;
        assert!(matches!(told, Err(SubmitError::Unknown(_))), "{told:?}");
        link.set(Fault::None);
        assent_tests::wait_for("the effect", || async {
            let found: Option<usize> = plain::run(&cluster.peers[0].redis, &["GET", "n"]).await;
            assert!(found.unwrap_or(0) <= n + 1, "{found:?} effects of {} requests", n + 1);
            if found == Some(n + 1) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    wait_settled(&cluster).await;
    assert_eq!(plain::run::<usize>(&cluster.peers[0].redis, &["GET", "n"]).await, 2);
    assert_eq!(plain::run::<usize>(&cluster.peers[1].redis, &["GET", "n"]).await, 1);
}

/// Invariant 15: one phase whose answer is lost is asked for, not run as another attempt.
#[tokio::test]
async fn one_phase_whose_answer_is_lost_has_one_effect() {
    let cluster = Cluster::start(ASSENT, Options { linked: true, ..Options::default() }).await;
    let bank = Bank::open(&cluster, 2).await;
    let link = cluster.peers[1].link.clone().unwrap();
    let transfer = Transfer::new("the one", "bank-b", "bank-b");
    link.set(Fault::CutAfter(Which::With("{\"prepare\":")));
    let asking = bank.asking(&transfer);
    link.wait_met(0, 2).await;
    link.set(Fault::None);
    let first = asking.await.unwrap();
    let told = bank.insist(&transfer).await;
    assert!(!first.is_definite() || first == told, "{first:?}, then {told:?}");
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told)]).await;
}
