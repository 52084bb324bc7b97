//! The command line as scripts meet it: what it refuses, what it says, how it ends.

mod doctor;
mod held;
mod ops;

use std::path::Path;

use assent_client::participant::ProbeState;
use assent_common::ErrorCode;
use assent_process::{
    Assent, Port, ProcessError, Signal, coordinator_arguments, init_log, run_to_end,
};
use assent_tests::cluster::wait_ended;
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, Told, Transfer};
use tempfile::TempDir;

use crate::ASSENT;

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Invariant 7: a fresh log must never answer for an old one, so that only `init` makes one, and only once.
#[test]
fn a_coordinator_refuses_a_directory_without_a_log_and_init_refuses_one_with() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let data_dir = dir.path().join("log");
    let words = data_dir.display().to_string();
    let serve = [
        "coordinator",
        "--data-dir",
        &words,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let refused = run_to_end(Path::new(ASSENT), &serve, &[]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("assent init"),
        "it does not say what to do: {}",
        stderr(&refused)
    );
    assert!(!data_dir.exists(), "a refused start left something behind");

    init_log(Path::new(ASSENT), &data_dir, Some(1024 * 1024)).unwrap();
    let again = run_to_end(Path::new(ASSENT), &["init", "--data-dir", &words], &[]).unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
}

/// Invariant 1: one process for one log.
#[tokio::test]
async fn a_second_coordinator_on_the_same_log_is_refused() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let ports = Port::pair().unwrap();
    let mut arguments = coordinator_arguments(&cluster.data_dir(), &ports);
    arguments.extend(["--segment-bytes".to_owned(), "1048576".to_owned()]);
    let (binary, log) = (Path::new(ASSENT), cluster.dir().join("second.log"));
    let started = Assent::start("second", binary, arguments, &ports[0].url(), &log).await;
    let Err(ProcessError::Ended { status, tail, .. }) = started else { panic!("{started:?}") };
    assert!(status.contains("1") && tail.contains("in use"), "{status}: {tail}");
}

#[test]
fn a_wrong_command_line_or_setting_is_a_usage_error() {
    for words in [
        &["frobnicate"][..],
        &["coordinator", "--listen", "nowhere"],
        &["coordinator", "--participant", "bank-a"],
        &["coordinator", "--participant", "a=http://h:1", "--participant", "a=http://h:2"],
        &["participant"],
    ] {
        let output = run_to_end(Path::new(ASSENT), words, &[]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{words:?}: nothing was said");
        assert!(output.stdout.is_empty(), "{words:?}: talk on stdout");
    }
}

/// A drain waits for what is under way, takes nothing new, and ends in order.
#[tokio::test]
async fn sigterm_drains_and_ends_with_success() {
    let mut cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    let bank = Bank::open(&cluster, 1).await;
    cluster.peers[1].proxy().close(At::Before, "{\"commit\":");
    let transfer = Transfer::new("under way", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, transfer) = (bank.clone(), transfer.clone());
        async move { bank.ask(&transfer).await }
    });
    cluster.peers[1].proxy().wait_held().await;
    cluster.coordinator.child().signal(Signal::TERM);
    assent_tests::wait_for("the drain to begin", || async {
        let probe = cluster.api.readyz().await.map_err(|why| why.0)?;
        if probe.state == ProbeState::Failing { Ok(()) } else { Err(probe.text) }
    })
    .await;
    let new = bank.ask(&Transfer::new("new", "bank-a", "bank-b")).await;
    assert_eq!(new, Told::Rejected(ErrorCode::NotReady));
    cluster.peers[1].proxy().open();
    let told = asking.await.unwrap();
    assert!(told.is_committed(), "{told:?}");
    let status = wait_ended("the coordinator to drain", cluster.coordinator.child()).await;
    assert!(status.success(), "{status}");
    cluster.peers[0].agent.child().signal(Signal::TERM);
    let status = wait_ended("the agent to drain", cluster.peers[0].agent.child()).await;
    assert!(status.success(), "{status}");
}
