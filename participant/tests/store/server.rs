//! What happens to the server: restarts, lost scripts, lost data, no memory, a failing disk, unsafe settings.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, TxNumber};
use assent_common::outcome::{Aborted, Call};
use assent_common::wire::branch::Mode;
use assent_participant::store::{Store, StoreError, StoreOptions, StoreState};

use crate::harness::{
    Ask as _, CLEAN, DURABLE, Expected as _, NO_MARK, Redis, abort, assert_unlocked, commit,
    coordinator, ops, prepare, prepared, tx, vote,
};
use crate::wire::Wire;

#[tokio::test]
async fn a_script_flush_is_not_noticed() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1", "SADD s m"]).await);
    let () = plain.run(&["SCRIPT", "FLUSH"]).await;
    let next = prepare(tx(2), Mode::TwoPhase, ops(&["SADD t m", "SET c 2"]));
    let messages = vec![commit(tx(1)), abort(tx(3)), next];
    let mut answers = store.send(messages).await;
    vote(prepared(answers.remove(2)));
    assert_eq!(
        answers,
        [BranchAnswer::Applied(CLEAN), BranchAnswer::Aborted(Call::Applied(Aborted::Fenced))]
    );
}

#[tokio::test]
async fn a_vote_survives_a_killed_server_and_the_store_comes_back() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    redis.kill();
    // The first may have been sent into the void; after that it is known that nothing is sent.
    let _ = store.prepare(tx(2), &["SET b 1"]).await;
    let refusal = store.prepare(tx(3), &["SET b 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::RedisUnavailable);
    assert!(matches!(store.commit(tx(1)).await, Call::Unknown(_)));
    assert!(matches!(store.link().state(), StoreState::Disconnected(_)));
    redis.restart();
    while store.link().pulse().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.link().state(), StoreState::Ready);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(redis.plain().await.get("a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn flushed_data_is_quarantined_and_nothing_more_is_prepared() {
    let mut redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["FLUSHALL"]).await;
    let refusal = store.prepare(tx(2), &["SET b 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::Quarantined);
    assert!(matches!(store.link().state(), StoreState::Quarantined(_)));
    assert_eq!(store.commit(tx(1)).await.refused().code, ErrorCode::Quarantined);
    assert!(plain.data().await.is_empty());
    redis.restart();
    let _ = store.link().ping().await;
    assert_eq!(store.prepare(tx(3), &["GET a"]).await.refused().code, ErrorCode::Quarantined);
}

#[tokio::test]
async fn votes_that_are_missing_after_a_restart_are_noticed() {
    let mut redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    vote(store.prepare(tx(2), &["SET b 1"]).await);
    // As a restored backup would: the same incarnation, an earlier vote.
    let () = plain.run(&["HSET", "assent:ctl", "m:seq", "1"]).await;
    redis.restart();
    while store.link().ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(
        matches!(store.link().state(), StoreState::Quarantined(_)),
        "{:?}",
        store.link().state()
    );
    assert_eq!(store.prepare(tx(3), &["GET c"]).await.refused().code, ErrorCode::Quarantined);
    // What is there stays as it is until it is resynchronised: what came after it is missing.
    assert_eq!(store.commit(tx(1)).await.refused().code, ErrorCode::Quarantined);
}

/// Invariant 12 without a false alarm: a vote that comes over the connection that was given up, while the new one is
/// asked how far Redis is, is no vote that Redis has lost.
#[tokio::test(start_paused = true)]
async fn a_vote_under_way_on_the_old_connection_is_not_missed_on_the_new_one() {
    // The clock moves only when the test moves it: it stands while a blocking task runs.
    let (_running, until_dropped) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || until_dropped.recv());
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    wire.hold_replies_after("the-one");
    let mut options = StoreOptions::new(wire.url());
    options.response_timeout = Duration::from_secs(5);
    let store = Arc::new(Store::connect(options).await.unwrap());
    wire.hold_no_replies();
    // From here on nothing is loaded any more.
    vote(store.prepare(tx(9), &["SET z 1"]).await);
    let voting = tokio::spawn({
        let store = Arc::clone(&store);
        let message = prepare(tx(1), Mode::TwoPhase, ops(&["APPEND the-one 1"]));
        async move { store.execute(&coordinator(1), NO_MARK, vec![message]).await }
    });
    // The look is answered after a question is sent, and the vote goes out after both.
    let old = wire.link(0).await;
    old.holds_a_reply().await;
    old.hold_requests(true);
    let asking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.branch(tx(77).txid).await }
    });
    old.says(&tx(77).txid.to_string()).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    old.release_replies();
    old.says(&format!("s:{}", tx(1).txid)).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    // The question has waited for too long, so that its connection is given up; the vote has not.
    assert!(asking.await.unwrap().is_err());

    wire.hold_replies_after("m:seq");
    let reconnecting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.link().ping().await }
    });
    let new = wire.link(1).await;
    new.holds_a_reply().await;
    old.hold_requests(false);
    let voted = vote(prepared(voting.await.unwrap().remove(0)));
    assert_eq!(voted.seq, 2, "Redis had one vote when it was asked, and has two now");
    new.release_replies();
    reconnecting.await.unwrap().unwrap();
    assert_eq!(store.link().state(), StoreState::Ready);
    vote(store.prepare(tx(3), &["SET c 1"]).await);
}

