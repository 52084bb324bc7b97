//! Branches that an operator ended by hand: told as damage where the log says otherwise, and as nothing where it agrees.

use assent_client::participant::{ForcedOutcome, ResolveRequest};
use assent_common::Txid;
use assent_common::crash::CrashPoint;
use assent_common::wire::branch::BranchState;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchProgress, TransactionState, TransactionView};
use assent_tests::cluster::{Peer, arm, restart, wait_crashed};
use assent_tests::{Bank, Cluster, Options, Transfer, wait_for, wait_settled};

use crate::ASSENT;

async fn cluster() -> Cluster {
    Cluster::start(ASSENT, Options::default()).await
}

/// Dies at this point of a transfer; both branches are in doubt then.
async fn crash(cluster: &mut Cluster, point: CrashPoint) -> Bank {
    let bank = Bank::open(cluster, 1).await;
    arm(&mut cluster.coordinator, &point.to_string()).await;
    let (asked, transfer) = (bank.clone(), Transfer::new("the one", "bank-a", "bank-b"));
    let asking = tokio::spawn(async move { asked.ask(&transfer).await });
    wait_crashed(&mut cluster.coordinator).await;
    asking.await.unwrap();
    bank
}

async fn resolve(cluster: &Cluster, peer: &Peer, outcome: ForcedOutcome) -> Txid {
    let held = peer.client(&cluster.http).branches(BranchState::Prepared).await.unwrap();
    let [branch] = held.branches.as_slice() else { panic!("{held:?}") };
    let (actor, reason) = ("ana".to_owned(), "the log is gone".to_owned());
    let request = ResolveRequest { outcome, actor, reason, force: false, coordinator: None };
    peer.admin(&cluster.http).resolve(branch.txid, &request).await.unwrap();
    branch.txid
}

