//! What the promises need of a server, on every server that is installed.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Call, Settled};
use assent_common::wire::branch::Mode;
use assent_participant::store::requirements::Weight;
use assent_participant::store::{Store, StoreError, StoreOptions, StoreState, examine, rights};
use assent_servers::{Kind, Server};

use crate::harness::{
    Ask as _, CLEAN, DURABLE, Expected as _, NO_MARK, Plain, Redis, assert_unlocked, committed,
    coordinator, ops, prepare, prepared, tx, vote,
};

fn options(redis: &Redis) -> StoreOptions {
    StoreOptions::new(redis.url())
}

pub(crate) fn as_agent(redis: &Redis, password: &str) -> StoreOptions {
    StoreOptions::new(format!("{}?user=agent&pass={password}", redis.url()))
}

/// A server, its default user, and an agent whose user may do everything until that is changed.
pub(crate) async fn with_agent(server: &Server) -> (Redis, Plain, Store) {
    with_agent_that(server, &[]).await
}

async fn with_agent_that(server: &Server, rules: &[&str]) -> (Redis, Plain, Store) {
    let redis = Redis::on(server, &DURABLE);
    let mut plain = redis.plain().await;
    let all = ["ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all"];
    let () = plain.run(&[&all, rules].concat()).await;
    let store = Store::connect(as_agent(&redis, "pw")).await.unwrap();
    (redis, plain, store)
}

/// Each server, and rules by which an owner writes by `EXEC`, and by scripts.
fn both_ways() -> impl Iterator<Item = (Server, &'static [&'static str])> {
    let ways = |server: Server| [(server.clone(), &[][..]), (server, &["-watch"])];
    assent_servers::all().into_iter().flat_map(ways)
}

async fn refused(options: StoreOptions) -> String {
    let error = Store::connect(options).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    error.to_string()
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    DURABLE.iter().copied().chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn every_server_is_known_by_its_own_name_and_is_fit() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let found = examine(&options(&redis)).await.unwrap().server;
        let (major, minor, patch) = server.version;
        assert_eq!(found.id.to_string(), format!("{:?} {major}.{minor}.{patch}", server.kind));
        assert_eq!(found.problems(Weight::Refused), Vec::<String>::new());
        assert_eq!(found.problems(Weight::Waits), Vec::<String>::new());
    }
}

/// F1, W4.
#[tokio::test]
async fn io_threads_are_refused_where_they_answer_before_the_fsync() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &with(&["--io-threads", "4"]));
        let answers_early = server.is_redis_from(8, 0) || server.is_valkey_from(8, 0);
        if answers_early {
            let error = refused(options(&redis)).await;
            assert!(error.contains("io-threads is 4 and must be 1"), "{error}");
        } else {
            Store::connect(options(&redis)).await.unwrap();
        }
    }
}

/// F3, W3.
#[tokio::test]
async fn a_cluster_is_refused() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &with(&["--cluster-enabled", "yes"]));
        let error = refused(options(&redis)).await;
        assert!(error.contains("cluster_enabled is \"1\" and must be 0"), "{error}");
    }
}

/// W1: what the file's MULTI has and that user may not do is dropped at the next start.
#[tokio::test]
async fn a_limited_user_default_is_refused_where_the_file_is_read_as_that_user() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let () = redis
            .plain()
            .await
            .run(&["ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all"])
            .await;
        let client = redis::Client::open(as_agent(&redis, "pw").url).unwrap();
        let mut plain = Plain(client.get_multiplexed_async_connection().await.unwrap());
        let drops = server.is_redis_from(7, 0);
        for (rules, limits) in [
            (&["off", "~*", "+@all"][..], false),
            (&["on", "+@all", "-@dangerous"], false),
            (&["on", "resetkeys", "~x:*", "+@all"], true),
            (&["on", "allkeys", "+@all", "-hset"], true),
            (&["reset"], true),
        ] {
            let mut command = vec!["ACL", "SETUSER", "default"];
            command.extend(rules);
            let () = plain.run(&command).await;
            let agent = as_agent(&redis, "pw");
            let problems = examine(&agent).await.unwrap().server.problems(Weight::Refused);
            let named = problems.iter().any(|problem| problem.contains("user default is limited"));
            assert_eq!(named, drops && limits, "{} {rules:?} {problems:?}", server.name);
        }
    }
}

