//! `assent bench transfer`: what atomicity costs here and now.
//!
//! Two-branch transfers through Assent against the same writes at the same Redis servers without it, one after the other
//! in every repetition, so that a noisy machine is noisy for all. Everything runs on this machine and shares its cores:
//! the figures are ratios first.

mod cpu;
mod http;
mod load;
mod recovery;
mod report;
mod resp;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use assent_client::{CoordinatorAdmin, Http, HttpOptions};
use clap::{Args, Subcommand, ValueEnum};
use redis::aio::MultiplexedConnection;

use self::load::{Moment, Targets, Way};
use self::report::{CpuMicros, Measured, Report};
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, Format};
use crate::process::{Cluster, ClusterOptions, RedisOptions};
use crate::runtime;

const PARTICIPANTS: [&str; 2] = ["bank-a", "bank-b"];

/// In each account at the beginning.
const OPENING_BALANCE: i64 = 1_000;

/// Accounts of one command.
const CHUNK: u32 = 5_000;

/// How long branches that were decided may take to be applied, after the load.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Two-branch transfers, beside the same writes without atomicity
    Transfer(TransferArgs),
    /// The restart of a coordinator: how soon it is ready, and has finished what a crash left open
    Recovery(recovery::RecoveryArgs),
}

/// The flags of `assent bench transfer`.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Clients at once, each waiting for its answer before it goes on
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Measured time of each way in each repetition
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Accounts at each participant, chosen uniformly
    #[arg(long, default_value_t = 100_000)]
    accounts: u32,
    /// Accounts that each of the two branches changes
    #[arg(long, default_value_t = 1)]
    writes: usize,
    /// How often; the report is of medians
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// When `committed` is answered
    #[arg(long, value_enum, default_value_t = Ack::Applied)]
    ack: Ack,
    /// Send an idempotency key with each transfer, which the coordinator must remember
    #[arg(long)]
    keys: bool,
    /// The program that is started as Redis
    #[arg(
        long,
        env = "ASSENT_REDIS_SERVER",
        default_value = "redis-server",
        value_name = "PROGRAM"
    )]
    redis_server: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// When every branch has applied
    Applied,
    /// When the decision is durable
    Decided,
}

impl Ack {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Decided => "decided",
        }
    }
}

pub(crate) fn run(command: &BenchCommand, format: Format) -> Result<Exit, Failure> {
    let args = match command {
        BenchCommand::Transfer(args) => args,
        BenchCommand::Recovery(args) => return recovery::run(args, format),
    };
    let numbers = [args.clients, args.writes, args.seconds as usize, args.repetitions as usize];
    if args.accounts == 0 || numbers.contains(&0) {
        return Err(Failure::usage(
            "clients, seconds, accounts, writes and repetitions must be at least 1",
        ));
    }
    if cfg!(debug_assertions) {
        output::talk("this is a debug build: the figures say nothing (cargo build --release)");
    }
    let dir = tempfile::Builder::new().prefix("assent-bench-").tempdir()?;
    let report =
        runtime::start(runtime::workers_default())?.block_on(transfer(args, dir.path()))?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table | Format::Id => report.tell()?,
    }
    Ok(Exit::Ok)
}

async fn transfer(args: &TransferArgs, dir: &Path) -> Result<Report, Failure> {
    let participants = PARTICIPANTS.iter().filter_map(|name| name.parse().ok()).collect();
    let mut options = ClusterOptions::new(participants);
    options.redis = RedisOptions { program: args.redis_server.clone(), ..RedisOptions::default() };
    let cluster =
        Cluster::start(dir, &options).await.map_err(|error| Failure::error(error.to_string()))?;
    let address = cluster.coordinator.url().trim_start_matches("http://").parse::<SocketAddr>();
    let targets = Targets {
        coordinator: address.map_err(|error| Failure::of("the coordinator's address", &error))?,
        redis: [cluster.members[0].redis.port(), cluster.members[1].redis.port()],
        accounts: args.accounts,
        writes: args.writes,
        ack: args.ack.as_str(),
        keys: args.keys.into(),
    };
    let mut connections = [connect(&cluster, 0).await?, connect(&cluster, 1).await?];
    for connection in &mut connections {
        fill(connection, args.accounts).await?;
    }
    let admin = CoordinatorAdmin::new(&Http::new(&HttpOptions::default())?, &cluster.admin_url)?;
    let mut measured = Vec::new();
    let mut moved = 0;
    for repetition in 0..args.repetitions {
        for way in [Way::Floor, Way::FloorPipelined, Way::Assent] {
            let one = measure(way, args, &targets, &cluster, &admin, measured.len() as u64).await?;
            let (rate, number) = (one.0.rate, repetition + 1);
            output::talk(&format!("repetition {number}: {way:?}: {rate:.0}/s"));
            moved += one.1;
            measured.push(one.0);
        }
    }
    check_sums(&mut connections, args.accounts, moved).await?;
    Ok(Report::new(args.clients, args.seconds, &targets, moved, measured))
}

