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

/// What a participant said last is shown while it is asked again, and told at the end: nobody is to
/// look for the words in its log.
#[tokio::test]
async fn the_last_reason_of_a_participant_is_shown_while_it_is_asked_again_and_told_at_the_end() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.next(Kind::Prepare, [Say::Unknown]);
    sick.always(Kind::Prepare, Say::Silence);
    let rig = rig(&sick, &well).await;
    let id = begin(&rig, &["well", "sick"], "2s").await.id().to_owned();
    sick.hears(Kind::Prepare, 2).await;
    let view = rig.get(&format!("/v1/transactions/{id}")).await.body;
    assert_eq!(view["outcome"], "pending", "{view}");
    assert_eq!(view["branches"][1]["last_error"], "Redis did not say", "{view}");
    let ended = rig.get(&format!("/v1/transactions/{id}?wait=10s")).await.body;
    let detail = ended["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("`timeout`") && detail.contains("Redis did not say"), "{detail}");
}

/// Nobody listens there: that is no mere timeout.
#[tokio::test]
async fn a_refused_connection_is_told_as_one() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    let rig = rig(&sick, &well).await;
    // What has never answered is not begun.
    assert_eq!(rig.submit(&short(&["sick", "well"])).await.status, 200);
    drop(sick);
    let said = rig.submit(&short(&["sick", "well"])).await;
    assert_eq!(said.body["code"], "participant_unreachable", "{said:?}");
    let detail = said.body["detail"].as_str().unwrap();
    assert!(detail.contains("refused") && detail.contains("`timeout`"), "{said:?}");
}

/// A participant that has failed for a while is not asked, and nobody's keys are locked for it.
#[tokio::test]
async fn a_participant_that_is_away_fails_those_who_name_it_at_once_until_it_is_back() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    for kind in [Kind::Prepare, Kind::Abort] {
        sick.always(kind, Say::BadGateway);
    }
    let rig = Rig::start(&[("sick", &sick), ("well", &well)]).await;
    let mut aborted = 0;
    let refused = async {
        loop {
            let said = rig.submit(&short(&["sick", "well"])).await;
            assert_eq!(said.body["participant"], "sick", "{said:?}");
            if said.body.get("outcome").is_none() {
                said.is_problem("participant_unreachable");
                return said;
            }
            // Until then as ever: its deadline aborts it.
            assert_eq!(said.body["outcome"], "aborted", "{said:?}");
            aborted += 1;
        }
    };
    let refused = within(refused, || "the participant to be taken for away".to_owned()).await;
    assert!(aborted >= 3, "{aborted}");
    assert!(refused.body["detail"].as_str().unwrap().contains("502"), "{refused:?}");
    well.hears(Kind::Abort, aborted).await;
    assert_eq!(well.count(Kind::Prepare), aborted, "nothing was sent for what was refused");
    assert_eq!(rig.submit(&transfer(&["well"])).await.status, 200);
    let view = rig.get("/v1/participants/sick").await.body;
    assert_eq!((&view["up"], &view["away"]), (&json!(false), &json!(true)), "{view}");
    assert!(view["since"].is_string() && view["last_error"].is_string(), "{view}");
    for kind in [Kind::Prepare, Kind::Abort] {
        sick.always(kind, Say::Good);
    }
    let back = async {
        while rig.submit(&transfer(&["sick", "well"])).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    within(back, || "a probe to find that it is back".to_owned()).await;
    let view = rig.get("/v1/participants/sick").await.body;
    assert_eq!((&view["up"], view.get("away")), (&json!(true), None), "{view}");
}

/// One phase that was asked before stays unknown: nobody may say *aborted* of what may have been applied.
#[tokio::test]
async fn what_is_unknown_at_a_participant_that_is_away_stays_unknown() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    for kind in [Kind::Prepare, Kind::Abort] {
        sick.always(kind, Say::BadGateway);
    }
    let rig = Rig::start(&[("sick", &sick), ("well", &well)]).await;
    let mut body = short(&["sick"]);
    body["name"] = json!("unknown");
    let unknown = rig.submit_with(&body, &[("Prefer", "wait=0")]).await.id().to_owned();
    let away = async {
        while rig.get("/v1/participants/sick").await.body["away"] != true {
            rig.submit_with(&short(&["sick"]), &[("Prefer", "wait=0")]).await;
        }
    };
    within(away, || "the participant to be taken for away".to_owned()).await;
    let view = rig.get(&format!("/v1/transactions/{unknown}")).await.body;
    assert_eq!((&view["outcome"], &view["state"]), (&json!("pending"), &json!("asking")), "{view}");
    sick.always(Kind::Abort, Say::AlreadyCommitted);
    assert_eq!(rig.ended(&unknown).await["outcome"], "committed");
}

