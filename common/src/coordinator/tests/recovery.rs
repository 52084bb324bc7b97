//! Recovery: what the log says, and what is done about it; and what a branch in doubt is told.

use super::*;
use crate::coordinator::recovery::{Plan, Recovered, Unfinished};
use crate::outcome::Replies;
use crate::record::{
    Abandoned, Acknowledged, AnswerRecord, Answered, Begun, Committed, CommittedBranch,
    CommittedSet, Ended, EndedByHand, Identity, ParticipantRemoved, ParticipantSet, Record,
};
use crate::wire::outcome::BranchOutcome;

fn at(n: u64) -> TxNumber {
    TxNumber { epoch: Epoch(3), n }
}

fn identity() -> Identity {
    Identity {
        id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap(),
        key: Some("order-17".parse().unwrap()),
        fingerprint: None,
        name: None,
        created_at: Millis(1),
    }
}

fn committed(n: u64, attempt: Attempt) -> Record {
    let branch = |name: &str, replies: &str| CommittedBranch {
        participant: name.parse().unwrap(),
        replies: replies.into(),
        redo: [1][..].into(),
        incarnation: 7,
        seq: 1,
    };
    Record::Committed(Committed {
        number: at(n),
        attempt,
        identity: identity(),
        decided_at: Millis(50),
        branches: vec![branch("a", "[0]"), branch("b", "[1]")],
    })
}

fn begun(n: u64, attempt: Attempt) -> Record {
    let participant = "a".parse().unwrap();
    Record::Begun(Begun { number: at(n), attempt, identity: identity(), participant })
}

fn ended(n: u64) -> Record {
    Record::Ended(Ended { number: at(n) })
}

fn answered(n: u64) -> Record {
    let replies: Replies = "[5]".into();
    Record::Answered(Answered {
        number: at(n),
        attempt: FIRST,
        identity: identity(),
        decided_at: Millis(50),
        participants: vec!["a".parse().unwrap()],
        answer: AnswerRecord::Committed { replies },
        written: None,
    })
}

fn abandoned(n: u64, participant: &str) -> Record {
    given_up(n, participant, None)
}

fn given_up(n: u64, participant: &str, attempt: Option<Attempt>) -> Record {
    Record::Abandoned(Abandoned {
        number: at(n),
        id: identity().id,
        participant: participant.parse().unwrap(),
        actor: "ana".to_owned(),
        reason: "disk gone".to_owned(),
        at: Millis(60),
        attempt,
    })
}

fn plan(records: impl IntoIterator<Item = Record>) -> Plan {
    let mut replay = Unfinished::default();
    records.into_iter().for_each(|record| replay.apply(record));
    replay.plan(START)
}

fn summary(plan: &Plan) -> Vec<String> {
    let line = |recovered: &Recovered| {
        let number = recovered.transaction.spec().number.n;
        format!("{number}: {}", machine_text(&recovered.transaction))
    };
    plan.transactions.iter().map(line).collect()
}

#[test]
fn a_decision_without_its_end_is_delivered_again_to_every_branch() {
    let plan = plan([committed(1, SECOND), committed(2, FIRST), ended(2)]);
    assert_eq!(summary(&plan), ["1: committing .1 [due 0 at 100, due 0 at 100]"]);
    let recovered = plan.transactions.into_iter().next().unwrap();
    assert_eq!(recovered.identity, identity());
    assert_eq!(recovered.participants, ["a".parse().unwrap(), "b".parse().unwrap()]);
    let mut rig = Rig::of(recovered.transaction);
    assert_eq!(rig.machine.wake_at(), Some(START));
    assert_eq!(rig.feed(Input::Tick), ["commit 0.1", "commit 1.1"]);
    rig.feed(applied(B));
    assert_eq!(rig.feed(applied(A)), ["answer applied [0]+[1]", "persist end"]);
    rig.feed(Input::Persisted);
    assert!(rig.machine.is_ended());
}

#[test]
fn a_begun_transaction_without_an_answer_asks_its_branch_before_it_says_anything() {
    let plan = plan([begun(1, FIRST), begun(2, FIRST), answered(2), begun(3, FIRST)]);
    assert_eq!(
        summary(&plan),
        ["1: one phase .0 asking, due 0 at 100", "3: one phase .0 asking, due 0 at 100"]
    );
    let rig = Rig::of(plan.transactions.into_iter().next().unwrap().transaction);
    let mut applied = rig.clone();
    assert_eq!(applied.feed(Input::Tick), ["abort 0.0"]);
    assert_eq!(applied.feed(already(A, FIRST))[0], "answer applied [5]");
    let mut aborted = rig;
    aborted.feed(Input::Tick);
    let effects = aborted.feed(fenced(A, FIRST));
    assert_eq!(effects, ["persist answer .0 aborted interrupted by 0"]);
}

#[test]
fn the_last_attempt_that_was_begun_is_the_one_to_ask_about() {
    let asked = ["1: one phase .1 asking, due 0 at 100"];
    assert_eq!(summary(&plan([begun(1, FIRST), begun(1, SECOND)])), asked);
    let copied = [begun(1, FIRST), begun(1, SECOND), begun(1, FIRST)];
    assert_eq!(summary(&plan(copied)), asked, "a copy of an earlier record says nothing new");
}

/// Compaction copies records of transactions that go on; every copy may come after any later record of the same one.
#[test]
fn records_that_come_twice_say_the_same_as_once() {
    let once = [committed(1, FIRST), abandoned(1, "b"), begun(2, FIRST), committed(3, FIRST)];
    let twice = once.clone().into_iter().chain(once.clone());
    assert_eq!(plan(twice), plan(once.clone()));
    let tail = || once.clone().into_iter().chain([ended(3), answered(2)]);
    assert_eq!(plan(once.clone().into_iter().chain(tail())), plan(tail()));
}

