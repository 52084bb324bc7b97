//! An owner that writes by scripts: because its user may not `WATCH`, or because Redis refuses some
//! writes and takes others.

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::outcome::{Aborted, Call, Settled};
use assent_common::wire::branch::Mode;
use assent_participant::store::{Store, StoreOptions, rights};
use assent_servers::Server;

use crate::harness::{
    Ask as _, CLEAN, DURABLE, Expected as _, Plain, Redis, abort, assert_unlocked, commit,
    committed, coordinator, one_phase_done, ops, prepare, prepared, settle, tx, vote,
};
use crate::requirements::{as_agent, with_agent};
use crate::server::left_markers;

async fn owner_by_script(server: &Server) -> (Redis, Plain, Store) {
    let redis = Redis::on(server, &DURABLE);
    let store = redis.store_by_script().await;
    let plain = redis.plain().await;
    (redis, plain, store)
}

/// What an ACL does not give costs speed, and nothing else.
#[tokio::test]
async fn an_agent_that_may_not_watch_owns_its_redis_and_writes_by_scripts() {
    for server in assent_servers::all() {
        let (redis, mut plain, store) = owner_by_script(&server).await;
        assert!(store.link().is_sole_owner(), "{}", server.name);
        plain.calls().await;
        let lines = ["SET a 1", "RPUSH q x", "~INCRBY n 5", "HSET h f 1"];
        for n in 1..=4 {
            vote(store.prepare(tx(n), &[&format!("SET k{n} 1")]).await);
        }
        vote(store.prepare(tx(5), &lines).await);
        let done = one_phase_done(store.one_phase(tx(6), &["XADD s * f v", "INCR m"]).await);
        let id: Vec<(String, Vec<String>)> = plain.run(&["XRANGE", "s", "-", "+"]).await;
        assert_eq!(*done.replies, format!(r#"["{}",1]"#, id[0].0));
        let messages = vec![
            commit(tx(1)),
            abort(tx(2)),
            settle(tx(3)),
            settle(tx(7)),
            commit(tx(5)),
            prepare(tx(8), Mode::TwoPhase, ops(&["INCR a"])),
        ];
        let mut answers = store.send(messages).await;
        assert_eq!(&*vote(prepared(answers.pop().unwrap())).replies, "[2]");
        let settled = |state| BranchAnswer::Settled(Call::Applied(state));
        let wanted = [
            BranchAnswer::Applied(CLEAN),
            BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)),
            settled(Settled::Prepared),
            settled(Settled::Fenced),
            BranchAnswer::Applied(CLEAN),
        ];
        assert_eq!(answers, wanted, "{}", server.name);
        let calls = plain.calls().await;
        assert_eq!((calls.of("exec"), calls.of("watch")), (0, 0), "{calls:?}");
        // The next owner finds all of it, whichever way it goes.
        let next = redis.store().await;
        assert_eq!(next.commit(tx(8)).await, CLEAN);
        assert_eq!(next.commit(tx(4)).await, CLEAN);
        assert_eq!(next.prepare(tx(7), &["SET z 1"]).await.refused().code, ErrorCode::Fenced);
        assert_eq!(next.abort(tx(3)).await.done(), Aborted::Fenced);
        assert_eq!(plain.get("a").await.as_deref(), Some("2"), "{}", server.name);
        let keys = ["a", "q", "n", "h", "s", "m", "k1", "k2", "k3", "k4"];
        assert_unlocked(&next, &mut plain, &keys).await;
    }
}

/// The decision stands, whatever somebody did to the data meanwhile.
#[tokio::test]
async fn writes_by_scripts_that_meet_foreign_data_are_counted_and_the_others_applied() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = owner_by_script(&server).await;
        vote(store.prepare(tx(1), &["RPUSH q x", "SADD s m", "SET a 1"]).await);
        let () = plain.run(&["SET", "q", "no list"]).await;
        assert_eq!(store.commit(tx(1)).await.done().dirty_writes, 1, "{}", server.name);
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        assert_eq!(plain.get("a").await.as_deref(), Some("1"));
        assert!(plain.run::<bool>(&["SISMEMBER", "s", "m"]).await);
    }
}

/// The least rights that are recommended limit the keys: they cost an owner nothing but that each
/// key is asked for.
#[tokio::test]
async fn an_agent_whose_keys_are_limited_owns_its_redis() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let options = StoreOptions::new(redis.url());
        let found = assent_participant::store::examine(&options).await.unwrap();
        let line = rights::least_acl(&found.server.id.features(), "assent:ctl").replace('\'', "");
        let line = line.replace("~YOUR-KEYS*", "~mine:*").replace(">PASSWORD", ">pw");
        let mut plain = redis.plain().await;
        let () = plain.run(&line.split(' ').collect::<Vec<_>>()).await;
        let store = Store::connect(as_agent(&redis, "pw")).await.unwrap();
        assert!(store.link().is_sole_owner(), "{}", server.name);
        plain.calls().await;
        let messages = [(1, "SET mine:a 1"), (2, "SET other:b 1"), (3, "~INCRBY mine:n 2")];
        let messages = messages.map(|(n, line)| prepare(tx(n), Mode::TwoPhase, ops(&[line])));
        let mut answers = store.send(messages.into()).await.into_iter().map(prepared);
        let mut answer = || answers.next().unwrap();
        vote(answer());
        let no = answer().refused();
        assert_eq!(no.code, ErrorCode::RedisNoPermission);
        assert!(no.detail.contains("other:b (for SET)"), "{}: {no:?}", server.name);
        vote(answer());
        let mut answers = store.send(vec![commit(tx(1)), commit(tx(3))]).await;
        assert_eq!(answers.pop(), Some(BranchAnswer::Applied(CLEAN)));
        assert_eq!(answers.pop(), Some(BranchAnswer::Applied(CLEAN)));
        committed(store.one_phase(tx(4), &["INCR mine:a"]).await);
        let calls = plain.calls().await;
        assert!(calls.of("exec") >= 3, "{}: {calls:?}", server.name);
        assert_eq!(plain.get("mine:a").await.as_deref(), Some("2"));
    }
}

