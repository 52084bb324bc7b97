//! The promises of implicit transactions: the votes are the decision, and nobody aborts while they may be all yes.

use super::*;

fn begun() -> Rig {
    Rig::begun(implicit_spec())
}

/// No log on the way: the commits go out with the last vote, and the record follows.
#[test]
fn the_last_vote_commits() {
    let mut rig = begun();
    assert!(rig.feed(yes(A, FIRST)).is_empty());
    let effects = rig.feed(yes(B, FIRST));
    assert_eq!(effects, ["persist commit .0 of 2", "commit 0.0", "commit 1.0"]);
    assert!(rig.answers.is_empty(), "the answer is that it is applied");
    rig.feed(applied(A));
    let effects = rig.feed(applied(B));
    assert_eq!(effects, ["answer applied [0]+[1]", "persist end"]);
    rig.feed(Input::Persisted);
    assert!(!rig.machine.is_ended(), "its end is not on disk");
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
}

#[test]
fn decided_is_answered_at_the_last_vote() {
    let mut rig = Rig::begun(Spec { ack: Ack::Decided, ..implicit_spec() });
    rig.feed(yes(B, FIRST));
    let effects = rig.feed(yes(A, FIRST));
    assert_eq!(effects[..2], ["persist commit .0 of 2", "answer committed [0]+[1]"]);
}

/// Somebody else may have found the vote that this coordinator missed.
#[test]
fn a_vote_that_is_not_known_is_never_aborted_before_a_fence_is() {
    let mut rig = begun().after([yes(A, FIRST), no_answer(B, FIRST)]);
    rig.now = DEADLINE;
    assert_eq!(rig.feed(Input::Tick), ["settle 1.0"]);
    assert!(rig.feed(settle_unknown(B)).is_empty());
    assert_eq!(rig.machine.outcome_for(FIRST), crate::wire::outcome::BranchOutcome::Undecided);
    assert_eq!(rig.wake(), ["settle 1.0"]);
    let effects = rig.feed(settled(B, Settled::Fenced));
    assert_eq!(effects[..2], ["abort 0.0", "answer aborted participant_unreachable by 1"]);
}

#[test]
fn a_no_is_settled_before_the_others_are_aborted() {
    let mut rig = begun().after([yes(A, FIRST)]);
    assert_eq!(rig.feed(no(B, FIRST, ErrorCode::ExpectationFailed)), ["settle 1.0"]);
    assert!(rig.answers.is_empty());
    let effects = rig.feed(settled(B, Settled::Fenced));
    assert_eq!(effects[..2], ["abort 0.0", "answer aborted expectation_failed by 1"]);
}

#[test]
fn a_conflict_is_tried_again_once_its_branch_is_fenced() {
    let mut rig = begun().after([yes(A, FIRST), no(B, FIRST, ErrorCode::LockConflict)]);
    assert_eq!(rig.feed(settled(B, Settled::Fenced)), ["abort 0.0"]);
    assert_eq!(rig.wake(), ["prepare 0.1", "prepare 1.1"]);
}

/// Whatever was to be its end: all votes are there, so that anybody may have committed it.
#[test]
fn what_turns_out_to_be_staged_everywhere_is_committed_after_its_deadline() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    assert_eq!(rig.feed(Input::Tick), ["settle 1.0"]);
    assert_eq!(rig.feed(settled(B, Settled::Prepared)), ["prepare 1.0"]);
    assert_eq!(rig.feed(yes(B, FIRST)), ["persist commit .0 of 2", "commit 0.0", "commit 1.0"]);
}

#[test]
fn a_late_vote_counts() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    rig.feed(Input::Tick);
    assert_eq!(rig.feed(yes(B, FIRST))[0], "persist commit .0 of 2");
}

#[test]
fn what_others_have_applied_is_committed_without_its_vote() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    rig.feed(Input::Tick);
    rig.feed(settled(B, Settled::Applied));
    assert_eq!(rig.text(), "committing .0 [sent 0, sent 0], record under way");
    rig.feed(applied(A));
    assert_eq!(rig.feed(applied(B)), ["answer applied [0]+[]", "persist end"]);
}

/// It said that it is staged, and was applied by somebody before it could say its vote again.
#[test]
fn a_branch_that_is_applied_meanwhile_is_asked_again() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    rig.feed(Input::Tick);
    rig.feed(settled(B, Settled::Prepared));
    assert_eq!(rig.feed(no(B, FIRST, ErrorCode::WrongState)), ["settle 1.0"]);
    assert_eq!(rig.feed(settled(B, Settled::Applied))[0], "persist commit .0 of 2");
}

