//! Deaths inside the log: while it goes over to the next segment, and while it gives old ones up. Participants are
//! registered over the API here, so that they are in the log as well.

use assent_common::crash::CrashPoint;
use assent_common::time::DurationMs;
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::{Bank, Cluster, Options, Told, Transfer, wait_settled};

use crate::ASSENT;

/// What is killed here.
pub(super) const COVERED: &[CrashPoint] = &[CrashPoint::LogRotation, CrashPoint::LogCompaction];

/// The smallest segments: a few transactions fill one.
const SEGMENT_BYTES: u32 = 8_192;

async fn transfers(bank: &Bank, names: std::ops::Range<usize>) -> Vec<(Transfer, Told)> {
    let mut ledger = Vec::new();
    for n in names {
        let transfer = Transfer::new(format!("transfer {n}"), "bank-a", "bank-b");
        let told = bank.insist(&transfer).await;
        ledger.push((transfer, told));
    }
    ledger
}

async fn cluster(coordinator: Vec<&'static str>) -> Cluster {
    let options =
        Options { segment_bytes: SEGMENT_BYTES, register: true, coordinator, ..Options::default() };
    Cluster::start(ASSENT, options).await
}

/// Invariant 4 and promise *durable*: a segment that is begun and not yet in use costs no decision.
#[tokio::test]
async fn a_coordinator_that_dies_in_a_log_rotation_forgets_nothing() {
    let mut cluster = cluster(vec![]).await;
    let bank = Bank::open(&cluster, 1).await;
    arm(&mut cluster.coordinator, "coordinator.log_rotation:2").await;
    let running = tokio::spawn({
        let bank = bank.clone();
        async move { transfers(&bank, 0..60).await }
    });
    wait_crashed(&mut cluster.coordinator).await;
    restart(&mut cluster.coordinator).await;
    let ledger = running.await.unwrap();
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
    for (transfer, told) in &ledger {
        assert_eq!(bank.ask(transfer).await, *told, "{} is answered anew", transfer.key);
    }
}

/// Invariants 4 and 7: what is still needed of a segment is safe before the segment goes. A transaction is kept
/// unfinished across the compaction by a participant that is down.
#[tokio::test]
async fn a_coordinator_that_dies_in_a_log_compaction_forgets_nothing_that_is_needed() {
    let mut cluster = cluster(vec!["--retention", "200ms"]).await;
    let mut bank = Bank::open(&cluster, 1).await;
    // Decided, and not applied at one branch: its record must outlive its segment.
    arm(&mut cluster.peers[1].agent, "participant.before_apply").await;
    bank.timeout = DurationMs(2_000);
    let open = Transfer::new("open", "bank-a", "bank-b");
    let (_not_known, ()) = tokio::join!(bank.ask(&open), wait_crashed(&mut cluster.peers[1].agent));
    arm(&mut cluster.coordinator, "coordinator.log_compaction").await;
    let mut ledger = Vec::new();
    let running = tokio::spawn({
        let bank = bank.clone();
        async move {
            let mut ledger = Vec::new();
            // One branch at the participant that is up; enough to fill segments, which then grow old.
            for n in 0..60 {
                let transfer = Transfer {
                    to: ("bank-a", 0),
                    ..Transfer::new(format!("fill {n}"), "bank-a", "x")
                };
                let told = bank.insist(&transfer).await;
                ledger.push((transfer, told));
            }
            ledger
        }
    });
    wait_crashed(&mut cluster.coordinator).await;
    restart(&mut cluster.coordinator).await;
    ledger.extend(running.await.unwrap());
    restart(&mut cluster.peers[1].agent).await;
    wait_settled(&cluster).await;
    ledger.push((open, Told::Unknown("it was decided before the crash".to_owned())));
    bank.check(&cluster, &ledger).await;
    let marks: Option<i64> =
        assent_tests::plain::run(&cluster.peers[1].redis, &["GET", "mark:open"]).await;
    assert_eq!(marks, Some(1), "the decision in the retired segment was to commit");
    assert!(bank.insist(&Transfer::new("after", "bank-a", "bank-b")).await.is_committed());
}
