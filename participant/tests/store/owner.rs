//! Ownership: the same answers and the same control hash whichever way it writes, and nobody writes
//! past the owner.

use std::collections::BTreeMap;

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::outcome::{Aborted, Call, Prepared};
use assent_common::wire::branch::Mode;
use assent_participant::store::StoreState;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, NO_MARK, Numbers, Plain, Redis, Told, Tx, abort, assert_free,
    assert_unlocked, commit, committed, coordinator, implicit, ops, prepare, prepared, settle, tx,
    vote,
};

const OWNER: &str = "assent:ctl:owner";

/// Two agents of which none can pass anything on to the other take turns; what one has voted for,
/// the other ends. Who has nothing to do takes nothing.
#[tokio::test]
async fn two_agents_without_an_address_take_turns() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let first = redis.store().await;
    let owner = plain.get(OWNER).await;
    assert!(owner.is_some());
    let second = redis.store().await;
    second.link().pulse().await.unwrap();
    second.sweep().await.unwrap();
    assert_eq!(plain.get(OWNER).await, owner, "it has nothing to do");
    assert!(first.link().is_sole_owner() && !second.link().is_sole_owner());
    vote(first.prepare(tx(1), &["SET a 1"]).await);
    vote(second.prepare(tx(2), &["SET b 1"]).await);
    assert!(second.link().is_sole_owner());
    assert_eq!(first.prepare(tx(3), &["GET b"]).await.refused().code, ErrorCode::LockConflict);
    let owner = plain.get(OWNER).await;
    second.link().pulse().await.unwrap();
    assert_eq!(plain.get(OWNER).await, owner, "it has nothing to do");
    drop(first);
    while !second.link().is_sole_owner() {
        second.sweep().await.unwrap();
    }
    for n in [1, 2] {
        assert_eq!(second.commit(tx(n)).await, CLEAN);
    }
    assert_unlocked(&second, &mut plain, &["a", "b"]).await;
}

/// Capacity: a value that was short is read among others, and whatever became of it since is seen.
#[tokio::test]
async fn keys_that_were_short_are_read_by_one_command() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["MSET", "a", "1", "b", "two", "c", "3"]).await;
    let lines = ["INCRBY a 1", "GET b", "GET c"];
    let expiry = if assent_servers::chosen().is_redis_6_2() { "pttl" } else { "pexpiretime" };
    for (n, [mget, getrange, expiries]) in [(1, [0, 3, 3]), (2, [1, 0, 1])] {
        plain.calls().await;
        assert_eq!(&*vote(store.prepare(tx(n), &lines).await).replies, r#"[2,"two","3"]"#);
        let calls = plain.calls().await;
        let seen = ["mget", "getrange", expiry].map(|command| calls.of(command));
        assert_eq!(seen, [mget, getrange, expiries]);
        store.abort(tx(n)).await.done();
    }
    let () = plain.run(&["PEXPIRE", "a", "600000"]).await;
    let () = plain.run(&["DEL", "b", "c"]).await;
    let () = plain.run(&["RPUSH", "c", "x"]).await;
    let mixed = store.prepare(tx(3), &lines).await.refused();
    assert_eq!(mixed.code, ErrorCode::WrongType);
    let done = store.one_phase(tx(4), &["INCRBY a 1", "GET b"]).await;
    assert_eq!(*committed(done), *"[2,null]");
    assert!(plain.expires_at_ms("a").await > 0, "the expiry stays");
}

/// Bounds before work: what a client has made long is not read among others.
#[tokio::test]
async fn a_key_that_a_client_made_long_is_not_read_whole() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let long = format!("SET k {}", "v".repeat(20_000));
    for (n, line) in (1..).step_by(5).zip([long.as_str(), "SETRANGE k 100000 v"]) {
        let () = plain.run(&["SET", "k", "short"]).await;
        for n in [n, n + 1] {
            vote(store.prepare(tx(n), &["GET k"]).await);
            store.abort(tx(n)).await.done();
        }
        vote(store.prepare(tx(n + 2), &[line]).await);
        assert_eq!(store.commit(tx(n + 2)).await, CLEAN);
        plain.calls().await;
        vote(store.prepare(tx(n + 3), &["GET k"]).await);
        let calls = plain.calls().await;
        assert_eq!((calls.of("mget"), calls.of("getrange")), (0, 1), "{calls:?}");
        store.abort(tx(n + 3)).await.done();
    }
}

