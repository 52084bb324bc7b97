//! Registering, moving and removing participants.

use assent_client::CallError;
use assent_common::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::fake::{Fake, Kind, Say};
use super::rig::{Rig, Said, said, transfer};

async fn put(rig: &Rig, name: &str, body: &Value) -> Said {
    said(rig.admin_request(Method::PUT, &format!("/v1/participants/{name}")).json(body)).await
}

async fn delete(rig: &Rig, name: &str) -> Said {
    said(rig.admin_request(Method::DELETE, &format!("/v1/participants/{name}"))).await
}

#[tokio::test]
async fn a_registration_outlives_a_restart_and_so_does_a_removal() {
    let bank = Fake::start().await;
    let mut rig = Rig::start(&[]).await;
    rig.submit(&transfer(&["bank-a"])).await.is_problem("unknown_participant");
    let registered = put(&rig, "bank-a", &json!({"url": bank.url})).await;
    assert_eq!(registered.status, 200, "{registered:?}");
    assert_eq!(registered.body["name"], "bank-a");
    assert_eq!(rig.submit(&transfer(&["bank-a"])).await.status, 200);
    rig.restart().await;
    let list = rig.get("/v1/participants").await.body;
    assert_eq!(list["participants"][0]["name"], "bank-a");
    assert_eq!(rig.submit(&transfer(&["bank-a"])).await.status, 200);
    let one = rig.get("/v1/participants/bank-a").await.body;
    assert_eq!(one["up"], true, "{one}");
    let id = rig.submit(&transfer(&["bank-a"])).await.id().to_owned();
    rig.ended(&id).await;
    let removed = delete(&rig, "bank-a").await;
    assert_eq!((removed.status, &removed.body), (204, &json!("")), "{removed:?}");
    rig.get("/v1/participants/bank-a").await.is_problem("not_found");
    delete(&rig, "bank-a").await.is_problem("not_found");
    rig.restart().await;
    assert_eq!(rig.get("/v1/participants").await.body, json!({"participants": []}));
    rig.submit(&transfer(&["bank-a"])).await.is_problem("unknown_participant");
}

