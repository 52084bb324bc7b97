//! The transition table, the lock rules, and the invariants that hold at one participant.

mod implicit;
mod locks;

use super::*;
use crate::command::Access;
use crate::command::Access::{Exclusive, Shared};
use crate::coordinator::resync::Redone;
use crate::ids::Attempt;
use crate::wire::branch::BranchAddress;
use crate::wire::resync::DataPoint;

const INCARNATION: u64 = 7;

fn log_id() -> LogId {
    "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap()
}

fn number(epoch: u64, n: u64) -> TxNumber {
    TxNumber { epoch: Epoch(epoch), n }
}

fn txid(n: u64) -> Txid {
    Txid { log_id: log_id(), number: number(5, n), attempt: Attempt::FIRST }
}

/// The public id of an age: the smaller is the older.
fn id(age: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().unwrap()
}

fn redo(n: u64) -> Redo {
    [n as u8][..].into()
}

fn replies(n: u64) -> Replies {
    format!("[{n}]").into()
}

/// A prepare of transaction `n`, whose age is `n`.
fn prepare(n: u64, mode: Mode, locks: &[(&str, Access)]) -> Prepare {
    Prepare {
        id: id(n),
        mode,
        branches: Branches::default(),
        locks: locks.iter().map(|(key, access)| (Key::from(*key), *access)).collect(),
        evaluation: Ok(Evaluation { replies: replies(n), redo: redo(n), claims: Vec::new() }),
    }
}

/// A message to a branch of transaction `n`.
type Told = (Txid, BranchMessage<Prepare>);

fn to_prepare(n: u64, prepare: Prepare) -> Told {
    (txid(n), BranchMessage::Prepare(prepare))
}

fn commit(n: u64) -> Told {
    (txid(n), BranchMessage::Commit)
}

fn abort(n: u64) -> Told {
    (txid(n), BranchMessage::Abort)
}

fn settle(n: u64) -> Told {
    (txid(n), BranchMessage::Settle)
}

fn step(participant: &mut Participant, (txid, message): Told) -> Stepped {
    participant.step(INCARNATION, txid, message)
}

/// Transaction `n` votes yes with these locks.
fn staged(participant: &mut Participant, n: u64, locks: &[(&str, Access)]) -> Vote {
    match step(participant, to_prepare(n, prepare(n, Mode::TwoPhase, locks))) {
        Stepped {
            answer: BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))),
            apply: None,
        } => vote,
        other => panic!("expected a yes, got {other:?}"),
    }
}

fn mark(epoch: u64, low_water: TxNumber) -> Heard {
    Heard { epoch: Epoch(epoch), low_water }
}

/// The answer in a few words, for tables.
fn words(Stepped { answer, apply }: Stepped) -> String {
    let words = match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
            format!("yes {} seq {}", vote.replies, vote.seq)
        }
        BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done))) => {
            format!("committed {}{}", done.replies, wrote(&done))
        }
        BranchAnswer::Prepared(Call::Applied(Prepared::Wait(holder))) => {
            format!("wait for {} on {}", holder.txid.number.n, holder.key)
        }
        BranchAnswer::Applied(Call::Applied(Applied { dirty_writes })) => {
            format!("applied, {dirty_writes} dirty")
        }
        BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)) => "fenced".to_owned(),
        BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))) => {
            format!("already committed {}{}", done.replies, wrote(&done))
        }
        BranchAnswer::Prepared(Call::Refused(refusal))
        | BranchAnswer::Applied(Call::Refused(refusal))
        | BranchAnswer::Aborted(Call::Refused(refusal))
        | BranchAnswer::Settled(Call::Refused(refusal)) => match refusal.holder {
            Some(holder) => format!("no: {} by {}", refusal.code, holder.txid.number.n),
            None => format!("no: {}", refusal.code),
        },
        BranchAnswer::Settled(Call::Applied(settled)) => format!("{settled:?}"),
        BranchAnswer::Prepared(Call::Unknown(why))
        | BranchAnswer::Applied(Call::Unknown(why))
        | BranchAnswer::Aborted(Call::Unknown(why))
        | BranchAnswer::Settled(Call::Unknown(why)) => panic!("a script's result is known: {why}"),
    };
    match apply {
        Some(redo) => format!("{words}; applies {redo:?}"),
        None => words,
    }
}

