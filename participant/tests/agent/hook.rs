//! Branches that a hook decides about, in the process of the participant and by HTTP.

use std::future::IntoFuture as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use assent_common::command::OpRequest;
use assent_common::outcome::{Call, Done, Prepared, Refusal};
use assent_common::wire::branch::{BranchState, Message, Mode, TxidOnly, VoteWord};
use assent_common::{ErrorCode, limits};
use assent_participant::Options;
use assent_participant::hook::{Hook, HookCall, HookDoor, HookError, HookStage, RemoteHook};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::harness::{Redis, Sidecar, abort, batch, counting, prepare, txid, until};

/// Long enough for everything but a lock that stays.
const WAIT_MS: u64 = 10_000;

/// A customer may owe 100 over both accounts, and pays into the first one.
struct Limit {
    asked: Arc<AtomicUsize>,
    /// Where it waits after it has read, if it does.
    gate: Option<Arc<Notify>>,
}

impl Limit {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let asked = Arc::<AtomicUsize>::default();
        (Self { asked: Arc::clone(&asked), gate: None }, asked)
    }
}

#[derive(serde::Deserialize)]
struct Owes {
    more: i64,
}

impl Hook for Limit {
    type Input = Owes;

    async fn prepare(
        &self,
        _: &HookCall,
        Owes { more }: Owes,
        stage: &mut HookStage<'_>,
    ) -> Result<Value, HookError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let accounts = stage.read(["MGET", "a:1", "a:2"]).await?;
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        let owed = |account: &Value| account.as_str().map_or(0, |it| it.parse().unwrap());
        let sum: i64 = accounts.as_array().unwrap().iter().map(owed).sum();
        if sum + more > 100 {
            return Err(HookError::veto("limit_exceeded", "the customer would owe too much"));
        }
        stage.op(["INCRBY", "a:1", &more.to_string()]);
        Ok(json!({"owes": sum + more}))
    }
}

fn hooked(hook: impl Hook) -> impl FnOnce(&mut Options) {
    |options| {
        options.resolve_interval_ms = 3_600_000;
        options.hook = Some(HookDoor::new(hook));
    }
}

/// Prepares transaction `n` with this input.
pub(crate) async fn ask(
    side: &Sidecar,
    n: u64,
    mode: Mode,
    ops: &[&[&str]],
    input: Value,
) -> Call<Prepared> {
    ask_waiting(side, n, mode, ops, input, WAIT_MS).await
}

pub(crate) async fn ask_waiting(
    side: &Sidecar,
    n: u64,
    mode: Mode,
    ops: &[&[&str]],
    input: Value,
    wait_ms: u64,
) -> Call<Prepared> {
    let message = with_input(n, mode, ops, &input, wait_ms);
    let batch = batch("http://127.0.0.1:1", vec![message]);
    let batch = assent_common::wire::branch::Batch { participant: side.name(), ..batch };
    side.client.prepare_waiting(txid(n), wait_ms, &batch).await
}

fn with_input(n: u64, mode: Mode, ops: &[&[&str]], input: &Value, wait_ms: u64) -> Message {
    let Message::Prepare(mut message) = prepare(n, [&["GET", "k"]]) else { panic!("it prepares") };
    message.ops = ops.iter().map(|words| OpRequest::new(words.iter().copied())).collect();
    (message.mode, message.wait_ms) = (mode, wait_ms);
    message.input = Some(serde_json::value::to_raw_value(input).unwrap());
    Message::Prepare(message)
}

pub(crate) fn yes(call: &Call<Prepared>) -> &str {
    match call {
        Call::Applied(Prepared::Yes(vote)) => &vote.replies,
        Call::Applied(Prepared::Committed(Done { replies, .. })) => replies,
        call => panic!("{call:?}"),
    }
}

pub(crate) fn refused(call: Call<Prepared>) -> Refusal {
    match call {
        Call::Refused(refusal) => refusal,
        call => panic!("{call:?}"),
    }
}

