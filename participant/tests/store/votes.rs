//! Prepare: what is staged, what is answered, what is refused.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Aborted, Call, Prepared};
use assent_participant::store::decode_redo;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Redis, assert_free, assert_unlocked, committed, one_phase_done,
    tx, vote,
};

#[tokio::test]
async fn a_transfer_is_staged_unseen_and_then_applied() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "acct:alice", "100"]).await;
    let vote = vote(
        store
            .prepare(tx(1), &["DECRBY acct:alice 30 ?{\"ge\":0}", "INCR tally", "GET tally"])
            .await,
    );
    assert_eq!(&*vote.replies, r#"[70,1,"1"]"#);
    assert_eq!((vote.seq, vote.incarnation), (1, store.incarnation()));
    assert_eq!(plain.get("acct:alice").await.as_deref(), Some("100"));
    assert_eq!(plain.get("tally").await, None);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.get("acct:alice").await.as_deref(), Some("70"));
    assert_unlocked(&store, &mut plain, &["acct:alice", "tally"]).await;
}

#[tokio::test]
async fn the_redo_of_a_vote_is_the_list_of_its_writes() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["MSET", "n", "41", "old", "x"]).await;
    let () = plain.run(&["HSET", "h", "f", "1", "g", "2"]).await;
    let vote = vote(
        store
            .prepare(tx(1), &["INCR n", "HINCRBY h f 4", "HDEL h g", "RPUSH q a b", "DEL old"])
            .await,
    );
    let writes: Vec<String> =
        decode_redo(&vote.redo).unwrap().iter().map(|write| format!("{write:?}")).collect();
    assert_eq!(
        writes,
        [
            r#"["SET", "n", "42"]"#,
            r#"["HSET", "h", "f", "5"]"#,
            r#"["RPUSH", "q", "a", "b"]"#,
            r#"["HDEL", "h", "g"]"#,
            r#"["UNLINK", "old"]"#,
        ]
    );
}

#[tokio::test]
async fn a_repeated_prepare_is_the_same_yes() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let first = store.prepare(tx(1), &["INCR a", "GET b"]).await;
    let () = plain.run(&["SET", "b", "written past the agent"]).await;
    assert_eq!(store.prepare(tx(1), &["INCR a", "GET b"]).await, first);
    let reading = store.prepare(tx(2), &["GET c"]).await;
    assert_eq!(store.prepare(tx(2), &["GET c"]).await, reading);
    assert_eq!(vote(reading).seq, 2);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let late = store.prepare(tx(1), &["INCR a", "GET b"]).await.refused();
    assert_eq!(late.code, ErrorCode::WrongState);
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_branch_that_only_reads_has_no_redo_and_keeps_its_locks() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let vote = vote(store.prepare(tx(1), &["GET a", "EXISTS b c"]).await);
    assert_eq!((&*vote.replies, vote.redo.len()), ("[null,0]", 0));
    assert_eq!(store.facts().await.unwrap().locks, 3);
    for (n, key) in (2..).zip(["a", "b", "c"]) {
        let refusal = store.prepare(tx(n), &[&format!("PERSIST {key}")]).await.refused();
        assert_eq!(refusal.code, ErrorCode::LockConflict);
        assert_eq!(refusal.holder.unwrap().txid, tx(1).txid);
    }
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_unlocked(&store, &mut plain, &["a", "b", "c"]).await;
}

