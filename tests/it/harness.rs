//! Proof that the alarms work: what the audit and the ledger are there to find, they find.

use assent_common::ErrorCode;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, audit, plain};

use crate::ASSENT;

async fn complains(bank: &Bank, cluster: &Cluster, ledger: &[(Transfer, Told)]) -> bool {
    use futures_util::FutureExt as _;
    let checked = std::panic::AssertUnwindSafe(bank.check(cluster, ledger)).catch_unwind().await;
    checked.is_err()
}

#[tokio::test]
async fn the_audit_and_the_ledger_find_what_they_are_there_for() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 1).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let told = bank.ask(&transfer).await;
    let ledger = [(transfer.clone(), told)];
    assert!(!complains(&bank, &cluster, &ledger).await, "nothing is wrong yet");

    let as_aborted = [(transfer.clone(), Told::Aborted(ErrorCode::Timeout))];
    assert!(complains(&bank, &cluster, &as_aborted).await, "an aborted transfer with an effect");
    let lost = (Transfer { key: "another".to_owned(), ..transfer }, ledger[0].1.clone());
    assert!(complains(&bank, &cluster, &[ledger[0].clone(), lost]).await, "a lost transfer");
    assert!(complains(&bank, &cluster, &[]).await, "a mark of nobody");

    let redis = &cluster.peers[1].redis;
    for (spoil, undo) in [
        (&["INCR", "mark:the one"][..], &["DECR", "mark:the one"][..]),
        (&["INCR", "acct:0"], &["DECR", "acct:0"]),
        (&["RENAME", "mark:the one", "gone"], &["RENAME", "gone", "mark:the one"]),
    ] {
        plain::run::<redis::Value>(redis, spoil).await;
        assert!(complains(&bank, &cluster, &ledger).await, "{spoil:?}");
        plain::run::<redis::Value>(redis, undo).await;
        assert!(!complains(&bank, &cluster, &ledger).await, "{undo:?}");
    }
    for field in ["l:key", "s:txid"] {
        plain::run::<()>(redis, &["HSET", audit::CONTROL, field, "x"]).await;
        assert_eq!(audit::leftovers(&cluster).await.unwrap(), [format!("bank-b {field}")]);
        plain::run::<()>(redis, &["HDEL", audit::CONTROL, field]).await;
    }
}
