//! What others see while transactions run, and how transactions that meet get past each other (promises *isolated* and
//! *once*; invariants 3, 13, 14).

use std::time::Duration;

use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::IdempotencyKey;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::TransactionView;
use assent_tests::bank::OPENING;
use assent_tests::{Bank, Cluster, Options, Transfer, plain, wait_settled};
use serde_json::Value;

use crate::ASSENT;

async fn cluster() -> Cluster {
    Cluster::start(ASSENT, Options::default()).await
}

fn replies(view: &TransactionView, branch: usize) -> Vec<Value> {
    let replies = view.branches[branch].replies.as_ref().expect("a committed branch has replies");
    serde_json::from_str(replies.get()).unwrap()
}

/// Promise *isolated*, its limit: a plain client sees a branch whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_never_sees_half_a_branch() {
    let cluster = cluster().await;
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let mut watcher = plain::connect(&cluster.peers[0].redis).await.unwrap();
    let watching = tokio::spawn(async move {
        let mut distinct = std::collections::BTreeSet::new();
        while !*is_done.borrow_and_update() {
            let seen: (Option<i64>, Option<i64>, Option<i64>) =
                plain::command(&["MGET", "x", "y", "z"]).query_async(&mut watcher).await.unwrap();
            assert!(seen.0 == seen.1 && seen.1 == seen.2, "half a branch: {seen:?}");
            distinct.insert(seen.0);
        }
        distinct.len()
    });
    for n in 1..=60 {
        let n = n.to_string();
        let set = Transaction::new()
            .branch("bank-a", |ops| {
                ops.op(["SET", "x", &n]).op(["SET", "y", &n]).op(["SET", "z", &n])
            })
            .branch("bank-b", |ops| ops.op(["SET", "x", &n]));
        cluster.api.submit(&set.build().unwrap(), None, None).await.unwrap();
    }
    done.send_replace(true);
    assert!(watching.await.unwrap() > 10, "the watcher saw too little to prove anything");
}

async fn read_total(api: &CoordinatorClient, accounts: usize) -> Result<i64, SubmitError> {
    let keys: Vec<String> = (0..accounts).map(|account| format!("acct:{account}")).collect();
    let words = || std::iter::once("MGET").chain(keys.iter().map(String::as_str));
    let read = Transaction::new()
        .timeout(DurationMs(10_000))
        .branch("bank-a", |ops| ops.op(words()))
        .branch("bank-b", |ops| ops.op(words()));
    let view = api.submit(&read.build().unwrap(), None, None).await?;
    assert_eq!(view.outcome, OutcomeWord::Committed);
    let balances = (0..2).flat_map(|branch| replies(&view, branch)).flat_map(|reply| {
        reply
            .as_array()
            .unwrap()
            .iter()
            .map(|balance| balance.as_str().unwrap().parse::<i64>().unwrap())
            .collect::<Vec<_>>()
    });
    Ok(balances.sum())
}

