//! The transition table, the lock rules, and the invariants that hold at one participant.

mod implicit;

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
        txid: txid(n),
        id: id(n),
        mode,
        branches: Branches::default(),
        locks: locks.iter().map(|(key, access)| (Key::from(*key), *access)).collect(),
        evaluation: Ok(Evaluation { replies: replies(n), redo: redo(n), claims: Vec::new() }),
    }
}

fn step(participant: &mut Participant, request: Request) -> Stepped {
    participant.step(INCARNATION, request)
}

/// Transaction `n` votes yes with these locks.
fn staged(participant: &mut Participant, n: u64, locks: &[(&str, Access)]) -> Vote {
    let request = Request::Prepare(prepare(n, Mode::TwoPhase, locks));
    match step(participant, request) {
        Stepped { answer: Answer::Prepared(Call::Applied(Prepared::Yes(vote))), apply: None } => {
            vote
        }
        other => panic!("expected a yes, got {other:?}"),
    }
}

fn mark(epoch: u64, mark: TxNumber) -> Request {
    Request::LowWater { log_id: log_id(), epoch: Epoch(epoch), mark }
}

/// The answer in a few words, for tables.
fn words(Stepped { answer, apply }: Stepped) -> String {
    let words = match answer {
        Answer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
            format!("yes {} seq {}", vote.replies, vote.seq)
        }
        Answer::Prepared(Call::Applied(Prepared::Committed(done))) => {
            format!("committed {}{}", done.replies, wrote(&done))
        }
        Answer::Prepared(Call::Applied(Prepared::Wait(holder))) => {
            format!("wait for {} on {}", holder.txid.number.n, holder.key)
        }
        Answer::Applied(Call::Applied(Applied { dirty_writes })) => {
            format!("applied, {dirty_writes} dirty")
        }
        Answer::Aborted(Call::Applied(Aborted::Fenced)) => "fenced".to_owned(),
        Answer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))) => {
            format!("already committed {}{}", done.replies, wrote(&done))
        }
        Answer::Prepared(Call::Refused(refusal))
        | Answer::Applied(Call::Refused(refusal))
        | Answer::Aborted(Call::Refused(refusal))
        | Answer::Settled(Call::Refused(refusal))
        | Answer::Refused(refusal) => match refusal.holder {
            Some(holder) => format!("no: {} by {}", refusal.code, holder.txid.number.n),
            None => format!("no: {}", refusal.code),
        },
        Answer::Settled(Call::Applied(settled)) => format!("{settled:?}"),
        Answer::Noted => "noted".to_owned(),
        Answer::Prepared(Call::Unknown(why))
        | Answer::Applied(Call::Unknown(why))
        | Answer::Aborted(Call::Unknown(why))
        | Answer::Settled(Call::Unknown(why)) => panic!("a script's result is known: {why}"),
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
    let after = |requests: Vec<Request>| {
        let mut participant = absent();
        for request in requests {
            step(&mut participant, request);
        }
        participant
    };
    let two_phase = || Request::Prepare(prepare(4, Mode::TwoPhase, &[("k", Exclusive)]));
    let one_phase = || Request::Prepare(prepare(4, Mode::OnePhase, &[("k", Exclusive)]));
    let implicit = || Request::Prepare(implicit(4, &[("k", Exclusive)]));
    vec![
        ("absent", absent()),
        ("staged", after(vec![two_phase()])),
        ("done in two phases", after(vec![two_phase(), Request::Commit(txid(4))])),
        ("done in one phase", after(vec![one_phase()])),
        ("done without a log", after(vec![implicit(), Request::Commit(txid(4))])),
        (
            "done without a log, below the mark of a later life",
            after(vec![
                implicit(),
                Request::Commit(txid(4)),
                mark(6, number(6, 0)),
                Request::Sweep,
            ]),
        ),
        ("fenced", after(vec![Request::Abort(txid(4))])),
        ("staged, then aborted", after(vec![two_phase(), Request::Abort(txid(4))])),
        ("below the mark", after(vec![mark(5, number(5, 5))])),
        ("stale epoch", after(vec![mark(6, number(5, 0))])),
        ("stale epoch, below the mark", after(vec![mark(6, number(6, 0))])),
        ("staged, below the mark", after(vec![two_phase(), mark(6, number(6, 0))])),
        ("swept", after(vec![one_phase(), mark(5, number(5, 5)), Request::Sweep])),
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
            (Request::Prepare(prepare(4, Mode::TwoPhase, &[("k", Exclusive)])), row.1),
            (Request::Prepare(prepare(4, Mode::OnePhase, &[("k", Exclusive)])), row.2),
            (Request::Commit(txid(4)), row.3),
            (Request::Abort(txid(4)), row.4),
            (Request::Settle(txid(4)), row.5),
        ];
        for (request, expected) in requests {
            let mut copy = participant.clone();
            assert_eq!(words(step(&mut copy, request.clone())), expected, "{name}, {request:?}");
        }
    }
}