/// W1: what a limited user has dropped from the file is missing, and stays so when the user is
/// given its rights back. Only the file still has it.
#[tokio::test]
async fn a_server_that_dropped_commands_of_its_file_is_refused_until_it_has_loaded_it_again() {
    for server in assent_servers::all() {
        let mut redis = Redis::on(&server, &DURABLE);
        let store = Store::connect(options(&redis)).await.unwrap();
        committed(store.one_phase(tx(1), &["SET a 1", "SET b 1"]).await);
        redis.restart_with(&[
            "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-set", "-mset",
        ]);
        let mut plain = redis.plain().await;
        let drops = server.is_redis_from(7, 0);
        let () = plain.run(&["ACL", "SETUSER", "default", "~*", "&*", "+@all"]).await;
        let found: Option<String> = plain.get("a").await;
        assert_eq!(found.is_none(), drops, "{}", server.name);
        let problems = examine(&options(&redis)).await.unwrap().server.problems(Weight::Refused);
        let named = problems.iter().any(|problem| problem.contains("unexpected_error_replies"));
        assert_eq!(named, drops, "{} {problems:?}", server.name);
        if drops {
            let is_told = |found: &_| matches!(found, Ok(()) | Err(StoreError::Unsafe { .. }));
            assert!(until(&store, is_told).await.is_err(), "{}", server.name);
        }
        redis.restart();
        until(&store, Result::is_ok).await.unwrap();
        assert_eq!(redis.plain().await.get("a").await.as_deref(), Some("1"), "{}", server.name);
    }
}

/// F5: until the first file is written, a restart comes back without what was acknowledged.
#[tokio::test]
async fn nobody_votes_before_the_first_rewrite_is_over() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &["--appendfsync", "always"]);
        let mut plain = redis.plain().await;
        let error = refused(options(&redis)).await;
        assert!(error.contains("aof_rewrite_in_progress:0"), "{error}");
        let () = plain.run(&["MSET", "a", "1", "b", "1", "c", "1"]).await;
        // Longer than the test runs: three keys of a thousand seconds each.
        let () = plain.run(&["CONFIG", "SET", "rdb-key-save-delay", "1000000000"]).await;
        let () = plain.run(&["CONFIG", "SET", "appendonly", "yes"]).await;
        let error = Store::connect(options(&redis)).await.unwrap_err();
        assert!(matches!(error, StoreError::NotYet { .. }), "{} {error}", server.name);
        assert!(error.to_string().contains("first rewrite is under way"), "{error}");
        // Ends the rewrite: its process would outlive the server and this test.
        let () = plain.run(&["CONFIG", "SET", "appendonly", "no"]).await;
    }
}

/// F5: a server that had a file before shows the size of that while it writes the first one anew.
#[tokio::test]
async fn a_file_that_was_off_is_waited_for_until_its_first_rewrite_is_over() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let mut plain = redis.plain().await;
        let () = plain.run(&["MSET", "a", "1", "b", "1", "c", "1"]).await;
        let () = plain.run(&["BGREWRITEAOF"]).await;
        let info = async |plain: &mut Plain| plain.run::<String>(&["INFO", "persistence"]).await;
        while !info(&mut plain).await.contains("aof_rewrite_in_progress:0") {
            tokio::task::yield_now().await;
        }
        assert!(!info(&mut plain).await.contains("aof_base_size:0"), "{}", server.name);
        let store = redis.store().await;
        // A rewrite of a file that is there keeps nobody waiting.
        let () = plain.run(&["CONFIG", "SET", "rdb-key-save-delay", "1000000000"]).await;
        let () = plain.run(&["BGREWRITEAOF"]).await;
        store.link().pulse().await.unwrap();
        let () = plain.run(&["CONFIG", "SET", "appendonly", "no"]).await;
        assert!(
            matches!(store.link().pulse().await, Err(StoreError::Unsafe { .. })),
            "{}",
            server.name
        );
        let () = plain.run(&["CONFIG", "SET", "appendonly", "yes"]).await;
        let found = until(&store, |found| !matches!(found, Err(StoreError::Unsafe { .. }))).await;
        let error = found.unwrap_err().to_string();
        assert!(error.contains("first rewrite is under way"), "{} {error}", server.name);
        let () = plain.run(&["CONFIG", "SET", "appendonly", "no"]).await;
        let () = plain.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).await;
        let () = plain.run(&["CONFIG", "SET", "appendonly", "yes"]).await;
        until(&store, Result::is_ok).await.unwrap();
        vote(store.prepare(tx(1), &["SET a 1"]).await);
    }
}

