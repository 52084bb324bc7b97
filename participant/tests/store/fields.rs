//! Fields of hashes that expire by themselves, and keys that expire between vote and commit. On a server whose fields do
//! not expire there is nothing to test of the former.

use assent_common::code::ErrorCode;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Plain, Redis, committed, fields_expire, tx, vote,
};

/// A moment that no test lives to see, in milliseconds since the epoch.
const FAR_MS: i64 = 4_102_444_800_000;

/// When these fields expire: -1 for one that stays, -2 for one that is not there.
async fn expiries(plain: &mut Plain, key: &str, fields: &[&str]) -> Vec<i64> {
    let count = fields.len().to_string();
    let words = [&["HPEXPIRETIME", key, "FIELDS", &count], fields].concat();
    plain.run(&words).await
}

async fn expire(plain: &mut Plain, key: &str, field: &str, at_ms: i64) {
    let at_ms = at_ms.to_string();
    let set: Vec<i64> = plain.run(&["HPEXPIREAT", key, &at_ms, "FIELDS", "1", field]).await;
    assert_eq!(set, [1], "{key} {field}");
}

/// F4, W6: the increments keep when a field expires, HSET does not; both as the server does it, in one phase and in two.
#[tokio::test]
async fn a_field_expires_when_it_would_without_assent() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    if !fields_expire() {
        return;
    }
    let fields = ["by", "float", "set", "gone", "twice", "again", "nx", "plain"];
    let lines = [
        "HINCRBY h by 1",
        "HINCRBYFLOAT h float 0.5",
        "HSET h set 9",
        "HDEL h gone",
        "HINCRBY h twice 1",
        "HINCRBY h twice 1",
        "HINCRBY h again 1",
        "HDEL h again",
        "HINCRBY h again 1",
        "HSETNX h nx 1",
        "HINCRBY h plain 1",
        "HSET h plain 5",
        "HINCRBY h plain 1",
    ];
    for one_phase in [false, true] {
        let () = plain.run(&["DEL", "h"]).await;
        for field in fields {
            let () = plain.run(&["HSET", "h", field, "5"]).await;
            expire(&mut plain, "h", field, FAR_MS).await;
        }
        if one_phase {
            committed(store.one_phase(tx(2), &lines).await);
        } else {
            vote(store.prepare(tx(1), &lines).await);
            assert_eq!(store.commit(tx(1)).await, CLEAN);
        }
        let kept = [FAR_MS, FAR_MS, -1, -2, FAR_MS, -1, FAR_MS, -1];
        assert_eq!(expiries(&mut plain, "h", &fields).await, kept, "one phase: {one_phase}");
        let values: Vec<Option<String>> = plain.run(&[&["HMGET", "h"], &fields[..]].concat()).await;
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        let wanted = ["6", "5.5", "9", "", "7", "1", "5", "6"];
        let wanted = wanted.map(|value| (!value.is_empty()).then_some(value));
        assert_eq!(values, wanted, "one phase: {one_phase}");
    }
}

/// W6: such a field came back for ever.
#[tokio::test]
async fn a_field_that_expires_between_vote_and_commit_is_gone() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    if !fields_expire() {
        return;
    }
    let () = plain.run(&["HSET", "h", "f", "5", "g", "5"]).await;
    let () = plain.run(&["HSET", "only", "f", "5"]).await;
    for key in ["h", "only"] {
        let _: Vec<i64> = plain.run(&["HPEXPIRE", key, "200", "FIELDS", "1", "f"]).await;
    }
    vote(store.prepare(tx(1), &["HINCRBY h f 1", "HINCRBY h g 1", "HINCRBY only f 1"]).await);
    while plain.run::<bool>(&["HEXISTS", "only", "f"]).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let left: Vec<String> = plain.run(&["HGETALL", "h"]).await;
    assert_eq!(left, ["g", "6"]);
    let left: Vec<String> = plain.run(&["HGETALL", "only"]).await;
    assert_eq!(left, Vec::<String>::new());
}

/// F6, W5: the bound of a counter in escrow does not hold once the field is gone.
#[tokio::test]
async fn escrow_is_refused_on_a_field_that_expires() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    if !fields_expire() {
        return;
    }
    let () = plain.run(&["HSET", "stock", "X1", "5", "X2", "5"]).await;
    expire(&mut plain, "stock", "X1", FAR_MS).await;
    let sale = |field: &str| format!(r#"~HINCRBY stock {field} -3 ?{{"ge":0}}"#);
    let refusal = store.prepare(tx(1), &[&sale("X1")]).await.refused();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::KeyExpires, Some(0)));
    vote(store.prepare(tx(2), &[&sale("X2")]).await);
    vote(store.prepare(tx(3), &[&sale("X3").replace("-3", "3")]).await);
}

/// F9: LSET is the one write that needs its key to be there. That it has expired is no change past the agent.
#[tokio::test]
async fn a_list_that_expires_between_vote_and_commit_is_not_dirty() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["RPUSH", "l", "a"]).await;
    let () = plain.run(&["RPUSH", "stays", "a"]).await;
    let () = plain.run(&["PEXPIRE", "l", "200"]).await;
    vote(store.prepare(tx(1), &["LSET l 0 b", "RPUSH l c"]).await);
    vote(store.prepare(tx(2), &["LSET stays 0 b"]).await);
    while plain.run::<bool>(&["EXISTS", "l"]).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert!(!plain.run::<bool>(&["EXISTS", "l"]).await);
    let () = plain.run(&["DEL", "stays"]).await;
    assert_eq!(store.commit(tx(2)).await.done().dirty_writes, 1, "this was past the agent");
}
