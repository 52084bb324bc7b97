//! What is owed, what is refused, and what a repair does, without a Redis.

use super::*;
use crate::ids::{Attempt, Epoch, ParticipantName, TxNumber};
use crate::participant::UnloggedBranch;
use crate::wire::branch::CoordinatorRef;
use crate::wire::redo::Base64;
use crate::wire::resync::Hole;

const LOG: LogId = LogId(uuid::Uuid::from_u128(1));
const OTHER: LogId = LogId(uuid::Uuid::from_u128(2));
const KNOWN: DataPoint = DataPoint { incarnation: 7, seq: 9 };

fn number(n: u64) -> TxNumber {
    TxNumber { epoch: Epoch(1), n }
}

fn txid(log_id: LogId, n: u64) -> Txid {
    Txid { log_id, number: number(n), attempt: Attempt::FIRST }
}

fn fenced() -> DataView {
    DataView {
        incarnation: Some(7),
        seq: 4,
        view: 1,
        fenced: true,
        reason: None,
        owed: Vec::new(),
        staged: Vec::new(),
        served: Vec::new(),
        hole: None,
    }
}

/// A part of a report that has these branches, by the numbers of their votes.
fn part(log_id: LogId, (part, last): (u32, bool), redo: &[u64]) -> Resync {
    let participant: ParticipantName = "bank-a".parse().unwrap();
    let branch =
        |n: &u64| RedoBranch { txid: txid(log_id, *n), seq: *n, redo: Base64([1][..].into()) };
    Resync {
        participant,
        coordinator: CoordinatorRef { log_id, epoch: Epoch(3), url: String::new(), life: None },
        low_water: number(1),
        found: fenced().found(),
        known: Some(KNOWN),
        part,
        last,
        alone: false,
        redo: redo.iter().map(branch).collect(),
    }
}

fn take(reports: &mut Reports, part: Resync) -> Result<ReportTaken, ErrorCode> {
    let spoken = BTreeSet::from([LOG, OTHER]);
    reports.take(part, &fenced(), &spoken).map_err(|refusal| refusal.code)
}

fn owes(owed: &[LogId]) -> Result<ReportTaken, ErrorCode> {
    Ok(ReportTaken::Answered(Resynced { open: None, owed: owed.to_vec(), redone: 0 }))
}

#[test]
fn data_waits_for_the_last_part_of_every_log_that_has_spoken() {
    let mut reports = Reports::default();
    assert_eq!(take(&mut reports, part(LOG, (0, false), &[5])), owes(&[LOG, OTHER]));
    assert_eq!(take(&mut reports, part(OTHER, (0, true), &[])), owes(&[LOG]));
    assert_eq!(take(&mut reports, part(LOG, (2, true), &[])), Err(ErrorCode::WrongState));
    assert_eq!(take(&mut reports, part(LOG, (1, true), &[6])), Ok(ReportTaken::Repairs));
    // One that begins anew owes all of it.
    assert_eq!(take(&mut reports, part(OTHER, (0, false), &[])), owes(&[OTHER]));
    let alone = Resync { alone: true, ..part(LOG, (0, true), &[]) };
    assert_eq!(take(&mut reports, alone), Ok(ReportTaken::Repairs));
}

#[test]
fn a_report_about_other_data_is_void() {
    let mut reports = Reports::default();
    assert_eq!(take(&mut reports, part(LOG, (0, true), &[5])), owes(&[OTHER]));
    let looked_again = DataView { view: 2, ..fenced() };
    let about = |view: &DataView| Resync { found: view.found(), ..part(OTHER, (0, true), &[]) };
    assert_eq!(take(&mut reports, about(&looked_again)), Err(ErrorCode::WrongState));
    // What was reported of the data as it was before says nothing of it now.
    let spoken = BTreeSet::from([LOG, OTHER]);
    let taken = reports.take(about(&looked_again), &looked_again, &spoken);
    assert_eq!(taken.map_err(|refusal| refusal.code), owes(&[LOG]));
}

/// Invariant 9: whoever takes open data for repaired forgets what it lost.
#[test]
fn open_data_answers_only_a_log_whose_report_it_used() {
    let mut reports = Reports::default();
    let mut open = DataView { incarnation: Some(8), seq: 9, fenced: false, ..fenced() };
    let mut take = |open: &DataView| {
        let taken = reports.take(part(LOG, (0, true), &[]), open, &BTreeSet::new());
        taken.map_err(|refusal| refusal.code)
    };
    assert_eq!(take(&open), Err(ErrorCode::WrongState));
    open.served.push(Served { log_id: LOG, incarnation: 7 });
    let data = Some(DataPoint { incarnation: 8, seq: 9 });
    let answer = Resynced { open: data, owed: Vec::new(), redone: 0 };
    assert_eq!(take(&open), Ok(ReportTaken::Answered(answer)));
}

#[test]
fn a_repair_redoes_in_the_order_of_the_votes_and_drops_what_nobody_committed() {
    let mut reports = Reports::default();
    let alone = Resync { alone: true, ..part(LOG, (0, true), &[6, 5, 3]) };
    assert_eq!(take(&mut reports, alone), Ok(ReportTaken::Repairs));
    let staged = [(txid(LOG, 3), "three"), (txid(LOG, 4), "four"), (txid(OTHER, 2), "two")];
    let mut unlogged = Unlogged::new(DataPoint { incarnation: 7, seq: 4 });
    for n in [6, 7] {
        let branch = UnloggedBranch { seq: n, bytes: 1, marker: n };
        unlogged.applied(7, txid(LOG, n), branch);
    }
    let plan = reports.plan(&fenced(), staged, 2, Some(&mut unlogged));
    let steps: Vec<_> = plan.steps.iter().map(|step| (step.seq, &step.by)).collect();
    let writes = RedoBy::Writes([1][..].into());
    assert_eq!(
        steps,
        [(3, &RedoBy::Record("three")), (5, &writes), (6, &writes), (7, &RedoBy::Marker(7))]
    );
    assert_eq!(plan.undecided, ["four"], "a log that has not reported may have committed two");
    assert_eq!(plan.logs, [(LOG, Heard { epoch: Epoch(3), low_water: number(1) })]);
    assert_eq!(plan.served, [Served { log_id: LOG, incarnation: 7 }]);
    assert_eq!(plan.opening_seq(), opening_seq(KNOWN.seq));
    assert_eq!(reports.plan::<&str, u64>(&fenced(), [], 11, None).heard_seq, 11);
}

/// Of data with a hole only its end is sure.
#[test]
fn what_a_hole_may_lack_of_one_phase_is_not_put_back() {
    let mut reports = Reports::default();
    let alone = Resync { alone: true, ..part(LOG, (0, true), &[]) };
    assert_eq!(take(&mut reports, alone), Ok(ReportTaken::Repairs));
    let hole = Hole { ended: 1, expected: 2, done: Vec::new(), marks: Vec::new() };
    let holed = DataView { hole: Some(hole), ..fenced() };
    let mut unlogged = Unlogged::new(DataPoint { incarnation: 7, seq: 4 });
    for n in [4, 5] {
        let branch = UnloggedBranch { seq: n, bytes: 1, marker: n };
        unlogged.applied(7, txid(LOG, n), branch);
    }
    let plan = reports.plan::<(), u64>(&holed, [], 0, Some(&mut unlogged));
    assert_eq!(plan.steps.iter().map(|step| step.seq).collect::<Vec<_>>(), [5]);
    assert_eq!(unlogged.len(), 1);
}