/// Looks until it comes out so: a failure is shared for a moment by those who come in it.
pub(crate) async fn until(
    store: &Store,
    is_it: impl Fn(&Result<(), StoreError>) -> bool,
) -> Result<(), StoreError> {
    loop {
        let result = store.link().pulse().await;
        if is_it(&result) {
            return result;
        }
        tokio::task::yield_now().await;
    }
}

/// F8, W2: a right that is missing is said at the start; a command that was renamed away is no other thing.
#[tokio::test]
async fn a_right_that_is_missing_is_refused_by_name() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let mut plain = redis.plain().await;
        for right in ["set", "del", "incrby", "sadd", "pexpireat", "hmget"] {
            let less = format!("-{right}");
            let rules =
                ["ACL", "SETUSER", "agent", "reset", "on", ">pw", "~*", "&*", "+@all", &less];
            let () = plain.run(&rules).await;
            let error = refused(as_agent(&redis, "pw")).await;
            assert!(error.contains(&format!("without {}", right.to_uppercase())), "{error}");
            assert!(error.contains(&format!("ACL SETUSER USER +{right}")), "{error}");
        }
        // What the others are tried out with: nobody is left in a MULTI.
        for right in ["discard", "multi"] {
            let less = format!("-{right}");
            let rules =
                ["ACL", "SETUSER", "agent", "reset", "on", ">pw", "~*", "&*", "+@all", &less];
            let () = plain.run(&rules).await;
            let advice = examine(&as_agent(&redis, "pw")).await.unwrap();
            let advice = advice.server.problems(Weight::Advice).join("; ");
            assert!(advice.contains(&format!("ACL SETUSER USER +{right}")), "{advice}");
        }
        let renamed = Redis::on(&server, &with(&["--rename-command", "SET", "elsewhere"]));
        let error = refused(options(&renamed)).await;
        assert!(error.contains("rights is without SET"), "{} {error}", server.name);
        let hidden = Redis::on(&server, &with(&["--rename-command", "CONFIG", "elsewhere"]));
        let error = refused(options(&hidden)).await;
        assert!(error.contains("renamed or disabled") && !error.contains("+config|get"), "{error}");
    }
}

/// W2: a right that is taken from a running agent is a no before anything is written, also where
/// the server cannot be asked.
#[tokio::test]
async fn a_right_that_is_taken_away_is_a_no_before_the_first_write() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        let cases: [(&str, &[&str]); 3] = [
            ("set", &["HSET h f 1", "SET y 2"]),
            ("sadd", &["SET y 2", "SADD s 1"]),
            ("rpush", &["RPUSH l 1"]),
        ];
        for (n, (right, lines)) in (1..).zip(cases) {
            let () = plain.run(&["ACL", "SETUSER", "agent", &format!("-{right}")]).await;
            let no = store.one_phase(tx(2 * n), lines).await.refused();
            assert_eq!(no.code, ErrorCode::RedisNoPermission, "{} {right}", server.name);
            let no = store.prepare(tx(2 * n + 1), lines).await.refused();
            assert_eq!(no.code, ErrorCode::RedisNoPermission, "{} {right}", server.name);
            // Two in one call: what the first one met is no leave for the second.
            let both = [20, 21].map(|m| prepare(tx(m + 2 * n), Mode::OnePhase, ops(lines)));
            for answer in store.execute(&coordinator(1), NO_MARK, both.to_vec()).await {
                let code = prepared(answer).refused().code;
                assert_eq!(code, ErrorCode::RedisNoPermission, "{} {right}", server.name);
            }
            let left: i64 = plain.run(&["EXISTS", "h", "y", "s", "l", "assent:ctl:trial"]).await;
            assert_eq!(left, 0, "{} {right}", server.name);
            let () = plain.run(&["ACL", "SETUSER", "agent", &format!("+{right}")]).await;
        }
        committed(store.one_phase(tx(9), &["RPUSH l 1", "SADD s 1", "HSET h f 1"]).await);
        let left: i64 = plain.run(&["EXISTS", "h", "s", "l", "assent:ctl:trial"]).await;
        assert_eq!(left, 3, "{}", server.name);
    }
}

