//! Running transactions: what the client hears of each way that one can go.

use assent_client::SubmitError;
use assent_common::wire::problem::OutcomeWord;
use assent_common::{ErrorCode, TxNumber, Txid, limits};
use assent_coordinator::CoordinatorOptions;
use futures_util::future::join_all;
use serde_json::json;

use super::fake::{Fake, Kind, Say};
use super::rig::{Rig, transfer};

#[tokio::test]
async fn one_branch_commits_in_one_phase() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let said = rig.submit(&transfer(&["bank-a"])).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(said.header("content-type"), Some("application/json"));
    assert_eq!(said.header("idempotent-replayed"), None);
    assert_eq!(said.body["outcome"], "committed");
    assert_eq!(said.body["applied"], true);
    assert_eq!(said.body["name"], "transfer");
    let branch = json!({"participant": "bank-a", "state": "applied", "replies": [70]});
    assert_eq!(said.body["branches"], json!([branch]));
    assert!(said.body["decided_at"].is_string());
    assert_eq!((bank.count(Kind::Prepare), bank.count(Kind::Commit)), (1, 0));
}

#[tokio::test]
async fn two_branches_commit_and_their_ops_arrive_as_sent() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let body = r#"{"branches":[
        {"participant":"bank-a","ops":[{"cmd":["DECRBY","acct:alice",30],"expect":{"ge":0}}]},
        {"participant":"bank-b","ops":[ {"cmd":["INCRBY","acct:bob",30.0e0e]} ]}]}"#
        .replace("30.0e0e", "30");
    let request = rig.request(reqwest::Method::POST, "/v1/transactions");
    let request = request.header("content-type", "application/json; charset=utf-8").body(body);
    let said = super::rig::said(request).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(said.body["applied"], true);
    let names: Vec<_> =
        said.body["branches"].as_array().unwrap().iter().map(|b| &b["participant"]).collect();
    assert_eq!(names, ["bank-a", "bank-b"]);
    let (at_a, at_b) = (bank_a.heard(), bank_b.heard());
    assert_eq!(
        at_a[0].ops.as_deref(),
        Some(r#"[{"cmd":["DECRBY","acct:alice",30],"expect":{"ge":0}}]"#)
    );
    assert_eq!(at_b[0].ops.as_deref(), Some(r#"[ {"cmd":["INCRBY","acct:bob",30]} ]"#));
    assert_eq!(at_a[0].txid, at_b[0].txid);
    assert_eq!((bank_a.count(Kind::Commit), bank_b.count(Kind::Commit)), (1, 1));
}

#[tokio::test]
async fn large_branches_travel_in_several_batches() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Hold]);
    // In the rig's own small segments such a branch has no room.
    let segment_bytes = assent_coordinator::log::SEGMENT_BYTES_DEFAULT;
    let adjust = |options: &mut CoordinatorOptions| options.segment_bytes = segment_bytes;
    let rig = Rig::start_with(&[("bank-a", &bank)], adjust).await;
    // While the first is held, the others queue: no two of them fit into one batch, and the last one into none.
    let most = limits::BATCH_OPS_BYTES_MAX;
    let values = ["x".to_owned(), "x".repeat(most * 3 / 5), "x".repeat(most * 3 / 5)];
    // As JSON, six bytes for one.
    let escaped = "\u{1}".repeat(most * 11 / 10 / 6);
    let bodies = values.into_iter().chain([escaped]).map(|value| {
        let ops = json!([{"cmd": ["SET", "blob", value]}]);
        json!({"branches": [{"participant": "bank-a", "ops": ops}], "timeout": "30s"})
    });
    let bodies: Vec<_> = bodies.collect();
    let first = rig.submit(&bodies[0]);
    let rest = async {
        bank.hears(Kind::Prepare, 1).await;
        let submitted = join_all(bodies[1..].iter().map(|body| rig.submit(body)));
        let taken = async {
            rig.active(bodies.len()).await;
            bank.release();
        };
        tokio::join!(submitted, taken).0
    };
    let (first, rest) = tokio::join!(first, rest);
    for said in rest.iter().chain([&first]) {
        assert_eq!(said.status, 200, "{:?}", said.body["code"]);
    }
    let batches = bank.batch_bytes();
    let larger = batches.iter().filter(|bytes| **bytes > most).count();
    // The first one says which life speaks.
    assert_eq!((batches.len(), larger), (5, 1), "{batches:?}");
}

#[tokio::test]
async fn a_batch_that_hangs_holds_up_nobody_else() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Silence]);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let hung = rig.submit_with(&transfer(&["bank-a"]), &[("Prefer", "respond-async")]).await;
    assert_eq!(hung.status, 202, "{hung:?}");
    bank.hears(Kind::Prepare, 1).await;
    let said = rig.submit(&transfer(&["bank-a"])).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(said.body["applied"], true);
}

