//! `assent-sim`: simulates many worlds, or tells the story of one.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use assent_sim::{Config, Losses, Mutant, Report, Run, regression};
use clap::Parser;

/// Nothing went wrong.
const HOLDS: u8 = 0;
/// A promise was broken.
const VIOLATED: u8 = 1;
/// A file or an argument cannot be read.
const USAGE: u8 = 2;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Simulates coordinators, participants and clients under faults; one seed decides everything.
#[derive(Debug, Parser)]
#[command(
    name = "assent-sim",
    version,
    after_help = "Exit codes: 0 all promises held, 1 one was broken, 2 usage"
)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many worlds, one for each seed from the first
    #[arg(long, default_value_t = 100)]
    iterations: u64,
    /// Requests of all clients of a world
    #[arg(long, default_value_t = 500)]
    transactions: u32,
    /// Whether Redis servers lose data
    #[arg(long, value_enum, default_value = "seed")]
    losses: Losses,
    /// Breaks the world on purpose
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
    /// Runs one world alone and prints everything that happens: a seed, or a regression file
    #[arg(long, value_name = "SEED|FILE")]
    reproduce: Option<String>,
    /// Where to write the trace and the regression file of a seed that fails
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

impl Arguments {
    const fn config(&self, seed: u64) -> Config {
        let Self { transactions, losses, mutant, .. } = *self;
        Config { seed, transactions, losses, mutant }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match &arguments.reproduce {
        Some(what) => reproduce(&arguments, what),
        None => simulate(&arguments),
    };
    code.into()
}

fn reproduce(arguments: &Arguments, what: &str) -> u8 {
    let config = match what.parse() {
        Ok(seed) => arguments.config(seed),
        Err(_) => match regression::read(Path::new(what)) {
            Ok(config) => config,
            Err(why) => {
                say(&format!("assent-sim: {why}\n"));
                return USAGE;
            }
        },
    };
    let run = assent_sim::tell(config);
    print(&run.trace);
    print(&run.report.to_string());
    verdict(config.seed, &run)
}

fn simulate(arguments: &Arguments) -> u8 {
    let begin = Instant::now();
    let mut spoke = begin;
    let mut total = Report::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.iterations) {
        let config = arguments.config(seed);
        let run = assent_sim::run(config);
        total += &run.report;
        if run.result.is_err() {
            print(&summary(&total, begin.elapsed()));
            return failed(arguments, config);
        }
        if !arguments.quiet && std::io::stderr().is_terminal() && spoke.elapsed() > PROGRESS {
            spoke = Instant::now();
            let (worlds, transactions) = (total.worlds, total.transactions);
            say(&format!("{worlds} worlds, {transactions} transactions\n"));
        }
    }
    print(&summary(&total, begin.elapsed()));
    HOLDS
}

/// Runs the world again with its story, and leaves both behind.
fn failed(arguments: &Arguments, config: Config) -> u8 {
    let seed = config.seed;
    let run = assent_sim::tell(config);
    let why = run.result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let files = [
        (format!("seed-{seed}.trace"), format!("{}\n{why}\n", run.trace)),
        (format!("seed-{seed}.toml"), regression::text(&config, &why)),
    ];
    for (name, text) in files {
        let path = arguments.out.join(name);
        match std::fs::write(&path, text) {
            Ok(()) => say(&format!("written: {}\n", path.display())),
            Err(error) => say(&format!("{} cannot be written: {error}\n", path.display())),
        }
    }
    verdict(seed, &run)
}

fn verdict(seed: u64, run: &Run) -> u8 {
    match &run.result {
        Ok(()) => HOLDS,
        Err(violation) => {
            print(&format!("seed {seed}: violated: {violation}\n"));
            VIOLATED
        }
    }
}

fn summary(total: &Report, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let per_second = |count: u64| format!("{:>12.0}", f64::from(whole(count)) / seconds);
    format!(
        "{total}{seconds:>12.1} seconds\n{} transactions per second\n{} events per second\n",
        per_second(total.transactions),
        per_second(total.events),
    )
}

fn whole(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn print(text: &str) {
    // Whoever reads may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