async fn measure(
    way: Way,
    args: &TransferArgs,
    targets: &Targets,
    cluster: &Cluster,
    admin: &CoordinatorAdmin,
    run: u64,
) -> Result<(Measured, i64), Failure> {
    let before = fsyncs(admin).await;
    let mut times = (CpuTimes::default(), CpuTimes::default());
    let duration = Duration::from_secs(args.seconds);
    let tally = load::run(way, targets, args.clients, duration, run, |moment| match moment {
        Moment::Begin => times.0 = CpuTimes::now(cluster),
        Moment::End => times.1 = CpuTimes::now(cluster),
    })
    .await?;
    let synced = match (before, fsyncs(admin).await) {
        (Some(before), Some(after)) => Some(after - before),
        _ => None,
    };
    let cpu = times.1.since(&times.0, tally.committed);
    let measured = Measured::new(way, &tally, cpu, synced.filter(|_| way == Way::Assent));
    Ok((measured, tally.moved))
}

#[derive(Debug, Default)]
struct CpuTimes {
    redis: Duration,
    agents: Duration,
    coordinator: Duration,
    load: Duration,
}

impl CpuTimes {
    fn now(cluster: &Cluster) -> Self {
        let sum = |pids: &mut dyn Iterator<Item = u32>| pids.map(cpu::time_of).sum();
        Self {
            redis: sum(&mut cluster.members.iter().map(|member| member.redis.pid())),
            agents: sum(&mut cluster.members.iter().map(|member| member.agent.pid())),
            coordinator: cpu::time_of(cluster.coordinator.pid()),
            load: cpu::time_of(std::process::id()),
        }
    }

    fn since(&self, begin: &Self, transfers: u64) -> CpuMicros {
        let each = |end: Duration, begin: Duration| {
            end.saturating_sub(begin).as_secs_f64() * 1e6 / transfers.max(1) as f64
        };
        CpuMicros {
            redis: each(self.redis, begin.redis),
            agents: each(self.agents, begin.agents),
            coordinator: each(self.coordinator, begin.coordinator),
            load: each(self.load, begin.load),
        }
    }
}

/// How often the decision log was synced so far, from the coordinator's metrics.
async fn fsyncs(admin: &CoordinatorAdmin) -> Option<f64> {
    let text = admin.metrics().await.ok()?;
    let line =
        text.lines().find(|line| line.starts_with("assent_log_fsync_duration_seconds_count"))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn connect(cluster: &Cluster, place: usize) -> Result<MultiplexedConnection, Failure> {
    let client = redis::Client::open(cluster.members[place].redis.url()).map_err(of_redis)?;
    client.get_multiplexed_async_connection().await.map_err(of_redis)
}

fn of_redis(error: redis::RedisError) -> Failure {
    Failure::error(format!("Redis: {}", chain(&error)))
}

fn chunks(accounts: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..accounts).step_by(CHUNK as usize).map(move |start| start..accounts.min(start + CHUNK))
}

async fn fill(connection: &mut MultiplexedConnection, accounts: u32) -> Result<(), Failure> {
    for chunk in chunks(accounts) {
        let mut command = redis::cmd("MSET");
        for number in chunk {
            command.arg(load::account(number)).arg(OPENING_BALANCE);
        }
        let () = command.query_async(connection).await.map_err(of_redis)?;
    }
    Ok(())
}

/// The accounts must hold exactly what the clients were told that they moved.
async fn check_sums(
    connections: &mut [MultiplexedConnection; 2],
    accounts: u32,
    moved: i64,
) -> Result<(), Failure> {
    let opening = i64::from(accounts) * OPENING_BALANCE;
    let expected = [opening - moved, opening + moved];
    let began = Instant::now();
    loop {
        let sums =
            [sum(&mut connections[0], accounts).await?, sum(&mut connections[1], accounts).await?];
        if sums == expected {
            return Ok(());
        }
        // With `decided`, the last branches may still be applying.
        if began.elapsed() > SETTLE_MAX {
            return Err(Failure::error(format!(
                "the accounts hold {sums:?}; they should hold {expected:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn sum(connection: &mut MultiplexedConnection, accounts: u32) -> Result<i64, Failure> {
    let mut sum = 0;
    for chunk in chunks(accounts) {
        let mut command = redis::cmd("MGET");
        for number in chunk {
            command.arg(load::account(number));
        }
        let values: Vec<i64> = command.query_async(connection).await.map_err(of_redis)?;
        sum += values.iter().sum::<i64>();
    }
    Ok(sum)
}