#[tokio::test]
async fn ack_decided_answers_before_the_branches_have_applied() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.next(Kind::Commit, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["ack"] = json!("decided");
    let said = rig.submit(&body).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(said.body["outcome"], "committed");
    assert_eq!(said.body["applied"], false);
    assert_eq!(said.body["branches"][1]["state"], "committing");
    bank_b.release();
    let ended = rig.ended(said.id()).await;
    assert_eq!(ended["applied"], true);
    assert_eq!(ended["branches"][1]["state"], "applied");
}

#[tokio::test]
async fn a_wait_that_ends_after_the_decision_says_committed_and_not_yet_applied() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.next(Kind::Commit, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let said = rig.submit_with(&transfer(&["bank-a", "bank-b"]), &[("Prefer", "wait=1")]).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(
        (&said.body["outcome"], &said.body["applied"]),
        (&json!("committed"), &json!(false))
    );
    bank_b.release();
}

#[tokio::test]
async fn an_abort_is_a_problem_with_the_status_of_its_code() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let codes = [
        ErrorCode::ExpectationFailed,
        ErrorCode::WrongType,
        ErrorCode::NotAnInteger,
        ErrorCode::Overflow,
        ErrorCode::RedisOutOfMemory,
        ErrorCode::Quarantined,
    ];
    for code in codes {
        bank_b.next(Kind::Prepare, [Say::No(code)]);
        let said = rig.submit(&transfer(&["bank-a", "bank-b"])).await;
        said.is_problem(code.as_str());
        assert_eq!(said.body["outcome"], "aborted", "{said:?}");
        assert_eq!(said.body["participant"], "bank-b");
        assert_eq!(said.body["op"], 0);
        assert_eq!(said.header("retry-after").is_some(), code.status() == 503, "{said:?}");
        let view = rig.get(&format!("/v1/transactions/{}", said.id())).await;
        assert_eq!((view.status, &view.body["outcome"]), (200, &json!("aborted")));
        assert_eq!(view.body["error"]["code"], code.as_str());
    }
}

#[tokio::test]
async fn a_false_expectation_carries_the_reply_that_was_met() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Met("-5")]);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let said = rig.submit(&transfer(&["bank-a"])).await;
    said.is_problem("expectation_failed");
    assert_eq!(said.body["reply"], -5);
}

#[tokio::test]
async fn a_participant_that_cannot_be_reached_aborts_at_the_timeout() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.always(Kind::Prepare, Say::BadGateway);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["timeout"] = json!("200ms");
    let said = rig.submit(&body).await;
    said.is_problem("participant_unreachable");
    assert_eq!(said.body["outcome"], "aborted");
    assert_eq!(said.body["participant"], "bank-b");
    assert!(said.body["detail"].as_str().unwrap().starts_with("participant bank-b: "), "{said:?}");
    assert_eq!(said.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_silent_participant_aborts_at_the_timeout_too() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.next(Kind::Prepare, [Say::Silence]);
    let rig = Rig::start_with(&[("bank-a", &bank_a), ("bank-b", &bank_b)], |options| {
        options.request_timeout_ms = 300;
    })
    .await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["timeout"] = json!("100ms");
    let said = rig.submit(&body).await;
    assert_eq!((said.status, &said.body["outcome"]), (409, &json!("aborted")), "{said:?}");
    said.is_problem("timeout");
    assert!(said.body["detail"].as_str().unwrap().starts_with("participant bank-b: "), "{said:?}");
    assert_eq!(rig.ended(said.id()).await["branches"][1]["state"], "aborted");
}

#[tokio::test]
async fn a_wait_that_ends_first_is_told_where_to_ask() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let said =
        rig.submit_with(&transfer(&["bank-a", "bank-b"]), &[("Prefer", "respond-async")]).await;
    assert_eq!(said.status, 202, "{said:?}");
    assert_eq!(said.body["outcome"], "pending");
    assert_eq!(said.body["state"], "preparing");
    assert_eq!(said.header("retry-after"), Some("1"));
    let location = said.header("location").unwrap();
    assert_eq!(location, format!("/v1/transactions/{}", said.id()));
    bank_a.hears(Kind::Prepare, 1).await;
    let path = format!("{location}?wait=10s");
    let waiting = rig.get(&path);
    bank_a.release();
    let settled = waiting.await;
    assert_eq!((settled.status, &settled.body["outcome"]), (200, &json!("committed")));
    assert_eq!(settled.body["applied"], true);
}

