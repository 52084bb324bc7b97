//! What plain Redis clients see: Assent is not asked about itself.

use std::collections::{BTreeMap, BTreeSet};

use assent::{Failure, exit::chain};
use assent_process::Member;
use redis::aio::MultiplexedConnection;

use super::bank::{self, Bank, OPENING_BALANCE};

/// The hash that holds staged branches (`s:`) and the marks of ended ones (`d:`, `a:`).
const CONTROL_KEY: &str = "assent:ctl";

/// Keys of one command.
const CHUNK: usize = 500;

/// What the control hash says of the branches.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The txids that voted yes and wait for their outcome.
    pub(super) staged: BTreeSet<String>,
    /// The keys that are locked.
    pub(super) locked: BTreeSet<String>,
    /// The txids that are marked as applied; marks go when nobody can ask any more.
    pub(super) done: BTreeSet<String>,
    /// The txids that are marked as aborted.
    pub(super) fenced: BTreeSet<String>,
}

/// What is in the keyspace.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) balances: BTreeMap<String, i64>,
    /// The markers of the transactions that applied here.
    pub(super) markers: BTreeSet<String>,
}

async fn connect(member: &Member) -> Result<MultiplexedConnection, Failure> {
    let failed = |error: redis::RedisError| of_redis(member, &error);
    let client = redis::Client::open(member.redis.url()).map_err(failed)?;
    client.get_multiplexed_async_connection().await.map_err(failed)
}

fn of_redis(member: &Member, error: &redis::RedisError) -> Failure {
    Failure::error(format!("Redis of {}: {}", member.name, chain(error)))
}

/// Gives every customer of this participant the opening balances.
pub(super) async fn load(member: &Member, bank: &Bank, place: usize) -> Result<(), Failure> {
    let mut connection = connect(member).await?;
    let customers: Vec<usize> = bank.customers_of(place).collect();
    for chunk in customers.chunks(CHUNK) {
        let mut command = redis::cmd("MSET");
        for customer in chunk {
            command.arg(bank::checking(*customer)).arg(OPENING_BALANCE);
            command.arg(bank::savings(*customer)).arg(OPENING_BALANCE);
        }
        let loaded: Result<(), _> = command.query_async(&mut connection).await;
        loaded.map_err(|error| of_redis(member, &error))?;
    }
    Ok(())
}

/// Looks at the branches.
pub(super) async fn control(member: &Member) -> Result<Control, Failure> {
    let mut connection = connect(member).await?;
    let fields: Vec<String> = redis::cmd("HKEYS")
        .arg(CONTROL_KEY)
        .query_async(&mut connection)
        .await
        .map_err(|error| of_redis(member, &error))?;
    let mut control = Control::default();
    for field in fields {
        match field.split_once(':') {
            Some(("s", txid)) => control.staged.insert(txid.to_owned()),
            Some(("l", key)) => control.locked.insert(key.to_owned()),
            Some(("d", txid)) => control.done.insert(txid.to_owned()),
            Some(("a", txid)) => control.fenced.insert(txid.to_owned()),
            _ => false,
        };
    }
    Ok(control)
}

/// Looks at the accounts and markers.
pub(super) async fn holdings(
    member: &Member,
    bank: &Bank,
    place: usize,
) -> Result<Holdings, Failure> {
    let mut connection = connect(member).await?;
    let mut holdings = Holdings::default();
    let accounts: Vec<String> = bank
        .customers_of(place)
        .flat_map(|customer| [bank::checking(customer), bank::savings(customer)])
        .collect();
    for chunk in accounts.chunks(CHUNK) {
        let values: Vec<i64> = redis::cmd("MGET")
            .arg(chunk)
            .query_async(&mut connection)
            .await
            .map_err(|error| of_redis(member, &error))?;
        holdings.balances.extend(chunk.iter().cloned().zip(values));
    }
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["MATCH", "tx:*", "COUNT", "2000"])
            .query_async(&mut connection)
            .await
            .map_err(|error| of_redis(member, &error))?;
        let markers = keys.iter().filter_map(|key| key.strip_prefix("tx:"));
        holdings.markers.extend(markers.map(str::to_owned));
        cursor = next;
        if cursor == 0 {
            return Ok(holdings);
        }
    }
}