pub(crate) async fn nothing_is_kept(redis: &Redis, side: &Sidecar, n: u64) {
    assert_eq!(side.state(n).await, None);
    for prefix in ["s:", "l:"] {
        assert_eq!(redis.control(prefix).await, Vec::<String>::new());
    }
    // Nothing is locked: somebody younger gets the keys for itself.
    static COUNT: AtomicU64 = AtomicU64::new(1_000);
    let younger = COUNT.fetch_add(1, Ordering::Relaxed);
    let lines: [&[&str]; 2] = [&["PERSIST", "k"], &["PERSIST", "x"]];
    let told = side.say(vec![prepare(younger, lines)]).await;
    assert_eq!(told[0].vote, Some(VoteWord::Yes), "{told:?}");
    side.say(vec![abort(younger)]).await;
}

/// Promise: a hook's ops are part of the branch, and what it replies stands behind the replies of
/// the client's ops; both are the same, however often the prepare comes.
#[tokio::test]
async fn what_a_hook_stages_commits_with_its_branch() {
    let redis = Redis::start().await;
    let (hook, asked) = Limit::new();
    let side = Sidecar::with(&redis, hooked(hook)).await;
    let () = redis.ask(&["SET", "a:2", "50"]).await.unwrap();
    let ops: [&[&str]; 2] = [&["SET", "order", "7"], &["STRLEN", "order"]];
    let first = ask(&side, 1, Mode::TwoPhase, &ops, json!({"more": 20})).await;
    assert_eq!(yes(&first), r#"["OK",1,{"hook":{"owes":70}}]"#);
    // By another input it would stage, and say, something else; but the vote is given.
    for more in [3, 1_000] {
        let again = ask(&side, 1, Mode::TwoPhase, &ops, json!({"more": more})).await;
        assert_eq!(again, first);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    side.say(vec![Message::Commit(TxidOnly { txid: txid(1) })]).await;
    assert_eq!(redis.get("a:1").await.as_deref(), Some("20"));
    assert_eq!(redis.get("order").await.as_deref(), Some("7"));
    let late = ask(&side, 1, Mode::TwoPhase, &ops, json!({"more": 3})).await;
    assert_eq!(refused(late).code, ErrorCode::WrongState);
    assert_eq!(redis.get("a:1").await.as_deref(), Some("20"));
}

/// Promise: also a vote of which nothing is written is given once.
#[tokio::test]
async fn a_hook_that_only_replies_is_not_heard_twice() {
    struct Counts(AtomicUsize);
    impl Hook for Counts {
        type Input = Value;
        async fn prepare(
            &self,
            _: &HookCall,
            _: Value,
            stage: &mut HookStage<'_>,
        ) -> Result<Value, HookError> {
            stage.read(["GET", "k"]).await?;
            Ok(self.0.fetch_add(1, Ordering::SeqCst).into())
        }
    }
    let redis = Redis::start().await;
    let mut side = Sidecar::with(&redis, hooked(Counts(AtomicUsize::new(0)))).await;
    let first = ask(&side, 1, Mode::TwoPhase, &[&["GET", "other"]], Value::Null).await;
    assert_eq!(yes(&first), r#"[null,{"hook":0}]"#);
    assert_eq!(ask(&side, 1, Mode::TwoPhase, &[&["GET", "other"]], Value::Null).await, first);
    // Nor after a start, also without the hook.
    let (stop, serving) = side.take_apart();
    drop(stop);
    serving.finished().await;
    let side = Sidecar::start(&redis).await;
    let again = ask(&side, 1, Mode::TwoPhase, &[&["GET", "other"]], Value::Null).await;
    assert_eq!(yes(&again), yes(&first));
}

#[tokio::test]
async fn one_phase_runs_once_whatever_the_hook_says_the_second_time() {
    let redis = Redis::start().await;
    let (hook, asked) = Limit::new();
    let side = Sidecar::with(&redis, hooked(hook)).await;
    let first = ask(&side, 1, Mode::OnePhase, &[&["XADD", "s", "*", "f", "v"]], json!({"more": 5}));
    let first = first.await;
    let replies: Value = serde_json::from_str(yes(&first)).unwrap();
    assert!(replies[0].as_str().unwrap().contains('-'), "{replies}");
    assert_eq!(replies[1], json!({"hook": {"owes": 5}}));
    for more in [5, 6, 1_000] {
        let ops: [&[&str]; 1] = [&["XADD", "s", "*", "f", "v"]];
        let again = ask(&side, 1, Mode::OnePhase, &ops, json!({"more": more})).await;
        assert_eq!(yes(&again), yes(&first));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert_eq!(redis.get("a:1").await.as_deref(), Some("5"));
    assert_eq!(redis.ask::<u64>(&["XLEN", "s"]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_veto_is_a_no_with_the_words_of_the_hook() {
    let redis = Redis::start().await;
    let (hook, _) = Limit::new();
    let side = Sidecar::with(&redis, hooked(hook)).await;
    for mode in [Mode::TwoPhase, Mode::OnePhase] {
        let no = refused(ask(&side, 1, mode, &[&["SET", "k", "v"]], json!({"more": 101})).await);
        assert_eq!(no.code, ErrorCode::Vetoed);
        assert_eq!(no.detail, "limit_exceeded: the customer would owe too much");
        let reply: Value = serde_json::from_str(no.reply.as_deref().unwrap()).unwrap();
        assert_eq!(reply["code"], "limit_exceeded");
        nothing_is_kept(&redis, &side, 1).await;
    }
    assert_eq!(redis.get("k").await, None);
    // An input that is none, as a hook says it that is asked by HTTP.
    let no = refused(ask(&side, 2, Mode::TwoPhase, &[], json!({"amount": "secret"})).await);
    assert_eq!(no.code, ErrorCode::Vetoed);
    assert!(no.detail.starts_with("bad_input: ") && !no.detail.contains("secret"), "{no:?}");
}

/// Promise: what a hook has read is so when its branch commits: nobody changes it between the vote
/// and the outcome, and if somebody has before the vote, the hook is asked anew.
#[tokio::test]
async fn what_a_hook_has_read_is_still_so_when_its_branch_commits() {
    let redis = Redis::start().await;
    let (limit, asked) = Limit::new();
    let gate = Arc::new(Notify::new());
    let side =
        Sidecar::with(&redis, hooked(Limit { gate: Some(Arc::clone(&gate)), ..limit })).await;
    let asking = ask(&side, 5, Mode::TwoPhase, &[], json!({"more": 60}));
    let meddling = async {
        until("the hook is asked", async || (asked.load(Ordering::SeqCst) == 1).then_some(()))
            .await;
        // Nothing is locked while it thinks: a transaction of somebody else goes through.
        let set = side.prepare(3, 0, &["SET", "a:2", "30"]).await;
        assert!(matches!(set, Call::Applied(Prepared::Yes(_))), "{set:?}");
        side.say(vec![Message::Commit(TxidOnly { txid: txid(3) })]).await;
        gate.notify_one();
        until("it is asked anew", async || (asked.load(Ordering::SeqCst) == 2).then_some(())).await;
        gate.notify_one();
    };
    let (vote, ()) = tokio::join!(asking, meddling);
    assert_eq!(yes(&vote), r#"[{"hook":{"owes":90}}]"#);
    // Younger ones that write what it only read die of its lock.
    for key in ["a:1", "a:2"] {
        let no = refused(side.prepare(7, 0, &["SET", key, "0"]).await);
        assert_eq!(no.code, ErrorCode::LockConflict, "{key}");
    }
    assert!(matches!(side.prepare(8, 0, &["GET", "a:2"]).await, Call::Applied(_)), "it is shared");
}

#[tokio::test]
async fn a_hook_is_not_asked_anew_for_ever() {
    struct Meddles(String);
    impl Hook for Meddles {
        type Input = Value;
        async fn prepare(
            &self,
            _: &HookCall,
            _: Value,
            stage: &mut HookStage<'_>,
        ) -> Result<Value, HookError> {
            stage.read(["GET", "k"]).await?;
            let client = redis::Client::open(self.0.as_str()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let () = redis::cmd("INCR").arg("k").query_async(&mut connection).await.unwrap();
            // It takes no notice of what came of it.
            let _ = stage.read(["GET", "k"]).await;
            Ok(Value::Null)
        }
    }
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, hooked(Meddles(redis.url()))).await;
    let no = refused(ask(&side, 1, Mode::TwoPhase, &[&["SET", "x", "1"]], Value::Null).await);
    assert_eq!(no.code, ErrorCode::LockConflict, "{}", no.detail);
    nothing_is_kept(&redis, &side, 1).await;
}

/// Promise: who waits for a hook in vain hears that it was the hook, before its own time is over.
#[tokio::test]
async fn a_hook_that_hangs_is_named_in_time() {
    let redis = Redis::start().await;
    let (hook, _) = Limit::new();
    let gate = Some(Arc::new(Notify::new()));
    let hangs = |options: &mut Options| {
        hooked(Limit { gate, ..hook })(options);
        options.hook_timeout_ms = 3_600_000;
    };
    let side = Sidecar::with(&redis, hangs).await;
    let no = refused(ask_waiting(&side, 1, Mode::TwoPhase, &[], json!({"more": 1}), 200).await);
    assert_eq!(no.code, ErrorCode::HookUnavailable, "{}", no.detail);
    nothing_is_kept(&redis, &side, 1).await;
}

#[tokio::test]
async fn who_has_no_hook_says_so() {
    let redis = Redis::start().await;
    let side = Sidecar::start(&redis).await;
    let no = refused(ask(&side, 1, Mode::TwoPhase, &[], json!(1)).await);
    assert_eq!(no.code, ErrorCode::NoHook);
    assert!(no.detail.contains("bank-a"), "{}", no.detail);
    // A hook may take its time, and a batch waits for nobody.
    let answers = side.say(vec![with_input(1, Mode::TwoPhase, &[], &json!(1), 0)]).await;
    assert_eq!(answers[0].code, Some(ErrorCode::BadRequest));
    nothing_is_kept(&redis, &side, 1).await;
}

/// A service in any language: what it answers to each question.
pub(crate) struct Service {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Service {
    pub(crate) async fn start(
        answer: impl Fn(&Value, usize) -> (u16, &'static str, String) + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::<Mutex<Vec<Value>>>::default();
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        let router = Router::new().fallback(move |body: String| {
            let question: Value = serde_json::from_str(&body).unwrap();
            let times = {
                let mut kept = kept.lock().unwrap();
                kept.push(question.clone());
                kept.len()
            };
            let (status, media_type, body) = answer(&question, times);
            let status = StatusCode::from_u16(status).unwrap();
            async move { (status, [(CONTENT_TYPE, media_type)], body).into_response() }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/assent", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, asked }
    }

    /// One that answers so.
    async fn saying(answer: impl Fn(&Value, usize) -> Value + Send + Sync + 'static) -> Self {
        Self::start(move |question, times| {
            (200, "application/json", answer(question, times).to_string())
        })
        .await
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

pub(crate) fn by_http(url: &str, timeout_ms: u64) -> impl FnOnce(&mut Options) {
    let hook = RemoteHook::new(url, None, timeout_ms).unwrap();
    move |options| {
        options.resolve_interval_ms = 3_600_000;
        (options.hook, options.hook_timeout_ms) = (Some(hook.into()), timeout_ms);
    }
}

#[tokio::test]
async fn a_service_in_any_language_reads_stages_and_replies() {
    let service =
        Service::saying(|question, _| match question["reads"].as_array().unwrap().len() {
            0 => json!({"read": [{"cmd": ["SMEMBERS", "accounts"]}]}),
            1 => json!({"read": [{"cmd": ["GET", "a:1"]}, {"cmd": ["GET", "order"]}]}),
            3 if question["input"]["more"].as_i64().unwrap() > 9 => {
                json!({"veto": {"code": "too_much", "reason": "nine\nat most"}})
            }
            3 => {
                let seen = json!({"cmd": ["APPEND", "seen", question["reads"][2]]});
                json!({"ops": [seen], "reply": question["reads"]})
            }
            _ => panic!("{question}"),
        })
        .await;
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    let () = redis.ask(&["SADD", "accounts", "1"]).await.unwrap();
    let () = redis.ask(&["SET", "a:1", "12"]).await.unwrap();
    let ops: [&[&str]; 1] = [&["SET", "order", "new"]];
    let vote = ask(&side, 1, Mode::OnePhase, &ops, json!({"more": 9})).await;
    assert_eq!(yes(&vote), r#"["OK",{"hook":[["1"],"12","new"]}]"#);
    assert_eq!(redis.get("seen").await.as_deref(), Some("new"));
    let first = service.asked.lock().unwrap()[0].clone();
    assert_eq!(first["txid"], txid(1).to_string());
    assert_eq!((&first["participant"], &first["reads"]), (&json!("bank-a"), &json!([])));
    let no = refused(ask(&side, 2, Mode::TwoPhase, &ops, json!({"more": 10})).await);
    assert_eq!((no.code, &*no.detail), (ErrorCode::Vetoed, r"too_much: nine\nat most"));
}

/// Promise: a hook that answers nonsense or never: a clear error, nothing locked, nothing lost.
#[tokio::test]
async fn a_hook_that_answers_nonsense_is_a_clear_no() {
    let invalid = [
        (json!({}), "neither"),
        (json!({"commit": true}), "unknown field `commit`"),
        (json!({"ops": [{"cmd": ["NOSUCH", "k"]}]}), "NOSUCH"),
        (json!({"ops": [{"cmd": ["SET", "assent:ctl", "k"]}]}), "Assent's own"),
        (json!({"read": [{"cmd": ["SET", "k", "v"]}]}), "writes"),
        (json!({"read": [{"cmd": ["HGETALL", "assent:ctl"]}]}), "Assent's own"),
        (json!({"read": []}), "`read` is empty"),
        (json!({"read": [{"cmd": ["GET", "k"]}]}), "more than 32 times"),
        (json!({"veto": {"code": "two words"}}), "`code`"),
        (json!({"ops": [], "veto": {"code": "x"}}), "more than one"),
        (json!({"reply": "x".repeat(100_000)}), "bytes"),
    ];
    let redis = Redis::start().await;
    let answers = invalid.clone().map(|(answer, _)| answer);
    let service = Service::saying(move |question, _| {
        answers[question["input"].as_u64().unwrap() as usize].clone()
    })
    .await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    for (place, (answer, what)) in invalid.iter().enumerate() {
        let n = place as u64 + 1;
        let no = refused(ask(&side, n, Mode::TwoPhase, &[&["SET", "k", "v"]], json!(place)).await);
        assert_eq!(no.code, ErrorCode::HookInvalid, "{answer}: {}", no.detail);
        assert!(no.detail.contains(what), "{answer}: {}", no.detail);
        nothing_is_kept(&redis, &side, n).await;
    }
    // An op that is wrong only with the data keeps its own code.
    let redis = Redis::start().await;
    let service = Service::saying(|_, _| json!({"ops": [{"cmd": ["INCR", "text"]}]})).await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    let () = redis.ask(&["SET", "text", "x"]).await.unwrap();
    let no = refused(ask(&side, 40, Mode::TwoPhase, &[&["SET", "k", "v"]], json!(0)).await);
    assert_eq!((no.code, no.op), (ErrorCode::NotAnInteger, None), "{}", no.detail);
    assert!(no.detail.contains("an op of the hook"), "{}", no.detail);
}

/// Promise: what would be as large again is not fetched again.
#[tokio::test]
async fn an_answer_above_its_limit_is_asked_for_once() {
    let large = "x".repeat(limits::HOOK_ANSWER_BYTES_MAX);
    let service = Service::saying(move |_, _| json!({"reply": large})).await;
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    let no = refused(ask(&side, 1, Mode::TwoPhase, &[&["SET", "k", "v"]], json!(0)).await);
    assert_eq!(no.code, ErrorCode::HookInvalid, "{}", no.detail);
    assert!(no.detail.contains("more than"), "{}", no.detail);
    assert_eq!(service.times_asked(), 1);
}

#[tokio::test]
async fn an_unclear_answer_is_asked_for_again_within_the_time_of_the_branch() {
    // Each of them, then a clear one.
    let service = Service::start(|_, times| match times {
        1 => (500, "application/json", json!({"ops": []}).to_string()),
        2 => (200, "text/html", "<html>".to_owned()),
        3 => (200, "application/json", "{\"ops\":".to_owned()),
        4 => (404, "application/json", String::new()),
        _ => (200, "application/json", json!({"reply": times}).to_string()),
    })
    .await;
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    let vote = ask(&side, 1, Mode::TwoPhase, &[], json!("secret")).await;
    assert_eq!(yes(&vote), r#"[{"hook":5}]"#);
    let asked = service.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|question| *question == asked[0]), "in the same words");
    // Never.
    let (other, mut first) = (Redis::start().await, side);
    let service = Service::start(|_, _| (503, "text/plain", "no".to_owned())).await;
    let side = Sidecar::with(&other, by_http(&service.url, 5_000)).await;
    let call = ask_waiting(&side, 2, Mode::TwoPhase, &[&["SET", "k", "v"]], json!("secret"), 300);
    let no = refused(call.await);
    assert_eq!(no.code, ErrorCode::HookUnavailable);
    let host = service.url.trim_start_matches("http://").trim_end_matches("/assent");
    assert!(no.detail.contains("bank-a") && no.detail.contains(host), "{}", no.detail);
    assert!(no.detail.contains("503") && !no.detail.contains("secret"), "{}", no.detail);
    assert!(service.times_asked() > 1);
    assert_eq!(side.state(2).await, None);
    // A vote that was given is given, whatever becomes of the hook.
    let (stop, serving) = first.take_apart();
    drop(stop);
    serving.finished().await;
    let (side, service) = (Sidecar::with(&redis, by_http(&service.url, 5_000)).await, service);
    let vote_again = ask_waiting(&side, 1, Mode::TwoPhase, &[], json!("secret"), 100).await;
    assert_eq!(yes(&vote_again), yes(&vote));
    assert!(service.times_asked() > 2);
}

/// Promise: a slow hook costs only its own transaction.
#[tokio::test]
async fn a_hook_that_does_not_answer_holds_nobody_else() {
    struct Sleeps;
    impl Hook for Sleeps {
        type Input = bool;
        async fn prepare(
            &self,
            _: &HookCall,
            panics: bool,
            stage: &mut HookStage<'_>,
        ) -> Result<Value, HookError> {
            stage.read(["GET", "k"]).await?;
            assert!(!panics, "on purpose");
            std::future::pending().await
        }
    }
    let redis = Redis::start().await;
    let count = counting("hook-sleeps");
    let side = Sidecar::with(&redis, |options| {
        count(options);
        hooked(Sleeps)(options);
        options.hook_timeout_ms = 1_500;
    })
    .await;
    let slow = ask_waiting(&side, 1, Mode::TwoPhase, &[&["SET", "k", "v"]], json!(false), 1_510);
    let others = async {
        let line = "assent_hooks_asked{participant=\"hook-sleeps\"} 1";
        until("the hook is asked", async || {
            let text = side.admin.metrics().await.unwrap();
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
        // Younger, of the same keys, and in a batch.
        let answers = side.say(vec![prepare(4, [&["SET", "k", "w"]])]).await;
        assert!(matches!(answers[0].vote, Some(VoteWord::Yes)));
        side.say(vec![Message::Abort(TxidOnly { txid: txid(4) })]).await;
    };
    let (no, ()) = tokio::join!(slow, others);
    let no = refused(no);
    assert_eq!(no.code, ErrorCode::HookUnavailable, "{}", no.detail);
    assert!(no.detail.contains("no answer within"), "{}", no.detail);
    // Its last question has less time than the hook may take; the panic is named all the same.
    let no = ask_waiting(&side, 2, Mode::TwoPhase, &[], json!(true), 1_000).await;
    let no = refused(no);
    assert!(no.detail.contains("panicked"), "{}", no.detail);
    assert_eq!(side.state(1).await, None);
    assert_eq!(redis.control("s:").await, Vec::<String>::new());
    let text = side.admin.metrics().await.unwrap();
    let unclear = "assent_hook_answers_total{participant=\"hook-sleeps\",answer=\"unclear\"} ";
    let times = text.lines().find_map(|line| line.strip_prefix(unclear)).unwrap();
    // The slow question, and each one of the panicking hook.
    let of_panics = format!("was asked {} times", times.parse::<u64>().unwrap() - 1);
    assert!(no.detail.contains(&of_panics), "{}: {text}", no.detail);
    // Aborted meanwhile, it stays out.
    side.say(vec![Message::Abort(TxidOnly { txid: txid(9) })]).await;
    let no = refused(ask_waiting(&side, 9, Mode::TwoPhase, &[], json!(false), 1).await);
    assert_eq!(no.code, ErrorCode::Fenced);
    assert_eq!(side.state(9).await, Some(BranchState::Aborted));
}

/// Promise: whoever is told, the agent that owns the Redis asks its own hook.
#[tokio::test]
async fn a_standby_passes_on_what_a_hook_decides() {
    let redis = Redis::start().await;
    let (hook, asked) = Limit::new();
    let owner = Sidecar::with(&redis, hooked(hook)).await;
    let (hook, not_asked) = Limit::new();
    let standby = Sidecar::with(&redis, hooked(hook)).await;
    let vote = ask(&standby, 1, Mode::TwoPhase, &[], json!({"more": 5})).await;
    assert_eq!(yes(&vote), r#"[{"hook":{"owes":5}}]"#);
    assert_eq!((asked.load(Ordering::SeqCst), not_asked.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(owner.state(1).await, Some(BranchState::Prepared));
}

/// A counter in escrow has no value that a hook could stand on.
#[tokio::test]
async fn a_hook_does_not_read_what_is_in_escrow() {
    let service =
        Service::saying(|question, _| match question["reads"].as_array().unwrap().len() {
            0 => json!({"read": [{"cmd": ["GET", question["input"]]}]}),
            _ => json!({"reply": question["reads"]}),
        })
        .await;
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    for (n, key) in [(1, "sold"), (2, "other")] {
        let message = with_input(n, Mode::TwoPhase, &[&["INCR", "sold"]], &json!(key), WAIT_MS);
        let Message::Prepare(mut message) = message else { panic!("it prepares") };
        message.ops[0].escrow = true;
        let batch = batch("http://127.0.0.1:1", vec![Message::Prepare(message)]);
        let call = side.client.prepare_waiting(txid(n), WAIT_MS, &batch).await;
        if key == "sold" {
            let no = refused(call);
            assert_eq!(no.code, ErrorCode::HookInvalid);
            assert!(no.detail.contains("escrow"), "{}", no.detail);
        } else {
            assert_eq!(yes(&call), r#"[{"at_least":1,"at_most":1},{"hook":[null]}]"#);
        }
    }
}