/// Invariant 12: what the old owner has in memory is worth nothing from the moment that another agent may write.
#[tokio::test]
async fn what_another_agent_staged_is_met_by_the_owner_that_was() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    vote(owner.prepare(tx(5), &["SET a 1"]).await);
    let other = redis.store_by_script().await;
    // Its locks are the owner's, and the owner's branches can be ended by it.
    assert_eq!(other.prepare(tx(6), &["GET a"]).await.refused().code, ErrorCode::LockConflict);
    vote(other.prepare(tx(7), &["SET b 1"]).await);
    assert_eq!(other.abort(tx(5)).await.done(), Aborted::Fenced);
    assert_eq!(owner.prepare(tx(8), &["SET b 2"]).await.refused().code, ErrorCode::LockConflict);
    assert_eq!(owner.commit(tx(5)).await.refused().code, ErrorCode::Fenced);
    assert_eq!(owner.commit(tx(7)).await, CLEAN);
    assert_eq!(plain.get("b").await.as_deref(), Some("1"));
    assert_eq!(plain.get("a").await, None);
    assert_eq!(owner.link().state(), StoreState::Ready);
}

/// Invariant 12, for a commit: the branch was dropped by somebody else, and must not be applied from memory.
#[tokio::test]
async fn a_branch_that_another_agent_dropped_is_not_applied_from_memory() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    vote(owner.prepare(tx(5), &["SET a 1"]).await);
    let other = redis.store_by_script().await;
    assert_eq!(other.abort(tx(5)).await.done(), Aborted::Fenced);
    drop(other);
    assert_eq!(owner.commit(tx(5)).await.refused().code, ErrorCode::Fenced);
    assert_eq!(plain.get("a").await, None);
}

/// Readers of one phase write nothing, so that only the look itself can find the ownership gone.
#[tokio::test]
async fn a_reader_of_one_phase_meets_the_lock_of_another_agent() {
    let redis = Redis::start();
    let owner = redis.store().await;
    // The epoch is kept by now: nothing is left that would be written along.
    assert_eq!(&*committed(owner.one_phase(tx(1), &["GET a"]).await), "[null]");
    let other = redis.store_by_script().await;
    vote(other.prepare(tx(5), &["SET a 1"]).await);
    let refusal = owner.one_phase(tx(6), &["GET a"]).await.refused();
    assert_eq!(refusal.code, ErrorCode::LockConflict);
}

/// The other direction: an owner that writes by scripts writes nothing behind the back of one that
/// took the Redis for itself.
#[tokio::test]
async fn a_script_does_nothing_while_another_agent_owns_the_redis() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store_by_script().await, redis.plain().await);
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["SET", OWNER, "somebody"]).await;
    let before = plain.control("").await;
    let claims = plain.control("s:").await.len();
    vote(store.prepare(tx(2), &["SET b 1"]).await);
    assert_ne!(plain.get(OWNER).await.as_deref(), Some("somebody"), "it was claimed first");
    assert_eq!((claims, plain.control("").await.len()), (1, before.len() + 1));
}

#[tokio::test]
async fn a_touched_owner_key_costs_a_reconnect_and_nothing_else() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    vote(owner.prepare(tx(1), &["SET a 1", "GET b"]).await);
    for (n, touch) in [(2, &["SET", OWNER, "somebody"][..]), (3, &["DEL", OWNER])] {
        let () = plain.run(touch).await;
        assert_eq!(&*committed(owner.one_phase(tx(n), &["INCR c"]).await), format!("[{}]", n - 1));
        assert!(plain.get(OWNER).await.is_some(), "owned again");
    }
    assert_eq!(owner.commit(tx(1)).await, CLEAN);
}

/// Invariant 12: the control hash is gone, the owner key is not.
#[tokio::test]
async fn a_control_hash_that_vanished_gives_no_vote_and_quarantines() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    vote(owner.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["DEL", "assent:ctl"]).await;
    assert!(matches!(owner.prepare(tx(2), &["SET b 1"]).await, Call::Unknown(_)));
    assert!(matches!(
        owner.link().state(),
        StoreState::Quarantined(_) | StoreState::Disconnected(_)
    ));
    assert_eq!(owner.prepare(tx(3), &["SET c 1"]).await.refused().code, ErrorCode::Quarantined);
}