#[tokio::test]
async fn one_phase_applies_at_once_and_answers_a_duplicate_with_the_same_replies() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let lines = ["INCR a", "XADD s * f v", "XLEN s", "SETNX a 5"];
    let done = one_phase_done(store.one_phase(tx(1), &lines).await);
    let replies = done.replies.clone();
    let id: Vec<(String, Vec<String>)> = plain.run(&["XRANGE", "s", "-", "+"]).await;
    assert_eq!(*replies, format!(r#"[1,"{}",1,0]"#, id[0].0));
    assert_eq!(one_phase_done(store.one_phase(tx(1), &lines).await), done);
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
    assert_unlocked(&store, &mut plain, &["a", "s"]).await;
    let queried = store.abort(tx(1)).await.done();
    assert_eq!(queried, Aborted::AlreadyCommitted(done));
}

/// Promise *durable*: what one phase wrote is said with every answer about it, because the first one may be lost, and a
/// log that never heard it cannot redo it. By the owner, by scripts, by whichever agent; and under the incarnation that the
/// data has, after a repair too.
#[tokio::test]
async fn every_answer_about_one_phase_says_what_it_wrote() {
    let redis = Redis::start();
    for (n, lines) in [(1, &["INCR a"][..]), (2, &["RPUSH l x"]), (3, &["SETNX a 9"])] {
        let store = redis.store().await;
        let first = one_phase_done(store.one_phase(tx(n), lines).await);
        let written = first.written.clone().unwrap();
        assert_eq!((written.incarnation, written.seq), (store.incarnation(), n));
        assert_eq!(written.redo.is_empty(), n == 3, "only the last came to nothing");
        let by_script = redis.store_by_script().await;
        for store in [&store, &by_script, &redis.store().await] {
            assert_eq!(one_phase_done(store.one_phase(tx(n), lines).await), first);
            let queried = store.abort(tx(n)).await.done();
            assert_eq!(queried, Aborted::AlreadyCommitted(first.clone()));
            let kept = store.branch(tx(n).txid).await.unwrap().unwrap();
            assert_eq!(kept.written, first.written);
        }
    }
    let mut plain = redis.plain().await;
    assert_eq!(plain.run::<u32>(&["LLEN", "l"]).await, 1);
}

/// Promise *honest*: once something is written, no error is a definite no. The store lets a branch write to the control
/// hash itself, which agents refuse: a write that takes the marker's type away is the one way to make a real Redis throw
/// behind the first write.
#[tokio::test]
async fn an_error_behind_the_first_write_of_one_phase_is_unknown() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let call = store.one_phase(tx(1), &["SET assent:ctl x", "XADD s * f v"]).await;
    assert!(matches!(call, Call::Unknown(_)), "{call:?}");
    assert_eq!(plain.run::<u32>(&["XLEN", "s"]).await, 1, "there was no write before the error");
}

/// Promise *bad input changes nothing*: a vote that could not be delivered is not given, in either mode.
#[tokio::test]
async fn replies_that_no_answer_holds_are_refused_and_nothing_is_changed() {
    const FITS: usize = 3 * 1024 * 1024;
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let value = "v".repeat(FITS);
    let () = plain.run(&["MSET", "a", &value, "b", &value, "c", &value, "n", "1"]).await;
    let before = plain.data().await;
    for (n, last) in ["GET c", "GET n"].into_iter().enumerate() {
        let (n, fits) = (n as u64 * 10, last == "GET n");
        let writing = ["INCR n", "GET a", "GET b", last];
        let reading = ["GET a", "GET b", last];
        let calls = [
            store.prepare(tx(n + 1), &writing).await,
            store.prepare(tx(n + 2), &reading).await,
            store.one_phase(tx(n + 3), &reading).await,
            store.one_phase(tx(n + 4), &writing).await,
        ];
        for (mode, call) in calls.into_iter().enumerate() {
            match call {
                Call::Applied(_) => assert!(fits, "{mode}: a vote of three large replies"),
                Call::Refused(refusal) if !fits => {
                    let code = ErrorCode::ReplyTooLarge;
                    assert_eq!(refusal.code, code, "{mode}: {}", refusal.detail);
                }
                // The writer of two phases, which fits, has the lock.
                Call::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::LockConflict),
                Call::Unknown(why) => panic!("{mode}: {why}"),
            }
        }
        if !fits {
            assert!(plain.data().await == before, "a refused branch has changed the data");
            for prefix in ["l:", "s:", "d:", "a:"] {
                assert_eq!(plain.control(prefix).await, Vec::<String>::new());
            }
            assert_free(&store, &["n", "a", "b", "c"]).await;
        }
    }
}

#[tokio::test]
async fn a_write_without_effect_still_leaves_its_marker_in_one_phase() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "a", "1"]).await;
    assert_eq!(&*committed(store.one_phase(tx(1), &["SETNX a 2"]).await), "[0]");
    let () = plain.run(&["DEL", "a"]).await;
    assert_eq!(&*committed(store.one_phase(tx(1), &["SETNX a 2"]).await), "[0]");
    assert_eq!(plain.get("a").await, None);
    assert_eq!(&*committed(store.one_phase(tx(2), &["GET a"]).await), "[null]");
    assert_eq!(plain.control("d:").await.len(), 1);
}

