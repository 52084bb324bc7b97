//! A Redis that loses what it had on disk (invariants 9, 12): noticed, fenced, and made whole from the decision log, so that
//! every committed transaction is in all of its branches; or, where the log has let go of it, named, and left to people.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use assent_client::participant::ProbeState;
use assent_client::{SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_common::time::DurationMs;
use assent_common::wire::transaction::{
    AbandonRequest, ParticipantData, ParticipantView, Protocol,
};
use assent_process::RedisServer;
use assent_servers::file;
use assent_tests::cluster::redis_options;
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Options, Told, Transfer, aof, plain, wait_settled};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::ASSENT;

const CLIENTS: usize = 4;

type Ledger = Vec<(Transfer, Told)>;

/// Clients that insist on transfers until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
    done: Arc<AtomicUsize>,
    /// What others were told.
    ledger: Ledger,
}

/// Transfers between two participants, and at one.
const ALL_WAYS: &[(&str, &str)] =
    &[("bank-a", "bank-b"), ("bank-b", "bank-a"), ("bank-b", "bank-b")];

impl Load {
    fn start(bank: &Bank) -> Self {
        Self::of(bank, ALL_WAYS)
    }

    fn of(bank: &Bank, ways: &'static [(&'static str, &'static str)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done: Arc<AtomicUsize> = Arc::default();
        let client = |name: usize| {
            let (bank, stop, done) = (bank.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut ledger = Vec::new();
                for n in 0_usize.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let (from, to) = ways[n % ways.len()];
                    let transfer = Transfer {
                        key: format!("{name} {n}"),
                        from: (from, name),
                        to: (to, (name + 1) % CLIENTS),
                        amount: 1,
                    };
                    // What has no key must not be asked for twice.
                    let told = match bank.protocol {
                        Protocol::Logged => bank.insist(&transfer).await,
                        Protocol::Implicit => bank.ask(&transfer).await,
                    };
                    ledger.push((transfer, told));
                    done.fetch_add(1, Ordering::AcqRel);
                }
                ledger
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients, done, ledger: Vec::new() }
    }

    /// Waits until so many more transfers have their outcome.
    async fn go_on(&self, more: usize) {
        let until = self.done.load(Ordering::Acquire) + more;
        wait_for("the load to go on", || async {
            let done = self.done.load(Ordering::Acquire);
            if done >= until { Ok(()) } else { Err(format!("{done} of {until}")) }
        })
        .await;
    }

    async fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        let mut ledger = self.ledger;
        for client in self.clients {
            ledger.extend(client.await.unwrap());
        }
        ledger
    }
}

/// A bank whose opening balances are the log's to know too.
async fn open(cluster: &Cluster) -> Bank {
    Bank::open_in_log(cluster, CLIENTS).await
}

async fn audit(cluster: &Cluster, bank: &Bank, load: Load) {
    load.go_on(30).await;
    let mut ledger = load.finish().await;
    wait_settled(cluster).await;
    wait_for_data(cluster, ParticipantData::Open).await;
    let after = Transfer::new("after", "bank-a", "bank-b");
    let told = bank.insist(&after).await;
    assert!(told.is_committed(), "{told:?}");
    ledger.push((after, told));
    wait_settled(cluster).await;
    bank.check(cluster, &ledger).await;
}

/// An append-only file of a while ago is put back while clients go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_append_only_file_that_is_put_back_is_made_whole() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = open(&cluster).await;
    let load = Load::start(&bank);
    load.go_on(20).await;
    let backup = TempDir::with_prefix("assent-it-").unwrap();
    aof::copy(&mut cluster.peers[1].redis, backup.path()).unwrap();
    load.go_on(40).await;
    aof::put_back(&mut cluster.peers[1].redis, backup.path()).await.unwrap();
    audit(&cluster, &bank, load).await;
}

