//! One phase: the promises, one by one.

use super::*;

fn keyed_spec() -> Spec {
    Spec { answer: AnswerDurability::BeforeAnswer, ..spec(1) }
}

fn committed() -> Input {
    prepared(A, FIRST, Prepared::Committed("[5]".into()))
}

#[test]
fn the_branch_decides_and_its_answer_is_told_at_once() {
    let mut rig = Rig::new(spec(1));
    assert_eq!(rig.feed(Input::Begin), ["prepare 0.0"]);
    assert_eq!(rig.feed(committed()), ["answer applied [5]", "persist answer .0 applied [5]"]);
    assert!(!rig.machine.is_ended(), "the done-marker is needed until the record is durable");
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
}

/// Without the record, a crash would forget that the branch may have applied, and the key could run again.
#[test]
fn an_attempt_whose_answer_must_survive_is_recorded_before_it_is_sent() {
    let mut rig = Rig::new(keyed_spec());
    assert_eq!(rig.feed(Input::Begin), ["persist begun .0"]);
    assert!(rig.feed(Input::Tick).is_empty());
    assert_eq!(rig.feed(Input::Persisted), ["prepare 0.0"]);
    rig.feed(no(A, FIRST, ErrorCode::LockConflict));
    assert_eq!(rig.wake(), ["persist begun .1"]);
    assert_eq!(rig.feed(Input::Persisted), ["prepare 0.1"]);
}

#[test]
fn a_first_definite_no_needs_no_question() {
    let mut rig = Rig::begun(spec(1));
    let effects = rig.feed(no(A, FIRST, ErrorCode::WrongType));
    let aborted = ["answer aborted wrong_type by 0", "persist answer .0 aborted wrong_type by 0"];
    assert_eq!(effects, aborted);
    let mut rig = Rig::begun(keyed_spec()).after([Input::Persisted]);
    let effects = rig.feed(no(A, FIRST, ErrorCode::WrongType));
    assert_eq!(effects, ["persist answer .0 aborted wrong_type by 0"]);
    assert_eq!(rig.machine.outcome(), None);
    assert_eq!(rig.feed(Input::Persisted), ["answer aborted wrong_type by 0"]);
}

/// The copy that was lost sight of could be applied after the no: only a fence makes the no definite.
#[test]
fn a_no_after_an_unclear_try_fences_before_it_aborts() {
    for code in [ErrorCode::WrongType, ErrorCode::LockConflict] {
        let mut rig = Rig::begun(spec(1)).after([no_answer(A, FIRST)]);
        assert_eq!(rig.wake(), ["prepare 0.0"]);
        assert_eq!(rig.feed(no(A, FIRST, code)), ["abort 0.0"]);
        assert!(rig.answers.is_empty());
        // The lost copy was applied after all.
        let mut applied = rig.clone();
        let told = ["answer applied [5]", "persist answer .0 applied [5] seq 17"];
        assert_eq!(applied.feed(already(A, FIRST)), told, "and what it wrote");
        // It was not, and never will be.
        let effects = rig.feed(fenced(A, FIRST));
        match code {
            ErrorCode::LockConflict => assert_eq!(rig.wake(), ["prepare 0.1"]),
            _ => assert_eq!(effects[0], "answer aborted wrong_type by 0"),
        }
    }
}

#[test]
fn the_deadline_asks_and_never_guesses() {
    for unclear in [None, Some(no_answer(A, FIRST))] {
        let mut rig = Rig::begun(spec(1)).after(unclear).at(DEADLINE);
        assert_eq!(rig.feed(Input::Tick), ["abort 0.0"]);
        assert_eq!(rig.machine.outcome(), None);
        for _ in 0..1_000 {
            assert!(rig.feed(abort_unknown(A, FIRST)).is_empty());
            let before = rig.now;
            assert_eq!(rig.wake(), ["abort 0.0"]);
            assert!(rig.now.since(before) <= 2_000, "the backoff is capped");
        }
        assert!(rig.answers.is_empty());
        rig.feed(fenced(A, FIRST));
        let Outcome::Aborted(failure) = &rig.answers[0] else { panic!("{:?}", rig.answers) };
        assert!(matches!(
            failure.refusal.code,
            ErrorCode::Timeout | ErrorCode::ParticipantUnreachable
        ));
    }
}

/// As of two phases: a try that is under way at the end does not hide what the one before met.
#[test]
fn the_last_reason_is_told_of_a_try_that_is_under_way() {
    let mut rig = Rig::begun(spec(1)).after([no_answer(A, FIRST), Input::RetryNow]);
    assert_eq!(rig.text(), "one phase .0 sent 1");
    assert_eq!(rig.machine.branch_status(A).last_error.as_deref(), Some("lost"));
    rig.now = DEADLINE;
    let rig = rig.after([Input::Tick, fenced(A, FIRST)]);
    let Outcome::Aborted(failure) = &rig.answers[0] else { panic!("{:?}", rig.answers) };
    assert!(failure.refusal.detail.contains("`timeout`"), "{failure}");
    assert!(failure.refusal.detail.ends_with(": lost"), "{failure}");
}

#[test]
fn an_answer_that_comes_while_it_is_asked_for_is_taken() {
    let mut rig = Rig::begun(spec(1)).at(DEADLINE).after([Input::Tick]);
    assert_eq!(rig.feed(committed()), ["answer applied [5]", "persist answer .0 applied [5]"]);
    assert!(rig.feed(already(A, FIRST)).is_empty());
    rig.feed(Input::Persisted);
    assert_eq!(rig.answers.len(), 1);
    assert!(rig.machine.is_ended());
}

#[test]
fn any_refusal_of_the_question_is_no_answer_to_it() {
    let mut rig = Rig::begun(spec(1)).at(DEADLINE).after([Input::Tick]);
    let refusal = Refusal::new(ErrorCode::Quarantined, "no");
    let refused = BranchAnswer::Aborted(Call::Refused(refusal));
    assert!(rig.feed(answered(A, FIRST, refused)).is_empty());
    assert_eq!(rig.wake(), ["abort 0.0"]);
    assert!(rig.answers.is_empty());
}

#[test]
fn answers_of_an_earlier_attempt_count_for_nothing() {
    let mut rig = Rig::begun(spec(1)).after([no(A, FIRST, ErrorCode::LockConflict)]);
    assert_eq!(rig.wake(), ["prepare 0.1"]);
    for late in [committed(), no(A, FIRST, ErrorCode::WrongType), already(A, FIRST)] {
        assert!(rig.feed(late).is_empty());
        assert_eq!(rig.text(), "one phase .1 sent 0");
    }
    let second = prepared(A, SECOND, Prepared::Committed("[5]".into()));
    assert_eq!(rig.feed(second), ["answer applied [5]", "persist answer .1 applied [5]"]);
}

#[test]
fn a_branch_that_only_staged_is_asked_again_and_in_the_end_dropped() {
    let mut rig = Rig::begun(spec(1)).after([yes(A, FIRST)]);
    assert_eq!(rig.text(), "one phase .0 resend 1 at 114");
    rig.now = DEADLINE;
    assert_eq!(rig.feed(Input::Tick), ["abort 0.0"]);
    assert_eq!(rig.feed(fenced(A, FIRST))[0], "answer aborted participant_unreachable by 0");
}
