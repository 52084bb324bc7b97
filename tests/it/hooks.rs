//! A hook on real processes: a limit that a customer's debts have over all accounts.

use std::time::Duration;

use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_common::crash::CrashPoint;
use assent_common::limits;
use assent_common::time::DurationMs;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::TransactionRequest;
use assent_process::Port;
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::hook::serve_hook;
use assent_tests::limit::{ACCOUNTS, Debt, LIMIT, LimitService, check_debts, sum};
use assent_tests::{Cluster, Options, Told, aof, plain, wait_for, wait_settled};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ASSENT;

async fn cluster() -> (Cluster, LimitService) {
    let service = LimitService::start().await;
    let options = Options { participant: service.arguments(), ..Options::default() };
    (Cluster::start(ASSENT, options).await, service)
}

fn debt(key: &str, amount: i64) -> Debt {
    Debt { key: key.to_owned(), customer: 0, account: 0, amount, is_counted: true }
}

fn asking(debt: &Debt, api: &CoordinatorClient) -> JoinHandle<Told> {
    let (debt, api) = (debt.clone(), api.clone());
    tokio::spawn(async move { debt.insist(&api).await })
}

fn aborted(error: SubmitError) -> Problem {
    match error {
        SubmitError::Aborted(problem) => *problem,
        error => panic!("{error:?}"),
    }
}

/// Promise *once*: what a hook replies comes back with every answer of its transaction, and the
/// hook decides once for all of them.
#[tokio::test]
async fn what_a_hook_replies_is_in_every_answer() {
    let (mut cluster, service) = cluster().await;
    for is_counted in [true, false] {
        let debt = Debt { is_counted, ..debt(&format!("counted: {is_counted}"), 30) };
        let decided = service.decided();
        let first = debt.ask(&cluster.api).await.unwrap();
        assert_eq!(first.outcome, OutcomeWord::Committed);
        let owes = if is_counted { 30 } else { 60 };
        let reply = |view: &assent_common::wire::transaction::TransactionView| {
            let reply = view.branches[0].hook_reply().unwrap();
            serde_json::from_str::<Value>(reply.get()).unwrap()
        };
        assert_eq!(reply(&first), json!({"owes": owes}));
        wait_settled(&cluster).await;
        restart(&mut cluster.coordinator).await;
        let again = debt.ask(&cluster.api).await.unwrap();
        assert_eq!(reply(&again), reply(&first));
        let shown = cluster.api.transaction(first.id, None).await.unwrap();
        assert_eq!(reply(&shown), reply(&first));
        assert_eq!(service.decided(), decided + 1);
    }
}

#[tokio::test]
async fn a_veto_aborts_all_branches_and_says_why() {
    let (cluster, _service) = cluster().await;
    for is_counted in [true, false] {
        let too_much = Debt { is_counted, ..debt(&format!("counted: {is_counted}"), LIMIT + 1) };
        for _ in 0..2 {
            let problem = aborted(too_much.ask(&cluster.api).await.unwrap_err());
            assert_eq!(problem.code, ErrorCode::Vetoed);
            assert_eq!(problem.participant.as_deref(), Some("bank-a"));
            let veto = problem.veto().unwrap();
            assert_eq!(veto.code, "limit_exceeded");
            assert_eq!(veto.reason, "customer 0 owes 0 of 100");
        }
        wait_settled(&cluster).await;
        check_debts(&cluster, &[(too_much, Told::Aborted(ErrorCode::Vetoed))]).await;
    }
}

