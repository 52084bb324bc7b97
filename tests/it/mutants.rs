//! The tests, tested: each known-bad variant of the real code (`assent_common::mutant`) runs under
//! the smallest test of its invariant, which must go red, and say why. That it is green without the
//! mutant is its own run in this suite.
//!
//! What breaks the pure machines only, and is caught by the model (`tests/model`), has no second
//! mutant here: votes that silence makes, decisions made twice, ends after the first
//! acknowledgement run the same machine in both.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use assent_common::mutant::Mutant;

/// Far above what any of these tests takes to go red.
const BOUND: Duration = Duration::from_secs(60);

/// Runs a test of this binary with all its servers, and its clients, that mutant.
async fn run(mutant: Mutant, test: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test])
        .env("ASSENT_MUTANT", mutant.as_str())
        .env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let began = Instant::now();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(BOUND, ended).await {
        Ok(output) => output.unwrap().unwrap(),
        Err(_) => {
            let _ended_just_now = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("{test} hangs under {mutant} ({:?})", began.elapsed());
        }
    }
}

async fn goes_red(mutant: Mutant, test: &str, says: &str) {
    let output = run(mutant, test).await;
    let text = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(text.contains("running 1 test"), "there is no test {test}:\n{text}");
    assert!(!output.status.success(), "{test} stays green under {mutant}");
    assert!(text.contains(says), "{test} goes red under {mutant}, but not for {says:?}:\n{text}");
}

/// One row for each mutant: the test that catches it, and a part of what that says.
macro_rules! caught {
    ($($name:ident: $mutant:ident, $test:literal, $says:literal;)+) => {
        $(#[tokio::test]
        async fn $name() {
            goes_red(Mutant::$mutant, $test, $says).await;
        })+

        /// The mutants that are caught.
        const CAUGHT: &[Mutant] = &[$(Mutant::$mutant,)+];
    };
}

