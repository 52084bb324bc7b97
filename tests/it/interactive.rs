//! Interactive transactions on real processes: what is read is still so when it is committed, or
//! nothing is done.

use std::time::Duration;

use assent_client::interactive::op;
use assent_client::{Interactive, Transaction, TransactionError};
use assent_common::time::DurationMs;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::TransactionState;
use assent_common::{ErrorCode, TransactionId};
use assent_tests::cluster::restart;
use assent_tests::{Cluster, Options, plain, wait_for, wait_settled};
use serde_json::{Value, json};

use crate::ASSENT;

async fn cluster() -> Cluster {
    Cluster::start(ASSENT, Options::default()).await
}

async fn run(cluster: &Cluster, peer: usize, line: &str) -> redis::Value {
    let words: Vec<&str> = line.split(' ').collect();
    plain::run(&cluster.peers[peer].redis, &words).await
}

async fn found(cluster: &Cluster, peer: usize, key: &str) -> Option<String> {
    plain::run(&cluster.peers[peer].redis, &["GET", key]).await
}

fn refused(error: TransactionError) -> Problem {
    match &error {
        TransactionError::Rejected(_) => error.problem().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

fn aborted(error: TransactionError) -> Problem {
    match &error {
        TransactionError::Aborted(_) => error.problem().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

/// Both participants, by what was read at both: the promise of the README, in the other order.
#[tokio::test]
async fn what_is_read_decides_what_is_written_at_both_participants() {
    let cluster = cluster().await;
    run(&cluster, 0, "SET alice 100").await;
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    let read =
        tx.ops([op("bank-a", ["GET", "alice"]), op("bank-b", ["GET", "bob"])]).await.unwrap();
    assert_eq!(read, [json!("100"), Value::Null]);
    let staged = [
        op("bank-a", ["DECRBY", "alice", "30"]),
        op("bank-b", ["INCRBY", "bob", "30"]),
        op("bank-b", ["RPUSH", "log", "alice"]),
    ];
    assert_eq!(tx.ops(staged).await.unwrap(), [json!(70), json!(30), json!(1)]);
    let again = [op("bank-a", ["GET", "alice"]), op("bank-b", ["LRANGE", "log", "0", "-1"])];
    let seen = tx.ops(again).await.unwrap();
    assert_eq!(seen, [json!("70"), json!(["alice"])], "what was staged is in view");
    assert_eq!(found(&cluster, 0, "alice").await.as_deref(), Some("100"), "to nobody else");
    let active = cluster.api.transaction(tx.id(), None).await.unwrap();
    assert_eq!((active.outcome, active.state), (OutcomeWord::Pending, TransactionState::Active));
    let view = tx.commit(None).await.unwrap().view;
    assert_eq!((view.outcome, view.applied), (OutcomeWord::Committed, Some(true)));
    assert_eq!(tx.commit(None).await.unwrap().id(), view.id, "said again, it is the same");
    wait_settled(&cluster).await;
    assert_eq!(found(&cluster, 0, "alice").await.as_deref(), Some("70"));
    assert_eq!(found(&cluster, 1, "bob").await.as_deref(), Some("30"));
    let late = tx.ops([op("bank-a", ["GET", "alice"])]).await.unwrap_err();
    assert_eq!((late.code(), late.id()), (Some("wrong_state"), Some(view.id)));
    assert_eq!(late.problem().unwrap().outcome, Some(OutcomeWord::Committed));
}

/// Promise: who comes in between is never written over, whatever he did.
#[tokio::test]
async fn a_lost_race_is_read_changed_and_does_nothing() {
    let cluster = cluster().await;
    for (place, change) in
        ["INCR n", "DEL n", "SET none 1", "PEXPIRE n 1000000", "SADD set 4"].iter().enumerate()
    {
        run(&cluster, 0, "SET n 1").await;
        run(&cluster, 0, "DEL none").await;
        run(&cluster, 0, "SADD set 1 2 3").await;
        run(&cluster, 0, "SREM set 4").await;
        let mut tx = Interactive::begin(&cluster.api).await.unwrap();
        let reads = [["GET", "n"], ["GET", "none"], ["SMEMBERS", "set"]];
        tx.ops(reads.map(|words| op("bank-a", words))).await.unwrap();
        tx.ops([op("bank-b", ["SET", "done", &place.to_string()])]).await.unwrap();
        run(&cluster, 0, change).await;
        let problem = aborted(tx.commit(None).await.unwrap_err());
        assert_eq!(problem.code, ErrorCode::ReadChanged, "{change}: {}", problem.detail);
        assert_eq!(problem.participant.as_deref(), Some("bank-a"));
        let key = change.split(' ').nth(1).unwrap();
        assert!(problem.detail.contains(key), "{change}: {}", problem.detail);
        let told = aborted(tx.commit(None).await.unwrap_err());
        assert_eq!(told.code, ErrorCode::ReadChanged, "said again, it is the same");
    }
    assert_eq!(found(&cluster, 1, "done").await, None);
    // A call finds it out as well: all that one participant has said is of one state.
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    tx.ops([op("bank-a", ["GET", "n"])]).await.unwrap();
    run(&cluster, 0, "SET n other").await;
    let problem = aborted(tx.ops([op("bank-a", ["GET", "m"])]).await.unwrap_err());
    assert_eq!(problem.code, ErrorCode::ReadChanged);
    let view = cluster.api.transaction(tx.id(), None).await.unwrap();
    assert_eq!(view.outcome, OutcomeWord::Aborted);
    let counted = cluster.admin().metrics().await.unwrap();
    for series in [
        "assent_interactive_transactions 0",
        "assent_interactive_transactions_max 1000",
        "assent_interactive_ended_total{how=\"read_changed\"} 1",
        "assent_interactive_ended_total{how=\"expired\"} 0",
    ] {
        assert!(counted.lines().any(|line| line == series), "{series} is missing in {counted}");
    }
}

/// Promise: a key that expires has changed.
#[tokio::test]
async fn a_key_that_expires_has_changed() {
    let cluster = cluster().await;
    run(&cluster, 0, "SET k v PX 400").await;
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    tx.ops([op("bank-a", ["EXISTS", "k"]), op("bank-b", ["SET", "k", "v"])]).await.unwrap();
    wait_for("the key to expire", || async {
        found(&cluster, 0, "k").await.map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    assert_eq!(aborted(tx.commit(None).await.unwrap_err()).code, ErrorCode::ReadChanged);
    assert_eq!(found(&cluster, 1, "k").await, None);
}

/// Promise: nothing is locked before the commit.
#[tokio::test]
async fn others_go_on_while_it_is_active() {
    let cluster = cluster().await;
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    tx.ops([op("bank-a", ["INCR", "n"])]).await.unwrap();
    let other = Transaction::new().branch("bank-a", |ops| ops.op(["INCR", "m"]).op(["GET", "n"]));
    let other = other.timeout(DurationMs(2_000)).build().unwrap();
    cluster.api.submit(&other, None, None).await.unwrap();
    tx.commit(None).await.unwrap();
    assert_eq!(found(&cluster, 0, "n").await.as_deref(), Some("1"));
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    tx.abort().await.unwrap();
    tx.abort().await.unwrap();
    let view = cluster.api.transaction(tx.id(), None).await.unwrap();
    assert_eq!(view.error.unwrap().code, ErrorCode::Cancelled);
}

/// Promise: a participant that does not answer costs a call, and nothing else.
#[tokio::test]
async fn a_call_that_meets_a_participant_that_is_down_comes_again() {
    let mut cluster = cluster().await;
    let mut tx = Interactive::begin(&cluster.api).await.unwrap();
    tx.ops([op("bank-a", ["INCR", "n"])]).await.unwrap();
    cluster.peers[1].agent.kill9();
    let both = || [op("bank-a", ["INCR", "n"]), op("bank-b", ["INCR", "n"])];
    let problem = refused(tx.ops(both()).await.unwrap_err());
    assert_eq!((problem.code, problem.outcome), (ErrorCode::ParticipantUnreachable, None));
    assert_eq!(problem.participant.as_deref(), Some("bank-b"));
    restart(&mut cluster.peers[1].agent).await;
    assert_eq!(tx.ops(both()).await.unwrap(), [json!(2), json!(1)], "it was not done before");
    tx.commit(None).await.unwrap();
    assert_eq!(found(&cluster, 0, "n").await.as_deref(), Some("2"));
}

/// Promise: after a restart nothing is made up: what is committed is known, and nothing else.
#[tokio::test]
async fn a_restart_of_the_coordinator_forgets_what_was_not_committed() {
    let mut cluster = cluster().await;
    let mut kept = Interactive::begin(&cluster.api).await.unwrap();
    kept.ops([op("bank-a", ["INCR", "n"])]).await.unwrap();
    kept.commit(None).await.unwrap();
    let mut lost = Interactive::begin(&cluster.api).await.unwrap();
    lost.ops([op("bank-a", ["INCR", "n"])]).await.unwrap();
    cluster.coordinator.kill9();
    restart(&mut cluster.coordinator).await;
    kept.commit(None).await.unwrap();
    let unknown = refused(lost.commit(None).await.unwrap_err());
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let late = refused(lost.ops([op("bank-a", ["GET", "n"])]).await.unwrap_err());
    assert_eq!(late.code, ErrorCode::NotFound);
    assert_eq!(found(&cluster, 0, "n").await.as_deref(), Some("1"));
}

/// Promise: many who read, decide and write at once lose nothing.
#[tokio::test]
async fn no_update_is_lost() {
    const CLIENTS: usize = 5;
    const ROUNDS: usize = 8;
    let cluster = cluster().await;
    let add = async || {
        let (mut left, mut lost) = (ROUNDS, 0);
        while left > 0 {
            let mut tx = Interactive::begin(&cluster.api).await.unwrap();
            let reads = [op("bank-a", ["GET", "n"]), op("bank-b", ["GET", "n"])];
            let Ok(read) = tx.ops(reads).await else { panic!("a first call meets no change") };
            let next = |value: &Value| {
                (value.as_str().map_or(0, |text| text.parse::<i64>().unwrap()) + 1).to_string()
            };
            let (a, b) = (next(&read[0]), next(&read[1]));
            let writes = [op("bank-a", ["SET", "n", &a]), op("bank-b", ["SET", "n", &b])];
            match tx.ops(writes).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(aborted(error).code, ErrorCode::ReadChanged);
                    lost += 1;
                    continue;
                }
            }
            match tx.commit(None).await {
                Ok(_) => left -= 1,
                Err(error) => {
                    let code = aborted(error).code;
                    assert!(matches!(code, ErrorCode::ReadChanged | ErrorCode::LockConflict));
                    lost += 1;
                }
            }
        }
        lost
    };
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| add()));
    let lost: usize = clients.await.into_iter().sum();
    assert!(lost > 0, "nobody has lost a race");
    wait_settled(&cluster).await;
    let sum = (CLIENTS * ROUNDS).to_string();
    assert_eq!(found(&cluster, 0, "n").await, Some(sum.clone()));
    assert_eq!(found(&cluster, 1, "n").await, Some(sum));
}

/// Promise: what is wrong is named, by whatever client says it.
#[tokio::test]
async fn what_is_no_interactive_transaction_is_refused_by_name() {
    let cluster = cluster().await;
    let url = format!("{}/v1/transactions", cluster.coordinator.url());
    let http = reqwest::Client::new();
    let post = async |path: &str, body: &str, key: Option<&str>| {
        let mut request = http.post(format!("{url}{path}")).body(body.to_owned());
        request = request.header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.timeout(Duration::from_secs(20)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (status, begun) = post("", "{}", None).await;
    assert_eq!((status, begun["outcome"].as_str()), (201, Some("active")));
    let id: TransactionId = begun["id"].as_str().unwrap().parse().unwrap();
    assert!(begun["expires_at"].is_string() && begun["ends_at"].is_string(), "{begun}");
    for (path, body, key, code) in [
        ("", r#"{"branches":[]}"#, None, "bad_request"),
        ("", "{}", Some("k"), "bad_request"),
        ("", r#"{"name":""}"#, None, "bad_request"),
        ("/ID/ops", r#"{"ops":[]}"#, None, "bad_request"),
        ("/ID/ops", r#"{"seq":7,"ops":[]}"#, None, "wrong_state"),
        (
            "/ID/ops",
            r#"{"seq":1,"ops":[{"participant":"nobody","cmd":["GET","k"]}]}"#,
            None,
            "unknown_participant",
        ),
        (
            "/ID/ops",
            r#"{"seq":1,"ops":[{"participant":"bank-a","cmd":["KEYS","*"]}]}"#,
            None,
            "unsupported_command",
        ),
        (
            "/ID/ops",
            r#"{"seq":1,"ops":[{"participant":"bank-a","cmd":["GET","assent:ctl"]}]}"#,
            None,
            "bad_arguments",
        ),
        ("/ID/commit", "", None, "wrong_state"),
    ] {
        let (status, problem) = post(&path.replace("ID", &id.to_string()), body, key).await;
        assert_eq!(problem["code"], code, "{path} {body}: {status} {problem}");
    }
    let ops =
        r#"{"seq":1,"ops":[{"participant":"bank-a","cmd":["SADD","s",1],"expect":{"eq":1}}]}"#;
    for _ in 0..2 {
        let (status, staged) = post(&format!("/{id}/ops"), ops, None).await;
        assert_eq!((status, &staged["replies"], &staged["seq"]), (200, &json!([1]), &json!(1)));
    }
    let (status, committed) = post(&format!("/{id}/commit"), "", None).await;
    assert_eq!((status, committed["outcome"].as_str()), (200, Some("committed")), "{committed}");
}
