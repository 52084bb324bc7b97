//! Escrow on a real Redis: many add to one counter at once, its bound holds by every outcome, and no addition is lost or
//! done twice.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::Mode;
use assent_participant::store::decode_redo;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Redis, abort, assert_unlocked, commit, committed, ops, prepare,
    prepared, tx, vote,
};

const SALE: &str = r#"~DECRBY stock 1 ?{"ge":0}"#;

fn waits_for(call: Call<Prepared>) -> u64 {
    match call.done() {
        Prepared::Wait(holder) => holder.txid.number.n,
        other => panic!("it does not wait: {other:?}"),
    }
}

#[tokio::test]
async fn sales_of_one_item_share_it_down_to_the_last_one() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "stock", "3"]).await;
    let estimate = |low: i64, high: i64| format!(r#"[{{"at_least":{low},"at_most":{high}}}]"#);
    // In one batch, and in several.
    let two = (11..=12).map(|n| prepare(tx(n), Mode::TwoPhase, ops(&[SALE]))).collect();
    let answers = store.send(two).await.into_iter().map(|answer| vote(prepared(answer)));
    let replies: Vec<_> = answers.map(|vote| vote.replies.to_string()).collect();
    assert_eq!(replies, [estimate(2, 2), estimate(1, 2)]);
    let third = vote(store.prepare(tx(13), &[SALE]).await);
    assert_eq!(*third.replies, *estimate(0, 2));
    let write = ["INCRBY", "stock", "-1"].map(assent_common::value::Arg::from);
    assert_eq!(decode_redo(&third.redo).unwrap(), [write], "the delta is what is logged");
    assert_eq!(plain.get("stock").await.as_deref(), Some("3"), "nothing shows before the commit");
    // There is no fourth, unless one of them gives up.
    assert_eq!(waits_for(store.prepare(tx(5), &[SALE]).await), 11);
    assert_eq!(store.prepare(tx(14), &[SALE]).await.refused().code, ErrorCode::LockConflict);
    store.abort(tx(12)).await.done();
    assert_eq!(*vote(store.prepare(tx(5), &[SALE]).await).replies, *estimate(0, 2));
    for n in [13, 5, 11] {
        assert_eq!(store.commit(tx(n)).await, CLEAN);
        assert_eq!(store.commit(tx(n)).await, CLEAN, "again, and nothing more is sold");
    }
    assert_eq!(plain.get("stock").await.as_deref(), Some("0"));
    assert_unlocked(&store, &mut plain, &["stock"]).await;
    let refusal = store.prepare(tx(15), &[SALE]).await.refused();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::ExpectationFailed, Some(0)));
    assert_eq!(refusal.reply.as_deref(), Some(r#"{"at_least":-1,"at_most":-1}"#));
}

/// What the record keeps is all that a later agent needs to know.
#[tokio::test]
async fn what_is_reserved_outlives_the_agent() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let () = plain.run(&["SET", "stock", "2"]).await;
    let () = plain.run(&["HSET", "h", "a b;,:", "1"]).await;
    let field = r#"{"cmd":["HINCRBY","h","a b;,:","-1"],"escrow":true,"expect":{"ge":0}}"#;
    let hash = || {
        let request = serde_json::from_str(field).unwrap();
        assent_participant::store::ValidatedBranch::new(vec![request]).unwrap()
    };
    for (n, sole) in [(1, true), (2, false), (3, true)] {
        let store = if sole { redis.store().await } else { redis.store_by_script().await };
        if n < 3 {
            vote(store.prepare(tx(n), &[SALE]).await);
        } else {
            assert_eq!(store.prepare(tx(9), &[SALE]).await.refused().code, ErrorCode::LockConflict);
            store.abort(tx(1)).await.done();
            vote(store.prepare(tx(9), &[SALE]).await);
        }
        let (message, at) = (prepare(tx(20 + n), Mode::TwoPhase, hash()), n);
        let call = prepared(store.send(vec![message]).await.remove(0));
        match at {
            1 => drop(vote(call)),
            _ => assert_eq!(call.refused().code, ErrorCode::LockConflict),
        }
    }
    let last = redis.store_by_script().await;
    for n in [2, 9, 21] {
        assert_eq!(last.commit(tx(n)).await, CLEAN);
    }
    assert_eq!(plain.get("stock").await.as_deref(), Some("0"));
    assert_unlocked(&last, &mut plain, &["stock", "h"]).await;
}

