//! `ASSENT.DIGEST`: the same digest is the same data, of whatever type.

use assent_common::code::ErrorCode;
use assent_common::limits;

use crate::harness::{Ask as _, Expected as _, Plain, Redis, committed, fields_expire, now_ms, tx};

/// The digests of keys by transactions of one branch, as JSON.
async fn digests(
    store: &assent_participant::store::Store,
    n: &mut u64,
    keys: &[&str],
) -> Vec<String> {
    let lines: Vec<String> = keys.iter().map(|key| format!("ASSENT.DIGEST {key}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    *n += 1;
    let replies = committed(store.one_phase(tx(*n), &lines).await);
    let replies: Vec<Option<String>> = serde_json::from_str(&replies).unwrap();
    replies.into_iter().map(Option::unwrap_or_default).collect()
}

async fn run(plain: &mut Plain, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let _: redis::Value = plain.run(&words).await;
}

const KEYS: [&str; 9] = ["s", "n", "h", "set", "z", "l", "x", "big", "none"];

async fn fill(plain: &mut Plain) {
    for line in [
        "SET s hello",
        "SET n 12",
        "HSET h a 1 b 2",
        "SADD set 1 2 3",
        "ZADD z 1 a 2 b",
        "RPUSH l a b c",
        "XADD x 1-1 f v",
    ] {
        run(plain, line).await;
    }
    for n in 0..600 {
        run(plain, &format!("HSET big field{n} {n}")).await;
    }
}

/// Promise: a digest changes with the type, the value, and the expiry; and not by being read.
#[tokio::test]
async fn a_digest_changes_with_what_the_key_is() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    fill(&mut plain).await;
    let mut n = 0;
    let first = digests(&store, &mut n, &KEYS).await;
    assert_eq!(first[8], "", "what is not there has none");
    assert!(first[..8].iter().all(|digest| digest.len() == 40), "{first:?}");
    assert_eq!(digests(&store, &mut n, &KEYS).await, first);
    run(&mut plain, "BGREWRITEAOF").await;
    assert_eq!(digests(&store, &mut n, &KEYS).await, first);
    let mut before = first;
    for (place, line) in [
        (0, "SET s hellp"),
        (0, "PEXPIREAT s 4102444800000"),
        (0, "PEXPIREAT s 4102444800001"),
        (0, "PERSIST s"),
        (1, "INCR n"),
        (2, "HSET h a 3"),
        (3, "SREM set 3"),
        (4, "ZINCRBY z 1 a"),
        (5, "LSET l 1 x"),
        (6, "XADD x 2-1 f v"),
        (7, "HSET big field0 x"),
        (8, "SADD none 1"),
        (8, "DEL none"),
    ] {
        run(&mut plain, line).await;
        let after = digests(&store, &mut n, &KEYS).await;
        for (at, key) in KEYS.iter().enumerate() {
            assert_eq!(before[at] != after[at], at == place, "{key} after {line}");
        }
        before = after;
    }
}

/// Promise: what expires is a change, also before the server has removed it.
#[tokio::test]
async fn what_has_expired_has_changed() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let mut n = 0;
    run(&mut plain, "SET k v").await;
    run(&mut plain, "HSET h a 1 b 2").await;
    // Far enough for the first look, and near enough to be waited for.
    let at_ms = now_ms() + 1_000;
    run(&mut plain, &format!("PEXPIREAT k {at_ms}")).await;
    if fields_expire() {
        run(&mut plain, &format!("HPEXPIREAT h {at_ms} FIELDS 1 a")).await;
    }
    let before = digests(&store, &mut n, &["k", "h"]).await;
    assert_eq!(digests(&store, &mut n, &["k", "h"]).await, before, "time alone changes nothing");
    assert!(now_ms() < at_ms, "the machine is too slow for this test");
    loop {
        let after = digests(&store, &mut n, &["k", "h"]).await;
        if after[0].is_empty() && (after[1] != before[1]) == fields_expire() {
            break;
        }
        assert!(now_ms() < at_ms + 10_000, "{before:?} {after:?}");
    }
}

/// Promise: a false expectation of a digest is a no, and a true one is a guard under locks.
#[tokio::test]
async fn a_digest_guards_a_write() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    run(&mut plain, "RPUSH q a").await;
    let mut n = 0;
    let digest = digests(&store, &mut n, &["q"]).await.remove(0);
    let guard = format!("ASSENT.DIGEST q ?{{\"eq\":\"{digest}\"}}");
    committed(store.one_phase(tx(10), &[&guard, "RPUSH q b"]).await);
    let refused = store.one_phase(tx(11), &[&guard, "RPUSH q c"]).await.refused();
    assert_eq!((refused.code, refused.op), (ErrorCode::ReadChanged, Some(0)));
    let absent = "ASSENT.DIGEST none ?{\"eq\":null}";
    committed(store.one_phase(tx(12), &[absent, "SET none v"]).await);
    let refused = store.one_phase(tx(13), &[absent, "SET none w"]).await.refused();
    assert_eq!(refused.code, ErrorCode::ReadChanged);
    assert_eq!(plain.run::<Vec<String>>(&["LRANGE", "q", "0", "-1"]).await, ["a", "b"]);
}

/// Promise: what a digest costs is bounded, and the error names the bound.
#[tokio::test]
async fn a_key_that_is_too_large_has_no_digest() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let half = "v".repeat(limits::DIGEST_BYTES_MAX / 2);
    for n in 0..2 {
        let _: redis::Value = plain.run(&["HSET", "h", &format!("{n}"), &half]).await;
    }
    let refused = store.one_phase(tx(1), &["ASSENT.DIGEST h"]).await.refused();
    assert_eq!((refused.code, refused.op), (ErrorCode::TooLarge, Some(0)));
    assert!(refused.detail.contains("4194304"), "{}", refused.detail);
    run(&mut plain, "HDEL h 0").await;
    committed(store.one_phase(tx(2), &["ASSENT.DIGEST h"]).await);
}
