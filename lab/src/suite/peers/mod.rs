//! The peers: other ways to make a transfer at two servers atomic, each under the same closed loop,
//! with its data checked.

mod decision;
mod drive;
mod dtmrs;
mod mariadb;
mod mixed;
mod postgres;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use self::drive::Tally;
use self::server::Usage;
use crate::suite::results::{Sample, Who};

/// Rows, or keys, at each server.
const ACCOUNTS: u32 = 100_000;

/// In each at the beginning.
const OPENING_BALANCE: i64 = 1_000;

/// The clients that peers are measured with. A thousand connections are more than they are made
/// for.
pub(crate) const CLIENTS: [usize; 4] = [1, 16, 64, 256];

/// Connections that the databases are set up for: those of the most clients, and some for the
/// check.
const CONNECTIONS_MAX: usize = 300;

/// A peer that runs.
pub(crate) enum Peer {
    Postgres(postgres::Postgres),
    Mariadb(mariadb::Mariadb),
    Dtmrs(dtmrs::Dtmrs),
}

/// Starts all that can be had. Of the others it says why not.
pub(crate) async fn start(dir: &Path, root: &Path) -> (Vec<Peer>, Vec<(Who, String)>) {
    let mut running = Vec::new();
    let mut missing = Vec::new();
    match postgres::Postgres::start(&dir.join("postgres")).await {
        Ok(peer) => running.push(Peer::Postgres(peer)),
        Err(why) => missing.push((Who::Postgres, why)),
    }
    match mariadb::Mariadb::start(&dir.join("mariadb")).await {
        Ok(peer) => running.push(Peer::Mariadb(peer)),
        Err(why) => missing.push((Who::Mariadb, why)),
    }
    match dtmrs::Dtmrs::start(&dir.join("dtmrs"), &root.join("target/peers/bin/dtmrs")).await {
        Ok(peer) => running.push(Peer::Dtmrs(peer)),
        Err(why) => missing.push((Who::Dtmrs, why)),
    }
    (running, missing)
}

impl Peer {
    pub(crate) const fn who(&self) -> Who {
        match self {
            Self::Postgres(_) => Who::Postgres,
            Self::Mariadb(_) => Who::Mariadb,
            Self::Dtmrs(_) => Who::Dtmrs,
        }
    }

    /// What is set, and how it is used.
    pub(crate) fn settings(&self) -> Value {
        match self {
            Self::Postgres(peer) => peer.settings(),
            Self::Mariadb(peer) => peer.settings(),
            Self::Dtmrs(peer) => peer.settings(),
        }
    }

    /// This many clients for this long; then the data must be what they were told.
    pub(crate) async fn measure(
        &mut self,
        clients: usize,
        duration: Duration,
        repetition: u32,
    ) -> Result<Sample, String> {
        let seed = u64::from(repetition) << 32 | clients as u64;
        let (tally, usage) = match self {
            Self::Postgres(peer) => peer.measure(clients, duration, seed).await?,
            Self::Mariadb(peer) => peer.measure(clients, duration, seed).await?,
            Self::Dtmrs(peer) => peer.measure(clients, duration, seed).await?,
        };
        Ok(sample(&tally, usage, repetition))
    }
}

/// Two ways to make a transfer atomic of which a database is a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TwoPhase {
    /// A Redis and a database, by Assent.
    Assent,
    /// Two databases, by statements of the client.
    ByHand,
}

/// The servers of both ways.
pub(crate) struct BothWays {
    mixed: mixed::RedisAndPostgres,
    by_hand: postgres::Postgres,
}

impl BothWays {
    pub(crate) async fn start(dir: &Path, binary: &Path, isolation: &str) -> Result<Self, String> {
        let by_hand = postgres::Postgres::start(&dir.join("by-hand")).await?;
        let mixed = mixed::RedisAndPostgres::start(&dir.join("mixed"), binary, isolation).await?;
        Ok(Self { mixed, by_hand })
    }

    /// This many clients for this long; then the data must be what they were told.
    pub(crate) async fn measure(
        &mut self,
        way: TwoPhase,
        clients: usize,
        duration: Duration,
        repetition: u32,
    ) -> Result<Sample, String> {
        let seed = u64::from(repetition) << 32 | clients as u64;
        let (tally, usage) = match way {
            TwoPhase::Assent => self.mixed.measure(clients, duration, seed).await?,
            TwoPhase::ByHand => self.by_hand.measure(clients, duration, seed).await?,
        };
        Ok(sample(&tally, usage, repetition))
    }
}

fn sample(tally: &Tally, usage: Usage, repetition: u32) -> Sample {
    let at = |quantile: f64| tally.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
    let answers = (tally.committed + tally.failed) as f64;
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / (tally.committed as f64).max(1.0);
    Sample {
        repetition,
        rate: tally.committed as f64 / tally.seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        failed_percent: 100.0 * tally.failed as f64 / answers.max(1.0),
        retried_percent: 0.0,
        machine_busy_percent: usage.busy_percent,
        costs: json!({
            "cpu_us_per_tx": {"servers": each(usage.servers), "load": each(usage.load)},
        }),
        ..Sample::default()
    }
}

/// The first of these programs that is there.
fn find(names: &[&str], dirs: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = dirs.iter().cloned().chain(std::env::split_paths(&path));
    let all: Vec<PathBuf> = all.chain(["/usr/sbin".into(), "/usr/local/bin".into()]).collect();
    names
        .iter()
        .flat_map(|name| all.iter().map(move |dir| dir.join(name)))
        .find(|file| file.is_file())
}

/// What both servers hold must be what was told; `moved` went from the first to the second, net.
fn check_sums(what: &str, sums: [i64; 2], moved: i64) -> Result<(), String> {
    let opening = i64::from(ACCOUNTS) * OPENING_BALANCE;
    let expected = [opening - moved, opening + moved];
    if sums == expected {
        return Ok(());
    }
    Err(format!(
        "{what}: the accounts hold {sums:?}; by what was answered they should hold {expected:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_data_is_not_as_told_has_no_figures() {
        let opening = i64::from(ACCOUNTS) * OPENING_BALANCE;
        assert!(check_sums("x", [opening - 5, opening + 5], 5).is_ok());
        assert!(check_sums("x", [opening - 5, opening + 4], 5).is_err());
        assert!(check_sums("x", [opening, opening], 5).is_err());
    }
}
