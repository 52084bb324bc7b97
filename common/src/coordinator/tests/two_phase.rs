//! Two phases: the promises, one by one.

use super::*;
use crate::wire::transaction::{BranchProgress, TransactionState};

fn decided_spec() -> Spec {
    Spec { ack: Ack::Decided, ..spec(2) }
}

fn keyed_spec(branches: u16) -> Spec {
    Spec { answer: AnswerDurability::BeforeAnswer, ..spec(branches) }
}

/// All votes are yes, and the decision is durable.
pub(super) fn committing(spec: Spec) -> Rig {
    Rig::begun(spec).after([yes(A, FIRST), yes(B, FIRST), Input::Persisted])
}

#[test]
fn applied_is_answered_when_every_branch_has_applied() {
    let mut rig = Rig::new(spec(2));
    assert_eq!(rig.feed(Input::Begin), ["prepare 0.0", "prepare 1.0"]);
    assert!(rig.feed(yes(B, FIRST)).is_empty());
    assert_eq!(rig.feed(yes(A, FIRST)), ["persist commit .0 of 2"]);
    assert_eq!(rig.feed(Input::Persisted), ["commit 0.0", "commit 1.0"]);
    assert!(rig.feed(applied(A)).is_empty());
    assert_eq!(rig.feed(applied(B)), ["answer applied [0]+[1]", "persist end"]);
    assert!(rig.feed(Input::Persisted).is_empty());
    assert!(rig.machine.is_ended());
    assert_eq!(rig.machine.wake_at(), None);
}

/// Promise: a repeat is told no less than the first copy: what is applied everywhere has ended,
/// also while the record of that is on its way to disk.
#[test]
fn what_was_answered_as_ended_is_shown_as_ended() {
    let mut rig = committing(spec(2)).after([applied(A)]);
    assert_eq!(rig.machine.state_word(), TransactionState::Committing);
    assert!(!rig.machine.is_over());
    rig.feed(applied(B));
    assert_eq!(rig.machine.state_word(), TransactionState::Ended);
    assert!(rig.machine.is_over());
    let mut abandoned = committing(spec(2)).after([applied(A)]);
    abandoned.feed(Input::Abandon { branch: B, attempt: FIRST });
    assert_eq!(abandoned.machine.state_word(), TransactionState::Committing, "as it is answered");
}

#[test]
fn decided_is_answered_when_the_decision_is_durable_and_once() {
    let mut rig = Rig::begun(decided_spec()).after([yes(A, FIRST), yes(B, FIRST)]);
    assert!(rig.answers.is_empty());
    let effects = rig.feed(Input::Persisted);
    assert_eq!(effects, ["answer committed [0]+[1]", "commit 0.0", "commit 1.0"]);
    assert!(rig.feed(applied(A)).is_empty());
    assert_eq!(rig.feed(applied(B)), ["persist end"]);
}

/// Invariant 4: whatever comes while the decision is on its way to disk, nobody hears of it.
#[test]
fn nothing_is_sent_or_answered_before_the_decision_is_durable() {
    for spec in [spec(2), decided_spec(), keyed_spec(2)] {
        let mut rig = Rig::begun(spec).after([yes(A, FIRST), yes(B, FIRST)]).at(Millis(9_999));
        let inputs = [
            Input::Tick,
            Input::RetryNow,
            applied(A),
            yes(A, FIRST),
            no(B, FIRST, ErrorCode::Fenced),
            no_answer(B, FIRST),
            fenced(A, FIRST),
        ];
        for input in inputs {
            assert!(rig.feed(input.clone()).is_empty(), "{input:?}");
            assert_eq!(rig.text(), "deciding .0");
            assert_eq!(rig.machine.outcome(), None);
        }
    }
}