#[tokio::test]
async fn a_conflict_is_tried_again_until_it_commits() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b
        .next(Kind::Prepare, [Say::No(ErrorCode::LockConflict), Say::No(ErrorCode::LockConflict)]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let said = rig.submit(&transfer(&["bank-a", "bank-b"])).await;
    assert_eq!((said.status, &said.body["attempt"]), (200, &json!(2)), "{said:?}");
    let attempts: Vec<u32> = bank_b
        .heard()
        .iter()
        .filter(|heard| heard.kind == Kind::Prepare)
        .map(|heard| heard.txid.attempt.0)
        .collect();
    assert_eq!(attempts, [0, 1, 2]);
}

#[tokio::test]
async fn a_conflict_that_lasts_aborts_at_the_timeout() {
    let bank = Fake::start().await;
    bank.always(Kind::Prepare, Say::No(ErrorCode::LockConflict));
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let mut body = transfer(&["bank-a"]);
    body["timeout"] = json!("50ms");
    let said = rig.submit(&body).await;
    assert_eq!((said.status, &said.body["outcome"]), (409, &json!("aborted")), "{said:?}");
    // Whether the deadline falls between two attempts or into one.
    let code = said.body["code"].as_str().unwrap();
    assert!(["lock_conflict", "timeout"].contains(&code), "{said:?}");
}

/// Who reads of a conflict must not have to look the holder up: it may have ended by then. Of one
/// that is not known it is not said that it has: its branch may be in doubt at the participant.
#[tokio::test]
async fn a_conflict_tells_the_holders_name_and_age_where_they_are_known() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.always(Kind::Prepare, Say::Hold);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let mut named = transfer(&["bank-a"]);
    named["name"] = json!("the \"nightly\" batch");
    let said = rig.submit_with(&named, &[("Prefer", "respond-async")]).await;
    assert_eq!(said.status, 202, "{said:?}");
    let ours = bank_a.hears(Kind::Prepare, 1).await.txid;
    let ended = Txid { number: TxNumber { n: ours.number.n + 1_000, ..ours.number }, ..ours };
    let theirs = Txid { log_id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap(), ..ours };
    for (holder, told) in [
        (ours, r#"named "the \"nightly\" batch" and began 0."#),
        (ended, "is not known to this coordinator any more: the participant holds the key"),
        (theirs, "log id 0198f1c2a4b27c1d9c0e3f4a5b6c7d8e: its name is not known here"),
    ] {
        bank_b.always(Kind::Prepare, Say::HeldBy(holder));
        let mut body = transfer(&["bank-b"]);
        body["timeout"] = json!("50ms");
        let said = rig.submit(&body).await;
        said.is_problem("lock_conflict");
        assert!(said.body["detail"].as_str().unwrap().contains(told), "{said:?}");
    }
    bank_a.release();
}

#[tokio::test]
async fn an_older_transaction_waits_for_a_younger_holder() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_b.next(Kind::Prepare, [Say::Wait]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let said = rig.submit(&transfer(&["bank-a", "bank-b"])).await;
    assert_eq!((said.status, &said.body["attempt"]), (200, &json!(0)), "{said:?}");
    assert_eq!(bank_b.count(Kind::Prepare), 2);
}

#[tokio::test]
async fn a_lost_answer_in_one_phase_is_asked_for() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Unknown]);
    bank.always(Kind::Prepare, Say::BadGateway);
    bank.next(Kind::Abort, [Say::AlreadyCommitted]);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let mut body = transfer(&["bank-a"]);
    body["timeout"] = json!("300ms");
    let said = rig.submit(&body).await;
    assert_eq!((said.status, &said.body["outcome"]), (200, &json!("committed")), "{said:?}");
    assert_eq!(said.body["branches"][0]["replies"], json!([70]));
}

#[tokio::test]
async fn the_sdk_understands_every_outcome() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let client = rig.client();
    let request = || serde_json::from_value(transfer(&["bank-a"])).unwrap();
    let view = client.submit(&request(), None, None).await.unwrap();
    assert_eq!(view.outcome, OutcomeWord::Committed);
    bank.next(Kind::Prepare, [Say::No(ErrorCode::WrongType)]);
    match client.submit(&request(), None, None).await {
        Err(SubmitError::Aborted(problem)) => assert_eq!(problem.code, ErrorCode::WrongType),
        other => panic!("{other:?}"),
    }
    let nobody = serde_json::from_value(transfer(&["nobody"])).unwrap();
    match client.submit(&nobody, None, None).await {
        Err(SubmitError::Rejected(problem)) => {
            assert_eq!(problem.code, ErrorCode::UnknownParticipant);
        }
        other => panic!("{other:?}"),
    }
}