/// Invariant 10: a marker may go only when the mark that takes its place is kept. An owner writes
/// the mark also where there is no memory for anything new, behind a deletion.
#[tokio::test]
async fn without_memory_the_mark_takes_the_place_of_the_markers_below_it() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let mark = left_markers(&store).await;
    let () = plain.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let message = prepare(tx(50), Mode::TwoPhase, ops(&["SET b 1"]));
    let refusal = prepared(store.execute(&coordinator(1), mark, vec![message]).await.remove(0));
    assert_eq!(refusal.refused().code, ErrorCode::RedisOutOfMemory);
    let () = plain.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    // Duplicates that come late, to an agent that has heard of no mark.
    let other = redis.store().await;
    for n in [0, 35, 36, 39] {
        let late = other.one_phase(tx(n), &["INCR a"]).await.refused();
        assert_eq!(late.code, ErrorCode::BelowLowWater, "{n}");
    }
    assert_eq!(plain.get("a").await.as_deref(), Some("36"));
}

/// Leaves 40 markers, and returns the mark above them.
pub(crate) async fn left_markers(store: &Store) -> TxNumber {
    for n in 0..36 {
        store.one_phase(tx(n), &["INCR a"]).await.done();
    }
    for n in 36..40 {
        store.abort(tx(n)).await.done();
    }
    TxNumber { epoch: Epoch(1), n: 40 }
}

#[tokio::test]
async fn without_memory_a_prepare_is_refused_and_a_commit_is_not() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let named = || StoreOptions { participant: "a".parse().ok(), ..StoreOptions::new(redis.url()) };
    let store = Store::connect(named()).await.unwrap();
    vote(store.prepare(tx(1), &["SET a 1", "RPUSH q x"]).await);
    vote(store.prepare(tx(2), &["SET b 1"]).await);
    let () = plain.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for call in [
        store.prepare(tx(3), &["SET c 1"]).await,
        store.one_phase(tx(4), &["DEL zz", "SET c 1"]).await,
        store.prepare(tx(5), &["INCRBYFLOAT c 1"]).await,
    ] {
        let refusal = call.refused();
        assert_eq!(refusal.code, ErrorCode::RedisOutOfMemory, "{}", refusal.detail);
    }
    // An agent that starts now carries out what was decided.
    drop(store);
    let store = Store::connect(named()).await.unwrap();
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(store.abort(tx(2)).await.done(), Aborted::Fenced);
    assert_eq!(store.abort(tx(9)).await.done(), Aborted::Fenced);
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
    assert_eq!(plain.get("c").await, None);
}

/// Promise *honest*: while every new transaction is aborted the agent does not call its Redis well.
#[tokio::test]
async fn a_redis_that_refuses_writes_is_noticed_while_nobody_asks() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let (store, mut plain) = (redis.store().await, redis.plain().await);
        store.link().pulse().await.unwrap();
        assert_eq!(store.link().refuses_writes(), None);
        for (n, (setting, code)) in
            (1..).zip([("maxmemory", "OOM "), ("min-replicas-to-write", "NOREPLICAS ")])
        {
            let () = plain.run(&["CONFIG", "SET", setting, "1"]).await;
            store.link().pulse().await.unwrap();
            let said = store.link().refuses_writes().unwrap_or_default();
            assert!(said.starts_with(code) && said.ends_with('.'), "{}: {said:?}", server.name);
            let refusal = store.prepare(tx(n), &["SET a 1"]).await.refused();
            let detail = &refusal.detail;
            assert!(detail.contains(said.trim_start_matches(code)), "{}: {detail}", server.name);
            for never in ["user_script", "\\"] {
                assert!(!detail.contains(never), "{}: {detail}", server.name);
            }
            let () = plain.run(&["CONFIG", "SET", setting, "0"]).await;
            store.link().pulse().await.unwrap();
            assert_eq!(store.link().refuses_writes(), None, "{}", server.name);
            let left: u64 = plain.run(&["EXISTS", "assent:ctl:probe"]).await;
            assert_eq!(left, 0, "{}", server.name);
        }
        vote(store.prepare(tx(9), &["SET a 1"]).await);
    }
}