/// Invariant 5: a vote counts once, for its branch and its attempt only.
#[test]
fn a_commit_needs_a_yes_of_every_branch_to_the_same_attempt() {
    let mut rig = Rig::begun(spec(3));
    let persists = |effects: Vec<String>| effects.iter().any(|text| text.starts_with("persist"));
    for input in [yes(A, FIRST), yes(A, FIRST), yes(Branch(9), FIRST), yes(B, FIRST)] {
        assert!(!persists(rig.feed(input)));
    }
    rig.feed(no(Branch(2), FIRST, ErrorCode::LockConflict));
    assert_eq!(rig.wake(), ["prepare 0.1", "prepare 1.1", "prepare 2.1"]);
    for input in [yes(A, FIRST), yes(B, FIRST), yes(Branch(2), FIRST), yes(Branch(2), SECOND)] {
        assert!(!persists(rig.feed(input)));
    }
    let asked = "preparing .1 [asked 0, asked 0, yes] after lock_conflict";
    assert_eq!(rig.text(), format!("{asked}; aborts 0.0 sent 0, 1.0 sent 0"));
    rig.feed(yes(B, SECOND));
    assert_eq!(rig.feed(yes(A, SECOND)), ["persist commit .1 of 3"]);
}

/// A definite no leaves nothing staged, so that only the others are told; after an unclear try it is not definite.
#[test]
fn a_no_aborts_the_other_branches_and_itself_only_if_a_try_is_still_under_way() {
    let refused = no(A, FIRST, ErrorCode::WrongType);
    let mut rig = Rig::begun(spec(3)).after([yes(B, FIRST)]);
    let effects = rig.feed(refused.clone());
    let aborted = ["answer aborted wrong_type by 0", "persist answer .0 aborted wrong_type by 0"];
    assert_eq!(effects[..2], ["abort 1.0", "abort 2.0"]);
    assert_eq!(effects[2..], aborted);

    for unclear in [no_answer(A, FIRST), wait(A, FIRST)] {
        let mut rig = Rig::begun(spec(3)).after([unclear, Input::RetryNow]);
        let effects = rig.feed(refused.clone());
        assert_eq!(effects[..3], ["abort 0.0", "abort 1.0", "abort 2.0"]);
        assert_eq!(effects[3..], aborted);
    }
}

#[test]
fn an_unknown_vote_is_asked_for_again_until_the_deadline() {
    let mut rig = Rig::begun(spec(2)).after([yes(B, FIRST)]);
    let mut tries = 0;
    loop {
        rig.feed(no_answer(A, FIRST));
        let before = rig.now;
        let effects = rig.wake();
        assert!(rig.now.since(before) <= 500, "the backoff is capped");
        if effects != ["prepare 0.0"] {
            assert_eq!(rig.now, DEADLINE);
            assert_eq!(effects[..2], ["abort 0.0", "abort 1.0"]);
            assert_eq!(effects[2], "answer aborted participant_unreachable by 0");
            break;
        }
        tries += 1;
    }
    assert!(tries >= 3, "{tries} tries");
    let Outcome::Aborted(failure) = &rig.answers[0] else { panic!("{:?}", rig.answers) };
    assert!(failure.refusal.detail.ends_with("lost"), "the last problem is named: {failure}");
}

#[test]
fn the_deadline_aborts_every_branch_and_names_the_one_that_is_missing() {
    let mut rig = Rig::begun(spec(2)).after([yes(A, FIRST)]);
    assert_eq!(rig.machine.wake_at(), Some(DEADLINE));
    let effects = rig.wake();
    assert_eq!(effects[..3], ["abort 0.0", "abort 1.0", "answer aborted timeout by 1"]);
    // Its vote comes after all: the abort that follows it takes care.
    assert!(rig.feed(yes(B, FIRST)).is_empty());
    let rig = rig.after([Input::Persisted, fenced(B, FIRST), fenced(A, FIRST)]);
    assert!(rig.machine.is_ended());
}

/// What a branch has said is shown while it is asked again, and told when its time has run out,
/// also of a try that is under way: nobody is to look for it in the participant's log.
#[test]
fn the_last_reason_of_each_branch_without_a_vote_is_told() {
    let mut rig = Rig::begun(spec(3)).after([no_answer(A, FIRST), yes(B, FIRST)]);
    rig.feed(Input::RetryNow);
    assert_eq!(rig.text(), "preparing .0 [asked 1, yes, asked 0]");
    assert_eq!(rig.machine.branch_status(A).last_error.as_deref(), Some("lost"));
    let mut rig = rig.at(DEADLINE);
    rig.feed(Input::Tick);
    let refusal = refusal(&rig);
    assert_eq!(
        refusal.detail,
        "the transaction's `timeout` passed before it voted: lost; \
         nor did branch 2: it has not answered"
    );
}