/// What `assent doctor --acl` prints is enough, so that nothing is refused, and the server knows
/// all of it.
#[tokio::test]
async fn the_least_acl_is_enough_on_every_server() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let features = examine(&options(&redis)).await.unwrap().server.id.features();
        let line = rights::least_acl(&features, "assent:ctl").replace('\'', "");
        let line = line.replace("~YOUR-KEYS*", "~*").replace(">PASSWORD", ">pw");
        let words: Vec<&str> = line.split(' ').collect();
        let () = redis.plain().await.run(&words).await;
        let store = Store::connect(as_agent(&redis, "pw")).await.unwrap();
        assert!(store.link().is_sole_owner(), "{}", server.name);
        // Also of what it tries out while it connects.
        let mut plain = redis.plain().await;
        let every = [
            "SET a 1",
            "INCRBY a 1",
            "EXPIRE a 100",
            "HSET h f 1",
            "HINCRBYFLOAT h f 0.5",
            "SADD s m",
            "ZADD z 1 m",
            "RPUSH l 1 2",
            "LSET l 0 3",
            "LTRIM l 0 0",
            "XADD x * f v",
        ];
        vote(store.prepare(tx(1), &every).await);
        assert_eq!(store.commit(tx(1)).await, CLEAN, "{}", server.name);
        committed(store.one_phase(tx(2), &["DEL a h s", "LPOP l", "~INCRBY n 1"]).await);
        store.abort(tx(3)).await.done();
        // By the owner without a script, where there is one.
        committed(store.one_phase(tx(4), &["GET n", "APPEND n 2"]).await);
        store.sweep().await.unwrap();
        let mut refused: Vec<Vec<redis::Value>> = plain.run(&["ACL", "LOG"]).await;
        // The client library says its own name with CLIENT SETINFO, and does without.
        let of_library = ["client", "client|setinfo"];
        let of_library = of_library.map(|name| redis::Value::BulkString(name.into()));
        refused.retain(|entry| !of_library.iter().any(|name| entry.contains(name)));
        assert!(refused.is_empty(), "{}: {refused:?}", server.name);
    }
}

/// W8: a key that the agent may not write is a no to that branch, before its vote, and to no other.
#[tokio::test]
async fn a_key_that_the_agent_may_not_write_is_refused_before_the_vote() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let mut plain = redis.plain().await;
        let mut rules =
            vec!["ACL", "SETUSER", "agent", "on", ">pw", "~assent:*", "~mine:*", "+@all"];
        rules.push("&*");
        if server.kind == Kind::Valkey || server.is_redis_from(7, 0) {
            rules.push("%R~read:*");
        }
        let () = plain.run(&rules).await;
        let store = Store::connect(as_agent(&redis, "pw")).await.unwrap();
        let messages = [(1, "SET mine:a 1"), (2, "SET read:b 1"), (3, "INCRBY other:c 1")];
        let messages = messages.map(|(n, line)| prepare(tx(n), Mode::TwoPhase, ops(&[line])));
        let mut answers = store.send(messages.into()).await.into_iter();
        vote(prepared(answers.next().unwrap()));
        for (answer, named) in answers.zip(["read:b (for SET)", "other:c (for INCRBY)"]) {
            let refusal = prepared(answer).refused();
            assert_eq!(refusal.code, ErrorCode::RedisNoPermission, "{}: {refusal:?}", server.name);
            assert!(refusal.detail.contains(named), "{}: {refusal:?}", server.name);
            assert!(refusal.detail.contains("ACL SETUSER agent"), "{refusal:?}");
        }
        let refusal = store.one_phase(tx(4), &["SET read:b 1"]).await.refused();
        assert_eq!(refusal.code, ErrorCode::RedisNoPermission, "{refusal:?}");
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        assert_eq!(plain.get("mine:a").await.as_deref(), Some("1"));
        assert_eq!(plain.get("read:b").await, None);
    }
}

/// F8: what was decided waits for a right that was lost, says so, and is applied once it is back; half of it is not applied
/// twice. By either way.
#[tokio::test]
async fn a_commit_waits_for_a_lost_right_and_is_applied_once() {
    for (server, rules) in both_ways() {
        let (_redis, mut plain, store) = with_agent_that(&server, rules).await;
        vote(store.prepare(tx(1), &["RPUSH q x", "SADD s m"]).await);
        vote(store.prepare(tx(2), &["SET other 1"]).await);
        let () = plain.run(&["ACL", "SETUSER", "agent", "-sadd"]).await;
        for _ in 0..2 {
            let refusal = store.commit(tx(1)).await.refused();
            assert_eq!(refusal.code, ErrorCode::RedisNoPermission, "{}: {refusal:?}", server.name);
        }
        let items: Vec<String> = plain.run(&["LRANGE", "q", "0", "-1"]).await;
        assert!(items.is_empty(), "{}: half a branch", server.name);
        assert_eq!(store.commit(tx(2)).await, CLEAN, "{}", server.name);
        assert_eq!(plain.control("d:").await.len(), 1, "no marker over what was not done");
        let () = plain.run(&["ACL", "SETUSER", "agent", "+sadd"]).await;
        assert_eq!(store.commit(tx(1)).await, CLEAN);
        let items: Vec<String> = plain.run(&["LRANGE", "q", "0", "-1"]).await;
        let members: Vec<String> = plain.run(&["SMEMBERS", "s"]).await;
        assert_eq!((items.len(), members.len()), (1, 1), "{}", server.name);
        assert_unlocked(&store, &mut plain, &["q", "s", "other"]).await;
    }
}

