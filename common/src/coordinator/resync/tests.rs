//! Plans of what is said to data that lost something.

use super::*;
use crate::ids::{Attempt, Epoch};
use crate::record::{Committed, CommittedBranch, Identity};
use crate::time::Millis;
use crate::wire::resync::Served;

fn name() -> ParticipantName {
    "bank-a".parse().unwrap()
}

fn log() -> LogId {
    "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap()
}

fn txid(number: TxNumber) -> Txid {
    Txid { log_id: log(), number, attempt: Attempt::FIRST }
}

fn number(n: u64) -> TxNumber {
    TxNumber { epoch: Epoch(1), n }
}

fn committed(n: u64, incarnation: u64, seq: u64, redo: &[u8]) -> Committed {
    let branch = |participant: &str, seq| CommittedBranch {
        participant: participant.parse().unwrap(),
        replies: "[]".into(),
        redo: redo.into(),
        incarnation,
        seq,
    };
    Committed {
        number: number(n),
        attempt: Attempt(2),
        identity: Identity {
            id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap(),
            key: None,
            fingerprint: None,
            name: None,
            created_at: Millis(0),
        },
        decided_at: Millis(1),
        branches: vec![branch("bank-a", seq), branch("bank-b", seq + 1_000)],
    }
}

fn found(incarnation: Option<u64>, seq: u64, staged: &[(u64, u64)]) -> DataView {
    let staged = staged.iter().map(|(n, seq)| StagedView {
        txid: Txid { attempt: Attempt(2), ..txid(number(*n)) },
        seq: *seq,
    });
    DataView {
        incarnation,
        seq,
        view: 1,
        fenced: true,
        reason: None,
        owed: vec![log()],
        staged: staged.collect(),
        served: Vec::new(),
        hole: None,
    }
}

/// The same, with a hole; of these transactions it has the markers, and of those below the mark
/// it needs none.
fn holed(seq: u64, counts: (u64, u64), done: &[u64], mark: u64, staged: &[(u64, u64)]) -> DataView {
    let txid = |n: &u64| Txid { attempt: Attempt(2), ..txid(number(*n)) };
    let hole = Hole {
        ended: counts.0,
        expected: counts.1,
        done: done.iter().map(txid).collect(),
        marks: vec![Mark { log_id: log(), low_water: number(mark), epoch: Some(Epoch(1)) }],
    };
    DataView { hole: Some(hole), ..found(Some(7), seq, staged) }
}

fn plan(found: &DataView, log: &[Committed], seen: Seen) -> Result<Vec<u64>, Loss> {
    let is_committed = |txid: Txid| log.iter().any(|it| it.number == txid.number);
    let mut plan = Plan::new(self::log(), name(), found.clone(), is_committed);
    for committed in log {
        plan.apply(&Record::Committed(committed.clone()));
    }
    let Lacking { redo, loss } = plan.finish(seen);
    loss.map_or_else(|| Ok(redo.iter().map(|redone| redone.seq).collect()), Err)
}

fn seen(seq: u64, retired: u64) -> Seen {
    Seen { known: Some(DataPoint { incarnation: 7, seq }), retired }
}

/// Invariant 9: what was lost is redone in the order of the votes, whatever the order of the
/// decisions.
#[test]
fn what_the_data_lacks_is_redone_in_the_order_of_the_votes() {
    let log = [committed(1, 7, 5, b"w"), committed(2, 7, 4, b"w"), committed(3, 7, 2, b"w")];
    assert_eq!(plan(&found(Some(7), 3, &[]), &log, seen(5, 0)), Ok(vec![4, 5]));
    assert_eq!(plan(&found(None, 0, &[]), &log, seen(5, 0)), Ok(vec![2, 4, 5]));
    assert_eq!(plan(&found(Some(9), 0, &[]), &log, seen(5, 0)), Ok(vec![2, 4, 5]));
}

/// What was dropped out of the middle of the history is redone where nothing that is there came
/// behind it.
#[test]
fn a_hole_is_filled_where_it_is_sure_what_lacks() {
    let log = [
        committed(1, 7, 1, b"w"),
        committed(2, 7, 2, b"w"),
        committed(3, 7, 3, b"w"),
        committed(4, 7, 4, b"w"),
    ];
    let plan = |found: &DataView, retired| plan(found, &log, seen(4, retired));
    // Two and three lack; four is staged, and was not committed before.
    assert_eq!(plan(&holed(4, (1, 3), &[1], 1, &[(4, 4)]), 0), Ok(vec![2, 3, 4]));
    // Three lacks its commit: it is staged again.
    assert_eq!(plan(&holed(4, (1, 4), &[1], 1, &[(3, 3)]), 0), Ok(vec![2, 3, 4]));
    // What was swept counts as there.
    assert_eq!(plan(&holed(4, (2, 4), &[], 3, &[]), 0), Ok(vec![3, 4]));
    // The tail lacks too.
    assert_eq!(plan(&holed(3, (1, 3), &[1], 1, &[]), 0), Ok(vec![2, 3, 4]));
}

