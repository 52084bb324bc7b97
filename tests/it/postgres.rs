//! Transactions over a Redis and a PostgreSQL database: both sides say the same of each, whatever
//! is killed (promises *atomic*, *once*, *finishing*).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use assent_common::crash::CrashPoint;
use assent_process::{Assent, Port, PostgresServer, participant_arguments};
use assent_tests::cluster::{args, arm, restart, wait_crashed};
use assent_tests::wait::wait_for;
use assent_tests::{Cluster, Options};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ASSENT;

/// Points of this file, and of the matrix where a process with a database passes them.
pub(crate) const COVERED: &[CrashPoint] = &[CrashPoint::BeforeSqlPrepared];

const ACCOUNTS: u32 = 5;

/// A coordinator, a participant `cache` with a Redis and one, `ledger`, with a database.
struct Mixed {
    cluster: Cluster,
    postgres: PostgresServer,
    ledger: Assent,
    http: reqwest::Client,
    _ports: [Port; 2],
}

impl Mixed {
    async fn start() -> Self {
        let options = Options { participants: vec!["cache"], ..Options::default() };
        let cluster = Cluster::start(ASSENT, options).await;
        let postgres = PostgresServer::start(cluster.dir().join("postgres"), []).await.unwrap();
        let ports = Port::pair().unwrap();
        let mut arguments = participant_arguments("ledger", "", &ports);
        arguments.retain(|word| !word.starts_with("--redis"));
        arguments.push(format!("--postgres={}", postgres.url("postgres")));
        arguments.extend(args(["--resolve-interval", "300ms"]));
        let (url, log) = (ports[0].url(), cluster.dir().join("ledger.log"));
        let ledger = Assent::start("ledger", ASSENT.as_ref(), arguments, &url, &log).await.unwrap();
        cluster.admin().set_participant(&"ledger".parse().unwrap(), &url).await.unwrap();
        let http = reqwest::Client::new();
        let mixed = Self { cluster, postgres, ledger, http, _ports: ports };
        mixed
            .sql(&format!(
                "CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL); \
                 CREATE TABLE done (key text PRIMARY KEY); \
                 INSERT INTO acct SELECT n, 0 FROM generate_series(0, {}) n",
                ACCOUNTS - 1
            ))
            .await;
        mixed
    }

