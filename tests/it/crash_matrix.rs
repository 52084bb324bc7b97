//! The crash matrix: a process dies at every named point between two effects, is started again, and everything that was
//! begun ends as one outcome, told the same to everybody who asks (promises *atomic*, *once*, *finishing*).

mod load;
mod log_points;
mod losses;
mod redis_points;
mod scenario;

use assent_common::crash::CrashPoint;

use self::scenario::{Shape, crash_at};

/// One test for each point and shape, and the proof that no point is forgotten.
macro_rules! matrix {
    ($($name:ident: $point:ident, $shape:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            crash_at(CrashPoint::$point, Shape::$shape).await;
        })+

        /// Points of the matrix above.
        const COVERED: &[CrashPoint] = &[$(CrashPoint::$point,)+];
    };
}

// Invariants 2, 3, 4, 5, 8, 11 and 15; each point with every shape of transaction that passes it.
matrix! {
    a_participant_that_dies_before_its_vote_is_durable_leaves_one_outcome: BeforeVoteDurable, TwoBranches;
    a_participant_that_dies_after_its_vote_leaves_one_outcome: AfterVoteDurable, TwoBranches;
    a_participant_that_dies_before_it_applies_leaves_one_outcome: BeforeApply, TwoBranches;
    a_participant_that_dies_after_it_applied_leaves_one_outcome: AfterApply, TwoBranches;
    a_participant_that_dies_before_its_only_phase_leaves_one_outcome: BeforeVoteDurable, OneBranch;
    a_participant_that_dies_after_its_only_phase_leaves_one_outcome: AfterVoteDurable, OneBranch;
    a_coordinator_that_dies_before_it_prepares_leaves_one_outcome: BeforePrepareSent, TwoBranches;
    a_coordinator_that_dies_before_it_asks_the_only_branch_leaves_one_outcome: BeforePrepareSent, OneBranch;
    a_coordinator_that_dies_before_it_decides_leaves_one_outcome: BeforeDecision, TwoBranches;
    a_coordinator_that_dies_before_its_decision_is_synced_leaves_one_outcome: BeforeDecisionSync, TwoBranches;
    a_coordinator_that_dies_before_its_begin_record_is_synced_leaves_one_outcome: BeforeDecisionSync, OneBranch;
    a_coordinator_that_dies_after_its_decision_leaves_one_outcome: AfterDecisionSync, TwoBranches;
    a_coordinator_that_dies_between_commits_leaves_one_outcome: BetweenCommits, TwoBranches;
    a_coordinator_that_dies_before_the_end_leaves_one_outcome: BeforeEnd, TwoBranches;
    a_coordinator_that_dies_after_the_end_leaves_one_outcome: AfterEnd, TwoBranches;
}

#[test]
fn every_crash_point_has_its_test() {
    let elsewhere = [log_points::COVERED, crate::hooks::COVERED, crate::postgres::COVERED].concat();
    let missing: Vec<_> = CrashPoint::ALL
        .iter()
        .filter(|point| !COVERED.contains(point) && !elsewhere.contains(point))
        .collect();
    assert!(missing.is_empty(), "no test kills a process at {missing:?}");
}