#[tokio::test]
async fn a_participant_with_unfinished_transactions_stays_and_can_be_moved() {
    let (bank_a, bank_b, elsewhere) =
        (Fake::start().await, Fake::start().await, Fake::start().await);
    bank_b.always(Kind::Commit, Say::BadGateway);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["ack"] = json!("decided");
    let id = rig.submit(&body).await.id().to_owned();
    bank_b.hears(Kind::Commit, 2).await;
    let refused = delete(&rig, "bank-b").await;
    refused.is_problem("wrong_state");
    assert_eq!(refused.body["participant"], "bank-b");
    let view = rig.get("/v1/participants/bank-b").await.body;
    assert_eq!((&view["up"], &view["unfinished"]), (&json!(false), &json!(1)), "{view}");
    assert!(view["last_error"].is_string());
    assert_eq!(put(&rig, "bank-b", &json!({"url": elsewhere.url})).await.status, 200);
    rig.ended(&id).await;
    assert!(elsewhere.count(Kind::Commit) >= 1);
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_refused() {
    let rig = Rig::start(&[]).await;
    for body in [
        json!({"url": "ftp://bank"}),
        json!({"url": "bank:7710"}),
        json!({"url": ""}),
        json!({"url": 3}),
        json!({}),
        json!({"url": "http://127.0.0.1:1", "uri": "x"}),
    ] {
        put(&rig, "bank-a", &body).await.is_problem("bad_request");
    }
    put(&rig, "-bank", &json!({"url": "http://127.0.0.1:1"})).await.is_problem("bad_request");
    assert_eq!(rig.get("/v1/participants").await.body, json!({"participants": []}));
}

/// Whoever may submit transactions may not have the participants' token, or others' ops, sent somewhere.
#[tokio::test]
async fn the_public_api_moves_nobody() {
    let (bank, sink) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    for name in ["bank-a", "new"] {
        let path = format!("/v1/participants/{name}");
        let body = json!({"url": sink.url});
        said(rig.request(Method::PUT, &path).json(&body)).await.is_problem("method_not_allowed");
        said(rig.request(Method::DELETE, &path)).await.is_problem("method_not_allowed");
    }
    let list = rig.get("/v1/participants").await.body;
    assert_eq!(list["participants"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["participants"][0]["url"], format!("{}/", bank.url));
}

/// A question may name any address. Only registered participants are asked, where they are registered.
#[tokio::test]
async fn a_question_about_branches_reaches_nobody_who_is_not_registered() {
    let (bank, sink) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let log_id = rig.running().engine().identity().log_id;
    // No record is no abort before the participants have heard which life speaks.
    assert_eq!(rig.submit(&transfer(&["bank-a"])).await.status, 200);
    let resolve = |names: &[&str]| {
        let branch = |name: &&str| json!({"participant": name, "url": sink.url});
        let branches: Vec<Value> = names.iter().map(branch).collect();
        let path = format!("/v1/transactions/{log_id}.0.5.0/resolve");
        said(rig.request(Method::POST, &path).json(&json!({"branches": branches})))
    };
    resolve(&["bank-a", "nope"]).await.is_problem("unknown_participant");
    assert_eq!(bank.count(Kind::Settle), 0, "nobody is asked in vain");
    let answered = resolve(&["bank-a"]).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!((bank.count(Kind::Settle), sink.count(Kind::Settle)), (1, 0));
}

/// The rig's segments hold 1 MiB. Whatever a participant answers, the process goes on.
#[tokio::test]
async fn an_answer_that_no_segment_of_the_log_holds_ends_no_process() {
    const LARGE: usize = 2 * 1024 * 1024;
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    // Before the decision it is refused.
    bank_a.next(Kind::Prepare, [Say::Large(LARGE)]);
    let refused = rig.submit(&transfer(&["bank-a", "bank-b"])).await;
    refused.is_problem("too_large");
    assert_eq!(refused.body["outcome"], "aborted");
    // What is applied is committed, and its replies are kept for who asked only.
    bank_a.next(Kind::Prepare, [Say::Large(LARGE)]);
    let applied = rig.submit(&transfer(&["bank-a"])).await;
    assert_eq!((applied.status, &applied.body["outcome"]), (200, &json!("committed")));
    // What would be applied and could not be recorded is not sent.
    let heard = bank_a.count(Kind::Prepare);
    let mut large = transfer(&["bank-a"]);
    large["branches"][0]["ops"] = json!([{"cmd": ["SET", "k", "x".repeat(LARGE)]}]);
    rig.submit(&large).await.is_problem("too_large");
    assert_eq!(bank_a.count(Kind::Prepare), heard);
    // Others' words are cut before they are told, listed or kept.
    bank_a.next(Kind::Prepare, [Say::LongNo(LARGE)]);
    let long = rig.submit(&transfer(&["bank-a", "bank-b"])).await;
    long.is_problem("expectation_failed");
    assert!(long.body.to_string().len() < 10_000 && long.body.get("reply").is_none());
    assert_eq!(rig.submit(&transfer(&["bank-a", "bank-b"])).await.status, 200);
    let list = rig.get("/v1/transactions").await.body;
    assert!(list.to_string().len() < 10_000, "no replies in a list");
}

#[tokio::test]
async fn the_sdk_manages_participants() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[]).await;
    let (client, name) = (rig.client(), "bank-a".parse().unwrap());
    let admin = rig.admin();
    let view = admin.set_participant(&name, &bank.url).await.unwrap();
    assert_eq!(view.name, name);
    assert_eq!(client.participants().await.unwrap().participants.len(), 1);
    admin.remove_participant(&name).await.unwrap();
    match admin.remove_participant(&name).await {
        Err(CallError::Rejected(problem)) => assert_eq!(problem.code, ErrorCode::NotFound),
        other => panic!("{other:?}"),
    }
    let version = client.version().await.unwrap();
    assert_eq!((version.role.as_str(), version.epoch), ("coordinator", Some(1)));
    assert_eq!(version.log_id, Some(rig.running().engine().identity().log_id.to_string()));
}

