//! The smallest scenarios that show an invariant on real processes: one moment, held open by a gate, and a look. Each is
//! what catches a mutant (`mutants.rs`).

mod agent;

use assent_client::Transaction;
use assent_common::wire::transaction::{AbandonRequest, BranchProgress};
use assent_tests::cluster::{restart, stall};
use assent_tests::proxy::{At, Proxy};
use assent_tests::{Bank, Cluster, Options, Transfer, audit, plain, wait_for, wait_settled};

use crate::ASSENT;

async fn proxied() -> Cluster {
    Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await
}

/// Waits until branches in doubt have asked so many more times, which is long enough for whatever would happen to have
/// happened; or until it has.
pub(crate) async fn wait_asked(asked: &Proxy, more: u64, has_happened: impl AsyncFn() -> bool) {
    let before = asked.taken();
    wait_for("questions for the outcome", || async {
        let taken = asked.taken() - before;
        if taken >= more || has_happened().await { Ok(()) } else { Err(taken.to_string()) }
    })
    .await;
}

/// Whether nothing is staged at a participant.
async fn is_dropped(cluster: &Cluster, participant: &str) -> bool {
    let left = audit::leftovers(cluster).await.unwrap();
    let staged = format!("{participant} s:");
    !left.iter().any(|field| field.starts_with(&staged))
}

/// Invariant 4: while the disk of the log does not answer, no branch is told to commit, and no client that it did.
#[tokio::test]
async fn while_the_log_does_not_sync_nobody_hears_of_a_decision() {
    let mut cluster = proxied().await;
    let bank = Bank::open(&cluster, 1).await;
    // The first two syncs are for the beginning of the life.
    stall(&mut cluster.coordinator, "coordinator.before_decision_sync:3").await;
    let proxy = cluster.peers[1].proxy().clone();
    proxy.close(At::Before, "{\"commit\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    // The votes are given, so that the branches ask.
    let asked = cluster.proxy.as_ref().unwrap();
    wait_asked(asked, 4, async || proxy.holds() || asking.is_finished()).await;
    assert!(!proxy.holds(), "a commit was sent before the decision was synced");
    assert!(!asking.is_finished(), "the client was told {:?}", asking.await);
    proxy.open();
    restart(&mut cluster.coordinator).await;
    let first = asking.await.unwrap();
    let told = bank.insist(&transfer).await;
    assert!(!first.is_definite() || first == told, "{first:?}, then {told:?}");
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told)]).await;
}

/// Invariant 7: presumed abort does not answer for a transaction that is still being decided.
#[tokio::test]
async fn a_branch_in_doubt_is_not_told_aborted_while_others_vote() {
    let cluster = proxied().await;
    let bank = Bank::open(&cluster, 1).await;
    let proxy = cluster.peers[1].proxy();
    proxy.close(At::Before, "{\"prepare\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    proxy.wait_held().await;
    wait_for("the vote of the other branch", || async {
        if is_dropped(&cluster, "bank-a").await { Err("not staged") } else { Ok(()) }
    })
    .await;
    let asked = cluster.proxy.as_ref().unwrap();
    wait_asked(asked, 2, async || is_dropped(&cluster, "bank-a").await).await;
    assert!(!is_dropped(&cluster, "bank-a").await, "it was dropped");
    proxy.open();
    let told = asking.await.unwrap();
    assert!(told.is_committed(), "{told:?}");
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told)]).await;
}

/// Invariant 9: a branch that voted yes and knows nothing of it now is not called applied, unless it is made good.
#[tokio::test]
async fn a_branch_that_is_lost_is_not_called_applied() {
    let cluster = proxied().await;
    let proxy = cluster.peers[1].proxy();
    proxy.close(At::Before, "{\"commit\":");
    let add = Transaction::new()
        .branch("bank-a", |ops| ops.op(["SET", "k", "v"]))
        .branch("bank-b", |ops| ops.op(["SET", "k", "v"]));
    let id = add.id().unwrap();
    let request = add.build().unwrap();
    let api = cluster.api.clone();
    let asking = tokio::spawn(async move { api.submit(&request, None, None).await });
    proxy.wait_held().await;
    plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
    proxy.open();
    wait_for("the loss to be told, or made good", || async {
        let view = cluster.api.transaction(id, None).await.map_err(|error| error.to_string())?;
        let is_there: bool = plain::run(&cluster.peers[1].redis, &["EXISTS", "k"]).await;
        let branch = &view.branches[1];
        assert!(is_there || branch.state != BranchProgress::Applied, "called applied: {view:?}");
        let is_told = branch.state == BranchProgress::Lost
            || branch.last_error.as_ref().is_some_and(|error| error.contains("quarantined"));
        if is_there || is_told { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    asking.abort();
}

/// Invariant 10: a transaction that is slow at one participant is not passed by the mark of the ones that are fast.
#[tokio::test]
async fn a_slow_prepare_is_not_below_the_mark() {
    let cluster = proxied().await;
    let bank = Bank::open(&cluster, 2).await;
    let mut ledger = Vec::new();
    let proxy = cluster.peers[1].proxy();
    proxy.close(At::Before, "mark:slow");
    let slow = Transfer::new("slow", "bank-a", "bank-b");
    let asking = bank.asking(&slow);
    proxy.wait_held().await;
    for n in 0..2 {
        let (from, to) = (("bank-a", 1), ("bank-b", 1));
        let fast = Transfer { from, to, ..Transfer::new(format!("fast {n}"), "bank-a", "bank-b") };
        let told = bank.ask(&fast).await;
        assert!(told.is_committed(), "{told:?}");
        ledger.push((fast, told));
    }
    proxy.open();
    let told = asking.await.unwrap();
    assert!(told.is_committed(), "the slow one: {told:?}");
    ledger.push((slow, told));
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// Invariant 16: what an operator gave up stays on record, whatever happens to the coordinator.
#[tokio::test]
async fn an_override_outlives_the_coordinator() {
    let mut cluster = proxied().await;
    let bank = Bank::open(&cluster, 1).await;
    cluster.peers[1].proxy().close(At::Before, "{\"commit\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    cluster.peers[1].proxy().wait_held().await;
    let page = cluster.api.list(&assent_client::ListFilter::default()).await.unwrap();
    let id = page.transactions[0].id;
    let bank_b = "bank-b".parse().unwrap();
    let request = AbandonRequest { actor: "ops".to_owned(), reason: "a test".to_owned() };
    cluster.admin().abandon(id, &bank_b, &request).await.unwrap();
    let _whatever_it_was_told = asking.await.unwrap();
    restart(&mut cluster.coordinator).await;
    let view = cluster.api.transaction(id, None).await.unwrap();
    assert_eq!(view.branches[1].state, BranchProgress::Abandoned, "forgotten: {view:?}");
}
