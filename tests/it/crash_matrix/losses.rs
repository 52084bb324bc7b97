//! One phase, an answer that was lost on the way, and then the data, twice: what a client was told in the end is in the log by
//! then, whoever died, and comes back each time (invariants 9 and 12).

use assent_common::crash::CrashPoint;
use assent_common::wire::resync::DataView;
use assent_tests::cluster::Peer;
use assent_tests::link::{Fault, Way, Which};
use assent_tests::{Bank, Cluster, Options, Told, Transfer, plain, wait_for, wait_settled};

use super::scenario::{Shape, crash, one_outcome};
use crate::ASSENT;

/// The second bank loses everything, twice, with one phase behind each loss.
async fn lose_twice(cluster: &Cluster, bank: &Bank, first: (Transfer, Told)) {
    let mut ledger = vec![first];
    for loss in ["a loss", "another loss"] {
        wait_settled(cluster).await;
        plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
        // Refused as long as the data is being made whole.
        let mut last = None;
        while last.as_ref().is_none_or(|told: &Told| !told.is_committed()) {
            let after = Shape::OneBranch.transfer(&format!("{} after {loss}", ledger.len()));
            let told = bank.insist(&after).await;
            ledger.push((after, told.clone()));
            last = Some(told);
        }
    }
    wait_settled(cluster).await;
    bank.check(cluster, &ledger).await;
}

async fn crash_and_lose(point: CrashPoint) {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open_in_log(&cluster, 2).await;
    let told = crash(&mut cluster, &bank, point, Shape::OneBranch).await;
    lose_twice(&cluster, &bank, told).await;
}

macro_rules! loss_matrix {
    ($($name:ident: $point:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            crash_and_lose(CrashPoint::$point).await;
        })+
    };
}

loss_matrix! {
    one_phase_before_which_its_participant_died_survives_losses: BeforeVoteDurable;
    one_phase_after_which_its_participant_died_survives_losses: AfterVoteDurable;
    one_phase_before_which_its_coordinator_died_survives_losses: BeforePrepareSent;
    one_phase_whose_begin_was_not_synced_survives_losses: BeforeDecisionSync;
}

/// The agent's connection breaks with its `EXEC` applied: the answer comes from the marker.
#[tokio::test]
async fn one_phase_whose_connection_was_cut_survives_losses() {
    let cluster = Cluster::start(ASSENT, Options { linked: true, ..Options::default() }).await;
    let bank = Bank::open_in_log(&cluster, 2).await;
    let transfer = Shape::OneBranch.transfer("the one");
    let link = cluster.peers[1].redis_link.as_ref().unwrap();
    let met = link.met();
    link.set(Fault::CutAfter(Which::With("EXEC")));
    let asking = bank.asking(&transfer);
    link.wait_met(met, 1).await;
    link.set(Fault::None);
    let first = asking.await.unwrap();
    let told = one_outcome(&bank, &transfer, first).await;
    assert!(told.is_committed(), "{told:?}");
    lose_twice(&cluster, &bank, (transfer, told)).await;
}

/// The same, and the data is lost before the coordinator has heard anything: by then others may
/// have read what was written, so that it is put back, and told committed.
#[tokio::test]
async fn one_phase_that_was_lost_before_it_was_heard_is_not_told_aborted() {
    let cluster = Cluster::start(ASSENT, Options { linked: true, ..Options::default() }).await;
    let bank = Bank::open_in_log(&cluster, 2).await;
    wait_settled(&cluster).await;
    let transfer = Shape::OneBranch.transfer("the one");
    let peer = &cluster.peers[1];
    let (link, redis_link) = (peer.link.as_ref().unwrap(), peer.redis_link.as_ref().unwrap());
    let met = redis_link.met();
    link.set(Fault::BlackHole(Way::Answers));
    redis_link.set(Fault::CutAfter(Which::With("EXEC")));
    let asking = bank.asking(&transfer);
    redis_link.wait_met(met, 1).await;
    redis_link.set(Fault::None);
    wait_for_data(peer, &cluster, "the agent to be back", |data| !data.fenced).await;
    plain::run::<()>(&peer.redis, &["FLUSHALL"]).await;
    wait_for_data(peer, &cluster, "the loss to be noticed", |data| data.fenced).await;
    link.set(Fault::None);
    let first = asking.await.unwrap();
    let told = one_outcome(&bank, &transfer, first).await;
    assert!(told.is_committed(), "what others may have read was told {told:?}");
    lose_twice(&cluster, &bank, (transfer, told)).await;
}

async fn wait_for_data(
    peer: &Peer,
    cluster: &Cluster,
    what: &str,
    is_so: impl Fn(&DataView) -> bool,
) {
    let client = peer.client(&cluster.http);
    wait_for(what, || async {
        match client.data().await {
            Ok(data) if is_so(&data) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
