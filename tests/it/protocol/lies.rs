//! Proxies that answer for somebody else. *Not known* is what they say, whatever they say (invariants 3, 4, 7, 15).

use assent_common::time::DurationMs;
use assent_tests::cluster::restart;
use assent_tests::proxy::{At, Fault};
use assent_tests::{Bank, Cluster, Options, Told, Transfer, audit, wait_for, wait_settled};
use tokio::task::JoinHandle;

use crate::ASSENT;

const PROTOCOL: &str = "application/vnd.assent+json";
const PROBLEM: &str = "application/problem+json";

/// What stands between two servers and is none of them.
fn lies() -> Vec<Fault> {
    let answer = |status, media_type, body| Fault::Answer { status, media_type, body };
    vec![
        answer(404, "text/html", "<h1>404 page not found</h1>"),
        answer(
            404,
            PROBLEM,
            r#"{"type":"/errors#not_found","title":"t","status":404,"detail":"d","code":"not_found","retryable":false}"#,
        ),
        answer(502, "text/html", "<h1>502 Bad Gateway</h1>"),
        answer(200, "application/json", r#"{"outcome":"aborted","state":"aborted","vote":"yes"}"#),
        answer(200, PROTOCOL, r#"{"outcome":"aborted"}"#),
        answer(200, PROTOCOL, r#"{"answers":[]}"#),
        answer(
            200,
            PROTOCOL,
            r#"{"txid":"0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.1.1.0","log_id":"0198f1c2a4b27c1d9c0e3f4a5b6c7d8e","outcome":"aborted"}"#,
        ),
        Fault::HalfBody,
        Fault::CutBefore,
        Fault::CutAfter,
    ]
}

async fn proxied() -> Cluster {
    Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await
}

/// A transaction that is decided, while its commits are held back, and every question for its
/// outcome is cut.
pub(super) async fn decided_and_held(
    cluster: &Cluster,
    bank: &Bank,
) -> (Transfer, JoinHandle<Told>) {
    for peer in &cluster.peers {
        peer.proxy().close(At::Before, "{\"commit\":");
    }
    let transfer = Transfer::new("decided", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    cluster.proxy.as_ref().unwrap().set(Fault::CutBefore);
    for peer in &cluster.peers {
        peer.proxy().wait_held().await;
    }
    (transfer, asking)
}

/// Between participant and coordinator. The transaction is decided, the commits are held back, and the branches ask.
#[tokio::test]
async fn a_prepared_branch_takes_no_foreign_answer_for_an_outcome() {
    let mut cluster = proxied().await;
    let bank = Bank::open(&cluster, 1).await;
    let (transfer, asking) = decided_and_held(&cluster, &bank).await;
    let asked = cluster.proxy.clone().unwrap();
    for lie in lies() {
        asked.set(lie.clone());
        // A restart begins the agent's questions anew, so that the next one comes soon.
        restart(&mut cluster.peers[1].agent).await;
        let before = asked.taken();
        wait_for("two questions for the outcome", || async {
            let taken = asked.taken() - before;
            if taken >= 2 { Ok(()) } else { Err(format!("{taken} under {lie:?}")) }
        })
        .await;
        let left = audit::leftovers(&cluster).await.unwrap();
        let staged = left.iter().filter(|field| field.contains(" s:")).count();
        assert_eq!(staged, 2, "under {lie:?}: {left:?}");
    }
    asked.set(Fault::None);
    wait_settled(&cluster).await;
    for peer in &cluster.peers {
        peer.proxy().open();
    }
    let told = asking.await.unwrap();
    let told = if told.is_definite() { told } else { bank.insist(&transfer).await };
    assert!(told.is_committed(), "{told:?}");
    bank.check(&cluster, &[(transfer, told)]).await;
}

/// Between coordinator and participant, at the prepare: no answer of somebody else's is a vote.
#[tokio::test]
async fn a_coordinator_takes_no_foreign_answer_for_a_vote() {
    let cluster = proxied().await;
    let mut bank = Bank::open(&cluster, 1).await;
    bank.timeout = DurationMs(300);
    let mut ledger = Vec::new();
    for (n, lie) in lies().into_iter().enumerate() {
        let transfer = Transfer::new(format!("under lie {n}"), "bank-a", "bank-b");
        cluster.peers[1].proxy().set(lie.clone());
        let told = bank.ask(&transfer).await;
        assert!(!told.is_committed(), "under {lie:?}: {told:?}");
        cluster.peers[1].proxy().set(Fault::None);
        ledger.push((transfer.clone(), bank.insist(&transfer).await));
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// The same at the commit: no answer of somebody else's is an acknowledgement, and the branch is told until it is.
#[tokio::test]
async fn a_coordinator_takes_no_foreign_answer_for_an_acknowledgement() {
    let cluster = proxied().await;
    let mut bank = Bank::open(&cluster, 1).await;
    bank.timeout = DurationMs(1_000);
    let proxy = cluster.peers[1].proxy();
    // The branch must not help itself by asking.
    cluster.proxy.as_ref().unwrap().set(Fault::CutBefore);
    let mut ledger = Vec::new();
    for (n, lie) in lies().into_iter().enumerate() {
        let transfer = Transfer::new(format!("under lie {n}"), "bank-a", "bank-b");
        proxy.close(At::Before, "{\"commit\":");
        let asking = bank.asking(&transfer);
        proxy.wait_held().await;
        proxy.set(lie.clone());
        let before = proxy.taken();
        proxy.open();
        wait_for("the commit to be said again", || async {
            let taken = proxy.taken() - before;
            if taken >= 2 { Ok(()) } else { Err(format!("{taken} under {lie:?}")) }
        })
        .await;
        assert!(!asking.is_finished(), "answered under {lie:?}");
        proxy.set(Fault::None);
        let told = asking.await.unwrap();
        let told = if told.is_definite() { told } else { bank.insist(&transfer).await };
        assert!(told.is_committed(), "under {lie:?}: {told:?}");
        ledger.push((transfer, told));
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}
