//! What a Redis can do to its agent short of losing data: forget scripts, restart, run out of memory, pause, be set up
//! so that votes would be lost (invariants 2, 12, 14; promises *durable*, *honest*).

use assent_client::{CoordinatorClient, Transaction};
use assent_common::ErrorCode;
use assent_common::time::DurationMs;
use assent_process::{AppendFsync, Assent, Port, RedisOptions, RedisServer};
use assent_tests::cluster::{participant_args, redis_options};
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, plain, wait_settled};
use tempfile::TempDir;

use crate::ASSENT;

/// Some clients that insist on transfers of both shapes.
fn load(bank: &Bank) -> Vec<tokio::task::JoinHandle<Vec<(Transfer, Told)>>> {
    (0..3_usize)
        .map(|name| {
            let bank = bank.clone();
            tokio::spawn(async move {
                let mut ledger = Vec::new();
                for n in 0..20_usize {
                    let (from, to) =
                        [("bank-a", "bank-b"), ("bank-b", "bank-a"), ("bank-b", "bank-b")][n % 3];
                    let transfer = Transfer {
                        key: format!("{name} {n}"),
                        from: (from, name),
                        to: (to, (name + 1) % 3),
                        amount: 1,
                    };
                    let told = bank.insist(&transfer).await;
                    ledger.push((transfer, told));
                }
                ledger
            })
        })
        .collect()
}

async fn settle(
    cluster: &Cluster,
    bank: &Bank,
    load: Vec<tokio::task::JoinHandle<Vec<(Transfer, Told)>>>,
) -> Vec<(Transfer, Told)> {
    let mut ledger = Vec::new();
    for client in load {
        ledger.extend(client.await.unwrap());
    }
    wait_settled(cluster).await;
    bank.check(cluster, &ledger).await;
    ledger
}

