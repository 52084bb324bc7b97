//! Data that is not what it was (invariants 9, 12): noticed, fenced, and made whole from what a log says.

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId};
use assent_common::lives::{PastLife, Proof, Seal};
use assent_common::outcome::{Vote, Written};
use assent_common::participant::opening_seq;
use assent_common::wire::branch::{BranchState, CoordinatorRef};
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, RedoBranch, Resync};
use assent_participant::store::{Says, Store, StoreState};

use crate::harness::{
    Ask as _, CLEAN, Expected as _, LOG, NO_MARK, Redis, Tx, assert_unlocked, coordinator,
    one_phase_done, tx, vote,
};

const OTHER_LOG: LogId = LogId(uuid::Uuid::from_u128(LOG.0.as_u128() + 1));

pub(crate) fn point(vote: &Vote) -> DataPoint {
    DataPoint { incarnation: vote.incarnation, seq: vote.seq }
}

pub(crate) fn redo(tx: Tx, vote: &Vote) -> RedoBranch {
    RedoBranch { txid: tx.txid, seq: vote.seq, redo: Base64(vote.redo.clone()) }
}

/// All that the log of these tests has to say, in one part.
pub(crate) fn word(
    found: &DataView,
    known: impl Into<Option<DataPoint>>,
    redo: Vec<RedoBranch>,
) -> Resync {
    Resync {
        participant: "bank-a".parse().unwrap(),
        coordinator: coordinator(1),
        low_water: NO_MARK,
        found: found.found(),
        known: known.into(),
        part: 0,
        last: true,
        alone: false,
        redo,
    }
}

/// A store that has noticed what it is to notice, and has verified what its server has loaded: that
/// may take longer than a call waits for it.
pub(crate) async fn until_quarantined(store: &Store) -> DataView {
    while store.link().pulse().await.is_err()
        || !matches!(store.link().state(), StoreState::Quarantined(_))
    {
        tokio::task::yield_now().await;
    }
    store.data().await.unwrap()
}

/// Three votes, two of them committed, and a Redis that has the first only.
async fn rolled_back(redis: &mut Redis, store: &Store) -> [Vote; 3] {
    let first = vote(store.prepare(tx(1), &["INCRBY a 1"]).await);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let backup = redis.backup();
    let second = vote(store.prepare(tx(2), &["INCRBY a 1", "RPUSH l x"]).await);
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    let third = vote(store.prepare(tx(3), &["SET b 1"]).await);
    redis.restore(&backup);
    [first, second, third]
}

/// Invariants 9 and 12: an old copy that is put back is noticed, what was committed since is redone, once, and what was
/// not decided is gone for good.
#[tokio::test]
async fn what_an_old_copy_lacks_is_redone_from_the_log() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [first, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    assert_eq!(found.found().seq, first.seq);
    assert_eq!(found.incarnation, Some(first.incarnation));
    assert_eq!((found.fenced, &found.owed[..]), (true, &[LOG][..]));
    assert_eq!(store.prepare(tx(4), &["GET a"]).await.refused().code, ErrorCode::Quarantined);

    let word = word(&found, point(&third), vec![redo(tx(2), &second)]);
    let said = store.resync(word.clone()).await.unwrap();
    let open = said.open.unwrap();
    assert_eq!((said.redone, open.seq), (1, opening_seq(third.seq)));
    assert_ne!(open.incarnation, third.incarnation);
    let mut plain = redis.plain().await;
    assert_eq!(plain.get("a").await.as_deref(), Some("2"));
    assert_eq!(plain.run::<u32>(&["LLEN", "l"]).await, 1);
    store.link().ping().await.unwrap();
    assert_eq!(store.link().state(), StoreState::Ready);

    // Late messages of before the loss find what they would have found.
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    assert_eq!(store.commit(tx(3)).await.refused().code, ErrorCode::BranchLost);
    let next = vote(store.prepare(tx(5), &["INCRBY a 1"]).await);
    assert_eq!(point(&next), DataPoint { seq: open.seq + 1, ..open });
    // Said again, nothing is done.
    let again = store.resync(word).await.unwrap();
    assert_eq!((again.redone, again.open), (0, Some(point(&next))));
    assert_eq!(store.commit(tx(5)).await, CLEAN);
    assert_eq!(plain.get("a").await.as_deref(), Some("3"));
}