/// The same, and the agent and the coordinator have died too: what is known of the data is known from the log alone.
///
/// Of two branches only: what one phase wrote reaches the log a moment after its answer, and dies with a coordinator that
/// dies in between (docs/start/guarantees.md).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_is_noticed_by_processes_that_never_saw_the_data() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = open(&cluster).await;
    let load = Load::of(&bank, &ALL_WAYS[..2]);
    load.go_on(20).await;
    let backup = TempDir::with_prefix("assent-it-").unwrap();
    aof::copy(&mut cluster.peers[1].redis, backup.path()).unwrap();
    load.go_on(40).await;
    cluster.coordinator.kill9();
    cluster.peers[1].agent.kill9();
    aof::put_back(&mut cluster.peers[1].redis, backup.path()).await.unwrap();
    assent_tests::cluster::restart(&mut cluster.peers[1].agent).await;
    assent_tests::cluster::restart(&mut cluster.coordinator).await;
    audit(&cluster, &bank, load).await;
}

/// The same of implicit transactions, whose records come late: the coordinator lives, so that none is missing in its word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn implicit_transactions_are_made_whole_like_logged_ones() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let mut bank = open(&cluster).await;
    bank.protocol = Protocol::Implicit;
    let load = Load::of(&bank, &ALL_WAYS[..2]);
    bank.protocol = Protocol::Logged;
    load.go_on(20).await;
    let backup = TempDir::with_prefix("assent-it-").unwrap();
    aof::copy(&mut cluster.peers[1].redis, backup.path()).unwrap();
    load.go_on(40).await;
    aof::put_back(&mut cluster.peers[1].redis, backup.path()).await.unwrap();
    audit(&cluster, &bank, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_during_load_is_made_whole() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = open(&cluster).await;
    let load = Load::start(&bank);
    load.go_on(40).await;
    plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
    audit(&cluster, &bank, load).await;
}

/// Returns when the data of bank-b is what the ledger says. Nobody submits anything meanwhile.
async fn wait_untouched(cluster: &Cluster, lost: &str) {
    wait_for(&format!("bank-b to be made whole after {lost}"), || async {
        let redis = &cluster.peers[1].redis;
        let value: Option<String> = plain::run(redis, &["GET", "acct:0"]).await;
        let open: Option<String> = plain::run(redis, &["HGET", "assent:ctl", "m:inc"]).await;
        match (value, open) {
            (Some(_), Some(incarnation)) if incarnation != "0" => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    let data = wait_for_data(cluster, ParticipantData::Open).await;
    assert_eq!(data.up, Some(true), "{data:?}");
}

/// Nobody uses the system when its Redis is flushed: noticed and made whole all the same. And once more, with an agent
/// that starts on the empty Redis and knows nothing of what was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_loss_is_noticed_and_made_whole() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = open(&cluster).await;
    let load = Load::start(&bank);
    load.go_on(20).await;
    let ledger = load.finish().await;
    wait_settled(&cluster).await;
    plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
    wait_untouched(&cluster, "FLUSHALL").await;
    bank.check(&cluster, &ledger).await;

    cluster.peers[1].agent.kill9();
    plain::run::<()>(&cluster.peers[1].redis, &["FLUSHALL"]).await;
    assent_tests::cluster::restart(&mut cluster.peers[1].agent).await;
    wait_untouched(&cluster, "an agent's start on nothing").await;
    bank.check(&cluster, &ledger).await;
}

/// A Redis drops every `MULTI` of its file when it loads it, and keeps the votes, which are single writes: the number of
/// the last vote is there, what came before it is not, and the agent that knew has died. Nobody submits anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_loader_drops_out_of_the_history_is_noticed_and_redone() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let one = Transaction::new().branch("bank-b", |ops| ops.op(["SET", "order:1", "1"]));
    cluster.api.submit(&one.build().unwrap(), None, None).await.unwrap();
    let two = Transaction::new()
        .branch("bank-a", |ops| ops.op(["SET", "x", "1"]))
        .branch("bank-b", |ops| ops.op(["SET", "x", "1"]));
    cluster.api.submit(&two.build().unwrap(), None, None).await.unwrap();
    wait_settled(&cluster).await;

    let peer = &mut cluster.peers[1];
    peer.agent.kill9();
    peer.redis.kill9();
    file::drop_transactions(&file::appended(peer.redis.dir()), || true);
    peer.redis.restart().await.unwrap();
    assent_tests::cluster::restart(&mut peer.agent).await;
    wait_for("bank-b to have what was acknowledged", || async {
        let redis = &cluster.peers[1].redis;
        let values: Vec<Option<String>> = plain::run(redis, &["MGET", "order:1", "x"]).await;
        if values.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{values:?}")) }
    })
    .await;
    wait_for_data(&cluster, ParticipantData::Open).await;
}

/// A replica that lags takes its master's place and address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_replica_that_is_promoted_is_made_whole() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = open(&cluster).await;
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let mut replica = replica_of(&cluster.peers[1].redis, &dir.path().join("replica")).await;
    let load = Load::start(&bank);
    load.go_on(20).await;
    // From here on it hears nothing any more.
    plain::run::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    load.go_on(40).await;
    replica.kill9();
    aof::put_back(&mut cluster.peers[1].redis, replica.dir()).await.unwrap();
    audit(&cluster, &bank, load).await;
}

