//! One phase whose answer its log has not heard, and then the data is lost (invariant 9): what
//! others have read is not told
//! aborted.

use std::sync::Arc;

use assent_common::code::ErrorCode;
use assent_common::ids::TxNumber;
use assent_common::outcome::{Aborted, Call, Done, Written};
use assent_common::participant::Heard;
use assent_common::wire::branch::{BranchState, Mode};
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, RedoBranch, Resync};
use assent_participant::store::{Store, StoreOptions, StoreState};

use crate::harness::{
    Ask as _, CLEAN, Expected as _, LOG, NO_MARK, Plain, Redis, committed, one_phase_done, ops,
    prepare, tx, vote,
};
use crate::repair::word;
use crate::wire::Wire;

/// A log that has nothing to say of the data, and has heard of this much of it.
async fn nothing_said(store: &Store, known: Option<DataPoint>, low_water: TxNumber) -> Resync {
    let found = store.data().await.unwrap();
    Resync { low_water, ..word(&found, known, Vec::new()) }
}

/// All data is gone; this agent finds out, and fences what is there.
pub(crate) async fn lose_all(store: &Store, plain: &mut Plain) {
    let () = plain.run(&["FLUSHALL"]).await;
    assert_eq!(store.prepare(tx(90), &["GET z"]).await.refused().code, ErrorCode::Quarantined);
    assert_eq!(store.admit(LOG, None, None).await.unwrap().code, ErrorCode::Quarantined);
}

/// The data is opened with the word of a log that knows of nothing.
pub(crate) async fn repaired(store: &Store) -> DataPoint {
    let word = nothing_said(store, None, NO_MARK).await;
    store.resync(word).await.unwrap().open.unwrap()
}

pub(crate) fn already(call: Call<Aborted>) -> Done {
    match call.done() {
        Aborted::AlreadyCommitted(done) => done,
        Aborted::Fenced => panic!("told aborted"),
    }
}

/// A one-phase write of transaction 1 whose answer is lost on its way from Redis; the store, and
/// what the wire is for.
async fn unheard(redis: &Redis) -> (Arc<Store>, Wire) {
    let wire = Wire::to(redis);
    // What writes says the name of the marker; what looks does not.
    wire.hold_replies_after(format!("d:{}", tx(1).txid).leak());
    let store = Arc::new(Store::connect(StoreOptions::new(wire.url())).await.unwrap());
    let asking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.one_phase(tx(1), &["SET a the-one"]).await }
    });
    let link = wire.link(0).await;
    link.holds_a_reply().await;
    wire.hold_no_replies();
    link.cut();
    let answer = asking.await.unwrap();
    assert!(matches!(answer, Call::Unknown(_)), "{answer:?}");
    (store, wire)
}

/// Promise *honest*, and isolation: a write whose answer was lost, and which somebody has read
/// since, is not told aborted
/// when the data is lost before its coordinator asks again.
#[tokio::test]
async fn what_was_read_of_an_unheard_write_outlives_the_data() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let (store, _wire) = unheard(&redis).await;
    assert_eq!(&*committed(store.one_phase(tx(2), &["GET a"]).await), r#"["the-one"]"#);
    lose_all(&store, &mut plain).await;
    let open = repaired(&store).await;
    assert_eq!(plain.get("a").await.as_deref(), Some("the-one"));
    let done = already(store.abort(tx(1)).await);
    let written = done.written.unwrap();
    assert_eq!((&*done.replies, written.incarnation), (r#"["OK"]"#, open.incarnation));
    assert!(written.seq < open.seq, "{written:?}");

    // Once more, before its log has it.
    lose_all(&store, &mut plain).await;
    let open = repaired(&store).await;
    let again = already(store.abort(tx(1)).await).written.unwrap();
    assert_eq!(again, Written { incarnation: open.incarnation, ..written });
    assert_eq!(plain.get("a").await.as_deref(), Some("the-one"));
}

/// The same where the agent answered, and the answer never came to the log; and behind it stands
/// what came behind it.
#[tokio::test]
async fn what_was_answered_and_not_heard_is_put_back_in_its_place() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let backup = redis.backup();
    let first = one_phase_done(store.one_phase(tx(1), &["SET a 1", "RPUSH l x"]).await);
    let second = vote(store.prepare(tx(2), &["APPEND a 2"]).await);
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    let third = one_phase_done(store.one_phase(tx(3), &["APPEND a 3"]).await);
    redis.restore(&backup);
    while !matches!(store.link().state(), StoreState::Quarantined(_)) {
        let _ = store.link().ping().await;
        tokio::task::yield_now().await;
    }
    let known = DataPoint { incarnation: second.incarnation, seq: second.seq };
    let mut word = nothing_said(&store, Some(known), NO_MARK).await;
    let redo = Base64(second.redo);
    word.redo.push(RedoBranch { txid: tx(2).txid, seq: second.seq, redo });
    let said = store.resync(word).await.unwrap();
    assert_eq!(said.redone, 3);
    let mut plain = redis.plain().await;
    assert_eq!(plain.get("a").await.as_deref(), Some("123"));
    assert_eq!(plain.run::<u32>(&["LLEN", "l"]).await, 1);
    for (n, before) in [(1, first), (3, third)] {
        let before = before.written.unwrap();
        let kept = store.branch(tx(n).txid).await.unwrap().unwrap();
        let now = Written { incarnation: said.open.unwrap().incarnation, ..before };
        assert_eq!(kept.written, Some(now));
    }
}

/// What the log has is its own to say: below the mark this agent adds nothing, also where the log
/// has let go of it.
#[tokio::test]
async fn what_is_below_the_mark_is_left_to_the_log() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    for n in 1..=3 {
        one_phase_done(store.one_phase(tx(n), &[&format!("SET k{n} 1")]).await);
    }
    store.heard(LOG, Heard { epoch: tx(2).txid.number.epoch, low_water: tx(2).txid.number });
    lose_all(&store, &mut plain).await;
    let word = nothing_said(&store, None, tx(3).txid.number).await;
    assert_eq!(store.resync(word).await.unwrap().redone, 1);
    assert_eq!(plain.control("d:").await, [format!("d:{}", tx(3).txid)]);
}