/// Promise *durable*: the data keeps what one phase wrote over a repair, and says it as of the data that it is now; number
/// and writes are those of the first answer, which its log may not have heard.
#[tokio::test]
async fn what_one_phase_wrote_outlives_a_repair_of_other_votes() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let before = one_phase_done(store.one_phase(tx(10), &["SET c 1"]).await).written.unwrap();
    let [_, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    let word = word(&found, point(&third), vec![redo(tx(2), &second)]);
    let open = store.resync(word).await.unwrap().open.unwrap();
    let after = one_phase_done(store.one_phase(tx(10), &["SET c 1"]).await).written.unwrap();
    assert_eq!(after, Written { incarnation: open.incarnation, ..before });
    // What the log had is not kept twice.
    let redone = store.branch(tx(2).txid).await.unwrap().unwrap();
    assert_eq!((redone.state, redone.written), (BranchState::Applied, None));
}

/// Invariant 12: an agent that starts on data of the past is told by what its coordinator has seen, and fences it for
/// every agent of that Redis.
#[tokio::test]
async fn an_agent_that_starts_on_an_old_copy_is_told_by_its_coordinator() {
    let mut redis = Redis::start();
    let before = redis.store().await;
    let [_, _, third] = rolled_back(&mut redis, &before).await;
    drop(before);
    let (store, other) = (redis.store().await, redis.store().await);
    assert_eq!(store.admit(LOG, None, None).await, None);
    let known = Some(point(&third));
    assert_eq!(store.admit(LOG, known, None).await.unwrap().code, ErrorCode::Quarantined);
    assert!(store.data().await.unwrap().fenced);
    assert_eq!(other.prepare(tx(4), &["SET b 2"]).await.refused().code, ErrorCode::Quarantined);
    // And one that starts after that finds the fence.
    let late = redis.store().await;
    assert!(matches!(late.link().state(), StoreState::Quarantined(_)));
    assert_eq!(late.prepare(tx(5), &["SET b 2"]).await.refused().code, ErrorCode::Quarantined);
}

/// Invariant 9: flushed data is made whole from the first vote on.
#[tokio::test]
async fn flushed_data_is_redone_from_the_beginning() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let first = vote(store.prepare(tx(1), &["SET a 1"]).await);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let second = vote(store.prepare(tx(2), &["APPEND a 2"]).await);
    let () = plain.run(&["FLUSHALL"]).await;
    assert_eq!(store.prepare(tx(3), &["GET c"]).await.refused().code, ErrorCode::Quarantined);
    assert_eq!(
        store.admit(LOG, Some(point(&second)), None).await.unwrap().code,
        ErrorCode::Quarantined
    );
    let found = store.data().await.unwrap();
    assert_eq!((found.incarnation, found.seq, found.fenced), (None, 0, true));
    let redo = vec![redo(tx(1), &first), redo(tx(2), &second)];
    store.resync(word(&found, point(&second), redo)).await.unwrap().open.unwrap();
    assert_eq!(plain.get("a").await.as_deref(), Some("12"));
}

