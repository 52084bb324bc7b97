//! `assent-lab bench recovery`: how long a coordinator takes to come back, and what it remembers in
//! how much memory.
//!
//! ```text
//! the bench acts as the coordinator: has both participants vote, and writes a log as the coordinator writes it
//!   decisions without an end ──► start `assent coordinator` ──► ready ──► everything applied     (drain)
//!   votes without a decision ──► start `assent coordinator` ──► the agents ask ──► all dropped   (resolve)
//! ```
//!
//! The servers are real processes, the branches are truly in doubt, and the data is verified after
//! each part. The log is in the page cache: what is measured is the work, not the disk. Each
//! repetition goes on with the log of the one before.

mod asking;
mod log;
mod report;
mod servers;
mod transfer;

use std::path::{Path, PathBuf};

use assent::{
    Exit, Failure, RedisProgram,
    output::{self, Format},
    runtime,
};
use assent_common::outcome::Vote;
use assent_common::{LogId, TxNumber};
use clap::Args;

use self::log::{Keyed, Size, Writer};
use self::report::{MemoryPoint, Repetition, Report};
use self::servers::{Servers, Started};
use self::transfer::{Past, Transfer, committed_branch};

/// The flags of `assent-lab bench recovery`.
#[derive(Debug, Args)]
pub(crate) struct RecoveryArgs {
    /// Ended transactions in the log, each with an idempotency key
    #[arg(long, default_value_t = 1_000_000)]
    ended: u64,
    /// Transactions that a crash left unfinished: decided and told nobody; and, in a part of its
    /// own, voted on and not decided
    #[arg(long, default_value_t = 10_000)]
    unfinished: u64,
    /// Ended transactions that are asked for again by their keys
    #[arg(long, default_value_t = 100_000)]
    repeats: u64,
    /// How often; the report is of medians
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    #[command(flatten)]
    redis: RedisProgram,
}

pub(super) fn run(args: &RecoveryArgs, binary: &Path, format: Format) -> Result<Exit, Failure> {
    if args.ended == 0 || args.unfinished == 0 || args.repetitions == 0 {
        return Err(Failure::usage("ended, unfinished and repetitions must be at least 1"));
    }
    let dir = tempfile::Builder::new().prefix("assent-bench-").tempdir()?;
    let report =
        runtime::start(runtime::workers_default())?.block_on(recovery(args, binary, dir.path()))?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table | Format::Id => report.tell()?,
    }
    Ok(Exit::Ok)
}

/// What is the same for all parts.
struct Bench<'a> {
    args: &'a RecoveryArgs,
    dir: &'a Path,
    servers: Servers,
}

async fn recovery(args: &RecoveryArgs, binary: &Path, dir: &Path) -> Result<Report, Failure> {
    let mut servers = Servers::start(binary, dir, &args.redis.redis_server).await?;
    servers.fill(args.unfinished).await?;
    let mut bench = Bench { args, dir, servers };
    let log = dir.join("decisions");
    log::init(&log)?;
    let mut repetitions = Vec::new();
    let mut past = None;
    for number in 0..args.repetitions {
        let (repetition, last) = bench.drain(&log, number).await?;
        output::talk(&format!(
            "repetition {}: ready after {:.0} ms, drained after {:.0} ms",
            number + 1,
            repetition.ready_ms,
            repetition.drain_ms
        ));
        past = Some(last);
        let (resolve_ready_ms, resolve_ms) = bench.resolve(&log, i64::from(number) + 1).await?;
        output::talk(&format!("repetition {}: resolved after {resolve_ms:.0} ms", number + 1));
        repetitions.push(Repetition { resolve_ready_ms, resolve_ms, ..repetition });
    }
    let Some(past) = past else { return Err(Failure::usage("repetitions must be at least 1")) };
    let repeats = bench.ask_again(&log, past.transfer).await?;
    bench.servers.verify(args.unfinished, i64::from(args.repetitions)).await?;
    let memory = bench.memory(&past).await?;
    Ok(Report::new(args, repetitions, repeats, memory))
}

