//! Old and forked copies of a decision log (invariant 1): refused by the participants for good, however often they start, and
//! nothing is presumed from what they lack.

use std::path::Path;

use assent_client::participant::ProbeState;
use assent_common::ErrorCode;
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, wait_settled};
use tempfile::TempDir;

use crate::ASSENT;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Starts the coordinator on another copy of its log.
async fn start_on(cluster: &mut Cluster, copied: &Path) {
    cluster.coordinator.kill9();
    let data_dir = cluster.data_dir();
    std::fs::remove_dir_all(&data_dir).unwrap();
    copy(copied, &data_dir);
    start_again(cluster).await;
}

/// Starts the coordinator, and waits until it answers. A copy may be found out before it was ever ready.
async fn start_again(cluster: &mut Cluster) {
    cluster.coordinator.respawn(&[]).unwrap();
    wait_for("the coordinator to answer", || async {
        cluster.api.livez().await.map_err(|error| format!("{error:?}"))
    })
    .await;
}

async fn commits(bank: &Bank, key: &str) -> (Transfer, Told) {
    let transfer = Transfer::new(key, "bank-a", "bank-b");
    let told = bank.insist(&transfer).await;
    assert!(told.is_committed(), "{key}: {told:?}");
    (transfer, told)
}

async fn wait_refused(cluster: &Cluster) {
    wait_for("the copy to be refused", || async {
        let probe = cluster.api.readyz().await.map_err(|error| format!("{error:?}"))?;
        if probe.state == ProbeState::Ok { Err(format!("{probe:?}")) } else { Ok(()) }
    })
    .await;
}

/// D2: a copy of some lives ago was let in when its epoch had caught up, and ran a key a second time. Here it is refused
/// at every start; and the newest copy goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_the_log_is_refused_however_often_it_starts() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 2).await;
    let mut ledger = vec![commits(&bank, "before the copy").await];
    let copies = TempDir::with_prefix("assent-it-").unwrap();
    let (old, newest) = (copies.path().join("old"), copies.path().join("newest"));
    cluster.coordinator.kill9();
    copy(&cluster.data_dir(), &old);
    for key in ["first", "second", "third"] {
        start_again(&mut cluster).await;
        ledger.push(commits(&bank, key).await);
        wait_settled(&cluster).await;
        cluster.coordinator.kill9();
    }
    copy(&cluster.data_dir(), &newest);

    for start in 0..6 {
        if start == 0 {
            start_on(&mut cluster, &old).await;
        } else {
            start_again(&mut cluster).await;
        }
        wait_refused(&cluster).await;
        let told = bank.ask(&Transfer::new("third", "bank-a", "bank-b")).await;
        assert_eq!(told, Told::Rejected(ErrorCode::StaleLog), "start {start}: nothing is begun");
    }
    start_on(&mut cluster, &newest).await;
    ledger.push(commits(&bank, "after").await);
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

/// Two copies of one life have the same epochs: the one that spoke first is the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_of_one_life_the_one_that_spoke_is_the_log() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 2).await;
    let copies = TempDir::with_prefix("assent-it-").unwrap();
    cluster.coordinator.kill9();
    copy(&cluster.data_dir(), copies.path());
    start_again(&mut cluster).await;
    let ledger = vec![commits(&bank, "of the log").await];
    wait_settled(&cluster).await;
    start_on(&mut cluster, copies.path()).await;
    let told = wait_for("the word of the fork", || async {
        let told = bank.ask(&Transfer::new("of the fork", "bank-a", "bank-b")).await;
        match told {
            Told::Committed(_) | Told::Rejected(_) => Ok(told),
            told => Err(format!("{told:?}")),
        }
    })
    .await;
    assert_eq!(told, Told::Rejected(ErrorCode::StaleLog));
    bank.check(&cluster, &ledger).await;
}