/// Invariants 8 and 11: whatever is delivered twice is answered alike, changes nothing and applies nothing.
#[test]
fn a_request_that_comes_twice_is_answered_alike_and_applies_once() {
    for (name, participant) in beginnings() {
        for request in [
            Request::Prepare(prepare(4, Mode::TwoPhase, &[("k", Exclusive)])),
            Request::Prepare(prepare(4, Mode::OnePhase, &[("k", Exclusive)])),
            Request::Commit(txid(4)),
            Request::Abort(txid(4)),
            Request::Settle(txid(4)),
            mark(6, number(6, 3)),
            Request::Sweep,
        ] {
            let mut participant = participant.clone();
            let first = step(&mut participant, request.clone());
            let after = participant.clone();
            let second = step(&mut participant, request.clone());
            assert_eq!(second.apply, None, "{name}, {request:?}");
            // What one phase wrote is said once: its marker does not keep it.
            let once = words(Stepped { apply: None, ..first });
            assert_eq!(words(second), once, "{name}, {request:?}");
            assert_eq!(participant, after, "{name}, {request:?}");
        }
    }
}

/// A script that says no must not have written: not a lock, not a sequence number, not an epoch.
#[test]
fn a_refused_or_waiting_request_changes_nothing() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 5, &[("k", Exclusive)]);
    let mut failing = prepare(6, Mode::TwoPhase, &[("free", Exclusive)]);
    failing.evaluation = Err(Refusal::new(ErrorCode::ExpectationFailed, "met 3").at_op(0));
    let next_life = |mut prepare: Prepare| {
        prepare.txid.number.epoch = Epoch(9);
        prepare
    };
    for (prepare, expected) in [
        (prepare(4, Mode::TwoPhase, &[("free", Shared), ("k", Shared)]), "wait for 5 on k"),
        (prepare(4, Mode::OnePhase, &[("k", Exclusive)]), "wait for 5 on k"),
        (prepare(6, Mode::TwoPhase, &[("free", Shared), ("k", Shared)]), "no: lock_conflict by 5"),
        (failing.clone(), "no: expectation_failed"),
        (next_life(failing), "no: expectation_failed"),
    ] {
        let before = participant.clone();
        assert_eq!(words(step(&mut participant, Request::Prepare(prepare))), expected);
        assert_eq!(participant, before);
    }
}

#[test]
fn a_conflict_is_found_before_the_ops_are_judged() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 5, &[("k", Exclusive)]);
    let mut failing = prepare(6, Mode::TwoPhase, &[("k", Exclusive)]);
    failing.evaluation = Err(Refusal::new(ErrorCode::ExpectationFailed, "met a value in doubt"));
    let answer = words(step(&mut participant, Request::Prepare(failing)));
    assert_eq!(answer, "no: lock_conflict by 5");
}