/// Invariant 2, at the level that `--min-replicas` sets: what the replica has not heard is no vote, so that a replica that is
/// promoted has every vote that counted, and nothing has to be redone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_replicas_must_have_survives_their_promotion() {
    let options = Options { participant: vec!["--min-replicas", "1"], ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let mut replicas = Vec::new();
    for peer in &cluster.peers {
        replicas.push(replica_of(&peer.redis, &dir.path().join(peer.name)).await);
    }
    let bank = open(&cluster).await;
    let mut load = Load::start(&bank);
    load.go_on(30).await;

    // A replica that hears nothing makes no vote, and no failure: the client is told when it is known.
    replicas[1].pause();
    let mut impatient = bank.clone();
    impatient.timeout = DurationMs(300);
    let told = impatient.ask(&Transfer::new("unheard", "bank-a", "bank-b")).await;
    assert!(!told.is_committed(), "{told:?}");
    replicas[1].resume();
    load.ledger.push((Transfer::new("unheard", "bank-a", "bank-b"), told));
    load.go_on(30).await;

    let redone = redone(&cluster).await;
    cluster.peers[1].redis.kill9();
    replicas[1].kill9();
    aof::put_back(&mut cluster.peers[1].redis, replicas[1].dir()).await.unwrap();
    replicas[1] = replica_of(&cluster.peers[1].redis, &dir.path().join("next")).await;
    audit(&cluster, &bank, load).await;
    assert_eq!(self::redone(&cluster).await, redone, "a vote that counted was lost");
}

