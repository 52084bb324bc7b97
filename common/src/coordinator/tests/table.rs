//! The whole transition table: every state by every input, with the exact effects, as a text to be read and compared.

use std::fmt::Write as _;

use super::*;

/// Every input, once for each thing that it can say.
fn inputs() -> Vec<(&'static str, Input)> {
    vec![
        ("begin", Input::Begin),
        ("yes of 0", yes(A, FIRST)),
        ("yes of 1", yes(B, FIRST)),
        ("yes of 0 to attempt 1", yes(A, SECOND)),
        ("yes of no branch", yes(Branch(9), FIRST)),
        ("no of 0", no(A, FIRST, ErrorCode::ExpectationFailed)),
        ("conflict at 0", no(A, FIRST, ErrorCode::LockConflict)),
        ("wait at 0", wait(A, FIRST)),
        ("committed by 0", prepared(A, FIRST, Prepared::Committed("[5]".into()))),
        ("prepare unknown at 0", no_answer(A, FIRST)),
        ("applied by 0", applied(A)),
        ("applied by 1", applied(B)),
        ("commit lost at 0", commit_refused(A, ErrorCode::BranchLost)),
        ("aborted by hand at 0", commit_refused(A, ErrorCode::HeuristicAborted)),
        ("commit unknown at 0", commit_unknown(A)),
        ("fenced at 0", fenced(A, FIRST)),
        ("fenced at 1", fenced(B, FIRST)),
        ("fenced at 0 of attempt 1", fenced(A, SECOND)),
        ("already committed at 0", already(A, FIRST)),
        ("committed by hand at 0", abort_refused(A, FIRST, ErrorCode::HeuristicCommitted)),
        ("abort unknown at 0", abort_unknown(A, FIRST)),
        ("prepared, says 0", settled(A, Settled::Prepared)),
        ("applied, says 0", settled(A, Settled::Applied)),
        ("fenced, says 0", settled(A, Settled::Fenced)),
        ("settle unknown at 0", settle_unknown(A)),
        ("data lost at 0", Input::DataLost(A)),
        ("persisted", Input::Persisted),
        ("tick", Input::Tick),
        ("tick at the deadline", Input::Tick),
        ("retry now", Input::RetryNow),
        ("abandon 0", Input::Abandon { branch: A, attempt: Attempt::FIRST }),
        ("noted that 1 acknowledged", Input::Noted(Note::Acknowledged(vec![B]))),
        ("noted that 0 was aborted by hand", noted_by_hand(A, Heuristic::Aborted)),
    ]
}

/// The states of two phases, each reached by real steps.
fn two_phase() -> Vec<Rig> {
    let begun = || Rig::begun(spec(2));
    let keyed = || Spec { answer: AnswerDurability::BeforeAnswer, ..spec(2) };
    let decided = || Spec { ack: Ack::Decided, ..spec(2) };
    let no = || no(B, FIRST, ErrorCode::ExpectationFailed);
    let voted = [yes(A, FIRST), yes(B, FIRST)];
    vec![
        Rig::new(spec(2)),
        begun(),
        begun().after([yes(B, FIRST)]),
        begun().after([yes(B, FIRST), wait(A, FIRST)]),
        begun().after([yes(B, FIRST), no_answer(A, FIRST)]),
        begun().after([yes(A, FIRST), super::no(B, FIRST, ErrorCode::LockConflict)]),
        begun().after(voted.clone()),
        begun().after(voted.clone()).after([Input::Persisted]),
        Rig::begun(decided()).after(voted.clone()).after([Input::Persisted, applied(B)]),
        begun().after(voted.clone()).after([Input::Persisted, commit_unknown(A)]),
        begun().after(voted.clone()).after([Input::Persisted, applied(B), commit_unknown(A)]),
        begun().after(voted.clone()).after([Input::Persisted, applied(A), applied(B)]),
        begun().after(voted).after([Input::Persisted, applied(A), applied(B), Input::Persisted]),
        begun().after([no()]),
        Rig::begun(keyed()).after([no()]),
        begun().after([no(), Input::Persisted, abort_unknown(A, FIRST)]),
        begun().after([no(), Input::Persisted, fenced(A, FIRST)]),
    ]
}

