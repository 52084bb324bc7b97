//! `assent-soak`: list-append and a bank on real processes, while data is lost again and again; one line a run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use assent_tests::soak::{Plan, run};
use clap::Parser;

/// Breaks a cluster on this machine again and again, and checks what its clients were told.
#[derive(Debug, Parser)]
#[command(name = "assent-soak", after_help = "Exit codes: 0 every run holds, 1 one does not")]
struct Arguments {
    /// The program to test
    #[arg(long, default_value = "target/release/assent")]
    assent: PathBuf,
    /// The servers, as `make servers` installs them; all that are there, if none is named
    #[arg(long, value_delimiter = ',')]
    server: Vec<String>,
    /// The seed of the first run; each run takes the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs on each server
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How long a run breaks things
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where the histories of runs go that do not hold
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

fn say(line: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = assent_servers::all();
    let is_wanted = |name: &str| {
        arguments.server.is_empty() || arguments.server.iter().any(|wanted| wanted == name)
    };
    let servers: Vec<_> = all.into_iter().filter(|server| is_wanted(server.name)).collect();
    let known = |wanted: &&String| !servers.iter().any(|server| server.name == wanted.as_str());
    if let Some(unknown) = arguments.server.iter().find(known) {
        say(&format!("{unknown} is not installed: `make servers`"));
        return ExitCode::FAILURE;
    }
    if let Err(error) = std::fs::create_dir_all(&arguments.out) {
        say(&format!("{}: {error}", arguments.out.display()));
        return ExitCode::FAILURE;
    }
    let (mut runs, mut failed) = (0, 0);
    for seed in arguments.seed..arguments.seed + arguments.runs {
        for server in &servers {
            let began = Instant::now();
            let name = format!("{}-{seed}-{}.jsonl", server.name, std::process::id());
            let plan = Plan {
                assent: arguments.assent.clone(),
                server: server.clone(),
                seed,
                time: Duration::from_secs(arguments.seconds),
                history: arguments.out.join(name),
            };
            let history = plan.history.display().to_string();
            let ended = tokio::spawn(async move { run(&plan).await }).await;
            runs += 1;
            let (holds, told) = match &ended {
                Ok(verdict) => (verdict.wrong.is_empty(), verdict.to_string()),
                Err(_) => (false, "IT DID NOT COME TO REST, see above".to_owned()),
            };
            let seconds = began.elapsed().as_secs();
            say(&format!("{} seed {seed}, {seconds} s: {told}", server.name));
            if holds {
                let _best_effort = std::fs::remove_file(history);
            } else {
                failed += 1;
                say(&format!("  its history is in {history}"));
            }
        }
    }
    say(&format!("{runs} runs, {failed} of them wrong"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
