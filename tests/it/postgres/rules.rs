//! One agent beside a database, and messages said to it in the name of a log: the smallest
//! scenarios that show its rules. Each is what catches a mutant (`mutants.rs`).

use std::path::Path;

use assent_client::{Http, HttpOptions, ParticipantClient};
use assent_common::ids::TxNumber;
use assent_common::outcome::{Aborted, Applied, Call, Prepared};
use assent_common::wire::branch::BranchState;
use assent_common::{Epoch, ErrorCode};
use assent_process::{Assent, PostgresServer};
use assent_tests::cluster::restart;
use assent_tests::link::{Fault, Link, Which};
use assent_tests::messenger::Messenger;
use assent_tests::mixed::servers::DatabasePeer;
use assent_tests::proxy::Proxy;
use assent_tests::{Cluster, Options, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::LEDGER;
use crate::ASSENT;
use crate::invariants::wait_asked;

/// A server with two databases, and an agent beside one or both.
struct Databases {
    postgres: PostgresServer,
    peers: Vec<DatabasePeer>,
    log: Messenger,
    http: Http,
    dir: TempDir,
}

impl Databases {
    async fn start(names: &[&'static str]) -> Self {
        let dir = TempDir::with_prefix("assent-it-").unwrap();
        // What nobody waits for is not on disk for a while.
        let postgres = PostgresServer::start(dir.path().join("postgres"), ["wal_writer_delay=10s"]);
        let postgres = postgres.await.unwrap();
        let http = Http::new(&HttpOptions::default()).unwrap();
        let mut peers = Vec::new();
        for name in names {
            run(&postgres, "postgres", &format!("CREATE DATABASE {name}")).await;
            let accounts = "CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL); \
                 INSERT INTO acct SELECT n, 100 FROM generate_series(1, 9) n";
            run(&postgres, name, accounts).await;
            peers.push(DatabasePeer::start(ASSENT.as_ref(), name, &postgres, dir.path()).await);
        }
        let log = Messenger::at(peers[0].agent.url(), names[0], &http);
        Self { postgres, peers, log, http, dir }
    }

    async fn one() -> Self {
        Self::start(&[LEDGER]).await
    }

    fn agent(&mut self) -> &mut Assent {
        &mut self.peers[0].agent
    }

    /// The one number that a query of a database returns.
    async fn number(&self, database: &str, sql: &str) -> i64 {
        let client = client(&self.postgres, database).await;
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn balance(&self, database: &str, id: i32) -> i64 {
        self.number(database, &format!("SELECT balance FROM acct WHERE id = {id}")).await
    }

    async fn prepared(&self) -> i64 {
        self.number("postgres", "SELECT count(*) FROM pg_prepared_xacts").await
    }

    /// What a prepare is told, once the database can be used.
    async fn voted(&self, n: u64, ops: Value) -> Call<Prepared> {
        wait_for("the database to be used", || async {
            match self.log.prepare_sql(n, ops.clone()).await {
                Call::Unknown(why) => Err(why),
                Call::Refused(refusal) if refusal.code == ErrorCode::PostgresUnavailable => {
                    Err(refusal.detail)
                }
                voted => Ok(voted),
            }
        })
        .await
    }
}

async fn client(postgres: &PostgresServer, database: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&postgres.url(database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn run(postgres: &PostgresServer, database: &str, sql: &str) {
    client(postgres, database).await.batch_execute(sql).await.unwrap();
}

/// Takes 1 from an account.
fn take(id: i32) -> Value {
    json!([{"sql": "UPDATE acct SET balance = balance - 1 WHERE id = $1 RETURNING balance",
            "params": [id]}])
}

fn code<T: std::fmt::Debug>(call: Call<T>) -> ErrorCode {
    match call {
        Call::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_yes(call: &Call<Prepared>) -> bool {
    matches!(call, Call::Applied(Prepared::Yes(_)))
}

const APPLIED: Call<Applied> = Call::Applied(Applied { dirty_writes: 0 });

/// Invariant 2: a yes leaves the agent only after PostgreSQL has said that it is prepared.
#[tokio::test]
async fn a_vote_that_the_database_did_not_get_is_no_yes() {
    let all = Databases::one().await;
    let link = &all.peers[0].link;
    link.set(Fault::CutBefore(Which::With("PREPARE TRANSACTION")));
    let voted = all.log.prepare_sql(1, take(1)).await;
    assert!(!is_yes(&voted), "a vote that is nowhere: {voted:?}");
    assert_eq!(all.prepared().await, 0);
    link.set(Fault::None);
    let voted = all.voted(1, take(1)).await;
    assert!(is_yes(&voted), "{voted:?}");
    assert_eq!(all.prepared().await, 1);
}

/// Invariants 2 and 3: what was prepared is prepared, and said again, whoever is asked, and whether
/// or not its answer was heard.
#[tokio::test]
async fn a_vote_outlives_its_agent_and_the_server() {
    let mut all = Databases::one().await;
    let link = all.peers[0].link.clone();
    link.set(Fault::CutAfter(Which::With("PREPARE TRANSACTION")));
    let voted = all.log.prepare_sql(1, take(1)).await;
    assert!(matches!(voted, Call::Unknown(_)), "{voted:?}");
    link.set(Fault::None);
    all.postgres.restart().await.unwrap();
    restart(all.agent()).await;
    let first = all.voted(1, take(1)).await;
    assert!(is_yes(&first), "a vote is not said again: {first:?}");
    restart(all.agent()).await;
    let again = all.voted(1, take(1)).await;
    assert_eq!(first, again, "the vote has changed");
    assert_eq!(all.log.commit(1).await, APPLIED);
    assert_eq!((all.balance(LEDGER, 1).await, all.prepared().await), (99, 0));
}

/// Invariant 3: what a branch has read for share, and what it has written, no other one writes
/// before its outcome.
#[tokio::test]
async fn what_a_vote_rests_on_stays_locked_in_the_database() {
    let mut all = Databases::one().await;
    let read = json!([{"sql": "SELECT balance FROM acct WHERE id = 1 FOR SHARE"}]);
    assert!(is_yes(&all.log.prepare_sql(1, read).await));
    assert!(is_yes(&all.log.prepare_sql(2, take(2)).await));
    for _ in 0..2 {
        for (n, id) in [(3, 1), (4, 2)] {
            let other = all.voted(n, take(id)).await;
            assert_eq!(code(other), ErrorCode::LockConflict, "of account {id}");
        }
        restart(all.agent()).await;
    }
}

/// Invariant 6: the fence is in the database, not in the agent that was told to leave it.
#[tokio::test]
async fn a_fence_of_a_database_outlives_its_agent() {
    let mut all = Databases::one().await;
    assert_eq!(all.log.abort(1).await, Call::Applied(Aborted::Fenced));
    restart(all.agent()).await;
    assert_eq!(code(all.voted(1, take(1)).await), ErrorCode::Fenced);
    assert_eq!(all.prepared().await, 0);
}

/// Invariant 8: a branch is applied once, however often it is prepared and committed.
#[tokio::test]
async fn a_marker_of_a_database_outlives_its_agent() {
    let mut all = Databases::one().await;
    assert!(is_yes(&all.log.prepare_sql(1, take(1)).await));
    assert_eq!(all.log.commit(1).await, APPLIED);
    restart(all.agent()).await;
    assert_eq!(all.log.commit(1).await, APPLIED, "it is not applied any more");
    let late = all.voted(1, take(1)).await;
    assert_eq!(code(late), ErrorCode::WrongState, "it is run twice");
    assert_eq!((all.balance(LEDGER, 1).await, all.prepared().await), (99, 0));
}

/// Invariant 9: a commit of what is not there is never said to be applied.
#[tokio::test]
async fn a_commit_that_the_database_knows_nothing_of_is_not_applied() {
    let all = Databases::one().await;
    assert_eq!(code(all.log.commit(1).await), ErrorCode::BranchLost);
}

/// Invariant 5.
#[tokio::test]
async fn an_agent_of_a_database_refuses_a_prepare_of_an_earlier_life() {
    let mut all = Databases::one().await;
    let old = all.log.clone();
    all.log.coordinator.epoch = Epoch(2);
    assert_eq!(all.log.abort(1).await, Call::Applied(Aborted::Fenced));
    assert_eq!(code(old.prepare_sql(20, take(1)).await), ErrorCode::StaleEpoch);
}

/// Invariant 10: below the mark nothing begins; above it fences stay.
#[tokio::test]
async fn fences_of_a_database_go_by_the_mark() {
    let mut all = Databases::one().await;
    let late = all.log.clone();
    for n in [1, 2, 8, 9] {
        assert_eq!(all.log.abort(n).await, Call::Applied(Aborted::Fenced));
    }
    all.log.low_water = TxNumber { epoch: Epoch(1), n: 5 };
    assert_eq!(all.log.abort(10).await, Call::Applied(Aborted::Fenced));
    wait_for("the fences below the mark to be swept", || async {
        match all.number(LEDGER, "SELECT count(*) FROM assent.markers WHERE n < 5").await {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
    for n in [1, 3] {
        assert_eq!(code(late.prepare_sql(n, take(1)).await), ErrorCode::BelowLowWater);
    }
    assert_eq!(code(all.log.prepare_sql(9, take(1)).await), ErrorCode::Fenced);
    assert_eq!(all.prepared().await, 0);
}

/// Invariant 11: an agent finds what an earlier one has prepared, and asks about it.
#[tokio::test]
async fn an_agent_finds_what_was_prepared_before_it() {
    let mut all = Databases::one().await;
    assert!(is_yes(&all.log.prepare_sql(1, take(1)).await));
    restart(all.agent()).await;
    let agent = ParticipantClient::new(&all.http, all.peers[0].agent.url()).unwrap();
    wait_for("the branch to be listed as in doubt", || async {
        let listed = agent.branches(BranchState::Prepared).await;
        let listed = listed.map_err(|error| error.to_string())?;
        if listed.branches.len() == 1 { Ok(()) } else { Err(format!("{listed:?}")) }
    })
    .await;
}

/// Invariants 3 and 7: neither silence nor the word of a stranger ends a prepared transaction.
#[tokio::test]
async fn a_prepared_transaction_waits_for_the_word_of_its_own_log() {
    let stranger = Cluster::start(ASSENT, Options { participants: vec![], ..Options::default() });
    let (mut all, stranger) = tokio::join!(Databases::one(), stranger);
    let asked = Proxy::start(stranger.coordinator.url()).await;
    all.log.coordinator.url = asked.url().to_owned();
    assert!(is_yes(&all.log.prepare_sql(1, take(1)).await));
    let is_dropped = async || all.prepared().await < 1;
    wait_asked(&asked, 3, &is_dropped).await;
    assert!(!is_dropped().await, "a stranger's word has dropped it");

    let silent = Link::start(stranger.coordinator.url()).await;
    silent.set(Fault::CutAfter(Which::Every(1)));
    all.log.coordinator.url = silent.url();
    assert!(is_yes(&all.log.prepare_sql(2, take(2)).await));
    wait_for("questions without an answer", || async {
        let met = silent.met();
        if met >= 3 || all.prepared().await < 2 { Ok(()) } else { Err(met.to_string()) }
    })
    .await;
    assert_eq!(all.prepared().await, 2, "silence has dropped it");
}

/// Invariant 12: a database that has lost what its agent knew of is served by nobody.
#[tokio::test]
async fn a_database_that_went_back_in_time_is_noticed() {
    let mut all = Databases::one().await;
    assert!(is_yes(&all.log.prepare_sql(1, take(1)).await));
    assert_eq!(all.log.commit(1).await, APPLIED);
    let (data, backup) = (all.postgres.dir().join("data"), all.dir.path().join("backup"));
    all.postgres.kill9();
    copy(&data, &backup);
    all.postgres.restart().await.unwrap();
    assert!(is_yes(&all.voted(2, take(2)).await));
    assert_eq!(all.log.commit(2).await, APPLIED);
    all.postgres.kill9();
    copy(&backup, &data);
    all.postgres.restart().await.unwrap();
    let voted = all.voted(3, take(3)).await;
    assert_eq!(code(voted), ErrorCode::Quarantined);
}

/// Invariant 12: a number that no vote had is not on disk, and its loss is none.
#[tokio::test]
async fn what_a_killed_server_had_promised_nobody_is_no_loss() {
    for restarts_agent in [false, true] {
        let mut all = Databases::one().await;
        let taken = json!([{"sql": "INSERT INTO acct VALUES (1, 0)"}]);
        for n in 1..=3 {
            let refused = all.log.prepare_sql(n, taken.clone()).await;
            assert_eq!(code(refused), ErrorCode::ConstraintViolated);
        }
        if restarts_agent {
            restart(all.agent()).await;
        }
        // The agent looks at the numbers.
        let agent = ParticipantClient::new(&all.http, all.peers[0].agent.url()).unwrap();
        agent.data().await.unwrap();
        all.postgres.restart().await.unwrap();
        let voted = all.voted(4, take(1)).await;
        assert!(is_yes(&voted), "a loss was seen where there was none: {voted:?}");
    }
}

/// The files of a server that does not run, in another's place.
fn copy(from: &Path, to: &Path) {
    let text = |path: &Path| path.display().to_string();
    let _was_there = std::fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp").args(["-a", &text(from), &text(to)]).status();
    assert!(copied.unwrap().success(), "{} to {}", text(from), text(to));
}

/// One transaction with branches in two databases of one server: each has an outcome of its own.
#[tokio::test]
async fn two_databases_of_one_server_do_not_meet() {
    let mut all = Databases::start(&[LEDGER, "orders"]).await;
    let mut other = Messenger::at(all.peers[1].agent.url(), "orders", &all.http);
    other.coordinator = all.log.coordinator.clone();
    for n in 1..=2 {
        assert!(is_yes(&all.log.prepare_sql(n, take(1)).await));
        let voted = other.prepare_sql(n, take(2)).await;
        assert!(is_yes(&voted), "two branches of one transaction, on one server: {voted:?}");
        // What is in doubt here is of this database, after a restart too.
        all.postgres.restart().await.unwrap();
        for peer in &mut all.peers {
            restart(&mut peer.agent).await;
        }
        for peer in &all.peers {
            let agent = ParticipantClient::new(&all.http, peer.agent.url()).unwrap();
            wait_for("one branch to be listed", || async {
                let listed = agent.branches(BranchState::Prepared).await;
                let listed = listed.map_err(|error| error.to_string())?.branches;
                if listed.len() == 1 { Ok(()) } else { Err(format!("{listed:?}")) }
            })
            .await;
        }
        if n == 1 {
            assert_eq!(all.log.commit(n).await, APPLIED);
            assert_eq!(all.prepared().await, 1, "the other database's branch is ended too");
            assert_eq!(other.commit(n).await, APPLIED);
        } else {
            assert_eq!(other.abort(n).await, Call::Applied(Aborted::Fenced));
            assert_eq!(all.prepared().await, 1, "the other database's branch is ended too");
            assert_eq!(all.log.commit(n).await, APPLIED);
        }
        assert_eq!(all.prepared().await, 0);
    }
    assert_eq!((all.balance(LEDGER, 1).await, all.balance("orders", 2).await), (98, 99));
    assert_eq!(all.balance("orders", 1).await, 100);
}