/// What cannot be delivered is in the log, and does not hold up a stop.
#[tokio::test]
async fn draining_does_not_wait_for_a_participant_that_does_not_answer() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    for kind in [Kind::Commit, Kind::Abort] {
        sick.always(kind, Say::BadGateway);
    }
    let mut rig = Rig::start(&[("sick", &sick), ("well", &well)]).await;
    let mut body = transfer(&["sick", "well"]);
    body["ack"] = json!("decided");
    let committed = rig.submit_with(&body, &[("Idempotency-Key", "k")]).await.id().to_owned();
    well.next(Kind::Prepare, [Say::No(assent_common::ErrorCode::WrongType)]);
    assert_eq!(rig.submit(&body).await.body["outcome"], "aborted");
    let draining = rig.take().drain(600_000);
    let left = within(draining, || "the coordinator to stop".to_owned()).await;
    assert_eq!(left, 2);
    sick.always(Kind::Commit, Say::Good);
    rig.start_again().await;
    assert_eq!(rig.ended(&committed).await["applied"], true);
}

/// What is known of a participant that hangs is shown with the branch that waits for it.
#[tokio::test]
async fn a_branch_that_waits_in_silence_shows_what_its_participant_met_last() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.next(Kind::Prepare, [Say::BadGateway]);
    sick.always(Kind::Prepare, Say::Silence);
    let rig = Rig::start(&[("sick", &sick), ("well", &well)]).await;
    let id = begin(&rig, &["sick", "well"], "60s").await.id().to_owned();
    sick.hears(Kind::Prepare, 2).await;
    let view = rig.until(&id, |view| view["branches"][1]["state"] == "prepared").await;
    let last = view["branches"][0]["last_error"].as_str().unwrap_or_default();
    assert!(last.contains("502"), "{view}");
}

/// Votes of transactions that are on their way are no doubt yet; and who looks for the doubtful wants the oldest.
#[tokio::test]
async fn what_is_in_doubt_is_listed_when_it_is_late_and_the_oldest_first() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.always(Kind::Prepare, Say::Silence);
    let rig = Rig::start(&[("sick", &sick), ("well", &well)]).await;
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(begin(&rig, &["sick", "well"], "60s").await.id().to_owned());
    }
    well.hears(Kind::Prepare, 3).await;
    let listed = async |query: &str| -> (Vec<String>, Value) {
        let page = rig.get(&format!("/v1/transactions?in_doubt=true{query}")).await.body;
        let rows = page["transactions"].as_array().unwrap();
        let ids = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        (ids, page["next_page_token"].clone())
    };
    let late = async {
        loop {
            let (ids, _) = listed("").await;
            if ids.len() == 3 {
                return ids;
            }
        }
    };
    assert_eq!(within(late, || "three in doubt".to_owned()).await, begun);
    let (first, token) = listed("&page_size=2").await;
    assert_eq!(first, begun[..2]);
    let (rest, _) = listed(&format!("&page_token={}", token.as_str().unwrap())).await;
    assert_eq!(rest, begun[2..]);
    let young = begin(&rig, &["sick", "well"], "60s").await.id().to_owned();
    assert!(!listed("").await.0.contains(&young), "it has just begun");
}

/// One answer of one participant stopped the coordinator for all of them, until a restart; and
/// after it, as long as it was said.
#[tokio::test]
async fn a_participant_that_calls_the_log_stale_without_a_proof_costs_only_those_who_name_it() {
    let (sick, well) = (Fake::start().await, Fake::start().await);
    sick.calls_the_log_stale(Some("it is old"));
    let mut rig = rig(&sick, &well).await;
    for _ in 0..2 {
        let refused = rig.submit(&transfer(&["sick", "well"])).await;
        refused.is_problem("stale_log");
        assert_eq!(refused.body["participant"], "sick", "{refused:?}");
        assert_eq!(refused.body.get("outcome"), None, "nothing was begun: {refused:?}");
        assert_eq!(rig.submit(&transfer(&["well"])).await.status, 200);
        assert_eq!(rig.get("/readyz").await.status, 200);
        rig.restart().await;
    }
    sick.calls_the_log_stale(None);
    // It is asked again and again.
    let taken_back = async {
        while rig.submit(&transfer(&["sick", "well"])).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    within(taken_back, || "the participant to be used again".to_owned()).await;
}