    async fn database(&self) -> tokio_postgres::Client {
        let url = self.postgres.url("postgres");
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn sql(&self, sql: &str) {
        self.database().await.batch_execute(sql).await.unwrap();
    }

    fn client(&self) -> Client {
        let url = format!("{}/v1/transactions", self.cluster.coordinator.url());
        Client { http: self.http.clone(), url }
    }

    /// Returns when nothing is in doubt at either side, and everything answers.
    async fn settled(&self) {
        wait_for("no prepared transaction to be left", || async {
            let (client, connection) =
                tokio_postgres::connect(&self.postgres.url("postgres"), tokio_postgres::NoTls)
                    .await
                    .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let row = client.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).await;
            match row.map_err(|error| error.to_string())?.get::<_, i64>(0) {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
        assent_tests::wait_settled(&self.cluster).await;
    }

    /// The keys of the transactions that each side has applied, and the sum of each.
    async fn books(&self) -> [(BTreeSet<String>, i64); 2] {
        let database = self.database().await;
        let rows = database.query("SELECT key FROM done", &[]).await.unwrap();
        let keys = rows.iter().map(|row| row.get(0)).collect();
        let sum = database.query_one("SELECT sum(balance)::bigint FROM acct", &[]).await.unwrap();
        let client = redis::Client::open(self.cluster.peers[0].redis.url()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let done: BTreeSet<String> =
            redis::cmd("SMEMBERS").arg("done").query_async(&mut redis).await.unwrap();
        let mut total = 0;
        for id in 0..ACCOUNTS {
            let balance: Option<i64> =
                redis::cmd("GET").arg(format!("acct:{id}")).query_async(&mut redis).await.unwrap();
            total += balance.unwrap_or(0);
        }
        [(keys, sum.get(0)), (done, total)]
    }

    /// Both sides have the same transactions, and no others than those that clients were told of.
    async fn check(&self, told: &[(String, Told)]) {
        self.settled().await;
        let [(in_database, taken), (in_redis, given)] = self.books().await;
        let differ: Vec<_> = in_database.symmetric_difference(&in_redis).collect();
        assert!(differ.is_empty(), "one side only has {differ:?}");
        assert_eq!((taken, given), (-(in_redis.len() as i64), in_redis.len() as i64));
        for (key, told) in told {
            match told {
                Told::Committed => assert!(in_redis.contains(key), "{key} was committed"),
                Told::Aborted => assert!(!in_redis.contains(key), "{key} was aborted"),
                Told::Unknown => {}
            }
        }
    }
}

/// What a client was told of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Committed,
    Aborted,
    Unknown,
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// Moves 1 from an account of the database to one of Redis, under this key.
    async fn ask(&self, key: &str, from: u32, to: u32) -> Told {
        let ledger = json!([
            {"sql": "UPDATE acct SET balance = balance - 1 WHERE id = $1", "params": [from],
             "expect": {"eq": 1}},
            {"sql": "INSERT INTO done VALUES ($1) RETURNING key", "params": [key],
             "expect": {"eq": key}},
        ]);
        let cache = json!([
            {"cmd": ["INCRBY", format!("acct:{to}"), 1]},
            {"cmd": ["SADD", "done", key], "expect": {"eq": 1}},
        ]);
        let body = json!({"timeout": "4s", "branches": [
            {"participant": "ledger", "ops": ledger},
            {"participant": "cache", "ops": cache},
        ]});
        let request = self.http.post(&self.url).header("Idempotency-Key", key).json(&body);
        let Ok(answer) = request.timeout(Duration::from_secs(8)).send().await else {
            return Told::Unknown;
        };
        let body: Value = answer.json().await.unwrap_or_default();
        match body["outcome"].as_str() {
            Some("committed") => Told::Committed,
            Some("aborted") => Told::Aborted,
            _ => Told::Unknown,
        }
    }

    /// Asks until the answer is definite.
    async fn insist(&self, key: &str, from: u32, to: u32) -> Told {
        wait_for(&format!("an outcome of {key}"), || async {
            match self.ask(key, from, to).await {
                Told::Unknown => Err("not known"),
                told => Ok(told),
            }
        })
        .await
    }
}

/// The agent beside the database dies at this point, comes back, and both sides agree.
async fn agent_dies_at(point: CrashPoint) {
    let mut mixed = Mixed::start().await;
    arm(&mut mixed.ledger, &format!("{point}:1")).await;
    let client = mixed.client();
    let asking = tokio::spawn(async move { client.ask("the one", 0, 1).await });
    wait_crashed(&mut mixed.ledger).await;
    restart(&mut mixed.ledger).await;
    let first = asking.await.unwrap();
    let client = mixed.client();
    let told = client.insist("the one", 0, 1).await;
    if first != Told::Unknown {
        assert_eq!(told, first, "the answer has changed");
    }
    let after = client.insist("after", 0, 1).await;
    assert_eq!(after, Told::Committed);
    mixed.check(&[("the one".to_owned(), told), ("after".to_owned(), after)]).await;
}

#[tokio::test]
async fn an_agent_that_dies_between_its_vote_and_the_prepare_leaves_one_outcome() {
    agent_dies_at(CrashPoint::BeforeSqlPrepared).await;
}

#[tokio::test]
async fn an_agent_of_a_database_that_dies_after_its_vote_leaves_one_outcome() {
    agent_dies_at(CrashPoint::AfterVoteDurable).await;
}

#[tokio::test]
async fn an_agent_of_a_database_that_dies_before_it_applies_leaves_one_outcome() {
    agent_dies_at(CrashPoint::BeforeApply).await;
}

#[tokio::test]
async fn an_agent_of_a_database_that_dies_after_it_applied_leaves_one_outcome() {
    agent_dies_at(CrashPoint::AfterApply).await;
}

/// Clients move money from the database to Redis, while one process after the other is killed.
#[tokio::test]
async fn a_redis_and_a_database_agree_whatever_is_killed() {
    const CLIENTS: u32 = 4;
    const KILLS: usize = 10;
    let mut mixed = Mixed::start().await;
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (api, stopped) = (mixed.client(), stopped.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                for n in 0.. {
                    if *stopped.borrow() {
                        break;
                    }
                    let key = format!("{client}-{n}");
                    let (from, to) = ((client + n) % ACCOUNTS, (client * 2 + n) % ACCOUNTS);
                    told.push((key.clone(), from, to, api.ask(&key, from, to).await));
                }
                told
            })
        })
        .collect();
    let mut random = StdRng::seed_from_u64(15);
    for turn in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(random.random_range(100..600));
        tokio::time::sleep_until(until.into()).await;
        match turn % 4 {
            0 => mixed.postgres.restart().await.unwrap(),
            1 => {
                mixed.ledger.kill9();
                restart(&mut mixed.ledger).await;
            }
            2 => {
                mixed.cluster.coordinator.kill9();
                restart(&mut mixed.cluster.coordinator).await;
            }
            _ => {
                let peer = &mut mixed.cluster.peers[0];
                peer.agent.kill9();
                peer.redis.restart().await.unwrap();
                restart(&mut peer.agent).await;
            }
        }
    }
    stop.send_replace(true);
    let mut told = Vec::new();
    let api = mixed.client();
    for client in clients {
        for (key, from, to, first) in client.await.unwrap() {
            // Asked again, each has one outcome, and the same.
            let last = api.insist(&key, from, to).await;
            if first != Told::Unknown {
                assert_eq!(last, first, "the answer of {key} has changed");
            }
            told.push((key, last));
        }
    }
    let committed = told.iter().filter(|(_, told)| *told == Told::Committed).count();
    assert!(committed > 20, "{committed} of {} are committed: nothing was tested", told.len());
    mixed.check(&told).await;
}
