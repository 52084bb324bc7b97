//! Commit and abort: duplicates, strangers, fences, marks.

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, TxNumber};
use assent_common::outcome::{Aborted, Applied, Call};
use assent_common::wire::branch::{BranchState, Mode};

use crate::harness::{
    Ask as _, CLEAN, Expected as _, NO_MARK, Redis, assert_unlocked, commit, coordinator, ops,
    prepare, prepared, tx, tx_of, vote,
};

#[tokio::test]
async fn a_commit_is_applied_once_however_often_it_comes() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["RPUSH q a"]).await);
    let twice = vec![commit(tx(1)), commit(tx(1))];
    store.send(twice).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.run::<u32>(&["LLEN", "q"]).await, 1);
    let done = store.abort(tx(1)).await.done();
    assert_eq!(done, Aborted::AlreadyCommitted("[]".into()));
}

#[tokio::test]
async fn a_commit_that_finds_nothing_says_that_the_branch_is_lost() {
    let redis = Redis::start();
    let store = redis.store().await;
    assert_eq!(store.commit(tx(1)).await.refused().code, ErrorCode::BranchLost);
    store.abort(tx(1)).await.done();
    assert_eq!(store.commit(tx(1)).await.refused().code, ErrorCode::Fenced);
}

#[tokio::test]
async fn an_abort_drops_what_is_staged_and_keeps_a_late_prepare_out() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1", "GET b"]).await);
    for _ in 0..2 {
        assert_eq!(store.abort(tx(1)).await.done(), Aborted::Fenced);
    }
    assert_eq!(store.abort(tx(2)).await.done(), Aborted::Fenced);
    for tx in [tx(1), tx(2)] {
        assert_eq!(store.prepare(tx, &["SET a 1"]).await.refused().code, ErrorCode::Fenced);
        assert_eq!(store.one_phase(tx, &["SET a 1"]).await.refused().code, ErrorCode::Fenced);
    }
    assert_unlocked(&store, &mut plain, &["a", "b"]).await;
    assert_eq!(plain.get("a").await, None);
    assert_eq!(store.branch(tx(2).txid).await.unwrap().unwrap().state, BranchState::Aborted);
}

#[tokio::test]
async fn writes_that_meet_foreign_data_are_counted_and_the_others_applied() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["RPUSH q a", "SET s 1", "HSET h f v"]).await);
    let () = plain.run(&["MSET", "q", "text", "s", "text"]).await;
    assert_eq!(store.commit(tx(1)).await, Call::Applied(Applied { dirty_writes: 1 }));
    assert_eq!(plain.get("s").await.as_deref(), Some("1"));
    assert_eq!(plain.run::<u32>(&["HLEN", "h"]).await, 1);
}

#[tokio::test]
async fn producers_and_consumers_of_a_queue_may_work_in_between() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["RPUSH", "q", "1", "2"]).await;
    vote(store.prepare(tx(1), &["RPUSH q mine", "XADD s * f v"]).await);
    let () = plain.run(&["RPUSH", "q", "3"]).await;
    let () = plain.run(&["LPOP", "q"]).await;
    let () = plain.run(&["XADD", "s", "*", "f", "other"]).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let queue: Vec<String> = plain.run(&["LRANGE", "q", "0", "-1"]).await;
    assert_eq!(queue, ["2", "3", "mine"]);
    assert_eq!(plain.run::<u32>(&["XLEN", "s"]).await, 2);
}