/// However many branches there are and however much they say: the detail has its limit.
#[test]
fn the_reasons_of_many_branches_are_cut() {
    let long = BranchAnswer::Prepared(Call::Unknown("x".repeat(4_000)));
    let say = |branch| answered(branch, FIRST, long.clone());
    let mut rig = Rig::begun(spec(9)).after((0..9).map(Branch).map(say)).at(DEADLINE);
    rig.feed(Input::Tick);
    let Refusal { detail, .. } = refusal(&rig);
    assert!(detail.len() <= crate::limits::DETAIL_BYTES_MAX, "{} bytes", detail.len());
    assert!(detail.ends_with("; nor did 6 more"), "{detail}");
}

/// Whoever waited for a younger holder until its time was over has met no silence.
#[test]
fn waiting_for_a_holder_until_the_deadline_names_it() {
    for branches in [1, 2] {
        for again in [None, Some(wait(A, FIRST))] {
            let mut rig = Rig::begun(spec(branches)).after([wait(A, FIRST)]).after(again);
            assert!(rig.machine.branch_status(A).last_error.is_some());
            rig.now = DEADLINE;
            rig.feed(Input::Tick);
            rig.feed(fenced(A, FIRST));
            let refusal = refusal(&rig);
            assert_eq!(refusal.code, ErrorCode::Timeout, "{refusal:?}");
            assert!(refusal.detail.contains("`timeout`"), "{refusal:?}");
            let holder = "key k is locked by transaction 0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e";
            assert!(refusal.detail.contains(holder), "{refusal:?}");
        }
    }
}

fn refusal(rig: &Rig) -> Refusal {
    let Some(Outcome::Aborted(failure)) = rig.answers.first() else { panic!("{:?}", rig.answers) };
    failure.refusal.clone()
}

#[test]
fn a_deadline_that_passes_after_the_votes_changes_nothing() {
    let mut rig = committing(spec(2)).at(Millis(9_999));
    assert!(rig.feed(Input::Tick).is_empty());
    let rig = rig.after([applied(A), applied(B)]);
    assert_eq!(rig.answers.iter().map(outcome_text).collect::<Vec<_>>(), ["applied [0]+[1]"]);
}

#[test]
fn an_older_transaction_asks_once_by_the_waiting_call_and_then_by_the_schedule() {
    let mut rig = Rig::begun(spec(2)).after([yes(B, FIRST)]);
    assert_eq!(rig.feed(wait(A, FIRST)), ["prepare waiting 0.0"]);
    assert!(rig.feed(wait(A, FIRST)).is_empty());
    assert_eq!(rig.wake(), ["prepare 0.0"]);
    assert!(rig.feed(wait(A, FIRST)).is_empty());
    assert_eq!(rig.wake(), ["prepare 0.0"]);
    assert_eq!(rig.feed(yes(A, FIRST)), ["persist commit .0 of 2"]);
}

/// Who gives up holds nothing for longer than it takes to say so, in one phase and in two.
#[test]
fn a_transaction_that_gives_up_is_aborted_where_another_one_would_wait() {
    let hurried = |branches| Spec { contention: Contention::GivesUp, ..spec(branches) };
    for met in [wait(A, FIRST), no(A, FIRST, ErrorCode::LockConflict)] {
        let mut rig = Rig::begun(hurried(2)).after([yes(B, FIRST)]);
        let effects = rig.feed(met.clone());
        assert_eq!(effects[0], "abort 1.0", "{met:?}");
        assert_eq!(refusal(&rig).code, ErrorCode::LockConflict, "{met:?}");
        let mut rig = Rig::begun(hurried(1));
        rig.feed(met.clone());
        assert_eq!(refusal(&rig).code, ErrorCode::LockConflict, "{met:?}");
    }
}