fn wrote(done: &Done) -> String {
    let written = done.written.as_ref();
    written.map_or_else(String::new, |it| format!(" wrote {:?} seq {}", it.redo, it.seq))
}

/// The same, of an implicit transaction.
fn implicit(n: u64, locks: &[(&str, Access)]) -> Prepare {
    let branch = |name: &str| BranchAddress {
        participant: name.parse().unwrap(),
        url: format!("http://{name}"),
    };
    let branches = ["bank-a", "bank-b"].map(branch)[..].into();
    Prepare { branches, ..prepare(n, Mode::TwoPhase, locks) }
}

/// What a table's rows begin from; always about transaction 4.
fn beginnings() -> Vec<(&'static str, Participant)> {
    let absent = || Participant::new(INCARNATION);
    let after = |told: Vec<Told>| {
        let mut participant = absent();
        for told in told {
            step(&mut participant, told);
        }
        participant
    };
    let marked = |mut participant: Participant, said: Heard| {
        participant.hear(log_id(), said);
        participant
    };
    let swept = |mut participant: Participant| {
        participant.sweep();
        participant
    };
    let keys = &[("k", Exclusive)];
    let two_phase = || to_prepare(4, prepare(4, Mode::TwoPhase, keys));
    let one_phase = || to_prepare(4, prepare(4, Mode::OnePhase, keys));
    let implicit = || to_prepare(4, implicit(4, keys));
    let done_without_a_log = || after(vec![implicit(), commit(4)]);
    vec![
        ("absent", absent()),
        ("staged", after(vec![two_phase()])),
        ("done in two phases", after(vec![two_phase(), commit(4)])),
        ("done in one phase", after(vec![one_phase()])),
        ("done without a log", done_without_a_log()),
        (
            "done without a log, below the mark of a later life",
            swept(marked(done_without_a_log(), mark(6, number(6, 0)))),
        ),
        ("fenced", after(vec![abort(4)])),
        ("staged, then aborted", after(vec![two_phase(), abort(4)])),
        ("below the mark", marked(absent(), mark(5, number(5, 5)))),
        ("stale epoch", marked(absent(), mark(6, number(5, 0)))),
        ("stale epoch, below the mark", marked(absent(), mark(6, number(6, 0)))),
        ("staged, below the mark", marked(after(vec![two_phase()]), mark(6, number(6, 0)))),
        ("swept", swept(marked(after(vec![one_phase()]), mark(5, number(5, 5))))),
    ]
}