/// Invariant 13: the first end leaves the lock to the other, the second leaves it to nobody, in one round.
#[tokio::test]
async fn readers_of_one_key_that_end_in_one_batch_leave_no_lock() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    for n in 1..=4 {
        vote(owner.prepare(tx(n), &["GET a", &format!("SET own:{n} 1")]).await);
    }
    assert_eq!(owner.facts().await.unwrap().locks, 5);
    let answers = owner.send(vec![commit(tx(1)), abort(tx(2)), commit(tx(3))]).await;
    assert_eq!(answers.len(), 3);
    let refusal = owner.prepare(tx(10), &["SET a 1"]).await.refused();
    assert_eq!(refusal.holder.map(|it| it.txid), Some(tx(4).txid), "who has not ended keeps it");
    let left = owner.in_doubt().await.unwrap();
    assert_eq!(left.iter().map(|it| it.txid).collect::<Vec<_>>(), [tx(4).txid]);
    assert_free(&owner, &["own:1", "own:2", "own:3"]).await;
    owner.send(vec![commit(tx(4))]).await;
    for n in 5..=6 {
        vote(owner.prepare(tx(n), &["GET a", &format!("SET own:{n} 1")]).await);
    }
    let both = vec![commit(tx(5)), commit(tx(6))];
    owner.send(both).await;
    assert_unlocked(&owner, &mut plain, &["a", "own:4", "own:5", "own:6"]).await;
    // Whoever comes next knows only what is in the hash.
    drop(owner);
    let next = redis.store().await;
    vote(next.prepare(tx(7), &["SET a 1"]).await);
}

