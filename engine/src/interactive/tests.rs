//! What interactive transactions take, in which order, and what they leave.

use super::*;

const ID: &str = "0198f1c2-a4b2-7c1d-9c0e-000000000001";

fn id() -> TransactionId {
    ID.parse().unwrap()
}

fn other_id(n: usize) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{n:012}").parse().unwrap()
}

fn ops(seq: u64, ops: &[(&str, &str)]) -> OpsRequest {
    let op = |(participant, line): &(&str, &str)| InteractiveOp {
        participant: participant.parse().unwrap(),
        cmd: line.split(' ').map(Arg::from).collect(),
        expect: None,
    };
    OpsRequest { seq, ops: ops.iter().map(op).collect() }
}

fn begun() -> InteractiveTransactions {
    let mut all = InteractiveTransactions::default();
    all.begin(id(), BeginRequest::default(), Millis(0)).unwrap();
    all
}

fn asked(evaluation: &CallEvaluation) -> Vec<String> {
    let word = |arg: &Arg| String::from_utf8(arg.0.clone()).unwrap();
    let op = |op: &OpRequest| {
        let expect = match op.expect.as_ref().and_then(|expect| expect.eq.as_ref()) {
            None => String::new(),
            Some(None) => " = nil".to_owned(),
            Some(Some(digest)) => format!(" = {}", word(digest)),
        };
        op.cmd.iter().map(word).collect::<Vec<_>>().join(" ") + &expect
    };
    evaluation.ops.iter().map(op).collect()
}

fn json(replies: &str) -> Vec<Box<RawValue>> {
    serde_json::from_str(replies).unwrap()
}

/// A call whose participants answer this, in the order in which they are asked.
fn call(
    all: &mut InteractiveTransactions,
    request: &OpsRequest,
    replies: &[&str],
) -> Result<String, Problem> {
    let OpsCall::New(evaluations) = all.call(id(), request.clone(), Millis(1)).unwrap() else {
        panic!("it is new")
    };
    assert_eq!(evaluations.len(), replies.len());
    let answered = evaluations.into_iter().zip(replies).map(|(it, said)| (it, Ok(json(said))));
    let answered = answered.collect();
    let done = all.called(id(), request, answered, Millis(2));
    done.map(|(_, replies)| replies.get().to_owned())
}

fn refused(problem: Problem) -> (ErrorCode, Option<u32>) {
    (problem.code, problem.op)
}