/// Promise *honest*: who runs the agent reads in its log that the hook is at fault, and no value.
#[tokio::test]
async fn an_answer_that_cannot_be_used_is_in_the_log_of_the_agent() {
    for (answer, logged) in [
        (json!({"commit": "secret"}), "unknown field `commit`"),
        (json!({"ops": [{"cmd": ["INCRBY", "k", "secret"]}]}), "an op of it is refused"),
    ] {
        let saying = move |_| std::future::ready(answer.clone());
        let url: &str = Box::leak(serve_hook(saying).await.into_boxed_str());
        let options = Options { participant: vec!["--hook-url", url], ..Options::default() };
        let cluster = Cluster::start(ASSENT, options).await;
        let problem = aborted(debt("one", 30).ask(&cluster.api).await.unwrap_err());
        assert_eq!(problem.code, ErrorCode::HookInvalid, "{problem:?}");
        let log = cluster.dir().join("bank-a.log");
        wait_for("the agent to log it", async || {
            let log = std::fs::read_to_string(&log).unwrap();
            assert!(!log.contains("secret"), "{log}");
            let is_said = log.contains("the hook's answer cannot be used") && log.contains(logged);
            if is_said { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

/// Promise *isolated*: a hook decides on what is still so when its branch commits.
#[tokio::test]
async fn a_limit_over_several_keys_holds() {
    let (cluster, service) = cluster().await;
    service.close();
    let first = asking(&debt("first", 60), &cluster.api);
    service.comes_to_decide(1).await;
    // Nothing is locked while it thinks.
    let other = Transaction::new().branch("bank-a", |ops| ops.op(["SET", "owes:0:2", "60"]));
    cluster.api.submit(&other.build().unwrap(), None, None).await.unwrap();
    service.open();
    let told = first.await.unwrap();
    assert_eq!(told, Told::Aborted(ErrorCode::Vetoed), "the limit is broken");
    assert_eq!(service.decided(), 2);
}

/// Promise *isolated*, and nobody waits for it: what a transaction changes elsewhere is locked when
/// its hook has said yes.
#[tokio::test]
async fn the_other_branches_are_free_while_a_hook_thinks() {
    let (cluster, service) = cluster().await;
    service.close();
    let slow = debt("slow", 60);
    let waiting = asking(&slow, &cluster.api);
    service.comes_to_decide(1).await;
    let add = Transaction::new().branch("bank-b", |ops| ops.op(["INCRBY", "total:0", "5"]));
    let added = cluster.api.submit(&add.build().unwrap(), None, None).await;
    assert_eq!(added.expect("nobody holds the key").outcome, OutcomeWord::Committed);
    service.open();
    assert!(waiting.await.unwrap().is_committed());
    wait_settled(&cluster).await;
    let total = plain::run::<i64>(&cluster.peers[1].redis, &["GET", "total:0"]).await;
    assert_eq!(total, 65);
}

/// A slow hook holds back its own transaction only, also when its coordinator dies meanwhile.
#[tokio::test]
async fn a_coordinator_that_dies_while_a_hook_thinks_leaves_one_outcome() {
    let (mut cluster, service) = cluster().await;
    service.close();
    let slow = debt("slow", 60);
    let waiting = asking(&slow, &cluster.api);
    service.comes_to_decide(1).await;
    let quick = Transaction::new()
        .branch("bank-a", |ops| ops.op(["INCR", "n"]))
        .branch("bank-b", |ops| ops.op(["INCR", "n"]));
    cluster.api.submit(&quick.build().unwrap(), None, None).await.unwrap();
    restart(&mut cluster.coordinator).await;
    service.open();
    let told = waiting.await.unwrap();
    wait_settled(&cluster).await;
    check_debts(&cluster, &[(slow, told)]).await;
}

/// What a participant cannot hold it refuses by name, and what it holds goes on.
#[tokio::test]
async fn more_hooks_than_may_be_asked_at_once_are_overloaded() {
    let (cluster, service) = cluster().await;
    service.close();
    let ask = |customer: usize| {
        let debt = Debt { customer, is_counted: false, ..debt(&customer.to_string(), 1) };
        let timeout = Some(DurationMs(60_000));
        let (api, request) = (cluster.api.clone(), debt.request());
        let request = TransactionRequest { timeout, ..request };
        tokio::spawn(async move { api.submit(&request, None, None).await })
    };
    let most = limits::HOOKS_IN_FLIGHT_MAX;
    let waiting: Vec<_> = (0..most).map(ask).collect();
    service.comes_to_decide(u64::try_from(most).unwrap()).await;
    let one_more = aborted(ask(most).await.unwrap().unwrap_err());
    assert_eq!(one_more.code, ErrorCode::Overloaded, "{}", one_more.detail);
    service.open();
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap().outcome, OutcomeWord::Committed);
    }
    let again = ask(most).await.unwrap().unwrap();
    assert_eq!(again.outcome, OutcomeWord::Committed, "there is room again");
}

/// By the port for Redis clients: a veto is a false expectation.
#[tokio::test]
async fn a_redis_client_sends_an_input() {
    let service = LimitService::start().await;
    let port = Port::take().unwrap();
    let address: &'static str = Box::leak(port.address().into_boxed_str());
    let coordinator = vec!["--resp-listen", address, "--route", "b:*=bank-b"];
    let participant = service.arguments();
    let options = Options { coordinator, participant, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let client = redis::Client::open(format!("redis://{address}/")).unwrap();
    let mut client = client.get_multiplexed_async_connection().await.unwrap();
    let input = |key: &str, amount: i64| {
        json!({"key": key, "customer": 0, "account": 1, "amount": amount}).to_string()
    };
    let exec = async |input: String| -> redis::RedisResult<redis::Value> {
        let mut client = client.clone();
        for words in [&["MULTI"][..], &["SET", "b:x", "1"], &["ASSENT.INPUT", "bank-a", &input]] {
            let () = plain::command(words).query_async(&mut client).await?;
        }
        plain::command(&["EXEC"]).query_async(&mut client).await
    };
    let replies = exec(input("a", 70)).await.unwrap();
    let replies: (String, String) = redis::from_redis_value(replies).unwrap();
    assert_eq!(replies, ("OK".to_owned(), r#"{"owes":70}"#.to_owned()));
    let error = exec(input("b", 70)).await.unwrap_err().to_string();
    assert!(error.contains("EXPECTATIONFAILED") && error.contains("limit_exceeded"), "{error}");
    let wrong = exec("{".to_owned()).await.unwrap_err().to_string();
    assert!(wrong.contains("no JSON"), "{wrong}");
    let discarded = plain::command(&["EXEC"]).query_async::<()>(&mut client).await.unwrap_err();
    assert!(discarded.to_string().contains("previous errors"), "{discarded}");
    let outside = plain::command(&["ASSENT.INPUT", "bank-a", "1"]);
    let outside = outside.query_async::<()>(&mut client).await.unwrap_err();
    assert!(outside.to_string().contains("between MULTI and EXEC"), "{outside}");
    wait_settled(&cluster).await;
}

/// Which processes die here, and where.
pub(crate) const COVERED: &[CrashPoint] =
    &[CrashPoint::BeforeHook, CrashPoint::InHook, CrashPoint::AfterHook];

/// The participant dies at the point, comes back, and the debt has one outcome.
async fn crash_at(point: CrashPoint, is_counted: bool) {
    let (mut cluster, _service) = cluster().await;
    arm(&mut cluster.peers[0].agent, point.as_str()).await;
    let the_one = Debt { is_counted, ..debt("the one", 60) };
    let waiting = asking(&the_one, &cluster.api);
    wait_crashed(&mut cluster.peers[0].agent).await;
    restart(&mut cluster.peers[0].agent).await;
    let told = waiting.await.unwrap();
    for _ in 0..3 {
        assert_eq!(the_one.insist(&cluster.api).await, told, "the answer has changed");
    }
    let after = debt("after", 30);
    let told_after = after.insist(&cluster.api).await;
    assert!(told_after.is_committed(), "what comes after it: {told_after:?}");
    wait_settled(&cluster).await;
    check_debts(&cluster, &[(the_one, told), (after, told_after)]).await;
}

macro_rules! dies {
    ($($name:ident: $point:ident, $is_counted:literal;)+) => {
        $(#[tokio::test]
        async fn $name() {
            crash_at(CrashPoint::$point, $is_counted).await;
        })+
    };
}

// Promises *atomic*, *once*, *finishing*, as in the crash matrix.
dies! {
    a_participant_that_dies_before_its_hook_is_asked_leaves_one_outcome: BeforeHook, true;
    a_participant_that_dies_while_its_hook_reads_leaves_one_outcome: InHook, true;
    a_participant_that_dies_after_its_hook_has_decided_leaves_one_outcome: AfterHook, true;
    a_participant_that_dies_before_the_hook_of_its_only_phase_leaves_one_outcome: BeforeHook, false;
    a_participant_that_dies_in_the_hook_of_its_only_phase_leaves_one_outcome: InHook, false;
    a_participant_that_dies_after_the_hook_of_its_only_phase_leaves_one_outcome: AfterHook, false;
}

const CLIENTS: usize = 6;
const CUSTOMERS: usize = 2;

/// One client: debts that are made and paid, each insisted on, until it is told to stop.
async fn make_debts(
    name: usize,
    api: CoordinatorClient,
    ended: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
) -> Vec<(Debt, Told)> {
    let mut told = Vec::new();
    let mut random = name as u64 + 1;
    while !*stop.borrow() {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = |shift: u32, from: usize| usize::try_from(random >> shift).unwrap() % from;
        let debt = Debt {
            key: format!("{name}-{}", told.len()),
            customer: draw(33, CUSTOMERS),
            account: draw(37, ACCOUNTS),
            amount: [40, 25, 10, -20, -35][draw(41, 5)],
            is_counted: draw(45, 3) > 0,
        };
        let outcome = debt.insist(&api).await;
        told.push((debt, outcome));
        ended.send_modify(|count| *count += 1);
    }
    told
}

/// Reads all accounts of a customer in one transaction, again and again.
async fn watch_limits(api: CoordinatorClient, stop: watch::Receiver<bool>) -> u64 {
    let mut seen = 0;
    while !*stop.borrow() {
        let customer = usize::try_from(seen).unwrap() % CUSTOMERS;
        let keys = (0..ACCOUNTS).map(|account| format!("owes:{customer}:{account}"));
        let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        let read =
            Transaction::new().branch("bank-a", |ops| ops.op(words.iter().map(String::as_str)));
        match api.submit(&read.build().unwrap(), None, None).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => {
                let replies = view.branches[0].replies.as_ref().unwrap();
                let replies: Value = serde_json::from_str(replies.get()).unwrap();
                let owes = sum(&replies[0]);
                assert!(owes <= LIMIT, "the limit of {customer} is broken: {owes}");
                seen += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    seen
}

/// Promises *isolated*, *atomic*, *once*: under kills of everything, nobody ever owes more than the
/// limit, over all accounts, and what was told is what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_owes_more_than_the_limit_whoever_dies() {
    let (mut cluster, _service) = cluster().await;
    let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|name| {
            let debts = make_debts(name, cluster.api.clone(), ended.clone(), stop.subscribe());
            tokio::spawn(debts)
        })
        .collect();
    let watcher = tokio::spawn(watch_limits(cluster.api.clone(), stop.subscribe()));
    let progress = async |more: u64| {
        let before = *ended.borrow();
        wait_for("debts to end", || async {
            let count = *ended.borrow() - before;
            if count >= more { Ok(()) } else { Err(format!("{count} of {more}")) }
        })
        .await;
    };
    for _ in 0..2 {
        progress(20).await;
        restart(&mut cluster.peers[0].agent).await;
        progress(20).await;
        restart(&mut cluster.coordinator).await;
        progress(20).await;
        cluster.peers[0].redis.restart().await.unwrap();
        progress(20).await;
        restart(&mut cluster.peers[1].agent).await;
    }
    progress(20).await;
    stop.send_replace(true);
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.unwrap());
    }
    assert!(watcher.await.unwrap() > 10, "the limits were looked at");
    let vetoed = told.iter().filter(|(_, told)| *told == Told::Aborted(ErrorCode::Vetoed));
    assert!(vetoed.count() > 5, "a limit that is never met proves little");
    wait_settled(&cluster).await;
    check_debts(&cluster, &told).await;
}

/// What a hook has staged is in the log: a Redis that loses it gets it back, without the hook.
#[tokio::test]
async fn what_a_hook_staged_is_redone_after_a_loss() {
    let (mut cluster, service) = cluster().await;
    let mut told = Vec::new();
    let mut owe = async |api: &CoordinatorClient, debt: Debt| {
        let outcome = debt.insist(api).await;
        told.push((debt, outcome));
    };
    owe(&cluster.api, debt("first", 10)).await;
    wait_settled(&cluster).await;
    let backup = TempDir::with_prefix("assent-it-").unwrap();
    aof::copy(&mut cluster.peers[0].redis, backup.path()).unwrap();
    owe(&cluster.api, debt("lost", 20)).await;
    owe(&cluster.api, Debt { is_counted: false, ..debt("lost in one phase", 30) }).await;
    wait_settled(&cluster).await;
    let decided = service.decided();
    aof::put_back(&mut cluster.peers[0].redis, backup.path()).await.unwrap();
    wait_for("the debts to be back", || async {
        let found = plain::try_run::<Option<i64>>(&cluster.peers[0].redis, &["GET", "owes:0:0"]);
        let found = found.await.map_err(|error| error.to_string())?;
        if found == Some(60) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    wait_settled(&cluster).await;
    check_debts(&cluster, &told).await;
    assert_eq!(service.decided(), decided, "the log knows");
}
