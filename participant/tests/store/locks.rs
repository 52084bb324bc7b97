//! Locks: who excludes whom, who may wait, who frees what.

use assent_common::branch::BranchMessage;
use assent_common::code::ErrorCode;
use assent_common::outcome::{Aborted, Call, Prepared, Refusal};
use assent_common::wire::branch::Mode;
use assent_participant::store::Store;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Plain, Redis, Tx, assert_unlocked, commit, committed, ops,
    prepare, prepared, tx, vote,
};

#[tokio::test]
async fn a_younger_transaction_is_refused_and_an_older_one_may_wait() {
    let redis = Redis::start();
    let store = redis.store().await;
    vote(store.prepare(tx(5), &["SET a 1"]).await);
    let refusal = store.prepare(tx(6), &["GET b", "GET a"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::LockConflict);
    let holder = refusal.holder.unwrap();
    assert_eq!((holder.id, holder.txid, holder.key.as_str()), (tx(5).id, tx(5).txid, "a"));
    assert!(refusal.detail.contains(&tx(5).id.to_string()), "{}", refusal.detail);
    match store.prepare(tx(4), &["GET a"]).await.done() {
        Prepared::Wait(holder) => assert_eq!(holder.txid, tx(5).txid),
        other => panic!("{other:?}"),
    }
    match store.one_phase(tx(4), &["GET a"]).await.done() {
        Prepared::Wait(_) => {}
        other => panic!("{other:?}"),
    }
    // Neither took a lock on what it could have had.
    vote(store.prepare(tx(7), &["SET b 1"]).await);
}

#[tokio::test]
async fn readers_share_a_lock_and_leave_it_one_by_one() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(5), &["GET a"]).await);
    vote(store.prepare(tx(6), &["GET a"]).await);
    vote(store.prepare(tx(7), &["GET a"]).await);
    // Older than one holder and younger than another: no waiting.
    let refusal = store.prepare(tx(6).again(), &["SET a 1"]).await.refused();
    assert_eq!(refusal.holder.unwrap().txid, tx(5).txid);
    assert_eq!(store.commit(tx(6)).await, CLEAN);
    assert_eq!(store.abort(tx(7)).await.done(), Aborted::Fenced);
    let refusal = store.prepare(tx(8), &["SET a 1"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::LockConflict);
    assert_eq!(refusal.holder.unwrap().txid, tx(5).txid, "who has not ended keeps it");
    assert_eq!(store.facts().await.unwrap().locks, 1);
    assert_eq!(store.commit(tx(5)).await, CLEAN);
    assert_unlocked(&store, &mut plain, &["a"]).await;
    vote(store.prepare(tx(9), &["SET a 1"]).await);
}

#[tokio::test]
async fn a_branch_of_the_same_batch_is_met_like_any_other() {
    let redis = Redis::start();
    let store = redis.store().await;
    let answers = store
        .send(vec![
            prepare(tx(1), Mode::TwoPhase, ops(&["SET a 1", "GET b"])),
            prepare(tx(2), Mode::TwoPhase, ops(&["GET a"])),
            prepare(tx(3), Mode::TwoPhase, ops(&["INCR a-list", "LPUSH a-list x"])),
            prepare(tx(4), Mode::TwoPhase, ops(&["GET b", "LLEN a-list"])),
            prepare(tx(5), Mode::OnePhase, ops(&["SET c 1"])),
            prepare(tx(6), Mode::TwoPhase, ops(&["INCR c"])),
        ])
        .await;
    let answers: Vec<Call<Prepared>> = answers.into_iter().map(prepared).collect();
    let code = |n: usize| answers[n].clone().refused().code;
    vote(answers[0].clone());
    assert_eq!((code(1), code(2)), (ErrorCode::LockConflict, ErrorCode::WrongType));
    assert_eq!(&*vote(answers[3].clone()).replies, "[null,0]");
    assert_eq!(&*committed(answers[4].clone()), r#"["OK"]"#);
    assert_eq!(&*vote(answers[5].clone()).replies, "[2]");
}

#[tokio::test]
async fn outcomes_of_a_batch_free_the_locks_for_its_prepares() {
    let redis = Redis::start();
    let store = redis.store().await;
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let next = prepare(tx(2), Mode::TwoPhase, ops(&["INCR a"]));
    let mut answers = store.send(vec![next, commit(tx(1))]).await;
    assert_eq!(&*vote(prepared(answers.remove(0))).replies, "[2]");
}

#[tokio::test]
async fn a_plain_reader_never_sees_half_of_a_branch() {
    let redis = Redis::start();
    let (store, plain) = (redis.store().await, redis.plain().await);
    let reader = |mut plain: Plain| async move {
        loop {
            let pair: (Option<u64>, Option<u64>) = plain.run(&["MGET", "a", "b"]).await;
            assert_eq!(pair.0, pair.1);
            if pair.0 == Some(200) {
                return;
            }
        }
    };
    let writer = async {
        for n in 1..=200 {
            vote(store.prepare(tx(n), &["INCR a", "INCR b"]).await);
            assert_eq!(store.commit(tx(n)).await, CLEAN);
        }
    };
    tokio::join!(writer, reader(plain));
}

impl Tx {
    /// The same transaction, tried again.
    fn again(mut self) -> Self {
        self.txid.attempt = self.txid.attempt.next();
        self
    }
}

/// The yes to its first prepare may have been lost, whatever speaks against new branches by now.
async fn a_no_to_new_branches_is_no_answer_to_one_that_is_kept(store: &Store) {
    let line = |tx: Tx| format!("SET k{} v", tx.txid.number.n);
    let [new, staged, applied, fenced, in_one] = [1, 2, 3, 4, 5].map(tx);
    for tx in [staged, applied, fenced] {
        vote(store.prepare(tx, &[&line(tx)]).await);
    }
    assert_eq!(store.commit(applied).await, CLEAN);
    store.abort(fenced).await.done();
    committed(store.one_phase(in_one, &[&line(in_one)]).await);
    let unwanted = |tx: Tx, mode: Mode| {
        let mut message = prepare(tx, mode, ops(&[&line(tx)]));
        if let (_, BranchMessage::Prepare(prepare)) = &mut message {
            prepare.if_new =
                Some(Box::new(Refusal::new(ErrorCode::LockConflict, "an older one waits")));
        }
        message
    };
    let mut messages =
        [new, staged, applied, fenced].map(|tx| unwanted(tx, Mode::TwoPhase)).to_vec();
    messages.push(unwanted(in_one, Mode::OnePhase));
    let mut answers = store.send(messages).await.into_iter().map(prepared);
    let mut answer = || answers.next().unwrap();
    assert_eq!(answer().refused().code, ErrorCode::LockConflict);
    vote(answer());
    assert_eq!(answer().refused().code, ErrorCode::WrongState);
    assert_eq!(answer().refused().code, ErrorCode::Fenced);
    committed(answer());
    // It is a no, and no fence.
    assert_eq!(store.branch(new.txid).await.unwrap(), None);
    vote(store.prepare(new, &[&line(new)]).await);
}

#[tokio::test]
async fn an_owner_refuses_only_what_is_new_for_what_speaks_against_new_branches() {
    let redis = Redis::start();
    a_no_to_new_branches_is_no_answer_to_one_that_is_kept(&redis.store().await).await;
}

#[tokio::test]
async fn by_scripts_only_what_is_new_is_refused_for_what_speaks_against_new_branches() {
    let redis = Redis::start();
    a_no_to_new_branches_is_no_answer_to_one_that_is_kept(&redis.store_by_script().await).await;
}
