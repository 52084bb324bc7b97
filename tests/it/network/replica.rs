//! The link from a Redis to its replica, and what becomes of a replica that lags when it is promoted.

use assent_client::participant::ProbeState;
use assent_process::RedisServer;
use assent_tests::cluster::redis_options;
use assent_tests::link::{Fault, Way, Which};
use assent_tests::load::Load;
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Link, Options, Transfer, plain, wait_for, wait_settled};

use super::{ACCOUNTS, CLIENTS, audit, replicated, start};
use crate::ASSENT;

/// A replica of a server, behind a link of its own.
async fn replica_of(cluster: &Cluster, peer: usize) -> (RedisServer, Link) {
    let master = &cluster.peers[peer].redis;
    let link = Link::start(&format!("127.0.0.1:{}", master.port())).await;
    let (host, port) = ("127.0.0.1", link.address().port().to_string());
    let dir = cluster.dir().join("replica");
    let replica = RedisServer::start(dir, redis_options()).await.unwrap();
    plain::run::<()>(&replica, &["REPLICAOF", host, &port]).await;
    (replica, link)
}

/// How far a server's stream of replication is.
async fn offset(server: &RedisServer) -> u64 {
    let info: String = plain::run(server, &["INFO", "replication"]).await;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let name =
        if field("role:") == Some("slave") { "slave_repl_offset:" } else { "master_repl_offset:" };
    field(name).and_then(|offset| offset.parse().ok()).unwrap_or(0)
}

async fn wait_in_step(master: &RedisServer, replica: &RedisServer) {
    wait_for("the replica to catch up", || async {
        let (master, replica) = (offset(master).await, offset(replica).await);
        if master > 0 && replica >= master { Ok(()) } else { Err(format!("{replica} of {master}")) }
    })
    .await;
}

/// Promise *finishing*: a replica that cannot be reached holds up nothing, and has everything when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_a_redis_and_its_replica_hold_up_nothing() {
    let (cluster, bank) = start(false).await;
    let (replica, link) = replica_of(&cluster, 1).await;
    let master = &cluster.peers[1].redis;
    wait_in_step(master, &replica).await;
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    for fault in [
        Fault::CutBefore(Which::Every(1)),
        Fault::CutAfter(Which::Every(1)),
        Fault::Delay(Way::Both, 30),
        Fault::Throttle(200_000),
        Fault::BlackHole(Way::Requests),
        Fault::BlackHole(Way::Answers),
        Fault::BlackHole(Way::Both),
    ] {
        let met = link.met();
        link.set(fault);
        link.wait_met(met, 1).await;
        load.wait_committed(20).await;
        link.set(Fault::None);
    }
    audit(&cluster, &bank, load).await;
    wait_in_step(master, &replica).await;
    for key in (0..ACCOUNTS).map(|account| format!("acct:{account}")) {
        let words = ["GET", &key];
        let (here, there): (i64, i64) =
            (plain::run(master, &words).await, plain::run(&replica, &words).await);
        assert_eq!(here, there, "{key}");
    }
}

/// Invariants 9 and 12: a replica that lagged is promoted, and a vote is gone. Nobody is told that the branch was
/// applied before it is, and the agent does not vote on that data as if nothing had happened.
#[tokio::test]
async fn a_lagging_replica_that_is_promoted_is_noticed_and_no_loss_is_called_applied() {
    let redis = replicated();
    let options = Options { linked: true, proxied: true, redis, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 1).await;
    let (replica, replication) = replica_of(&cluster, 1).await;
    let before = bank.ask(&Transfer::new("before", "bank-a", "bank-b")).await;
    assert!(before.is_committed(), "{before:?}");
    wait_in_step(&cluster.peers[1].redis, &replica).await;

    replication.set(Fault::BlackHole(Way::Both));
    let proxy = cluster.peers[1].proxy().clone();
    proxy.close(At::Before, "{\"commit\":");
    let lost = Transfer::new("lost", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, lost) = (bank.clone(), lost.clone());
        async move { bank.ask(&lost).await }
    });
    proxy.wait_held().await;
    cluster.peers[1].redis.kill9();
    plain::run::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    let promoted = format!("127.0.0.1:{}", replica.port()).parse().unwrap();
    cluster.peers[1].redis_link.as_ref().unwrap().point_at(promoted);
    proxy.open();

    let client = cluster.peers[1].client(&cluster.http);
    let mark = || async {
        let mark: Option<i64> = plain::run(&replica, &["GET", "mark:lost"]).await;
        mark.is_some()
    };
    wait_for("the loss to be noticed, or made good", || async {
        let probe = client.readyz().await.map_err(|why| why.0)?;
        let is_noticed =
            probe.state == ProbeState::Failing && probe.text.contains("votes were lost");
        if is_noticed || mark().await { Ok(()) } else { Err(probe.text) }
    })
    .await;
    let told = if asking.is_finished() { Some(asking.await.unwrap()) } else { None };
    if told.is_some_and(|told| told.is_committed()) {
        assert!(mark().await, "told committed, and the branch is lost");
    }
}

/// The same without a loss: what the replica has is what was voted, and everything goes on there.
#[tokio::test]
async fn a_replica_in_step_that_is_promoted_loses_nothing() {
    let redis = replicated();
    let options = Options { linked: true, proxied: true, redis, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = Bank::open(&cluster, 1).await;
    let (replica, _replication) = replica_of(&cluster, 1).await;
    let proxy = cluster.peers[1].proxy().clone();
    proxy.close(At::Before, "{\"commit\":");
    let transfer = Transfer::new("the one", "bank-a", "bank-b");
    let asking = tokio::spawn({
        let (bank, transfer) = (bank.clone(), transfer.clone());
        async move { bank.ask(&transfer).await }
    });
    proxy.wait_held().await;
    wait_in_step(&cluster.peers[1].redis, &replica).await;
    cluster.peers[1].redis.kill9();
    plain::run::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    let promoted = format!("127.0.0.1:{}", replica.port()).parse().unwrap();
    cluster.peers[1].redis_link.as_ref().unwrap().point_at(promoted);
    proxy.open();
    let first = asking.await.unwrap();
    let told = bank.insist(&transfer).await;
    assert!(told.is_committed(), "{first:?}, then {told:?}");
    // From here on the audit looks at the replica.
    cluster.peers[1].redis = replica;
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told)]).await;
}
