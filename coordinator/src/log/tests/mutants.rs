//! The mutant of the log that only a disk of the test's own can show (`tests/it/mutants.rs` has the others).

use std::process::Command;

use assent_common::mutant::Mutant;

/// Invariant 4: the test of failed syncs goes red when a failed sync is taken for a good one.
#[test]
fn a_failed_sync_that_is_ignored_is_caught() {
    let test = "log::tests::faults::a_sync_that_fails_at_any_time_loses_nothing_reported";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env("ASSENT_MUTANT", Mutant::FailedSyncIgnored.as_str());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "there is no test {test}: {text}");
    assert!(!output.status.success(), "{test} stays green under the mutant");
}
