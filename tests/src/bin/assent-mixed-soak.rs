//! `assent-mixed-soak`: Redis and PostgreSQL in one history on real processes, while everything is
//! killed; one line a run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use assent_tests::mixed::{MixedPlan, run};
use clap::Parser;

/// Kills every process of a Redis, two databases, their agents and the coordinator again and again,
/// and checks what the clients were told.
#[derive(Debug, Parser)]
#[command(name = "assent-mixed-soak", after_help = "Exit codes: 0 every run holds, 1 one does not")]
struct MixedSoakArguments {
    /// The program to test
    #[arg(long, default_value = "target/release/assent")]
    assent: PathBuf,
    /// The seed of the first run; each run takes the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How long a run breaks things
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Clients at once
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// Where the histories of runs go that do not hold
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
    /// Keep the histories of the others too
    #[arg(long)]
    keep: bool,
}

fn say(line: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = MixedSoakArguments::parse();
    if let Err(error) = std::fs::create_dir_all(&arguments.out) {
        say(&format!("{}: {error}", arguments.out.display()));
        return ExitCode::FAILURE;
    }
    let mut failed = 0_u64;
    for seed in arguments.seed..arguments.seed + arguments.runs {
        let began = Instant::now();
        let name = format!("mixed-{seed}-{}.jsonl", std::process::id());
        let plan = MixedPlan {
            assent: arguments.assent.clone(),
            seed,
            clients: arguments.clients,
            time: Duration::from_secs(arguments.seconds),
            history: arguments.out.join(name),
        };
        let history = plan.history.clone();
        let ended = tokio::spawn(async move { run(&plan).await }).await;
        let (holds, told) = match &ended {
            Ok(verdict) => (verdict.wrong.is_empty(), verdict.to_string()),
            Err(_) => (false, "IT DID NOT COME TO REST, see above".to_owned()),
        };
        say(&format!("seed {seed}, {} s: {told}", began.elapsed().as_secs()));
        if holds && !arguments.keep {
            let _best_effort = std::fs::remove_file(history);
        } else {
            failed += u64::from(!holds);
            say(&format!("  its history is in {}", history.display()));
        }
    }
    say(&format!("{} runs, {failed} of them wrong", arguments.runs));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