/// The transaction of the test, which is the newest one, once it has ended.
async fn ended(cluster: &Cluster) -> TransactionView {
    let newest = async || {
        let page = cluster.api.list(&assent_client::ListFilter::default()).await;
        page.map(|page| page.transactions.into_iter().next())
    };
    wait_for("the transaction to end", || async {
        match newest().await.map_err(|error| error.to_string())? {
            Some(view) if view.state == TransactionState::Ended => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    newest().await.unwrap().unwrap()
}

async fn coordinator_says(cluster: &Cluster, series: &str) -> bool {
    cluster.admin().metrics().await.unwrap().lines().any(|line| line == series)
}

/// Waits until the participant counts so many branches that were committed by hand against their log.
async fn wait_counted(peer: &Peer, cluster: &Cluster, count: u32) {
    let series = format!(
        "assent_heuristic_branches{{participant=\"{}\",outcome=\"committed\"}} {count}",
        peer.name
    );
    wait_for(&series, || async {
        let text = peer.admin(&cluster.http).metrics().await.map_err(|error| error.to_string())?;
        if text.lines().any(|line| line == series) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// The log has committed, and a hand has aborted while the coordinator was down: the transaction ends, and everybody who
/// looks is told, over restarts too.
#[tokio::test]
async fn a_hand_against_the_log_is_named_counted_and_not_told_again() {
    let mut cluster = cluster().await;
    let _bank = crash(&mut cluster, CrashPoint::AfterDecisionSync).await;
    resolve(&cluster, &cluster.peers[1], ForcedOutcome::Aborted).await;
    restart(&mut cluster.coordinator).await;
    for life in 0..2 {
        let view = ended(&cluster).await;
        assert_eq!(view.outcome, OutcomeWord::Committed);
        assert_eq!(view.applied, Some(false), "never called applied");
        let [a, b] = view.branches.as_slice() else { panic!("{view:?}") };
        assert_eq!((a.state, b.state), (BranchProgress::Applied, BranchProgress::HeuristicAborted));
        assert!(b.last_error.as_ref().unwrap().contains("ana"), "who did it: {b:?}");
        let series = |name: &str, outcome: &str, count: u32| {
            format!(
                "assent_branches_heuristic{{participant=\"{name}\",outcome=\"{outcome}\"}} {count}"
            )
        };
        for (name, outcome, count) in
            [("bank-b", "aborted", 1), ("bank-b", "committed", 0), ("bank-a", "aborted", 0)]
        {
            assert!(coordinator_says(&cluster, &series(name, outcome, count)).await, "life {life}");
        }
        let listed = cluster.api.participants().await.unwrap().participants;
        let damage = listed.iter().find(|it| it.name.as_str() == "bank-b").unwrap();
        assert_eq!(damage.heuristic.as_ref().unwrap().latest, [view.id]);
        let doctor = cluster.run(&["doctor"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(!doctor.status.success() && said.contains("branches ended by hand"), "{said}");
        assert!(said.contains(&view.id.to_string()), "{said}");
        let described = cluster.run(&["tx", "describe", &view.id.to_string()]);
        let said = String::from_utf8_lossy(&described.stdout).into_owned();
        assert!(said.contains("heuristic_aborted") && said.contains("ana"), "{said}");
        restart(&mut cluster.coordinator).await;
    }
    see_to(&cluster, "bank-b").await;
}

/// What doctor names is found, with what it was about; and whoever has seen to it says so.
async fn see_to(cluster: &Cluster, name: &str) {
    let said = |words: &[&str]| {
        let run = cluster.run(words);
        (run.status, String::from_utf8_lossy(&run.stdout).into_owned())
    };
    let (_, txid) = said(&["-o", "id", "branch", "list", "--by-hand", "--participant", name]);
    let txid = txid.trim();
    let (_, doctor) = said(&["doctor"]);
    assert!(doctor.contains(txid) && doctor.contains("assent branch forget"), "{doctor}");
    let (_, described) = said(&["tx", "describe", txid, "--participant", name]);
    assert!(described.contains("acct:0") && described.contains("ana"), "{described}");
    let who = ["--participant", name, "--actor", "ana", "--reason", "made good"];
    let (status, _) = said(&[&["branch", "forget", txid][..], &who].concat());
    assert!(status.success(), "{status}");
    wait_for("doctor is content", || async {
        let (status, doctor) = said(&["doctor"]);
        if status.success() { Ok(()) } else { Err(doctor) }
    })
    .await;
}

/// The log has nothing, so that it presumes abort and tells nobody: the participant asks what became of it.
#[tokio::test]
async fn a_hand_against_a_presumed_abort_is_told_by_the_participant_until_it_is_seen_to() {
    let mut cluster = cluster().await;
    let _bank = crash(&mut cluster, CrashPoint::BeforeDecision).await;
    let txid = resolve(&cluster, &cluster.peers[1], ForcedOutcome::Committed).await;
    restart(&mut cluster.coordinator).await;
    let peer = &cluster.peers[1];
    wait_counted(peer, &cluster, 1).await;
    let ready = peer.client(&cluster.http).readyz().await.unwrap();
    assert!(
        ready.text.contains("heuristic") && ready.text.contains(&txid.to_string()),
        "{ready:?}"
    );
    see_to(&cluster, "bank-b").await;
    wait_counted(&cluster.peers[1], &cluster, 0).await;
}

/// What a hand and the log agree on is no damage, whoever comes first.
#[tokio::test]
async fn a_hand_that_the_log_agrees_with_is_nothing_special() {
    let mut cluster = cluster().await;
    let bank = crash(&mut cluster, CrashPoint::AfterDecisionSync).await;
    resolve(&cluster, &cluster.peers[1], ForcedOutcome::Committed).await;
    restart(&mut cluster.coordinator).await;
    let view = ended(&cluster).await;
    assert_eq!(view.applied, Some(true));
    assert!(view.branches.iter().all(|branch| branch.state == BranchProgress::Applied), "{view:?}");
    wait_settled(&cluster).await;
    drop(bank);
    let listed = cluster.api.participants().await.unwrap().participants;
    assert!(listed.iter().all(|it| it.heuristic.is_none()), "{listed:?}");
}
