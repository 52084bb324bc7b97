//! A server that starts anew: what it has loaded is made whole before anything is voted, applied or dropped there.

use assent_common::code::ErrorCode;
use assent_common::outcome::Call;
use assent_participant::store::{Store, StoreState};

use crate::harness::{Ask as _, CLEAN, DURABLE, Expected as _, Redis, tx, vote};

/// A store that may vote.
async fn ready(redis: &Redis) -> Store {
    let store = redis.store().await;
    until_ready(&store).await;
    store
}

async fn until_ready(store: &Store) {
    while store.pulse().await.is_err() || store.state() != StoreState::Ready {
        tokio::task::yield_now().await;
    }
}

/// A power cut leaves half a command of a commit's `MULTI` in the file. Redis cuts the half command only, so that the
/// `MULTI` stays open in the file; and the commit that is said again stands behind it.
#[tokio::test]
async fn a_file_that_is_torn_inside_a_commit_applies_it_once() {
    for server in assent_servers::all() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = ready(&redis).await;
        vote(store.prepare(tx(1), &["RPUSH jobs ship-1", "SADD torn member"]).await);
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        drop(store);
        redis.tear("member");
        let store = ready(&redis).await;
        let mut plain = redis.plain().await;
        assert_eq!(plain.run::<u32>(&["LLEN", "jobs"]).await, 0, "{server:?} did not tear it");
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        assert_eq!(plain.run::<u32>(&["LLEN", "jobs"]).await, 1);
        let staged = vote(store.prepare(tx(2), &["SET k v"]).await);
        redis.restart();
        let mut plain = redis.plain().await;
        assert_eq!(plain.run::<u32>(&["LLEN", "jobs"]).await, 1, "{server:?}: applied twice");
        until_ready(&store).await;
        assert_eq!(vote(store.prepare(tx(2), &["SET k v"]).await), staged, "{server:?}");
    }
}

/// While the file is rewritten nothing is voted, and no outcome is carried out; what waits says why.
#[tokio::test]
async fn nothing_is_voted_while_a_new_life_rewrites_its_file() {
    let slow = [&DURABLE[..], &["--rdb-key-save-delay", "20000"]].concat();
    let mut redis = Redis::with(&slow);
    let store = ready(&redis).await;
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let mut plain = redis.plain().await;
    for key in 0..100 {
        let () = plain.run(&["SET", &format!("service:{key}"), "value"]).await;
    }
    redis.restart();
    while store.ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    let refusal = store.prepare(tx(2), &["SET b 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::RedisUnavailable);
    assert!(refusal.detail.contains("rewrites its append-only file"), "{}", refusal.detail);
    assert!(matches!(store.commit(tx(1)).await, Call::Unknown(_)));
    assert!(matches!(store.state(), StoreState::Verifying(_)), "{:?}", store.state());
    until_ready(&store).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    vote(store.prepare(tx(2), &["SET b 1"]).await);
}

/// The question is asked once for a life of the server: not of an empty one, and not again by an agent that starts.
#[tokio::test]
async fn a_life_that_is_verified_is_not_asked_again() {
    let mut redis = Redis::start();
    let store = ready(&redis).await;
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let mut plain = redis.plain().await;
    assert_eq!(rewrites(&mut plain).await, Some(0), "there was nothing to make whole");
    redis.restart();
    let mut plain = redis.plain().await;
    until_ready(&store).await;
    assert_eq!(rewrites(&mut plain).await, Some(1));
    for _ in 0..2 {
        let again = ready(&redis).await;
        vote(again.prepare(tx(1), &["SET a 1"]).await);
    }
    assert_eq!(rewrites(&mut plain).await, Some(1), "an agent's start is no life of the server");
}

async fn rewrites(plain: &mut crate::harness::Plain) -> Option<u32> {
    let info: String = plain.run(&["INFO", "persistence"]).await;
    info.lines().find_map(|line| line.strip_prefix("aof_rewrites:")?.parse().ok())
}
