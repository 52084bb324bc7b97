//! The flags of `assent-lab bench`.

use std::time::Duration;

use assent::{Failure, RedisProgram};
use assent_process::RedisBy;
use clap::{Args, Subcommand};

use super::load::Pace;
use super::recovery::RecoveryArgs;
use super::unit::{Ack, Escrow, Mode, Protocol, VALUE_BYTES_MIN};
use super::workload::Shape;

/// The most branches that a bench can have: a participant and a Redis each.
const BRANCHES_MAX: usize = 16;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    #[command(flatten)]
    Load(LoadCommand),
    /// The restart of a coordinator: how soon it is ready, and has finished what a crash left open
    Recovery(RecoveryArgs),
}

/// The workloads.
#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Two-branch transfers between random accounts
    Transfer(TransferArgs),
    /// The six transactions of SmallBank, customers spread over two participants
    Smallbank(CommonArgs),
    /// One write at each of many participants
    Wide(WideArgs),
    /// Two reads, at two participants
    Read(CommonArgs),
    /// One read
    Get(CommonArgs),
    /// Sales: stock of a few popular items at one participant, orders at the other
    Hot(HotArgs),
    /// A large value at each of two participants
    Large(LargeArgs),
}

/// What every workload takes. Lists are measured in one run, interleaved.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Clients at once; a list is allowed, as everywhere below where it says LIST
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "LIST")]
    pub(super) clients: Vec<usize>,
    /// Open loop: transactions begun a second, whether or not the earlier ones are answered
    /// [default: closed loop, each client waits for its answer]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(super) rate: Vec<f64>,
    /// Measured time of each way in each repetition
    #[arg(long, default_value_t = 5.0)]
    pub(super) seconds: f64,
    /// How often; the report is of medians
    #[arg(long, default_value_t = 3)]
    pub(super) repetitions: u32,
    /// In which repetition of a longer series this run begins: the way that comes first goes by it
    #[arg(long, default_value_t = 1, hide = true)]
    pub(super) first: u32,
    /// Accounts at each participant, chosen uniformly
    #[arg(long, default_value_t = 100_000)]
    pub(super) accounts: u64,
    /// When `committed` is answered
    #[arg(long, value_enum, value_delimiter = ',', default_value = "applied", value_name = "LIST")]
    pub(super) ack: Vec<Ack>,
    /// What makes a transaction committed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "logged", value_name = "LIST")]
    pub(super) protocol: Vec<Protocol>,
    /// Send an idempotency key with each transaction, which the coordinator must remember
    #[arg(long)]
    pub(super) idempotency_keys: bool,
    /// Also by the port for Redis clients: a connection for each client, and shared ones
    #[arg(long)]
    pub(super) redis_port: bool,
    #[command(flatten)]
    pub(super) redis: RedisProgram,
    /// How the agents reach the Redis beside them; the floors' clients come by TCP
    #[arg(long, value_enum, default_value_t = RedisBy::Tcp)]
    pub(super) redis_by: RedisBy,
}

/// The flags of `assent-lab bench transfer`.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Accounts that each of the two branches changes
    #[arg(long, default_value_t = 1)]
    writes: usize,
    #[command(flatten)]
    common: CommonArgs,
}

/// The flags of `assent-lab bench wide`.
#[derive(Debug, Args)]
pub(crate) struct WideArgs {
    /// Branches, at most 16; each has a participant and a Redis
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_name = "LIST")]
    branches: Vec<usize>,
    #[command(flatten)]
    common: CommonArgs,
}

/// The flags of `assent-lab bench hot`.
#[derive(Debug, Args)]
pub(crate) struct HotArgs {
    /// Items; with one, every transaction takes from it
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// How unequal their popularity is: the exponent of Zipf's law, 0 for equal
    #[arg(long, value_delimiter = ',', default_value = "1.0", value_name = "LIST")]
    zipf: Vec<f64>,
    /// Ask that subtractions from one item's stock run at once
    #[arg(long)]
    escrow: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// The flags of `assent-lab bench large`.
#[derive(Debug, Args)]
pub(crate) struct LargeArgs {
    /// Bytes of each value
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1024,16384,131072,1048576",
        value_name = "LIST"
    )]
    value_bytes: Vec<usize>,
    #[command(flatten)]
    common: CommonArgs,
}

/// What is measured, checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) shapes: Vec<Shape>,
    pub(super) escrow: Escrow,
    pub(super) modes: Vec<Mode>,
    pub(super) loads: Vec<(usize, Pace)>,
    pub(super) duration: Duration,
    pub(super) repetitions: u32,
    pub(super) first: u32,
    pub(super) accounts: u64,
    pub(super) idempotency_keys: bool,
    pub(super) redis_port: bool,
    pub(super) redis_server: String,
    pub(super) redis_by: RedisBy,
}