/// Promise: each call sees what was staged before, and everything that was seen is compared again.
#[test]
fn what_was_seen_and_staged_stands_before_what_is_new() {
    let mut all = begun();
    let first = ops(1, &[("a", "GET x"), ("b", "INCR y"), ("a", "SET z 1")]);
    let OpsCall::New(evaluations) = all.call(id(), first.clone(), Millis(1)).unwrap() else {
        panic!("it is new")
    };
    let said: Vec<_> = evaluations.iter().map(asked).collect();
    let at_a = ["ASSENT.DIGEST x", "ASSENT.DIGEST z", "GET x", "SET z 1"];
    assert_eq!(said, [&at_a[..], &["ASSENT.DIGEST y", "INCR y"]]);
    all.call_left(id(), 1);
    let replies = call(&mut all, &first, &[r#"["dx",null,"7","OK"]"#, r#"["dy",8]"#]).unwrap();
    assert_eq!(replies, r#"["7",8,"OK"]"#, "in the order of the call");
    let second = ops(2, &[("a", "GET z"), ("a", "GET w")]);
    let OpsCall::New(evaluations) = all.call(id(), second.clone(), Millis(1)).unwrap() else {
        panic!("it is new")
    };
    let at_a = [
        "ASSENT.DIGEST x = dx",
        "ASSENT.DIGEST z = nil",
        "ASSENT.DIGEST w",
        "SET z 1",
        "GET z",
        "GET w",
    ];
    assert_eq!(evaluations.iter().map(asked).collect::<Vec<_>>(), [&at_a[..]]);
    all.call_left(id(), 2);
    let replies = call(&mut all, &second, &[r#"["dx",null,"dw","OK","1",null]"#]).unwrap();
    assert_eq!(replies, r#"["1",null]"#);
    let commit = all.commit(id(), Millis(3)).unwrap();
    let branches: Vec<_> = commit
        .branches
        .iter()
        .map(|branch| {
            let ops = serde_json::from_str(branch.ops.get()).unwrap();
            let keys = Vec::new();
            let (old, places) = (0, Vec::new());
            let participant = branch.participant.clone();
            asked(&CallEvaluation { participant, ops, keys, old, places })
        })
        .collect();
    let at_a = ["ASSENT.DIGEST x = dx", "ASSENT.DIGEST z = nil", "ASSENT.DIGEST w = dw", "SET z 1"];
    assert_eq!(branches, [&at_a[..], &["ASSENT.DIGEST y = dy", "INCR y"]]);
    let again = all.commit(id(), Millis(4)).unwrap();
    let text = |request: &TransactionRequest| serde_json::to_string(request).unwrap();
    assert_eq!(text(&again), text(&commit), "a lost answer is asked for by the same request");
    assert_eq!(refused(all.abort(id(), Millis(4)).unwrap_err()).0, ErrorCode::WrongState);
    all.committed(id());
    assert_eq!(refused(all.commit(id(), Millis(4)).unwrap_err()).0, ErrorCode::NotFound);
    assert_eq!((all.active.len(), all.bytes), (0, 0));
}

/// Promise: a number is done once, and answered as often as it is asked.
#[test]
fn a_call_that_comes_again_is_answered_and_not_done_again() {
    let mut all = begun();
    let first = ops(1, &[("a", "INCR x")]);
    call(&mut all, &first, &[r#"[null,1]"#]).unwrap();
    for _ in 0..2 {
        let again = all.call(id(), first.clone(), Millis(5)).unwrap();
        let OpsCall::Again(session, replies) = again else { panic!("it was done") };
        assert_eq!((session.seq, replies.get()), (1, "[1]"));
    }
    let wrong = |all: &mut InteractiveTransactions, request| {
        all.call(id(), request, Millis(5)).unwrap_err().code
    };
    let other = ops(1, &[("a", "INCR y")]);
    assert_eq!(wrong(&mut all, other), ErrorCode::IdempotencyMismatch);
    assert_eq!(wrong(&mut all, ops(3, &[])), ErrorCode::WrongState, "a gap");
    assert_eq!(wrong(&mut all, ops(0, &[])), ErrorCode::WrongState);
    all.call(id(), ops(2, &[("a", "GET x")]), Millis(5)).unwrap();
    assert_eq!(wrong(&mut all, ops(2, &[("a", "GET x")])), ErrorCode::WrongState, "under way");
    assert_eq!(all.commit(id(), Millis(5)).unwrap_err().code, ErrorCode::WrongState);
    all.call_left(id(), 1);
    assert_eq!(wrong(&mut all, ops(2, &[])), ErrorCode::WrongState, "another call was left");
    all.call_left(id(), 2);
    call(&mut all, &ops(2, &[]), &[]).unwrap();
}

/// Promise: a call that is refused has staged nothing, and blames its own op.
#[test]
fn a_call_that_is_refused_leaves_nothing() {
    let mut all = begun();
    call(&mut all, &ops(1, &[("a", "SET x 1")]), &[r#"[null,"OK"]"#]).unwrap();
    let request = ops(2, &[("b", "SET y 1"), ("a", "LPUSH l v")]);
    let OpsCall::New(evaluations) = all.call(id(), request.clone(), Millis(1)).unwrap() else {
        panic!("it is new")
    };
    let no = |op| Problem { op: Some(op), ..Problem::new(ErrorCode::WrongType, "no list") };
    let answers = [Ok(json(r#"[null,"OK"]"#)), Err(no(3))];
    let answered = evaluations.iter().cloned().zip(answers).collect();
    let problem = all.called(id(), &request, answered, Millis(2)).unwrap_err();
    assert_eq!(problem.participant.as_deref(), Some("a"));
    assert_eq!(refused(problem), (ErrorCode::WrongType, Some(1)));
    let commit = all.commit(id(), Millis(3)).unwrap();
    assert_eq!(commit.branches.len(), 1, "nothing of the other one either");
    // What no participant is asked for.
    let mut all = begun();
    for (line, code) in [
        ("NOSUCH x", ErrorCode::UnsupportedCommand),
        ("GET", ErrorCode::BadArguments),
        ("INCRBY x y", ErrorCode::NotAnInteger),
        ("SPOP t", ErrorCode::BadArguments),
    ] {
        let problem =
            all.call(id(), ops(1, &[("b", "GET k"), ("a", line)]), Millis(1)).unwrap_err();
        assert_eq!(refused(problem), (code, Some(1)), "{line}");
    }
    assert_eq!(all.commit(id(), Millis(1)).unwrap_err().code, ErrorCode::WrongState, "no ops");
}

/// Promise: a key that has changed ends the transaction, at once, and that can be read afterwards.
#[test]
fn a_change_that_a_call_meets_is_the_end() {
    let mut all = begun();
    call(&mut all, &ops(1, &[("a", "GET x")]), &[r#"["dx","1"]"#]).unwrap();
    let request = ops(2, &[("a", "GET y")]);
    let OpsCall::New(evaluations) = all.call(id(), request.clone(), Millis(1)).unwrap() else {
        panic!("it is new")
    };
    let no = Problem { op: Some(0), ..Problem::new(ErrorCode::ReadChanged, "x") };
    let answered = evaluations.into_iter().map(|it| (it, Err(no.clone()))).collect();
    let problem = all.called(id(), &request, answered, Millis(2)).unwrap_err();
    assert_eq!(refused(problem), (ErrorCode::ReadChanged, None));
    let Some(Err(known)) = all.find(id(), Millis(3)) else { panic!("it has ended") };
    assert_eq!((known.code, known.outcome), (ErrorCode::ReadChanged, Some(OutcomeWord::Aborted)));
    assert_eq!(all.commit(id(), Millis(3)).unwrap_err().code, ErrorCode::ReadChanged);
    assert_eq!(all.bytes, 0);
}

/// Promise: a false expectation is the end of it, as of a transaction that is sent in one request.
#[test]
fn a_false_expectation_is_the_end() {
    for others in [ErrorCode::ReadChanged, ErrorCode::WrongType] {
        let mut all = begun();
        let request = ops(1, &[("a", "DECRBY x 5"), ("b", "GET y")]);
        let OpsCall::New(evaluations) = all.call(id(), request.clone(), Millis(1)).unwrap() else {
            panic!("it is new")
        };
        let no = |code| Problem { op: Some(1), ..Problem::new(code, "no") };
        let answers = [ErrorCode::ExpectationFailed, others].map(|code| Err(no(code)));
        let answered = evaluations.into_iter().zip(answers).collect();
        let problem = all.called(id(), &request, answered, Millis(2)).unwrap_err();
        let said = match others {
            ErrorCode::ReadChanged => ErrorCode::ReadChanged,
            _ => ErrorCode::ExpectationFailed,
        };
        assert_eq!((problem.code, problem.outcome), (said, Some(OutcomeWord::Aborted)));
        assert_eq!(all.commit(id(), Millis(3)).unwrap_err().code, said);
    }
}

/// Promise: what nobody goes on with goes away, and says so.
#[test]
fn it_expires_when_no_call_comes_and_at_its_greatest_age() {
    let mut all = begun();
    let idle = limits::INTERACTIVE_IDLE_MS;
    let mut now = 0;
    let mut seq = 0;
    while now + idle < limits::INTERACTIVE_AGE_MAX_MS {
        (now, seq) = (now + idle - 1, seq + 1);
        let request = ops(seq, &[]);
        all.call(id(), request.clone(), Millis(now)).unwrap();
        all.called(id(), &request, Vec::new(), Millis(now)).unwrap();
    }
    let Some(Ok(shown)) = all.find(id(), Millis(now)) else { panic!("it is active") };
    assert_eq!(shown.expires_at, Millis(limits::INTERACTIVE_AGE_MAX_MS));
    let over = Millis(limits::INTERACTIVE_AGE_MAX_MS);
    assert_eq!(all.commit(id(), over).unwrap_err().code, ErrorCode::Expired);
    let Some(Err(known)) = all.find(id(), over) else { panic!("it has ended") };
    assert_eq!((known.code, known.outcome), (ErrorCode::Expired, Some(OutcomeWord::Aborted)));
    assert_eq!(all.abort(id(), over).unwrap().code, ErrorCode::Expired);
    let again = all.begin(id(), BeginRequest::default(), over).unwrap_err();
    assert_eq!(again.code, ErrorCode::Expired, "an id is not used again");
}

/// Promise: how many there are, what each holds, and what is remembered of them has bounds.
#[test]
fn everything_has_a_bound() {
    let mut all = InteractiveTransactions::default();
    for n in 0..limits::INTERACTIVE_MAX {
        all.begin(other_id(n), BeginRequest::default(), Millis(0)).unwrap();
    }
    let one_more = all.begin(id(), BeginRequest::default(), Millis(0));
    // `id()` is one of them.
    assert_eq!(one_more.unwrap().id, id());
    let beyond = all.begin(other_id(limits::INTERACTIVE_MAX), BeginRequest::default(), Millis(0));
    assert_eq!(beyond.unwrap_err().code, ErrorCode::Overloaded);
    let named = BeginRequest { name: Some("n".to_owned()), ..BeginRequest::default() };
    let other = all.begin(id(), named, Millis(0)).unwrap_err();
    assert_eq!(other.code, ErrorCode::IdempotencyMismatch);
    for n in 0..limits::INTERACTIVE_MAX {
        all.abort(other_id(n), Millis(0)).unwrap();
    }
    assert_eq!(all.active.len(), 0);
    assert!(all.ended.len() <= limits::INTERACTIVE_ENDED_MAX);

    let mut all = begun();
    let large = "v".repeat(limits::BRANCH_BYTES_MAX / 2 + 1);
    let line = format!("APPEND x {large}");
    call(&mut all, &ops(1, &[("a", &line)]), &[r#"[null,1]"#]).unwrap();
    let problem = all.call(id(), ops(2, &[("a", &line)]), Millis(1)).unwrap_err();
    assert_eq!(problem.code, ErrorCode::TooLarge, "it must fit into a branch");
    let held = all.bytes;
    assert!(held > large.len());
    let names = ["b", "c", "d", "e", "f", "g", "h", "i"];
    let mut seq = 2;
    let refused = names.iter().find_map(|name| {
        let done = call(&mut all, &ops(seq, &[(name, &line)]), &[r#"[null,1]"#]);
        seq += 1;
        done.err()
    });
    assert_eq!(refused.unwrap().code, ErrorCode::TooLarge, "and all of it into the bound");
    assert!(all.bytes <= limits::INTERACTIVE_BYTES_MAX);
}
