//! Several coordinators: who may decide what, and what is left of one that should be gone (invariants 1, 5, 7).

use std::path::Path;

use assent_client::CoordinatorClient;
use assent_common::crash::CrashPoint;
use assent_common::ids::TxNumber;
use assent_common::outcome::Call;
use assent_common::wire::branch::BranchState;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Attempt, Epoch, ErrorCode, Txid};
use assent_process::{Assent, Port, coordinator_arguments, init_log};
use assent_tests::cluster::{Peer, arm, restart, wait_crashed};
use assent_tests::proxy::{At, Fault};
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, wait_settled};

use crate::ASSENT;

const SEGMENT_BYTES: u32 = 1024 * 1024;

/// One more coordinator for the cluster's participants.
struct Another {
    _process: Assent,
    api: CoordinatorClient,
    ports: [Port; 2],
}

impl Another {
    async fn start(cluster: &Cluster, data_dir: &Path) -> Self {
        Self::reaching(cluster, data_dir, |peer| peer.agent.url().to_owned()).await
    }

    async fn reaching(cluster: &Cluster, data_dir: &Path, way: impl Fn(&Peer) -> String) -> Self {
        let ports = Port::pair().unwrap();
        let mut args = coordinator_arguments(data_dir, &ports);
        args.extend(["--segment-bytes".to_owned(), SEGMENT_BYTES.to_string()]);
        for peer in &cluster.peers {
            args.extend(["--participant".to_owned(), format!("{}={}", peer.name, way(peer))]);
        }
        let (url, log) = (ports[0].url(), cluster.dir().join("another.log"));
        let started = Assent::start("another", Path::new(ASSENT), args, &url, &log).await;
        let process = started.unwrap_or_else(|error| panic!("{error}"));
        let api = CoordinatorClient::new(&cluster.http, &url).unwrap();
        Self { _process: process, api, ports }
    }

    fn url(&self) -> String {
        self.ports[0].url()
    }
}

async fn some_txid_of(api: &CoordinatorClient) -> Txid {
    let version = api.version().await.unwrap();
    let log_id = version.log_id.unwrap().parse().unwrap();
    let number = TxNumber { epoch: Epoch(1), n: 1 };
    Txid { log_id, number, attempt: Attempt::FIRST }
}

