//! Implicit transactions on real processes: the votes are the decision, and whoever is left finishes them.

use assent_client::{ListFilter, Transaction};
use assent_common::crash::CrashPoint;
use assent_common::time::DurationMs;
use assent_common::wire::transaction::{BranchProgress, Protocol};
use assent_common::{ErrorCode, IdempotencyKey};
use assent_process::{AppendFsync, RedisOptions};
use assent_tests::cluster::{Peer, arm, redis_options, restart, wait_crashed};
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, audit, plain, wait_for, wait_settled};

use crate::ASSENT;

async fn implicit_bank(cluster: &Cluster, accounts: usize) -> Bank {
    let mut bank = Bank::open(cluster, accounts).await;
    bank.protocol = Protocol::Implicit;
    bank
}

/// How often a transfer took effect at a participant.
async fn effects(cluster: &Cluster, place: usize, transfer: &Transfer) -> i64 {
    let mark = format!("mark:{}", transfer.key);
    plain::run::<Option<i64>>(&cluster.peers[place].redis, &["GET", &mark]).await.unwrap_or(0)
}

async fn check_committed(cluster: &Cluster, bank: &Bank, transfer: Transfer) {
    let found = [effects(cluster, 0, &transfer).await, effects(cluster, 1, &transfer).await];
    assert_eq!(found, [1, 1], "all votes were there, and it is lost");
    bank.check(cluster, &[(transfer, Told::Unknown(String::new()))]).await;
}

#[tokio::test]
async fn transfers_commit_abort_and_meet_each_other() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = implicit_bank(&cluster, 2).await;
    let client = |name: usize, bank: Bank| {
        tokio::spawn(async move {
            let mut ledger = Vec::new();
            for n in 0..15 {
                let ends = [("bank-a", "bank-b"), ("bank-b", "bank-a")];
                let (from, to) = ends[n % 2];
                let amount = if n % 5 == 0 { 1_000_000 } else { 1 };
                let transfer =
                    Transfer { amount, ..Transfer::new(format!("{name}-{n}"), from, to) };
                let told = bank.ask(&transfer).await;
                ledger.push((transfer, told));
            }
            ledger
        })
    };
    let clients: Vec<_> = (0..4).map(|name| client(name, bank.clone())).collect();
    let mut ledger = Vec::new();
    for client in clients {
        ledger.extend(client.await.unwrap());
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
    for (transfer, told) in &ledger {
        match transfer.amount {
            1 => assert!(told.is_committed(), "{told:?}"),
            _ => assert_eq!(*told, Told::Aborted(ErrorCode::ExpectationFailed)),
        }
    }
}

/// The participants finish alone what all of them voted for: the coordinator stays down.
#[tokio::test]
async fn a_coordinator_that_dies_with_all_votes_leaves_a_commit() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = implicit_bank(&cluster, 1).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    wait_crashed(&mut cluster.coordinator).await;
    let told = asking.await.unwrap();
    assert!(!told.is_definite(), "{told:?}");
    wait_settled(&cluster).await;
    check_committed(&cluster, &bank, transfer).await;
}

/// A coordinator has one token for all its participants, and that opens their doors to each other.
#[tokio::test]
async fn participants_that_ask_for_a_token_reach_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "a-token-of-the-participants-0123456789").unwrap();
    let file: &'static str = Box::leak(file.display().to_string().into_boxed_str());
    let mut cluster = Cluster::start(
        ASSENT,
        Options {
            participant: vec!["--token-file", file],
            coordinator: vec!["--participant-token-file", file],
            ..Options::default()
        },
    )
    .await;
    // A token goes to configured addresses only.
    let urls: Vec<String> = cluster.peers.iter().map(Peer::url).collect();
    for (peer, other) in cluster.peers.iter_mut().zip(urls.iter().rev()) {
        peer.agent.respawn(&[("ASSENT_PARTICIPANT_PEERS", other)]).unwrap();
        peer.agent.wait_until_ready().await.unwrap();
    }
    let bank = implicit_bank(&cluster, 1).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    wait_crashed(&mut cluster.coordinator).await;
    asking.await.unwrap();
    wait_settled(&cluster).await;
    check_committed(&cluster, &bank, transfer).await;
}