/// Invariant 14, and promise *available*: without memory nothing new is kept, and all that was
/// decided is carried out, in one batch. With memory the owner writes by `EXEC` again.
#[tokio::test]
async fn an_owner_without_memory_refuses_what_is_new_and_ends_what_is_staged() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        for n in 1..=3 {
            vote(store.prepare(tx(n), &[&format!("SET k{n} 1"), "~INCRBY n 1"]).await);
        }
        let () = plain.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
        for n in [10, 20] {
            let messages = vec![
                prepare(tx(n), Mode::TwoPhase, ops(&["SET x 1"])),
                prepare(tx(n + 1), Mode::OnePhase, ops(&["SADD x 1"])),
                prepare(tx(n + 2), Mode::OnePhase, ops(&["GET k1"])),
                commit(tx(1)),
                abort(tx(2)),
                settle(tx(n + 3)),
            ];
            let mut answers = store.send(messages).await.into_iter();
            for _ in 0..2 {
                let no = prepared(answers.next().unwrap()).refused();
                assert_eq!(no.code, ErrorCode::RedisOutOfMemory, "{}: {no:?}", server.name);
            }
            assert_eq!(&*committed(prepared(answers.next().unwrap())), r#"["1"]"#);
            let ended = [
                BranchAnswer::Applied(CLEAN),
                BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)),
                BranchAnswer::Settled(Call::Applied(Settled::Fenced)),
            ];
            assert_eq!(answers.collect::<Vec<_>>(), ended, "{}", server.name);
        }
        let () = plain.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
        store.link().pulse().await.unwrap();
        store.sweep().await.unwrap();
        plain.calls().await;
        assert_eq!(store.commit(tx(3)).await, CLEAN);
        let calls = plain.calls().await;
        assert_eq!((calls.of("exec"), calls.of("evalsha")), (1, 0), "{}: {calls:?}", server.name);
        assert_eq!(plain.get("n").await.as_deref(), Some("2"), "{}", server.name);
        assert_unlocked(&store, &mut plain, &["k1", "k2", "k3", "n", "x"]).await;
    }
}

/// A right that is lost keeps those branches back that need it, and no others.
#[tokio::test]
async fn one_branch_that_may_not_be_applied_keeps_no_other_back() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        for (n, line) in [(1, "SADD s m"), (2, "SET a 1"), (3, "RPUSH other:q x")] {
            vote(store.prepare(tx(n), &[line]).await);
        }
        let rules = ["ACL", "SETUSER", "agent", "-sadd", "resetkeys", "~assent:*", "~a", "~s"];
        let () = plain.run(&rules).await;
        let all = || vec![commit(tx(1)), commit(tx(2)), commit(tx(3)), settle(tx(4))];
        for _ in 0..2 {
            let answers = store.send(all()).await;
            for place in [0, 2] {
                let refused = answers[place].refused().map(|refusal| refusal.code);
                let code = Some(ErrorCode::RedisNoPermission);
                assert_eq!(refused, code, "{}: {answers:?}", server.name);
            }
            assert_eq!(answers[1], BranchAnswer::Applied(CLEAN), "{}", server.name);
            assert_eq!(answers[3], BranchAnswer::Settled(Call::Applied(Settled::Fenced)));
        }
        let () = plain.run(&["ACL", "SETUSER", "agent", "+sadd", "~*"]).await;
        for n in [1, 3] {
            assert_eq!(store.commit(tx(n)).await, CLEAN, "{}", server.name);
        }
        assert_eq!(plain.run::<u32>(&["LLEN", "other:q"]).await, 1);
        assert_eq!(plain.control("s:").await, Vec::<String>::new());
    }
}

/// Invariant 10: a marker may go only when the mark that takes its place is kept, which the agent's
/// user may not write here.
#[tokio::test]
async fn without_the_right_to_write_the_mark_the_markers_below_it_stay() {
    for server in assent_servers::all() {
        let (redis, mut plain, store) = with_agent(&server).await;
        let mark = left_markers(&store).await;
        let () = plain.run(&["ACL", "SETUSER", "agent", "-hset"]).await;
        let said = store.execute(&coordinator(1), mark, vec![settle(tx(60))]).await;
        assert_eq!(said, [BranchAnswer::Settled(Call::Applied(Settled::Fenced))]);
        assert_eq!(plain.control("d:").await.len() + plain.control("a:").await.len(), 41);
        let () = plain.run(&["ACL", "SETUSER", "agent", "+hset"]).await;
        let other = redis.store().await;
        for n in [0, 35] {
            let again = other.one_phase(tx(n), &["INCR a"]).await;
            assert_eq!(*committed(again), format!("[{}]", n + 1), "{n} was run again");
        }
        for n in [36, 39] {
            let late = other.prepare(tx(n), &["INCR a"]).await.refused();
            assert_eq!(late.code, ErrorCode::Fenced);
        }
    }
}
