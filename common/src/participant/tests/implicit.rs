//! What only the branches of implicit transactions need.

use super::*;

/// Condition (c) of implicit transactions: whoever settles another branch must find this one applied, until the life that
/// began the transaction says that it has ended everywhere.
#[test]
fn the_done_marker_of_an_implicit_branch_goes_by_the_mark_of_its_own_life_only() {
    let done = || {
        let mut participant = Participant::new(INCARNATION);
        step(&mut participant, to_prepare(4, implicit(4, &[("k", Exclusive)])));
        step(&mut participant, commit(4));
        participant
    };
    let swept = |marks: &[Heard]| {
        let mut participant = done();
        for mark in marks {
            participant.hear(log_id(), *mark);
        }
        participant.sweep();
        participant.state(txid(4))
    };
    let applied = Some(BranchState::Applied);
    assert_eq!(swept(&[mark(5, number(5, 4))]), applied);
    assert_eq!(swept(&[mark(5, number(5, 5))]), None);
    assert_eq!(swept(&[mark(6, number(6, 0))]), applied);
    assert_eq!(swept(&[mark(6, number(5, 5))]), applied, "a later life speaks of what it knows");
    assert_eq!(swept(&[mark(5, number(5, 5)), mark(6, number(6, 0))]), applied, "none was lost");
}

/// The next life finds a transaction in its log and says its commit again: until then the marker answers for it, whoever
/// else has ended. Without it the commit would meet nothing, and would be taken for a loss.
#[test]
fn a_marker_is_left_behind_only_when_the_mark_of_a_later_life_has_passed_it() {
    let left_after = |said: Heard| {
        let mut participant = Participant::new(INCARNATION);
        step(&mut participant, to_prepare(4, implicit(4, &[("k", Exclusive)])));
        step(&mut participant, commit(4));
        participant.hear(log_id(), said);
        participant.left_behind().count()
    };
    assert_eq!(left_after(mark(5, number(5, 9))), 0, "its own life collects it");
    assert_eq!(left_after(mark(6, number(5, 4))), 0, "the next life is at work on it");
    assert_eq!(left_after(mark(6, number(5, 5))), 1);
    assert_eq!(left_after(mark(6, number(6, 0))), 1);
}

#[test]
fn only_what_is_left_behind_is_forgotten() {
    let is_forgotten = |prepare: Prepare, said: Heard| {
        let mut participant = Participant::new(INCARNATION);
        step(&mut participant, to_prepare(4, prepare));
        step(&mut participant, commit(4));
        participant.hear(log_id(), said);
        participant.forget(txid(4));
        participant.state(txid(4)).is_none()
    };
    let implicit = || implicit(4, &[("k", Exclusive)]);
    let logged = prepare(4, Mode::TwoPhase, &[("k", Exclusive)]);
    assert!(is_forgotten(implicit(), mark(6, number(6, 0))));
    assert!(!is_forgotten(logged, mark(6, number(6, 0))), "a sweep's to collect");
    assert!(!is_forgotten(implicit(), mark(5, number(5, 9))));
    assert!(!is_forgotten(implicit(), mark(6, number(5, 4))));
}

/// A settle answers for good: what it found absent is never staged.
#[test]
fn a_branch_that_was_settled_as_absent_is_never_staged() {
    let mut participant = Participant::new(INCARNATION);
    assert_eq!(words(step(&mut participant, settle(4))), "Fenced");
    let late = to_prepare(4, implicit(4, &[("k", Exclusive)]));
    assert_eq!(words(step(&mut participant, late)), "no: fenced");
    assert!(participant.locks().is_empty());
}