/// What `--min-replicas` waits for is named where anybody looks: in the answer, by the probe and by
/// `doctor`. Where no replica is there nothing is voted for, and the no comes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_missing_are_named() {
    let options = Options { participant: vec!["--min-replicas", "1"], ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let both = || {
        let both = Transaction::new().timeout(DurationMs(3_000));
        let both = both.branch("bank-a", |ops| ops.op(["INCR", "n"]));
        both.branch("bank-b", |ops| ops.op(["INCR", "n"])).build().unwrap()
    };
    let aborted = async || match cluster.api.submit(&both(), None, None).await {
        Err(SubmitError::Aborted(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let problem = aborted().await;
    assert_eq!(problem.code, ErrorCode::RedisRefuses, "{problem:?}");
    assert!(problem.detail.contains("0 of 1 replicas acknowledged"), "{problem:?}");
    let client = cluster.peers[1].client(&cluster.http);
    let probe = client.readyz().await.unwrap();
    assert_eq!(probe.state, ProbeState::Failing, "{}", probe.text);
    assert!(probe.text.contains("0 of 1 replicas acknowledged"), "{}", probe.text);
    let doctor = tokio::task::block_in_place(|| cluster.run(&["doctor"]));
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("0 of 1 replicas acknowledged"), "{said}");

    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let mut replicas = Vec::new();
    for peer in &cluster.peers {
        replicas.push(replica_of(&peer.redis, &dir.path().join(peer.name)).await);
    }
    wait_for("a transaction to commit with replicas", || async {
        cluster.api.submit(&both(), None, None).await.map(drop).map_err(|why| why.to_string())
    })
    .await;
    assert_eq!(client.readyz().await.unwrap().state, ProbeState::Ok);

    // It is connected, and hears nothing.
    replicas[1].pause();
    let problem = aborted().await;
    assert!(problem.detail.contains("0 of 1 replicas acknowledged"), "{problem:?}");
    let probe = client.readyz().await.unwrap();
    assert_eq!(probe.state, ProbeState::Failing, "{}", probe.text);
    assert!(probe.text.contains("0 of 1 replicas acknowledged"), "{}", probe.text);
    replicas[1].resume();
    wait_settled(&cluster).await;
    wait_for("a transaction to commit again", || async {
        cluster.api.submit(&both(), None, None).await.map(drop).map_err(|why| why.to_string())
    })
    .await;
}

async fn redone(cluster: &Cluster) -> Option<String> {
    let metrics = cluster.admin().metrics().await.unwrap();
    let name = "assent_branches_redone_total{participant=\"bank-b\"}";
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.map(str::to_owned)
}

async fn replica_of(master: &RedisServer, dir: &Path) -> RedisServer {
    let replica = RedisServer::start(dir, redis_options()).await.unwrap();
    plain::run::<()>(master, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let port = master.port().to_string();
    plain::run::<()>(&replica, &["REPLICAOF", "127.0.0.1", &port]).await;
    wait_for("the replica to follow", || async {
        let info: String = plain::run(&replica, &["INFO"]).await;
        let follows = info.contains("master_link_status:up");
        // Its file holds what it was sent only when the rewrite that follows a full copy is done.
        let kept = info.contains("aof_enabled:1")
            && info.contains("aof_rewrite_in_progress:0")
            && info.contains("aof_rewrite_scheduled:0");
        if follows && kept { Ok(()) } else { Err(info) }
    })
    .await;
    replica
}

async fn wait_for_data(cluster: &Cluster, data: ParticipantData) -> ParticipantView {
    wait_for(&format!("the data of bank-b to be {data:?}"), || async {
        let list = cluster.api.participants().await.map_err(|error| error.to_string())?;
        let view = list.participants.into_iter().find(|view| view.name.as_str() == "bank-b");
        let view = view.ok_or("no bank-b")?;
        if view.data == data { Ok(view) } else { Err(format!("{view:?}")) }
    })
    .await
}

/// What the log has let go of cannot be redone: nothing runs there, the loss is named, and an operator decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_behind_the_log_is_named_and_waits_for_an_operator() {
    let options = Options {
        coordinator: vec!["--retention", "1ms"],
        segment_bytes: 256 * 1024,
        ..Options::default()
    };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let bank = open(&cluster).await;
    let backup = TempDir::with_prefix("assent-it-").unwrap();
    aof::copy(&mut cluster.peers[1].redis, backup.path()).unwrap();
    let load = Load::start(&bank);
    wait_for("the log to let go of its first segment", || async {
        let first = cluster.data_dir().join("00000001.log");
        if first.exists() { Err(format!("{} is there", first.display())) } else { Ok(()) }
    })
    .await;
    load.finish().await;
    wait_settled(&cluster).await;
    aof::put_back(&mut cluster.peers[1].redis, backup.path()).await.unwrap();

    let after = Transfer::new("after", "bank-a", "bank-b");
    assert_eq!(bank.ask(&after).await, Told::Aborted(ErrorCode::Quarantined));
    let view = wait_for_data(&cluster, ParticipantData::Lost).await;
    let said = view.last_error.unwrap();
    assert!(said.contains("keeps no writes up to vote"), "{said}");
    let listed = cluster.run(&["participants", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("lost"), "{listed:?}");

    let request = AbandonRequest { actor: "ana".to_owned(), reason: "no other copy".to_owned() };
    cluster.admin().accept_loss(&"bank-b".parse().unwrap(), &request).await.unwrap();
    wait_for_data(&cluster, ParticipantData::Open).await;
    let told = bank.insist(&Transfer::new("at last", "bank-a", "bank-b")).await;
    assert!(told.is_committed(), "{told:?}");
}