impl LoadCommand {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let (shapes, escrow, common) = match self {
            Self::Transfer(TransferArgs { writes, common }) => {
                check("--writes", (1..=100).contains(writes), "between 1 and 100")?;
                (vec![Shape::Transfer { writes: *writes }], false, common)
            }
            Self::Smallbank(common) => (vec![Shape::Smallbank], false, common),
            Self::Wide(WideArgs { branches, common }) => {
                let fit = branches.iter().all(|count| (1..=BRANCHES_MAX).contains(count));
                check("--branches", fit, "between 1 and 16")?;
                let wide = |branches: &usize| Shape::Wide { branches: *branches };
                (branches.iter().map(wide).collect(), false, common)
            }
            Self::Read(common) => (vec![Shape::Read], false, common),
            Self::Get(common) => (vec![Shape::Get], false, common),
            Self::Hot(HotArgs { keys, zipf, escrow, common }) => {
                check("--keys", (1..=10_000_000).contains(keys), "between 1 and 10000000")?;
                let fit = zipf.iter().all(|exponent| (0.0..=3.0).contains(exponent));
                check("--zipf", fit, "between 0 and 3")?;
                let hot = |zipf: &f64| Shape::Hot { keys: *keys, zipf: *zipf };
                (zipf.iter().map(hot).collect(), *escrow, common)
            }
            Self::Large(LargeArgs { value_bytes, common }) => {
                let range = VALUE_BYTES_MIN..=1024 * 1024;
                let fit = value_bytes.iter().all(|bytes| range.contains(bytes));
                check("--value-bytes", fit, "between 26 and 1048576")?;
                let large = |bytes: &usize| Shape::Large { bytes: *bytes };
                (value_bytes.iter().map(large).collect(), false, common)
            }
        };
        let escrow = if escrow { Escrow::Asked } else { Escrow::NotAsked };
        common.plan(shapes, escrow)
    }
}

impl CommonArgs {
    fn plan(&self, shapes: Vec<Shape>, escrow: Escrow) -> Result<Plan, Failure> {
        let clients = self.clients.iter().all(|clients| (1..=16_384).contains(clients));
        check("--clients", clients, "between 1 and 16384")?;
        let rates = self.rate.iter().all(|rate| (0.1..=1e7).contains(rate));
        check("--rate", rates, "between 0.1 and 10000000")?;
        check("--seconds", (0.05..=3_600.0).contains(&self.seconds), "between 0.05 and 3600")?;
        check("--repetitions", (1..=1_000).contains(&self.repetitions), "between 1 and 1000")?;
        check("--accounts", (2..=10_000_000).contains(&self.accounts), "between 2 and 10000000")?;
        let each_ack = |protocol: &Protocol| {
            let protocol = *protocol;
            self.ack.iter().map(move |ack| Mode { ack: *ack, protocol }).collect::<Vec<_>>()
        };
        let loads = |clients: &usize| {
            let clients = *clients;
            if self.rate.is_empty() {
                return vec![(clients, Pace::Closed)];
            }
            self.rate.iter().map(|rate| (clients, Pace::Open(*rate))).collect()
        };
        Ok(Plan {
            shapes,
            escrow,
            modes: self.protocol.iter().flat_map(each_ack).collect(),
            loads: self.clients.iter().flat_map(loads).collect(),
            duration: Duration::from_secs_f64(self.seconds),
            repetitions: self.repetitions,
            first: self.first,
            accounts: self.accounts,
            idempotency_keys: self.idempotency_keys,
            redis_port: self.redis_port,
            redis_server: self.redis.redis_server.clone(),
            redis_by: self.redis_by,
        })
    }
}

fn check(flag: &str, holds: bool, wanted: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::usage(format!("{flag} must be {wanted}"))) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: LoadCommand,
    }

    fn plan(words: &str) -> Result<Plan, Failure> {
        let line = Line::try_parse_from(["bench"].into_iter().chain(words.split(' '))).unwrap();
        line.command.plan()
    }

    #[test]
    fn lists_are_measured_in_all_combinations() {
        let words =
            "hot --keys 1 --zipf 0.5,1 --clients 1,16 --rate 10,20,30 --ack applied,decided";
        let plan = plan(&format!("{words} --protocol logged,implicit --escrow")).unwrap();
        assert_eq!(plan.shapes.len(), 2);
        assert_eq!(plan.loads.len(), 6);
        assert_eq!(plan.modes.len(), 4);
        assert_eq!(plan.escrow, Escrow::Asked);
        assert!(plan.loads.contains(&(16, Pace::Open(20.0))));
    }

    #[test]
    fn what_is_out_of_range_is_a_usage_error() {
        for words in [
            "transfer --clients 0",
            "transfer --seconds 0",
            "transfer --writes 0",
            "wide --branches 17",
            "hot --keys 0",
            "hot --zipf 4",
            "large --value-bytes 2",
            "read --rate 0",
            "smallbank --accounts 1",
        ] {
            let failure = plan(words).unwrap_err();
            assert_eq!(failure.exit, assent::Exit::Usage, "{words}: {failure}");
        }
    }
}