#[tokio::test]
async fn a_redis_that_refuses_writes_refuses_definitely() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let refusal = store.prepare(tx(2), &["SET b 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::RedisRefuses, "{}", refusal.detail);
    let refusal = store.commit(tx(1)).await.refused();
    assert_eq!(refusal.code, ErrorCode::RedisRefuses, "{}", refusal.detail);
    let () = plain.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_unknown() {
    let redis = Redis::start();
    let mut options = StoreOptions::new(redis.url());
    options.response_timeout = Duration::from_millis(200);
    let (store, mut plain) = (Store::connect(options).await.unwrap(), redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["CLIENT", "PAUSE", "100000", "WRITE"]).await;
    let call = store.prepare(tx(2), &["SET b 1"]).await;
    // By scripts it has waited for the look: nothing was asked to be kept.
    let is_unsent = matches!(&call, Call::Refused(no) if no.code == ErrorCode::RedisUnavailable)
        && crate::BY_SCRIPT;
    assert!(matches!(call, Call::Unknown(_)) || is_unsent, "{call:?}");
    let () = plain.run(&["CLIENT", "UNPAUSE"]).await;
    // A failure is shared for a moment by those who come in it.
    while store.link().pulse().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    // Whatever became of it, the question ends it.
    store.abort(tx(2)).await.done();
    assert_unlocked(&store, &mut plain, &["a", "b"]).await;
}

#[tokio::test]
async fn an_unsafe_server_is_refused_with_the_fix_or_taken_with_a_warning() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let error = Store::connect(StoreOptions::new(redis.url())).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }));
    assert!(error.to_string().contains("redis-cli CONFIG SET appendfsync always"), "{error}");
    let mut options = StoreOptions::new(redis.url());
    options.allow_unsafe_redis = true;
    let store = Store::connect(options).await.unwrap();
    assert_eq!(store.link().warnings().len(), 1);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_without_its_password() {
    let options = StoreOptions::new("redis://:secret@127.0.0.1:1/");
    let error = Store::connect(options).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"));
    let error = Store::connect(StoreOptions::new("http://secret@x")).await.unwrap_err();
    assert!(matches!(error, StoreError::BadUrl { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn two_agents_on_one_redis_share_its_incarnation() {
    let redis = Redis::start();
    let (one, two) = tokio::join!(redis.store(), redis.store());
    assert_eq!(one.incarnation(), two.incarnation());
    vote(one.prepare(tx(1), &["SET a 1"]).await);
    assert_eq!(two.prepare(tx(2), &["GET a"]).await.refused().code, ErrorCode::LockConflict);
    assert_eq!(two.commit(tx(1)).await, CLEAN);
    assert_eq!(one.commit(tx(1)).await, CLEAN);
}

#[tokio::test]
async fn a_large_batch_is_cut_into_calls_and_answered_in_order() {
    let redis = Redis::start();
    let store = redis.store().await;
    let messages = (0..200).map(|n| {
        let line = format!("INCRBY k{n} {n}");
        prepare(
            tx(n),
            Mode::TwoPhase,
            ops(&[&line, "SADD shared-not 1"][..1 + usize::from(n == 7)]),
        )
    });
    let answers = store.send(messages.collect()).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let replies = vote(prepared(answer)).replies;
        assert!(replies.starts_with(&format!("[{n}")), "{n}: {replies}");
    }
}

/// Branches are known by txid only: with one control hash, two participants would take each other's for their own.
#[tokio::test]
async fn a_redis_of_another_participant_is_refused_and_its_own_agents_share_it() {
    let redis = Redis::start();
    let options = |name: &str| {
        let mut options = StoreOptions::new(redis.url());
        options.participant = Some(name.parse().unwrap());
        options
    };
    let _first = Store::connect(options("bank-a")).await.unwrap();
    let _second = Store::connect(options("bank-a")).await.unwrap();
    let error = Store::connect(options("bank-b")).await.unwrap_err();
    assert!(matches!(error, StoreError::Claimed { .. }));
    assert!(error.to_string().contains("belongs to participant bank-a"), "{error}");
}

#[tokio::test]
async fn every_server_keeps_a_vote_over_its_death() {
    for server in assent_servers::all() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = redis.store().await;
        vote(store.prepare(tx(1), &["SET a 1"]).await);
        drop(store);
        redis.restart();
        let store = redis.store().await;
        assert_eq!(store.commit(tx(1)).await, CLEAN, "{}", server.name);
        assert_eq!(redis.plain().await.get("a").await.as_deref(), Some("1"), "{}", server.name);
    }
}
