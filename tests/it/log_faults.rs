//! A decision log that cannot be written (invariant 4): the process stops with its own exit code, having told nobody what
//! is not on disk, and goes on from what is.

use assent_client::{SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_tests::cluster::{restart, wait_ended};
use assent_tests::{Bank, Cluster, Options, Transfer, plain, wait_settled};

use crate::ASSENT;

/// The smallest segments: a few transactions fill one.
const SEGMENT_BYTES: u32 = 8_192;

/// What a supervisor sees; `EX_SOFTWARE`.
const EXIT_LOG_FAILED: i32 = 70;

async fn stopped(cluster: &mut Cluster) {
    let status = wait_ended("the coordinator to stop", cluster.coordinator.child()).await;
    assert_eq!(status.code(), Some(EXIT_LOG_FAILED), "{status}");
}

/// The log's directory is gone, so that the next segment cannot be made.
#[tokio::test]
async fn a_coordinator_whose_log_cannot_grow_stops_and_has_told_only_what_is_on_disk() {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 2).await;
    let (data_dir, aside) = (cluster.data_dir(), cluster.dir().join("unmounted"));
    std::fs::rename(&data_dir, &aside).unwrap();
    let mut ledger = Vec::new();
    let mut goes_on = true;
    while goes_on {
        let transfer = Transfer::new(format!("transfer {}", ledger.len()), "bank-a", "bank-b");
        let told = bank.ask(&transfer).await;
        goes_on = told.is_committed();
        ledger.push((transfer, told));
    }
    stopped(&mut cluster).await;
    std::fs::rename(&aside, &data_dir).unwrap();
    restart(&mut cluster.coordinator).await;
    assert!(ledger.iter().any(|(_, told)| told.is_committed()), "{ledger:?}");
    for (transfer, told) in &mut ledger {
        let now = bank.insist(transfer).await;
        assert!(!told.is_definite() || *told == now, "{transfer:?}: {told:?}, then {now:?}");
        *told = now;
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// A decision that no segment holds can never be made durable: it is not made, and the process goes on.
#[tokio::test]
async fn a_decision_that_no_segment_of_the_log_holds_is_an_abort() {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let value = "v".repeat(SEGMENT_BYTES as usize);
    let request = Transaction::new()
        .branch("bank-a", |ops| ops.op(["SET", "k", &value]))
        .branch("bank-b", |ops| ops.op(["SET", "k", "v"]))
        .build()
        .unwrap();
    match cluster.api.submit(&request, None, None).await {
        Err(SubmitError::Aborted(problem)) => assert_eq!(problem.code, ErrorCode::TooLarge),
        told => panic!("{told:?}"),
    }
    wait_settled(&cluster).await;
    for peer in &cluster.peers {
        assert!(!plain::run::<bool>(&peer.redis, &["EXISTS", "k"]).await, "{}", peer.name);
    }
    let bank = Bank::open(&cluster, 1).await;
    assert!(bank.ask(&Transfer::new("after", "bank-a", "bank-b")).await.is_committed());
}
