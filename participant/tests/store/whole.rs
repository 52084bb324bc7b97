//! A server that starts anew: what it has loaded is made whole before anything is voted, applied or dropped there.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Call, Done, Prepared};
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, Progress, RedoBranch};
use assent_participant::store::{Store, StoreState};
use assent_servers::Server;

use crate::harness::{
    Ask as _, CLEAN, DURABLE, Expected as _, LOG, Numbers, Plain, Redis, Tx, committed, tx, vote,
};
use crate::repair::{until_quarantined, word};

/// A server whose file is rewritten at a new life, and that counts how often.
const TEARS: &str = "redis-7.0";

/// A store that may vote.
async fn ready(redis: &Redis) -> Store {
    let store = redis.store().await;
    until_ready(&store).await;
    store
}

async fn until_ready(store: &Store) {
    while store.link().pulse().await.is_err() || store.link().state() != StoreState::Ready {
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
    let Some(server) = assent_servers::named(TEARS) else { return };
    let slow = [&DURABLE[..], &["--rdb-key-save-delay", "20000"]].concat();
    let mut redis = Redis::on(&server, &slow);
    let store = ready(&redis).await;
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let mut plain = redis.plain().await;
    for key in 0..100 {
        let () = plain.run(&["SET", &format!("service:{key}"), "value"]).await;
    }
    redis.restart();
    while store.link().ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    let refusal = store.prepare(tx(2), &["SET b 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::RedisUnavailable);
    assert!(refusal.detail.contains("rewrites its append-only file"), "{}", refusal.detail);
    assert!(matches!(store.commit(tx(1)).await, Call::Unknown(_)));
    assert!(matches!(store.link().state(), StoreState::Verifying(_)), "{:?}", store.link().state());
    until_ready(&store).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    vote(store.prepare(tx(2), &["SET b 1"]).await);
}

/// The question is asked once for a life of the server: not of an empty one, and not again by an agent that starts.
#[tokio::test]
async fn a_life_that_is_verified_is_not_asked_again() {
    let Some(server) = assent_servers::named(TEARS) else { return };
    let mut redis = Redis::on(&server, &DURABLE);
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

async fn rewrites(plain: &mut Plain) -> Option<u32> {
    let info: String = plain.run(&["INFO", "persistence"]).await;
    info.lines().find_map(|line| line.strip_prefix("aof_rewrites:")?.parse().ok())
}

/// Servers whose file has a vote as one write, which stands alone there.
fn votes_stand_alone() -> impl Iterator<Item = Server> {
    assent_servers::all().into_iter().filter(|it| it.is_redis_from(7, 0) || it.is_valkey_from(7, 0))
}

/// Some loaders drop every transaction of the file, and keep the votes, which are single writes: the number of the last
/// vote looks whole. What is counted and what is written of the count differ, and nobody has to remember anything.
#[tokio::test]
async fn a_hole_inside_the_history_is_seen_by_an_agent_that_starts() {
    for server in votes_stand_alone() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = ready(&redis).await;
        let one_phase = store.one_phase(tx(1), &["SET order:1 paid"]).await.done();
        let Prepared::Committed(Done { written: Some(written), .. }) = one_phase else {
            panic!("{one_phase:?}");
        };
        vote(store.prepare(tx(2), &["SET x 1"]).await);
        assert_eq!(store.commit(tx(2)).await, CLEAN);
        drop(store);
        redis.drop_transactions(|| true);
        let store = redis.store().await;
        assert!(
            matches!(store.link().state(), StoreState::Quarantined(_)),
            "{server:?}: {:?}",
            store.link().state()
        );
        let found = store.data().await.unwrap();
        assert_eq!((found.fenced, found.seq), (true, 2));
        let hole = found.hole.clone().unwrap();
        assert_eq!((hole.ended, hole.expected, hole.done.len()), (0, 1, 0), "{server:?}");
        assert_eq!(store.prepare(tx(3), &["GET x"]).await.refused().code, ErrorCode::Quarantined);

        let redo = |tx: Tx, seq, redo| RedoBranch { txid: tx.txid, seq, redo: Base64(redo) };
        let both = vec![redo(tx(1), 1, written.redo), redo(tx(2), 2, [].into())];
        while let Err(error) = store.resync(word(&found, None, both.clone())).await {
            assert_eq!(error.code, ErrorCode::RedisUnavailable, "{error:?}");
        }
        let mut plain = redis.plain().await;
        assert_eq!(plain.get("order:1").await.as_deref(), Some("paid"));
        assert_eq!(plain.get("x").await.as_deref(), Some("1"));
        until_ready(&store).await;
        assert_eq!(store.commit(tx(2)).await, CLEAN);
        // The counts begin anew, and agree.
        vote(store.prepare(tx(3), &["SET x 2"]).await);
        assert_eq!(store.commit(tx(3)).await, CLEAN);
        vote(store.prepare(tx(4), &["GET x"]).await);
        assert_eq!(redis.store().await.link().state(), StoreState::Ready);
    }
}

/// The same without a vote behind it: the agent remembers what it has applied.
#[tokio::test]
async fn applies_that_are_lost_behind_the_last_vote_are_seen_by_the_agent_that_made_them() {
    for server in votes_stand_alone() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = ready(&redis).await;
        committed(store.one_phase(tx(0), &["GET nothing"]).await);
        vote(store.prepare(tx(1), &["SET x 1"]).await);
        vote(store.prepare(tx(2), &["SET y 1"]).await);
        assert_eq!(store.commit(tx(2)).await, CLEAN);
        redis.drop_transactions(|| true);
        let found = until_quarantined(&store).await;
        assert_eq!((found.fenced, found.hole), (true, None), "{server:?}");
        let StoreState::Quarantined(why) = store.link().state() else {
            panic!("{:?}", store.link().state())
        };
        assert!(why.contains("0 branches have ended"), "{why}");
    }
}

/// Invariant 9: the last end says how many there should be, and that goes with it. Who has seen it
/// says so: a hole that is counted too small is filled with too little.
#[tokio::test]
async fn a_hole_is_counted_with_the_ends_that_its_agent_saw() {
    for server in votes_stand_alone() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = ready(&redis).await;
        vote(store.prepare(tx(1), &["SET x 1"]).await);
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        vote(store.prepare(tx(2), &["SET y 1"]).await);
        vote(store.prepare(tx(3), &["SET z 1"]).await);
        assert_eq!(store.commit(tx(2)).await, CLEAN);
        redis.drop_transactions(|| true);
        let hole = until_quarantined(&store).await.hole.unwrap();
        // The vote of the third knows of the first end only.
        assert_eq!((hole.ended, hole.expected), (0, 2), "{server:?}");
    }
}

/// What a coordinator knows behind what this store did, in no more than numbers.
fn seen(store: &Store, seq: u64) -> (Option<DataPoint>, Option<Progress>) {
    (Some(DataPoint { incarnation: store.incarnation(), seq }), store.progress())
}

/// Whichever transactions a loader drops, from the middle or the end: an agent that knows nothing of before notices, or
/// its coordinator does; or what is staged again comes to its outcome, in any order, and the data is what it was.
#[tokio::test]
async fn no_transaction_is_dropped_without_notice() {
    let (mut noticed, mut harmless) = (0, 0);
    for seed in 0..36 {
        let mut numbers = Numbers(seed + 1);
        let mut redis = Redis::start();
        let store = ready(&redis).await;
        let (mut committed, mut seq) = (Vec::new(), 0);
        for n in 1..=8 {
            let line = format!("RPUSH list:{} {n}", numbers.below(2));
            let Call::Applied(prepared) = (match numbers.below(3) {
                0 => store.one_phase(tx(n), &[&line]).await,
                _ => store.prepare(tx(n), &[&line]).await,
            }) else {
                panic!("seed {seed}: {n} is refused");
            };
            match prepared {
                Prepared::Yes(vote) if numbers.below(4) == 0 => {
                    seq = vote.seq;
                    store.abort(tx(n)).await.done();
                }
                Prepared::Yes(vote) => {
                    seq = vote.seq;
                    assert_eq!(store.commit(tx(n)).await, CLEAN);
                    committed.push(tx(n).txid);
                }
                Prepared::Committed(done) => seq = done.written.unwrap().seq,
                Prepared::Wait(holder) => panic!("seed {seed}: {holder}"),
            }
        }
        let (known, progress) = seen(&store, seq);
        let before = redis.plain().await.data().await;
        drop(store);
        let mut dropped = 0;
        redis.drop_transactions(|| {
            let is_dropped = numbers.below(6) == 0;
            dropped += u32::from(is_dropped);
            is_dropped
        });
        let store = redis.store().await;
        if store.admit(LOG, known, progress).await.is_some() {
            assert!(dropped > 0, "seed {seed}: a false alarm");
            noticed += 1;
            continue;
        }
        until_ready(&store).await;
        for staged in store.in_doubt().await.unwrap().into_iter().rev() {
            let tx = Tx { txid: staged.txid, id: staged.id };
            match committed.contains(&staged.txid) {
                true => assert_eq!(store.commit(tx).await, CLEAN),
                false => drop(store.abort(tx).await.done()),
            }
        }
        assert_eq!(redis.plain().await.data().await, before, "seed {seed}: {dropped} dropped");
        harmless += 1;
    }
    assert!(noticed > 4 && harmless > 4, "{noticed} noticed, {harmless} harmless");
}