/// The reference for the Lua scripts, whole: what is kept, by what is asked.
#[test]
#[expect(clippy::too_many_lines, reason = "a row for each pair")]
fn every_state_answers_every_request_as_the_table_says() {
    let table = [
        // state, prepare, prepare in one phase, commit, abort, settle
        (
            "absent",
            "yes [4] seq 1",
            "committed [4] wrote [4] seq 1; applies [4]",
            "no: branch_lost",
            "fenced",
            "Fenced",
        ),
        (
            "staged",
            "yes [4] seq 1",
            "yes [4] seq 1",
            "applied, 0 dirty; applies [4]",
            "fenced",
            "Prepared",
        ),
        (
            "done in two phases",
            "no: wrong_state",
            "no: wrong_state",
            "applied, 0 dirty",
            "already committed []",
            "Applied",
        ),
        (
            "done in one phase",
            "no: wrong_state",
            "committed [4] wrote [4] seq 1",
            "applied, 0 dirty",
            "already committed [4] wrote [4] seq 1",
            "Applied",
        ),
        (
            "done without a log",
            "no: wrong_state",
            "no: wrong_state",
            "applied, 0 dirty",
            "already committed []",
            "Applied",
        ),
        (
            "done without a log, below the mark of a later life",
            "no: wrong_state",
            "no: wrong_state",
            "applied, 0 dirty",
            "already committed []",
            "Applied",
        ),
        ("fenced", "no: fenced", "no: fenced", "no: fenced", "fenced", "Fenced"),
        ("staged, then aborted", "no: fenced", "no: fenced", "no: fenced", "fenced", "Fenced"),
        (
            "below the mark",
            "no: below_low_water",
            "no: below_low_water",
            "no: below_low_water",
            "fenced",
            "Fenced",
        ),
        (
            "stale epoch",
            "no: stale_epoch",
            "no: stale_epoch",
            "no: branch_lost",
            "fenced",
            "Fenced",
        ),
        (
            "stale epoch, below the mark",
            "no: stale_epoch",
            "no: stale_epoch",
            "no: below_low_water",
            "fenced",
            "Fenced",
        ),
        (
            "staged, below the mark",
            "yes [4] seq 1",
            "yes [4] seq 1",
            "applied, 0 dirty; applies [4]",
            "fenced",
            "Prepared",
        ),
        (
            "swept",
            "no: below_low_water",
            "no: below_low_water",
            "no: below_low_water",
            "fenced",
            "Fenced",
        ),
    ];
    assert_eq!(table.len(), beginnings().len());
    for ((name, participant), row) in beginnings().into_iter().zip(table) {
        assert_eq!(name, row.0);
        let requests = [
            (to_prepare(4, prepare(4, Mode::TwoPhase, &[("k", Exclusive)])), row.1),
            (to_prepare(4, prepare(4, Mode::OnePhase, &[("k", Exclusive)])), row.2),
            (commit(4), row.3),
            (abort(4), row.4),
            (settle(4), row.5),
        ];
        for (request, expected) in requests {
            let mut copy = participant.clone();
            assert_eq!(words(step(&mut copy, request.clone())), expected, "{name}, {request:?}");
        }
    }
}

/// Invariants 8 and 11: whatever is delivered twice is answered alike, changes nothing and applies
/// nothing.
#[test]
fn a_message_that_comes_twice_is_answered_alike_and_applies_once() {
    for (name, participant) in beginnings() {
        for told in [
            to_prepare(4, prepare(4, Mode::TwoPhase, &[("k", Exclusive)])),
            to_prepare(4, prepare(4, Mode::OnePhase, &[("k", Exclusive)])),
            commit(4),
            abort(4),
            settle(4),
        ] {
            let mut participant = participant.clone();
            let first = step(&mut participant, told.clone());
            let after = participant.clone();
            let second = step(&mut participant, told.clone());
            assert_eq!(second.apply, None, "{name}, {told:?}");
            // What one phase wrote is said once: its marker does not keep it.
            let once = words(Stepped { apply: None, ..first });
            assert_eq!(words(second), once, "{name}, {told:?}");
            assert_eq!(participant, after, "{name}, {told:?}");
        }
    }
}

#[test]
fn a_mark_and_a_sweep_that_come_twice_change_nothing_more() {
    for (name, mut participant) in beginnings() {
        participant.hear(log_id(), mark(6, number(6, 3)));
        let marked = participant.clone();
        participant.hear(log_id(), mark(6, number(6, 3)));
        assert_eq!(participant, marked, "{name}");
        participant.sweep();
        let swept = participant.clone();
        participant.sweep();
        assert_eq!(participant, swept, "{name}");
    }
}

