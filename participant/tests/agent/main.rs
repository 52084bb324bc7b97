//! The agent on a real Redis, through HTTP.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod harness;
mod hook;
mod hook_faults;
mod http;
mod outages;

mod resolver;
mod standby;

use assent_client::participant::{ForcedOutcome, ResolveRequest};
use assent_common::ErrorCode;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::{Answer, BranchState, Message, StateWord, TxidOnly, VoteWord};

use harness::{Redis, Sidecar, abort, batch, commit, counting, id, implicit, prepare, txid, until};

fn vote(answer: &Answer) -> VoteWord {
    answer.vote.unwrap_or_else(|| panic!("no vote: {answer:?}"))
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_a_bad_branch_harms_no_other() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let staged = sidecar.say(vec![prepare(1, [&["SET", "a", "1"]])]).await;
    assert_eq!(vote(&staged[0]), VoteWord::Yes);

    let answers = sidecar
        .say(vec![
            prepare(2, [&["EVAL", "return 1", "0"]]),
            prepare(3, [&["INCRBY", "n", "5"], &["GET", "n"]]),
            commit(1),
            prepare(4, [&["INCRBY", "n"]]),
            abort(9),
            prepare(5, [&["GET", "a"]]),
            commit(8),
        ])
        .await;
    assert_eq!(answers.len(), 7);
    assert_eq!(
        (vote(&answers[0]), answers[0].code),
        (VoteWord::No, Some(ErrorCode::UnsupportedCommand))
    );
    assert_eq!(vote(&answers[1]), VoteWord::Yes);
    assert_eq!(answers[1].replies.as_ref().unwrap().get(), r#"[5,"5"]"#);
    assert_eq!(answers[2].state, Some(StateWord::Applied));
    assert_eq!((vote(&answers[3]), answers[3].code), (VoteWord::No, Some(ErrorCode::BadArguments)));
    assert_eq!(answers[4].state, Some(StateWord::Aborted));
    // Outcomes go before prepares, so this one met no lock and reads what was committed beside it.
    assert_eq!(answers[5].replies.as_ref().unwrap().get(), r#"["1"]"#);
    assert_eq!(
        (answers[6].state, answers[6].code),
        (Some(StateWord::Refused), Some(ErrorCode::BranchLost))
    );
    assert_eq!(redis.get("a").await.as_deref(), Some("1"));
    assert_eq!(redis.get("n").await, None, "a staged write is seen by nobody");
}

#[tokio::test]
async fn an_older_prepare_waits_for_a_younger_holder_and_goes_on_when_that_commits() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, counting("waits")).await;
    sidecar.say(vec![prepare(7, [&["SET", "k", "young"]])]).await;

    let in_a_batch = sidecar.say(vec![prepare(2, [&["SET", "k", "old"]])]).await;
    assert_eq!(vote(&in_a_batch[0]), VoteWord::Wait, "nothing waits in a batch");
    assert_eq!(in_a_batch[0].holder.as_ref().unwrap().txid, txid(7));

    let (voted, committed) =
        tokio::join!(sidecar.prepare(2, 20_000, &["APPEND", "k", "+old"]), async {
            sidecar.somebody_waits().await;
            sidecar.say(vec![commit(7)]).await
        });
    assert_eq!(committed[0].state, Some(StateWord::Applied));
    match voted {
        Call::Applied(Prepared::Yes(vote)) => assert_eq!(&*vote.replies, "[9]"),
        other => panic!("{other:?}"),
    }
    let metrics = sidecar.admin.metrics().await.unwrap();
    for line in [
        r#"assent_votes_total{participant="waits",vote="yes"} 2"#,
        r#"assent_participant_requests_total{participant="waits",op="commit",result="applied"} 1"#,
        r#"assent_prepares_waiting{participant="waits"} 0"#,
        r#"assent_redis_call_duration_seconds_bucket{participant="waits",le="+Inf"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_holder_that_another_agent_ends_is_found_gone_by_the_poll() {
    let redis = Redis::start().await;
    let one = Sidecar::with(&redis, counting("polls")).await;
    let two = Sidecar::with(&redis, counting("polls")).await;
    one.say(vec![prepare(7, [&["SET", "k", "young"]])]).await;
    let (voted, _) = tokio::join!(one.prepare(2, 20_000, &["SET", "k", "old"]), async {
        one.somebody_waits().await;
        two.say(vec![abort(7)]).await
    });
    assert!(matches!(voted, Call::Applied(Prepared::Yes(_))), "{voted:?}");
}

#[tokio::test]
async fn a_prepare_whose_time_to_wait_is_over_names_the_holder() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    sidecar.say(vec![prepare(7, [&["SET", "k", "young"]])]).await;
    match sidecar.prepare(2, 60, &["SET", "k", "old"]).await {
        Call::Refused(refusal) => {
            assert_eq!(refusal.code, ErrorCode::LockConflict);
            assert_eq!(refusal.holder.unwrap().id, id(7));
        }
        other => panic!("{other:?}"),
    }
    // The younger does not wait at all.
    sidecar.say(vec![abort(7), prepare(3, [&["SET", "k", "old"]])]).await;
    let voted = sidecar.prepare(8, 20_000, &["SET", "k", "young"]).await;
    assert!(matches!(voted, Call::Refused(no) if no.code == ErrorCode::LockConflict));
}