caught! {
    m01_epoch_not_raised: EpochNotRaised, "old_log::an_old_copy_of_the_log_is_refused_however_often_it_starts", "the outcome of first";
    m01_not_locked: NotLocked, "cli::a_second_coordinator_on_the_same_log_is_refused", "Ok(Assent";
    m01_lives_ignored: LivesIgnored, "old_log::of_two_copies_of_one_life_the_one_that_spoke_is_the_log", "the word of the fork";
    m01_told_forgotten: ToldForgotten, "old_log::a_copy_that_was_cut_within_the_last_life_is_refused", "the copy to be refused";
    m02_unclear_vote_is_yes: UnclearVoteIsYes, "invariants::agent::a_vote_that_redis_did_not_get_is_no_yes", "a vote that is nowhere";
    m02_unsafe_votes_decide: UnsafeVotesDecide, "implicit::a_redis_that_may_lose_votes_takes_no_branch", "Committed";
    m02_run_not_asked: RunNotAsked, "invariants::agent::a_vote_behind_a_torn_commit_outlives_the_next_crash_of_redis", "an acknowledged vote is gone";
    m02_settings_unchecked: SettingsUnchecked, "redis_faults::an_agent_refuses_a_redis_that_would_lose_votes_and_names_the_fix", "it started";
    m03_in_doubt_times_out: InDoubtTimesOut, "protocol::lies::a_prepared_branch_takes_no_foreign_answer_for_an_outcome", "under Answer";
    m03_reader_freed_at_vote: ReaderFreedAtVote, "invariants::agent::what_a_vote_rests_on_stays_locked_until_its_outcome", "not refused";
    m03_successor_unread: SuccessorUnread,
        "invariants::agent::what_an_owner_voted_for_binds_its_successor",
        "two branches hold one lock";
    m03_hook_unguarded: HookUnguarded,
        "hooks::a_limit_over_several_keys_holds",
        "the limit is broken";
    m03_locks_ignored: LocksIgnored, "invariants::agent::what_a_vote_rests_on_stays_locked_until_its_outcome", "not refused";
    m03_digest_ignores_expiry: DigestIgnoresExpiry,
        "resp::exec_is_nil_if_a_watched_key_has_changed",
        "PEXPIRE b:list";
    m03_absence_unwatched: AbsenceUnwatched,
        "resp::exec_is_nil_if_a_watched_key_has_changed",
        "SET a:none 1";
    m03_reads_unguarded: ReadsUnguarded,
        "interactive::a_lost_race_is_read_changed_and_does_nothing",
        "unwrap_err";
    m03_watch_forgets: WatchForgets,
        "resp::exec_is_nil_if_a_watched_key_has_changed",
        "INCR a:n";
    m04_reports_before_sync: ReportsBeforeSync, "invariants::while_the_log_does_not_sync_nobody_hears_of_a_decision", "before the decision was synced";
    m04_sends_before_persisted: SendsBeforePersisted, "invariants::while_the_log_does_not_sync_nobody_hears_of_a_decision", "before the decision was synced";
    m05_epoch_ignored: EpochIgnored, "invariants::agent::an_agent_refuses_a_prepare_of_an_earlier_life", "not refused";
    m05_aborts_unsettled: AbortsUnsettled, "implicit::a_vote_that_was_lost_on_the_way_still_counts", "Aborted";
    m06_no_fence: NoFence, "invariants::agent::a_fence_outlives_its_agent", "not refused";
    m06_fence_ignored: FenceIgnored, "invariants::agent::an_agent_refuses_a_prepare_behind_its_fence", "not refused";
    m07_presumes_implicit: PresumesImplicit, "implicit::a_next_life_asks_the_branches_of_what_it_does_not_know", "all votes were there";
    m07_not_found_is_aborted: NotFoundIsAborted, "protocol::lies::a_prepared_branch_takes_no_foreign_answer_for_an_outcome", "under Answer";
    m07_unknown_authority_ignored: UnknownAuthorityIgnored, "invariants::agent::a_branch_of_another_log_is_not_ended_by_whoever_answers_at_its_address", "dropped";
    m07_answers_for_others: AnswersForOthers, "protocol::authority::two_coordinators_share_participants_and_answer_only_for_themselves", "UnknownAuthority";
    m07_presumes_active: PresumesActive, "invariants::a_branch_in_doubt_is_not_told_aborted_while_others_vote", "dropped";
    m08_no_done_marker: NoDoneMarker, "invariants::agent::a_done_marker_outlives_its_agent", "it is not applied any more";
    m08_not_owner_is_done: NotOwnerIsDone,
        "standby::who_says_that_it_is_no_owner_has_done_nothing",
        "called applied";
    m08_escrow_resolved: EscrowResolved,
        "invariants::agent::two_claims_in_escrow_both_count",
        "two sales took 1";
    m09_loss_acknowledged: LossAcknowledged, "invariants::a_branch_that_is_lost_is_not_called_applied", "called applied";
    m09_hole_not_compared: HoleNotCompared, "redis_loss::what_a_loader_drops_out_of_the_history_is_noticed_and_redone", "bank-b to have what was acknowledged";
    m09_redo_forgets: RedoForgets, "redis_loss::an_old_append_only_file_that_is_put_back_is_made_whole", "told Committed";
    m09_unlogged_forgotten: UnloggedForgotten,
        "crash_matrix::losses::one_phase_that_was_lost_before_it_was_heard_is_not_told_aborted",
        "read was told Aborted";
    m09_unanswered_forgotten: UnansweredForgotten,
        "crash_matrix::losses::one_phase_that_was_lost_before_it_was_heard_is_not_told_aborted",
        "read was told Aborted";
    m10_mark_too_high: MarkTooHigh, "invariants::a_slow_prepare_is_not_below_the_mark", "Aborted(BelowLowWater)";
    m10_mark_ignored: MarkIgnored, "invariants::agent::a_mark_outlives_its_agent", "not refused";
    m11_delivers_once: DeliversOnce, "protocol::lies::a_coordinator_takes_no_foreign_answer_for_an_acknowledgement", "the commit to be said again";
    m12_incarnation_ignored: IncarnationIgnored, "redis_faults::a_flushed_redis_is_quarantined_and_says_so", "outcome: Committed";
    m12_seq_not_compared: SeqNotCompared, "network::replica::a_lagging_replica_that_is_promoted_is_noticed_and_no_loss_is_called_applied", "the loss to be noticed";
    m12_owner_unwatched: OwnerUnwatched, "invariants::agent::an_owner_that_another_agent_has_passed_writes_nothing", "two branches hold one lock";
    m12_any_data_followed: AnyDataFollowed,
        "invariants::agent::open_data_of_another_history_is_not_taken_for_repaired",
        "the other data to be noticed";
    m12_strangers_believed: StrangersBelieved, "old_log::nobody_who_is_not_the_coordinator_moves_a_participant", "behind ";
    m13_frees_foreign_locks: FreesForeignLocks, "invariants::agent::the_end_of_a_branch_leaves_the_lock_of_another", "the lock of another branch is gone";
    m13_escrow_ignores_pending: EscrowIgnoresPending,
        "invariants::agent::two_claims_in_escrow_do_not_take_the_last_one_both",
        "two claims take the last one";
    m14_commit_needs_memory: CommitNeedsMemory, "redis_faults::a_redis_without_memory_votes_no_and_still_commits", "LockConflict";
    m15_unknown_is_conflict: UnknownIsConflict, "network::one_phase_whose_answer_is_lost_has_one_effect", " effects; told";
    m15_merged_runs_again: MergedRunsAgain,
        "resp::what_clients_were_told_holds_when_the_coordinator_is_killed",
        "was said to be committed";
    m15_retries_unclear: RetriesUnclear, "network::a_request_without_a_key_whose_answer_is_lost_has_one_effect", "Some(2) effects of 1 requests";
    m01_sql_gid_unscoped: SqlGidUnscoped,
        "postgres::rules::two_databases_of_one_server_do_not_meet",
        "two branches of one transaction, on one server";
    m02_sql_unclear_is_yes: SqlUnclearIsYes,
        "postgres::rules::a_vote_that_the_database_did_not_get_is_no_yes",
        "a vote that is nowhere";
    m02_sql_vote_forgotten: SqlVoteForgotten,
        "postgres::rules::a_vote_outlives_its_agent_and_the_server",
        "its vote was deleted";
    m03_sql_reads_unlocked: SqlReadsUnlocked,
        "postgres::rules::what_a_vote_rests_on_stays_locked_in_the_database",
        "not refused";
    m03_sql_silence_drops: InDoubtTimesOut,
        "postgres::rules::a_prepared_transaction_waits_for_the_word_of_its_own_log",
        "dropped it";
    m05_sql_epoch_ignored: SqlEpochIgnored,
        "postgres::rules::an_agent_of_a_database_refuses_a_prepare_of_an_earlier_life",
        "not refused";
    m06_sql_no_fence: SqlNoFence,
        "postgres::rules::a_fence_of_a_database_outlives_its_agent",
        "not refused";
    m06_sql_fence_ignored: SqlFenceIgnored,
        "postgres::rules::a_fence_of_a_database_outlives_its_agent",
        "not refused";
    m07_sql_strangers_word: UnknownAuthorityIgnored,
        "postgres::rules::a_prepared_transaction_waits_for_the_word_of_its_own_log",
        "a stranger's word has dropped it";
    m08_sql_no_done_marker: SqlNoDoneMarker,
        "postgres::rules::a_marker_of_a_database_outlives_its_agent",
        "it is not applied any more";
    m09_sql_loss_applied: SqlLossApplied,
        "postgres::rules::a_commit_that_the_database_knows_nothing_of_is_not_applied",
        "not refused";
    m10_sql_mark_ignored: SqlMarkIgnored,
        "postgres::rules::fences_of_a_database_go_by_the_mark",
        "not refused";
    m10_sql_sweeps_all: SqlSweepsAll,
        "postgres::rules::fences_of_a_database_go_by_the_mark",
        "not refused";
    m11_sql_orphans_forgotten: SqlOrphansForgotten,
        "postgres::rules::an_agent_finds_what_was_prepared_before_it",
        "to be listed as in doubt";
    m12_sql_seq_not_compared: SqlSeqNotCompared,
        "postgres::rules::a_database_that_went_back_in_time_is_noticed",
        "not refused";
    m16_override_unrecorded: OverrideUnrecorded, "invariants::an_override_outlives_the_coordinator", "forgotten";
}