/// Rolling upgrade: an earlier version wrote a field for each locked key, and nowhere else what is
/// reserved in escrow. That is minded until its branches end; all others go with what is written
/// next.
#[tokio::test]
async fn lock_fields_of_an_earlier_version_are_minded_as_far_as_needed_and_go() {
    const SALE: &str = r#"~DECRBY stock 1 ?{"ge":0}"#;
    const AS_IT_WROTE_RECORDS: &str = "local field = 's:' .. ARGV[1] \
         local record = cmsgpack.unpack(redis.call('HGET', KEYS[1], field)) \
         record[1], record[9], record[10] = 1, nil, nil \
         return redis.call('HSET', KEYS[1], field, cmsgpack.pack(record))";
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "stock", "2"]).await;
    let (own, nobody) = (tx(1), tx(99));
    vote(owner.prepare(own, &["SET a 1", "GET b", SALE]).await);
    assert_eq!(plain.control("l:").await, Vec::<String>::new());
    let txid = own.txid.to_string();
    let _: u32 = plain.run(&["EVAL", AS_IT_WROTE_RECORDS, "1", "assent:ctl", &txid]).await;
    let held = |letter: &str, by: Tx| format!("{letter} {} {}", by.txid, by.id);
    // More than the record says, so that the field must be what is read.
    let stock = format!("{} :-2:0:9", held("E", own));
    let sold = format!("{} :-1:0:9", held("E", nobody));
    let (a, b, left) = (held("X", own), held("S", own), held("X", nobody));
    for (key, lock) in [("a", &a), ("b", &b), ("stock", &stock), ("left", &left), ("sold", &sold)] {
        let _: u32 = plain.run(&["HSET", "assent:ctl", &format!("l:{key}"), lock]).await;
    }
    for n in 0..600 {
        let _: u32 = plain.run(&["HSET", "assent:ctl", &format!("l:many{n}"), &left]).await;
    }
    drop(owner);
    let next = redis.store().await;
    // Two rounds, of so many fields as one takes.
    assert_free(&next, &["left", "sold", "many0", "many599"]).await;
    assert_eq!(plain.control("l:").await, ["l:stock"]);
    for line in ["PERSIST a", "PERSIST b", "PERSIST stock", SALE] {
        let refusal = next.prepare(tx(2), &[line]).await.refused();
        assert_eq!(refusal.holder.map(|holder| holder.txid), Some(own.txid), "{line}");
    }
    vote(next.prepare(tx(3), &["~INCRBY stock 1"]).await);
    drop(next);
    let last = redis.store().await;
    assert_eq!(last.commit(tx(3)).await, CLEAN);
    let refusal = last.prepare(tx(4), &[r#"~DECRBY stock 2 ?{"ge":0}"#]).await.refused();
    assert_eq!(refusal.holder.map(|holder| holder.txid), Some(own.txid));
    assert_eq!(plain.control("l:").await, ["l:stock"]);
    assert_eq!(last.commit(own).await, CLEAN);
    assert_eq!(plain.get("stock").await.as_deref(), Some("2"));
    assert_unlocked(&last, &mut plain, &["a", "b", "stock"]).await;
}

#[tokio::test]
async fn prepares_behind_what_changes_their_keys_see_the_change() {
    let redis = Redis::start();
    let owner = redis.store().await;
    vote(owner.prepare(tx(1), &["SET a 1"]).await);
    let answers = owner
        .send(vec![
            prepare(tx(2), Mode::TwoPhase, ops(&["INCR a"])),
            prepare(tx(3), Mode::OnePhase, ops(&["SET c 1"])),
            prepare(tx(4), Mode::TwoPhase, ops(&["INCR c"])),
            prepare(tx(5), Mode::TwoPhase, ops(&["GET a"])),
            prepare(tx(6), Mode::OnePhase, ops(&["INCR d"])),
            prepare(tx(7), Mode::OnePhase, ops(&["INCR d"])),
            commit(tx(1)),
        ])
        .await;
    let answers: Vec<_> = answers.into_iter().collect();
    let call = |n: usize| prepared(answers[n].clone());
    assert_eq!(&*vote(call(0)).replies, "[2]");
    assert_eq!(&*committed(call(1)), r#"["OK"]"#);
    assert_eq!(&*vote(call(2)).replies, "[2]");
    assert_eq!(call(3).refused().code, ErrorCode::LockConflict);
    assert_eq!((&*committed(call(4)), &*committed(call(5))), ("[1]", "[2]"));
    assert_eq!(answers[6], BranchAnswer::Applied(CLEAN));
}

#[tokio::test]
async fn a_batch_of_more_than_one_round_is_answered_in_order() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    let branch = |n: u64| ops(&[&format!("INCRBY key{n} {n}")]);
    let messages = |from: u64| (from..from + 256).map(move |n| (n, tx(n)));
    let prepares =
        messages(1).map(|(n, tx)| prepare(tx, Mode::TwoPhase, branch(n))).collect::<Vec<_>>();
    for (answer, (n, _)) in owner.send(prepares).await.into_iter().zip(messages(1)) {
        assert_eq!(&*vote(prepared(answer)).replies, format!("[{n}]"));
    }
    let commits = messages(1).map(|(_, tx)| commit(tx)).collect();
    for answer in owner.send(commits).await {
        assert_eq!(answer, BranchAnswer::Applied(CLEAN));
    }
    assert_eq!(plain.get("key256").await.as_deref(), Some("256"));
    assert_unlocked(&owner, &mut plain, &["key1", "key128", "key129", "key256"]).await;
}

/// A coordinator that dies takes its requests with it, wherever they are: what the machine has stepped and no `EXEC` has
/// kept must not be told later.
#[tokio::test]
async fn a_batch_whose_caller_goes_away_half_way_is_not_taken_for_done() {
    let redis = Redis::start();
    let (owner, mut plain) = (redis.store().await, redis.plain().await);
    vote(owner.prepare(tx(1), &["SET a 1"]).await);
    let mut cut = Box::pin(owner.commit(tx(1)));
    assert!(futures_util::poll!(&mut cut).is_pending());
    drop(cut);
    assert_eq!(owner.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
    assert_eq!(plain.control("s:").await, Vec::<String>::new());
}

impl Numbers {
    fn ops(&mut self) -> Vec<String> {
        let count = 1 + self.below(3);
        (0..count).map(|_| self.op()).collect()
    }

    /// An op in escrow on one of a few counters, with a bound that it often meets.
    fn sale(&mut self) -> String {
        let amount = i64::try_from(self.below(21)).unwrap() - 10;
        match self.below(3) {
            0 => format!(r#"~HINCRBY h f{} {amount} ?{{"ge":-20,"le":30}}"#, self.below(2)),
            1 => format!(r#"~INCRBY c {amount} ?{{"gt":-15,"lt":40}}"#),
            _ => format!(r#"~DECRBY d {amount} ?{{"ge":-9}}"#),
        }
    }

    fn op(&mut self) -> String {
        let key = format!("k{}", self.below(4));
        let number = i64::try_from(self.below(100)).unwrap();
        let counter = format!("c{}", self.below(3));
        match self.below(24) {
            0 => format!("GET {key}"),
            1 => format!("SET {key} {number}"),
            2 => format!("INCRBY {key} {number}"),
            3 => format!(r#"DECRBY {key} {number} ?{{"ge":0}}"#),
            4 => format!("GETDEL {key}"),
            5 => format!("SETNX {key} {number}"),
            6 => format!("APPEND {key} {number}"),
            7 => format!("MSET {key} {number} k9 {number}"),
            8 => format!("MGET {key} k9"),
            9 => format!("GETSET {key} x{number}"),
            10 => format!("EXPIREAT {key} 99999999999"),
            11 | 12 => format!(r#"~DECRBY {counter} {number} ?{{"ge":0}}"#),
            13 => format!(r#"~INCRBY {counter} {number} ?{{"lt":400}}"#),
            14 => {
                format!(r#"~HINCRBY c9 f{} {} ?{{"ge":-40,"le":60}}"#, self.below(3), number - 50)
            }
            15 => format!("GETRANGE {key} {} {}", number % 9 - 4, number % 7 - 3),
            16 => format!("SETRANGE {key} {} {number}", number % 9),
            17 => format!("HINCRBY h{} f{} {number}", number % 3, number % 2),
            18 => format!(r#"HGET h{} f0 ?{{"ge":50}}"#, number % 3),
            19 => format!("SADD s{} {}", number % 2, number % 5),
            20 => format!("RPUSH l{} {number}", number % 2),
            21 => format!("LPOP l{}", number % 2),
            22 => format!("ZINCRBY z {number} m{}", number % 3),
            _ => format!("DEL {key} h{}", number % 3),
        }
    }
}

/// The control hash but for the incarnation, and for the content of records and markers, which is read by other ways.
async fn control(plain: &mut Plain) -> BTreeMap<String, String> {
    let fields: BTreeMap<Vec<u8>, Vec<u8>> = plain.run(&["HGETALL", "assent:ctl"]).await;
    let readable = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
    let fields = fields.into_iter().map(|(field, value)| {
        // But for the branches of an implicit transaction, an array.
        let is_implicit = value.first().is_some_and(|tag| tag & 0xf0 == 0x90);
        let is_record = field.starts_with(b"s:") || field.starts_with(b"d:") && !is_implicit;
        (readable(field), if is_record { String::new() } else { readable(value) })
    });
    fields.filter(|(field, _)| field != "m:inc" && field != "m:run").collect()
}

/// Without the incarnation of a vote and the wording of a no.
fn comparable(mut answers: Vec<BranchAnswer>) -> Vec<BranchAnswer> {
    for answer in &mut answers {
        match answer {
            BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => vote.incarnation = 0,
            BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done)))
            | BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))) => {
                done.written.iter_mut().for_each(|written| written.incarnation = 0);
            }
            BranchAnswer::Prepared(Call::Refused(refusal))
            | BranchAnswer::Applied(Call::Refused(refusal)) => refusal.detail.clear(),
            _ => {}
        }
    }
    answers
}

/// By scripts an owner is the same, only slower: the same messages leave the same answers, the same control hash (so that
/// either can go on where the other stopped), and the same data. A prepare that comes again shows what the records say
/// of the replies.
#[tokio::test]
async fn the_owner_and_the_scripts_answer_and_write_the_same() {
    let (owned, scripted) = (Redis::start(), Redis::start());
    let (owner, scripts) = (owned.store().await, scripted.store_by_script().await);
    let (mut owned, mut scripted) = (owned.plain().await, scripted.plain().await);
    assert!(owned.get(OWNER).await.is_some());
    let mut numbers = Numbers(7);
    let mut prepares: Vec<Told> = Vec::new();
    for step in 0..500_u64 {
        // Any transaction of late; or one that is in doubt, so that not everything is locked after a while.
        let recent = tx(1 + step.saturating_sub(numbers.below(8))).txid;
        let doubtful = owner.in_doubt().await.unwrap().first().map(|branch| branch.txid);
        let ended = doubtful.filter(|_| numbers.below(3) > 0).unwrap_or(recent);
        let message = match numbers.below(9) {
            0..4 => {
                let lines = numbers.ops();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let mode = if numbers.below(3) == 0 { Mode::OnePhase } else { Mode::TwoPhase };
                prepares.push(match numbers.below(3) {
                    0 => implicit(tx(step + 1), ops(&lines)),
                    _ => prepare(tx(step + 1), mode, ops(&lines)),
                });
                prepares[prepares.len() - 1].clone()
            }
            4 | 5 => (ended, BranchMessage::Commit),
            6 => (ended, BranchMessage::Abort),
            // Any of late, and at times one that comes yet and then meets its fence.
            7 => settle(tx(1 + step.saturating_sub(numbers.below(8)) + numbers.below(3))),
            _ => match prepares.iter().rev().nth(numbers.below(4) as usize) {
                Some(earlier) => earlier.clone(),
                None => continue,
            },
        };
        let messages = vec![message];
        let said = owner.execute(&coordinator(1), NO_MARK, messages.clone()).await;
        let expected = scripts.execute(&coordinator(1), NO_MARK, messages.clone()).await;
        let told = format!("step {step}: {messages:?}");
        assert_eq!(comparable(said), comparable(expected), "{told}");
        assert_eq!(control(&mut owned).await, control(&mut scripted).await, "{told}");
        assert_eq!(owned.data().await, scripted.data().await, "{told}");
        assert_eq!(owner.in_doubt().await, scripts.in_doubt().await, "{told}");
    }
}

/// In one batch the owner counts what the batch itself has applied and reserved; the scripts see it in the data. Only
/// escrow: whatever else would be put off here, and so be numbered otherwise.
#[tokio::test]
async fn batches_in_escrow_come_to_the_same() {
    let (owned, scripted) = (Redis::start(), Redis::start());
    let (owner, scripts) = (owned.store().await, scripted.store_by_script().await);
    let (mut owned, mut scripted) = (owned.plain().await, scripted.plain().await);
    let mut numbers = Numbers(11);
    let (mut granted, mut refused, mut next) = (0, 0, 0);
    for step in 0..200 {
        let mut doubtful: Vec<_> =
            owner.in_doubt().await.unwrap().into_iter().map(|branch| branch.txid).collect();
        let mut messages = Vec::new();
        for _ in 0..1 + numbers.below(8) {
            if numbers.below(3) > 0 || doubtful.is_empty() {
                next += 1;
                let lines: Vec<String> =
                    (0..1 + numbers.below(2)).map(|_| numbers.sale()).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let mode = if numbers.below(4) == 0 { Mode::OnePhase } else { Mode::TwoPhase };
                messages.push(prepare(tx(next), mode, ops(&lines)));
            } else {
                let any = usize::try_from(numbers.below(doubtful.len() as u64)).unwrap();
                let txid = doubtful.swap_remove(any);
                let is_commit = numbers.below(3) > 0;
                messages.push(match is_commit {
                    true => (txid, BranchMessage::Commit),
                    false => (txid, BranchMessage::Abort),
                });
            }
        }
        let said = owner.execute(&coordinator(1), NO_MARK, messages.clone()).await;
        let expected = scripts.execute(&coordinator(1), NO_MARK, messages.clone()).await;
        let told = format!("step {step}: {messages:?}");
        assert_eq!(comparable(said.clone()), comparable(expected), "{told}");
        assert_eq!(control(&mut owned).await, control(&mut scripted).await, "{told}");
        assert_eq!(owned.data().await, scripted.data().await, "{told}");
        for answer in said {
            match answer {
                BranchAnswer::Prepared(Call::Applied(_)) => granted += 1,
                BranchAnswer::Prepared(Call::Refused(_)) => refused += 1,
                _ => {}
            }
        }
    }
    assert!(granted > 100 && refused > 50, "{granted} granted, {refused} refused");
}