#[tokio::test]
async fn each_fault_of_the_data_has_its_code_and_its_op() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () =
        plain.run(&["MSET", "text", "abc", "max", "9223372036854775807", "big", "1e308"]).await;
    let () = plain.run(&["RPUSH", "list", "a"]).await;
    let () = plain.run(&["ZADD", "zset", "inf", "m"]).await;
    let () = plain.run(&["XADD", "stream", "5-5", "f", "v"]).await;
    let before = plain.data().await;
    for (n, (op, code)) in [
        ("INCR list", ErrorCode::WrongType),
        ("HGET text f", ErrorCode::WrongType),
        ("INCR text", ErrorCode::NotAnInteger),
        ("INCR max", ErrorCode::Overflow),
        ("INCRBYFLOAT text 1", ErrorCode::NotAFloat),
        ("INCRBYFLOAT big inf", ErrorCode::NotAFloat),
        ("ZINCRBY zset -inf m", ErrorCode::NotAFloat),
        ("LSET nothing 0 x", ErrorCode::NoSuchKey),
        ("LSET list 1 x", ErrorCode::OutOfRange),
        ("XADD stream 5-5 f v", ErrorCode::StreamIdTooSmall),
    ]
    .into_iter()
    .enumerate()
    {
        let lines = ["SET text new", op];
        let lines = if op.contains("text") { &lines[1..] } else { &lines[..] };
        let refusal = store.prepare(tx(n as u64), lines).await.refused();
        assert_eq!(refusal.code, code, "{op}: {}", refusal.detail);
        assert_eq!(refusal.op, Some(lines.len() as u32 - 1), "{op}");
        assert!(refusal.detail.starts_with(op.split(' ').next().unwrap()), "{}", refusal.detail);
    }
    assert_eq!(plain.data().await, before);
    let keys = ["text", "max", "big", "list", "zset", "stream", "nothing"];
    assert_unlocked(&store, &mut plain, &keys).await;
}

