//! The admin API, the probes, the metrics, and draining.

use assent_client::{CoordinatorAdmin, Http, HttpOptions};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::AbandonRequest;
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::fake::{Fake, Kind, Say};
use super::rig::{Rig, Said, said, transfer};

async fn retry(rig: &Rig, id: &str) -> Said {
    said(rig.admin_request(Method::POST, &format!("/v1/transactions/{id}/retry"))).await
}

/// A committed transaction whose branch at bank-b does not acknowledge.
async fn unacknowledged(rig: &Rig, bank_b: &Fake) -> String {
    bank_b.always(Kind::Commit, Say::BadGateway);
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["ack"] = json!("decided");
    let id = rig.submit(&body).await.id().to_owned();
    bank_b.hears(Kind::Commit, 1).await;
    id
}

#[tokio::test]
async fn a_retry_sends_what_waits_now() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = unacknowledged(&rig, &bank_b).await;
    // Far enough into its backoff that it would not come by itself for a while.
    bank_b.hears(Kind::Commit, 4).await;
    rig.until(&id, |view| view["branches"][1]["next_try_at"].is_string()).await;
    bank_b.always(Kind::Commit, Say::Good);
    let hurried = retry(&rig, &id).await;
    assert_eq!((hurried.status, hurried.id()), (200, id.as_str()), "{hurried:?}");
    assert_eq!(rig.ended(&id).await["applied"], true);
    let late = retry(&rig, &id).await;
    late.is_problem("wrong_state");
    assert_eq!(late.body["outcome"], "committed");
    retry(&rig, &Uuid::now_v7().to_string()).await.is_problem("not_found");
}

#[tokio::test]
async fn a_branch_is_given_up_with_who_and_why_only() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = unacknowledged(&rig, &bank_b).await;
    let path = format!("/v1/transactions/{id}/branches/bank-b/abandon");
    for body in [json!({"actor": "ops"}), json!({"actor": "", "reason": "gone"}), json!({})] {
        said(rig.admin_request(Method::POST, &path).json(&body)).await.is_problem("bad_request");
    }
    let elsewhere = format!("/v1/transactions/{id}/branches/bank-c/abandon");
    let who = json!({"actor": "ops", "reason": "the machine is gone"});
    said(rig.admin_request(Method::POST, &elsewhere).json(&who)).await.is_problem("wrong_state");
    let done = said(rig.admin_request(Method::POST, &path).json(&who)).await;
    assert_eq!((done.status, done.id()), (200, id.as_str()), "{done:?}");
    assert_eq!(
        (&done.body["outcome"], &done.body["applied"]),
        (&json!("committed"), &json!(false))
    );
    rig.ended(&id).await;
    // Nothing more comes, so that nobody waits for it.
    let settled = rig.get(&format!("/v1/transactions/{id}?wait=60s")).await;
    assert_eq!(settled.body["outcome"], "committed", "{settled:?}");
    rig.restart().await;
    assert_eq!(rig.running().recovery.resumed, 0);
}

#[tokio::test]
async fn an_undecided_transaction_cannot_be_given_up() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let body = transfer(&["bank-a", "bank-b"]);
    let id = rig.submit_with(&body, &[("Prefer", "respond-async")]).await.id().to_owned();
    let path = format!("/v1/transactions/{id}/branches/bank-a/abandon");
    let who = json!({"actor": "ops", "reason": "impatience"});
    said(rig.admin_request(Method::POST, &path).json(&who)).await.is_problem("wrong_state");
    bank_a.release();
}

#[tokio::test]
async fn the_sdk_gives_up_a_branch() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = unacknowledged(&rig, &bank_b).await.parse().unwrap();
    let http = Http::new(&HttpOptions::default()).unwrap();
    let admin = CoordinatorAdmin::new(&http, &rig.admin_url("")).unwrap();
    admin.retry(id).await.unwrap();
    let request = AbandonRequest { actor: "ops".to_owned(), reason: "gone".to_owned() };
    let view = admin.abandon(id, &"bank-b".parse().unwrap(), &request).await.unwrap();
    assert_eq!((view.outcome, view.applied), (OutcomeWord::Committed, Some(false)));
}