#[test]
fn locks_conflict_by_mode_and_wait_die_judges_by_age() {
    // what 5 holds, what is wanted, by an older (4), by a younger (6)
    let table = [
        (Shared, Shared, "yes", "yes"),
        (Shared, Exclusive, "wait for 5 on k", "no: lock_conflict by 5"),
        (Exclusive, Shared, "wait for 5 on k", "no: lock_conflict by 5"),
        (Exclusive, Exclusive, "wait for 5 on k", "no: lock_conflict by 5"),
    ];
    for (held, wanted, older, younger) in table {
        for mode in [Mode::TwoPhase, Mode::OnePhase] {
            for (n, expected) in [(4, older), (6, younger)] {
                let mut participant = Participant::new(INCARNATION);
                staged(&mut participant, 5, &[("k", held)]);
                let request = Request::Prepare(prepare(n, mode, &[("k", wanted)]));
                let expected = match (expected, mode) {
                    ("yes", Mode::TwoPhase) => format!("yes [{n}] seq 2"),
                    ("yes", Mode::OnePhase) => format!("committed [{n}]; applies [{n}]"),
                    (other, _) => other.to_owned(),
                };
                let answer = words(step(&mut participant, request));
                assert_eq!(answer, expected, "{held:?}, {wanted:?}, {mode:?} by {n}");
            }
        }
    }
}

/// An older transaction waits only if it is older than *every* holder: one older holder among them could close a cycle.
#[test]
fn among_several_readers_one_older_holder_is_enough_to_die() {
    let mut participant = Participant::new(INCARNATION);
    for n in [7, 3, 9] {
        staged(&mut participant, n, &[("k", Shared)]);
    }
    let mut write = |n| {
        let request = Request::Prepare(prepare(n, Mode::TwoPhase, &[("k", Exclusive)]));
        words(step(&mut participant, request))
    };
    assert_eq!(write(2), "wait for 3 on k");
    assert_eq!(write(5), "no: lock_conflict by 3");
    assert_eq!(write(10), "no: lock_conflict by 3");
    // Conflicts on different keys count together.
    staged(&mut participant, 4, &[("other", Exclusive)]);
    let keys = [("other", Shared), ("k", Exclusive)];
    let request = Request::Prepare(prepare(2, Mode::TwoPhase, &keys));
    assert_eq!(words(step(&mut participant, request)), "wait for 4 on other");
    let keys = [("k", Exclusive), ("other", Shared)];
    let mut prepare = prepare(20, Mode::TwoPhase, &keys);
    prepare.id = "0198f1c2-a4b2-7c1d-9c0d-ffffffffffff".parse().unwrap();
    let answer = words(step(&mut participant, Request::Prepare(prepare)));
    assert_eq!(answer, "wait for 3 on k", "the age is the public id's, not the number's");
}

/// The earlier attempt's abort may still be on its way: the retry must not read or write around it.
#[test]
fn a_retry_waits_for_its_own_earlier_attempt() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 4, &[("k", Exclusive)]);
    let mut retry = prepare(4, Mode::TwoPhase, &[("k", Exclusive)]);
    retry.txid.attempt = Attempt(1);
    let request = Request::Prepare(retry);
    assert_eq!(words(step(&mut participant, request.clone())), "wait for 4 on k");
    step(&mut participant, Request::Abort(txid(4)));
    assert_eq!(words(step(&mut participant, request)), "yes [4] seq 2");
}

#[test]
fn the_stronger_lock_wins_where_a_branch_names_a_key_twice() {
    for locks in [[("k", Shared), ("k", Exclusive)], [("k", Exclusive), ("k", Shared)]] {
        let mut participant = Participant::new(INCARNATION);
        staged(&mut participant, 4, &locks);
        let lock = participant.locks().get(&Key::from("k")).cloned();
        assert_eq!(lock, Some(Lock::Exclusive(txid(4), id(4))));
        step(&mut participant, Request::Commit(txid(4)));
        assert!(participant.locks().is_empty());
    }
}

