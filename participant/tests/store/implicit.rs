//! Branches of implicit transactions: what a settle says of them, and how long their done-markers stay.

use assent_common::ids::{Epoch, TxNumber};
use assent_common::outcome::{Call, Prepared, Settled};
use assent_participant::store::{Store, StoreState};

use crate::harness::{
    Ask as _, CLEAN, Expected as _, NO_MARK, Redis, Tx, both, coordinator, implicit, ops, prepared,
    settle, tx, tx_of,
};

async fn stage(store: &Store, tx: Tx, lines: &[&str]) -> Call<Prepared> {
    let epoch = tx.txid.number.epoch.0;
    let messages = vec![implicit(tx, ops(lines))];
    prepared(store.execute(&coordinator(epoch), NO_MARK, messages).await.remove(0))
}

#[tokio::test]
async fn a_settle_says_what_is_kept_and_keeps_out_what_is_not() {
    let redis = Redis::start();
    let store = redis.store().await;
    assert_eq!(store.settle(tx(1)).await, Call::Applied(Settled::Fenced));
    assert_eq!(stage(&store, tx(1), &["SET a 1"]).await.refused().code.as_str(), "fenced");
    stage(&store, tx(2), &["SET a 2"]).await.done();
    for _ in 0..2 {
        assert_eq!(store.settle(tx(2)).await, Call::Applied(Settled::Prepared));
    }
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    assert_eq!(store.settle(tx(2)).await, Call::Applied(Settled::Applied));
    stage(&store, tx(3), &["SET a 3"]).await.done();
    store.abort(tx(3)).await.done();
    assert_eq!(store.settle(tx(3)).await, Call::Applied(Settled::Fenced));
    assert_eq!(redis.plain().await.get("a").await.as_deref(), Some("2"));
}

/// Condition (b): a branch that only reads votes durably too, and is found.
#[tokio::test]
async fn a_reader_is_found_after_its_redis_died() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    stage(&store, tx(1), &["GET a"]).await.done();
    redis.restart();
    let store = redis.store().await;
    assert_eq!(store.settle(tx(1)).await, Call::Applied(Settled::Prepared));
}

/// Condition (a): whoever comes next knows whom to ask.
#[tokio::test]
async fn the_staged_record_names_all_branches() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    stage(&store, tx(1), &["SET a 1"]).await.done();
    assert_eq!(store.in_doubt().await.unwrap()[0].branches, both());
    redis.restart();
    let store = redis.store().await;
    assert_eq!(store.in_doubt().await.unwrap()[0].branches, both());
    // Also where it is read back into the machine, and written out again as a done-marker.
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let marker: Vec<u8> =
        redis.plain().await.run(&["HGET", "assent:ctl", &format!("d:{}", tx(1).txid)]).await;
    assert!(marker.windows(9).any(|part| part == b"elsewhere"), "{}", marker.escape_ascii());
}

/// Condition (c). The mark of a later life knows nothing of what an earlier one left.
#[tokio::test]
async fn a_later_life_does_not_collect_the_done_marker() {
    let redis = Redis::start();
    let store = redis.store().await;
    for n in 1..=40 {
        stage(&store, tx(n), &["SET a 1"]).await.done();
        assert_eq!(store.commit(tx(n)).await, CLEAN);
    }
    let kept = |facts: assent_participant::store::StoreFacts| facts.done;
    let of_own_life = TxNumber { epoch: Epoch(1), n: 35 };
    let ask = vec![settle(tx(50))];
    store.execute(&coordinator(1), of_own_life, ask).await;
    assert_eq!(kept(store.facts().await.unwrap()), 6, "those from 35 on");
    let of_a_later = TxNumber { epoch: Epoch(2), n: 100 };
    for n in 0..40 {
        let ask = vec![settle(tx_of(2, 200 + n))];
        store.execute(&coordinator(2), of_a_later, ask).await;
    }
    store.sweep().await.unwrap();
    assert_eq!(kept(store.facts().await.unwrap()), 6);
    assert_eq!(store.settle(tx(40)).await, Call::Applied(Settled::Applied));
}

/// A transaction of the first life that is applied here, and the mark of the second, which knows nothing of it. The second
/// has been heard, and nothing of what it said has come to Redis yet.
async fn left_by_the_first_life(store: &Store) -> Tx {
    for n in 1..=40 {
        store.abort(tx(n)).await.done();
    }
    stage(store, tx(50), &["SET a 1"]).await.done();
    assert_eq!(store.commit(tx(50)).await, CLEAN);
    let of_an_earlier = TxNumber { epoch: Epoch(1), n: 57 };
    assert_eq!(store.execute(&coordinator(2), of_an_earlier, Vec::new()).await, []);
    tx(50)
}

/// Condition (c), between what is heard and what is stored: a mark goes with the life that gave it.
#[tokio::test]
async fn a_sweep_does_not_take_a_later_lifes_mark_for_that_of_the_stored_one() {
    let redis = Redis::start();
    let store = redis.store().await;
    let left = left_by_the_first_life(&store).await;
    assert_eq!(store.sweep().await.unwrap(), 40, "the fences");
    assert_eq!(store.settle(left).await, Call::Applied(Settled::Applied));
    let stored: String = redis
        .plain()
        .await
        .run(&["HGET", "assent:ctl", &format!("m:c:{}", left.txid.log_id)])
        .await;
    assert_eq!(stored, "2 1 57");
    drop(store);
    let next = redis.store().await;
    next.sweep().await.unwrap();
    assert_eq!(next.settle(left).await, Call::Applied(Settled::Applied));
}

