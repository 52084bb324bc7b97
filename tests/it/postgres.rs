//! Transactions over a Redis and a PostgreSQL database: both sides say the same of each, whatever
//! is killed (promises *atomic*, *once*, *finishing*).

mod crashes;
mod history;
mod isolation;
mod rules;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use assent_process::Assent;
use assent_tests::cluster::restart;
use assent_tests::mixed::servers::MixedCluster;
use assent_tests::wait::wait_for;
use assent_tests::{Options, plain};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ASSENT;

pub(crate) use self::crashes::COVERED;

const ACCOUNTS: u32 = 5;

/// The database of these tests, and its participant; the server has another one.
const LEDGER: &str = "ledger";

/// What a transaction of these tests is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Moves 1 from an account of the database to one of Redis.
    Both,
    /// The same, which Redis refuses.
    Refused,
    /// The part of the database only, in one phase.
    Alone,
}

/// A coordinator, a participant `cache` with a Redis and one, `ledger`, with a database.
struct Mixed {
    servers: MixedCluster,
    http: reqwest::Client,
}

impl Mixed {
    async fn start() -> Self {
        let servers = MixedCluster::start(ASSENT, Options::default()).await;
        let last = ACCOUNTS - 1;
        let tables = format!(
            "CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL); \
             CREATE TABLE done (key text PRIMARY KEY); \
             INSERT INTO acct SELECT n, 0 FROM generate_series(0, {last}) n"
        );
        servers.sql(LEDGER, &tables).await;
        Self { servers, http: reqwest::Client::new() }
    }

    /// The agent beside the database.
    fn ledger(&mut self) -> &mut Assent {
        &mut self.servers.databases[0].agent
    }

    fn client(&self) -> Client {
        let url = format!("{}/v1/transactions", self.servers.cluster.coordinator.url());
        Client { http: self.http.clone(), url }
    }

    /// The keys of the transactions that each side has applied, and the sum of each.
    async fn books(&self) -> [(BTreeSet<String>, i64); 2] {
        let keys = self.servers.texts(LEDGER, "SELECT key FROM done").await;
        let sum = "SELECT sum(balance)::bigint::text FROM acct";
        let taken = self.servers.texts(LEDGER, sum).await[0].parse().unwrap();
        let redis = &self.servers.cluster.peers[0].redis;
        let done: Vec<String> = plain::run(redis, &["SMEMBERS", "done"]).await;
        let mut given = 0;
        for id in 0..ACCOUNTS {
            let balance: Option<i64> = plain::run(redis, &["GET", &format!("acct:{id}")]).await;
            given += balance.unwrap_or(0);
        }
        [(keys.into_iter().collect(), taken), (done.into_iter().collect(), given)]
    }

    /// Each side has what clients were told that it has, and nothing else.
    async fn check(&self, told: &[(String, Shape, Told)]) {
        self.servers.wait_settled().await;
        let [(in_database, taken), (in_redis, given)] = self.books().await;
        let alone: BTreeSet<String> = told
            .iter()
            .filter(|(_, shape, _)| *shape == Shape::Alone)
            .map(|(key, ..)| key.clone())
            .collect();
        let of_both: BTreeSet<String> = in_database.difference(&alone).cloned().collect();
        assert_eq!(of_both, in_redis, "one side only has some");
        assert_eq!((taken, given), (-(in_database.len() as i64), in_redis.len() as i64));
        for (key, _, told) in told {
            match told {
                Told::Committed => assert!(in_database.contains(key), "{key} was committed"),
                Told::Aborted => assert!(!in_database.contains(key), "{key} was aborted"),
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
    /// Asks for a transaction under this key, from an account to another.
    async fn ask(&self, key: &str, shape: Shape, from: u32, to: u32) -> Told {
        let mut branches = vec![json!({"participant": LEDGER, "ops": [
            {"sql": "UPDATE acct SET balance = balance - 1 WHERE id = $1", "params": [from],
             "expect": {"eq": 1}},
            {"sql": "INSERT INTO done VALUES ($1) RETURNING key", "params": [key],
             "expect": {"eq": key}},
        ]})];
        if shape != Shape::Alone {
            let wanted = if shape == Shape::Both { 1 } else { 2 };
            branches.push(json!({"participant": "cache", "ops": [
                {"cmd": ["INCRBY", format!("acct:{to}"), 1]},
                {"cmd": ["SADD", "done", key], "expect": {"eq": wanted}},
            ]}));
        }
        let body = json!({"timeout": "4s", "branches": branches});
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
    async fn insist(&self, key: &str, shape: Shape, from: u32, to: u32) -> Told {
        wait_for(&format!("an outcome of {key}"), || async {
            match self.ask(key, shape, from, to).await {
                Told::Unknown => Err("not known"),
                told => Ok(told),
            }
        })
        .await
    }
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
                    let first = api.ask(&key, Shape::Both, from, to).await;
                    told.push((key, from, to, first));
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
            0 => mixed.servers.postgres.restart().await.unwrap(),
            1 => {
                mixed.ledger().kill9();
                restart(mixed.ledger()).await;
            }
            2 => {
                mixed.servers.cluster.coordinator.kill9();
                restart(&mut mixed.servers.cluster.coordinator).await;
            }
            _ => {
                let peer = &mut mixed.servers.cluster.peers[0];
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
            let last = api.insist(&key, Shape::Both, from, to).await;
            if first != Told::Unknown {
                assert_eq!(last, first, "the answer of {key} has changed");
            }
            told.push((key, Shape::Both, last));
        }
    }
    let committed = told.iter().filter(|(.., told)| *told == Told::Committed).count();
    assert!(committed > 20, "{committed} of {} are committed: nothing was tested", told.len());
    mixed.check(&told).await;
}