#[tokio::test]
async fn an_earlier_life_of_the_coordinator_is_refused() {
    let redis = Redis::start();
    let store = redis.store().await;
    let late = || prepare(tx_of(1, 2), Mode::TwoPhase, ops(&["SET b 1"]));
    let fresh = prepare(tx_of(2, 1), Mode::TwoPhase, ops(&["SET a 1"]));
    store.execute(&coordinator(2), NO_MARK, vec![fresh]).await;
    let refusal = prepared(store.send(vec![late()]).await.remove(0)).refused();
    assert_eq!(refusal.code, ErrorCode::StaleEpoch);
    // What the earlier life decided is still done.
    assert_eq!(store.commit(tx_of(1, 9)).await.refused().code, ErrorCode::BranchLost);
    let foreign = coordinator(2);
    let mut other_log = tx_of(2, 3);
    other_log.txid.log_id = assent_common::LogId(other_log.id.uuid());
    let message = prepare(other_log, Mode::TwoPhase, ops(&["GET a"]));
    let refusal = prepared(store.execute(&foreign, NO_MARK, vec![message]).await.remove(0));
    assert_eq!(refusal.refused().code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn marks_are_collected_below_the_low_water_mark_and_nothing_comes_back_there() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    for n in 0..40 {
        store.one_phase(tx(n), &["INCR a"]).await.done();
    }
    store.abort(tx(40)).await.done();
    let mark = |n| TxNumber { epoch: Epoch(1), n };
    let message = prepare(tx(50), Mode::TwoPhase, ops(&["GET b"]));
    vote(prepared(store.execute(&coordinator(1), mark(40), vec![message]).await.remove(0)));
    assert_eq!(plain.control("d:").await, Vec::<String>::new());
    assert_eq!(plain.control("a:").await.len(), 1);
    // Another agent, which has no memory of the mark, on the same Redis.
    let other = redis.store().await;
    let refusal = other.prepare(tx(39), &["INCR a"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::BelowLowWater);
    assert_eq!(other.commit(tx(39)).await.refused().code, ErrorCode::BelowLowWater);
    assert_eq!(other.abort(tx(39)).await.done(), Aborted::Fenced);
    assert_eq!(plain.control("a:").await.len(), 1);
    assert_eq!(plain.get("a").await.as_deref(), Some("40"));
    // A lower mark does not lower it.
    other.execute(&coordinator(1), mark(1), Vec::new()).await;
    assert_eq!(other.prepare(tx(38), &["GET z"]).await.refused().code, ErrorCode::BelowLowWater);
}

/// Both are true of an earlier life once the later one's mark is kept; only one tells that two coordinators run.
#[tokio::test]
async fn an_earlier_life_below_the_mark_is_told_that_its_epoch_is_stale() {
    let redis = Redis::start();
    let store = redis.store().await;
    for n in 0..40 {
        store.one_phase(tx(n), &["INCR a"]).await.done();
    }
    let mark = TxNumber { epoch: Epoch(2), n: 1 };
    let message = prepare(tx_of(2, 1), Mode::TwoPhase, ops(&["GET b"]));
    vote(prepared(store.execute(&coordinator(2), mark, vec![message]).await.remove(0)));
    // Through an agent that has no memory of the mark: Redis has it.
    let other = redis.store().await;
    assert_eq!(other.prepare(tx(50), &["GET b"]).await.refused().code, ErrorCode::StaleEpoch);
    assert_eq!(other.one_phase(tx(39), &["INCR a"]).await.refused().code, ErrorCode::StaleEpoch);
    assert_eq!(other.commit(tx(39)).await.refused().code, ErrorCode::BelowLowWater);
    let below = prepare(tx_of(2, 0), Mode::TwoPhase, ops(&["GET b"]));
    let refusal = prepared(other.execute(&coordinator(2), NO_MARK, vec![below]).await.remove(0));
    assert_eq!(refusal.refused().code, ErrorCode::BelowLowWater);
}

#[tokio::test]
async fn the_sweep_finds_what_another_agent_left() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    for n in 0..5 {
        store.abort(tx(n)).await.done();
    }
    drop(store);
    let store = redis.store().await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    let mark = TxNumber { epoch: Epoch(1), n: 3 };
    store.execute(&coordinator(1), mark, Vec::new()).await;
    assert_eq!(store.sweep().await.unwrap(), 3);
    assert_eq!(plain.control("a:").await.len(), 2);
    let other = redis.store().await;
    assert_eq!(other.prepare(tx(2), &["GET a"]).await.refused().code, ErrorCode::BelowLowWater);
    other.forget(tx(3).txid).await.unwrap();
    assert_eq!(plain.control("a:").await.len(), 1);
}

#[tokio::test]
async fn branches_in_doubt_tell_what_the_resolver_needs() {
    let redis = Redis::start();
    let store = redis.store().await;
    vote(store.prepare(tx(1), &["SET a 1", "GET b"]).await);
    vote(store.prepare(tx(2), &["GET b"]).await);
    let in_doubt = store.in_doubt().await.unwrap();
    assert_eq!(in_doubt.len(), 2);
    assert_eq!((in_doubt[0].txid, in_doubt[0].id, in_doubt[0].seq), (tx(1).txid, tx(1).id, 1));
    assert_eq!(in_doubt[0].coordinator, "http://coordinator:7700");
    assert_eq!(in_doubt[0].keys.len(), 2);
    let facts = store.facts().await.unwrap();
    assert_eq!((facts.staged, facts.locks, facts.seq), (2, 2, 2));
    assert_eq!(facts.incarnation, Some(store.incarnation()));
    // An agent that did not prepare it can end it.
    let other = redis.store().await;
    assert_eq!(other.commit(tx(1)).await, CLEAN);
    assert_eq!(other.branch(tx(1).txid).await.unwrap().unwrap().state, BranchState::Applied);
    assert_eq!(other.branch(tx(9).txid).await.unwrap(), None);
}