/// An end that is not counted would look like a hole in the data, and fence it.
#[tokio::test]
async fn nothing_ends_while_its_end_may_not_be_counted() {
    for (server, rules) in both_ways() {
        let (redis, mut plain, store) = with_agent_that(&server, rules).await;
        for (n, line) in [(1, "SET a 1"), (2, "SET b 1"), (3, "SET c 1")] {
            vote(store.prepare(tx(n), &[line]).await);
        }
        assert_eq!(store.commit(tx(3)).await, CLEAN);
        let () = plain.run(&["ACL", "SETUSER", "agent", "-hincrby"]).await;
        for _ in 0..2 {
            let no = store.commit(tx(1)).await.refused();
            assert_eq!(no.code, ErrorCode::RedisNoPermission, "{}: {no:?}", server.name);
            let _waits = store.abort(tx(2)).await;
            let no = store.one_phase(tx(4), &["SET d 1"]).await.refused();
            assert_eq!(no.code, ErrorCode::RedisNoPermission, "{}: {no:?}", server.name);
        }
        let there: Vec<Option<String>> = plain.run(&["MGET", "a", "b", "c", "d"]).await;
        assert_eq!(there, [None, None, Some("1".to_owned()), None], "{}", server.name);
        let () = plain.run(&["ACL", "SETUSER", "agent", "+hincrby"]).await;
        until(&store, Result::is_ok).await.unwrap();
        assert_eq!(store.commit(tx(1)).await, CLEAN, "{}", server.name);
        store.abort(tx(2)).await;
        let next = Store::connect(as_agent(&redis, "pw")).await.unwrap();
        until(&next, Result::is_ok).await.unwrap();
        assert_eq!(next.link().state(), StoreState::Ready, "{}: no hole", server.name);
        assert_eq!(plain.control("s:").await, Vec::<String>::new(), "{}", server.name);
    }
}

/// F8, W2: an owner tries its rights out when it connects. When they are changed it goes on by
/// scripts, which ask for each write.
#[tokio::test]
async fn an_owner_whose_rights_are_changed_votes_for_nothing_that_it_may_not_write() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        store.link().pulse().await.unwrap();
        assert!(store.link().is_sole_owner(), "{}", server.name);
        for (n, (taken, given, line)) in (1..).step_by(2).zip([
            (&["-sadd"][..], &["+sadd"][..], "SADD y 2"),
            (&["resetkeys", "~assent:*", "~x"], &["resetkeys", "~*"], "RPUSH y 2"),
        ]) {
            let mut change = vec!["ACL", "SETUSER", "agent"];
            change.extend(taken);
            let () = plain.run(&change).await;
            for _ in 0..2 {
                let _ = store.link().pulse().await;
            }
            until(&store, Result::is_ok).await.unwrap();
            let no = store.prepare(tx(n), &[line]).await.refused();
            assert_eq!(no.code, ErrorCode::RedisNoPermission, "{} {line}", server.name);
            vote(store.prepare(tx(n + 1), &["RPUSH x 1"]).await);
            assert_eq!(store.commit(tx(n + 1)).await, CLEAN, "{}", server.name);
            let mut change = vec!["ACL", "SETUSER", "agent"];
            change.extend(given);
            let () = plain.run(&change).await;
            // Connects anew.
            for _ in 0..2 {
                let _ = store.link().pulse().await;
            }
            until(&store, Result::is_ok).await.unwrap();
            assert!(store.link().is_sole_owner(), "{}", server.name);
        }
    }
}

