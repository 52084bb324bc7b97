//! The suite of benches: Assent, its floors and its peers in one run; a table of targets, a page, and plots.
//!
//! ```text
//! suite ──┬── assent bench … -o json   (a process: Assent and its floors)      ──┐
//!         └── peers: closed loop against PostgreSQL, MariaDB, dtmrs            ──┴── Results ──┬── targets: the table
//!                in turns, in each repetition                                                  └── page, plots
//! ```

mod assent;
mod page;
mod peers;
mod plot;
mod results;
mod suite;
mod targets;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::results::Results;
use crate::suite::{Extent, Setup};

/// The data of a run was not what its clients were told.
const NOT_AS_REPORTED: u8 = 1;
/// The run could not be done.
const NOT_RUN: u8 = 2;

/// Below the root of the repository.
const RESULTS: &str = "target/bench/results.json";

/// Measures Assent, its floors and its peers in one run.
#[derive(Debug, Parser)]
#[command(
    name = "assent-bench",
    version,
    after_help = "Exit codes: 0 done, 1 data was not as reported, 2 the run could not be done."
)]
struct Line {
    /// The root of the repository
    #[arg(long, global = true, default_value = ".")]
    root: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure everything; write the page and the plots; print the targets
    Suite(Numbers),
    /// Measure transfers and the peers only; write nothing
    Peers(Numbers),
    /// Write the page and the plots again, from the last run
    Page,
}

#[derive(Debug, clap::Args)]
struct Numbers {
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// Measured time of each figure
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The `assent` to measure [default: target/release/assent below the root]
    #[arg(long)]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match execute(&line) {
        Ok(results) if results.findings.is_empty() => ExitCode::SUCCESS,
        Ok(results) => {
            talk("the data is not what the clients were told: these are no figures");
            for finding in &results.findings {
                talk(&format!("  {finding}"));
            }
            ExitCode::from(NOT_AS_REPORTED)
        }
        Err(why) => {
            talk(&format!("assent-bench: {why}"));
            ExitCode::from(NOT_RUN)
        }
    }
}

fn execute(line: &Line) -> Result<Results, String> {
    // Servers are started in directories of their own.
    let root = line.root.canonicalize();
    let root = root.map_err(|error| format!("{}: {error}", line.root.display()))?;
    let path = root.join(RESULTS);
    let results = match &line.what {
        What::Suite(numbers) => measure(numbers, &root, Extent::Whole)?,
        What::Peers(numbers) => {
            let results = measure(numbers, &root, Extent::Peers)?;
            tell(&page::comparison(&results))?;
            return Ok(results);
        }
        What::Page => load(&path)?,
    };
    if let What::Suite(_) = line.what {
        save(&results, &path)?;
    }
    if results.findings.is_empty() {
        page::write(&results, &root.join("docs/reference"))?;
    }
    tell(&page::target_table(&results))?;
    Ok(results)
}

fn measure(numbers: &Numbers, root: &Path, extent: Extent) -> Result<Results, String> {
    let binary = numbers.binary.clone();
    let setup = Setup {
        binary: binary.unwrap_or_else(|| root.join("target/release/assent")),
        root: root.to_owned(),
        repetitions: numbers.repetitions,
        seconds: numbers.seconds,
    };
    // One thread, as the generator of `assent bench` has on a machine of two cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(suite::run(&setup, extent))
}

fn save(results: &Results, path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let text = serde_json::to_string(results).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(failed)
}

fn load(path: &Path) -> Result<Results, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: {error}; run `make bench` first", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn tell(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| format!("stdout: {error}"))
}

/// Says something to the person at the terminal.
fn talk(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _gone = writeln!(std::io::stderr().lock(), "{text}");
}