/// Invariant 15: the next attempt begins only after a definite abort, under a txid of its own; the old one is aborted
/// everywhere, however long that takes, and its answers count for nothing.
#[test]
fn a_conflict_is_tried_again_as_a_new_attempt_while_the_old_one_is_aborted() {
    let mut rig = Rig::begun(spec(2)).after([yes(A, FIRST)]);
    assert_eq!(rig.feed(no(B, FIRST, ErrorCode::LockConflict)), ["abort 0.0"]);
    assert!(rig.machine.last_failure().is_some());
    assert_eq!(rig.wake(), ["prepare 0.1", "prepare 1.1"]);
    for late in [
        yes(A, FIRST),
        yes(B, FIRST),
        no(A, FIRST, ErrorCode::WrongType),
        no_answer(B, FIRST),
        fenced(A, SECOND),
    ] {
        assert!(rig.feed(late.clone()).is_empty(), "{late:?}");
        assert_eq!(
            rig.text(),
            "preparing .1 [asked 0, asked 0] after lock_conflict; aborts 0.0 sent 0"
        );
    }
    rig.feed(abort_unknown(A, FIRST));
    let rig_text = rig.clone().after([yes(A, SECOND), yes(B, SECOND), Input::Persisted]).text();
    assert!(rig_text.starts_with("committing .1 [sent 0, sent 0]; aborts 0.0 due 1"), "{rig_text}");
    let mut rig = rig.after([yes(A, SECOND), yes(B, SECOND), Input::Persisted]);
    rig.feed(applied(A));
    rig.feed(applied(B));
    rig.feed(Input::Persisted);
    assert!(!rig.machine.is_ended(), "the old attempt's abort is not acknowledged");
    assert_eq!(rig.wake(), ["abort 0.0"]);
    rig.feed(fenced(A, FIRST));
    assert!(rig.machine.is_ended());
    assert_eq!(rig.answers.len(), 1);
}

#[test]
fn conflicts_are_tried_again_with_growing_pauses_until_the_deadline() {
    let mut rig = Rig::begun(spec(2));
    let mut attempt = FIRST;
    let mut longest_ms = 0;
    while rig.answers.is_empty() {
        rig.feed(no(A, attempt, ErrorCode::LockConflict));
        rig.feed(fenced(B, attempt));
        if let State::Pausing { next, resume_at, .. } = rig.machine.state() {
            assert_eq!(*next, attempt.next());
            assert!(*resume_at < DEADLINE);
            longest_ms = longest_ms.max(resume_at.since(rig.now));
            attempt = *next;
            rig.wake();
        }
    }
    assert!((50..=100).contains(&longest_ms), "{longest_ms} ms");
    assert!((8..100).contains(&attempt.0), "{} attempts", attempt.0);
    assert_eq!(outcome_text(&rig.answers[0]), "aborted lock_conflict by 0");
}

/// Invariant 11.
#[test]
fn an_outcome_is_delivered_until_it_is_acknowledged_with_capped_backoff() {
    for problem in [commit_unknown(A), commit_refused(A, ErrorCode::RedisUnavailable)] {
        let mut rig = committing(spec(2)).after([applied(B)]);
        let mut longest_ms = 0;
        for tries in 0..1_000 {
            let noted = ["note 1 acknowledged".to_owned()];
            let effects = rig.feed(problem.clone());
            assert_eq!(effects, if tries == 0 { &noted[..] } else { &[] });
            let before = rig.now;
            assert_eq!(rig.wake(), ["commit 0.0"]);
            longest_ms = longest_ms.max(rig.now.since(before));
        }
        assert!((1_000..=2_000).contains(&longest_ms), "{longest_ms} ms");
        assert_eq!(rig.feed(applied(A))[0], "answer applied [0]+[1]");
    }
    let mut rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::WrongType), Input::Persisted]);
    for _ in 0..1_000 {
        rig.feed(abort_unknown(A, FIRST));
        assert_eq!(rig.wake(), ["abort 0.0"]);
    }
    rig.feed(fenced(A, FIRST));
    assert!(rig.machine.is_ended());
}

#[test]
fn an_acknowledgement_counts_even_if_it_comes_late_or_twice() {
    let mut rig = committing(spec(2)).after([commit_unknown(A)]);
    assert!(rig.feed(applied(A)).is_empty());
    assert!(rig.feed(commit_unknown(A)).is_empty());
    assert!(rig.feed(applied(A)).is_empty());
    assert_eq!(rig.text(), "committing .0 [done, sent 0]");
}

