//! The background tasks while Redis is down for longer than one try: they go on when it is back (promise *finishing*).

use assent_client::participant::ProbeState;
use assent_common::outcome::Call;
use assent_common::wire::branch::{Batch, BranchState};
use assent_common::{Epoch, ErrorCode, TxNumber};

use crate::harness::{
    Oracle, Redis, Sidecar, abort, batch, commit, counting, implicit, prepare, txid, until,
};

/// Milliseconds that no test lasts.
const NEVER_MS: u64 = 3_600_000;

/// As an orchestrator's does, all the time.
async fn a_probe_notices(sidecar: &Sidecar) {
    until("a probe fails", async || {
        let probe = sidecar.client.readyz().await.unwrap();
        (probe.state == ProbeState::Failing).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_resolver_outlives_an_outage_of_redis() {
    let mut redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, |options| {
        options.resolve_interval_ms = 20;
        options.sweep_interval_ms = NEVER_MS;
    })
    .await;
    let oracle = Oracle::saying(503, "text/plain", "starting".to_owned()).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    oracle.asked(1).await;
    let outage = redis.outage();
    a_probe_notices(&sidecar).await;
    outage.breaks(2).await;
    // Told the outcome, it cannot carry it out either.
    oracle.says(1, "committed");
    outage.breaks(3).await;
    drop(outage);
    redis.start_again().await;
    until("what was in doubt is applied", async || {
        (sidecar.state(1).await == Some(BranchState::Applied)).then_some(())
    })
    .await;
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));
    // It also finds what comes later.
    oracle.says(2, "aborted");
    sidecar.say_for(&oracle.url, vec![prepare(2, [&["SET", "k", "w"]])]).await;
    until("a later branch is dropped", async || {
        (sidecar.state(2).await == Some(BranchState::Aborted)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_sweeper_outlives_an_outage_of_redis() {
    let mut redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, |options| {
        options.resolve_interval_ms = NEVER_MS;
        options.sweep_interval_ms = 10;
    })
    .await;
    sidecar.say(vec![abort(9)]).await;
    assert_eq!(redis.control("a:").await.len(), 1);
    let outage = redis.outage();
    a_probe_notices(&sidecar).await;
    outage.breaks(3).await;
    drop(outage);
    redis.start_again().await;
    assert_eq!(redis.control("a:").await.len(), 1, "nothing says yet that it may go");
    let low_water = TxNumber { epoch: Epoch(3), n: 10 };
    let mark = Batch { low_water, ..batch("http://127.0.0.1:1", vec![abort(11)]) };
    sidecar.client.batch(&mark).await.unwrap();
    until("what is below the mark is swept", async || {
        let fences = redis.control("a:").await;
        fences.iter().all(|fence| !fence.ends_with(".9.0")).then_some(())
    })
    .await;
}

/// Invariant 12: nobody says anything to this agent, and it tells at once that its Redis was flushed.
#[tokio::test]
async fn data_that_is_lost_while_nobody_asks_is_noticed_and_fenced() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    sidecar.say(vec![prepare(1, [&["SET", "k", "v"]]), commit(1)]).await;
    let before = sidecar.client.data().await.unwrap();
    assert!(!before.fenced, "{before:?}");
    redis.flush().await;
    a_probe_notices(&sidecar).await;
    let found = sidecar.client.data().await.unwrap();
    assert!(found.fenced && found.incarnation.is_none(), "{found:?}");
    assert!(found.reason.unwrap().contains("flushed"));
}

/// Its connections are open, and nothing comes back: neither health nor the metrics take that for well.
#[tokio::test]
async fn a_redis_that_hangs_is_told_by_health_and_by_metrics() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, counting("hangs")).await;
    let shows = async |metric: &str, value: &str| {
        let line = format!("{metric}{{participant=\"hangs\"}} {value}");
        until(&line, async || {
            let text = sidecar.admin.metrics().await.unwrap();
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
    };
    shows("assent_redis_up", "1").await;
    shows("assent_branches_in_doubt", "0").await;
    redis.pause();
    shows("assent_redis_up", "0").await;
    // How many there are is not known: that is not none.
    shows("assent_branches_in_doubt", "NaN").await;
    let probe = sidecar.client.readyz().await.unwrap();
    assert_eq!(probe.state, ProbeState::Failing);
    assert!(probe.text.contains("[-] redis failing: no answer within 1s"), "{}", probe.text);
    redis.resume();
    shows("assent_redis_up", "1").await;
}

/// The repair waits for the word of each log that has spoken here, in whatever way.
#[tokio::test]
async fn a_log_whose_waiting_prepare_is_refused_owes_its_word() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    redis.flush().await;
    until("the loss is noticed", async || {
        sidecar.client.data().await.unwrap().fenced.then_some(())
    })
    .await;
    let refused = sidecar.prepare(1, 60, &["GET", "k"]).await;
    assert!(
        matches!(&refused, Call::Refused(no) if no.code == ErrorCode::Quarantined),
        "{refused:?}"
    );
    assert_eq!(sidecar.client.data().await.unwrap().owed, [txid(1).log_id]);
}

/// A server that will be fit in time is waited for: nobody needs to start the agent again.
#[tokio::test]
async fn an_agent_that_starts_waits_for_the_first_rewrite() {
    let redis = Redis::with_file("no").await;
    for key in ["a", "b", "c"] {
        let () = redis.ask(&["SET", key, "1"]).await.unwrap();
    }
    // Longer than the test runs.
    redis.set_config("rdb-key-save-delay", "1000000000").await;
    redis.set_config("appendonly", "yes").await;
    let () = redis.ask(&["CONFIG", "RESETSTAT"]).await.unwrap();
    let looked_twice = until("the agent looks again", async || {
        let stats: String = redis.ask(&["INFO", "commandstats"]).await.unwrap();
        let calls = stats.split_once("cmdstat_eval:calls=")?.1.split_once(',')?.0;
        (calls.parse::<u64>().unwrap() > 1).then_some(())
    });
    let mut starting = std::pin::pin!(Sidecar::start(&redis));
    tokio::select! {
        _ = &mut starting => panic!("it serves without a file"),
        () = looked_twice => {}
    }
    redis.set_config("appendonly", "no").await;
    redis.set_config("rdb-key-save-delay", "0").await;
    redis.set_config("appendonly", "yes").await;
    let sidecar = starting.await;
    let answers = sidecar.say(vec![prepare(1, [&["SET", "k", "v"]])]).await;
    assert_eq!(answers[0].code, None, "{answers:?}");
}

/// An agent whose user has lost a right is not ready, and says which; it is again with the right.
#[tokio::test]
async fn a_probe_names_the_right_that_was_lost() {
    let redis = Redis::start().await;
    let acl = async |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "agent"], rules].concat();
        redis.ask::<()>(&words).await.unwrap();
    };
    acl(&["on", ">pw", "~*", "&*", "+@all"]).await;
    let url = format!("{}?user=agent&pass=pw", redis.url());
    let sidecar = Sidecar::with(&redis, |options| options.store.url = url).await;
    let probes = async |what: &str, state: ProbeState, named: &str| {
        until(what, async || {
            let probe = sidecar.client.readyz().await.unwrap();
            (probe.state == state && probe.text.contains(named)).then_some(())
        })
        .await;
    };
    probes("it is ready", ProbeState::Ok, "ready").await;
    acl(&["-hset"]).await;
    probes("it names the right", ProbeState::Failing, "ACL SETUSER agent +hset").await;
    let answers = sidecar.say(vec![implicit(1)]).await;
    assert_eq!(answers[0].code, Some(ErrorCode::RedisNoPermission), "{answers:?}");
    acl(&["+hset"]).await;
    probes("it is ready again", ProbeState::Ok, "ready").await;
}