/// The checkers find the same wrong in a history, without a scenario made for it: at any door.
macro_rules! breaks_the_history {
    ($($name:ident: $mutant:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            let test =
                "history::a_mixed_load_by_the_scripts_is_strictly_serialisable_and_counts_once";
            goes_red(Mutant::$mutant, test, "the history does not hold:\nlist-append").await;
        })+
    };
}

breaks_the_history! {
    a_history_without_locks_does_not_hold: LocksIgnored;
    a_history_of_hooks_whose_reads_may_change_does_not_hold: HookUnguarded;
    a_history_of_interactive_ones_whose_reads_may_change_does_not_hold: ReadsUnguarded;
    a_history_of_pipelines_that_run_again_does_not_hold: MergedRunsAgain;
    a_history_of_watches_that_are_forgotten_does_not_hold: WatchForgets;
}

/// Caught elsewhere, and why not here.
const ELSEWHERE: &[(Mutant, &str)] = &[
    // Only a disk of the test's own can fail a sync on purpose:
    // `coordinator/src/log/tests/mutants.rs`.
    (Mutant::FailedSyncIgnored, "log::tests::mutants::a_failed_sync_that_is_ignored_is_caught"),
    // A vote, or an answer, has to be under way at the moment of the loss: the simulator meets
    // that.
    (Mutant::UndecidedKept, "mutations::are_caught_by_the_check_of_their_invariant"),
    (Mutant::PlansTooEarly, "mutations::that_are_rare_are_caught_where_they_are_known_to_be"),
];

#[test]
fn every_mutant_is_caught_somewhere() {
    let elsewhere: Vec<_> = ELSEWHERE.iter().map(|(mutant, _)| mutant).collect();
    let missing: Vec<_> = Mutant::ALL
        .iter()
        .filter(|mutant| !CAUGHT.contains(mutant) && !elsewhere.contains(mutant))
        .collect();
    assert!(missing.is_empty(), "no test catches {missing:?}");
}

#[test]
fn every_invariant_has_a_mutant() {
    let broken: std::collections::BTreeSet<u8> =
        Mutant::ALL.iter().map(|mutant| mutant.invariant()).collect();
    assert_eq!(broken, (1..=16).collect());
}