/// Invariant 6: what was told aborted does not come back.
#[tokio::test]
async fn what_was_fenced_does_not_come_back() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    one_phase_done(store.one_phase(tx(1), &["SET a 1"]).await);
    // As if its marker had been lost unseen.
    let _: u32 = plain.run(&["HDEL", "assent:ctl", &format!("d:{}", tx(1).txid)]).await;
    store.forget(tx(1).txid).await.unwrap();
    assert_eq!(store.abort(tx(1)).await.done(), Aborted::Fenced);
    lose_all(&store, &mut plain).await;
    repaired(&store).await;
    assert_eq!(plain.get("a").await, None);
}

/// Data that another agent opened has the outcome that was given there.
#[tokio::test]
async fn what_another_agent_opened_without_it_stays_without_it() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let (store, other) = (redis.store().await, redis.store().await);
    one_phase_done(store.one_phase(tx(1), &["SET a 1"]).await);
    lose_all(&other, &mut plain).await;
    let open = repaired(&other).await;
    assert_eq!(other.abort(tx(1)).await.done(), Aborted::Fenced);

    // The first agent has heard of none of this.
    lose_all(&store, &mut plain).await;
    let word = nothing_said(&store, Some(open), NO_MARK).await;
    store.resync(word).await.unwrap().open.unwrap();
    assert_eq!((plain.get("a").await, store.branch(tx(1).txid).await), (None, Ok(None)));
}

/// An agent that starts finds what its log may not have heard, and remembers it too.
#[tokio::test]
async fn an_agent_that_starts_remembers_what_it_finds() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    one_phase_done(redis.store().await.one_phase(tx(1), &["SET a 1"]).await);
    let store = redis.store().await;
    lose_all(&store, &mut plain).await;
    repaired(&store).await;
    already(store.abort(tx(1)).await);
    let kept = store.branch(tx(1).txid).await.unwrap().unwrap();
    assert_eq!(kept.state, BranchState::Applied);
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
}

/// A batch whose caller goes away leaves nothing unlooked at behind it.
#[tokio::test]
async fn what_a_caller_did_not_wait_for_is_looked_at() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let wire = Wire::to(&redis);
    // What writes says the name of the marker; what looks does not.
    wire.hold_replies_after(format!("d:{}", tx(1).txid).leak());
    let store = Store::connect(StoreOptions::new(wire.url())).await.unwrap();
    let link = wire.link(0).await;
    wire.hold_no_replies();
    let message = prepare(tx(1), Mode::OnePhase, ops(&["SET a the-one"]));
    tokio::select! {
        answers = store.send(vec![message]) => panic!("answered: {answers:?}"),
        () = link.holds_a_reply() => {}
    }
    assert_eq!(&*committed(store.one_phase(tx(2), &["GET a"]).await), r#"["the-one"]"#);
    lose_all(&store, &mut plain).await;
    repaired(&store).await;
    already(store.abort(tx(1)).await);
}