/// Invariant 9: a lost branch is never taken for applied; only one that had nothing to write has nothing to lose.
#[test]
fn a_lost_branch_holds_the_transaction_open_unless_it_only_read() {
    let lost = commit_refused(A, ErrorCode::BranchLost);
    let mut rig = committing(spec(2)).after([applied(B), lost.clone()]);
    assert_eq!(rig.text(), "committing .0 [due 1 at 147, done]");
    assert_eq!(rig.wake(), ["commit 0.0"]);
    assert_eq!(rig.text(), "committing .0 [sent 1, done]");
    let status = rig.machine.branch_status(A);
    assert_eq!(status.progress, BranchProgress::Lost, "also while it is told again");
    assert!(status.last_error.is_some());

    let reader = prepared(A, FIRST, Prepared::Yes(Vote { redo: [][..].into(), ..vote(A) }));
    let votes = [reader, yes(B, FIRST), Input::Persisted];
    let mut rig = Rig::begun(spec(2)).after(votes).after([applied(B)]);
    assert_eq!(rig.feed(lost), ["answer applied [0]+[1]", "persist end"]);
}

#[test]
fn an_abort_that_finds_the_branch_applied_is_never_taken_for_done() {
    let mut rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::WrongType), Input::Persisted]);
    rig.feed(already(A, FIRST));
    assert!(!rig.machine.is_ended());
    let status = rig.machine.branch_status(A);
    assert!(status.last_error.unwrap().contains("never committed"));
    assert_eq!(rig.wake(), ["abort 0.0"]);
}

/// An operator resolved the branch while its vote was on the way: only the abort that fails tells everybody.
#[test]
fn a_branch_that_was_applied_by_hand_is_told_the_abort_and_keeps_the_transaction_open() {
    let mut rig = Rig::begun(spec(2));
    let effects = rig.feed(no(A, FIRST, ErrorCode::WrongState));
    assert_eq!(effects[..2], ["abort 0.0", "abort 1.0"]);
    let rig = rig.after([Input::Persisted, fenced(B, FIRST), already(A, FIRST)]);
    assert!(rig.machine.branch_status(A).last_error.is_some());
    assert!(!rig.machine.is_ended());
}

#[test]
fn a_participant_that_commits_when_asked_to_prepare_aborts_the_rest_loudly() {
    let mut rig = Rig::begun(spec(2));
    let effects = rig.feed(prepared(A, FIRST, Prepared::Committed("[5]".into())));
    assert_eq!(effects[..3], ["abort 0.0", "abort 1.0", "answer aborted internal by 0"]);
}

/// One key is one outcome: who was told *aborted* must be told the same after a crash.
#[test]
fn an_answer_that_must_survive_is_told_and_shown_only_when_it_is_durable() {
    let mut rig = Rig::begun(keyed_spec(2));
    let effects = rig.feed(no(A, FIRST, ErrorCode::WrongType));
    assert_eq!(effects, ["abort 1.0", "persist answer .0 aborted wrong_type by 0"]);
    assert_eq!(rig.machine.outcome(), None, "it is not to be read before it is durable either");
    assert_eq!(rig.feed(Input::Persisted), ["answer aborted wrong_type by 0"]);
    assert!(rig.machine.outcome().is_some());
    rig.feed(fenced(B, FIRST));
    assert!(rig.machine.is_ended());
}

#[test]
fn retry_now_sends_everything_that_waits_for_its_time() {
    let mut rig = Rig::begun(spec(2)).after([no_answer(A, FIRST)]);
    assert_eq!(rig.feed(Input::RetryNow), ["prepare 0.0"]);
    let mut rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::LockConflict)]);
    rig.feed(abort_unknown(A, FIRST));
    assert_eq!(rig.feed(Input::RetryNow), ["abort 0.0", "prepare 0.1", "prepare 1.1"]);
    let mut rig = committing(spec(2)).after([commit_unknown(A), commit_unknown(B)]);
    assert_eq!(rig.feed(Input::RetryNow), ["commit 0.0", "commit 1.0"]);
    assert!(rig.feed(Input::RetryNow).is_empty(), "what is under way is not sent twice");
}

/// Invariant 16: giving up a branch ends the transaction, but never makes it *applied*.
#[test]
fn an_abandoned_branch_is_over_but_not_applied() {
    let mut rig = committing(spec(2)).after([applied(B), commit_unknown(A)]);
    let effects = rig.feed(Input::Abandon { branch: A, attempt: Attempt::FIRST });
    assert_eq!(effects, ["answer committed [0]+[1]", "persist end"]);
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
    assert!(rig.feed(applied(A)).is_empty());
}