#[test]
fn a_participant_that_fenced_the_branch_before_its_prepare_came_says_no_for_good() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    rig.feed(Input::Tick);
    assert_eq!(rig.feed(no(B, FIRST, ErrorCode::Fenced))[0], "abort 0.0");
}

/// Somebody has found all votes; what is lost since then does not undo that.
#[test]
fn what_others_have_applied_is_committed_although_a_vote_was_lost_since() {
    for loss in [Input::DataLost(B), settled(B, Settled::Fenced)] {
        let mut rig = begun().after([no(A, FIRST, ErrorCode::Timeout)]);
        rig.feed(settled(A, Settled::Applied));
        assert_eq!(rig.feed(loss)[0], "persist commit .0 of 2");
    }
}

/// What it wrote is not known, so that it may have written (invariant 9).
#[test]
fn the_loss_of_a_branch_whose_vote_was_not_heard_is_no_end_of_it() {
    let mut rig = begun().after([yes(A, FIRST)]).at(DEADLINE);
    rig.feed(Input::Tick);
    rig.feed(settled(B, Settled::Applied));
    rig.feed(applied(A));
    assert!(rig.feed(commit_refused(B, ErrorCode::BranchLost)).is_empty());
    assert!(rig.answers.is_empty(), "{}", rig.text());
    assert_eq!(rig.wake(), ["commit 1.0"]);
}

/// The repair fences what no log has committed: a loss is a definite no.
#[test]
fn lost_data_aborts() {
    for rig in
        [begun().after([yes(A, FIRST)]), begun().after([no(A, FIRST, ErrorCode::Quarantined)])]
    {
        let mut rig = rig;
        let effects = rig.feed(Input::DataLost(B));
        assert_eq!(effects[..2], ["abort 0.0", "abort 1.0"], "{}", rig.text());
    }
}

#[test]
fn an_operator_may_give_up_a_branch_that_cannot_be_asked() {
    let mut rig = begun().after([yes(A, FIRST), no(B, FIRST, ErrorCode::Internal)]);
    let effects = rig.feed(Input::Abandon { branch: B, attempt: Attempt::FIRST });
    assert_eq!(effects[..2], ["abort 0.0", "answer aborted internal by 1"]);
}

/// While the record of it was written, the attempt was aborted and a new one has begun.
#[test]
fn what_an_operator_gave_up_of_an_attempt_says_nothing_of_the_next_one() {
    let mut rig = begun().after([yes(A, FIRST), no(B, FIRST, ErrorCode::Internal)]);
    let given_up = Input::Abandon { branch: B, attempt: SECOND };
    assert!(rig.feed(given_up).is_empty(), "{}", rig.text());
    let effects = rig.feed(Input::Abandon { branch: B, attempt: FIRST });
    assert_eq!(effects[..2], ["abort 0.0", "answer aborted internal by 1"]);
}

/// It cannot be aborted for its size: anybody may have seen the votes. What the log cannot hold is told all the same.
#[test]
fn a_decision_that_is_too_large_for_the_log_is_recorded_without_its_writes() {
    let mut rig = begun();
    let large = Vote { redo: vec![0; crate::limits::DECISION_BYTES_MAX + 1].into(), ..vote(A) };
    rig.feed(prepared(A, FIRST, Prepared::Yes(large)));
    let mut effects = Vec::new();
    rig.machine.step(START, yes(B, FIRST), &mut effects).unwrap();
    let Some(Effect::Persist(Entry::Committed { votes, .. })) = effects.first() else {
        panic!("{effects:?}")
    };
    assert!(votes.iter().all(|vote| vote.redo.is_empty() && vote.seq == 1));
    rig.feed(applied(A));
    assert_eq!(rig.feed(applied(B))[0], "answer applied [0]+[1]");
}

/// Condition (c): who settles another branch must find it applied.
#[test]
fn the_branches_keep_their_markers_until_all_have_applied() {
    let mut rig = Rig::begun(implicit_spec()).after([yes(A, FIRST), yes(B, FIRST), applied(A)]);
    assert!(rig.feed(commit_unknown(B)).is_empty(), "nothing is noted");
    rig.feed(noted(&[A]));
    assert!(!rig.machine.is_over_at(A));
}