/// Promise *isolated*: transactions that only read see the constant total, whatever moves meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_constant_total_while_money_moves() {
    const ACCOUNTS: usize = 3;
    let cluster = cluster().await;
    let mut bank = Bank::open(&cluster, ACCOUNTS).await;
    bank.timeout = DurationMs(10_000);
    let writers: Vec<_> = (0..3_usize)
        .map(|name| {
            let bank = bank.clone();
            tokio::spawn(async move {
                let mut ledger = Vec::new();
                for n in 0..15_usize {
                    let (from, to) = if (n + name) % 2 == 0 {
                        ("bank-a", "bank-b")
                    } else {
                        ("bank-b", "bank-a")
                    };
                    let transfer = Transfer {
                        key: format!("{name} {n}"),
                        from: (from, n % ACCOUNTS),
                        to: (to, (n + name) % ACCOUNTS),
                        amount: 7,
                    };
                    let told = bank.insist(&transfer).await;
                    ledger.push((transfer, told));
                }
                ledger
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let api = cluster.api.clone();
            tokio::spawn(async move {
                for _ in 0..15 {
                    let total = read_total(&api, ACCOUNTS).await.unwrap();
                    let opening = OPENING * 2 * i64::try_from(ACCOUNTS).unwrap();
                    assert_eq!(total, opening, "a reader saw money in the air");
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let mut ledger = Vec::new();
    for writer in writers {
        ledger.extend(writer.await.unwrap());
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// Promise *isolated* and invariant 8: increments of one key by many clients are all there, none twice; and every one
/// ends before its deadline although all want the same lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_ends_with_the_right_count() {
    const CLIENTS: i64 = 6;
    const EACH: i64 = 8;
    let cluster = cluster().await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let api = cluster.api.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let add = Transaction::new()
                        .timeout(DurationMs(20_000))
                        .branch("bank-a", |ops| ops.op(["INCR", "hot"]))
                        .branch("bank-b", |ops| ops.op(["INCR", "hot"]));
                    api.submit(&add.build().unwrap(), None, None).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    wait_settled(&cluster).await;
    for peer in &cluster.peers {
        assert_eq!(plain::run::<i64>(&peer.redis, &["GET", "hot"]).await, CLIENTS * EACH);
    }
}

/// Invariant 14 aside, wait-die: transactions that take the same keys in opposite orders, within a branch and across
/// participants, never wait in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_lock_orders_end_before_the_deadline() {
    let cluster = cluster().await;
    let began = std::time::Instant::now();
    let crossing: Vec<_> = (0..24)
        .map(|n| {
            let api = cluster.api.clone();
            tokio::spawn(async move {
                let (first, second) = if n % 2 == 0 { ("x", "y") } else { ("y", "x") };
                let (here, there) =
                    if n % 4 < 2 { ("bank-a", "bank-b") } else { ("bank-b", "bank-a") };
                let both = Transaction::new()
                    .timeout(DurationMs(20_000))
                    .branch(here, |ops| ops.op(["INCR", first]).op(["INCR", second]))
                    .branch(there, |ops| ops.op(["INCR", second]).op(["INCR", first]));
                api.submit(&both.build().unwrap(), None, None).await.unwrap();
            })
        })
        .collect();
    for transaction in crossing {
        transaction.await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    wait_settled(&cluster).await;
    for peer in &cluster.peers {
        for key in ["x", "y"] {
            assert_eq!(plain::run::<i64>(&peer.redis, &["GET", key]).await, 24);
        }
    }
}

/// Promise *once*: one key, many clients at once, one transaction, one effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_used_by_many_clients_at_once_is_one_effect() {
    let cluster = cluster().await;
    let bank = Bank::open(&cluster, 2).await;
    for (key, from, to) in
        [("two branches", "bank-a", "bank-b"), ("one branch", "bank-b", "bank-b")]
    {
        let transfer = Transfer::new(key, from, to);
        let clients: Vec<_> = (0..16).map(|_| bank.asking(&transfer)).collect();
        let mut told = Vec::new();
        for client in clients {
            told.push(client.await.unwrap());
        }
        assert!(told[0].is_committed(), "{told:?}");
        assert!(told.iter().all(|other| *other == told[0]), "{told:?}");
        wait_settled(&cluster).await;
        assert_eq!(bank.ask(&transfer).await, told[0]);
    }
    let mark: i64 = plain::run(&cluster.peers[1].redis, &["GET", "mark:two branches"]).await;
    let only: i64 = plain::run(&cluster.peers[1].redis, &["GET", "mark:one branch"]).await;
    assert_eq!((mark, only), (1, 1));
}

/// Promise *once*: a key that comes again with another body begins nothing.
#[tokio::test]
async fn a_key_with_another_body_is_refused_and_begins_nothing() {
    let cluster = cluster().await;
    let key: IdempotencyKey = "order 17".parse().unwrap();
    let incr = |by: &'static str| {
        Transaction::default().branch("bank-a", |ops| ops.op(["INCRBY", "n", by])).build().unwrap()
    };
    cluster.api.submit(&incr("1"), Some(&key), None).await.unwrap();
    let other = cluster.api.submit(&incr("2"), Some(&key), None).await;
    let Err(SubmitError::Rejected(problem)) = other else { panic!("{other:?}") };
    assert_eq!(problem.code, assent_common::ErrorCode::IdempotencyMismatch);
    assert_eq!(plain::run::<i64>(&cluster.peers[0].redis, &["GET", "n"]).await, 1);
}