#[test]
fn abandoning_a_branch_gives_up_its_earlier_attempts_too() {
    let rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::LockConflict), Input::RetryNow]);
    let votes = [yes(A, SECOND), yes(B, SECOND), Input::Persisted, applied(B)];
    let rig =
        rig.after(votes).after([Input::Abandon { branch: A, attempt: SECOND }, Input::Persisted]);
    assert!(rig.machine.is_ended(), "{}", rig.text());
}

#[test]
fn no_timer_abandons_a_branch() {
    let mut rig = committing(spec(2)).after([applied(B)]);
    for _ in 0..40 {
        rig.feed(commit_unknown(A));
        rig.now = Millis(rig.now.0 * 2);
        assert_eq!(rig.feed(Input::Tick), ["commit 0.0"]);
    }
    assert!(matches!(rig.machine.state(), State::Committing(_)));
}

/// Somebody's turn may come late: whoever hurries it does not know its deadline.
#[test]
fn no_attempt_begins_behind_the_deadline_however_it_is_hurried() {
    let mut rig = Rig::begun(spec(2)).after([no(A, FIRST, ErrorCode::LockConflict)]);
    rig.now = DEADLINE;
    let effects = rig.feed(Input::RetryNow);
    assert!(effects.iter().all(|effect| !effect.starts_with("prepare")), "{effects:?}");
    assert_eq!(outcome_text(&rig.answers[0]), "aborted lock_conflict by 0");
}

/// An attempt that was under way when the time ran out has no better word than the conflict that took the time.
#[test]
fn a_conflict_that_runs_the_time_out_ends_as_that_conflict() {
    let mut rig = Rig::begun(spec(2)).after([no(B, FIRST, ErrorCode::LockConflict)]);
    rig.wake();
    assert_eq!(rig.machine.attempt(), Attempt(1));
    rig.now = rig.machine.spec().deadline;
    rig.feed(Input::Tick);
    let Some(Outcome::Aborted(failure)) = rig.answers.last() else { panic!("{:?}", rig.answers) };
    assert_eq!(failure.refusal.code, ErrorCode::LockConflict);
}

/// A decision is one record of the log; one that no segment holds could never be made durable.
#[test]
fn votes_too_large_for_one_decision_abort_the_transaction() {
    let mut rig = Rig::begun(spec(2)).after([yes(A, FIRST)]);
    let redo = vec![0; crate::limits::DECISION_BYTES_MAX].into();
    let large = Vote { redo, ..vote(B) };
    rig.feed(prepared(B, FIRST, Prepared::Yes(large)));
    let Some(Outcome::Aborted(failure)) = rig.answers.last() else { panic!("{:?}", rig.answers) };
    assert_eq!(failure.refusal.code, ErrorCode::TooLarge);
}

/// Invariant 10: while one participant is away, the others need not keep what they know of the transaction for ever; but
/// not before the log has it that they are not told again.
#[test]
fn who_has_acknowledged_is_written_down_while_another_does_not() {
    let mut rig = Rig::begun(spec(3)).after((0..3).map(|place| yes(Branch(place), FIRST)));
    rig.feed(Input::Persisted);
    assert!(rig.feed(applied(A)).is_empty(), "the others may answer at once");
    assert_eq!(rig.feed(commit_unknown(B)), ["note 0 acknowledged"]);
    assert_eq!(rig.wake(), ["commit 1.0"]);
    assert!(rig.feed(commit_unknown(B)).is_empty(), "that is written down");
    let over = |rig: &Rig| (0..3).map(|place| rig.machine.is_over_at(Branch(place))).collect();
    let of = |rig: &Rig| -> Vec<bool> { over(rig) };
    assert_eq!(of(&rig), [false; 3], "a restart would tell it again");
    rig.feed(noted(&[A]));
    assert_eq!(of(&rig), [true, false, false]);
    assert_eq!(rig.feed(applied(Branch(2))), ["note 2 acknowledged"]);
    rig.feed(noted(&[Branch(2)]));
    assert_eq!(of(&rig), [true, false, true]);
    assert_eq!(rig.feed(applied(B)), ["answer applied [0]+[1]+[2]", "persist end"]);
    assert_eq!(of(&rig), [true, false, true], "the end may be lost, and then it is told again");
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
}