/// Scripts are not part of the data: an agent brings them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn script_flush_under_load_fails_nothing() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 3).await;
    let load = load(&bank);
    while load.iter().any(|client| !client.is_finished()) {
        for peer in &cluster.peers {
            plain::run::<()>(&peer.redis, &["SCRIPT", "FLUSH"]).await;
        }
        tokio::task::yield_now().await;
    }
    let ledger = settle(&cluster, &bank, load).await;
    let failed: Vec<_> = ledger.iter().filter(|(_, told)| !told.is_committed()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Invariants 2 and 12: each restart brings another run id and the same data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarts_under_load_lose_nothing() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 3).await;
    let load = load(&bank);
    for round in 0..4 {
        let redis = &mut cluster.peers[round % 2].redis;
        redis.kill9();
        redis.restart().await.unwrap();
    }
    settle(&cluster, &bank, load).await;
    // A new life of Redis votes for nobody until its file is rewritten: a refusal is an outcome of its key.
    let tries = std::sync::atomic::AtomicU32::new(0);
    assent_tests::wait::wait_for("a transfer behind the restarts", || async {
        let n = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let transfer = Transfer::new(format!("after {n}"), "bank-a", "bank-b");
        let told = bank.insist(&transfer).await;
        if told.is_committed() { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// Invariant 14: a Redis without memory refuses prepares, with a code, and applies what it has voted for.
#[tokio::test]
async fn a_redis_without_memory_votes_no_and_still_commits() {
    let cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    let bank = Bank::open(&cluster, 2).await;
    let full = &cluster.peers[1];
    let mut ledger = Vec::new();

    full.proxy().close(At::Before, "{\"commit\":");
    let voted = Transfer::new("voted", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, voted) = (bank.clone(), voted.clone());
        async move { bank.ask(&voted).await }
    });
    full.proxy().wait_held().await;
    plain::run::<()>(&full.redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    full.proxy().open();
    let told = asking.await.unwrap();
    assert!(told.is_committed(), "{told:?}");
    ledger.push((voted, told));

    for (name, from) in [("two branches", "bank-a"), ("one branch", "bank-b")] {
        let transfer = Transfer::new(name, from, "bank-b");
        let told = bank.ask(&transfer).await;
        assert_eq!(told, Told::Aborted(ErrorCode::RedisOutOfMemory), "{name}");
        ledger.push((transfer, told));
    }
    wait_settled(&cluster).await;
    plain::run::<()>(&full.redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let after = Transfer::new("after", "bank-a", "bank-b");
    let told = bank.ask(&after).await;
    assert!(told.is_committed(), "{told:?}");
    ledger.push((after, told));
    bank.check(&cluster, &ledger).await;
}

/// Promise *honest*: a Redis that is silent for longer than the deadline has not failed. What the client is told then
/// is what is true afterwards.
#[tokio::test]
async fn a_paused_redis_is_not_known_and_never_a_failure() {
    let cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    let mut bank = Bank::open(&cluster, 2).await;
    bank.timeout = DurationMs(300);
    let mut ledger = Vec::new();
    for (name, from) in [("two branches", "bank-a"), ("one branch", "bank-b")] {
        plain::run::<()>(&cluster.peers[1].redis, &["CLIENT", "PAUSE", "1200", "WRITE"]).await;
        let transfer = Transfer::new(name, from, "bank-b");
        let first = bank.ask(&transfer).await;
        let told = bank.insist(&transfer).await;
        assert!(!first.is_definite() || first == told, "{name}: first {first:?}, then {told:?}");
        ledger.push((transfer, told));
    }
    bank.timeout = DurationMs(5_000);
    cluster.peers[1].proxy().close(At::Before, "{\"commit\":");
    let decided = Transfer::new("decided", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, decided) = (bank.clone(), decided.clone());
        async move { bank.ask(&decided).await }
    });
    cluster.peers[1].proxy().wait_held().await;
    plain::run::<()>(&cluster.peers[1].redis, &["CLIENT", "PAUSE", "1200", "WRITE"]).await;
    cluster.peers[1].proxy().open();
    let told = asking.await.unwrap();
    assert!(told.is_committed(), "{told:?}");
    ledger.push((decided, told));
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// Promise *durable*, its condition: an agent does not start on a Redis that would lose votes, and says what to do. Told
/// to, it starts and goes on saying so.
#[tokio::test]
async fn an_agent_refuses_a_redis_that_would_lose_votes_and_names_the_fix() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let options = RedisOptions { appendfsync: AppendFsync::EverySecond, ..redis_options() };
    let redis = RedisServer::start(dir.path().join("redis"), options).await.unwrap();
    let ports = Port::pair().unwrap();
    let mut args = participant_args("bank-a", &redis.url(), &ports);
    let log = dir.path().join("agent.log");
    let binary = std::path::Path::new(ASSENT);
    let refused = Assent::start("bank-a", binary, args.clone(), &ports[0].url(), &log).await;
    let Err(error) = refused else { panic!("it started") };
    let said = error.to_string();
    for part in ["appendfsync", "everysec", "CONFIG SET appendfsync always"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }

    args.push("--allow-unsafe-redis".to_owned());
    let agent = Assent::start("bank-a", binary, args, &ports[0].url(), &log).await.unwrap();
    let http = assent_client::Http::new(&assent_client::HttpOptions::default()).unwrap();
    let client = CoordinatorClient::new(&http, agent.url()).unwrap();
    let probe = client.readyz().await.unwrap();
    assert!(probe.text.contains("appendfsync"), "readyz does not say so: {}", probe.text);
    let version = client.version().await.unwrap();
    assert!(!version.warnings.is_empty(), "the version does not say so");
}

/// Invariants 9 and 12: data that is gone is noticed, and the agent votes for nothing until it is put right.
#[tokio::test]
async fn a_flushed_redis_is_quarantined_and_says_so() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let incr = || {
        Transaction::new()
            .timeout(DurationMs(1_000))
            .branch("bank-a", |ops| ops.op(["INCR", "n"]))
            .branch("bank-b", |ops| ops.op(["INCR", "n"]))
            .build()
            .unwrap()
    };
    cluster.api.submit(&incr(), None, None).await.unwrap();
    plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
    let after = cluster.api.submit(&incr(), None, None).await;
    let Err(assent_client::SubmitError::Aborted(problem)) = after else { panic!("{after:?}") };
    // The second where the file of the server's new life takes long to be rewritten: then nobody
    // has looked at the data yet.
    let is_kept_out = [ErrorCode::Quarantined, ErrorCode::RedisUnavailable].contains(&problem.code);
    assert!(is_kept_out, "{problem:?}");
    let client = cluster.peers[1].client(&cluster.http);
    let probe = client.readyz().await.unwrap();
    assert_eq!(probe.state, assent_client::participant::ProbeState::Failing, "{}", probe.text);
}