/// A branch that is staged in the old copy is applied by its record if it was committed, and dropped if not.
#[tokio::test]
async fn what_is_staged_in_an_old_copy_gets_its_outcome_in_its_place() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let first = vote(store.prepare(tx(1), &["SET a 1"]).await);
    let undecided = vote(store.prepare(tx(2), &["SET b 1"]).await);
    let backup = redis.backup();
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let third = vote(store.prepare(tx(3), &["APPEND a 2"]).await);
    assert_eq!(store.commit(tx(3)).await, CLEAN);
    redis.restore(&backup);
    let found = until_quarantined(&store).await;
    assert_eq!(
        found.staged.iter().map(|it| it.seq).collect::<Vec<_>>(),
        [first.seq, undecided.seq]
    );
    let staged = RedoBranch { redo: Base64(Vec::new().into()), ..redo(tx(1), &first) };
    let said = store.resync(word(&found, point(&third), vec![redo(tx(3), &third), staged])).await;
    assert_eq!(said.unwrap().redone, 2);
    let mut plain = redis.plain().await;
    assert_eq!(plain.get("a").await.as_deref(), Some("12"));
    assert_eq!(plain.get("b").await, None);
    assert_unlocked(&store, &mut plain, &["a", "b"]).await;
    assert_eq!(store.commit(tx(2)).await.refused().code, ErrorCode::Fenced);
}

/// A repair that an agent's death cut off is begun again, and applies nothing twice.
#[tokio::test]
async fn a_repair_that_is_done_again_applies_nothing_twice() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [first, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    let word = word(&found, point(&third), vec![redo(tx(2), &second)]);
    store.resync(word.clone()).await.unwrap().open.unwrap();
    // As if the last step had not been reached.
    let mut plain = redis.plain().await;
    let (was, seq) = (first.incarnation.to_string(), first.seq.to_string());
    let fields = ["HSET", "assent:ctl", "m:inc", "0", "m:was", &was, "m:seq", &seq];
    let _: u32 = plain.run(&fields).await;
    let next = redis.store().await;
    let found = next.data().await.unwrap();
    assert_eq!(next.resync(word.clone()).await.unwrap_err().code, ErrorCode::WrongState);
    let word = Resync { found: found.found(), ..word };
    assert!(next.resync(word).await.unwrap().open.is_some());
    assert_eq!(plain.get("a").await.as_deref(), Some("2"));
    assert_eq!(plain.run::<u32>(&["LLEN", "l"]).await, 1);
}

/// This life of the log, which is at 1000 times its number by now, and whose lives before it ended
/// at these positions.
fn life(epoch: u64, ends: &[u64]) -> CoordinatorRef {
    let before = (1..).zip(ends);
    let before =
        before.map(|(n, end)| PastLife { epoch: Epoch(n), nonce: 10 + n, end: Some(*end) });
    let proof = Proof {
        nonce: 10 + epoch,
        position: 1_000 * epoch,
        seal: Some(Seal { mark: 20 + epoch, seal: epoch }),
        before: Some(before.collect()),
    };
    CoordinatorRef { life: Some(proof), ..coordinator(epoch) }
}

/// M1: who knows the nonce of a life can speak for its log. A stranger who guesses is shown why he
/// is refused, and must not find it there.
#[tokio::test]
async fn what_shows_that_a_log_is_a_copy_does_not_tell_the_nonce() {
    let redis = Redis::start();
    let store = redis.store().await;
    let real = life(1, &[]);
    let nonce = real.life.as_ref().unwrap().nonce;
    assert_eq!(store.admit_life(&real, Says::Work).await, None);
    let guess = Proof { nonce: 99, ..real.life.clone().unwrap() };
    let stranger = CoordinatorRef { life: Some(guess), ..real };
    let no = store.admit_life(&stranger, Says::Work).await.unwrap();
    let shown = serde_json::to_value(no.shown.unwrap()).unwrap();
    let told = shown.as_object().unwrap().values().any(|value| *value == nonce);
    assert!(!told && !no.refusal.detail.contains(&nonce.to_string()), "{shown} {:?}", no.refusal);
}