/// The states that only an implicit transaction has.
fn implicit() -> Vec<Rig> {
    let begun = || Rig::begun(implicit_spec());
    let decided = || Rig::begun(Spec { ack: Ack::Decided, ..implicit_spec() });
    let conflict = || no(B, FIRST, ErrorCode::LockConflict);
    let voted = [yes(A, FIRST), yes(B, FIRST)];
    vec![
        begun(),
        begun().after([yes(B, FIRST)]),
        begun().after(voted.clone()),
        decided().after(voted.clone()).after([applied(B)]),
        begun().after(voted.clone()).after([applied(B), applied(A)]),
        begun().after(voted).after([applied(B), applied(A), Input::Persisted]),
        begun().after([conflict()]),
        begun().after([yes(B, FIRST), no(A, FIRST, ErrorCode::ExpectationFailed)]),
        begun().after([conflict(), settle_unknown(A)]),
        begun().after([conflict(), settled(B, Settled::Prepared)]),
        begun().after([conflict(), yes(B, FIRST), settled(A, Settled::Prepared)]),
        begun().after([conflict(), settled(B, Settled::Applied)]),
    ]
}

/// The states of one phase.
fn one_phase() -> Vec<Rig> {
    let begun = || Rig::begun(spec(1));
    let keyed = || Spec { answer: AnswerDurability::BeforeAnswer, ..spec(1) };
    let committed = || prepared(A, FIRST, Prepared::Committed("[5]".into()));
    let unclear_no = [no_answer(A, FIRST), Input::RetryNow, no(A, FIRST, ErrorCode::LockConflict)];
    vec![
        Rig::new(keyed()),
        Rig::begun(keyed()),
        begun(),
        begun().after([wait(A, FIRST)]),
        begun().after([no_answer(A, FIRST)]),
        begun().after(unclear_no.clone()),
        begun().after(unclear_no).after([abort_unknown(A, FIRST)]),
        begun().after([no(A, FIRST, ErrorCode::LockConflict)]),
        begun().after([committed()]),
        Rig::begun(keyed()).after([Input::Persisted, no(A, FIRST, ErrorCode::WrongType)]),
    ]
}

/// One state by every input: the inputs that do anything. All others must leave the machine as it was.
fn rows(rig: &Rig, text: &mut String) {
    writeln!(text, "{}", rig.text()).unwrap();
    for (name, input) in inputs() {
        let now = if name == "tick at the deadline" { DEADLINE } else { START };
        let mut copy = rig.clone().at(now);
        let mut effects = Vec::new();
        let result = copy.machine.step(now, input, &mut effects);
        if let Err(illegal) = result {
            assert_eq!(copy.machine, rig.machine, "{illegal}");
            assert!(effects.is_empty(), "{illegal}");
            writeln!(text, "    {name}: illegal").unwrap();
        } else if copy.machine != rig.machine || !effects.is_empty() {
            let effects: Vec<_> = effects.iter().map(effect_text).collect();
            let then = if effects.is_empty() { "" } else { " <- " };
            writeln!(text, "    {name}: {}{then}{}", copy.text(), effects.join(", ")).unwrap();
        }
    }
}

/// What is not in the text changes nothing: late answers, answers of other attempts and of branches that are none.
/// An input without a transition is refused and leaves the machine as it was.
#[test]
fn every_state_takes_every_input_as_the_table_says() {
    let mut text = String::new();
    let tables =
        [("two phases", two_phase()), ("one phase", one_phase()), ("implicit", implicit())];
    for (title, rigs) in tables {
        writeln!(text, "# {title}").unwrap();
        for rig in &rigs {
            rows(rig, &mut text);
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/coordinator_transitions.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        text, expected,
        "read the change of the table; if it is meant, UPDATE=1 rewrites it"
    );
}

/// The shell sleeps until `wake_at`: if it were none, or late, something due would never happen.
#[test]
fn the_wake_up_time_is_never_later_than_what_is_due() {
    for rig in two_phase().into_iter().chain(one_phase()).chain(implicit()) {
        let waits_for_time = rig.text().contains(" at ") || rig.text().contains("pausing");
        let waits_for_deadline = rig.text().starts_with("preparing")
            || rig.text().starts_with("one phase") && !rig.text().contains("asking");
        let expected = waits_for_time || waits_for_deadline;
        assert_eq!(rig.machine.wake_at().is_some(), expected, "{}", rig.text());
        let Some(at) = rig.machine.wake_at() else { continue };
        assert!(at <= DEADLINE, "{}", rig.text());
        let mut early = rig.clone().at(Millis(at.0 - 1));
        assert!(early.feed(Input::Tick).is_empty(), "nothing is due early: {}", rig.text());
        assert!(!rig.clone().at(at).feed(Input::Tick).is_empty(), "{}", rig.text());
    }
}
