//! What statements may do, what they reply, and what is said where they may not.

use assent_common::ErrorCode;
use assent_common::command::OpRequest;
use assent_common::wire::branch::{Message, VoteWord};
use assent_common::wire::ops::BranchOps;
use assent_participant::Isolation;
use serde_json::{Value, json};

use crate::harness::{Agent, Server, abort, add, commit, no, one_phase, prepare, replies};

/// Promise *bad input changes nothing*: each no is definite, names its op, and leaves nothing.
#[tokio::test]
async fn a_no_names_its_op_and_leaves_nothing() {
    let server = Server::start().await;
    server.run("CREATE TABLE d (v int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await;
    server.run("CREATE PROCEDURE c() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'").await;
    let agent = Agent::start(&server).await;
    let ok = json!({"sql": "UPDATE acct SET balance = balance - 1 WHERE id = 1"});
    let rows = "SELECT g FROM generate_series(1, 10001) g";
    for (n, (op, code)) in [
        (json!({"sql": "SELEC 1"}), ErrorCode::UnsupportedCommand),
        (json!({"sql": "COMMIT"}), ErrorCode::UnsupportedCommand),
        (json!({"sql": "SELECT 1; COMMIT"}), ErrorCode::SqlRefused),
        (json!({"sql": "CALL c()"}), ErrorCode::SqlRefused),
        (json!({"sql": "SELECT nothing"}), ErrorCode::SqlRefused),
        (json!({"sql": "SELECT 1 / $1", "params": [0]}), ErrorCode::SqlRefused),
        (json!({"sql": "SELECT $1::int", "params": ["x"]}), ErrorCode::SqlRefused),
        (json!({"sql": "SELECT $1::int"}), ErrorCode::BadArguments),
        (json!({"sql": "SELECT 1", "params": [1]}), ErrorCode::BadArguments),
        (json!({"sql": "SELECT $1::text", "params": ["\u{0}"]}), ErrorCode::BadArguments),
        (json!({"sql": "SELECT point '(1,2)'"}), ErrorCode::BadArguments),
        (json!({"sql": rows}), ErrorCode::ReplyTooLarge),
        (json!({"sql": "SELECT repeat('x', 9000000)"}), ErrorCode::ReplyTooLarge),
        (
            json!({"sql": "UPDATE acct SET balance = -1 WHERE id = 2"}),
            ErrorCode::ConstraintViolated,
        ),
        (json!({"sql": "INSERT INTO acct VALUES (2, 1)"}), ErrorCode::ConstraintViolated),
        (
            json!({"sql": "UPDATE acct SET balance = 1 WHERE id = 77", "expect": {"eq": 1}}),
            ErrorCode::ExpectationFailed,
        ),
        (json!({"sql": "SELECT pg_sleep(60)"}), ErrorCode::TooMuchWork),
    ]
    .into_iter()
    .enumerate()
    {
        for message in [prepare, one_phase] {
            let answer = agent.tell(message(n as u64 + 1, json!([ok, op]))).await;
            assert_eq!((no(&answer), answer.op), (code, Some(1)), "{op}: {answer:?}");
        }
    }
    // What PostgreSQL finds only at the end.
    let late = [
        (json!([ok, {"sql": "SELECT 1 INTO TEMP t"}]), ErrorCode::SqlRefused),
        (json!([ok, {"sql": "SELECT pg_notify('a', 'b')"}]), ErrorCode::SqlRefused),
        (json!([ok, {"sql": "INSERT INTO d VALUES (1), (1)"}]), ErrorCode::ConstraintViolated),
    ];
    for (ops, code) in late {
        assert_eq!(no(&agent.tell(prepare(90, ops.clone())).await), code, "{ops}");
    }
    assert_eq!((server.balance(1).await, server.prepared().await), (100, 0));
    assert_eq!(server.number("SELECT count(*) FROM assent.markers").await, 0);
    // A no is no fence: the next attempt is another branch, and this one may come again.
    assert_eq!(
        replies(&agent.tell(prepare(1, add(1, -1))).await),
        json!([{"rows": [{"balance": 99}]}])
    );
}

#[tokio::test]
async fn values_become_json_as_postgresql_itself_would_say_them() {
    let server = Server::start().await;
    server.run("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int").await;
    let agent = Agent::start(&server).await;
    let exact = [
        ("true", json!(true)),
        ("NULL::int", json!(null)),
        ("(-5)::smallint", json!(-5)),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_i64)),
        ("1.5::float8", json!(1.5)),
        ("'NaN'::float8", json!("NaN")),
        ("'a\"b'::text", json!("a\"b")),
        ("'x'::char(3)", json!("x  ")),
        ("'\\x00ff'::bytea", json!({"base64": "AP8="})),
        ("'{\"a\": [1, null]}'::jsonb", json!({"a": [1, null]})),
        ("'[1, 2]'::json", json!([1, 2])),
        ("ARRAY[1, NULL, 3]", json!([1, null, 3])),
        ("'ok'::mood", json!("ok")),
        ("7::small", json!(7)),
        ("date '1999-12-31'", json!("1999-12-31")),
        ("timestamp '2026-11-30 01:02:03.5'", json!("2026-11-30T01:02:03.5")),
        ("timestamptz '2026-11-30 01:02:03+01'", json!("2026-11-30T00:02:03Z")),
        ("'-infinity'::timestamptz", json!("-infinity")),
        (
            "'0198f1c2-a4b2-7c1d-9c0e-000000000001'::uuid",
            json!("0198f1c2-a4b2-7c1d-9c0e-000000000001"),
        ),
    ];
    for (n, (value, is)) in exact.into_iter().enumerate() {
        let ops = json!([{"sql": format!("SELECT {value} AS v")}]);
        let answer = agent.tell(one_phase(n as u64 + 1, ops)).await;
        assert_eq!(replies(&answer), json!([{"rows": [{"v": is}]}]), "{value}");
    }
    // Numbers of any length stay as they are.
    for (n, value) in
        ["0", "-0.001", "12345678901234567890.123400", "10000", "0.00010000", "99999.5"]
            .into_iter()
            .enumerate()
    {
        let ops = json!([{"sql": "SELECT $1::numeric AS v", "params": [value]}]);
        let answer = agent.tell(one_phase(n as u64 + 50, ops)).await;
        let text = answer.replies.as_ref().unwrap().get();
        assert_eq!(text, format!(r#"[{{"rows":[{{"v":{value}}}]}}]"#));
    }
    // Of each kind of parameter PostgreSQL finds the type.
    let ops = json!([{
        "sql": "SELECT $1::int AS a, $2::bool AS b, $3::text AS c, $4::jsonb AS d, $5::text AS e, \
                $6::int[] AS f",
        "params": [7, true, "x", {"k": [1]}, null, "{1,2}"],
    }]);
    let row = json!({"a": 7, "b": true, "c": "x", "d": {"k": [1]}, "e": null, "f": [1, 2]});
    assert_eq!(replies(&agent.tell(one_phase(80, ops)).await), json!([{"rows": [row]}]));
    let counts = json!([
        {"sql": "UPDATE acct SET balance = balance + 0", "expect": {"ge": 9}},
        {"sql": "SELECT id FROM acct WHERE id = 77", "expect": {"exists": false}},
        {"sql": "DELETE FROM acct WHERE id = 77", "expect": {"eq": 0}},
    ]);
    assert_eq!(replies(&agent.tell(one_phase(81, counts)).await), json!([9, {"rows": []}, 0]));
}

#[tokio::test]
async fn a_lock_that_is_held_is_a_conflict_and_a_read_that_is_overtaken_too() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    agent.tell(prepare(1, add(1, -1))).await;
    assert_eq!(no(&agent.tell(prepare(2, add(1, -1))).await), ErrorCode::LockConflict);
    agent.tell(commit(1)).await;
    assert_eq!(
        replies(&agent.tell(prepare(3, add(1, -1))).await),
        json!([{"rows": [{"balance": 98}]}])
    );
    agent.tell(abort(3)).await;
    // Each reads both, and writes one: only one of them may be.
    let skewed = |mine: i32| -> Value {
        json!([
            {"sql": "SELECT sum(balance)::int8 AS s FROM acct WHERE id IN (4, 5)",
             "expect": {"ge": 200}},
            {"sql": "UPDATE acct SET balance = 0 WHERE id = $1", "params": [mine]},
        ])
    };
    replies(&agent.tell(prepare(4, skewed(4))).await);
    assert_eq!(no(&agent.tell(prepare(5, skewed(5))).await), ErrorCode::LockConflict);
    agent.tell(commit(4)).await;
    let weak = Agent::with(&server, |options| {
        options.resolve_interval_ms = 3_600_000;
        options.postgres.as_mut().unwrap().isolation = Isolation::ReadCommitted;
    })
    .await;
    server.run("UPDATE acct SET balance = 100 WHERE id IN (4, 5)").await;
    let both = weak.say(vec![prepare(6, skewed(4)), prepare(7, skewed(5))]).await;
    assert!(both.iter().all(|vote| vote.vote == Some(VoteWord::Yes)), "{both:?}");
    weak.say(vec![abort(6), abort(7)]).await;
}

