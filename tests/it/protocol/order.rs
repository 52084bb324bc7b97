//! Messages that come twice, late, or before what they belong to.

use assent_common::outcome::{Aborted, Applied, Call, Prepared};
use assent_common::{Epoch, ErrorCode, TxNumber};
use assent_tests::messenger::Messenger;
use assent_tests::proxy::Fault;
use assent_tests::{Bank, Cluster, Options, Transfer, audit, plain, wait_settled};

use crate::ASSENT;

fn code<T: std::fmt::Debug>(call: Call<T>) -> ErrorCode {
    match call {
        Call::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn one_agent() -> Cluster {
    let options = Options { participants: vec!["bank-a"], ..Options::default() };
    Cluster::start(ASSENT, options).await
}

/// Invariants 6, 8 and 10: each message in every order that a network can make of them.
#[tokio::test]
async fn messages_in_the_wrong_order_apply_nothing_and_lock_nothing() {
    let cluster = one_agent().await;
    let redis = &cluster.peers[0].redis;
    let mut log = Messenger::new(&cluster.peers[0], &cluster.http);

    // The abort overtakes its prepare.
    assert_eq!(log.abort(1).await, Call::Applied(Aborted::Fenced));
    assert_eq!(code(log.prepare(1, &["SET", "k", "1"]).await), ErrorCode::Fenced);
    assert_eq!(code(log.commit(1).await), ErrorCode::Fenced);

    // The commit overtakes its prepare: it is no `ok`, and applies nothing later.
    assert_eq!(code(log.commit(2).await), ErrorCode::BranchLost);
    let yes = log.prepare(2, &["INCR", "n"]).await;
    assert!(matches!(yes, Call::Applied(Prepared::Yes(_))), "{yes:?}");
    assert_eq!(log.prepare(2, &["INCR", "n"]).await, yes, "the same vote again");
    assert_eq!(plain::run::<Option<i64>>(redis, &["GET", "n"]).await, None);

    // Everything about it comes again and again.
    for _ in 0..3 {
        assert_eq!(log.commit(2).await, Call::Applied(Applied { dirty_writes: 0 }));
    }
    assert!(matches!(log.abort(2).await, Call::Applied(Aborted::AlreadyCommitted(_))));
    assert_eq!(code(log.prepare(2, &["INCR", "n"]).await), ErrorCode::WrongState);
    assert_eq!(plain::run::<i64>(redis, &["GET", "n"]).await, 1);

    // Below the low-water mark there is nothing left to know, and nothing that may begin.
    log.low_water = TxNumber { epoch: Epoch(1), n: 10 };
    assert_eq!(log.abort(11).await, Call::Applied(Aborted::Fenced));
    assert_eq!(code(log.prepare(5, &["INCR", "n"]).await), ErrorCode::BelowLowWater);

    // An earlier life of the same coordinator.
    let mut old = log.clone();
    log.coordinator.epoch = Epoch(2);
    assert!(matches!(log.prepare(1, &["INCR", "m"]).await, Call::Applied(Prepared::Yes(_))));
    old.low_water = TxNumber { epoch: Epoch(0), n: 0 };
    assert_eq!(code(old.prepare(20, &["INCR", "o"]).await), ErrorCode::StaleEpoch);
    assert_eq!(log.abort(1).await, Call::Applied(Aborted::Fenced));
    assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
}

/// Invariants 6, 8 and 11: every request to a participant comes twice, and all of them once more at the end, the last
/// first.
#[tokio::test]
async fn repeated_and_reordered_requests_have_one_effect() {
    let options = Options { proxied: true, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 2).await;
    for peer in &cluster.peers {
        peer.proxy().set(Fault::Twice);
    }
    let mut ledger = Vec::new();
    for n in 0..12 {
        let (from, to) = [("bank-a", "bank-b"), ("bank-b", "bank-a"), ("bank-b", "bank-b")][n % 3];
        let amount = if n % 4 == 3 { 1_000_000 } else { 1 };
        let transfer = Transfer { amount, ..Transfer::new(format!("t{n}"), from, to) };
        let told = bank.ask(&transfer).await;
        assert_eq!(told.is_committed(), amount == 1, "{transfer:?}: {told:?}");
        ledger.push((transfer, told));
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
    for peer in &cluster.peers {
        assert!(peer.proxy().replay_reversed().await > 0, "nothing was recorded");
    }
    assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
    bank.check(&cluster, &ledger).await;
}
