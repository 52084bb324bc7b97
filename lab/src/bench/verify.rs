//! Whether the data is what the clients were told. A bench that counts what did not happen is worth
//! nothing.
//!
//! Outcomes that were not known are asked for first. Then the numbers at each participant must sum
//! up to what was there and what was committed; values that were written at two participants must
//! be the same at both, whole, and of no transaction that was aborted; and reads must have found
//! what nobody changed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use assent::Failure;
use assent_client::CoordinatorClient;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::load::{Ledger, Pending};
use super::stage::{chunks, of_redis};
use super::unit::stamp_of;
use super::workload::Family;

/// How long branches that were decided may take to be applied, after the load.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// How long an outcome that is not known is waited for.
const RESOLVE_MS: u64 = 30_000;

/// What all runs of a bench told their clients.
#[derive(Debug, Default)]
pub(super) struct Books {
    sums: Vec<i64>,
    pending: Vec<Pending>,
    not_stored: BTreeSet<u64>,
    misread: u64,
    answered: u64,
}

/// The verdict, part of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Whether the data is what the clients were told.
    pub(super) as_reported: bool,
    /// What is not; empty if all is.
    pub(super) findings: Vec<String>,
    /// Jobs that clients had an answer to.
    pub(super) answered: u64,
    /// Outcomes that were not known at first, and were asked for.
    pub(super) resolved: usize,
    /// Keys whose numbers were summed up.
    pub(super) counted_keys: u64,
    /// Values that were compared between two participants.
    pub(super) compared_values: usize,
}

/// What is at one participant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holding {
    sum: i64,
    /// The stamps of stored values by key; `None` where a value is not whole.
    values: Vec<(String, Option<u64>)>,
}

impl Books {
    pub(super) fn enter(&mut self, ledger: Ledger) {
        let Ledger { sums, pending, not_stored, misread, answered } = ledger;
        if self.sums.len() < sums.len() {
            self.sums.resize(sums.len(), 0);
        }
        for (sum, by) in self.sums.iter_mut().zip(sums) {
            *sum += by;
        }
        self.pending.extend(pending);
        self.not_stored.extend(not_stored);
        self.misread += misread;
        self.answered += answered;
    }

    /// Asks for the outcomes that are not known; returns how many there were.
    pub(super) async fn resolve(&mut self, api: &CoordinatorClient) -> Result<usize, Failure> {
        let pending = std::mem::take(&mut self.pending);
        let count = pending.len();
        for Pending { id, changes, stamp } in pending {
            let parsed = id.parse().map_err(|error| Failure::of("a transaction's id", &error))?;
            let view = api.transaction(parsed, Some(DurationMs(RESOLVE_MS))).await;
            match view.map_err(|error| Failure::of_call(api.base_url(), error))?.outcome {
                OutcomeWord::Committed => changes.apply(&mut self.sums),
                OutcomeWord::Aborted => self.not_stored.extend(stamp),
                OutcomeWord::Pending => {
                    return Err(Failure::error(format!(
                        "{id} is still pending after {RESOLVE_MS} ms: nothing can be said about the data"
                    )));
                }
            }
        }
        Ok(count)
    }