/// A script that says no must not have written: not a lock, not a sequence number, not an epoch.
#[test]
fn a_refused_or_waiting_prepare_changes_nothing() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 5, &[("k", Exclusive)]);
    let mut failing = prepare(6, Mode::TwoPhase, &[("free", Exclusive)]);
    failing.evaluation = Err(Refusal::new(ErrorCode::ExpectationFailed, "met 3").at_op(0));
    let both = [("free", Shared), ("k", Shared)];
    let next_life = Txid { number: number(9, 6), ..txid(6) };
    for (told, expected) in [
        (to_prepare(4, prepare(4, Mode::TwoPhase, &both)), "wait for 5 on k"),
        (to_prepare(4, prepare(4, Mode::OnePhase, &[("k", Exclusive)])), "wait for 5 on k"),
        (to_prepare(6, prepare(6, Mode::TwoPhase, &both)), "no: lock_conflict by 5"),
        (to_prepare(6, failing.clone()), "no: expectation_failed"),
        ((next_life, BranchMessage::Prepare(failing)), "no: expectation_failed"),
    ] {
        let before = participant.clone();
        assert_eq!(words(step(&mut participant, told)), expected);
        assert_eq!(participant, before);
    }
}

#[test]
fn a_conflict_is_found_before_the_ops_are_judged() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 5, &[("k", Exclusive)]);
    let mut failing = prepare(6, Mode::TwoPhase, &[("k", Exclusive)]);
    failing.evaluation = Err(Refusal::new(ErrorCode::ExpectationFailed, "met a value in doubt"));
    let answer = words(step(&mut participant, to_prepare(6, failing)));
    assert_eq!(answer, "no: lock_conflict by 5");
}

/// Invariant 6: the abort that overtakes its prepare keeps it out for good.
#[test]
fn a_prepare_that_comes_after_its_abort_is_refused() {
    for mode in [Mode::TwoPhase, Mode::OnePhase] {
        let mut participant = Participant::new(INCARNATION);
        step(&mut participant, abort(4));
        let request = to_prepare(4, prepare(4, mode, &[("k", Exclusive)]));
        assert_eq!(words(step(&mut participant, request)), "no: fenced");
        assert!(participant.locks().is_empty());
        // Another attempt is another branch.
        let retry = Txid { attempt: Attempt(1), ..txid(4) };
        let again = BranchMessage::Prepare(prepare(4, mode, &[("k", Exclusive)]));
        assert!(!words(step(&mut participant, (retry, again))).starts_with("no"));
    }
}

/// Invariant 10: a marker is collected only below the mark, and what was kept out by it stays out.
#[test]
fn markers_are_swept_below_the_mark_only_and_their_prepares_stay_refused() {
    let mut participant = Participant::new(INCARNATION);
    for n in [3, 4, 5] {
        step(&mut participant, to_prepare(n, prepare(n, Mode::OnePhase, &[("k", Exclusive)])));
        step(&mut participant, abort(n + 10));
    }
    participant.sweep();
    assert_eq!(participant.markers(), 6, "without a mark nothing is collected");
    participant.hear(log_id(), mark(5, number(5, 5)));
    assert_eq!(participant.markers(), 6, "the mark alone collects nothing");
    participant.sweep();
    assert_eq!(participant.state(txid(5)), Some(BranchState::Applied));
    assert_eq!(participant.markers(), 4);
    for n in [3, 4] {
        assert_eq!(participant.state(txid(n)), None);
        let request = to_prepare(n, prepare(n, Mode::OnePhase, &[("k", Exclusive)]));
        assert_eq!(words(step(&mut participant, request)), "no: below_low_water");
    }
    let other_log =
        Txid { log_id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8f".parse().unwrap(), ..txid(1) };
    step(&mut participant, (other_log, BranchMessage::Abort));
    participant.sweep();
    assert_eq!(participant.state(other_log), Some(BranchState::Aborted), "a mark is one log's");
}

/// Below the mark a fence would only wait for the next sweep.
#[test]
fn an_abort_below_the_mark_needs_no_fence_of_its_own() {
    let mut participant = Participant::new(INCARNATION);
    participant.hear(log_id(), mark(5, number(5, 5)));
    assert_eq!(words(step(&mut participant, abort(4))), "fenced");
    assert_eq!(participant.markers(), 0);
}

/// Invariant 3: a sweep never touches what is in doubt, wherever the mark stands.
#[test]
fn a_staged_branch_below_the_mark_stays_until_it_is_told() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 4, &[("k", Exclusive)]);
    participant.hear(log_id(), mark(9, number(9, 0)));
    participant.sweep();
    assert_eq!(participant.state(txid(4)), Some(BranchState::Prepared));
    assert!(participant.locks().get(&Key::from("k")).is_some());
    assert_eq!(words(step(&mut participant, commit(4))), "applied, 0 dirty; applies [4]");
}