/// A vote that came back after its outcome is applied again where nothing that is there came
/// behind it, and nowhere else.
#[test]
fn a_vote_that_came_back_is_applied_in_its_order_only() {
    let log = [committed(1, 7, 1, b"w"), committed(2, 7, 2, b"w"), committed(3, 7, 3, b"w")];
    let last = holed(3, (2, 3), &[1, 2], 1, &[(3, 3)]);
    assert_eq!(plan(&last, &log, seen(3, 0)), Ok(vec![3]));
    let below_mark = holed(3, (2, 3), &[], 4, &[(3, 3)]);
    assert_eq!(plan(&below_mark, &log, seen(3, 0)), Ok(vec![3]));
    for done in [&[1, 3][..], &[3]] {
        let overtaken = holed(3, (2, 3), done, 3, &[(2, 2)]);
        let loss = Loss::Hole { ended: 2, expected: 3 };
        assert_eq!(plan(&overtaken, &log, seen(3, 0)), Err(loss));
    }
}

/// What is staged may be in doubt as before, so that the branch that lacks may be one whose
/// marker was due to go.
#[test]
fn what_was_swept_is_not_taken_for_there_because_another_branch_is_in_doubt() {
    let log = [committed(1, 7, 1, b"w"), committed(2, 7, 2, b"w")];
    let found = holed(3, (1, 2), &[2], 2, &[(3, 3)]);
    let loss = Loss::Hole { ended: 1, expected: 2 };
    assert_eq!(plan(&found, &log, seen(3, 0)), Err(loss.clone()));
    // A later life's mark is above what was in doubt before it.
    let mut later = found.clone();
    let mark = &mut later.hole.as_mut().unwrap().marks[0];
    (mark.low_water, mark.epoch) = (TxNumber { epoch: Epoch(2), n: 0 }, Some(Epoch(2)));
    assert_eq!(plan(&later, &log, seen(3, 0)), Err(loss.clone()));
    // Also while it goes on with something that the life before began behind that.
    let mut ended = holed(3, (1, 2), &[2], 4, &[(3, 3)]);
    assert_eq!(plan(&ended, &log, seen(3, 0)), Ok(vec![]), "its own life says that it ended");
    for epoch in [Some(Epoch(2)), None] {
        ended.hole.as_mut().unwrap().marks[0].epoch = epoch;
        assert_eq!(plan(&ended, &log, seen(3, 0)), Err(loss.clone()), "{epoch:?}");
    }
    // The log has let go of what may lack.
    assert_eq!(plan(&found, &log[1..], seen(3, 1)), Err(loss));
    assert_eq!(plan(&found, &log[1..], seen(3, 0)), Ok(vec![]));
    // One that ended before the data was opened is not counted in it.
    let log = [committed(1, 6, 1, b"w"), committed(2, 7, 2, b"w")];
    assert_eq!(plan(&found, &log, seen(3, 0)), Ok(vec![]));
}

#[test]
fn a_hole_that_is_not_sure_is_named() {
    let log = [committed(1, 7, 1, b"w"), committed(2, 7, 2, b"w"), committed(3, 7, 3, b"w")];
    for (found, retired) in [
        // Three is there: it may have written what two wrote.
        (holed(3, (2, 3), &[1, 3], 1, &[]), 0),
        // More lacks than this log knows of.
        (holed(3, (0, 3), &[1], 1, &[]), 0),
        // More than lacks: a part of it is there.
        (holed(3, (2, 3), &[1], 1, &[]), 0),
        // Half a transaction twice.
        (holed(3, (4, 3), &[1, 2, 3], 1, &[]), 0),
        // The log has let go of something behind it.
        (holed(3, (1, 3), &[1], 1, &[]), 2),
    ] {
        let Hole { ended, expected, .. } = found.hole.clone().unwrap();
        assert_eq!(plan(&found, &log, seen(3, retired)), Err(Loss::Hole { ended, expected }));
    }
    let two = DataView {
        owed: vec![self::log(), LogId(uuid::Uuid::nil())],
        ..holed(3, (1, 3), &[1], 1, &[])
    };
    assert!(plan(&two, &log, seen(3, 0)).is_err(), "what lacks may be the other log's");
}

