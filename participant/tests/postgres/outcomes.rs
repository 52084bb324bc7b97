//! Messages in every order, repeated, by several agents, with restarts between all steps.

use std::sync::Arc;

use assent_common::ErrorCode;
use assent_common::wire::branch::{BranchState, StateWord, VoteWord};
use assent_common::{Epoch, TxNumber};
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{
    Agent, Server, Shared, abort, add, batch, commit, implicit, is, no, one_phase, prepare,
    replies, settle, until,
};

#[tokio::test]
async fn a_vote_stages_and_the_outcome_applies_or_drops_it_however_often_it_comes() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let voted = agent.say(vec![prepare(1, add(1, -30)), prepare(2, add(2, 30))]).await;
    assert_eq!(replies(&voted[0]), json!([{"rows": [{"balance": 70}]}]));
    assert_eq!((server.balance(1).await, server.prepared().await), (100, 2), "nobody sees it");
    let again = agent.tell(prepare(1, add(1, -30))).await;
    assert_eq!((replies(&again), again.seq), (replies(&voted[0]), voted[0].seq));
    assert_eq!(agent.state(1).await, Some(BranchState::Prepared));

    let ended = agent.say(vec![commit(1), abort(2), commit(1), abort(2)]).await;
    for (answer, state) in ended.iter().zip([StateWord::Applied, StateWord::Aborted]) {
        is(answer, state);
    }
    let later = agent.say(vec![commit(1), abort(2), settle(1), settle(2)]).await;
    for (answer, state) in later.iter().zip([
        StateWord::Applied,
        StateWord::Aborted,
        StateWord::Applied,
        StateWord::Aborted,
    ]) {
        is(answer, state);
    }
    assert_eq!((server.balance(1).await, server.balance(2).await), (70, 100));
    assert_eq!(server.prepared().await, 0);
    // What comes late finds what became of it.
    let late = agent.say(vec![prepare(1, add(1, -30)), prepare(2, add(2, 30))]).await;
    assert_eq!(no(&late[0]), ErrorCode::WrongState);
    assert_eq!(no(&late[1]), ErrorCode::Fenced);
    is(&agent.tell(abort(1)).await, StateWord::AlreadyCommitted);
    let refused = agent.tell(commit(2)).await;
    assert_eq!((refused.state, refused.code), (Some(StateWord::Refused), Some(ErrorCode::Fenced)));
    let unknown = agent.tell(commit(77)).await;
    assert_eq!(unknown.code, Some(ErrorCode::BranchLost));
    assert_eq!((server.balance(1).await, server.prepared().await), (70, 0));
}

#[tokio::test]
async fn a_prepare_behind_its_abort_is_fenced() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    is(&agent.tell(abort(1)).await, StateWord::Aborted);
    assert_eq!(no(&agent.tell(prepare(1, add(1, -1))).await), ErrorCode::Fenced);
    assert_eq!(no(&agent.tell(one_phase(1, add(1, -1))).await), ErrorCode::Fenced);
    assert_eq!((server.balance(1).await, server.prepared().await), (100, 0));
}

#[tokio::test]
async fn one_phase_applies_once_and_says_so_again() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let first = agent.tell(one_phase(1, add(1, -30))).await;
    let again = agent.tell(one_phase(1, add(1, -30))).await;
    for answer in [&first, &again] {
        assert_eq!(answer.vote, Some(VoteWord::Committed));
        assert_eq!(replies(answer), json!([{"rows": [{"balance": 70}]}]));
        assert_eq!((answer.seq, answer.incarnation), (first.seq, first.incarnation));
        assert!(answer.redo.is_some(), "the log keeps the statements");
    }
    let aborted = agent.tell(abort(1)).await;
    is(&aborted, StateWord::AlreadyCommitted);
    assert_eq!(aborted.seq, first.seq);
    assert_eq!((server.balance(1).await, server.prepared().await), (70, 0));
}

/// Promise *durable*: a restart of the server or of the agent between any two steps changes
/// nothing.
#[tokio::test]
async fn restarts_between_all_steps_change_nothing() {
    let mut server = Server::start().await;
    let mut agent = Agent::start(&server).await;
    let voted = agent.say(vec![prepare(1, add(1, -30)), prepare(2, add(2, -30))]).await;
    is(&agent.tell(abort(3)).await, StateWord::Aborted);
    for restarts_server in [true, false] {
        if restarts_server {
            server.postgres.kill9();
            server.postgres.restart().await.unwrap();
        } else {
            agent.stop().await;
            agent = Agent::start(&server).await;
        }
        let again = until("the agent is connected again", async || {
            let again = agent.tell(prepare(1, add(1, -30))).await;
            (again.vote == Some(VoteWord::Yes)).then_some(again)
        })
        .await;
        assert_eq!((again.seq, replies(&again)), (voted[0].seq, replies(&voted[0])));
        assert_eq!(no(&agent.tell(prepare(3, add(3, -1))).await), ErrorCode::Fenced);
    }
    is(&agent.tell(commit(1)).await, StateWord::Applied);
    server.postgres.kill9();
    server.postgres.restart().await.unwrap();
    until("the agent is connected again", async || {
        (agent.tell(commit(1)).await.state == Some(StateWord::Applied)).then_some(())
    })
    .await;
    is(&agent.tell(abort(2)).await, StateWord::Aborted);
    assert_eq!((server.balance(1).await, server.balance(2).await), (70, 100));
    assert_eq!(server.prepared().await, 0);
}

