//! Old and forked copies of a decision log (invariant 1): refused by the participants for good,
//! however often they start, and nothing is presumed from what they lack.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use assent_client::ParticipantClient;
use assent_client::participant::ProbeState;
use assent_common::lives::{Proof, Seal};
use assent_common::outcome::Call;
use assent_common::wire::branch::{Answer, Batch, CoordinatorRef, Message, TxidOnly};
use assent_common::wire::resync::DataPoint;
use assent_common::{Attempt, Epoch, ErrorCode, LogId, TxNumber, Txid};
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, audit, plain, wait_settled};
use tempfile::TempDir;
use uuid::Uuid;

use crate::ASSENT;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn content(of: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name(), std::fs::read(file.path()).unwrap())).collect()
}

/// Copies a log that is in use, as it was at one moment: nothing was written meanwhile.
async fn copy_in_use(from: &Path, to: &Path) {
    wait_for("the log to be at rest", || async {
        copy(from, to);
        if content(from) == content(to) { Ok(()) } else { Err("it is written") }
    })
    .await;
}

/// Starts the coordinator on another copy of its log.
async fn start_on(cluster: &mut Cluster, copied: &Path) {
    cluster.coordinator.kill9();
    let data_dir = cluster.data_dir();
    std::fs::remove_dir_all(&data_dir).unwrap();
    copy(copied, &data_dir);
    start_again(cluster).await;
}

/// Starts the coordinator, and waits until it answers. A copy may be found out before it was ever
/// ready.
async fn start_again(cluster: &mut Cluster) {
    cluster.coordinator.respawn(&[]).unwrap();
    wait_for("the coordinator to answer", || async {
        cluster.api.livez().await.map_err(|error| format!("{error:?}"))
    })
    .await;
}

async fn commits(bank: &Bank, key: &str) -> (Transfer, Told) {
    insists(bank, Transfer::new(key, "bank-a", "bank-b")).await
}

