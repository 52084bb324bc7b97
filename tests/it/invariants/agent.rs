//! One agent, and messages said to it in the name of a log.

use assent_common::command::{Expect, OpRequest};
use assent_common::ids::TxNumber;
use assent_common::outcome::{Aborted, Applied, Call, Prepared};
use assent_common::value::Arg;
use assent_common::{Epoch, ErrorCode};
use assent_process::{Assent, Port};
use assent_servers::file;
use assent_tests::cluster::{participant_args, restart};
use assent_tests::link::{Fault, Which};
use assent_tests::messenger::Messenger;
use assent_tests::{Cluster, Options, audit, plain, wait_for};

use super::{is_dropped, wait_asked};
use crate::ASSENT;

/// A command that the script evaluates.
const SCRIPTED: [&str; 4] = ["HINCRBY", "h", "n", "1"];

async fn one_agent(linked: bool) -> (Cluster, Messenger) {
    let options = Options { participants: vec!["bank-a"], linked, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let log = Messenger::new(&cluster.peers[0], &cluster.http);
    (cluster, log)
}

/// An agent that writes by `EXEC`, and one that writes by scripts.
async fn both_ways() -> [(Cluster, Messenger); 2] {
    let by_exec = one_agent(false).await;
    let (mut by_script, log) = one_agent(false).await;
    plain::forbid_watch(&by_script.peers[0].redis).await.unwrap();
    restart(&mut by_script.peers[0].agent).await;
    [by_exec, (by_script, log)]
}

fn is_yes(call: &Call<Prepared>) -> bool {
    matches!(call, Call::Applied(Prepared::Yes(_)))
}

fn code<T: std::fmt::Debug>(call: Call<T>) -> ErrorCode {
    match call {
        Call::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Invariant 2: a yes leaves the agent only after Redis has acknowledged the vote.
#[tokio::test]
async fn a_vote_that_redis_did_not_get_is_no_yes() {
    let (cluster, log) = one_agent(true).await;
    let link = cluster.peers[0].redis_link.clone().unwrap();
    link.set(Fault::CutBefore(Which::With("MULTI")));
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(matches!(voted, Call::Unknown(_)), "a vote that is nowhere: {voted:?}");
    assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
    link.set(Fault::None);
    wait_for("the same prepare to be taken", || async {
        let voted = log.prepare(1, &["INCR", "n"]).await;
        if is_yes(&voted) { Ok(()) } else { Err(format!("{voted:?}")) }
    })
    .await;
}

/// Invariant 2: a power cut has torn the file inside a commit. What is acknowledged from then on is in it too.
#[tokio::test]
async fn a_vote_behind_a_torn_commit_outlives_the_next_crash_of_redis() {
    let (mut cluster, log) = one_agent(false).await;
    assert!(is_yes(&log.prepare(1, &["SADD", "s", "member"]).await));
    assert_eq!(log.commit(1).await, Call::Applied(Applied { dirty_writes: 0 }));
    // Nobody heard of the commit, whose answer went with the agent.
    let peer = &mut cluster.peers[0];
    peer.agent.kill9();
    peer.redis.kill9();
    file::tear(&file::appended(peer.redis.dir()), "member");
    peer.redis.restart().await.unwrap();
    restart(&mut peer.agent).await;
    let voted = voted_at_last(&log).await;
    assert!(is_yes(&voted), "{voted:?}");
    let redis = &mut cluster.peers[0].redis;
    redis.kill9();
    redis.restart().await.unwrap();
    let again = voted_at_last(&log).await;
    assert!(is_yes(&again), "an acknowledged vote is gone: {again:?}");
}

/// What is said to a prepare when Redis can be used again.
async fn voted_at_last(log: &Messenger) -> Call<Prepared> {
    wait_for("Redis to be used again", || async {
        match log.prepare(2, &["SET", "k", "v"]).await {
            Call::Refused(refusal) if refusal.code == ErrorCode::RedisUnavailable => {
                Err(refusal.detail)
            }
            Call::Unknown(why) => Err(why),
            voted => Ok(voted),
        }
    })
    .await
}

/// Invariants 3 and 13: what a branch has read or written under its vote is locked until its outcome.
#[tokio::test]
async fn what_a_vote_rests_on_stays_locked_until_its_outcome() {
    for (cluster, log) in both_ways().await {
        plain::run::<()>(&cluster.peers[0].redis, &["HSET", "h", "n", "7", "m", "1"]).await;
        for (n, words) in [(1, &["HGET", "h", "n"][..]), (3, &SCRIPTED)] {
            let voted = log.prepare(n, words).await;
            assert!(is_yes(&voted), "{voted:?}");
            let other = log.prepare(n + 1, &SCRIPTED).await;
            assert_eq!(code(other), ErrorCode::LockConflict, "after {words:?}");
            log.abort(n).await;
            log.abort(n + 1).await;
        }
        assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
    }
}

/// A sale of one from the stock, in escrow.
fn sale() -> OpRequest {
    let at_least_0 = Expect { ge: Some(Some(Arg::from("0"))), ..Expect::default() };
    let take_one = OpRequest::new(["DECRBY", "stock", "1"]);
    OpRequest { expect: Some(at_least_0), escrow: true, ..take_one }
}

/// Invariant 13: a claim in escrow is judged on what is left if all claims before it are committed.
#[tokio::test]
async fn two_claims_in_escrow_do_not_take_the_last_one_both() {
    for (cluster, log) in both_ways().await {
        plain::run::<()>(&cluster.peers[0].redis, &["SET", "stock", "1"]).await;
        let first = log.prepare_op(1, sale()).await;
        assert!(is_yes(&first), "{first:?}");
        let second = log.prepare_op(2, sale()).await;
        assert!(!is_yes(&second), "two claims take the last one");
        assert_eq!(code(second), ErrorCode::LockConflict);
        log.abort(1).await;
        log.abort(2).await;
        let third = log.prepare_op(3, sale()).await;
        assert!(is_yes(&third), "{third:?}");
        assert_eq!(log.commit(3).await, Call::Applied(Applied { dirty_writes: 0 }));
        assert_eq!(plain::run::<i64>(&cluster.peers[0].redis, &["GET", "stock"]).await, 0);
    }
}

/// Invariant 8: of two claims in escrow, each is added to the counter once, in any order.
#[tokio::test]
async fn two_claims_in_escrow_both_count() {
    for (cluster, log) in both_ways().await {
        plain::run::<()>(&cluster.peers[0].redis, &["SET", "stock", "2"]).await;
        for n in [1, 2] {
            let voted = log.prepare_op(n, sale()).await;
            assert!(is_yes(&voted), "{voted:?}");
        }
        for n in [2, 1, 2] {
            assert_eq!(log.commit(n).await, Call::Applied(Applied { dirty_writes: 0 }));
        }
        let left = plain::run::<i64>(&cluster.peers[0].redis, &["GET", "stock"]).await;
        assert_eq!(left, 0, "two sales took {}", 2 - left);
    }
}

/// Invariant 6, as each way has it.
#[tokio::test]
async fn an_agent_refuses_a_prepare_behind_its_fence() {
    for (_cluster, log) in both_ways().await {
        assert_eq!(log.abort(1).await, Call::Applied(Aborted::Fenced));
        assert_eq!(code(log.prepare(1, &SCRIPTED).await), ErrorCode::Fenced);
    }
}

/// Invariant 6: the fence is in Redis, not in the agent that was told to leave it.
#[tokio::test]
async fn a_fence_outlives_its_agent() {
    let (mut cluster, log) = one_agent(false).await;
    assert_eq!(log.abort(1).await, Call::Applied(Aborted::Fenced));
    restart(&mut cluster.peers[0].agent).await;
    assert_eq!(code(log.prepare(1, &["INCR", "n"]).await), ErrorCode::Fenced);
}

/// Invariant 8: that a branch is applied is in Redis, not in the agent that did it.
#[tokio::test]
async fn a_done_marker_outlives_its_agent() {
    let (mut cluster, log) = one_agent(false).await;
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(is_yes(&voted), "{voted:?}");
    let applied = Call::Applied(Applied { dirty_writes: 0 });
    assert_eq!(log.commit(1).await, applied);
    restart(&mut cluster.peers[0].agent).await;
    assert_eq!(log.commit(1).await, applied, "it is not applied any more");
    assert_eq!(plain::run::<i64>(&cluster.peers[0].redis, &["GET", "n"]).await, 1);
}

/// Invariant 10: the mark under which markers were let go is in Redis, where the next agent finds it.
#[tokio::test]
async fn a_mark_outlives_its_agent() {
    // More than it takes for a mark to be worth storing.
    const FENCES: u64 = 40;
    for (mut cluster, mut log) in both_ways().await {
        let late = log.clone();
        for n in 1..=FENCES {
            assert_eq!(log.abort(n).await, Call::Applied(Aborted::Fenced));
        }
        log.low_water = TxNumber { epoch: Epoch(1), n: FENCES + 1 };
        assert_eq!(log.abort(FENCES + 1).await, Call::Applied(Aborted::Fenced));
        let redis = &cluster.peers[0].redis;
        let fields: Vec<String> = plain::run(redis, &["HKEYS", audit::CONTROL]).await;
        let fences = fields.iter().filter(|field| field.starts_with("a:")).count();
        assert_eq!(fences, 1, "the fences below the mark are let go");
        restart(&mut cluster.peers[0].agent).await;
        assert_eq!(code(late.prepare(5, &SCRIPTED).await), ErrorCode::BelowLowWater);
    }
}

/// Invariant 5, as each way has it.
#[tokio::test]
async fn an_agent_refuses_a_prepare_of_an_earlier_life() {
    for (_cluster, mut log) in both_ways().await {
        let old = log.clone();
        log.coordinator.epoch = Epoch(2);
        assert_eq!(log.abort(1).await, Call::Applied(Aborted::Fenced));
        assert_eq!(code(old.prepare(20, &SCRIPTED).await), ErrorCode::StaleEpoch);
    }
}

/// Invariant 7: a coordinator that never began a branch may not end it.
#[tokio::test]
async fn a_branch_of_another_log_is_not_ended_by_whoever_answers_at_its_address() {
    let options = Options { participants: vec!["bank-a"], proxied: true, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let asked = cluster.proxy.as_ref().unwrap();
    let mut log = Messenger::new(&cluster.peers[0], &cluster.http);
    log.coordinator.url = asked.url().to_owned();
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(is_yes(&voted), "{voted:?}");
    wait_asked(asked, 2, async || is_dropped(&cluster, "bank-a").await).await;
    assert!(!is_dropped(&cluster, "bank-a").await, "it was dropped");
    log.abort(1).await;
}

/// Invariants 12 and 13: an owner that has been passed by another agent writes nothing any more.
#[tokio::test]
async fn an_owner_that_another_agent_has_passed_writes_nothing() {
    let (cluster, log) = one_agent(true).await;
    let peer = &cluster.peers[0];
    let link = peer.redis_link.clone().unwrap();
    link.set(Fault::Hold("MULTI"));
    let voting = tokio::spawn({
        let log = log.clone();
        async move { log.prepare(1, &["INCR", "n"]).await }
    });
    link.wait_met(0, 1).await;

    let ports = Port::pair().unwrap();
    let arguments = participant_args("bank-a", &peer.redis.url(), &ports);
    let (binary, path) = (std::path::Path::new(ASSENT), cluster.dir().join("second.log"));
    let second = Assent::start("second", binary, arguments, &ports[0].url(), &path).await.unwrap();
    let other = Messenger::at(second.url(), peer.name, &cluster.http);
    // Until it is taken for gone, the owner is passed what it does not answer.
    let first_vote = wait_for("the second agent to take over", || async {
        let voted = other.prepare(1, &["INCR", "n"]).await;
        if is_yes(&voted) { Ok(voted) } else { Err(format!("{voted:?}")) }
    })
    .await;
    link.set(Fault::None);
    let second_vote = voting.await.unwrap();
    assert!(!is_yes(&second_vote), "two branches hold one lock: {first_vote:?}, {second_vote:?}");
}

/// Invariants 3 and 8: what an owner has voted for holds its locks, and is applied, also when
/// another agent owns the Redis.
#[tokio::test]
async fn what_an_owner_voted_for_binds_its_successor() {
    let (mut cluster, log) = one_agent(false).await;
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(is_yes(&voted), "{voted:?}");
    let peer = &cluster.peers[0];
    let ports = Port::pair().unwrap();
    let arguments = participant_args("bank-a", &peer.redis.url(), &ports);
    let (binary, path) = (std::path::Path::new(ASSENT), cluster.dir().join("second.log"));
    let second = Assent::start("second", binary, arguments, &ports[0].url(), &path).await.unwrap();
    let mut other = Messenger::at(second.url(), "bank-a", &cluster.http);
    other.coordinator = log.coordinator.clone();
    cluster.peers[0].agent.kill9();
    let second_vote = wait_for("the second agent to take over", || async {
        match other.prepare(2, &["INCR", "n"]).await {
            Call::Unknown(why) => Err(why),
            voted => Ok(voted),
        }
    })
    .await;
    assert!(!is_yes(&second_vote), "two branches hold one lock: {second_vote:?}");
    assert_eq!(code(second_vote), ErrorCode::LockConflict);
    assert_eq!(other.commit(1).await, Call::Applied(Applied { dirty_writes: 0 }));
    assert_eq!(plain::run::<i64>(&cluster.peers[0].redis, &["GET", "n"]).await, 1);
}

/// Invariant 13: the end of a branch frees its own locks, and leaves those of another branch.
#[tokio::test]
async fn the_end_of_a_branch_leaves_the_lock_of_another() {
    for (mut cluster, log) in both_ways().await {
        for n in [1, 2] {
            let voted = log.prepare(n, &["GET", "n"]).await;
            assert!(is_yes(&voted), "{voted:?}");
        }
        assert_eq!(log.commit(1).await, Call::Applied(Applied { dirty_writes: 0 }));
        for (n, is_successor) in [(3, false), (4, true)] {
            if is_successor {
                restart(&mut cluster.peers[0].agent).await;
            }
            let refusal = log.prepare(n, &["INCR", "n"]).await.refused().cloned();
            let holder = refusal.and_then(|refusal| Some(refusal.holder?.txid));
            assert_eq!(holder, Some(log.txid(2)), "the lock of another branch is gone");
        }
        assert_eq!(log.commit(2).await, Call::Applied(Applied { dirty_writes: 0 }));
        assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
    }
}

/// Invariant 12: an agent that nobody speaks to does not go on with open data that did not come of
/// its own, by a repair.
#[tokio::test]
async fn open_data_of_another_history_is_not_taken_for_repaired() {
    let (mut cluster, log) = one_agent(false).await;
    // One that knows nothing of the data would let the agent take any.
    cluster.coordinator.kill9();
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(is_yes(&voted), "{voted:?}");
    let mut redis = plain::connect(&cluster.peers[0].redis).await.unwrap();
    let mut other = redis::pipe();
    other.atomic().cmd("FLUSHALL").cmd("HSET").arg("assent:ctl").arg("m:name").arg("bank-a");
    other.arg("m:inc").arg(77).arg("m:seq").arg(9_000_000).arg("m:of").arg("5 6");
    let () = other.query_async(&mut redis).await.unwrap();
    let client = cluster.peers[0].client(&cluster.http);
    wait_for("the other data to be noticed", || async {
        let probe = client.readyz().await.map_err(|why| why.0)?;
        let is_noticed = probe.text.contains("data failing") && probe.text.contains("77");
        if is_noticed { Ok(()) } else { Err(probe.text) }
    })
    .await;
}
