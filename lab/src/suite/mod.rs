//! The suite of benches: Assent, its floors and its peers in one run; a table of targets, a page,
//! and plots.
//!
//! ```text
//! run ──┬── assent-lab bench … -o json   (a process: Assent and its floors)    ──┐
//!       └── peers: closed loop against PostgreSQL, MariaDB, dtmrs              ──┴── Results ──┬── targets: the table
//!              in turns, in each repetition                                                    └── page, plots
//! ```

mod document;
mod order;
mod page;
mod peers;
mod plot;
mod postgres;
mod results;
mod targets;

use std::path::{Path, PathBuf};

use assent::{Exit, Failure, output};
use clap::Args;

use self::order::{Extent, Setup};
pub(crate) use self::postgres::{PostgresArgs, beside_postgres};
use self::results::Results;

/// Below the root of the repository.
const RESULTS: &str = "target/bench/results.json";

/// The flags of `assent-lab suite` and `assent-lab peers`.
#[derive(Debug, Args)]
pub(crate) struct SuiteArgs {
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// Measured time of each figure
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[command(flatten)]
    page: PageArgs,
}

/// The flags of `assent-lab page`.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// The root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

/// Measures everything, and writes the page.
pub(crate) fn run(args: &SuiteArgs, binary: &Path) -> Result<Exit, Failure> {
    let root = args.page.root()?;
    let results = measure(args, binary, &root, Extent::Whole)?;
    save(&results, &root.join(RESULTS)).map_err(Failure::error)?;
    publish(&results, &root)
}

/// Measures transfers and the peers.
pub(crate) fn compare(args: &SuiteArgs, binary: &Path) -> Result<Exit, Failure> {
    let results = measure(args, binary, &args.page.root()?, Extent::Peers)?;
    output::line(&page::comparison(&results))?;
    judge(&results)
}

/// Writes the page of the last run.
pub(crate) fn write_page(args: &PageArgs) -> Result<Exit, Failure> {
    let root = args.root()?;
    publish(&load(&root.join(RESULTS)).map_err(Failure::error)?, &root)
}

impl PageArgs {
    /// Servers are started in directories of their own.
    fn root(&self) -> Result<PathBuf, Failure> {
        let root = self.root.canonicalize();
        root.map_err(|error| Failure::error(format!("{}: {error}", self.root.display())))
    }
}

fn measure(
    args: &SuiteArgs,
    binary: &Path,
    root: &Path,
    extent: Extent,
) -> Result<Results, Failure> {
    let setup = Setup {
        binary: binary.to_owned(),
        root: root.to_owned(),
        repetitions: args.repetitions,
        seconds: args.seconds,
    };
    // One thread, as the generator of `assent-lab bench` has on a machine of two cores.
    let runtime = assent::runtime::start(1)?;
    runtime.block_on(order::run(&setup, extent)).map_err(Failure::error)
}

fn publish(results: &Results, root: &Path) -> Result<Exit, Failure> {
    if results.findings.is_empty() {
        page::write(results, &root.join("docs/reference")).map_err(Failure::error)?;
    }
    output::line(&page::target_table(results))?;
    judge(results)
}

fn judge(results: &Results) -> Result<Exit, Failure> {
    if results.findings.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(Failure::error(format!(
        "the data is not what the clients were told: these are no figures\n  {}",
        results.findings.join("\n  ")
    )))
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