/// A setting outlives a prepared transaction; it must not meet the next branch.
#[tokio::test]
async fn no_setting_of_a_branch_meets_another_one() {
    let server = Server::start().await;
    let agent = Agent::with(&server, |options| {
        options.resolve_interval_ms = 3_600_000;
        options.postgres.as_mut().unwrap().connections_max = 1;
    })
    .await;
    let leak = json!([
        {"sql": "SELECT set_config('search_path', 'nowhere', false)"},
        {"sql": "SELECT pg_advisory_lock(7)"},
    ]);
    replies(&agent.tell(prepare(1, leak)).await);
    agent.tell(abort(1)).await;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(
        replies(&agent.tell(prepare(2, add(1, -1))).await),
        json!([{"rows": [{"balance": 99}]}])
    );
    assert_eq!(server.number(locks).await, 0);
    agent.tell(commit(2)).await;
}

#[tokio::test]
async fn an_op_of_the_wrong_kind_is_refused_and_harms_no_other() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let mut command = prepare(1, json!([]));
    if let Message::Prepare(prepare) = &mut command {
        prepare.ops = BranchOps::Redis(vec![OpRequest::new(["GET", "k"])]);
    }
    let answers = agent.say(vec![command, prepare(2, add(1, -1)), prepare(3, json!([]))]).await;
    assert_eq!(no(&answers[0]), ErrorCode::UnsupportedCommand);
    assert_eq!(replies(&answers[1]), json!([{"rows": [{"balance": 99}]}]));
    assert_eq!(replies(&answers[2]), json!([]));
    agent.say(vec![commit(2), commit(3)]).await;
}