#[test]
fn readers_share_a_key_until_the_last_of_them_ends() {
    let mut participant = Participant::new(INCARNATION);
    for n in [5, 6, 7] {
        staged(&mut participant, n, &[("k", Shared)]);
    }
    for (n, end) in [(6, Request::Abort(txid(6))), (5, Request::Commit(txid(5)))] {
        step(&mut participant, end);
        let lock = participant.locks().get(&Key::from("k")).unwrap();
        assert!(lock.owners().all(|(owner, _)| owner != txid(n)));
        let request = Request::Prepare(prepare(8, Mode::TwoPhase, &[("k", Exclusive)]));
        assert!(words(step(&mut participant, request)).starts_with("no: lock_conflict"));
    }
    step(&mut participant, Request::Commit(txid(7)));
    assert!(participant.locks().is_empty());
    staged(&mut participant, 8, &[("k", Exclusive)]);
}

/// Invariant 13. The keys of a staged record are what its own vote locked; that another owner stands there is what the
/// comparison is for (a restored backup, an operator's hand), so the state is made by hand.
#[test]
fn a_lock_of_another_owner_is_never_freed() {
    for end in [Request::Commit(txid(4)), Request::Abort(txid(4))] {
        let mut participant = Participant::new(INCARNATION);
        staged(&mut participant, 4, &[("mine", Exclusive), ("x", Exclusive), ("s", Shared)]);
        for (key, access) in [("x", Exclusive), ("s", Shared)] {
            participant.locks.free(txid(4), &Key::from(key));
            participant.locks.take(txid(9), id(9), &Key::from(key), access);
        }
        step(&mut participant, end);
        let left: Vec<_> = participant
            .locks()
            .iter()
            .map(|(key, lock)| (key.clone(), lock.owners().collect::<Vec<_>>()))
            .collect();
        let owner = vec![(txid(9), id(9))];
        assert_eq!(left, [(Key::from("s"), owner.clone()), (Key::from("x"), owner)]);
    }
}

/// Invariant 6: the abort that overtakes its prepare keeps it out for good.
#[test]
fn a_prepare_that_comes_after_its_abort_is_refused() {
    for mode in [Mode::TwoPhase, Mode::OnePhase] {
        let mut participant = Participant::new(INCARNATION);
        step(&mut participant, Request::Abort(txid(4)));
        let request = Request::Prepare(prepare(4, mode, &[("k", Exclusive)]));
        assert_eq!(words(step(&mut participant, request)), "no: fenced");
        assert!(participant.locks().is_empty());
        // Another attempt is another branch.
        let mut retry = prepare(4, mode, &[("k", Exclusive)]);
        retry.txid.attempt = Attempt(1);
        assert!(!words(step(&mut participant, Request::Prepare(retry))).starts_with("no"));
    }
}

