//! One key is one outcome: while the transaction is active, when it has ended, and after a restart.

use assent_common::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fake::{Fake, Kind, Say};
use super::rig::{Rig, Said, said, transfer};

const KEY: &[(&str, &str)] = &[("Idempotency-Key", "\"order-17\"")];

#[track_caller]
fn is_replay_of(again: &Said, first: &Said) {
    assert_eq!(again.status, first.status, "{again:?}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    for member in ["id", "outcome", "code", "applied", "decided_at"] {
        assert_eq!(again.body[member], first.body[member], "{member}: {again:?}");
    }
}

#[tokio::test]
async fn the_same_key_and_body_get_the_same_transaction() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    for participants in [&["bank-a"][..], &["bank-a", "bank-b"]] {
        let key = format!("order-{}", participants.len());
        let headers = [("Idempotency-Key", key.as_str())];
        let body = transfer(participants);
        let first = rig.submit_with(&body, &headers).await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (200, None), "{first:?}");
        let prepares = bank_a.count(Kind::Prepare);
        is_replay_of(&rig.submit_with(&body, &headers).await, &first);
        rig.ended(first.id()).await;
        is_replay_of(&rig.submit_with(&body, &headers).await, &first);
        rig.restart().await;
        let after = rig.submit_with(&body, &headers).await;
        is_replay_of(&after, &first);
        assert_eq!(after.body["branches"], first.body["branches"]);
        assert_eq!(bank_a.count(Kind::Prepare), prepares, "nothing is run twice");
    }
}

#[tokio::test]
async fn a_key_is_the_same_quoted_and_raw() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    let first = rig.submit_with(&body, KEY).await;
    is_replay_of(&rig.submit_with(&body, &[("Idempotency-Key", "order-17")]).await, &first);
}

#[tokio::test]
async fn an_id_of_the_clients_is_a_key() {
    let bank = Fake::start().await;
    let mut rig = Rig::start(&[("bank-a", &bank)]).await;
    let id = Uuid::now_v7().to_string();
    let mut body = transfer(&["bank-a"]);
    body["id"] = json!(id);
    let first = rig.submit(&body).await;
    assert_eq!((first.status, first.id()), (200, id.as_str()), "{first:?}");
    is_replay_of(&rig.submit(&body).await, &first);
    rig.ended(&id).await;
    rig.restart().await;
    is_replay_of(&rig.submit(&body).await, &first);
    body["name"] = json!("another");
    rig.submit(&body).await.is_problem("idempotency_mismatch");
}

#[tokio::test]
async fn an_abort_is_replayed_after_a_restart_as_well() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Met("-5")]);
    let mut rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    let first = rig.submit_with(&body, KEY).await;
    first.is_problem("expectation_failed");
    is_replay_of(&rig.submit_with(&body, KEY).await, &first);
    rig.restart().await;
    let after = rig.submit_with(&body, KEY).await;
    is_replay_of(&after, &first);
    for member in ["reply", "participant", "op", "detail"] {
        assert_eq!(after.body[member], first.body[member], "{member}");
    }
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_begins_nothing() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Hold]);
    let mut rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    let mut other = body.clone();
    other["branches"][0]["ops"][0]["cmd"][2] = json!(31);
    let first = rig.submit_with(&body, &[KEY[0], ("Prefer", "wait=0")]).await;
    assert_eq!(first.status, 202, "{first:?}");
    let refused = |said: Said| {
        said.is_problem("idempotency_mismatch");
        assert_eq!(said.id(), first.id());
        assert_eq!(said.body["outcome"], Value::Null);
    };
    bank.hears(Kind::Prepare, 1).await;
    refused(rig.submit_with(&other, KEY).await);
    bank.release();
    rig.ended(first.id()).await;
    refused(rig.submit_with(&other, KEY).await);
    rig.restart().await;
    refused(rig.submit_with(&other, KEY).await);
    assert_eq!(bank.count(Kind::Prepare), 1);
}