#[test]
fn a_reader_is_told_only_where_it_is_staged() {
    let log = [committed(1, 7, 2, b""), committed(2, 7, 4, b"")];
    assert_eq!(plan(&found(Some(7), 3, &[(1, 2)]), &log, seen(5, 0)), Ok(vec![2]));
}

#[test]
fn a_staged_branch_that_was_committed_is_redone_though_its_vote_is_there() {
    let log = [committed(1, 7, 2, b"w"), committed(2, 7, 5, b"w")];
    assert_eq!(plan(&found(Some(7), 3, &[(1, 2), (9, 3)]), &log, seen(5, 0)), Ok(vec![2, 5]));
}

/// A loss that reaches behind what the log keeps is named, not papered over.
#[test]
fn what_the_log_let_go_is_a_loss() {
    let log = [committed(1, 7, 5, b"w")];
    assert_eq!(
        plan(&found(Some(7), 3, &[]), &log, seen(5, 4)),
        Err(Loss::Retired { found: 3, retired: 4 })
    );
    assert_eq!(plan(&found(Some(7), 4, &[]), &log, seen(5, 4)), Ok(vec![5]));
}

#[test]
fn votes_on_foreign_data_are_not_written_over() {
    let log = [committed(1, 7, 5, b"w")];
    let plan = plan(&found(Some(8), 2, &[]), &log, seen(5, 0));
    assert_eq!(plan, Err(Loss::Foreign { incarnation: Some(8), found: 2, known: 5 }));
}

#[test]
fn an_incarnation_of_the_own_past_is_not_foreign() {
    let log = [committed(1, 6, 3, b"w"), committed(2, 7, 5, b"w")];
    assert_eq!(plan(&found(Some(6), 3, &[]), &log, seen(5, 0)), Ok(vec![5]));
}

/// Redis went back behind the last repair, to data that an earlier one opened and on which this
/// log has no vote.
#[test]
fn an_incarnation_that_was_only_seen_is_not_foreign() {
    let (name, found) = (name(), found(Some(6), 3, &[]));
    let mut plan = Plan::new(log(), name.clone(), found, |_| false);
    let opened = DataSeen { participant: name, incarnation: 6, seq: 3, retired: 0 };
    plan.apply(&Record::DataSeen(opened));
    plan.apply(&Record::Committed(committed(1, 7, 5, b"w")));
    let Lacking { redo, loss } = plan.finish(seen(5, 0));
    assert_eq!(loss, None);
    assert_eq!(redo.iter().map(|redone| redone.seq).collect::<Vec<_>>(), [5]);
}

#[test]
fn what_a_repair_made_of_the_own_data_is_not_foreign() {
    let log = [committed(1, 7, 3, b"w"), committed(2, 7, 5, b"w")];
    let mut found = found(Some(8), 4, &[]);
    found.served = vec![Served { log_id: self::log(), incarnation: 7 }];
    assert_eq!(plan(&found, &log, seen(5, 0)), Ok(vec![5]));
}

#[test]
fn replay_knows_the_latest_data_and_what_was_let_go() {
    let mut seen = SeenData::default();
    seen.apply(&Record::Committed(committed(1, 7, 5, b"w")));
    seen.apply(&Record::Committed(committed(2, 7, 4, b"w")));
    let said = DataSeen { participant: name(), incarnation: 8, seq: 5, retired: 3 };
    seen.apply(&Record::DataSeen(said));
    let seen: BTreeMap<_, _> = seen.into_each().collect();
    let known = Some(DataPoint { incarnation: 8, seq: 5 });
    assert_eq!(seen[&name()], Seen { known, retired: 3 });
}

#[test]
fn a_vote_of_other_data_counts_for_nothing() {
    let mut seen = Seen::default();
    assert_eq!(seen.vote(DataPoint { incarnation: 7, seq: 4 }), VoteData::Known);
    assert_eq!(seen.vote(DataPoint { incarnation: 7, seq: 2 }), VoteData::Known);
    assert_eq!(seen.vote(DataPoint { incarnation: 6, seq: 9 }), VoteData::Other);
    assert_eq!(seen.known, Some(DataPoint { incarnation: 7, seq: 4 }));
}
