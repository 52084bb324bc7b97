//! Branches that an operator ended by hand, against what the log says.

use super::two_phase::committing;
use super::*;

fn aborted_by_hand(branch: Branch) -> Input {
    commit_refused(branch, ErrorCode::HeuristicAborted)
}

fn committed_by_hand(branch: Branch, attempt: Attempt) -> Input {
    abort_refused(branch, attempt, ErrorCode::HeuristicCommitted)
}

fn by_hand_settled(branch: Branch) -> Input {
    let call = Call::Refused(Refusal::new(ErrorCode::HeuristicCommitted, "by ana"));
    answered(branch, FIRST, BranchAnswer::Settled(call))
}

/// The commit cannot be delivered any more: the transaction ends, and nobody says that it is applied everywhere.
#[test]
fn a_branch_that_was_aborted_by_hand_ends_the_transaction_and_is_never_called_applied() {
    let mut rig = committing(spec(2)).after([applied(B)]);
    let effects = rig.feed(aborted_by_hand(A));
    assert_eq!(
        effects,
        ["note 0 aborted by hand", "answer committed [0]+[1]", "persist end"],
        "the note goes before the end, so that no log has the end without it"
    );
    let status = rig.machine.branch_status(A);
    assert_eq!(status.progress, BranchProgress::HeuristicAborted);
    assert!(status.last_error.is_some(), "who and why is shown");
    assert_eq!(rig.machine.branch_status(B).progress, BranchProgress::Applied);
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
}

#[test]
fn a_branch_that_was_committed_by_hand_ends_the_abort() {
    let no = no(B, FIRST, ErrorCode::WrongType);
    let mut rig = Rig::begun(spec(2)).after([no, Input::Persisted]);
    assert_eq!(rig.feed(committed_by_hand(A, FIRST)), ["note 0 committed by hand"]);
    assert!(rig.machine.is_ended());
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::HeuristicCommitted);
}

/// A hand at an attempt that was given up says nothing of the branch of the next one.
#[test]
fn what_was_committed_by_hand_of_an_earlier_attempt_does_not_end_the_next_one() {
    let rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::LockConflict), Input::RetryNow]);
    let mut rig = rig.after([committed_by_hand(A, FIRST), yes(A, SECOND), yes(B, SECOND)]);
    rig.feed(noted_by_hand(A, Heuristic::Committed));
    assert_eq!(rig.feed(Input::Persisted), ["commit 0.1", "commit 1.1"]);
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::Committing);
    rig.feed(applied(A));
    assert_eq!(rig.feed(applied(B)), ["answer applied [0]+[1]", "persist end"]);
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::HeuristicCommitted);
}

/// Of an implicit transaction whose other branch never voted: a hand is no sign that somebody has
/// found all votes. What it had committed would be told for ever to the branch that is fenced.
#[test]
fn an_implicit_branch_that_was_committed_by_hand_is_damage_where_another_is_fenced() {
    for answers in [
        [by_hand_settled(A), settled(B, Settled::Fenced)],
        [settled(B, Settled::Fenced), by_hand_settled(A)],
    ] {
        let unheard = [no_answer(A, FIRST), no_answer(B, FIRST)];
        let mut rig = Rig::begun(implicit_spec()).after(unheard).at(DEADLINE);
        assert_eq!(rig.feed(Input::Tick), ["settle 0.0", "settle 1.0"]);
        let effects: Vec<_> = answers.into_iter().flat_map(|answer| rig.feed(answer)).collect();
        assert_eq!(effects[..2], ["abort 0.0", "answer aborted participant_unreachable by 0"]);
        assert_eq!(rig.feed(committed_by_hand(A, FIRST)), ["note 0 committed by hand"]);
        rig.feed(Input::Persisted);
        assert!(rig.machine.is_ended(), "{}", rig.text());
        assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::HeuristicCommitted);
    }
}

/// The participants had found the votes of all and one had applied it, before a hand aborted
/// another. Nothing takes that back: the abort would be told for ever.
#[test]
fn an_implicit_branch_that_was_applied_by_the_votes_is_damage_where_a_hand_aborted_another() {
    let mut rig = Rig::begun(implicit_spec()).after([no_answer(A, FIRST), no_answer(B, FIRST)]);
    rig = rig.at(DEADLINE).after([Input::Tick, settled(B, Settled::Fenced)]);
    let effects = rig.feed(already(A, FIRST));
    assert_eq!(effects, ["note 0 committed by hand"]);
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended(), "{}", rig.text());
    let status = rig.machine.branch_status(A);
    assert_eq!(status.progress, BranchProgress::HeuristicCommitted);
    assert!(status.last_error.unwrap().contains("the votes of all"));
}

/// All others voted as well: the hand and the votes agree.
#[test]
fn an_implicit_branch_that_was_committed_by_hand_counts_as_its_vote() {
    let mut rig = Rig::begun(implicit_spec()).after([yes(B, FIRST)]).at(DEADLINE);
    assert_eq!(rig.feed(Input::Tick), ["settle 0.0"]);
    let effects = rig.feed(by_hand_settled(A));
    assert_eq!(effects, ["persist commit .0 of 2", "commit 0.0", "commit 1.0"]);
    rig.feed(applied(A));
    assert_eq!(rig.feed(applied(B)), ["answer applied []+[1]", "persist end"]);
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::Applied);
}

/// A fence alone tells of no hand: the branch is told on, and shows an alarm.
#[test]
fn a_plain_fence_is_no_hand() {
    let mut rig = committing(spec(2)).after([applied(B)]);
    let effects = rig.feed(commit_refused(A, ErrorCode::Fenced));
    assert_eq!(effects, ["note 1 acknowledged"]);
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::Committing);
    assert_eq!(rig.wake(), ["commit 0.0"]);
}

#[test]
fn a_reader_that_was_dropped_by_hand_has_lost_nothing() {
    let reads = Vote { redo: [].into(), ..vote(A) };
    let votes = [prepared(A, FIRST, Prepared::Yes(reads)), yes(B, FIRST), Input::Persisted];
    let mut rig = Rig::begun(spec(2)).after(votes).after([applied(B)]);
    assert_eq!(rig.feed(aborted_by_hand(A)), ["answer applied [0]+[1]", "persist end"]);
}

/// While another branch is away, the mark of the participant where a hand ended the branch goes on once the log has that.
#[test]
fn the_mark_passes_a_branch_ended_by_hand_once_that_is_recorded() {
    let mut rig = committing(spec(2)).after([commit_unknown(B)]);
    assert_eq!(rig.feed(aborted_by_hand(A)), ["note 0 aborted by hand"]);
    assert!(!rig.machine.is_over_at(A), "a crash now would tell it again");
    rig.feed(noted_by_hand(A, Heuristic::Aborted));
    assert!(rig.machine.is_over_at(A) && !rig.machine.is_over_at(B));
    assert!(rig.feed(noted_by_hand(A, Heuristic::Aborted)).is_empty());
}