#[tokio::test]
async fn a_retry_while_it_is_active_waits_for_the_same_transaction() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let body = transfer(&["bank-a", "bank-b"]);
    let first = rig.submit_with(&body, &[KEY[0], ("Prefer", "wait=0")]).await;
    let again = rig.submit_with(&body, &[KEY[0], ("Prefer", "wait=0")]).await;
    assert_eq!((again.status, again.id()), (202, first.id()), "{again:?}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let waiting = rig.submit_with(&body, KEY);
    let release = async {
        bank_a.hears(Kind::Prepare, 1).await;
        bank_a.release();
    };
    let (settled, ()) = tokio::join!(waiting, release);
    assert_eq!((settled.status, settled.id()), (200, first.id()), "{settled:?}");
    assert_eq!(settled.header("idempotent-replayed"), Some("true"));
    assert_eq!(bank_a.count(Kind::Prepare), 1);
}

#[tokio::test]
async fn a_committed_transaction_is_finished_and_replayed_after_a_restart() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.always(Kind::Commit, Say::BadGateway);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let body = transfer(&["bank-a", "bank-b"]);
    let first = rig.submit_with(&body, &[KEY[0], ("Prefer", "wait=0")]).await;
    let id = first.id();
    rig.until(id, |view| view["branches"][1]["tries"].as_u64() > Some(0)).await;
    rig.restart().await;
    let decided = rig.get(&format!("/v1/transactions/{id}")).await;
    assert_eq!(
        (&decided.body["outcome"], &decided.body["state"]),
        (&json!("committed"), &json!("committing"))
    );
    bank_b.always(Kind::Commit, Say::Good);
    let again = rig.submit_with(&body, KEY).await;
    assert_eq!((again.status, again.id()), (200, id), "{again:?}");
    assert_eq!(again.body["applied"], true);
    assert_eq!(again.body["branches"][0]["replies"], json!([70]));
}

#[tokio::test]
async fn without_key_or_id_every_request_is_a_transaction() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    let (first, second) = (rig.submit(&body).await, rig.submit(&body).await);
    assert_ne!(first.id(), second.id());
    bank.next(Kind::Prepare, [Say::No(ErrorCode::WrongType)]);
    assert_eq!(rig.submit(&body).await.status, 422);
}

/// A client that builds its body anew for a retry must hear of the first one, not be told to take a
/// new key, by which it would run twice.
#[tokio::test]
async fn the_same_request_in_other_bytes_is_a_retry() {
    let bank = Fake::start().await;
    let mut rig = Rig::start(&[("bank-a", &bank)]).await;
    let id = Uuid::now_v7().to_string();
    let with_id = format!(
        r#"{{"id":"{id}","branches":[{{"participant":"bank-a","ops":[{{"cmd":["DECRBY","k",30]}}]}}]}}"#
    );
    let plain =
        r#"{"branches":[{"participant":"bank-a","ops":[{"cmd":["DECRBY","k",30]}]}]}"#.to_owned();
    for (body, key) in [(plain, Some("order-18")), (with_id, None)] {
        let submit = async |rig: &Rig, body: String| {
            let request = rig
                .request(Method::POST, "/v1/transactions")
                .header("content-type", "application/json")
                .body(body);
            said(key.into_iter().fold(request, |to, key| to.header("idempotency-key", key))).await
        };
        let again = [
            format!("{body}\n"),
            body.replace(':', " : "),
            body.replace(r#"{"participant":"bank-a","#, "{")
                .replace("]}]}]}", r#"]}],"participant":"bank-a"}]}"#),
            body.replacen('{', r#"{"timeout":"5s","ack":"applied","#, 1),
            body.replace("\"k\",30", r#""k","30""#),
            body.replace("DECRBY", "decrby"),
        ];
        let others = [
            body.replacen('{', r#"{"timeout":"6s","#, 1),
            body.replacen('{', r#"{"name":"x","#, 1),
            body.replace("\"k\",30", r#""k",31"#),
        ];
        let first = submit(&rig, body.clone()).await;
        assert_eq!(first.status, 200, "{first:?}");
        let prepares = bank.count(Kind::Prepare);
        for restarted in [false, true] {
            if restarted {
                rig.restart().await;
            }
            for body in &again {
                is_replay_of(&submit(&rig, body.clone()).await, &first);
            }
            for body in &others {
                submit(&rig, body.clone()).await.is_problem("idempotency_mismatch");
            }
        }
        assert_eq!(bank.count(Kind::Prepare), prepares, "nothing is run twice");
    }
}
