//! What is not recognisably Assent's own word is *not known*: each foreign answer, against each call of the protocol.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::future::IntoFuture as _;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use assent_client::interactive::op;
use assent_client::{
    CallError, CoordinatorAdmin, CoordinatorClient, Http, HttpOptions, Interactive,
    ParticipantAdmin, ParticipantClient, SubmitError, Token, Transaction, TransactionError,
};
use assent_common::command::OpRequest;
use assent_common::outcome::{Call, Prepared};
use assent_common::time::DurationMs;
use assent_common::wire::branch::{Batch, CoordinatorRef, Message, Mode, PrepareMessage};
use assent_common::wire::interactive::BeginRequest;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::{MEDIA_TYPE, PROBLEM_MEDIA_TYPE};
use assent_common::{ErrorCode, Txid, limits};

const TXID: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0";
const LOG: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e";
const OTHER_TXID: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.8.0";
const OTHER_LOG: &str = "0198ffffa4b27c1d9c0e3f4a5b6c7d8e";
const ID: &str = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e";

fn http() -> Http {
    Http::new(&HttpOptions { request_timeout_ms: 300, ..HttpOptions::default() }).unwrap()
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// A server that answers everything with this.
async fn answering(status: u16, media_type: &'static str, body: impl Into<String>) -> String {
    let status = StatusCode::from_u16(status).unwrap();
    let body = body.into();
    serve(Router::new().fallback(move || {
        let body = body.clone();
        async move { (status, [(CONTENT_TYPE, media_type)], body).into_response() }
    }))
    .await
}

/// A server that answers with these bytes, whatever HTTP says of them, and hangs up.
async fn hanging_up_after(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    url
}

fn txid() -> Txid {
    TXID.parse().unwrap()
}

fn batch() -> Batch {
    Batch {
        known: None,
        progress: None,
        participant: "bank-a".parse().unwrap(),
        coordinator: CoordinatorRef {
            log_id: LOG.parse().unwrap(),
            epoch: assent_common::Epoch(3),
            url: "http://127.0.0.1:1".to_owned(),
            life: None,
        },
        low_water: assent_common::TxNumber { epoch: assent_common::Epoch(0), n: 0 },
        messages: vec![Message::Prepare(PrepareMessage {
            txid: txid(),
            id: ID.parse().unwrap(),
            mode: Mode::TwoPhase,
            wait_ms: 0,
            branches: Vec::new(),
            ops: vec![OpRequest::new(["GET", "k"])],
            input: None,
        })],
    }
}

fn outcome(txid: &str, log: &str, word: &str) -> String {
    format!(r#"{{"txid":"{txid}","log_id":"{log}","outcome":"{word}"}}"#)
}

async fn ask(url: &str) -> Call<BranchOutcome> {
    CoordinatorClient::new(&http(), url).unwrap().outcome(txid()).await
}

/// All calls of the protocol say *unknown* of the server at this URL.
async fn nothing_is_known_from(url: &str, case: &str) {
    let participant = ParticipantClient::new(&http(), url).unwrap();
    assert!(participant.batch(&batch()).await.is_err(), "batch, {case}");
    let waiting = participant.prepare_waiting(txid(), 0, &batch()).await;
    assert!(matches!(waiting, Call::Unknown(_)), "prepare, {case}: {waiting:?}");
    let outcome = ask(url).await;
    assert!(matches!(outcome, Call::Unknown(_)), "outcome, {case}: {outcome:?}");
    let transaction = Transaction::new().branch("a", |ops| ops.op(["GET", "k"])).build().unwrap();
    let submitted = CoordinatorClient::new(&http(), url)
        .unwrap()
        .submit(&transaction, None, Some(DurationMs(0)))
        .await;
    assert!(matches!(submitted, Err(SubmitError::Unknown(_))), "submit, {case}: {submitted:?}");
}

#[tokio::test]
async fn a_foreign_answer_is_unknown() {
    let right = outcome(TXID, LOG, "committed");
    let cases = [
        (404, "text/html", "<h1>not found</h1>".to_owned()),
        (404, "", String::new()),
        (502, "text/plain", "Bad Gateway".to_owned()),
        (200, "text/html", right.clone()),
        (200, "", right),
        (200, MEDIA_TYPE, "{".to_owned()),
        (200, MEDIA_TYPE, r#"{"txid":"0198f1c2a4"#.to_owned()),
        (200, MEDIA_TYPE, r#"{"hello":"world"}"#.to_owned()),
        (200, "application/json", r#"{"hello":"world"}"#.to_owned()),
        (204, MEDIA_TYPE, String::new()),
        (302, MEDIA_TYPE, outcome(TXID, LOG, "committed")),
        (404, PROBLEM_MEDIA_TYPE, r#"{"title":"no such route","status":404}"#.to_owned()),
        (404, PROBLEM_MEDIA_TYPE, r#"{"type":"/errors#gone","title":"","status":404,"detail":"","code":"gone","retryable":false}"#.to_owned()),
    ];
    for (status, media_type, body) in cases {
        let case = format!("{status} {media_type} {body}");
        let url = answering(status, media_type, body).await;
        nothing_is_known_from(&url, &case).await;
    }
}

#[tokio::test]
async fn a_slow_a_reset_a_cut_and_a_refused_connection_are_unknown() {
    let slow = serve(Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }))
    .await;
    nothing_is_known_from(&slow, "slow").await;
    nothing_is_known_from(&hanging_up_after(b"").await, "reset").await;
    nothing_is_known_from(&hanging_up_after(b"HTTP/1.1 200").await, "cut in the head").await;
    let cut: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.assent+json\r\n\
        content-length: 400\r\n\r\n{\"answers\":[]}";
    nothing_is_known_from(&hanging_up_after(cut).await, "cut in the body").await;
    nothing_is_known_from("http://127.0.0.1:1", "refused").await;
}

#[tokio::test]
async fn an_outcome_is_believed_only_if_it_names_the_branch_and_its_log() {
    for (txid, log, word) in [
        (OTHER_TXID, LOG, "committed"),
        (OTHER_TXID, LOG, "unknown_authority"),
        (TXID, OTHER_LOG, "committed"),
        (TXID, OTHER_LOG, "aborted"),
        (TXID, LOG, "perhaps"),
    ] {
        let url = answering(200, MEDIA_TYPE, outcome(txid, log, word)).await;
        let call = ask(&url).await;
        assert!(matches!(call, Call::Unknown(_)), "{txid} {log} {word}: {call:?}");
    }
    for (log, word, expected) in [
        (LOG, "committed", BranchOutcome::Committed),
        (LOG, "aborted", BranchOutcome::Aborted),
        (LOG, "undecided", BranchOutcome::Undecided),
        // A log to which the branch is foreign names itself.
        (OTHER_LOG, "unknown_authority", BranchOutcome::UnknownAuthority),
    ] {
        let url = answering(200, MEDIA_TYPE, outcome(TXID, log, word)).await;
        assert_eq!(ask(&url).await, Call::Applied(expected));
    }
}

#[tokio::test]
async fn answers_too_few_or_too_many_for_the_batch_are_unknown() {
    for answers in ["", r#"{"vote":"unknown"},{"vote":"unknown"}"#] {
        let url = answering(200, MEDIA_TYPE, format!(r#"{{"answers":[{answers}]}}"#)).await;
        let client = ParticipantClient::new(&http(), &url).unwrap();
        assert!(client.batch(&batch()).await.is_err());
    }
    let one = r#"{"answers":[{"vote":"no","code":"wrong_type","detail":"k"}]}"#;
    let url = answering(200, MEDIA_TYPE, one).await;
    let client = ParticipantClient::new(&http(), &url).unwrap();
    let answer = client.batch(&batch()).await.unwrap().answers.remove(0);
    assert!(matches!(answer.into_prepared(), Call::Refused(no) if no.code == ErrorCode::WrongType));
}

#[tokio::test]
async fn a_vote_comes_back_from_the_waiting_call() {
    let yes = r#"{"vote":"yes","replies":[70],"redo":"AAE=","incarnation":4,"seq":9}"#;
    let url = answering(200, MEDIA_TYPE, yes).await;
    let client = ParticipantClient::new(&http(), &url).unwrap();
    match client.prepare_waiting(txid(), 50, &batch()).await {
        Call::Applied(Prepared::Yes(vote)) => {
            assert_eq!((&*vote.replies, vote.seq, vote.incarnation), ("[70]", 9, 4));
            assert_eq!(&*vote.redo, [0, 1]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn aborted_rejected_and_unknown_are_told_apart() {
    let problem = |status: u16, code: &str, outcome: &str| {
        format!(
            r#"{{"type":"/errors#{code}","title":"t","status":{status},"detail":"d",
                "code":"{code}","retryable":false{outcome}}}"#
        )
    };
    let submit = async |status, body| {
        let url = answering(status, PROBLEM_MEDIA_TYPE, body).await;
        let request = Transaction::new().branch("a", |ops| ops.op(["GET", "k"])).build().unwrap();
        CoordinatorClient::new(&http(), &url).unwrap().submit(&request, None, None).await
    };
    let aborted = submit(409, problem(409, "expectation_failed", r#","outcome":"aborted""#)).await;
    assert!(matches!(aborted, Err(SubmitError::Aborted(_))), "{aborted:?}");
    let rejected = submit(422, problem(422, "unknown_participant", "")).await;
    assert!(matches!(rejected, Err(SubmitError::Rejected(_))), "{rejected:?}");
    let pending = submit(503, problem(503, "not_ready", r#","outcome":"pending""#)).await;
    assert!(matches!(pending, Err(SubmitError::Unknown(_))), "{pending:?}");
    let fault = submit(500, problem(500, "internal", "")).await;
    assert!(matches!(fault, Err(SubmitError::Unknown(_))), "{fault:?}");
}

#[tokio::test]
async fn a_transaction_of_another_id_is_not_the_one_asked_for() {
    let view = format!(r#"{{"id":"{ID}","outcome":"committed","state":"ended","branches":[]}}"#);
    let url = answering(200, "application/json", view).await;
    let client = CoordinatorClient::new(&http(), &url).unwrap();
    let own = client.transaction(ID.parse().unwrap(), None).await;
    assert!(own.is_ok(), "{own:?}");
    let request = Transaction::new().branch("a", |ops| ops.op(["GET", "k"])).build().unwrap();
    let foreign = client.transaction(request.id.unwrap(), None).await;
    assert!(matches!(foreign, Err(CallError::Unknown(_))), "{foreign:?}");
    let submitted = client.submit(&request, None, None).await;
    assert!(matches!(submitted, Err(SubmitError::Unknown(_))), "{submitted:?}");
}

#[tokio::test]
async fn the_token_is_sent_and_never_shown() {
    let url = serve(Router::new().fallback(|headers: HeaderMap| async move {
        let sent = headers.get("authorization").is_some_and(|value| value == "Bearer s3cret");
        let body = if sent { outcome(TXID, LOG, "aborted") } else { String::new() };
        ([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }))
    .await;
    let options = HttpOptions { token: Some(Token::new(" s3cret\n")), ..HttpOptions::default() };
    let http = Http::new(&options).unwrap();
    assert!(!format!("{options:?} {http:?}").contains("s3cret"));
    let client = CoordinatorClient::new(&http, &url).unwrap();
    assert_eq!(client.outcome(txid()).await, Call::Applied(BranchOutcome::Aborted));
}

#[test]
fn a_base_url_may_have_a_path_and_must_be_http() {
    let http = http();
    assert!(ParticipantClient::new(&http, "http://127.0.0.1:7710").is_ok());
    assert!(ParticipantClient::new(&http, "http://shop.internal/assent/").is_ok());
    for bad in ["", "127.0.0.1:7710", "ftp://x", "http://x/?a=b", "https://x"] {
        assert!(ParticipantClient::new(&http, bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_base_url_has_no_password_and_no_query() {
    let http = http();
    for good in ["http://bank-a:7710", "http://[::1]:7710/", "http://proxy/bank-a/"] {
        assert!(ParticipantClient::new(&http, good).is_ok(), "{good}");
    }
    let bad =
        ["https://bank-a", "http://", "bank-a:7710", "http://a:b@bank-a", "http://bank-a?x=1"];
    for bad in bad {
        let error = ParticipantClient::new(&http, bad).err().unwrap().to_string();
        assert!(error.contains("http://host:port"), "{error}");
    }
}

/// What a stranger says stays with whoever may ask it: whoever names an address to a server
/// of ours, or registers one, does not read through it what stands there.
#[tokio::test]
async fn no_word_of_a_foreign_answer_is_quoted() {
    const SECRET: &str = "hush-a-secret-of-somebody-else";
    let quoting = format!(r#"{{"txid":"{SECRET}","answers":"{SECRET}","version":["{SECRET}"]}}"#);
    let problem = format!(r#"{{"type":"t","title":"t","status":404,"detail":"{SECRET}","code":""#);
    let cases = [
        (200, "text/plain", format!("{SECRET}\n")),
        (500, "text/html", format!("<h1>{SECRET}</h1>")),
        (404, "hush-a-secret/of-somebody-else", SECRET.to_owned()),
        (200, MEDIA_TYPE, quoting.clone()),
        (200, "application/json", quoting),
        (404, PROBLEM_MEDIA_TYPE, format!(r#"{problem}{SECRET}","retryable":false}}"#)),
        (400, PROBLEM_MEDIA_TYPE, format!(r#"{problem}not_found","retryable":false}}"#)),
    ];
    for (status, media_type, body) in cases {
        let case = format!("{status} {media_type}");
        let url = answering(status, media_type, body).await;
        let participant = ParticipantClient::new(&http(), &url).unwrap();
        let coordinator = CoordinatorClient::new(&http(), &url).unwrap();
        let transaction = Transaction::new().branch("a", |ops| ops.op(["GET", "k"])).build();
        let said = [
            format!("{:?}", participant.batch(&batch()).await),
            format!("{:?}", participant.prepare_waiting(txid(), 0, &batch()).await),
            format!("{:?}", participant.version().await),
            format!("{:?}", participant.readyz().await),
            format!("{:?}", coordinator.outcome(txid()).await),
            format!("{:?}", coordinator.submit(&transaction.unwrap(), None, None).await),
            format!("{:?}", coordinator.livez().await),
            format!("{:?}", CoordinatorAdmin::new(&http(), &url).unwrap().metrics().await),
            format!("{:?}", ParticipantAdmin::new(&http(), &url).unwrap().metrics().await),
        ];
        for said in said {
            assert!(!said.contains("hush"), "{case}: {said}");
            assert!(said.contains("Unknown("), "{case}: {said}");
        }
    }
}

/// What is quoted is an error document of ours, cut where it is longer than any of ours.
#[tokio::test]
async fn an_error_document_of_ours_is_quoted() {
    let long = "x".repeat(1 << 16);
    let body = format!(
        r#"{{"type":"/errors#not_ready","title":"t","status":503,"detail":"the log {long}",
            "code":"not_ready","retryable":true}}"#
    );
    let url = answering(503, PROBLEM_MEDIA_TYPE, body).await;
    let Call::Unknown(why) = ask(&url).await else { panic!("nothing was said") };
    assert!(why.starts_with("not taken: not_ready: the log xxx"), "{why}");
    assert!(why.len() < 2 * limits::DETAIL_BYTES_MAX, "{}", why.len());
}

/// A probe passes on the lines of ours, of coordinators and of participants.
#[tokio::test]
async fn a_probe_passes_on_what_a_server_of_ours_says() {
    let participant = "[!] heuristic warning: 1\nready\n";
    for text in ["[+]log ok\n[-]engine failed: x\n", participant, "ok\n"] {
        let url = answering(200, "text/plain; charset=utf-8", text).await;
        let client = ParticipantClient::new(&http(), &url).unwrap();
        assert_eq!(client.readyz().await.unwrap().text, text);
    }
}

/// What a stranger opens without end is not taken apart before it is refused.
#[tokio::test]
async fn an_answer_that_is_deeper_than_any_of_ours_is_not_known() {
    let url = answering(200, MEDIA_TYPE, "[".repeat(1 << 20)).await;
    let client = CoordinatorClient::new(&http(), &url).unwrap();
    let Call::Unknown(why) = client.outcome(TXID.parse().unwrap()).await else {
        panic!("nothing was said");
    };
    assert!(why.contains("inside each other, at byte 32"), "{why}");
}

/// Promise: a commit is of all calls that were answered. Behind one whose answer was lost it is not
/// sent, because the ops of that call might be in it, or not.
#[tokio::test]
async fn a_commit_does_not_pass_by_a_call_whose_answer_was_lost() {
    let json = |body: String| ([(CONTENT_TYPE, "application/json")], body);
    let begun = format!(
        r#"{{"id":"{ID}","outcome":"active","seq":0,"expires_at":"2026-11-30T00:00:00Z",
            "ends_at":"2026-11-30T00:00:00Z"}}"#
    );
    let committed = format!(
        r#"{{"id":"{ID}","outcome":"committed","state":"ended","applied":true,"branches":[],
            "attempt":0,"created_at":"2026-11-30T00:00:00Z"}}"#
    );
    let router = Router::new()
        .route("/v1/transactions", post(move || async move { json(begun) }))
        .route("/v1/transactions/{id}/commit", post(move || async move { json(committed) }))
        .fallback(|| async { StatusCode::BAD_GATEWAY });
    let client = CoordinatorClient::new(&http(), &serve(router).await).unwrap();
    let begin = BeginRequest { id: Some(ID.parse().unwrap()), ..BeginRequest::default() };
    let mut tx = Interactive::begin_as(&client, begin.clone()).await.unwrap();
    tx.commit(None).await.unwrap();
    let mut tx = Interactive::begin_as(&client, begin).await.unwrap();
    let lost = tx.ops([op("bank-a", ["INCR", "n"])]).await;
    assert!(matches!(lost, Err(TransactionError::Unknown(_))), "{lost:?}");
    let refused = tx.commit(None).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Rejected(_)), "{refused:?}");
    assert_eq!(refused.code(), Some("wrong_state"));
}