#[tokio::test]
async fn a_false_expectation_carries_the_reply_that_it_met() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["MSET", "n", "9007199254740993", "t", "abc", "z", "0"]).await;
    let () = plain.run(&["HSET", "h", "f", "0.5"]).await;
    for (n, (op, holds)) in [
        (r#"GET n?{"gt":"9007199254740992"}"#, true),
        (r#"GET n?{"gt":"9007199254740993"}"#, false),
        (r#"GET n?{"le":"9007199254740993","eq":"9007199254740993"}"#, true),
        (r#"INCRBY n 0?{"eq":9007199254740993}"#, true),
        (r#"DECRBY n 9007199254740994?{"ge":0}"#, false),
        (r#"DECRBY n 9007199254740994?{"lt":0,"gt":"-9223372036854775808"}"#, true),
        (r#"GET t?{"gt":0}"#, false),
        (r#"GET t?{"ne":"abd","exists":true}"#, true),
        (r#"GET nothing?{"eq":null}"#, true),
        (r#"GET nothing?{"ne":null}"#, false),
        (r#"GET nothing?{"le":5}"#, false),
        (r#"GET z?{"exists":true}"#, true),
        (r#"EXISTS nothing?{"exists":false}"#, true),
        (r#"EXISTS n nothing?{"eq":1,"exists":true}"#, true),
        (r#"HGET h f?{"lt":0.75,"ge":"0.5"}"#, true),
        (r#"HGETALL h?{"exists":true}"#, true),
        (r#"HGETALL nothing?{"exists":true}"#, false),
    ]
    .into_iter()
    .enumerate()
    {
        let tx = tx(n as u64);
        match store.prepare(tx, &[op]).await {
            Call::Applied(Prepared::Yes(_)) => assert!(holds, "{op}"),
            Call::Refused(refusal) => {
                assert!(!holds, "{op}: {}", refusal.detail);
                assert_eq!((refusal.code, refusal.op), (ErrorCode::ExpectationFailed, Some(0)));
                assert!(refusal.reply.is_some());
            }
            other => panic!("{op}: {other:?}"),
        }
        store.abort(tx).await.done();
    }
    let refusal = store.prepare(tx(99), &[r#"DECRBY z 5?{"ge":0}"#]).await.refused();
    assert_eq!(refusal.reply.as_deref(), Some("-5"));
    assert_eq!(refusal.detail, "DECRBY z: the reply is -5, expected ge 0");
}

#[tokio::test]
async fn a_counter_keeps_its_time_to_live_and_does_not_come_back_without_it() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let () = plain.run(&["SET", "n", "41", "PX", "3600000"]).await;
    let () = plain.run(&["RPUSH", "q", "a"]).await;
    let () = plain.run(&["PEXPIREAT", "q", "99999999999999"]).await;
    let at = plain.expires_at_ms("n").await;
    let replies = vote(store.prepare(tx(1), &["INCR n", "RPUSH q b", "TTL n"]).await).replies;
    assert_eq!(&*replies, "[42,2,3600]");
    // As if both had expired in between.
    let () = plain.run(&["DEL", "n", "q"]).await;
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    assert_eq!(plain.expires_at_ms("n").await, at);
    assert_eq!(plain.expires_at_ms("q").await, 99_999_999_999_999);
    let past = ["SET gone x PXAT 1", "GET gone", "EXPIRE n -1", "EXISTS n"];
    assert_eq!(&*vote(store.prepare(tx(2), &past).await).replies, r#"["OK",null,1,0]"#);
    assert_eq!(store.commit(tx(2)).await, CLEAN);
    assert_eq!(plain.run::<u32>(&["EXISTS", "gone", "n"]).await, 0);
}

/// Promise: a write that leaves an expiry alone does not move it, however long the call before it
/// takes. Redis 6.2 says only how long is left, and by the call's own time a counter that is
/// written often would expire early.
#[tokio::test]
async fn a_slow_call_does_not_move_an_expiry() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let members: Vec<String> = (0..9_000).map(|n| n.to_string()).collect();
    let mut words = vec!["SADD", "many"];
    words.extend(members.iter().map(String::as_str));
    let () = plain.run(&words).await;
    let () = plain.run(&["SET", "n", "41", "PXAT", "99999999999999"]).await;
    // The first takes the time of the call, the second takes longer than a millisecond.
    let slow = ["EXPIRE many 1000000", "SMEMBERS many", "APPEND n 1", "EXPIRE many 999999"];
    committed(store.one_phase(tx(1), &slow).await);
    assert_eq!(plain.expires_at_ms("n").await, 99_999_999_999_999);
}

#[tokio::test]
async fn what_is_too_large_to_read_back_is_refused() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let members: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    let mut words = vec!["SADD", "big"];
    words.extend(members.iter().map(String::as_str));
    let () = plain.run(&words).await;
    let refusal = store.prepare(tx(1), &["SREM big 1", "SCARD big"]).await;
    assert_eq!(&*vote(refusal).replies, "[1,10000]");
    store.abort(tx(1)).await.done();
    let refusal = store.prepare(tx(2), &["SMEMBERS big"]).await.refused();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::TooLarge, Some(0)));
}

#[tokio::test]
async fn the_entries_of_a_stream_are_not_known_behind_a_star() {
    let redis = Redis::start();
    let store = redis.store().await;
    let replies = vote(store.prepare(tx(1), &["XADD s * f v", "XLEN s"]).await).replies;
    assert_eq!(&*replies, "[null,1]");
    store.abort(tx(1)).await.done();
    for (n, second) in ["XRANGE s - +", "XADD s 5-5 f v", "XDEL s 5-5"].into_iter().enumerate() {
        let refusal = store.prepare(tx(2 + n as u64), &["XADD s * f v", second]).await.refused();
        assert_eq!((refusal.code, refusal.op), (ErrorCode::BadArguments, Some(1)), "{second}");
    }
}

#[tokio::test]
async fn a_star_at_the_end_of_all_ids_is_refused_before_the_commit_could_fail() {
    let redis = Redis::start();
    let store = redis.store().await;
    let nearly = "XADD s 18446744073709551615-18446744073709551614 f v";
    vote(store.prepare(tx(1), &[nearly, "XADD s * f v"]).await);
    store.abort(tx(1)).await.done();
    let lines = [nearly, "XADD s * f v", "XADD s * f v"];
    let refusal = store.prepare(tx(2), &lines).await.refused();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::StreamIdTooSmall, Some(2)));
}

/// An entry that was replied and is deleted behind that stays in the reply.
#[tokio::test]
async fn what_was_read_of_a_stream_is_replied_although_it_is_deleted_behind() {
    let redis = Redis::start();
    let store = redis.store().await;
    let ops = ["XADD x 6-0 a 0", "XRANGE x - +", "XDEL x 6"];
    let vote = vote(store.prepare(tx(1), &ops).await);
    assert_eq!(&*vote.replies, r#"["6-0",[["6-0",["a","0"]]],1]"#);
}