/// Invariant 16: the branch of a later attempt has voted, and nobody has given it up.
#[test]
fn what_was_given_up_in_an_earlier_attempt_is_not_given_up_in_the_one_that_commits() {
    let given_up = |attempt| given_up(1, "b", Some(attempt));
    for (records, left) in [
        ([given_up(FIRST), committed(1, SECOND)], vec![]),
        ([given_up(SECOND), committed(1, SECOND)], vec![B]),
    ] {
        assert_eq!(plan(records).transactions[0].abandoned, left);
    }
}

#[test]
fn what_an_operator_gave_up_stays_given_up() {
    let plan = plan([committed(1, FIRST), abandoned(1, "b"), abandoned(9, "a")]);
    let recovered = plan.transactions.into_iter().next().unwrap();
    assert_eq!(recovered.abandoned, [B]);
    let mut rig = Rig::of(recovered.transaction)
        .after([Input::Abandon { branch: B, attempt: Attempt::FIRST }]);
    assert_eq!(rig.feed(Input::Tick), ["commit 0.0"]);
    assert_eq!(rig.feed(applied(A)), ["answer committed [0]+[1]", "persist end"]);
}

/// The crash between learning that a hand ended a branch and the end of the transaction: with the record it is over there,
/// without it the branch is told again, and says it again.
#[test]
fn what_was_ended_by_hand_is_not_told_again_once_that_is_recorded() {
    let by_hand = Record::EndedByHand(EndedByHand {
        number: at(1),
        id: identity().id,
        participant: "a".parse().unwrap(),
        outcome: Heuristic::Aborted,
        detail: "by ana".to_owned(),
    });
    let records = [committed(1, FIRST), by_hand.clone(), by_hand.clone(), committed(1, FIRST)];
    let recovered = plan(records).transactions.into_iter().next().unwrap();
    assert_eq!(recovered.notes.len(), 1);
    let notes = recovered.notes.into_iter().map(Input::Noted);
    let mut rig = Rig::of(recovered.transaction).after(notes);
    assert_eq!(rig.machine.branch_status(A).progress, BranchProgress::HeuristicAborted);
    assert_eq!(rig.feed(Input::Tick), ["commit 1.0"]);
    assert_eq!(rig.feed(applied(B)), ["answer committed [0]+[1]", "persist end"]);
    assert!(plan([committed(1, FIRST), by_hand, ended(1)]).transactions.is_empty());
}

#[test]
fn who_has_acknowledged_is_not_told_again() {
    let acknowledged = Record::Acknowledged(Acknowledged {
        number: at(1),
        participants: vec!["a".parse().unwrap()],
    });
    let plan = plan([committed(1, FIRST), acknowledged.clone(), committed(1, FIRST)]);
    let recovered = plan.transactions.into_iter().next().unwrap();
    let notes = recovered.notes.into_iter().map(Input::Noted);
    let mut rig = Rig::of(recovered.transaction).after(notes);
    assert!(rig.machine.is_over_at(A));
    assert_eq!(rig.feed(Input::Tick), ["commit 1.0"]);
    assert_eq!(rig.feed(applied(B)), ["answer applied [0]+[1]", "persist end"]);
    assert!(self::plan([committed(1, FIRST), acknowledged, ended(1)]).transactions.is_empty());
}

#[test]
fn participants_are_as_the_last_record_of_each_says() {
    let set = |name: &str, url: &str| {
        Record::ParticipantSet(ParticipantSet { name: name.parse().unwrap(), url: url.to_owned() })
    };
    let removed = Record::ParticipantRemoved(ParticipantRemoved { name: "a".parse().unwrap() });
    let plan = plan([set("a", "1"), set("b", "1"), removed, set("b", "2")]);
    let expected = [("b".parse().unwrap(), "2".to_owned())];
    assert_eq!(plan.participants, expected.into());
    assert!(plan.transactions.is_empty());
}

#[test]
fn the_set_that_compaction_writes_recovers_no_transaction() {
    let set = CommittedSet { epoch: Epoch(3), bitmap: Vec::new(), retried: vec![(1, SECOND)] };
    assert_eq!(plan([Record::CommittedSet(set)]), plan([]));
}

/// Invariant 7, for what is active: *aborted* only of attempts that can never commit, *committed* only when durable.
#[test]
fn a_branch_in_doubt_is_told_nothing_before_the_outcome_is_certain() {
    use BranchOutcome::{Aborted, Committed, Undecided};
    let conflict = || no(B, FIRST, ErrorCode::LockConflict);
    let begun = || Rig::begun(spec(2));
    let retried = || begun().after([conflict(), Input::RetryNow]);
    let votes = [yes(A, SECOND), yes(B, SECOND)];
    let deciding = || retried().after(votes.clone());
    let committing = || deciding().after([Input::Persisted]);
    let table = [
        // machine, to the first attempt, to the second
        (Rig::new(spec(2)), Undecided, Undecided),
        (begun(), Undecided, Undecided),
        (begun().after([conflict()]), Aborted, Undecided),
        (retried(), Aborted, Undecided),
        (deciding(), Aborted, Undecided),
        (committing(), Aborted, Committed),
        (committing().after([applied(A), applied(B)]), Aborted, Committed),
        (retried().after([no(A, SECOND, ErrorCode::WrongType)]), Aborted, Aborted),
    ];
    for (rig, first, second) in table {
        assert_eq!(rig.machine.outcome_for(FIRST), first, "{}", rig.text());
        assert_eq!(rig.machine.outcome_for(SECOND), second, "{}", rig.text());
    }
}
