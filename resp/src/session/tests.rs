//! What each command means to a client in each state.

use assent_client::Token;
use assent_edge::Budget;

use super::*;
use crate::planned::Group;
use crate::route::Routes;
use assent_common::command::Expect;

fn session_with(token: Option<&str>, memory: usize) -> Session {
    let rules = ["a:*=bank-a", "b:*=bank-b"].map(|rule| rule.parse().unwrap());
    let routes = Routes::new(rules.into()).unwrap();
    let rules = Rules { routes, token: token.map(Token::new), budget: Budget::new(memory) };
    Session::new(Arc::new(rules), 7)
}

fn session() -> Session {
    session_with(None, 1 << 20)
}

impl Session {
    fn type_in(&mut self, line: &str) -> SessionStep {
        let words = line.split_ascii_whitespace().map(Arg::from).collect();
        self.take(ClientCommand::Words(words))
    }

    /// The answer that is known at once, as text.
    fn says(&mut self, line: &str) -> String {
        match self.type_in(line) {
            SessionStep::Say(Value::Status(word)) => word.into_owned(),
            SessionStep::Say(Value::Error(text)) => format!("-{text}"),
            SessionStep::Say(value) => format!("{value:?}"),
            SessionStep::SayAndEnd(value) => format!("{value:?}, and the end"),
            SessionStep::Run(planned) | SessionStep::Watch(_, planned) => {
                let ops = planned.ops();
                let op = |op: &PlannedOp| format!("{} {}", op.participant, op.cmd);
                ops.map(op).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

fn planned(step: SessionStep) -> Planned {
    match step {
        SessionStep::Run(planned) => planned,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_command_is_a_transaction_where_its_keys_lie() {
    let mut session = session();
    assert_eq!(session.says("get a:x"), r#"bank-a ["get","a:x"]"#);
    assert_eq!(session.says("MGET b:x b:y"), r#"bank-b ["MGET","b:x","b:y"]"#);
    let crossed = session.says("MSET a:x 1 b:y 2");
    assert!(
        crossed.starts_with("-CROSSPARTICIPANT MSET") && crossed.contains("a:x at bank-a"),
        "{crossed}"
    );
    assert!(crossed.contains("b:y at bank-b"), "{crossed}");
    let unrouted = session.says("GET c:x");
    assert!(unrouted.starts_with("-UNROUTED") && unrouted.contains("a:*=bank-a"), "{unrouted}");
    let wrong = session.says("GET a:x a:y");
    assert_eq!(wrong, "-ERR wrong number of arguments for 'get' command");
    assert!(session.says("SET a:x 1 EX nought").starts_with("-ERR"), "{wrong}");
}

#[test]
fn what_does_not_run_here_is_refused_by_name() {
    let mut session = session();
    for (line, word) in [
        ("BLPOP a:l 0", "waits for others"),
        ("SUBSCRIBE ch", "messages"),
        ("EVAL x 0", "script"),
        ("FLUSHALL", "all keys"),
        ("CONFIG GET save", "a server"),
        ("CLUSTER SLOTS", "cluster support disabled"),
        ("TIME", "a server"),
        ("RESTORE a:l 0 x", "payload cannot be checked"),
        ("OBJECT ENCODING a:l", "tell of a copy"),
        ("NOSUCH a:l", "does not run in a transaction"),
    ] {
        let said = session.says(line);
        assert!(said.starts_with("-ERR ") && said.contains(word), "{line}: {said}");
    }
}

#[test]
fn what_stands_between_multi_and_exec_is_one_transaction_in_its_order() {
    let mut session = session();
    assert_eq!(session.says("MULTI"), "OK");
    for line in ["DECRBY a:x 30", "ASSENT.EXPECT GE 0", "PING", "INCRBY b:x 30", "ASSENT.KEY k"] {
        assert_eq!(session.says(line), "QUEUED", "{line}");
    }
    assert_eq!(session.says("MULTI"), "-ERR MULTI calls can not be nested");
    assert_eq!(session.says("ASSENT.TIMEOUT 2s"), "QUEUED");
    let planned = planned(session.type_in("EXEC"));
    assert_eq!((planned.entries.len(), planned.kind), (6, AnswerForm::Exec));
    assert_eq!(planned.said.key.as_ref().unwrap().as_str(), "k");
    assert_eq!(planned.said.timeout_ms, Some(2_000));
    let expected = planned.ops().next().unwrap().branch.ops[0].expect.clone().unwrap();
    assert_eq!(expected.ge, Some(Some(Arg::from("0"))));
    assert_eq!(session.says("EXEC"), "-ERR EXEC without MULTI");
    assert_eq!(session.says("GET a:x"), r#"bank-a ["GET","a:x"]"#, "the queue is gone");
}

#[test]
fn a_command_that_is_refused_spoils_the_transaction() {
    for wrong in ["NOSUCH a:x", "GET c:x", "SELECT 0", "ASSENT.KEY", "ASSENT.EXPECT GE", "WATCH k"]
    {
        let mut session = session();
        session.says("MULTI");
        session.says("SET a:x 1");
        assert!(session.says(wrong).starts_with('-'), "{wrong}");
        assert!(session.says("EXEC").starts_with("-EXECABORT"), "{wrong}");
        assert!(session.says("DISCARD").starts_with("-ERR"), "it is over");
    }
    let mut session = session();
    session.says("MULTI");
    let too_large = ClientCommand::TooLarge(Arg::from("SET"), TooLarge::Bytes);
    assert!(matches!(session.take(too_large), SessionStep::Say(Value::Error(_))));
    assert!(session.says("EXEC").starts_with("-EXECABORT"));
}

/// Promise: what was looked at stands before what is written, once, and is forgotten as Redis does.
#[test]
fn exec_is_guarded_by_what_was_watched_before_it() {
    let digest = |key| format!(r#"["ASSENT.DIGEST","{key}"]"#);
    let look = |session: &mut Session, line: &str, answer: Value| match session.type_in(line) {
        SessionStep::Watch(keys, planned) => {
            assert_eq!((planned.kind, planned.count_ops()), (AnswerForm::Exec, keys.len()));
            session.watched(keys, answer)
        }
        step => panic!("{line}: {step:?}"),
    };
    let run = |session: &mut Session| {
        session.says("MULTI");
        session.says("SET a:x 1");
        session.says("EXEC")
    };
    let both = || Value::Array(vec![Value::bulk("d1"), Value::Nil]);
    let plain = r#"bank-a ["SET","a:x","1"]"#;
    let mut session = session();
    assert_eq!(look(&mut session, "WATCH a:x b:y a:x", both()), Value::ok());
    assert_eq!(session.says("WATCH a:x"), "OK", "it is what it was at first");
    session.says("MULTI");
    assert_eq!(session.says("SET a:x 1"), "QUEUED");
    assert_eq!(session.says("UNWATCH"), "QUEUED");
    let planned = planned(session.type_in("EXEC"));
    let guards = planned.guards.iter().map(|op| (op.cmd.get(), op.branch.ops[0].expect.clone()));
    let expected = |digest: Option<&str>| {
        Some(Expect { eq: Some(digest.map(Arg::from)), ..Expect::default() })
    };
    let (x, y) = (digest("a:x"), digest("b:y"));
    let wanted = [(&*x, expected(Some("d1"))), (&*y, expected(None))];
    assert_eq!(guards.collect::<Vec<_>>(), wanted);
    assert_eq!(run(&mut session), plain, "once only");
    for forgets in ["UNWATCH", "MULTI DISCARD", "RESET", "MULTI NOSUCH EXEC"] {
        look(&mut session, "WATCH a:x b:y", both());
        forgets.split(' ').for_each(|line| drop(session.says(line)));
        assert_eq!(run(&mut session), plain, "{forgets}");
    }
    let gone = look(&mut session, "WATCH a:x", Value::Error("TIMEOUT".to_owned()));
    assert_eq!(gone, Value::Error("TIMEOUT".to_owned()));
    assert!(run(&mut session).starts_with("-EXECABORT"), "it was not guarded");
    assert_eq!(run(&mut session), plain);
    assert!(session.says("WATCH c:x").starts_with("-UNROUTED"));
    assert!(session.says("WATCH").starts_with("-ERR wrong number"));
    let all: String = (0..=limits::WATCHED_KEYS_MAX).map(|key| format!(" a:{key}")).collect();
    assert!(session.says(&format!("WATCH{all}")).starts_with("-TOOMANYOPS"));
    assert!(run(&mut session).starts_with("-EXECABORT"));
}

/// Promise: the nil of EXEC means that a watched key has changed, and nothing else.
#[test]
fn a_lost_race_is_told_from_another_false_expectation() {
    let mut session = session();
    let SessionStep::Watch(keys, _) = session.type_in("WATCH a:x b:y") else { panic!("no look") };
    session.watched(keys, Value::Array(vec![Value::bulk("d1"), Value::Nil]));
    session.says("MULTI");
    session.says("GET a:z");
    session.says("ASSENT.EXPECT EQ 1");
    let group = Group::from(planned(session.type_in("EXEC")));
    let problem = |participant: &str, op| Problem {
        participant: Some(participant.to_owned()),
        op: Some(op),
        ..Problem::new(ErrorCode::ReadChanged, "")
    };
    assert!(
        group.has_lost_race(&problem("bank-a", 0)) && group.has_lost_race(&problem("bank-b", 0))
    );
    assert!(!group.has_lost_race(&problem("bank-a", 1)));
    let other = Problem { code: ErrorCode::LockConflict, ..problem("bank-a", 0) };
    assert!(!group.has_lost_race(&other));
}

/// What is refused has no effect: a program that was told no goes on with the connection it had.
#[test]
fn what_is_not_allowed_in_multi_changes_nothing() {
    let mut session = session_with(Some("s3cret"), 1 << 20);
    session.says("AUTH s3cret");
    for wrong in ["HELLO 3 SETNAME me", "CLIENT SETNAME me", "AUTH wrong", "SELECT 1", "INFO"] {
        session.says("MULTI");
        let said = session.says(wrong);
        assert!(said.starts_with('-') && said.ends_with("is not allowed in MULTI"), "{said}");
        assert!(session.says("EXEC").starts_with("-EXECABORT"), "{wrong}");
        assert_eq!((session.version(), session.was_refused()), (RespVersion::Resp2, false));
        assert_eq!(session.says("CLIENT GETNAME"), "Nil");
    }
}

#[test]
fn expectations_are_checked_when_they_are_said() {
    let mut session = session();
    session.says("MULTI");
    assert!(session.says("ASSENT.EXPECT NIL").contains("stands behind the command"));
    session.says("DISCARD");
    session.says("MULTI");
    session.says("GET a:x");
    assert_eq!(session.says("ASSENT.EXPECT notnil"), "QUEUED");
    assert_eq!(session.says("ASSENT.EXPECT LT 5"), "QUEUED", "both must hold");
    assert!(session.says("ASSENT.EXPECT LT 6").contains("was said of this command before"));
    assert!(session.says("ASSENT.EXPECT GE x").starts_with("-ERR"), "no number");
    assert!(session.says("ASSENT.FOO x").starts_with("-ERR ASSENT.FOO"));
    session.says("DISCARD");
    assert!(session.says("ASSENT.KEY k").contains("between MULTI and EXEC"));
}

#[test]
fn nobody_gets_in_without_the_token() {
    let mut session = session_with(Some("s3cret"), 1 << 20);
    assert_eq!(session.says("GET a:x"), "-NOAUTH Authentication required.");
    assert_eq!(session.says("PING"), "-NOAUTH Authentication required.");
    assert!(session.says("HELLO 3").starts_with("-NOAUTH"));
    assert!(session.says("AUTH wrong").starts_with("-WRONGPASS"));
    assert!(session.says("HELLO 3 AUTH default wrong").starts_with("-WRONGPASS"));
    assert!(!session.is_authenticated() && session.was_refused());
    assert_eq!(session.version(), RespVersion::Resp2, "a refused HELLO changes nothing");
    assert_eq!(session.says("AUTH s3cret"), "OK");
    assert_eq!(session.says("PING"), "PONG");
    assert_eq!(session.says("RESET"), "RESET");
    assert_eq!(session.says("PING"), "-NOAUTH Authentication required.");
    session.says("HELLO 3 AUTH any s3cret SETNAME me");
    assert_eq!(session.version(), RespVersion::Resp3);
    assert!(session.says("CLIENT GETNAME").contains("Bulk"));
}

/// A page of a browser on this machine may post to any port.
#[test]
fn what_is_http_ends_the_connection() {
    for line in ["POST /v1 HTTP/1.1", "Host: 127.0.0.1:7702"] {
        assert!(session().says(line).ends_with("and the end"), "{line}");
    }
}

#[test]
fn a_transaction_is_granted_its_memory_before_it_is_kept() {
    let mut session = session_with(None, 1_000);
    session.says("MULTI");
    assert_eq!(session.says("SET a:x 1"), "QUEUED");
    assert!(session.says("SET a:x 2").starts_with("-OVERLOADED"), "600 bytes each");
    assert!(session.says("EXEC").starts_with("-EXECABORT"));
    let planned = planned(session.type_in("SET a:x 3"));
    assert!(session.says("SET a:x 4").starts_with("-OVERLOADED"));
    drop(planned);
    assert!(matches!(session.type_in("SET a:x 4"), SessionStep::Run(_)), "it was given back");
}

/// What follows each other at the same participants may be done as one.
#[test]
fn a_group_has_the_same_participants_and_nothing_said_of_it() {
    let mut session = session();
    let mut group = Group::from(planned(session.type_in("SET a:x 1")));
    group.join(planned(session.type_in("INCR a:y"))).unwrap();
    group.join(planned(session.type_in("SET b:x 1"))).unwrap_err();
    session.says("MULTI");
    session.says("INCR a:y");
    session.says("ASSENT.KEY k");
    group.join(planned(session.type_in("EXEC"))).unwrap_err();
    session.says("MULTI");
    session.says("INCR a:y");
    session.says("INCR b:y");
    group.join(planned(session.type_in("EXEC"))).unwrap_err();
    assert_eq!(group.planned().len(), 2);
}