#[test]
fn epochs_and_marks_only_rise_and_a_vote_raises_the_epoch_too() {
    let mut participant = Participant::new(INCARNATION);
    participant.hear(log_id(), mark(6, number(5, 8)));
    participant.hear(log_id(), mark(5, number(5, 3)));
    let heard = Heard { epoch: Epoch(6), low_water: number(5, 8) };
    assert_eq!(participant.heard(log_id()), Some(heard));
    let of_life = |epoch, n| {
        let txid = Txid { number: number(epoch, n), ..txid(n) };
        (txid, BranchMessage::Prepare(prepare(n, Mode::TwoPhase, &[])))
    };
    step(&mut participant, of_life(7, 1));
    assert_eq!(participant.heard(log_id()), Some(Heard { epoch: Epoch(7), ..heard }));
    assert_eq!(words(step(&mut participant, of_life(6, 9))), "no: stale_epoch");
}

/// Invariant 12, as far as one Redis can see it: an agent that has not resynchronised with this
/// data gets nothing done.
#[test]
fn no_message_is_for_the_data_of_another_incarnation() {
    for (name, participant) in beginnings() {
        for request in [
            to_prepare(4, prepare(4, Mode::TwoPhase, &[("k", Exclusive)])),
            commit(4),
            abort(4),
            settle(4),
        ] {
            let mut copy = participant.clone();
            let (txid, message) = request;
            let answer = words(copy.step(INCARNATION + 1, txid, message));
            assert_eq!(answer, "no: quarantined", "{name}");
            assert_eq!(copy, participant, "{name}");
        }
    }
}

#[test]
fn a_vote_carries_the_incarnation_and_a_number_that_counts_up() {
    let mut participant = Participant::new(INCARNATION);
    let first = staged(&mut participant, 4, &[("a", Exclusive)]);
    step(&mut participant, to_prepare(5, prepare(5, Mode::OnePhase, &[("b", Exclusive)])));
    let second = staged(&mut participant, 6, &[("c", Exclusive)]);
    assert_eq!((first.incarnation, first.seq), (INCARNATION, 1));
    assert_eq!((second.incarnation, second.seq), (INCARNATION, 3), "one phase takes a number too");
    assert_eq!(participant.seq(), 3);
}

/// A coordinator names no writes for a branch that is staged: its record has them, and they are
/// applied once.
#[test]
fn a_repair_applies_what_is_staged_by_its_record() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 1, &[("a", Exclusive)]);
    staged(&mut participant, 2, &[("b", Exclusive)]);
    let named = coordinator_names(1);
    let open = DataPoint { incarnation: INCARNATION + 1, seq: 5 };
    let repair = Repair { redo: vec![named], logs: Vec::new(), open };
    assert_eq!(participant.repair(repair.clone()), [redo(1)]);
    assert_eq!(participant.repair(repair), [] as [Redo; 0]);
    assert_eq!(participant.state(txid(1)), Some(BranchState::Applied));
    assert_eq!(participant.state(txid(2)), Some(BranchState::Aborted));
    assert_eq!((participant.incarnation(), participant.seq()), (INCARNATION + 1, 5));
}

fn coordinator_names(n: u64) -> Redone {
    Redone { seq: n, txid: txid(n), redo: Redo::default() }
}