impl Bench<'_> {
    /// Decisions without an end: told to everybody after the start.
    async fn drain(&mut self, log: &Path, number: u32) -> Result<(Repetition, Past), Failure> {
        let mut writer = open(log).await?;
        let ended = if number == 0 { self.args.ended } else { 0 };
        let transfers = self.transfers(&writer, ended);
        let speaker = writer.speaker(self.servers.coordinator_url());
        let votes = self.servers.stage(&speaker, &transfers).await?;
        let decided = self.decided(&transfers, votes)?;
        let past = Past { transfer: transfers[0], last: decided[decided.len() - 1].clone() };
        let past_of_log = past.clone();
        let size = blocking(move || {
            writer.ended(ended, Keyed::Yes, &past_of_log)?;
            for (transfer, branches) in transfers.into_iter().zip(decided) {
                writer.unfinished(transfer, branches)?;
            }
            writer.close()
        })
        .await?;
        let Started { mut process, began, ready, ready_cpu, memory } =
            self.servers.start_coordinator(log, true).await?;
        let drained = self.servers.wait_until_drained(began).await?;
        servers::stop(&mut process).await?;
        self.servers.verify(self.args.unfinished, i64::from(number) + 1).await?;
        let repetition = Repetition {
            records: size.records,
            log_bytes: size.bytes,
            ready_ms: report::ms(ready),
            ready_cpu_ms: report::ms(ready_cpu),
            drain_ms: report::ms(drained),
            resolve_ready_ms: 0.0,
            resolve_ms: 0.0,
            memory,
        };
        Ok((repetition, past))
    }

    /// Votes without a decision: the agents ask, and what the log does not know was aborted. When
    /// the coordinator was ready, and when all was dropped, in milliseconds from its start.
    async fn resolve(&mut self, log: &Path, moved: i64) -> Result<(f64, f64), Failure> {
        let writer = open(log).await?;
        let log_id: LogId = writer.log_id();
        let transfers = self.transfers(&writer, 0);
        let speaker = writer.speaker(self.servers.coordinator_url());
        self.servers.stage(&speaker, &transfers).await?;
        let _size: Size = blocking(move || writer.close()).await?;
        let Started { mut process, began, ready, .. } =
            self.servers.start_coordinator(log, true).await?;
        let resolved = self.servers.wait_until_resolved(began, log_id, &transfers).await?;
        servers::stop(&mut process).await?;
        self.servers.verify(self.args.unfinished, moved).await?;
        Ok((report::ms(ready), report::ms(resolved)))
    }

    /// Transfers of the epoch that the writer has begun, behind those that have ended.
    fn transfers(&self, writer: &Writer, ended: u64) -> Vec<Transfer> {
        let accounts = self.args.unfinished;
        let epoch = writer.epoch();
        (ended + 1..=ended + accounts)
            .map(|n| Transfer { number: TxNumber { epoch, n }, accounts })
            .collect()
    }

    /// The branches of the decisions, by transfer.
    fn decided(
        &self,
        transfers: &[Transfer],
        votes: Vec<Vec<Vote>>,
    ) -> Result<Vec<Vec<assent_common::record::CommittedBranch>>, Failure> {
        let mut decided = vec![Vec::with_capacity(votes.len()); transfers.len()];
        for (name, votes) in self.servers.names().zip(votes) {
            if votes.len() != transfers.len() {
                return Err(Failure::error(format!("{} votes of {name}", votes.len())));
            }
            for (branches, vote) in decided.iter_mut().zip(votes) {
                branches.push(committed_branch(name, vote));
            }
        }
        Ok(decided)
    }

    /// Clients that ask again for what has ended.
    async fn ask_again(&self, log: &Path, like: Transfer) -> Result<asking::Repeats, Failure> {
        let count = self.args.repeats.min(self.args.ended);
        let Started { mut process, .. } = self.servers.start_coordinator(log, true).await?;
        // The ended ones are of the log's first epoch.
        let number = TxNumber { epoch: assent_common::Epoch(1), n: 1 };
        let first = Transfer { number, ..like };
        let repeats = asking::run(&self.servers.coordinator_url(), first, count).await?;
        servers::stop(&mut process).await?;
        Ok(repeats)
    }

    /// Coordinators of logs that hold nothing but ended transactions: none, a tenth, all; and all
    /// without keys.
    async fn memory(&self, past: &Past) -> Result<Vec<MemoryPoint>, Failure> {
        let all = self.args.ended;
        let points = [(0, Keyed::Yes), (all / 10, Keyed::Yes), (all, Keyed::Yes), (all, Keyed::No)];
        let mut measured = Vec::new();
        for (ended, keyed) in points {
            let log: PathBuf = self.dir.join(format!("memory-{}", measured.len()));
            log::init(&log)?;
            let mut writer = open(&log).await?;
            let past = past.clone();
            let size = blocking(move || {
                writer.ended(ended, keyed, &past)?;
                writer.close()
            })
            .await?;
            let Started { mut process, ready, ready_cpu, .. } =
                self.servers.start_coordinator(&log, false).await?;
            let memory = servers::memory_in_use(&mut process).await?;
            servers::stop(&mut process).await?;
            std::fs::remove_dir_all(&log)?;
            let ready_ms = report::ms(ready);
            output::talk(&format!("{ended} ended: ready after {ready_ms:.0} ms"));
            let (ready_cpu_ms, log_bytes) = (report::ms(ready_cpu), size.bytes);
            measured.push(MemoryPoint { ended, keyed, ready_ms, ready_cpu_ms, log_bytes, memory });
        }
        Ok(measured)
    }
}

async fn open(log: &Path) -> Result<Writer, Failure> {
    let log = log.to_owned();
    blocking(move || Writer::open(&log)).await
}

/// The log's writer waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|error| Failure::of("writing the log", &error))?
}