/// What was decided goes on without memory, so that the agent stays ready; it says that nothing new
/// is taken, for as long as it is so.
#[tokio::test]
async fn a_probe_names_a_redis_that_refuses_writes() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let probes = async |what: &str, named: &str| {
        until(what, async || {
            let probe = sidecar.client.readyz().await.unwrap();
            assert_eq!(probe.state, ProbeState::Ok, "{}", probe.text);
            probe.text.contains(named).then_some(())
        })
        .await;
    };
    probes("its Redis is well", "[+] redis ok").await;
    redis.set_config("maxmemory", "1").await;
    probes("it names the refusal", "[!] redis warning: refuses writes: OOM ").await;
    redis.set_config("maxmemory", "0").await;
    probes("its Redis is well again", "[+] redis ok").await;
}

/// Before the first transaction the agent itself needs to write: it is refused with the same codes
/// as a transaction is later.
#[tokio::test]
async fn what_redis_refuses_before_the_first_transaction_is_said_with_its_code() {
    for (setting, code) in [
        ("maxmemory", ErrorCode::RedisOutOfMemory),
        ("min-replicas-to-write", ErrorCode::RedisRefuses),
    ] {
        let redis = Redis::start().await;
        let sidecar = Sidecar::start(&redis).await;
        redis.set_config(setting, "1").await;
        let answers = sidecar.say(vec![prepare(1, [&["SET", "k", "v"]])]).await;
        assert_eq!(answers[0].code, Some(code), "{setting:?}: {answers:?}");
    }
}