async fn insists(bank: &Bank, transfer: Transfer) -> (Transfer, Told) {
    let key = &transfer.key;
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

/// D2: a copy of some lives ago was let in when its epoch had caught up, and ran a key a second
/// time. Here it is refused at every start; and the newest copy goes on.
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

/// D2: a copy that was made while the log was in use has the life that the participants heard last,
/// and lacks what was committed in it later. It is refused at every start; the log itself goes on.
async fn a_copy_cut_within_a_life_is_refused(options: Options, is_one_branch: bool) {
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 2).await;
    let to = if is_one_branch { "bank-a" } else { "bank-b" };
    let transfer = |key: &str| Transfer::new(key, "bank-a", to);
    let mut ledger = vec![insists(&bank, transfer("before the copy")).await];
    let copies = TempDir::with_prefix("assent-it-").unwrap();
    let (cut, whole) = (copies.path().join("cut"), copies.path().join("whole"));
    wait_settled(&cluster).await;
    copy_in_use(&cluster.data_dir(), &cut).await;
    ledger.push(insists(&bank, transfer("behind the copy")).await);
    wait_settled(&cluster).await;
    cluster.coordinator.kill9();
    copy(&cluster.data_dir(), &whole);
    for agent in &mut cluster.peers {
        agent.agent.kill9();
        agent.agent.respawn(&[]).unwrap();
    }

    for start in 0..3 {
        if start == 0 {
            start_on(&mut cluster, &cut).await;
        } else {
            start_again(&mut cluster).await;
        }
        wait_refused(&cluster).await;
        let told = bank.ask(&transfer("behind the copy")).await;
        assert_eq!(told, Told::Rejected(ErrorCode::StaleLog), "start {start}: nothing is begun");
    }
    start_on(&mut cluster, &whole).await;
    let again = insists(&bank, transfer("behind the copy")).await;
    assert_eq!(again.1, ledger[1].1, "one key is one outcome");
    ledger.push(insists(&bank, transfer("after")).await);
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_cut_within_the_last_life_is_refused() {
    a_copy_cut_within_a_life_is_refused(Options::default(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_lacks_a_branch_of_one_phase_is_refused() {
    a_copy_cut_within_a_life_is_refused(Options::default(), true).await;
}

/// M1: one message of somebody who is not the coordinator, however large its numbers, disables
/// nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_is_not_the_coordinator_moves_a_participant() {
    const FAR: u64 = u64::MAX;
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 2).await;
    let mut ledger = vec![commits(&bank, "before").await];
    let log_id = cluster.api.version().await.unwrap().log_id.unwrap().parse().unwrap();
    let strange = LogId(Uuid::now_v7());
    let agent = ParticipantClient::new(&cluster.http, cluster.peers[0].agent.url()).unwrap();
    let life = Some(Proof {
        nonce: 1,
        position: FAR,
        seal: Some(Seal { mark: 1, seal: 1 }),
        before: Some(Vec::new()),
    });
    let far = |of| Some(DataPoint { incarnation: 1, seq: of });
    for (log_id, epoch, mark, life, known) in [
        (log_id, FAR, TxNumber { epoch: Epoch(FAR), n: FAR }, None, None),
        (log_id, FAR, TxNumber { epoch: Epoch(FAR), n: FAR }, life.clone(), None),
        (log_id, 2, TxNumber { epoch: Epoch(2), n: 1_000 }, life.clone(), None),
        (log_id, 2, TxNumber { epoch: Epoch(2), n: 1_000 }, None, None),
        (log_id, 1, TxNumber { epoch: Epoch(1), n: 1_000 }, None, None),
        (log_id, 1, TxNumber { epoch: Epoch(2), n: 1_000 }, None, None),
        (log_id, 1, TxNumber { epoch: Epoch(1), n: 1 }, None, far(1_000_000_000_000_000)),
        (strange, FAR, TxNumber { epoch: Epoch(FAR), n: FAR }, None, None),
        (strange, 1, TxNumber { epoch: Epoch(1), n: 1 }, None, far(1_000_000_000_000_000)),
    ] {
        let number = TxNumber { epoch: Epoch(1), n: 1_000_000 };
        let txid = Txid { log_id, number, attempt: Attempt::FIRST };
        let url = "http://127.0.0.1:9".to_owned();
        let batch: Batch = Batch {
            participant: "bank-a".parse().unwrap(),
            coordinator: CoordinatorRef { log_id, epoch: Epoch(epoch), url, life },
            low_water: mark,
            known,
            progress: None,
            messages: vec![Message::Abort(TxidOnly { txid })],
        };
        let done = agent.batch(&batch).await;
        let done = done.map(|answers| answers.answers.into_iter().map(Answer::into_aborted));
        for call in done.into_iter().flatten() {
            assert!(!matches!(call, Call::Applied(_)), "{batch:?}: {call:?}");
        }
        ledger.push(commits(&bank, &format!("behind {}", ledger.len())).await);
    }
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

/// Whoever speaks to a participant before its coordinator has done anything there can have it take
/// the log for an old copy. That costs this participant, and one act of an operator; it stopped the
/// coordinator for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_never_was_costs_only_the_participant_that_was_told_of_it() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 2).await;
    let log_id: LogId = cluster.api.version().await.unwrap().log_id.unwrap().parse().unwrap();
    let epoch = Epoch(1_000);
    let txid = Txid { log_id, number: TxNumber { epoch, n: 1 }, attempt: Attempt::FIRST };
    let life = Some(Proof {
        nonce: 7,
        position: 7,
        seal: Some(Seal { mark: 7, seal: 7 }),
        before: Some(Vec::new()),
    });
    let batch: Batch = Batch {
        participant: "bank-a".parse().unwrap(),
        coordinator: CoordinatorRef { log_id, epoch, url: "http://127.0.0.1:9".to_owned(), life },
        low_water: TxNumber { epoch: Epoch(1), n: 1 },
        known: None,
        progress: None,
        messages: vec![Message::Abort(TxidOnly { txid })],
    };
    let agent = ParticipantClient::new(&cluster.http, cluster.peers[0].agent.url()).unwrap();
    let said = agent.batch(&batch).await.unwrap().answers.remove(0).into_aborted();
    assert!(matches!(said, Call::Applied(_)), "{said:?}");

    for start in ["first", "second"] {
        wait_for("the participant to be refused by name", || async {
            let told = bank.ask(&Transfer::new(start, "bank-a", "bank-b")).await;
            // The first of all is begun, and hears it from the participant.
            match told {
                Told::Rejected(ErrorCode::StaleLog) | Told::Aborted(ErrorCode::StaleLog) => Ok(()),
                told => Err(format!("{told:?}")),
            }
        })
        .await;
        let view = cluster.api.participants().await.unwrap().participants;
        let stale: Vec<_> = view.iter().filter(|it| it.stale_log.is_some()).collect();
        assert!(matches!(stale[..], [it] if it.name.as_str() == "bank-a"), "{view:?}");
        insists(&bank, Transfer::new(format!("beside {start}"), "bank-b", "bank-b")).await;
        assert_eq!(cluster.api.readyz().await.unwrap().state, ProbeState::Ok);
        cluster.coordinator.kill9();
        start_again(&mut cluster).await;
    }
    // As docs/guides/recover.md has it.
    cluster.peers[0].agent.kill9();
    for field in ["m:n", "m:p", "m:c"] {
        let field = format!("{field}:{log_id}");
        let words = ["HDEL", audit::CONTROL, &field];
        plain::run::<()>(&cluster.peers[0].redis, &words).await;
    }
    cluster.peers[0].agent.respawn(&[]).unwrap();
    insists(&bank, Transfer::new("behind it", "bank-a", "bank-b")).await;
    wait_settled(&cluster).await;
}