/// Invariant 7 and promise *isolated*: two logs share the participants and know nothing of each other's transactions.
#[tokio::test]
async fn two_coordinators_share_participants_and_answer_only_for_themselves() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let data_dir = cluster.dir().join("another log");
    init_log(Path::new(ASSENT), &data_dir, Some(SEGMENT_BYTES)).unwrap();
    let another = Another::start(&cluster, &data_dir).await;
    let bank = Bank::open(&cluster, 1).await;
    let other_bank = bank.through(&another.api);
    let run = |bank: Bank, name: &'static str| {
        tokio::spawn(async move {
            let mut ledger = Vec::new();
            for n in 0..20 {
                let (from, to) =
                    if n % 2 == 0 { ("bank-a", "bank-b") } else { ("bank-b", "bank-a") };
                let transfer = Transfer::new(format!("{name} {n}"), from, to);
                let told = bank.ask(&transfer).await;
                ledger.push((transfer, told));
            }
            ledger
        })
    };
    // The same two accounts, so that they meet at every lock.
    let (one, two) = (run(bank.clone(), "one"), run(other_bank, "two"));
    let (mut ledger, two) = (one.await.unwrap(), two.await.unwrap());
    ledger.extend(two);
    let failed: Vec<_> = ledger.iter().filter(|(_, told)| !told.is_committed()).collect();
    assert!(failed.is_empty(), "both only wait for each other: {failed:?}");
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;

    let unknown = Call::Applied(BranchOutcome::UnknownAuthority);
    let (of_one, of_two) = (some_txid_of(&cluster.api).await, some_txid_of(&another.api).await);
    assert_eq!(cluster.api.outcome(of_two).await, unknown);
    assert_eq!(another.api.outcome(of_one).await, unknown);
    // A life that this log has not had yet.
    let number = TxNumber { epoch: Epoch(99), n: 1 };
    assert_eq!(cluster.api.outcome(Txid { number, ..of_one }).await, unknown);
    // And one of its own that it never prepared: presumed abort.
    let number = TxNumber { epoch: Epoch(1), n: 1_000_000 };
    let never = cluster.api.outcome(Txid { number, ..of_one }).await;
    assert_ne!(never, Call::Applied(BranchOutcome::Committed));
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Invariants 1 and 5: a coordinator sleeps, another goes on with a copy of its log, the first wakes up in the middle of
/// a transaction. Its prepares are refused, and nothing of it is applied.
#[tokio::test]
async fn a_coordinator_that_wakes_up_in_an_old_epoch_prepares_nothing() {
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 2).await;
    cluster.peers[1].proxy().close(At::Before, "{\"prepare\":");
    let asleep = Transfer::new("half prepared", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, asleep) = (bank.clone(), asleep.clone());
        async move { bank.ask(&asleep).await }
    });
    cluster.peers[1].proxy().wait_held().await;
    cluster.coordinator.pause();
    let copy = cluster.dir().join("copy of the log");
    copy_dir(&cluster.data_dir(), &copy);
    let another = Another::start(&cluster, &copy).await;
    let meanwhile = Transfer {
        from: ("bank-a", 1),
        to: ("bank-b", 1),
        ..Transfer::new("meanwhile", "bank-a", "bank-b")
    };
    let meanwhile_told = bank.through(&another.api).insist(&meanwhile).await;
    assert!(meanwhile_told.is_committed(), "{meanwhile_told:?}");
    cluster.peers[1].proxy().open();
    cluster.coordinator.resume();
    let asleep_told = asking.await.unwrap();
    assert!(
        !asleep_told.is_committed(),
        "it has been prepared in a later epoch's time: {asleep_told:?}"
    );
    let later = Transfer::new("later", "bank-b", "bank-a");
    let later_told = wait_for("the first one to know that its log is old", || async {
        match bank.ask(&later).await {
            told @ Told::Rejected(ErrorCode::StaleLog) => Ok(told),
            told => Err(format!("{told:?}")),
        }
    })
    .await;
    // What it left in doubt is ended by the log, when that is started in its place.
    drop(another);
    cluster.coordinator.kill9();
    std::fs::remove_dir_all(cluster.data_dir()).unwrap();
    copy_dir(&copy, &cluster.data_dir());
    restart(&mut cluster.coordinator).await;
    wait_settled(&cluster).await;
    let ledger = [(asleep, asleep_told), (meanwhile, meanwhile_told), (later, later_told)];
    bank.check(&cluster, &ledger).await;
}

/// Promise *finishing*: a log goes on at another address. Its branches in doubt name the old one,
/// at which nobody answers: they are ended all the same, and no hand may end them another way.
#[tokio::test]
async fn a_log_that_goes_on_at_another_address_ends_what_is_in_doubt() {
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 1).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    wait_crashed(&mut cluster.coordinator).await;
    asking.await.unwrap();
    let held = async |peer: &Peer| {
        let list = peer.client(&cluster.http).branches(BranchState::Prepared).await;
        list.map(|list| list.branches).map_err(|error| error.to_string())
    };
    // The participants do not hear of the new address yet; an operator knows it.
    for peer in &cluster.peers {
        peer.proxy().set(Fault::CutBefore);
    }
    let moved = Another::reaching(&cluster, &cluster.data_dir(), Peer::url).await;
    let peer = &cluster.peers[0];
    let [branch] = &held(peer).await.unwrap()[..] else { panic!("one branch is in doubt") };
    let (txid, url) = (branch.txid.to_string(), moved.url());
    let words = ["branch", "resolve", &txid, "--participant", peer.agent.url(), "--url", &url];
    let by = ["--outcome", "committed", "--actor", "ana", "--reason", "its machine is dead"];
    let resolved = cluster.run(&[&words[..], &by[..]].concat());
    let said = String::from_utf8_lossy(&resolved.stderr).into_owned();
    assert_eq!(resolved.status.code(), Some(1), "{said}");
    // Aborted; or undecided, for as long as it cannot know that no participant is ahead of its log.
    assert!(said.contains(&url) && said.contains("it answers, and says"), "{said}");

    for peer in &cluster.peers {
        peer.proxy().set(Fault::None);
    }
    for peer in &cluster.peers {
        wait_for("the branch to end", || async {
            let held = held(peer).await?;
            if held.is_empty() { Ok(()) } else { Err(format!("{held:?}")) }
        })
        .await;
    }
    let told = bank.through(&moved.api).ask(&Transfer::new("the next", "bank-a", "bank-b")).await;
    assert!(told.is_committed(), "the keys are free: {told:?}");
}
