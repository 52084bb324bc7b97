//! What the script evaluates for the owner: it keeps nothing, and what it says becomes a branch
//! like any other.

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::outcome::{Aborted, Call};
use assent_common::wire::branch::Mode;
use assent_participant::store::{Store, StoreOptions, decode_redo};

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Redis, assert_free, assert_unlocked, commit, committed,
    one_phase_done, ops, prepare, prepared, tx, vote,
};
use crate::wire::Wire;

/// One round trip to look, one to keep, whatever the ops are and however many branches there are.
#[tokio::test]
async fn a_batch_is_looked_at_once_and_kept_once() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let lines = ["HINCRBY h# f 1", "SADD s# m", "GET g#"];
    let branch = |n: u64| {
        let lines: Vec<String> =
            lines.iter().map(|line| line.replace('#', &n.to_string())).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        prepare(tx(n), Mode::TwoPhase, ops(&lines))
    };
    vote(prepared(store.send(vec![branch(1)]).await.remove(0)));
    plain.calls().await;
    let mut messages: Vec<_> = (2..=9).map(branch).collect();
    messages.push(commit(tx(1)));
    let mut answers = store.send(messages).await;
    assert_eq!(answers.pop(), Some(BranchAnswer::Applied(CLEAN)));
    for answer in answers {
        assert_eq!(&*vote(prepared(answer)).replies, "[1,1,null]");
    }
    let calls = plain.calls().await;
    assert_eq!((calls.of("evalsha"), calls.of("exec")), (1, 1), "{calls:?}");
}