/// Its yes may have been lost: the repeat gets it again, whoever waits meanwhile for it or for another reader.
async fn readers_are_heard_again_while_an_older_one_waits(name: &str, rules: &[&str]) {
    let redis = Redis::start().await;
    let () = redis.ask(&[&["ACL", "SETUSER", "default"], rules].concat()).await.unwrap();
    let sidecar = Sidecar::with(&redis, counting(name)).await;
    let readers = || vec![prepare(7, [&["GET", "k"]]), prepare(8, [&["GET", "k"]])];
    let first = sidecar.say(readers()).await;
    let (voted, ()) = tokio::join!(sidecar.prepare(2, 20_000, &["SET", "k", "old"]), async {
        sidecar.somebody_waits().await;
        let again = sidecar.say(readers()).await;
        for (first, again) in first.iter().zip(&again) {
            assert_eq!((vote(first), vote(again)), (VoteWord::Yes, VoteWord::Yes), "{again:?}");
            assert_eq!(first.seq, again.seq);
        }
        let waiting = sidecar.prepare(8, 20_000, &["GET", "k"]).await;
        assert!(matches!(waiting, Call::Applied(Prepared::Yes(_))), "{waiting:?}");
        let new = sidecar.say(vec![prepare(9, [&["GET", "k"]])]).await;
        assert_eq!((vote(&new[0]), new[0].code), (VoteWord::No, Some(ErrorCode::LockConflict)));
        assert_eq!(new[0].holder.as_ref().unwrap().txid, txid(2));
        assert_eq!(sidecar.state(9).await, None);
        sidecar.say(vec![commit(7), commit(8)]).await;
    });
    assert!(matches!(voted, Call::Applied(Prepared::Yes(_))), "{voted:?}");
}

#[tokio::test]
async fn an_owner_answers_a_staged_branch_again_while_an_older_one_waits() {
    readers_are_heard_again_while_an_older_one_waits("owner-repeats", &[]).await;
}

#[tokio::test]
async fn an_owner_by_scripts_answers_a_staged_branch_again_while_an_older_one_waits() {
    readers_are_heard_again_while_an_older_one_waits("scripts-repeat", &["-watch"]).await;
}

/// What the vote was given on holds for the vote, not for what the settings have become.
#[tokio::test]
async fn a_repeat_of_a_branch_is_answered_although_new_ones_would_not_be_durable() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, |options| {
        options.resolve_interval_ms = 3_600_000;
        options.store.allow_unsafe_redis = true;
    })
    .await;
    let voted = sidecar.say(vec![implicit(1)]).await;
    assert_eq!(vote(&voted[0]), VoteWord::Yes, "{voted:?}");
    redis.set_config("appendfsync", "everysec").await;
    redis.break_connections().await;
    let answers = until("Redis is back", async || {
        let answers = sidecar.say(vec![implicit(1), implicit(2)]).await;
        let is_back = vote(&answers[0]) != VoteWord::Unknown
            && answers[0].code != Some(ErrorCode::RedisUnavailable);
        is_back.then_some(answers)
    })
    .await;
    assert_eq!(vote(&answers[0]), VoteWord::Yes, "{answers:?}");
    assert_eq!(answers[0].seq, voted[0].seq);
    assert_eq!(answers[1].code, Some(ErrorCode::NotDurable), "{answers:?}");
    assert_eq!(sidecar.state(2).await, None);
}