/// The log was put right: its greeting is enough, there may be nothing to do for hours.
#[tokio::test]
async fn a_greeting_of_the_log_itself_takes_back_that_a_copy_was_refused() {
    let redis = Redis::start();
    let store = redis.store().await;
    for real in [life(1, &[]), life(2, &[1_000])] {
        assert_eq!(store.admit_life(&real, Says::Work).await, None);
    }
    let copy = life(1, &[]);
    for says in [Says::Nothing, Says::Work] {
        assert!(store.admit_life(&copy, says).await.is_some());
        assert_eq!(store.stale_logs().len(), 1);
    }
    assert_eq!(store.admit_life(&life(3, &[1_000, 2_000]), Says::Nothing).await, None);
    assert!(store.stale_logs().is_empty(), "{:?}", store.stale_logs());
    assert!(store.admit_life(&copy, Says::Nothing).await.is_some(), "the copy is refused still");
}

/// The first words of a log are kept by a script, and Redis 6.2 says what that met in its text
/// only.
#[tokio::test]
async fn what_is_refused_while_the_first_words_of_a_log_are_kept_has_its_code() {
    for (setting, code) in [
        ("maxmemory", ErrorCode::RedisOutOfMemory),
        ("min-replicas-to-write", ErrorCode::RedisRefuses),
    ] {
        let redis = Redis::start();
        let (store, mut plain) = (redis.store().await, redis.plain().await);
        let () = plain.run(&["CONFIG", "SET", setting, "1"]).await;
        let no = store.admit_life(&life(1, &[]), Says::Work).await.unwrap();
        assert_eq!(no.refusal.code, code, "{}", no.refusal.detail);
    }
}

/// Invariant 1: an agent that starts later on the old data does not admit a copy of the log that
/// was refused before.
#[tokio::test]
async fn an_old_copy_is_told_again_which_life_of_a_log_was_heard() {
    for is_fenced in [false, true] {
        let mut redis = Redis::start();
        let store = redis.store().await;
        assert_eq!(store.admit_life(&life(1, &[]), Says::Work).await, None);
        let backup = redis.backup();
        assert_eq!(store.admit_life(&life(2, &[1_000]), Says::Work).await, None);
        if is_fenced {
            vote(store.prepare(tx(1), &["SET a 1"]).await);
        }
        redis.restore(&backup);
        if is_fenced {
            let found = until_quarantined(&store).await;
            let word =
                word(&found, DataPoint { incarnation: found.incarnation.unwrap(), seq: 1 }, vec![]);
            store.resync(word).await.unwrap().open.unwrap();
        }
        while store.link().pulse().await.is_err() || store.link().state() != StoreState::Ready {
            tokio::task::yield_now().await;
        }
        let next = redis.store().await;
        for (copy, is) in [(life(1, &[]), "life 1"), (life(3, &[1_000, 1_500]), "cut")] {
            let refused = next.admit_life(&copy, Says::Work).await.unwrap();
            assert_eq!(refused.refusal.code, ErrorCode::StaleLog, "{is}, fenced: {is_fenced}");
            let shown = refused.shown.map(|word| (word.epoch, word.position, word.seal));
            assert_eq!(shown, Some((Epoch(2), 2_000, 2)), "{is}, fenced: {is_fenced}");
        }
        assert_eq!(next.admit_life(&life(3, &[1_000, 2_000]), Says::Work).await, None);
    }
}

