//! Breaks a deployment of Assent by a seed, and checks what its clients were told.
//!
//! ```text
//!            ┌────────────── compose project ──────────────┐
//! clients ──>│ proxy ─> coordinator ─> proxy ─> bank-x ─> proxy ─> redis-x ─> proxy ─> replica
//! nemesis ──>│ docker kill, pause, network; the proxy's links; full disks; clocks
//! audit ────>│ proxy ─> redis-x, by links that are never made bad
//!            └─────────────────────────────────────────────┘
//! history.jsonl ──> assent-checkers ──> verdict
//! ```

mod audit;
mod docker;
mod load;
mod nemesis;
mod proxy;
mod report;
mod run;
mod schedule;
mod story;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::schedule::{Kind, Schedule};

/// Something is wrong with what was under test.
const NOT_CLEAN: u8 = 1;
/// The run could not be done.
const NOT_RUN: u8 = 2;

/// Breaks a deployment of Assent by a seed, and checks what its clients were told.
#[derive(Debug, Parser)]
#[command(
    name = "assent-chaos",
    version,
    after_help = "Exit codes: 0 clean, 1 an anomaly, 2 the run could not be done."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a deployment, break it for a while, and check the history of its clients
    Run(run::RunArgs),
    /// Print what a seed breaks, as JSON lines; starts nothing
    Schedule(ScheduleArgs),
    /// Carry bytes between the servers of a deployment, as badly as told
    Proxy(proxy::ProxyArgs),
}

#[derive(Debug, Args)]
struct ScheduleArgs {
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many steps
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// The kinds of faults [default: all but promote, old-aof and flush]
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => run::run(&args).await,
        Command::Schedule(args) => print(&args).map(|()| true),
        Command::Proxy(args) => proxy::run(args).await.map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => NOT_CLEAN.into(),
        Err(why) => {
            let _nobody_reads = writeln!(std::io::stderr(), "assent-chaos: {why}");
            NOT_RUN.into()
        }
    }
}

fn print(args: &ScheduleArgs) -> Result<(), String> {
    let kinds = if args.faults.is_empty() { &Kind::DEFAULT[..] } else { &args.faults };
    for step in Schedule::new(args.seed, kinds).take(args.steps) {
        let line = serde_json::to_string(&step).map_err(|error| error.to_string())?;
        writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    }
    Ok(())
}