/// Invariant 16: a hand at one branch is no word on the others, which are asked who has all votes.
#[tokio::test]
async fn who_asks_about_a_branch_that_was_applied_by_hand_is_told_so() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    assert_eq!(vote(&sidecar.say(vec![implicit(1)]).await[0]), VoteWord::Yes);
    let (actor, reason) = ("ana".to_owned(), "the other one is gone".to_owned());
    let (outcome, force, coordinator) = (ForcedOutcome::Committed, false, None);
    let request = ResolveRequest { outcome, actor, reason, force, coordinator };
    sidecar.admin.resolve(txid(1), &request).await.unwrap();
    let asked = sidecar.say(vec![Message::Settle(TxidOnly { txid: txid(1) })]).await.remove(0);
    match asked.into_settled() {
        Call::Refused(told) => {
            assert_eq!(told.code, ErrorCode::HeuristicCommitted);
            assert!(told.detail.contains("ana"), "{told:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_for_another_participant_or_of_another_log_is_refused_as_a_whole() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let mut foreign = batch("http://127.0.0.1:1", vec![prepare(1, [&["SET", "k", "v"]])]);
    foreign.participant = "bank-b".parse().unwrap();
    let refused = sidecar.client.batch(&foreign).await.unwrap_err();
    assert!(refused.0.contains("bank-b"), "{refused}");
    let mut foreign = batch("http://127.0.0.1:1", vec![prepare(1, [&["SET", "k", "v"]])]);
    foreign.coordinator.log_id = harness::OTHER_LOG.parse().unwrap();
    assert!(sidecar.client.batch(&foreign).await.is_err());
    assert_eq!(sidecar.state(1).await, None);
}

#[tokio::test]
async fn a_vote_outlives_a_crash_of_redis_and_is_applied_after_it() {
    let mut redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let voted = sidecar.say(vec![prepare(1, [&["SET", "k", "v"]])]).await;
    assert_eq!(vote(&voted[0]), VoteWord::Yes);
    redis.kill();
    let down = sidecar.say(vec![commit(1), prepare(2, [&["SET", "other", "v"]])]).await;
    assert_eq!(down[0].state, Some(StateWord::Unknown), "{down:?}");
    assert_ne!(vote(&down[1]), VoteWord::Yes);
    assert!(
        !until("readiness is known", async || sidecar.client.readyz().await.ok())
            .await
            .text
            .contains("[+] redis")
    );
    redis.start_again().await;
    let state = until("the commit gets through", async || {
        sidecar.say(vec![commit(1)]).await[0].state.filter(|state| *state != StateWord::Unknown)
    })
    .await;
    assert_eq!(state, StateWord::Applied);
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));
    assert_eq!(sidecar.state(1).await, Some(BranchState::Applied));
}

#[tokio::test]
async fn a_shutdown_answers_what_waits_and_then_ends() {
    let redis = Redis::start().await;
    let mut sidecar = Sidecar::with(&redis, counting("drains")).await;
    sidecar.say(vec![prepare(7, [&["SET", "k", "young"]])]).await;
    let (stop, serving) = sidecar.take_apart();
    let (waited, ()) = tokio::join!(sidecar.prepare(2, 20_000, &["SET", "k", "old"]), async {
        sidecar.somebody_waits().await;
        stop.send(()).unwrap();
        serving.finished().await;
    });
    match waited {
        Call::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::LockConflict),
        other => panic!("{other:?}"),
    }
    // What it voted on is still there for the next agent.
    let next = Sidecar::with(&redis, counting("drains")).await;
    assert_eq!(next.state(7).await, Some(BranchState::Prepared));
}