/// The same, and its next life knows nothing of it: it asks the branches, and presumes nothing. What no mark collects then is
/// forgotten by the participants, when they have heard from each other that it is over.
#[tokio::test]
async fn a_next_life_asks_the_branches_of_what_it_does_not_know() {
    let options = Options { participant: vec!["--sweep-interval", "200ms"], ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = implicit_bank(&cluster, 1).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    wait_crashed(&mut cluster.coordinator).await;
    restart(&mut cluster.coordinator).await;
    asking.await.unwrap();
    wait_settled(&cluster).await;
    check_committed(&cluster, &bank, transfer).await;
    let after = Transfer::new("after", "bank-a", "bank-b");
    let told = bank.ask(&after).await;
    assert!(told.is_committed(), "{told:?}");
    wait_for("the markers of the life before to be forgotten", || async {
        let left = done_markers_before(&cluster, 3).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// The done-markers of transactions of lives before this one.
async fn done_markers_before(cluster: &Cluster, epoch: u64) -> Vec<String> {
    let mut left = Vec::new();
    for peer in &cluster.peers {
        let fields: Vec<String> = plain::run(&peer.redis, &["HKEYS", audit::CONTROL]).await;
        let markers = fields.into_iter().filter(|field| field.starts_with("d:"));
        let of = |field: &String| field.split('.').nth(1).and_then(|it| it.parse::<u64>().ok());
        left.extend(markers.filter(|field| of(field).is_some_and(|it| it < epoch)));
    }
    left
}

/// One branch was never asked to vote, and never can be afterwards: the other one is dropped, and the prepare that was
/// under way all the time finds its fence.
#[tokio::test]
async fn a_coordinator_that_dies_before_the_last_vote_leaves_nothing() {
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = implicit_bank(&cluster, 1).await;
    cluster.peers[1].proxy().close(At::Before, "{\"prepare\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    cluster.peers[1].proxy().wait_held().await;
    wait_for("the vote of bank-a", || async {
        match audit::leftovers(&cluster).await.unwrap() {
            left if left.iter().any(|field| field.starts_with("bank-a s:")) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    cluster.coordinator.kill9();
    wait_settled(&cluster).await;
    cluster.peers[1].proxy().open();
    let told = asking.await.unwrap();
    assert!(!told.is_definite(), "{told:?}");
    wait_settled(&cluster).await;
    assert_eq!(effects(&cluster, 0, &transfer).await, 0);
    bank.check(&cluster, &[(transfer, Told::Unknown(String::new()))]).await;
}

/// A participant that dies with its vote comes back to the outcome.
#[tokio::test]
async fn a_participant_that_dies_with_its_vote_comes_back_to_the_outcome() {
    for point in [CrashPoint::BeforeVoteDurable, CrashPoint::AfterVoteDurable] {
        let mut cluster = Cluster::start(ASSENT, Options::default()).await;
        let mut bank = implicit_bank(&cluster, 1).await;
        bank.timeout = DurationMs(1_000);
        arm(&mut cluster.peers[1].agent, &point.to_string()).await;
        let transfer = Transfer::new("the one", "bank-a", "bank-b");
        let asking = bank.asking(&transfer);
        wait_crashed(&mut cluster.peers[1].agent).await;
        restart(&mut cluster.peers[1].agent).await;
        let told = asking.await.unwrap();
        wait_settled(&cluster).await;
        bank.check(&cluster, &[(transfer, told)]).await;
    }
}

/// The time is over, and the coordinator has not heard one of the votes; but it was given, and anybody may have found it.
#[tokio::test]
async fn a_vote_that_was_lost_on_the_way_still_counts() {
    let options = Options { proxied: true, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let mut bank = implicit_bank(&cluster, 1).await;
    bank.timeout = DurationMs(1_000);
    let proxy = cluster.peers[1].proxy();
    proxy.close(At::After, "{\"prepare\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = bank.asking(&transfer);
    proxy.wait_held().await;
    wait_for("the coordinator to ask again what bank-b has", || async {
        let page = cluster.api.list(&ListFilter::default()).await.map_err(|it| it.to_string())?;
        let branch = page.transactions.first().and_then(|view| view.branches.get(1));
        match branch.map(|branch| branch.state) {
            None | Some(BranchProgress::Preparing) => Err(format!("{:?}", page.transactions)),
            Some(_) => Ok(()),
        }
    })
    .await;
    proxy.open();
    let told = asking.await.unwrap();
    assert!(!matches!(told, Told::Aborted(_)), "{told:?}");
    wait_settled(&cluster).await;
    check_committed(&cluster, &bank, transfer).await;
}

/// Nothing but the votes is the decision, so that they must last.
#[tokio::test]
async fn a_redis_that_may_lose_votes_takes_no_branch() {
    let cluster = Cluster::start(
        ASSENT,
        Options {
            participant: vec!["--allow-unsafe-redis"],
            redis: RedisOptions { appendfsync: AppendFsync::EverySecond, ..redis_options() },
            ..Options::default()
        },
    )
    .await;
    let mut bank = implicit_bank(&cluster, 1).await;
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    assert_eq!(bank.ask(&transfer).await, Told::Aborted(ErrorCode::NotDurable));
    wait_settled(&cluster).await;
    bank.protocol = Protocol::Logged;
    let told = bank.ask(&transfer).await;
    assert!(told.is_committed(), "{told:?}");
}

/// Under a key it is logged: the same key gets the same outcome over a restart, as ever.
#[tokio::test]
async fn with_a_key_it_is_logged() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    arm(&mut cluster.coordinator, &CrashPoint::BeforeDecision.to_string()).await;
    let key: IdempotencyKey = "the one".parse().unwrap();
    let request = || {
        let transaction = Transaction::default().protocol(Protocol::Implicit);
        let set = |ops: assent_client::transaction::Ops| ops.op(["INCR", "n"]);
        transaction.branch("bank-a", set).branch("bank-b", set).build().unwrap()
    };
    let api = cluster.api.clone();
    let first = request();
    let key_of_first = key.clone();
    let asking = tokio::spawn(async move { api.submit(&first, Some(&key_of_first), None).await });
    wait_crashed(&mut cluster.coordinator).await;
    restart(&mut cluster.coordinator).await;
    assert!(asking.await.unwrap().is_err(), "nobody was told");
    // What the log has no decision of is aborted, and the key is free for another run.
    let again = cluster.api.submit(&request(), Some(&key), None).await.unwrap();
    let same = cluster.api.submit(&request(), Some(&key), None).await.unwrap();
    assert_eq!(again.id, same.id);
    wait_settled(&cluster).await;
    for peer in &cluster.peers {
        assert_eq!(plain::run::<i64>(&peer.redis, &["GET", "n"]).await, 1, "{}", peer.name);
    }
}

/// Many at once, and the coordinator dies among them: each takes effect everywhere or nowhere, and who was told
/// `committed` finds it so.
#[tokio::test]
async fn under_load_a_coordinator_dies() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = implicit_bank(&cluster, 6).await;
    arm(&mut cluster.coordinator, &format!("{}:25", CrashPoint::BeforeDecision)).await;
    let client = |name: usize, bank: Bank| {
        tokio::spawn(async move {
            let mut ledger = Vec::new();
            for n in 0..20 {
                let (from, to) = [("bank-a", "bank-b"), ("bank-b", "bank-a")][(name + n) % 2];
                let transfer = Transfer {
                    from: (from, name),
                    to: (to, (name + n) % 6),
                    ..Transfer::new(format!("{name}-{n}"), from, to)
                };
                let told = bank.ask(&transfer).await;
                ledger.push((transfer, told));
            }
            ledger
        })
    };
    let clients: Vec<_> = (0..6).map(|name| client(name, bank.clone())).collect();
    wait_crashed(&mut cluster.coordinator).await;
    restart(&mut cluster.coordinator).await;
    let mut ledger = Vec::new();
    for client in clients {
        ledger.extend(client.await.unwrap());
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
    assert!(ledger.iter().any(|(_, told)| told.is_committed()), "{ledger:?}");
}
