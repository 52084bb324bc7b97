//! Branches in doubt that ask, and data that is not what it was.

use std::future::IntoFuture as _;

use assent_client::CallError;
use assent_common::ErrorCode;
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::branch::{Batch, BranchState, StateWord, VoteWord};
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, RedoBranch, Resync};
use axum::Router;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use tokio::net::TcpListener;

use crate::harness::{
    Agent, LOG, NAME, Server, add, batch, batch_of, commit, no, prepare, txid, until,
};

/// A coordinator of which even transactions are committed, and odd ones are not.
async fn judge() -> String {
    let router = Router::new().fallback(|uri: Uri| async move {
        let txid = uri.path().split('/').nth(3).unwrap_or_default().to_owned();
        let n: u64 = txid.split('.').nth(2).and_then(|n| n.parse().ok()).unwrap_or_default();
        let outcome = if n.is_multiple_of(2) { "committed" } else { "aborted" };
        let body = format!(r#"{{"txid":"{txid}","log_id":"{LOG}","outcome":"{outcome}"}}"#);
        ([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// Promise *finishing*: a branch that hears nothing asks, also by an agent that was started since.
#[tokio::test]
async fn a_branch_in_doubt_asks_and_is_ended() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let url = judge().await;
    let votes = batch_of(&url, vec![prepare(1, add(1, -1)), prepare(2, add(2, -1))]);
    agent.say_all(votes).await;
    let listed = agent.client.branches(BranchState::Prepared).await.unwrap();
    assert_eq!(listed.branches.len(), 2);
    agent.stop().await;
    let agent = Agent::with(&server, |options| options.resolve_interval_ms = 200).await;
    until("both are ended", async || (server.prepared().await == 0).then_some(())).await;
    assert_eq!((server.balance(1).await, server.balance(2).await), (100, 99));
    assert_eq!(agent.state(1).await, Some(BranchState::Aborted));
    assert_eq!(agent.state(2).await, Some(BranchState::Applied));
}

/// Invariant 12: data with fewer votes than a coordinator has heard is not served, by any agent.
#[tokio::test]
async fn a_backup_that_was_put_back_is_fenced() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let voted = agent.tell(prepare(1, add(1, -1))).await;
    assert_eq!(voted.vote, Some(VoteWord::Yes));
    let incarnation = voted.incarnation.unwrap();
    let known = Some(DataPoint { incarnation, seq: voted.seq.unwrap() + 5 });
    let batch = Batch { known, ..batch(vec![commit(1), prepare(2, add(2, -1))]) };
    let refused = agent.say_all(batch).await;
    assert!(refused.iter().all(|it| it.code == Some(ErrorCode::Quarantined)), "{refused:?}");
    let other = Agent::start(&server).await;
    assert_eq!(no(&other.tell(prepare(3, add(3, -1))).await), ErrorCode::Quarantined);
    assert_eq!((server.balance(1).await, server.prepared().await), (100, 1));
    let view = other.client.data().await.unwrap();
    assert!(view.fenced && view.staged.len() == 1 && !view.owed.is_empty(), "{view:?}");
}

/// Promise *honest*: what a log has committed and the data lacks is named, and it opens again only
/// when nothing is missing, or a person has seen to it.
#[tokio::test]
async fn fenced_data_opens_when_nothing_that_was_committed_is_missing() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let votes = agent.say(vec![prepare(1, add(1, -1)), prepare(2, add(2, -1))]).await;
    agent.tell(commit(1)).await;
    let incarnation = votes[0].incarnation.unwrap();
    let known = DataPoint { incarnation, seq: votes[1].seq.unwrap() + 5 };
    let fences = || async {
        let batch = Batch { known: Some(known), ..batch(vec![commit(9)]) };
        let refused = agent.say_all(batch).await;
        assert_eq!(refused[0].code, Some(ErrorCode::Quarantined));
    };
    let word = |view: &DataView, txids: &[u64]| Resync {
        participant: NAME.parse().unwrap(),
        coordinator: batch(Vec::new()).coordinator,
        low_water: batch(Vec::new()).low_water,
        found: view.found(),
        known: Some(known),
        part: 0,
        last: true,
        alone: false,
        redo: txids
            .iter()
            .map(|n| RedoBranch { txid: txid(*n), seq: *n, redo: Base64(b"[]"[..].into()) })
            .collect(),
    };
    fences().await;
    let view = agent.client.data().await.unwrap();
    // Nobody has committed 3 here.
    let lost = agent.client.resync(&word(&view, &[1, 2, 3])).await.unwrap_err();
    let CallError::Rejected(problem) = lost else { panic!("{lost:?}") };
    assert_eq!(problem.code, ErrorCode::Quarantined);
    let named = problem.detail;
    assert!(named.contains(&txid(3).to_string()) && !named.contains(&txid(1).to_string()));
    assert!(named.contains("assent participants accept-loss ledger"), "{named}");
    let view = agent.client.data().await.unwrap();
    let accepted = Resync { alone: true, ..word(&view, &[1, 2, 3]) };
    let open = agent.client.resync(&accepted).await.unwrap().open.unwrap();
    assert!(open.incarnation != incarnation && open.seq > known.seq, "{open:?}");
    // What was prepared is still there, and votes go on.
    assert_eq!(agent.tell(commit(2)).await.state, Some(StateWord::Applied));
    let voted = agent.tell(prepare(4, add(4, -1))).await;
    assert_eq!(voted.incarnation, Some(open.incarnation));
    agent.tell(commit(4)).await;
    // A coordinator that knows only the old data looks again, and fences nothing.
    let batch = Batch { known: Some(known), ..batch(vec![prepare(5, add(5, -1))]) };
    assert_eq!(agent.say_all(batch).await[0].code, Some(ErrorCode::Quarantined));
    let view = agent.client.data().await.unwrap();
    assert!(!view.fenced && view.has_served(LOG.parse().unwrap(), known), "{view:?}");
}

#[tokio::test]
async fn an_agent_notices_that_the_data_went_back() {
    let mut server = Server::start().await;
    let agent = Agent::start(&server).await;
    agent.tell(prepare(1, add(1, -1))).await;
    assert_eq!(agent.tell(commit(1)).await.state, Some(StateWord::Applied));
    server.run("UPDATE assent.data SET seq = 0, ended = 0").await;
    server.postgres.kill9();
    server.postgres.restart().await.unwrap();
    let code = until("the agent is connected again", async || {
        let code = agent.tell(prepare(2, add(1, -1))).await.code;
        (code != Some(ErrorCode::PostgresUnavailable)).then_some(code)
    })
    .await;
    assert_eq!(code, Some(ErrorCode::Quarantined));
}