/// What the sweep deleted by a mark, only that mark answers for.
#[tokio::test]
async fn the_mark_of_a_sweep_is_not_lowered_by_what_comes_next() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let left = left_by_the_first_life(&store).await;
    drop(store);
    // Which has no queue of markers that the mark would go along with.
    let store = redis.store().await;
    store.execute(&coordinator(2), TxNumber { epoch: Epoch(1), n: 57 }, Vec::new()).await;
    assert_eq!(store.sweep().await.unwrap(), 40);
    let ask = vec![settle(tx_of(3, 1))];
    store.execute(&coordinator(3), NO_MARK, ask).await;
    let stored: String =
        plain.run(&["HGET", "assent:ctl", &format!("m:c:{}", left.txid.log_id)]).await;
    assert_eq!(stored, "3 1 57");
}

/// The same, where the mark goes to Redis along with a message about the first life.
#[tokio::test]
async fn a_batch_that_collects_stores_the_mark_with_the_life_that_gave_it() {
    let redis = Redis::start();
    let store = redis.store().await;
    let left = left_by_the_first_life(&store).await;
    store.abort(tx(60)).await.done();
    assert_eq!(store.facts().await.unwrap().fences, 1, "the others were collected");
    assert_eq!(store.settle(left).await, Call::Applied(Settled::Applied));
    drop(store);
    let next = redis.store().await;
    next.sweep().await.unwrap();
    assert_eq!(next.settle(left).await, Call::Applied(Settled::Applied));
}

/// The next life has found the transaction in its log, and says its commit again.
#[tokio::test]
async fn what_the_next_life_is_at_work_on_is_not_left_behind() {
    let redis = Redis::start();
    let store = redis.store().await;
    stage(&store, tx(50), &["SET a 1"]).await.done();
    assert_eq!(store.commit(tx(50)).await, CLEAN);
    let hears = async |n: u64, mark: TxNumber| {
        let ask = vec![settle(tx_of(2, n))];
        store.execute(&coordinator(2), mark, ask).await;
        let left = store.left_behind(9).await.unwrap();
        left.into_iter().map(|(txid, _)| txid).collect::<Vec<_>>()
    };
    assert_eq!(hears(0, TxNumber { epoch: Epoch(1), n: 50 }).await, []);
    assert_eq!(hears(1, TxNumber { epoch: Epoch(1), n: 51 }).await, [tx(50).txid]);
}

/// One that may be forgotten.
async fn left_behind(store: &Store) -> Tx {
    let left = left_by_the_first_life(store).await;
    assert_eq!(store.left_behind(9).await.unwrap(), [(left.txid, both())]);
    left
}

/// And the connection, with what its owner knows, goes on.
#[tokio::test]
async fn a_marker_that_is_forgotten_is_gone_for_the_owner_too() {
    let redis = Redis::start();
    let store = redis.store().await;
    let left = left_behind(&store).await;
    let is_owner = store.link().is_sole_owner();
    store.forget_left_behind(&[left.txid]).await.unwrap();
    assert_eq!((store.link().state(), store.link().is_sole_owner()), (StoreState::Ready, is_owner));
    assert_eq!(store.facts().await.unwrap().done, 0);
    assert_eq!(store.settle(left).await, Call::Applied(Settled::Fenced));
}

/// Invariant 12: of data that this agent did not resynchronise with, nothing is forgotten.
#[tokio::test]
async fn nothing_of_other_data_is_forgotten() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let left = left_behind(&store).await;
    let () = plain.run(&["HSET", "assent:ctl", "m:inc", "1"]).await;
    assert_eq!(store.forget_left_behind(&[left.txid]).await.unwrap(), 0);
    assert_eq!(plain.control("d:").await, [format!("d:{}", left.txid)]);
}

/// Nor behind the back of another agent that has the Redis for itself by now.
#[tokio::test]
async fn nothing_of_another_owner_is_forgotten() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let left = left_behind(&store).await;
    let () = plain.run(&["SET", "assent:ctl:owner", "somebody"]).await;
    assert_eq!(store.forget_left_behind(&[left.txid]).await.unwrap(), 0);
    assert_eq!(plain.control("d:").await, [format!("d:{}", left.txid)]);
    assert!(matches!(store.link().state(), StoreState::Disconnected(_)));
}

/// Below the mark, the mark is the fence.
#[tokio::test]
async fn a_settle_below_the_mark_leaves_nothing() {
    let redis = Redis::start();
    let store = redis.store().await;
    let mark = TxNumber { epoch: Epoch(1), n: 9 };
    for n in 1..=40 {
        store.abort(tx(n)).await.done();
    }
    let messages = vec![settle(tx(1))];
    store.execute(&coordinator(1), TxNumber { n: 41, ..mark }, messages).await;
    let fences = store.facts().await.unwrap().fences;
    assert_eq!(store.settle(tx(2)).await, Call::Applied(Settled::Fenced));
    assert_eq!(store.facts().await.unwrap().fences, fences);
}