/// Promise *honest*: without the write that keeps votes an agent votes for nothing, says which
/// right is missing, and still says of a branch that nothing of it is kept: an implicit transaction
/// ends.
#[tokio::test]
async fn an_agent_that_may_keep_no_vote_says_so_and_fences() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        assert_eq!(store.link().rights_missing(), None);
        vote(store.prepare(tx(1), &["SET staged 1"]).await);
        let () = plain.run(&["ACL", "SETUSER", "agent", "-hset"]).await;
        for _ in 0..2 {
            let _ = store.link().pulse().await;
        }
        until(&store, Result::is_ok).await.unwrap();
        let missing = store.link().rights_missing().unwrap();
        assert!(missing.contains("ACL SETUSER agent +hset"), "{}: {missing}", server.name);
        let no = store.prepare(tx(2), &["SET x 1"]).await.refused();
        assert_eq!(no.code, ErrorCode::RedisNoPermission, "{}: {no:?}", server.name);
        assert!(no.detail.to_lowercase().contains("hset"), "{}: {no:?}", server.name);
        assert_eq!(store.settle(tx(2)).await, Call::Applied(Settled::Fenced), "{}", server.name);
        assert_eq!(store.settle(tx(1)).await, Call::Applied(Settled::Prepared), "{}", server.name);
        // What is staged is not dropped without its fence.
        assert!(!matches!(store.abort(tx(1)).await, Call::Applied(_)), "{}", server.name);
        assert_eq!(store.settle(tx(1)).await, Call::Applied(Settled::Prepared), "{}", server.name);
        let () = plain.run(&["ACL", "SETUSER", "agent", "+hset"]).await;
        for _ in 0..2 {
            let _ = store.link().pulse().await;
        }
        until(&store, Result::is_ok).await.unwrap();
        assert_eq!(store.link().rights_missing(), None, "{}", server.name);
        assert_eq!(store.prepare(tx(2), &["SET x 1"]).await.refused().code, ErrorCode::Fenced);
        assert_eq!(store.commit(tx(1)).await, CLEAN, "{}", server.name);
    }
}

/// Without DISCARD nothing can be queued and dropped; what is missing beside it is found all the
/// same.
#[tokio::test]
async fn a_right_that_is_missing_beside_discard_is_named() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let () = redis
            .plain()
            .await
            .run(&[
                "ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all", "-discard", "-hmget",
            ])
            .await;
        let error = refused(as_agent(&redis, "pw")).await;
        for named in ["rights is without HMGET, DISCARD", "ACL SETUSER USER +hmget +discard"] {
            assert!(error.contains(named), "{} {error}", server.name);
        }
    }
}

/// W11: the password changes, and with it the file.
#[tokio::test]
async fn a_new_password_in_the_file_needs_no_restart() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "per%cent\n").unwrap();
    let () = plain.run(&["CONFIG", "SET", "requirepass", "per%cent"]).await;
    let options = StoreOptions { password_file: Some(file.path().to_owned()), ..options(&redis) };
    let store = Store::connect(options).await.unwrap();
    vote(store.prepare(tx(1), &["SET a 1"]).await);
    let () = plain.run(&["CONFIG", "SET", "requirepass", "%41"]).await;
    let () = plain.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    // The connection is found broken, and then the old password is refused.
    while store.link().ping().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(store.link().ping().await.is_err());
    std::fs::write(file.path(), "%41\n").unwrap();
    while store.link().ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.commit(tx(1)).await, CLEAN);
}

/// W9: what Redis would cut the connection for is refused by name; a commit names the branch only.
#[tokio::test]
async fn a_branch_above_the_query_buffer_limit_is_refused_and_a_commit_is_not() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let (store, mut plain) = (redis.store().await, redis.plain().await);
        let large = "x".repeat(3_000_000);
        vote(store.prepare(tx(1), &[&format!("SET a {large}")]).await);
        let () = plain.run(&["CONFIG", "SET", "client-query-buffer-limit", "1048576"]).await;
        store.link().pulse().await.unwrap();
        let refusal = store.prepare(tx(2), &[&format!("SET b {large}")]).await.refused();
        assert_eq!(refusal.code, ErrorCode::TooLarge, "{}: {}", server.name, refusal.code);
        assert_eq!(store.commit(tx(1)).await, CLEAN, "{}", server.name);
        let length: usize = plain.run(&["STRLEN", "a"]).await;
        assert_eq!(length, large.len());
        let () = plain.run(&["CONFIG", "SET", "client-query-buffer-limit", "1073741824"]).await;
        store.link().pulse().await.unwrap();
        vote(store.prepare(tx(3), &[&format!("SET b {large}")]).await);
    }
}

#[test]
fn the_page_of_the_servers_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/servers.md");
    let page = assent_participant::store::requirements::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/servers.md is not what the table says: UPDATE=1 cargo nextest run -p assent-participant -E \
         'test(is_current)'"
    );
}
