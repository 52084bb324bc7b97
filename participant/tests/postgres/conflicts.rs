//! What is said of a conflict: who holds the lock, and whether it is worth trying again.

use std::sync::Arc;

use assent_common::ErrorCode;
use assent_common::wire::branch::{Answer, VoteWord};
use serde_json::{Value, json};

use crate::harness::{Agent, Server, abort, add, id, no, prepare, txid, until};

/// The conflict of a branch that wants an account which something holds. Who holds it is seen while
/// the statement waits, so on a busy machine not at each try.
async fn conflict(agent: &Agent, n: u64, account: i32) -> (Answer, String) {
    let mut tries = n * 1_000..;
    until("a conflict names who holds the lock", || {
        let n = tries.next().unwrap();
        async move {
            let answer = agent.tell(prepare(n, add(account, -1))).await;
            assert_eq!((no(&answer), answer.op), (ErrorCode::LockConflict, Some(0)), "{answer:?}");
            let detail = answer.detail.clone().unwrap();
            detail.contains("is locked by").then_some((answer, detail))
        }
    })
    .await
}

/// An update, and a statement that takes as long as the test wants.
fn update_and_sleep(account: i32, seconds: f64) -> Value {
    let update = &add(account, -1)[0];
    json!([update, {"sql": "SELECT 1 FROM pg_sleep($1)", "params": [seconds]}])
}

/// Promise *honest*: a conflict names the transaction that holds the lock, prepared or running; and
/// if it is nobody of Assent, the session or the prepared transaction of others.
#[tokio::test]
async fn a_conflict_names_who_holds_the_lock() {
    let server = Server::start().await;
    let agent = Arc::new(Agent::start(&server).await);
    agent.tell(prepare(1, add(1, -1))).await;
    let (answer, said) = conflict(&agent, 2, 1).await;
    let holder = answer.holder.unwrap();
    assert_eq!((holder.id, holder.txid, &*holder.key), (id(1), txid(1), "a row of acct"));
    assert!(said.contains(&format!("a row of acct is locked by transaction {}", id(1))), "{said}");

    // One that still runs has no vote yet.
    let runs = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.tell(prepare(3, update_and_sleep(2, 1.5))).await }
    });
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("it sleeps", async || (server.number(asleep).await == 1).then_some(())).await;
    let (answer, _) = conflict(&agent, 4, 2).await;
    assert_eq!(answer.holder.unwrap().id, id(3));
    assert_eq!(runs.await.unwrap().vote, Some(VoteWord::Yes));

    let other = server.client().await;
    other.batch_execute("BEGIN; UPDATE acct SET balance = 1 WHERE id = 5").await.unwrap();
    let (answer, said) = conflict(&agent, 5, 5).await;
    assert!(answer.holder.is_none() && said.contains("of user app"), "{said}");
    other.batch_execute("PREPARE TRANSACTION 'theirs'").await.unwrap();
    let (answer, said) = conflict(&agent, 6, 5).await;
    assert!(answer.holder.is_none(), "{answer:?}");
    assert!(said.contains("the prepared transaction 'theirs'"), "{said}");
    server.run("ROLLBACK PREPARED 'theirs'").await;
    // Which what is prepared would hold up.
    agent.say(vec![abort(1), abort(3)]).await;
    other.batch_execute("BEGIN; LOCK TABLE acct").await.unwrap();
    let (_, said) = conflict(&agent, 7, 6).await;
    assert!(said.contains("a row of acct is locked by session"), "{said}");
    other.batch_execute("ROLLBACK").await.unwrap();
}

/// A circle inside of one database ends at once, by either of two ends, and can be tried again.
#[tokio::test]
async fn a_deadlock_is_a_conflict() {
    let server = Server::with(["deadlock_timeout=5ms"]).await;
    let agent = Arc::new(Agent::start(&server).await);
    let both = |first: i32, second: i32| {
        let [one, two] = [first, second].map(|id| add(id, -1)[0].clone());
        json!([one, {"sql": "SELECT 1 FROM pg_sleep(0.3)"}, two])
    };
    let answers = agent.say(vec![prepare(1, both(1, 2)), prepare(2, both(2, 1))]).await;
    let codes: Vec<_> = answers.iter().filter_map(|answer| answer.code).collect();
    assert!(!codes.is_empty(), "{answers:?}");
    assert!(codes.iter().all(|code| *code == ErrorCode::LockConflict), "{answers:?}");
    agent.say(vec![abort(1), abort(2)]).await;
}

/// A statement that is too long is no use to try again; one that somebody has cancelled is.
#[tokio::test]
async fn a_statement_that_is_cancelled_is_not_taken_for_one_that_is_too_long() {
    let server = Server::start().await;
    let agent = Arc::new(Agent::start(&server).await);
    let told = agent.tell(prepare(1, update_and_sleep(1, 60.0))).await;
    assert_eq!((no(&told), told.op), (ErrorCode::TooMuchWork, Some(1)), "{told:?}");
    let runs = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.tell(prepare(2, update_and_sleep(1, 60.0))).await }
    });
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
         WHERE wait_event = 'PgSleep'";
    until("it is cancelled", async || (server.number(cancel).await > 0).then_some(())).await;
    let told = runs.await.unwrap();
    assert_eq!((no(&told), told.op), (ErrorCode::PostgresUnavailable, Some(1)), "{told:?}");
    assert!(told.detail.unwrap().contains("somebody has cancelled"));
}