/// In one round, what is committed moves from what is pending to the value: the prepares behind it must see neither both
/// nor none of it.
#[tokio::test]
async fn commits_and_prepares_of_one_counter_in_one_batch_count_each_delta_once() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "stock", "10"]).await;
    for n in 11..=14 {
        vote(store.prepare(tx(n), &[r#"~DECRBY stock 2 ?{"ge":0}"#]).await);
    }
    let answers = store
        .send(vec![
            prepare(tx(15), Mode::TwoPhase, ops(&[r#"~DECRBY stock 1 ?{"ge":0}"#])),
            prepare(tx(16), Mode::OnePhase, ops(&[r#"~DECRBY stock 1 ?{"ge":0}"#])),
            prepare(tx(17), Mode::TwoPhase, ops(&[r#"~DECRBY stock 3 ?{"ge":0}"#])),
            prepare(tx(18), Mode::TwoPhase, ops(&[r#"~DECRBY stock 11 ?{"ge":0}"#])),
            prepare(tx(19), Mode::TwoPhase, ops(&["GET stock"])),
            commit(tx(11)),
            abort(tx(12)),
            commit(tx(13)),
        ])
        .await;
    // Committed: 10 - 2 - 2; still pending: 2 of transaction 14.
    let call = |n: usize| prepared(answers[n].clone());
    assert_eq!(&*vote(call(0)).replies, r#"[{"at_least":3,"at_most":5}]"#);
    assert_eq!(&*committed(call(1)), r#"[{"at_least":2,"at_most":5}]"#);
    // Now 5, less at most 2 and 1.
    assert_eq!(call(2).refused().code, ErrorCode::LockConflict);
    let refusal = call(3).refused();
    assert_eq!(refusal.code, ErrorCode::ExpectationFailed);
    assert_eq!(refusal.reply.as_deref(), Some(r#"{"at_least":-9,"at_most":-6}"#));
    assert_eq!(call(4).refused().code, ErrorCode::LockConflict);
    assert_eq!(plain.get("stock").await.as_deref(), Some("5"));
    for n in [14, 15] {
        assert_eq!(store.commit(tx(n)).await, CLEAN);
    }
    assert_eq!(plain.get("stock").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_the_data_does_not_allow_is_refused_and_named() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "text", "x"]).await;
    let () = plain.run(&["SET", "brief", "1", "EX", "1000"]).await;
    let () = plain.run(&["RPUSH", "list", "1"]).await;
    let () = plain.run(&["HSET", "hash", "text", "x", "max", "9223372036854775807"]).await;
    let () = plain.run(&["SET", "max", "9223372036854775806"]).await;
    let mut n = 0;
    for (line, code) in [
        ("~INCR text", ErrorCode::NotAnInteger),
        ("~INCR brief", ErrorCode::KeyExpires),
        ("~INCR list", ErrorCode::WrongType),
        ("~INCR hash", ErrorCode::WrongType),
        ("~HINCRBY text f 1", ErrorCode::WrongType),
        ("~HINCRBY hash text 1", ErrorCode::NotAnInteger),
        ("~HINCRBY hash max 1", ErrorCode::Overflow),
        ("~INCRBY max 2", ErrorCode::Overflow),
        (r#"~INCRBY none 2 ?{"lt":2}"#, ErrorCode::ExpectationFailed),
    ] {
        for mode in [Mode::TwoPhase, Mode::OnePhase] {
            n += 1;
            let message = prepare(tx(n), mode, ops(&["SET other 1", line]));
            let refusal = prepared(store.send(vec![message]).await.remove(0)).refused();
            assert_eq!((refusal.code, refusal.op), (code, Some(1)), "{line}: {refusal:?}");
        }
    }
    let keys = ["other", "text", "brief", "list", "hash", "max", "none"];
    assert_unlocked(&store, &mut plain, &keys).await;
    // Up to the end of 64 bits there is room; who would go beyond has to wait for what becomes of it.
    vote(store.prepare(tx(101), &["~INCR max"]).await);
    assert_eq!(waits_for(store.prepare(tx(100), &["~INCR max"]).await), 101);
    assert_eq!(store.commit(tx(101)).await, CLEAN);
    assert_eq!(plain.get("max").await.as_deref(), Some("9223372036854775807"));
    assert_eq!(store.prepare(tx(102), &["~INCR max"]).await.refused().code, ErrorCode::Overflow);
}

#[tokio::test]
async fn counters_that_are_not_there_begin_at_nothing() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let lines =
        ["~INCRBY a 5", "~HINCRBY h f 3", "~HINCRBY h g 4", "~DECRBY a 1", "SET b 1", "GET c"];
    let replies = vote(store.prepare(tx(1), &lines).await).replies;
    let estimate = |value: i64| format!(r#"{{"at_least":{value},"at_most":{value}}}"#);
    let all = [5, 3, 4, 4].map(estimate).join(",");
    assert_eq!(*replies, *format!(r#"[{all},"OK",null]"#));
    // The first of them decides what the key is to be.
    let other = store.prepare(tx(2), &["~HINCRBY a f 1"]).await.refused();
    assert_eq!(other.code, ErrorCode::LockConflict);
    assert_eq!(*vote(store.prepare(tx(1), &lines).await).replies, *replies, "the same yes");
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.get("a").await.as_deref(), Some("4"));
    let h: Vec<String> = plain.run(&["HGETALL", "h"]).await;
    assert_eq!(h, ["f", "3", "g", "4"]);
    // One phase keeps its replies, and gives them again.
    let first = committed(store.one_phase(tx(3), &["~INCR a"]).await);
    assert_eq!(*first, *format!("[{}]", estimate(5)));
    assert_eq!(committed(store.one_phase(tx(3), &["~INCR a"]).await), first);
    assert_eq!(plain.get("a").await.as_deref(), Some("5"));
}

/// A writer past the agent can break what was promised; the decision stands, and it is told.
#[tokio::test]
async fn a_delta_that_meets_foreign_data_is_dropped_and_counted() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["~INCR a", "~INCR b"]).await);
    let () = plain.run(&["SET", "a", "text"]).await;
    assert_eq!(store.commit(tx(1)).await.done().dirty_writes, 1);
    assert_eq!(plain.get("b").await.as_deref(), Some("1"));
}