/// Bad input changes nothing, and neither does looking at it.
#[tokio::test]
async fn what_comes_to_a_no_writes_nothing() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "text", "x"]).await;
    store.one_phase(tx(1), &["HSET h f 1"]).await.done();
    let before: String = plain.run(&["INFO", "persistence"]).await;
    let size = |info: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix("aof_current_size:"));
        line.unwrap().trim().to_owned()
    };
    for (n, line) in [(2, "INCR text"), (3, r#"HGET h f ?{"gt":1}"#), (4, "SADD text m")] {
        store.prepare(tx(n), &[line]).await.refused();
        store.one_phase(tx(n + 10), &[line]).await.refused();
    }
    // So does a branch of one phase that only reads.
    assert_eq!(&*committed(store.one_phase(tx(20), &["HGETALL h"]).await), r#"[["f","1"]]"#);
    let after: String = plain.run(&["INFO", "persistence"]).await;
    if !assent_servers::chosen().is_redis_6_2() {
        assert_eq!(size(&before), size(&after));
    }
    assert_unlocked(&store, &mut plain, &["text", "h"]).await;
}

/// An owner that starts knows the replies of the branches in doubt from their records only.
#[tokio::test]
async fn the_next_owner_gives_the_same_yes_again() {
    let redis = Redis::start();
    let branches: [&[&str]; 3] = [
        &["HINCRBY h f 4", "XADD x * f v", "LRANGE l 0 -1", "~INCRBY n 2"],
        &["SET a \u{fc}", "GETRANGE a 0 -1", "MGET a b"],
        &["SMEMBERS s", "GET b", "TTL b"],
    ];
    let mut votes = Vec::new();
    for _ in 0..3 {
        let store = redis.store().await;
        for (n, lines) in (1..).zip(branches) {
            votes.push(vote(store.prepare(tx(n), lines).await));
            votes.push(vote(store.prepare(tx(n), lines).await));
        }
    }
    let seqs: Vec<u64> = votes.iter().map(|vote| vote.seq).collect();
    assert_eq!(seqs, [1, 1, 2, 2, 3, 3].repeat(3));
    for twice in votes.chunks(6).skip(1) {
        assert_eq!(twice, &votes[..6]);
    }
}

/// The id of an entry that is added in one phase is in the first answer, in every one that is given
/// again, and in the marker that outlives the agent.
#[tokio::test]
async fn the_ids_of_entries_are_said_alike_by_whoever_is_asked() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let lines = [
        "XADD x * f 1",
        "XADD none NOMKSTREAM * f 0",
        "XADD y * f 2",
        "INCR n",
        "XADD x * f 3",
        "XLEN x",
        "~INCRBY c 5",
        "DEL gone",
    ];
    let () = plain.run(&["SET", "gone", "1"]).await;
    let done = one_phase_done(store.one_phase(tx(1), &lines).await);
    let mut ids = Vec::new();
    for (stream, entries) in [("x", 2), ("y", 1), ("none", 0)] {
        let found: Vec<(String, Vec<String>)> = plain.run(&["XRANGE", stream, "-", "+"]).await;
        assert_eq!(found.len(), entries);
        ids.extend(found.into_iter().map(|(id, _)| id));
    }
    let [first, third, second] = &ids[..] else { panic!("{ids:?}") };
    let estimate = r#"{"at_least":5,"at_most":5}"#;
    let replies = format!(r#"["{first}",null,"{second}",1,"{third}",2,{estimate},1]"#);
    assert_eq!(*done.replies, *replies);
    let writes = decode_redo(&done.written.clone().unwrap().redo).unwrap();
    let names: Vec<_> = writes.iter().map(|write| write[0].0.as_slice()).collect();
    assert_eq!(names, [&b"XADD"[..], b"XADD", b"XADD", b"SET", b"INCRBY", b"UNLINK"]);
    for store in [store, redis.store().await, redis.store_by_script().await] {
        assert_eq!(one_phase_done(store.one_phase(tx(1), &lines).await), done);
        assert_eq!(store.abort(tx(1)).await.done(), Aborted::AlreadyCommitted(done.clone()));
    }
    assert_eq!(plain.run::<u32>(&["XLEN", "x"]).await, 2);
    assert_eq!(plain.get("c").await.as_deref(), Some("5"));
}

/// Many in one round: each marker has the ids of its own branch; and what ends in the same round
/// ends.
#[tokio::test]
async fn entries_of_one_batch_are_told_apart() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    vote(store.prepare(tx(1), &["RPUSH q x"]).await);
    let lines = |n: u64| [format!("XADD s{n} * f {n}"), format!("SET k{n} {n}")];
    let branch = |n: u64| {
        let [first, second] = lines(n);
        prepare(tx(n), Mode::OnePhase, ops(&[&first, &second]))
    };
    let mut messages: Vec<_> = (2..=20).map(branch).collect();
    messages.push(prepare(tx(21), Mode::TwoPhase, ops(&["HSET h f v"])));
    messages.push(commit(tx(1)));
    let answers = store.send(messages).await;
    assert_eq!(answers[20], BranchAnswer::Applied(CLEAN));
    vote(prepared(answers[19].clone()));
    let mut dones = Vec::new();
    for (n, answer) in (2..=20).zip(answers) {
        let done = one_phase_done(prepared(answer));
        let entries: Vec<(String, Vec<String>)> =
            plain.run(&["XRANGE", &format!("s{n}"), "-", "+"]).await;
        assert_eq!(*done.replies, format!(r#"["{}","OK"]"#, entries[0].0));
        assert_eq!(entries[0].1, ["f".to_owned(), n.to_string()]);
        assert_eq!(plain.get(&format!("k{n}")).await, Some(n.to_string()));
        let [first, second] = lines(n);
        dones.push(([first, second], done));
    }
    let other = redis.store_by_script().await;
    for (n, ([first, second], done)) in (2..).zip(dones) {
        assert_eq!(one_phase_done(other.one_phase(tx(n), &[&first, &second]).await), done);
    }
    assert_eq!(plain.run::<u32>(&["LLEN", "q"]).await, 1);
    assert_eq!(other.facts().await.unwrap().locks, 1);
    let refusal = other.prepare(tx(22), &["EXISTS h"]).await.refused();
    assert_eq!(refusal.holder.map(|holder| holder.txid), Some(tx(21).txid));
    assert_free(&other, &["q", "s2", "k2", "s20", "k20"]).await;
}

/// Invariant 8: what became of a call of which nothing was heard is found in the marker.
#[tokio::test]
async fn an_entry_whose_answer_was_lost_is_added_once_and_its_id_is_found() {
    let redis = Redis::start();
    let (wire, mut plain) = (Wire::to(&redis), redis.plain().await);
    // The call that writes says the marker's name; the one that looks does not.
    wire.hold_replies_after(format!("d:{}", tx(2).txid).leak());
    let store = Store::connect(StoreOptions::new(wire.url())).await.unwrap();
    committed(store.one_phase(tx(1), &["XADD s 1-1 f v", "XADD t * f v"]).await);
    let cut = async {
        let link = wire.link(0).await;
        link.holds_a_reply().await;
        wire.hold_no_replies();
        link.cut();
    };
    let (call, ()) = tokio::join!(store.one_phase(tx(2), &["XADD s * f v"]), cut);
    assert!(matches!(call, Call::Unknown(_)), "{call:?}");
    let done = one_phase_done(store.one_phase(tx(2), &["XADD s * f v"]).await);
    let entries: Vec<(String, Vec<String>)> = plain.run(&["XRANGE", "s", "-", "+"]).await;
    assert_eq!(entries.len(), 2);
    assert_eq!(*done.replies, format!(r#"["{}"]"#, entries[1].0));
    assert_eq!(done.written.unwrap().seq, 2);
}

/// The place of an op that is to blame is its place in the branch, whoever judges which of them.
#[tokio::test]
async fn ops_in_escrow_among_others_are_answered_in_their_places() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["MSET", "stock", "5", "text", "x"]).await;
    let lines = [
        r#"~DECRBY stock 2 ?{"ge":0}"#,
        "HSET h f 7",
        "~HINCRBY counts a 3",
        "HGET h f",
        "~DECRBY stock 1",
        "DEL text",
    ];
    let estimate = |value: i64| format!(r#"{{"at_least":{value},"at_most":{value}}}"#);
    let first = vote(store.prepare(tx(1), &lines).await);
    let replies = [estimate(3), "1".into(), estimate(3), r#""7""#.into(), estimate(2), "1".into()];
    assert_eq!(*first.replies, format!("[{}]", replies.join(",")));
    let writes: Vec<String> =
        decode_redo(&first.redo).unwrap().iter().map(|write| format!("{write:?}")).collect();
    assert_eq!(
        writes,
        [
            r#"["HSET", "h", "f", "7"]"#,
            r#"["INCRBY", "stock", "-3"]"#,
            r#"["HINCRBY", "counts", "a", "3"]"#,
            r#"["UNLINK", "text"]"#,
        ],
        "what may delete a key comes last"
    );
    assert_eq!(vote(store.prepare(tx(1), &lines).await), first);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.get("stock").await.as_deref(), Some("2"));
    let blamed = [
        ("LPUSH h x", ErrorCode::WrongType),
        (r#"HGET h f ?{"eq":8}"#, ErrorCode::ExpectationFailed),
    ];
    for (n, (line, code)) in (2..).zip(blamed) {
        let lines = ["~INCRBY stock 1", "SADD s m", "~INCRBY other 1", line];
        for mode in [Mode::TwoPhase, Mode::OnePhase] {
            let message = prepare(tx(n), mode, ops(&lines));
            let refusal = prepared(store.send(vec![message]).await.remove(0)).refused();
            assert_eq!((refusal.code, refusal.op), (code, Some(3)), "{refusal:?}");
        }
    }
    let short = ["~INCRBY new 1", r#"~DECRBY stock 9 ?{"ge":0}"#, "LPUSH h x"];
    let refusal = store.prepare(tx(9), &short).await.refused();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::ExpectationFailed, Some(1)));
}