/// Promise *once*: whichever of two agents a message comes to, and how often, a branch is one.
#[tokio::test]
async fn two_agents_are_told_the_same_at_once() {
    let server = Server::start().await;
    let agents: [Shared; 2] =
        [Arc::new(Agent::start(&server).await), Arc::new(Agent::start(&server).await)];
    for n in 1..=20 {
        let asked = (0..6).map(|turn| {
            let agent = Arc::clone(&agents[turn % 2]);
            async move { agent.tell(prepare(n, add(1, -1))).await }
        });
        let votes = join_all(asked).await;
        let yes: Vec<_> = votes.iter().filter(|vote| vote.vote == Some(VoteWord::Yes)).collect();
        assert!(!yes.is_empty(), "{votes:?}");
        assert!(yes.iter().all(|vote| vote.seq == yes[0].seq), "{votes:?}");
        assert!(votes.iter().all(|vote| vote.vote != Some(VoteWord::No)), "{votes:?}");
        let ends = (0..4).map(|turn| {
            let agent = Arc::clone(&agents[turn % 2]);
            async move { agent.tell(if n % 2 == 0 { commit(n) } else { abort(n) }).await }
        });
        let ends = join_all(ends).await;
        let wanted = if n % 2 == 0 { StateWord::Applied } else { StateWord::Aborted };
        let is_wanted =
            |state: Option<StateWord>| state == Some(wanted) || state == Some(StateWord::Unknown);
        assert!(ends.iter().all(|end| is_wanted(end.state)), "{ends:?}");
        assert!(ends.iter().any(|end| end.state == Some(wanted)), "{ends:?}");
    }
    assert_eq!((server.balance(1).await, server.prepared().await), (90, 0));
}

/// Promise *atomic*: an abort that races with its prepare leaves nothing behind.
#[tokio::test]
async fn an_abort_that_races_with_its_prepare_wins_or_is_asked_again() {
    let server = Server::start().await;
    let agent = Arc::new(Agent::start(&server).await);
    for n in 1..=30 {
        let slow = json!([
            {"sql": "UPDATE acct SET balance = balance - 1 WHERE id = 1"},
            {"sql": "SELECT pg_sleep($1)", "params": [f64::from(n) / 1000.0]},
        ]);
        let (voting, ending) = (Arc::clone(&agent), Arc::clone(&agent));
        let (_, aborted) = tokio::join!(
            async move { voting.tell(prepare(u64::from(n as u32), slow)).await },
            async move { ending.tell(abort(u64::from(n as u32))).await },
        );
        if aborted.state != Some(StateWord::Aborted) {
            until("it is aborted", async || {
                let state = agent.tell(abort(u64::from(n as u32))).await.state;
                (state == Some(StateWord::Aborted)).then_some(())
            })
            .await;
        }
    }
    assert_eq!((server.balance(1).await, server.prepared().await), (100, 0));
}

/// Invariant 10: what the mark has passed leaves nothing, and does not come back.
#[tokio::test]
async fn below_the_mark_nothing_is_kept_and_nothing_begins() {
    let server = Server::start().await;
    let agent = Agent::with(&server, |options| {
        options.resolve_interval_ms = 3_600_000;
        options.sweep_interval_ms = 10;
    })
    .await;
    agent.say(vec![prepare(1, add(1, -30)), prepare(2, add(2, 1)), abort(3)]).await;
    agent.say(vec![commit(1), abort(2)]).await;
    let raised = assent_common::wire::branch::Batch {
        low_water: TxNumber { epoch: Epoch(3), n: 4 },
        ..batch(vec![abort(9)])
    };
    agent.say_all(raised).await;
    until("all is swept", async || {
        let left = server.number("SELECT count(*) FROM assent.votes").await;
        let markers = server.number("SELECT count(*) FROM assent.markers").await;
        // The fence of 9 stays.
        ((left, markers) == (0, 1)).then_some(())
    })
    .await;
    for n in 1..=3 {
        assert_eq!(no(&agent.tell(prepare(n, add(1, -1))).await), ErrorCode::BelowLowWater);
        assert_eq!(no(&agent.tell(one_phase(n, add(1, -1))).await), ErrorCode::BelowLowWater);
        assert_eq!(agent.tell(commit(n)).await.code, Some(ErrorCode::BelowLowWater));
    }
    assert_eq!((server.balance(1).await, server.prepared().await), (70, 0));
}

#[tokio::test]
async fn a_branch_of_an_implicit_transaction_says_what_it_has() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    agent.tell(implicit(1, add(1, -1))).await;
    is(&agent.tell(settle(1)).await, StateWord::Prepared);
    is(&agent.tell(settle(2)).await, StateWord::Aborted);
    assert_eq!(no(&agent.tell(implicit(2, add(1, -1))).await), ErrorCode::Fenced);
    is(&agent.tell(commit(1)).await, StateWord::Applied);
    is(&agent.tell(settle(1)).await, StateWord::Applied);
    assert_eq!((server.balance(1).await, server.prepared().await), (99, 0));
}

/// Promise: the messages of one branch are done in their order, in one batch too: an abort behind a
/// commit finds it applied.
#[tokio::test]
async fn the_outcomes_of_a_branch_are_done_in_their_order() {
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    for n in 1..=20 {
        agent.tell(prepare(n, add(1, -1))).await;
        let answers = agent.say(vec![commit(n), abort(n)]).await;
        let states: Vec<_> = answers.iter().map(|answer| answer.state).collect();
        let right = [StateWord::Applied, StateWord::AlreadyCommitted].map(Some);
        assert_eq!(states, right, "{answers:?}");
    }
}
