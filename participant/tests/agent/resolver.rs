//! Branches in doubt are ended by the word of their own log, and by nothing else.

use assent_client::participant::{ForcedOutcome, ForgetRequest, ResolveRequest};
use assent_client::{CallError, Token};
use assent_common::ErrorCode;
use assent_common::outcome::{Aborted, Call};
use assent_common::wire::branch::{BranchState, VoteWord};
use assent_common::wire::problem::Problem;
use assent_common::wire::{MEDIA_TYPE, PROBLEM_MEDIA_TYPE};

use crate::harness::{
    Judge, LOG, OTHER_LOG, Oracle, Redis, Sidecar, abort, commit, counting, outcome_body, prepare,
    txid, until,
};

async fn asking(redis: &Redis) -> Sidecar {
    Sidecar::with(redis, |options| options.resolve_interval_ms = 20).await
}

async fn becomes(sidecar: &Sidecar, n: u64, state: BranchState) {
    until(&format!("branch {n} is {state:?}"), async || {
        (sidecar.state(n).await == Some(state)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_answer_leaves_the_branch_in_doubt_and_a_right_one_ends_it() {
    let redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    let problem = r#"{"type":"/errors#not_found","title":"t","status":404,"detail":"d","code":"not_found","retryable":false}"#;
    let answers = [
        (404, "text/html", "<h1>404</h1>".to_owned()),
        (502, "text/plain", "Bad Gateway".to_owned()),
        (200, "application/json", r#"{"outcome":"aborted"}"#.to_owned()),
        (200, "application/json", outcome_body(4, LOG, "aborted")),
        (200, MEDIA_TYPE, outcome_body(99, LOG, "aborted")),
        (200, MEDIA_TYPE, outcome_body(6, OTHER_LOG, "aborted")),
        (404, "application/problem+json", problem.to_owned()),
        (200, MEDIA_TYPE, outcome_body(8, LOG, "undecided")),
    ];
    let mut oracles = Vec::new();
    for (n, (status, media_type, body)) in (1..).zip(answers) {
        let oracle = Oracle::saying(status, media_type, body).await;
        let key = format!("k{n}");
        sidecar.say_for(&oracle.url, vec![prepare(n, [&["SET", &key, "v"]])]).await;
        oracles.push((n, oracle));
    }
    for (n, oracle) in &oracles {
        // The second question is asked only after the first one's answer was weighed.
        oracle.asked(2).await;
        assert_eq!(sidecar.state(*n).await, Some(BranchState::Prepared), "branch {n}");
        let word = if n % 2 == 0 { "committed" } else { "aborted" };
        oracle.says(*n, word);
    }
    for (n, _) in oracles {
        if n % 2 == 0 {
            becomes(&sidecar, n, BranchState::Applied).await;
            assert_eq!(redis.get(&format!("k{n}")).await.as_deref(), Some("v"));
        } else {
            becomes(&sidecar, n, BranchState::Aborted).await;
            assert_eq!(redis.get(&format!("k{n}")).await, None);
        }
    }
}

#[tokio::test]
async fn a_branch_of_an_unknown_authority_is_held_until_an_operator_decides() {
    let redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    let body = outcome_body(1, OTHER_LOG, "unknown_authority");
    let oracle = Oracle::saying(200, MEDIA_TYPE, body).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    oracle.asked(3).await;

    let list = sidecar.client.branches(BranchState::Prepared).await.unwrap();
    let view = &list.branches[0];
    assert_eq!((view.txid, view.state), (txid(1), BranchState::Prepared));
    assert_eq!(view.keys, ["k"]);
    assert!(view.in_doubt_ms.is_some() && view.last_error.is_some(), "{view:?}");

    let mut order = ResolveRequest {
        outcome: ForcedOutcome::Committed,
        actor: String::new(),
        reason: "the coordinator's disk is gone".to_owned(),
        force: false,
        coordinator: None,
    };
    let nameless = sidecar.admin.resolve(txid(1), &order).await;
    assert!(matches!(nameless, Err(CallError::Rejected(no)) if no.code == ErrorCode::BadRequest));
    order.actor = "ada".to_owned();
    let resolved = sidecar.admin.resolve(txid(1), &order).await.unwrap();
    assert_eq!(resolved.state, BranchState::Applied);
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));

    let again = sidecar.admin.resolve(txid(1), &order).await;
    assert!(matches!(again, Err(CallError::Rejected(no)) if no.code == ErrorCode::WrongState));
    let unheard_of = sidecar.admin.resolve(txid(2), &order).await;
    assert!(matches!(unheard_of, Err(CallError::Rejected(no)) if no.code == ErrorCode::NotFound));
}

/// A coordinator that answers ends its branches itself: a hand that it contradicts must say so
/// twice.
#[tokio::test]
async fn a_hand_is_refused_while_the_coordinator_answers_otherwise_unless_it_is_forced() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let undecided = outcome_body(1, LOG, "undecided");
    let oracle = Oracle::saying(200, MEDIA_TYPE, undecided).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    let (actor, reason) = ("ana".to_owned(), "it takes so long".to_owned());
    let mut order = ResolveRequest {
        outcome: ForcedOutcome::Aborted,
        actor,
        reason,
        force: false,
        coordinator: None,
    };
    match sidecar.admin.resolve(txid(1), &order).await {
        Err(CallError::Rejected(no)) => {
            assert_eq!(no.code, ErrorCode::WrongState, "{no:?}");
            assert!(no.detail.contains("undecided") && no.detail.contains("--force"), "{no:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(sidecar.state(1).await, Some(BranchState::Prepared), "nothing was done");
    order.force = true;
    let resolved = sidecar.admin.resolve(txid(1), &order).await.unwrap();
    assert_eq!(resolved.state, BranchState::Aborted);
}

/// One that cannot be asked may have decided: only where nobody listens is it gone.
#[tokio::test]
async fn a_hand_must_be_forced_while_the_coordinator_may_be_there() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let locked = Oracle::saying(401, "text/plain", "no".to_owned()).await;
    // Connections are taken by the kernel, and nobody reads.
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at =
        |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let deserted = at(&tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let order = ResolveRequest {
        outcome: ForcedOutcome::Aborted,
        actor: "ana".to_owned(),
        reason: "it takes so long".to_owned(),
        force: false,
        coordinator: None,
    };
    for (n, url) in [(1, locked.url.clone()), (2, at(&frozen))] {
        sidecar.say_for(&url, vec![prepare(n, [&["SET", &format!("k{n}"), "v"]])]).await;
        match sidecar.admin.resolve(txid(n), &order).await {
            Err(CallError::Rejected(no)) => assert!(no.detail.contains("--force"), "{no:?}"),
            other => panic!("{url}: {other:?}"),
        }
        assert_eq!(sidecar.state(n).await, Some(BranchState::Prepared), "nothing was done");
    }
    sidecar.say_for(&deserted, vec![prepare(3, [&["SET", "k3", "v"]])]).await;
    let resolved = sidecar.admin.resolve(txid(3), &order).await.unwrap();
    assert_eq!(resolved.state, BranchState::Aborted);
}

/// Nobody listens at the address that the branch names: its log is asked where it was heard from,
/// and where the operator finds it.
#[tokio::test]
async fn a_coordinator_that_has_moved_is_asked_before_a_hand_takes_it_for_gone() {
    let redis = Redis::start().await;
    let deserted = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = format!("http://{}", deserted.local_addr().unwrap());
    drop(deserted);
    let moved = Oracle::saying(200, MEDIA_TYPE, outcome_body(1, LOG, "aborted")).await;
    let order = |outcome, coordinator: Option<&str>| ResolveRequest {
        outcome,
        actor: "ana".to_owned(),
        reason: "its machine is dead".to_owned(),
        force: false,
        coordinator: coordinator.map(str::to_owned),
    };
    let sidecar = Sidecar::start(&redis).await;
    sidecar.say_for(&old, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    let refused = async |seen: Option<&str>, word: &str| {
        match sidecar.admin.resolve(txid(1), &order(ForcedOutcome::Committed, seen)).await {
            Err(CallError::Rejected(no)) => assert!(no.detail.contains(word), "{no:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(sidecar.state(1).await, Some(BranchState::Prepared), "nothing was done");
    };
    // The operator has found it: by an address that leads there from here too, or not.
    refused(Some(&moved.url), "is aborted").await;
    refused(Some(&old), "cannot be asked from here").await;
    // It has been heard here.
    sidecar.say_for(&moved.url, Vec::new()).await;
    refused(None, "is aborted").await;
    // It has the last word, also where the operator's own way to it does not lead there from here.
    let agreed = order(ForcedOutcome::Aborted, Some("http://127.0.0.1:1"));
    let resolved = sidecar.admin.resolve(txid(1), &agreed).await.unwrap();
    assert_eq!(resolved.state, BranchState::Aborted);
}

/// Promise *finishing*: the branch names an address at which nobody answers any more, and its log
/// was heard from another.
#[tokio::test]
async fn a_branch_is_asked_about_where_its_log_was_last_heard_from() {
    let redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    let old = Oracle::saying(503, "text/plain", "no coordinator".to_owned()).await;
    sidecar.say_for(&old.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    old.asked(1).await;
    let moved = Oracle::saying(200, MEDIA_TYPE, outcome_body(1, LOG, "committed")).await;
    sidecar.say_for(&moved.url, Vec::new()).await;
    becomes(&sidecar, 1, BranchState::Applied).await;
    // And the other way round: who was heard last has gone, and the branch's own one answers.
    moved.says(2, "undecided");
    sidecar.say_for(&old.url, vec![prepare(3, [&["SET", "l", "v"]])]).await;
    sidecar.say_for(&moved.url, Vec::new()).await;
    old.says(3, "committed");
    becomes(&sidecar, 3, BranchState::Applied).await;
}

/// An outcome that meets a hand is told of the hand; one that meets a fence of another's is not. A log that agrees with the
/// hand is told nothing.
#[tokio::test]
async fn an_outcome_against_a_hand_is_answered_with_who_it_was() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let order = |outcome| ResolveRequest {
        outcome,
        actor: "ada".to_owned(),
        reason: "the log is gone".to_owned(),
        force: false,
        coordinator: None,
    };
    sidecar.say((1..=4).map(|n| prepare(n, [&["SET", &format!("k{n}"), "v"]])).collect()).await;
    for (n, outcome) in [
        (1, ForcedOutcome::Aborted),
        (2, ForcedOutcome::Committed),
        (3, ForcedOutcome::Aborted),
        (4, ForcedOutcome::Committed),
    ] {
        sidecar.admin.resolve(txid(n), &order(outcome)).await.unwrap();
    }
    sidecar.say(vec![abort(5)]).await;
    let outcomes = vec![commit(1), abort(2), abort(3), commit(4), commit(5)];
    // An outcome comes again and again until it is answered as its coordinator wants.
    for _ in 0..2 {
        let answers = sidecar.say(outcomes.clone()).await;
        let mut answers = answers.into_iter();
        let mut applied = || match answers.next().unwrap().into_applied() {
            Call::Refused(refusal) => Some(refusal),
            _ => None,
        };
        let damage = applied().unwrap();
        assert_eq!(damage.code, ErrorCode::HeuristicAborted);
        assert!(damage.detail.contains("ada") && damage.detail.contains("the log is gone"));
        let mut aborted = || answers.next().unwrap().into_aborted();
        let Call::Refused(damage) = aborted() else { panic!("an abort of what a hand applied") };
        assert_eq!(damage.code, ErrorCode::HeuristicCommitted);
        assert_eq!(aborted(), Call::Applied(Aborted::Fenced), "the log agrees");
        let mut applied = || answers.next().unwrap().into_applied();
        assert!(matches!(applied(), Call::Applied(_)), "the log agrees");
        let Call::Refused(fence) = applied() else { panic!("a commit of what is fenced") };
        assert_eq!(fence.code, ErrorCode::Fenced, "no hand was there");
    }
    assert_eq!(redis.control("h:").await.len(), 4);
}

/// An agent without the coordinator's token: the branch waits, and everybody who looks is told why.
#[tokio::test]
async fn a_coordinator_that_refuses_the_token_is_named_where_the_branch_is_shown() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, |options| {
        counting("refused")(options);
        options.resolve_interval_ms = 20;
    })
    .await;
    let refused = Problem::new(ErrorCode::Unauthorized, "the bearer token is missing");
    let body = serde_json::to_string(&refused).unwrap();
    let oracle = Oracle::saying(401, PROBLEM_MEDIA_TYPE, body).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    oracle.asked(2).await;
    let view = sidecar.client.branch(txid(1)).await.unwrap();
    assert_eq!(view.state, BranchState::Prepared);
    let why = "unauthorized: the bearer token is missing";
    assert_eq!(view.last_error.as_deref(), Some(why));
    let text = sidecar.admin.metrics().await.unwrap();
    let series = "assent_resolver_answers_total{participant=\"refused\",outcome=\"unauthorized\"}";
    assert!(text.contains(series), "{text}");
    let known = sidecar.client.coordinators().await.unwrap().coordinators;
    let [coordinator] = known.as_slice() else { panic!("{known:?}") };
    assert_eq!(coordinator.log_id.to_string(), LOG);
    assert_eq!((coordinator.epoch, coordinator.url.as_deref()), (3, Some(&*oracle.url)));
    assert!(coordinator.error.as_ref().unwrap().contains("unauthorized"), "{coordinator:?}");
    // The token is put right.
    oracle.says(1, "committed");
    becomes(&sidecar, 1, BranchState::Applied).await;
}

/// A mark that no coordinator will collect: it can be listed, and be dropped with who and why.
#[tokio::test]
async fn a_mark_is_listed_and_forgotten_and_a_branch_in_doubt_is_not() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    sidecar.say(vec![prepare(1, [&["SET", "k", "v"]]), abort(2)]).await;
    sidecar.say(vec![commit(1), prepare(3, [&["SET", "l", "v"]])]).await;
    let listed = async |state| {
        let list = sidecar.client.branches(state).await.unwrap();
        list.branches.iter().map(|branch| branch.txid).collect::<Vec<_>>()
    };
    assert_eq!(listed(BranchState::Applied).await, [txid(1)]);
    assert_eq!(listed(BranchState::Aborted).await, [txid(2)]);
    assert_eq!(listed(BranchState::Prepared).await, [txid(3)]);
    let order = |actor: &str| ForgetRequest { actor: actor.to_owned(), reason: "old".to_owned() };
    let code = |result: Result<(), CallError>| match result {
        Err(CallError::Rejected(problem)) => problem.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(sidecar.admin.forget(txid(1), &order(" ")).await), ErrorCode::BadRequest);
    assert_eq!(code(sidecar.admin.forget(txid(3), &order("ada")).await), ErrorCode::WrongState);
    for n in [1, 2] {
        sidecar.admin.forget(txid(n), &order("ada")).await.unwrap();
        assert_eq!(code(sidecar.admin.forget(txid(n), &order("ada")).await), ErrorCode::NotFound);
    }
    assert_eq!(listed(BranchState::Applied).await, []);
    assert_eq!(listed(BranchState::Prepared).await, [txid(3)]);
}

#[tokio::test]
async fn a_branch_in_doubt_before_a_crash_of_redis_is_resolved_after_it() {
    let mut redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    let oracle = Oracle::saying(503, "text/plain", "starting".to_owned()).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    oracle.asked(1).await;
    redis.kill();
    oracle.says(1, "committed");
    redis.start_again().await;
    becomes(&sidecar, 1, BranchState::Applied).await;
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_branch_that_is_told_in_time_is_never_asked_about() {
    let redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    // Asked, this would say the opposite.
    let oracle = Oracle::saying(200, MEDIA_TYPE, outcome_body(1, LOG, "undecided")).await;
    sidecar.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    sidecar.say_for(&oracle.url, vec![commit(1)]).await;
    oracle.says(1, "aborted");
    becomes(&sidecar, 1, BranchState::Applied).await;
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));
}

/// A message may name any address as its coordinator's. The token goes to configured ones only.
#[tokio::test]
async fn a_coordinator_that_nobody_configured_is_not_asked_and_gets_no_token() {
    let redis = Redis::start().await;
    let sink = Oracle::saying(200, MEDIA_TYPE, outcome_body(1, LOG, "committed")).await;
    let known = Oracle::saying(200, MEDIA_TYPE, outcome_body(2, LOG, "committed")).await;
    let urls = vec![known.url.clone()];
    let sidecar = Sidecar::with(&redis, |options| {
        options.resolve_interval_ms = 20;
        options.http.token = Some(Token::new("secret"));
        options.coordinators = urls;
    })
    .await;
    sidecar.say_for(&sink.url, vec![prepare(1, [&["SET", "k1", "v"]])]).await;
    sidecar.say_for(&known.url, vec![prepare(2, [&["SET", "k2", "v"]])]).await;
    becomes(&sidecar, 2, BranchState::Applied).await;
    until("the branch says why nobody is asked", async || {
        let view = sidecar.client.branch(txid(1)).await.ok()?;
        view.last_error.filter(|why| why.contains("--coordinator"))
    })
    .await;
    assert_eq!(sidecar.state(1).await, Some(BranchState::Prepared));
    assert_eq!(sink.times_asked(), 0);
}

/// Many branches of one coordinator, ended by batches: each by the word about itself.
#[tokio::test]
async fn many_branches_in_doubt_end_each_as_their_log_says_when_it_is_back() {
    const MANY: u64 = 600;
    let redis = Redis::start().await;
    let sidecar = asking(&redis).await;
    let judge = Judge::start().await;
    let keys: Vec<String> = (0..MANY).map(|n| format!("k{n}")).collect();
    let messages = (0..MANY).map(|n| prepare(n, [&["SET", &keys[n as usize], "v"]]));
    for messages in messages.collect::<Vec<_>>().chunks(200) {
        sidecar.say_for(&judge.url, messages.to_vec()).await;
    }
    // Everything has been asked about in vain, and waits.
    judge.asked(MANY as usize).await;
    assert_eq!(redis.control("s:").await.len(), MANY as usize);
    judge.is_back();
    until("nothing is in doubt", async || redis.control("s:").await.is_empty().then_some(())).await;
    // Nothing is locked: one that is younger than all gets every key for itself.
    let line: Vec<&str> =
        std::iter::once("UNLINK").chain(keys.iter().map(String::as_str)).collect();
    let told = sidecar.say(vec![prepare(MANY, [&line[..]])]).await;
    assert_eq!(told[0].vote, Some(VoteWord::Yes), "{told:?}");
    for (n, key) in keys.iter().enumerate() {
        let expected = n.is_multiple_of(2).then_some("v");
        assert_eq!(redis.get(key).await.as_deref(), expected, "branch {n}");
    }
}
