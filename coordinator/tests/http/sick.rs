//! One sick participant costs only those who name it.

use serde_json::{Value, json};

use super::fake::{Fake, Kind, Say, within};
use super::rig::{Rig, transfer};

/// Small limits: what thousands would meet, some meet.
const FEW: usize = 8;

async fn begin(rig: &Rig, participants: &[&str], timeout: &str) -> super::rig::Said {
    let mut body = transfer(participants);
    body["timeout"] = json!(timeout);
    rig.submit_with(&body, &[("Prefer", "wait=0")]).await
}

async fn rig(sick: &Fake, well: &Fake) -> Rig {
    Rig::start_with(&[("sick", sick), ("well", well)], |options| {
        options.admission.in_flight_max = 2 * FEW;
        options.admission.per_participant_max = FEW;
        options.admission.undelivered_max = FEW;
    })
    .await
}

#[track_caller]
fn refused_by_name(said: &super::rig::Said) {
    said.is_problem("overloaded");
    assert_eq!(said.body["participant"], "sick", "{said:?}");
    assert_eq!(said.body.get("outcome"), None, "nothing was begun: {said:?}");
}

#[tokio::test]
async fn a_participant_that_hangs_shuts_out_those_who_name_it_and_nobody_else() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.always(Kind::Prepare, Say::Silence);
    let rig = rig(&sick, &well).await;
    for _ in 0..FEW {
        assert_eq!(begin(&rig, &["sick", "well"], "60s").await.status, 202);
    }
    refused_by_name(&begin(&rig, &["sick", "well"], "60s").await);
    refused_by_name(&begin(&rig, &["sick"], "60s").await);
    for _ in 0..3 * FEW {
        assert_eq!(rig.submit(&transfer(&["well"])).await.status, 200);
    }
}

#[tokio::test]
async fn outcomes_that_nobody_acknowledges_count_against_nobody_else() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.always(Kind::Prepare, Say::Unknown);
    sick.always(Kind::Abort, Say::Unknown);
    let rig = rig(&sick, &well).await;
    for _ in 0..FEW {
        let aborted = rig.submit(&short(&["sick", "well"])).await;
        assert_eq!(aborted.body["outcome"], "aborted", "{aborted:?}");
    }
    refused_by_name(&rig.submit(&short(&["sick", "well"])).await);
    for _ in 0..3 * FEW {
        assert_eq!(rig.submit(&transfer(&["well"])).await.status, 200);
    }
    sick.always(Kind::Abort, Say::Good);
    let acknowledged = async {
        while rig.get("/v1/participants/sick").await.body["unfinished"] != 0 {
            tokio::task::yield_now().await;
        }
    };
    within(acknowledged, || "the aborts to be acknowledged".to_owned()).await;
    sick.always(Kind::Prepare, Say::Good);
    assert_eq!(rig.submit(&transfer(&["sick", "well"])).await.status, 200);
}

fn short(participants: &[&str]) -> Value {
    let mut body = transfer(participants);
    body["timeout"] = json!("50ms");
    body
}

/// Everything of this coordinator below it has ended, as a participant was told last.
async fn mark_passes(rig: &Rig, well: &Fake, txid: &assent_common::Txid) {
    let passes = async {
        loop {
            assert_eq!(rig.submit(&transfer(&["well"])).await.status, 200);
            if well.low_water().is_some_and(|mark| mark > txid.number) {
                return;
            }
        }
    };
    within(passes, || format!("the mark to pass {txid}, it is {:?}", well.low_water())).await;
}

#[tokio::test]
async fn the_mark_of_a_participant_does_not_wait_for_the_aborts_of_another() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.always(Kind::Prepare, Say::Unknown);
    sick.always(Kind::Abort, Say::Unknown);
    let rig = rig(&sick, &well).await;
    assert_eq!(rig.submit(&short(&["sick", "well"])).await.body["outcome"], "aborted");
    let txid = well.hears(Kind::Abort, 1).await.txid;
    mark_passes(&rig, &well, &txid).await;
    assert!(sick.low_water().is_some_and(|mark| mark <= txid.number), "{:?}", sick.low_water());
}

#[tokio::test]
async fn the_mark_of_a_participant_does_not_wait_for_the_commits_of_another() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.always(Kind::Commit, Say::Unknown);
    let mut rig = rig(&sick, &well).await;
    let mut body = transfer(&["sick", "well"]);
    body["ack"] = json!("decided");
    let id = rig.submit(&body).await.id().to_owned();
    let txid = well.hears(Kind::Commit, 1).await.txid;
    sick.hears(Kind::Commit, 2).await;
    mark_passes(&rig, &well, &txid).await;
    assert!(sick.low_water().is_some_and(|mark| mark <= txid.number), "{:?}", sick.low_water());
    // What is below its mark must not be asked of it again, by the next life either.
    rig.restart().await;
    let heard = sick.count(Kind::Commit);
    sick.hears(Kind::Commit, heard + 2).await;
    assert_eq!(well.count(Kind::Commit), 1, "its done-marker is gone");
    sick.always(Kind::Commit, Say::Good);
    assert_eq!(rig.ended(&id).await["applied"], true);
}