#[tokio::test]
async fn what_changes_something_is_on_one_listener_only() {
    let rig = Rig::start(&[]).await;
    let id = Uuid::now_v7();
    let path = format!("/v1/transactions/{id}/retry");
    let retried = said(rig.request(Method::POST, &path)).await;
    retried.is_problem("not_found");
    let submitted = rig.admin_request(Method::POST, "/v1/transactions").json(&transfer(&["a"]));
    let submitted = said(submitted).await;
    submitted.is_problem("method_not_allowed");
    // Each says what it is, and where the other one is.
    for (refused, is, other) in [
        (retried, "a coordinator's public API", "--admin-listen"),
        (submitted, "a coordinator's API for operators", "--listen"),
    ] {
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(is) && detail.contains(other), "{detail}");
    }
    let listed = said(rig.admin_request(Method::GET, "/v1/transactions")).await;
    assert_eq!((listed.status, &listed.body), (200, &json!({"transactions": []})));
}

#[tokio::test]
async fn probes_and_version_answer_on_both_listeners() {
    let rig = Rig::start(&[]).await;
    for base in [rig.url(""), rig.admin_url("")] {
        let get = |path: &str| said(rig.request_to(Method::GET, &format!("{base}{path}")));
        for path in ["/livez", "/readyz"] {
            let answer = get(path).await;
            assert_eq!((answer.status, &answer.body), (200, &json!("ok\n")));
        }
        let verbose = get("/readyz?verbose").await;
        assert_eq!(verbose.body, json!("[+]recovery ok\n[+]copy ok\n[+]draining ok\n[+]log ok\n"));
        assert_eq!(get("/v1/version").await.body["role"], "coordinator");
        get("/metrics").await.is_problem("not_found");
    }
}

#[tokio::test]
async fn metrics_are_rendered_where_they_are_recorded() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let rig = Rig::start_with(&[], |options| options.metrics = Some(handle)).await;
    for url in [rig.url("/metrics"), rig.admin_url("/metrics")] {
        let answer = said(rig.request_to(Method::GET, &url)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    }
}

#[tokio::test]
async fn draining_takes_nothing_new_and_finishes_what_is_active() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let base = rig.url("");
    let key = ("Idempotency-Key", "k");
    let body = transfer(&["bank-a", "bank-b"]);
    let first = rig.submit_with(&body, &[key, ("Prefer", "wait=0")]).await;
    let at = |method: Method, path: &str| rig.request_to(method, &format!("{base}{path}"));
    let ready = at(Method::GET, "/readyz");
    let verbose = at(Method::GET, "/readyz?verbose");
    let submit = at(Method::POST, "/v1/transactions").json(&body);
    let replay = at(Method::POST, "/v1/transactions").json(&body).header(key.0, key.1);
    let poll = at(Method::GET, &format!("/v1/transactions/{}?wait=10s", first.id()));
    let engine = rig.running().engine().clone();
    let draining = tokio::spawn(rig.take().drain(10_000));
    while !engine.is_draining() {
        tokio::task::yield_now().await;
    }
    said(ready).await.is_problem("not_ready");
    let lines = said(verbose).await;
    assert_eq!(lines.status, 503);
    assert!(lines.body.as_str().unwrap().contains("[-]draining failed"), "{lines:?}");
    let refused = said(submit).await;
    refused.is_problem("not_ready");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let replayed = tokio::spawn(said(replay));
    let polled = tokio::spawn(said(poll));
    bank_a.hears(Kind::Prepare, 1).await;
    bank_a.release();
    assert_eq!(polled.await.unwrap().body["outcome"], "committed");
    let replayed = replayed.await.unwrap();
    assert_eq!((replayed.status, replayed.id()), (200, first.id()), "{replayed:?}");
    assert_eq!(draining.await.unwrap(), 0);
}