/// Committed at bank-a and not acknowledged by bank-b; then one that is aborted, and not heard of there either.
async fn left_open(rig: &Rig, bank_a: &Fake, bank_b: &Fake) -> [String; 2] {
    bank_b.always(Kind::Commit, Say::BadGateway);
    bank_b.always(Kind::Abort, Say::BadGateway);
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["ack"] = json!("decided");
    let committed = rig.submit(&body).await.id().to_owned();
    bank_b.hears(Kind::Commit, 1).await;
    bank_a.next(Kind::Prepare, [Say::No(ErrorCode::ExpectationFailed)]);
    let aborted = rig.submit(&body).await.id().to_owned();
    bank_b.hears(Kind::Abort, 1).await;
    [committed, aborted]
}

#[tokio::test]
async fn a_dead_participant_is_removed_by_force_with_who_and_why_only() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let mut rig = Rig::start(&[("bank-a", &bank_a)]).await;
    put(&rig, "bank-b", &json!({"url": bank_b.url})).await;
    let [committed, aborted] = left_open(&rig, &bank_a, &bank_b).await;
    let refused = delete(&rig, "bank-b").await;
    refused.is_problem("wrong_state");
    assert!(refused.body["detail"].as_str().unwrap().contains("--force"), "{refused:?}");
    let by_force = |name: &str, body: &Value| {
        let path = format!("/v1/participants/{name}/remove");
        said(rig.admin_request(Method::POST, &path).json(body))
    };
    by_force("bank-b", &json!({"actor": "ops"})).await.is_problem("bad_request");
    let who = json!({"actor": "ops", "reason": "the machine burnt"});
    by_force("bank-c", &who).await.is_problem("not_found");
    let removed = by_force("bank-b", &who).await;
    assert_eq!(removed.body, json!({"name": "bank-b", "committed": 1, "aborted": 1}));
    by_force("bank-b", &who).await.is_problem("not_found");
    rig.submit(&transfer(&["bank-b"])).await.is_problem("unknown_participant");
    for id in [&committed, &aborted] {
        rig.ended(id).await;
    }
    let view = rig.get(&format!("/v1/transactions/{committed}")).await.body;
    assert_eq!((&view["outcome"], &view["applied"]), (&json!("committed"), &json!(false)));
    assert_eq!(view["branches"][1]["state"], "abandoned");
    rig.restart().await;
    assert_eq!(rig.running().recovery.resumed, 0);
    rig.get("/v1/participants/bank-b").await.is_problem("not_found");
}

#[tokio::test]
async fn a_removal_by_force_waits_for_what_is_open_and_takes_nothing_new() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.always(Kind::Prepare, Say::BadGateway);
    bank_b.always(Kind::Abort, Say::BadGateway);
    let rig = Rig::start(&[("bank-a", &bank_a)]).await;
    put(&rig, "bank-b", &json!({"url": bank_b.url})).await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["timeout"] = json!("500ms");
    let open = rig.submit_with(&body, &[("Prefer", "wait=0")]).await.id().to_owned();
    let who = json!({"actor": "ops", "reason": "gone"});
    let path = "/v1/participants/bank-b/remove";
    let removed = said(rig.admin_request(Method::POST, path).json(&who)).await;
    assert_eq!(removed.body, json!({"name": "bank-b", "committed": 0, "aborted": 1}));
    assert_eq!(rig.ended(&open).await["outcome"], "aborted");
}

/// An agent that says that its Redis does not answer is up; its Redis is not.
#[tokio::test]
async fn a_redis_that_does_not_answer_is_told_apart_from_a_participant_that_does_not() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::No(ErrorCode::RedisUnavailable)]);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let of_bank = async || rig.get("/v1/participants/bank-a").await.body;
    let mut body = transfer(&["bank-a"]);
    body["timeout"] = json!("5s");
    rig.submit(&body).await.is_problem("redis_unavailable");
    let view = of_bank().await;
    assert_eq!((&view["up"], &view["redis_up"]), (&json!(true), &json!(false)), "{view}");
    assert_eq!(rig.submit(&body).await.status, 200);
    let view = of_bank().await;
    assert_eq!((&view["up"], &view["redis_up"]), (&json!(true), &json!(true)), "{view}");
}
