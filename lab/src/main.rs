//! `assent-lab`: the demo, and the benches of Assent, its floors and its peers.
//!
//! It starts the `assent` program that people run, and is no part of it.
//!
//! ```text
//! demo ─────────────────────────────────┐
//! bench ────────────────────────────────┼── assent-process: assent and redis-server, real processes
//! suite, peers ── `assent-lab bench` ───┘
//!          └───── PostgreSQL, MariaDB, dtmrs
//! ```

mod bench;
mod demo;
#[cfg(feature = "suite")]
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use assent::output::{self, Format};
use assent::{Exit, Failure};
use assent_process::{ProcessError, find_binary};
use clap::{Args, Parser, Subcommand};

// That of `assent`: the generator of the load must not be slower than what it loads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Shows what Assent does, and measures what it costs.
#[derive(Debug, Parser)]
#[command(
    name = "assent-lab",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 it failed or the data was not as reported, 2 usage."
)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// The form of the output of `demo` and `bench`
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// The `assent` program to run [default: the one beside this program]
    #[arg(long, global = true, env = "ASSENT_BIN", value_name = "PATH")]
    assent: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Move money between three Redis servers, kill everything, and check the books
    Demo(demo::DemoArgs),
    /// Measure what atomicity costs on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Measure Assent, its floors and its peers in one run; write the page and the plots
    #[cfg(feature = "suite")]
    Suite(suite::SuiteArgs),
    /// Measure transfers and the peers only; write nothing
    #[cfg(feature = "suite")]
    Peers(suite::SuiteArgs),
    /// Measure transfers between a Redis and a database, beside PostgreSQL's own two-phase commit
    #[cfg(feature = "suite")]
    Postgres(suite::PostgresArgs),
    /// Write the page and the plots again, from the last run of the suite
    #[cfg(feature = "suite")]
    Page(suite::PageArgs),
}

fn main() -> ExitCode {
    match execute(Line::parse()) {
        Ok(exit) => exit.into(),
        Err(Failure { exit, message }) => {
            if !message.is_empty() {
                output::talk(&format!("assent-lab: {message}"));
            }
            exit.into()
        }
    }
}

fn execute(
    Line { global: Global { output: format, assent }, command }: Line,
) -> Result<Exit, Failure> {
    let binary = || find_binary(assent).map_err(|error| of_process(&error));
    match command {
        Command::Demo(args) => demo::run(&args, &binary()?, format),
        Command::Bench(command) => bench::run(&command, &binary()?, format),
        #[cfg(feature = "suite")]
        Command::Suite(args) => suite::run(&args, &binary()?),
        #[cfg(feature = "suite")]
        Command::Peers(args) => suite::compare(&args, &binary()?),
        #[cfg(feature = "suite")]
        Command::Postgres(args) => suite::beside_postgres(&args, &binary()?),
        #[cfg(feature = "suite")]
        Command::Page(args) => suite::write_page(&args),
    }
}

/// A process that does not come up.
fn of_process(error: &ProcessError) -> Failure {
    Failure::error(error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    /// A laboratory without the program that it measures says which one it looked for.
    #[test]
    fn a_program_that_is_not_there_is_named() {
        let line = Line::try_parse_from(["assent-lab", "--assent", "/nowhere/assent", "demo"]);
        let failure = execute(line.unwrap()).unwrap_err();
        assert!(failure.message.contains("/nowhere/assent"), "{failure}");
        assert!(failure.message.contains("--assent PATH"), "{failure}");
    }
}