#[test]
fn an_aborted_branch_is_over_when_its_abort_is_acknowledged() {
    let begun = || Rig::begun(spec(3)).after([yes(A, FIRST), yes(Branch(2), FIRST)]);
    let mut rig = begun();
    rig.feed(no(B, FIRST, ErrorCode::ExpectationFailed));
    let over = |rig: &Rig| [A, B, Branch(2)].map(|branch| rig.machine.is_over_at(branch));
    assert_eq!(over(&rig), [false, true, false], "a definite no has nothing staged");
    rig.feed(fenced(A, FIRST));
    rig.feed(abort_unknown(Branch(2), FIRST));
    assert_eq!(over(&rig), [true, true, false]);
    let mut only = Rig::begun(spec(1)).after([no(A, FIRST, ErrorCode::WrongType)]);
    assert!(!only.machine.is_over_at(A), "a next life may ask it");
    only.feed(Input::Persisted);
    assert!(only.machine.is_over_at(A));
    let conflict = begun().after([no(B, FIRST, ErrorCode::LockConflict), fenced(A, FIRST)]);
    assert_eq!(over(&conflict), [false; 3], "another attempt follows");
}

/// A hook may take its time: the branches that none decides about hold no locks meanwhile.
#[test]
fn branches_with_hooks_are_asked_first_and_the_others_when_these_have_said_yes() {
    let hooked = BranchSet::NONE.with(B).with(Branch(2));
    let mut rig = Rig::new(Spec { hooked, ..spec(4) });
    assert_eq!(rig.feed(Input::Begin), ["prepare 1.0", "prepare 2.0"]);
    assert_eq!(rig.text(), "preparing .0 [later, asked 0, asked 0, later]");
    assert!(rig.feed(yes(Branch(2), FIRST)).is_empty());
    assert_eq!(rig.feed(yes(B, FIRST)), ["prepare 0.0", "prepare 3.0"]);
    assert!(rig.feed(yes(A, FIRST)).is_empty());
    assert_eq!(rig.feed(yes(Branch(3), FIRST)), ["persist commit .0 of 4"]);
    // Where all have one, none has to wait.
    let hooked = BranchSet::NONE.with(A).with(B);
    let mut rig = Rig::new(Spec { hooked, ..spec(2) });
    assert_eq!(rig.feed(Input::Begin), ["prepare 0.0", "prepare 1.0"]);
}

/// What was not asked has nothing staged, and is told nothing; the next attempt has the same order.
#[test]
fn a_branch_that_was_to_be_asked_later_is_not_aborted() {
    let hooked = || Rig::begun(Spec { hooked: BranchSet::NONE.with(A).with(B), ..spec(3) });
    let sent = |effects: Vec<String>| {
        let sends = |text: &String| text.starts_with("abort") || text.starts_with("prepare");
        effects.into_iter().filter(sends).collect::<Vec<_>>()
    };
    let mut vetoed = hooked().after([yes(A, FIRST)]);
    assert_eq!(sent(vetoed.feed(no(B, FIRST, ErrorCode::Vetoed))), ["abort 0.0"]);
    let mut late = hooked().at(DEADLINE);
    assert_eq!(sent(late.feed(Input::Tick)), ["abort 0.0", "abort 1.0"]);
    let [Outcome::Aborted(failure)] = &late.answers[..] else { panic!("{:?}", late.answers) };
    assert_eq!(failure.branch, Some(A));
    assert!(!failure.refusal.detail.contains("branch 2"), "{}", failure.refusal.detail);
    let mut lost = hooked();
    assert_eq!(sent(lost.feed(Input::DataLost(A))), ["abort 0.0", "abort 1.0"]);
    let mut again = hooked().after([yes(A, FIRST), no(B, FIRST, ErrorCode::LockConflict)]);
    assert_eq!(sent(again.wake()), ["prepare 0.1", "prepare 1.1"]);
    let mut behind = hooked().after([yes(A, FIRST), yes(B, FIRST)]);
    let refused = behind.feed(no(Branch(2), FIRST, ErrorCode::LockConflict));
    assert_eq!(sent(refused), ["abort 0.0", "abort 1.0"]);
}