/// What two logs committed is redone in the order of the votes, so that nothing is begun before both have spoken.
#[tokio::test]
async fn every_log_that_spoke_here_owes_its_word() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let other = CoordinatorRef { log_id: OTHER_LOG, ..coordinator(1) };
    let foreign = |n| Tx { txid: assent_common::Txid { log_id: OTHER_LOG, ..tx(n).txid }, ..tx(n) };
    let backup = redis.backup();
    let message = crate::harness::prepare(
        foreign(1),
        assent_common::wire::branch::Mode::TwoPhase,
        crate::harness::ops(&["SET a 1"]),
    );
    let answer = store.execute(&other, NO_MARK, vec![message]).await.remove(0);
    let first = vote(crate::harness::prepared(answer));
    assert_eq!(store.commit(foreign(1)).await, CLEAN);
    let second = vote(store.prepare(tx(2), &["APPEND a 2"]).await);
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    redis.restore(&backup);
    let found = until_quarantined(&store).await;
    assert_eq!(found.owed, [LOG, OTHER_LOG]);

    let ours = word(&found, point(&second), vec![redo(tx(2), &second)]);
    let said = store.resync(ours).await.unwrap();
    assert_eq!((said.open, said.owed), (None, vec![OTHER_LOG]));
    assert_eq!(redis.plain().await.get("a").await, None, "redone before all have spoken");
    let theirs = word(&found, point(&first), vec![redo(foreign(1), &first)]);
    let said = store.resync(Resync { coordinator: other, ..theirs }).await.unwrap();
    assert_eq!(said.redone, 2);
    assert_eq!(redis.plain().await.get("a").await.as_deref(), Some("12"));
}

/// Invariant 12: a vote whose answer reached neither agent nor coordinator has a number that is not given again. A copy of
/// the lost data that has that vote would otherwise be taken to have the later one of the same number as well.
#[tokio::test]
async fn the_number_of_a_vote_that_not_even_its_agent_heard_is_not_given_again() {
    let redis = Redis::start();
    let store = redis.store().await;
    let first = vote(store.prepare(tx(1), &["SET a 1"]).await);
    // Another agent's: this one and the log hear nothing of it.
    let unheard = vote(redis.store().await.prepare(tx(2), &["SET b 1"]).await);
    let () = redis.plain().await.run(&["FLUSHALL"]).await;
    store.link().pulse().await.unwrap();
    let found = store.data().await.unwrap();
    let open = store.resync(word(&found, point(&first), Vec::new())).await.unwrap().open.unwrap();
    assert!(open.seq > unheard.seq, "{open:?}, and {unheard:?}");
    let next = vote(store.prepare(tx(3), &["SET c 1"]).await);
    assert!(next.seq > unheard.seq, "{next:?}, and {unheard:?}");
}

/// A vote that nobody heard of raises nobody's number but the agent's own: the data opens above it, and stays open.
#[tokio::test]
async fn data_opens_above_the_votes_that_nobody_heard() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [_, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    // The third vote never came to its coordinator.
    let word = word(&found, point(&second), vec![redo(tx(2), &second)]);
    let open = store.resync(word).await.unwrap().open.unwrap();
    assert_eq!(open.seq, opening_seq(third.seq));
    store.link().ping().await.unwrap();
    assert_eq!(store.link().state(), StoreState::Ready);
    assert_eq!(store.admit(LOG, Some(open), None).await, None);
    vote(store.prepare(tx(4), &["GET a"]).await);
}

/// What has not been said whole is not taken for said, and open data is not open by the word of a log that it did not hear.
#[tokio::test]
async fn a_word_that_is_not_whole_is_owed() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [_, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    let other = CoordinatorRef { log_id: OTHER_LOG, ..coordinator(1) };
    let whole = word(&found, point(&third), vec![redo(tx(2), &second)]);
    let begun =
        Resync { coordinator: other.clone(), last: false, redo: Vec::new(), ..whole.clone() };
    assert_eq!(store.resync(begun.clone()).await.unwrap().open, None);
    let said = store.resync(whole.clone()).await.unwrap();
    assert_eq!((said.open, said.owed), (None, vec![OTHER_LOG]));
    // An operator does not wait for it.
    assert!(store.resync(Resync { alone: true, ..whole }).await.unwrap().open.is_some());
    let late = store.resync(Resync { part: 1, last: true, ..begun }).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::WrongState);
}

