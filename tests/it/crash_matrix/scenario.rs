//! One transaction, one death, one restart, and the questions afterwards.

use assent_common::crash::CrashPoint;
use assent_process::Assent;
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::{Bank, Cluster, Options, Told, Transfer, wait_settled};

use crate::ASSENT;

/// How many branches the transaction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    TwoBranches,
    OneBranch,
}

impl Shape {
    pub(crate) fn transfer(self, key: &str) -> Transfer {
        match self {
            Self::TwoBranches => Transfer::new(key, "bank-a", "bank-b"),
            Self::OneBranch => Transfer::new(key, "bank-b", "bank-b"),
        }
    }
}

/// The process that passes a point. The second participant, so that the other's branch is touched as well.
pub(crate) fn process_of(cluster: &mut Cluster, point: CrashPoint) -> &mut Assent {
    if point.as_str().starts_with("participant.") {
        &mut cluster.peers[1].agent
    } else {
        &mut cluster.coordinator
    }
}

/// The pass that belongs to the transaction: the first two syncs of a process life are for its epoch and its nonce.
fn spec_of(point: CrashPoint) -> String {
    let pass = if point == CrashPoint::BeforeDecisionSync { 3 } else { 1 };
    format!("{point}:{pass}")
}

pub(crate) async fn crash_at(point: CrashPoint, shape: Shape) {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 2).await;
    let (transfer, told) = crash(&mut cluster, &bank, point, shape).await;
    wait_settled(&cluster).await;
    let after = Transfer { key: "after".to_owned(), ..transfer.clone() };
    let after_told = bank.insist(&after).await;
    assert!(after_told.is_committed(), "what comes after it: {after_told:?}");
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told), (after, after_told)]).await;
}

/// The process dies at the point, comes back, and the transfer has one outcome.
pub(super) async fn crash(
    cluster: &mut Cluster,
    bank: &Bank,
    point: CrashPoint,
    shape: Shape,
) -> (Transfer, Told) {
    arm(process_of(cluster, point), &spec_of(point)).await;
    let transfer = shape.transfer("the one");
    let asking = bank.asking(&transfer);
    let process = process_of(cluster, point);
    wait_crashed(process).await;
    restart(process).await;
    let first = asking.await.unwrap();
    let told = one_outcome(bank, &transfer, first).await;
    (transfer, told)
}

/// Asks again with the same key until the answer is definite, and then some more: it must stay, and agree with what
/// was told before the restart (promise *once*).
pub(crate) async fn one_outcome(bank: &Bank, transfer: &Transfer, first: Told) -> Told {
    let told = bank.insist(transfer).await;
    if first.is_definite() {
        assert_eq!(told, first, "the answer of {} has changed", transfer.key);
    }
    for _ in 0..3 {
        assert_eq!(bank.ask(transfer).await, told, "the answer of {} has changed", transfer.key);
    }
    told
}