/// Invariant 10: a marker is collected only below the mark, and what was kept out by it stays out.
#[test]
fn markers_are_swept_below_the_mark_only_and_their_prepares_stay_refused() {
    let mut participant = Participant::new(INCARNATION);
    for n in [3, 4, 5] {
        step(&mut participant, Request::Prepare(prepare(n, Mode::OnePhase, &[("k", Exclusive)])));
        step(&mut participant, Request::Abort(txid(n + 10)));
    }
    step(&mut participant, Request::Sweep);
    assert_eq!(participant.markers(), 6, "without a mark nothing is collected");
    step(&mut participant, mark(5, number(5, 5)));
    assert_eq!(participant.markers(), 6, "the mark alone collects nothing");
    step(&mut participant, Request::Sweep);
    assert_eq!(participant.state(txid(5)), Some(BranchState::Applied));
    assert_eq!(participant.markers(), 4);
    for n in [3, 4] {
        assert_eq!(participant.state(txid(n)), None);
        let request = Request::Prepare(prepare(n, Mode::OnePhase, &[("k", Exclusive)]));
        assert_eq!(words(step(&mut participant, request)), "no: below_low_water");
    }
    let other_log =
        Txid { log_id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8f".parse().unwrap(), ..txid(1) };
    step(&mut participant, Request::Abort(other_log));
    step(&mut participant, Request::Sweep);
    assert_eq!(participant.state(other_log), Some(BranchState::Aborted), "a mark is one log's");
}

/// Below the mark a fence would only wait for the next sweep.
#[test]
fn an_abort_below_the_mark_needs_no_fence_of_its_own() {
    let mut participant = Participant::new(INCARNATION);
    step(&mut participant, mark(5, number(5, 5)));
    assert_eq!(words(step(&mut participant, Request::Abort(txid(4)))), "fenced");
    assert_eq!(participant.markers(), 0);
}

/// Invariant 3: a sweep never touches what is in doubt, wherever the mark stands.
#[test]
fn a_staged_branch_below_the_mark_stays_until_it_is_told() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 4, &[("k", Exclusive)]);
    step(&mut participant, mark(9, number(9, 0)));
    step(&mut participant, Request::Sweep);
    assert_eq!(participant.state(txid(4)), Some(BranchState::Prepared));
    assert!(participant.locks().get(&Key::from("k")).is_some());
    assert_eq!(
        words(step(&mut participant, Request::Commit(txid(4)))),
        "applied, 0 dirty; applies [4]"
    );
}

#[test]
fn epochs_and_marks_only_rise_and_a_vote_raises_the_epoch_too() {
    let mut participant = Participant::new(INCARNATION);
    step(&mut participant, mark(6, number(5, 8)));
    step(&mut participant, mark(5, number(5, 3)));
    let heard = Heard { epoch: Epoch(6), low_water: number(5, 8) };
    assert_eq!(participant.heard(log_id()), Some(heard));
    let mut next_life = prepare(1, Mode::TwoPhase, &[]);
    next_life.txid.number.epoch = Epoch(7);
    step(&mut participant, Request::Prepare(next_life));
    assert_eq!(participant.heard(log_id()), Some(Heard { epoch: Epoch(7), ..heard }));
    let mut stale = prepare(9, Mode::TwoPhase, &[]);
    stale.txid.number.epoch = Epoch(6);
    assert_eq!(words(step(&mut participant, Request::Prepare(stale))), "no: stale_epoch");
}

/// Invariant 12, as far as one Redis can see it: an agent that has not resynchronised with this data gets nothing done.
#[test]
fn no_request_runs_against_the_data_of_another_incarnation() {
    for (name, participant) in beginnings() {
        for request in [
            Request::Prepare(prepare(4, Mode::TwoPhase, &[("k", Exclusive)])),
            Request::Commit(txid(4)),
            Request::Abort(txid(4)),
            mark(6, number(6, 3)),
            Request::Sweep,
        ] {
            let mut copy = participant.clone();
            let answer = words(copy.step(INCARNATION + 1, request));
            assert_eq!(answer, "no: quarantined", "{name}");
            assert_eq!(copy, participant, "{name}");
        }
    }
}

#[test]
fn a_vote_carries_the_incarnation_and_a_number_that_counts_up() {
    let mut participant = Participant::new(INCARNATION);
    let first = staged(&mut participant, 4, &[("a", Exclusive)]);
    step(&mut participant, Request::Prepare(prepare(5, Mode::OnePhase, &[("b", Exclusive)])));
    let second = staged(&mut participant, 6, &[("c", Exclusive)]);
    assert_eq!((first.incarnation, first.seq), (INCARNATION, 1));
    assert_eq!((second.incarnation, second.seq), (INCARNATION, 3), "one phase takes a number too");
    assert_eq!(participant.seq(), 3);
}

/// A coordinator names no writes for a branch that is staged: its record has them, and they are applied once.
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