/// A coordinator that died before it had noted the repair is told what became of the data, and fences nothing.
#[tokio::test]
async fn a_coordinator_that_missed_the_end_of_the_repair_is_told() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [_, second, third] = rolled_back(&mut redis, &store).await;
    let found = until_quarantined(&store).await;
    store.resync(word(&found, point(&third), vec![redo(tx(2), &second)])).await.unwrap();
    let refusal = store.admit(LOG, Some(point(&third)), None).await.unwrap();
    assert_eq!(refusal.code, ErrorCode::Quarantined);
    let view = store.data().await.unwrap();
    assert!(view.has_served(LOG, point(&third)), "{view:?}");
    assert!(!view.has_served(OTHER_LOG, point(&third)));
    let open = DataPoint { incarnation: view.incarnation.unwrap(), seq: view.seq };
    assert_eq!(store.admit(LOG, Some(open), None).await, None);
}

/// A word about other data than there is would redo what is not missing.
#[tokio::test]
async fn a_word_about_other_data_is_not_taken() {
    let mut redis = Redis::start();
    let store = redis.store().await;
    let [_, second, third] = rolled_back(&mut redis, &store).await;
    let mut found = until_quarantined(&store).await;
    found.seq += 1;
    let said = store.resync(word(&found, point(&third), vec![redo(tx(2), &second)])).await;
    assert_eq!(said.unwrap_err().code, ErrorCode::WrongState);
    found.seq -= 1;
    let second_part = Resync { part: 1, ..word(&found, point(&third), Vec::new()) };
    assert_eq!(store.resync(second_part).await.unwrap_err().code, ErrorCode::WrongState);
    assert!(store.data().await.unwrap().fenced);
}

/// What was added in escrow is in the log as a delta: it is redone once, whether the copy that was put back had applied it,
/// had it staged, or never heard of it, and however often the repair is begun.
#[tokio::test]
async fn deltas_in_escrow_are_redone_once() {
    const SALE: &[&str] = &[r#"~DECRBY stock 1 ?{"ge":0}"#, "~HINCRBY sold x 1"];
    let mut redis = Redis::start();
    let store = redis.store().await;
    let () = redis.plain().await.run(&["SET", "stock", "4"]).await;
    let first = vote(store.prepare(tx(1), SALE).await);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let second = vote(store.prepare(tx(2), SALE).await);
    let backup = redis.backup();
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    let third = vote(store.prepare(tx(3), SALE).await);
    let undecided = vote(store.prepare(tx(4), SALE).await);
    assert_eq!(store.commit(tx(3)).await, CLEAN);
    redis.restore(&backup);
    let found = until_quarantined(&store).await;
    assert_eq!(found.found().seq, second.seq);

    // The writes of what is staged are not said.
    let staged = RedoBranch { redo: Base64([].into()), ..redo(tx(2), &second) };
    let word = word(&found, point(&undecided), vec![staged, redo(tx(3), &third)]);
    store.resync(word.clone()).await.unwrap().open.unwrap();
    let mut plain = redis.plain().await;
    assert_eq!(plain.get("stock").await.as_deref(), Some("1"));
    // As if the last step had not been reached.
    let (was, seq) = (first.incarnation.to_string(), second.seq.to_string());
    let fields = ["HSET", "assent:ctl", "m:inc", "0", "m:was", &was, "m:seq", &seq];
    let _: u32 = plain.run(&fields).await;
    let next = redis.store().await;
    let found = next.data().await.unwrap();
    let word = Resync { found: found.found(), ..word };
    assert!(next.resync(word).await.unwrap().open.is_some());
    assert_eq!(plain.get("stock").await.as_deref(), Some("1"));
    assert_eq!(plain.run::<Vec<String>>(&["HGETALL", "sold"]).await, ["x", "3"]);
    assert_unlocked(&next, &mut plain, &["stock", "sold"]).await;
    // And the last one is to be had.
    vote(next.prepare(tx(5), SALE).await);
    assert_eq!(next.prepare(tx(6), SALE).await.refused().code, ErrorCode::LockConflict);
}