    /// Reads the data until it is as reported, or until everything had the time to settle.
    pub(super) async fn check(
        &self,
        redis: &mut [MultiplexedConnection],
        families: &[Family],
        resolved: usize,
    ) -> Result<Verdict, Failure> {
        let began = Instant::now();
        loop {
            let mut holdings = Vec::new();
            for (place, connection) in redis.iter_mut().enumerate() {
                let of_place = families.iter().filter(|family| family.place == place);
                let sum = sum(connection, of_place).await?;
                holdings.push(Holding { sum, values: values(connection).await? });
            }
            let verdict = self.judge(families, &holdings, resolved);
            // With `decided`, the last branches may still be applying.
            if verdict.as_reported || began.elapsed() > SETTLE_MAX {
                return Ok(verdict);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn judge(&self, families: &[Family], holdings: &[Holding], resolved: usize) -> Verdict {
        let mut findings = Vec::new();
        for (place, holding) in holdings.iter().enumerate() {
            let of_place = families.iter().filter(|family| family.place == place);
            let opening: i64 = of_place.map(|family| family.opening * family.keys as i64).sum();
            let expected = opening + self.sums.get(place).copied().unwrap_or(0);
            if holding.sum != expected {
                findings.push(format!(
                    "participant {place} holds {}; by what was answered it should hold {expected}",
                    holding.sum
                ));
            }
            for (key, stamp) in &holding.values {
                match stamp {
                    None => findings.push(format!("{key} at participant {place} is not whole")),
                    Some(stamp) if self.not_stored.contains(stamp) => findings.push(format!(
                        "{key} at participant {place} is of a transaction that was aborted"
                    )),
                    Some(_) => {}
                }
            }
        }
        let mut compared_values = 0;
        if let [first, second, ..] = holdings {
            compared_values = first.values.len();
            if first.values != second.values {
                findings.push("values differ between participants 0 and 1".to_owned());
            }
        }
        if self.misread > 0 {
            let count = self.misread;
            findings
                .push(format!("{count} reads found another balance than the one nobody changed"));
        }
        Verdict {
            as_reported: findings.is_empty(),
            findings,
            answered: self.answered,
            resolved,
            counted_keys: families.iter().map(|family| family.keys).sum(),
            compared_values,
        }
    }
}

async fn sum(
    connection: &mut MultiplexedConnection,
    families: impl Iterator<Item = &Family>,
) -> Result<i64, Failure> {
    let mut sum = 0;
    for family in families {
        for chunk in chunks(family) {
            let mut command = redis::cmd("MGET");
            command.arg(chunk);
            let values: Vec<i64> = command.query_async(connection).await.map_err(of_redis)?;
            sum += values.iter().sum::<i64>();
        }
    }
    Ok(sum)
}

/// The values of `large`, in the order of their keys.
async fn values(
    connection: &mut MultiplexedConnection,
) -> Result<Vec<(String, Option<u64>)>, Failure> {
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(&cursor).arg("MATCH").arg("*:blob:*").arg("COUNT").arg(10_000);
        let (next, found): (String, Vec<String>) =
            command.query_async(connection).await.map_err(of_redis)?;
        keys.extend(found);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        let value: Vec<u8> =
            redis::cmd("GET").arg(&key).query_async(connection).await.map_err(of_redis)?;
        // Without the participant's letter, so that two of them can be compared.
        let (_, key) = key.split_once(':').unwrap_or_default();
        values.push((key.to_owned(), stamp_of(&value)));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::client::{Keys, Targets, Way};
    use crate::bench::load::{self, Pace, Run};
    use crate::bench::stage::connect;
    use crate::bench::unit::Escrow;
    use crate::bench::workload::{Shape, Workload};
    use assent_process::{RedisOptions, RedisServer};

    const FAMILIES: [Family; 2] = [
        Family { place: 0, name: "acct", keys: 10, opening: 1_000 },
        Family { place: 1, name: "acct", keys: 10, opening: 1_000 },
    ];

    fn books(sums: [i64; 2]) -> Books {
        Books { sums: sums.to_vec(), ..Books::default() }
    }

    fn holding(sum: i64) -> Holding {
        Holding { sum, values: Vec::new() }
    }

    #[test]
    fn the_sums_must_be_what_was_committed() {
        let judge =
            |first, second| books([-7, 7]).judge(&FAMILIES, &[holding(first), holding(second)], 0);
        assert!(judge(9_993, 10_007).as_reported);
        // One transfer too many at one, and one whose other half is missing.
        for (first, second) in [(9_992, 10_007), (9_993, 10_006), (10_000, 10_000)] {
            let verdict = judge(first, second);
            assert!(!verdict.as_reported && !verdict.findings.is_empty(), "{first} {second}");
        }
    }

    #[test]
    fn a_value_must_be_whole_the_same_at_both_and_of_no_aborted_transaction() {
        let mut books = books([0, 0]);
        books.not_stored.insert(3);
        let judge = |first: Option<u64>, second: Option<u64>| {
            let with = |stamp| Holding { sum: 10_000, values: vec![("blob:1".to_owned(), stamp)] };
            books.judge(&FAMILIES, &[with(first), with(second)], 0).as_reported
        };
        assert!(judge(Some(1), Some(1)));
        assert!(!judge(Some(1), Some(2)));
        assert!(!judge(None, None));
        assert!(!judge(Some(3), Some(3)));
    }

    #[test]
    fn a_wrong_read_is_found() {
        let misread = Books { misread: 1, ..books([0, 0]) };
        let verdict = misread.judge(&FAMILIES, &[holding(10_000), holding(10_000)], 0);
        assert!(!verdict.as_reported);
    }

    /// The whole way on real servers: what the clients did is found, and one write behind their
    /// backs too.
    #[tokio::test]
    async fn one_write_behind_the_back_of_the_clients_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        let mut redis = Vec::new();
        for name in ["a", "b"] {
            let options = RedisOptions::default();
            let server = RedisServer::start(dir.path().join(name), options).await.unwrap();
            redis.push(connect(&server.url()).await.unwrap());
            servers.push(server);
        }
        for (family, connection) in FAMILIES.iter().zip(&mut redis) {
            for key in chunks(family).flatten() {
                let set = redis::cmd("SET").arg(key).arg(family.opening).to_owned();
                let () = set.query_async(connection).await.unwrap();
            }
        }
        let targets = Targets {
            coordinator: "127.0.0.1:1".parse().unwrap(),
            port: None,
            redis: servers.iter().map(RedisServer::port).collect(),
            names: Vec::new().into(),
            escrow: Escrow::NotAsked,
            keys: Keys::None,
        };
        let mut books = Books::default();
        for (number, way) in [(1, Way::Floor), (2, Way::FloorPipelined)] {
            let run = Run {
                way,
                workload: Workload::new(Shape::Transfer { writes: 2 }, 10),
                clients: 3,
                pace: Pace::Closed,
                // Each client must have connected and committed by then, on a busy machine too.
                duration: Duration::from_secs(1),
                number,
            };
            let tally = load::start(run, &targets).await.unwrap().finish().await.unwrap();
            assert!(tally.committed > 0, "{way:?}");
            books.enter(tally.ledger);
        }
        let verdict = books.check(&mut redis, &FAMILIES, 0).await.unwrap();
        assert!(verdict.as_reported, "{:?}", verdict.findings);
        let behind = redis::cmd("INCRBY").arg("b:acct:3").arg(1).to_owned();
        let _: i64 = behind.query_async(&mut redis[1]).await.unwrap();
        let verdict = books.judge(
            &FAMILIES,
            &[
                holding(sum(&mut redis[0], FAMILIES[..1].iter()).await.unwrap()),
                holding(sum(&mut redis[1], FAMILIES[1..].iter()).await.unwrap()),
            ],
            0,
        );
        assert!(!verdict.as_reported);
        assert!(verdict.findings[0].contains("participant 1"), "{:?}", verdict.findings);
    }
}
