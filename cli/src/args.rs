//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{ConfigFile, ConfigPath, CoordinatorArgs, CoordinatorSettings};
use crate::config::{ParticipantArgs, ParticipantSettings};
use crate::exit::{Exit, Failure};
use crate::output::Format;
use crate::server;

/// Makes the Redis that already runs beside each service commit together.
#[derive(Debug, Parser)]
#[command(name = "assent", version, max_term_width = 110, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 committed or done, 1 error, 2 usage, 3 aborted, 4 not known yet, 5 unreachable."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration file, or `none` [default: assent.toml, if it is there]
    #[arg(long, global = true, env = "ASSENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an empty decision log, once
    Init(CoordinatorArgs),
    /// Run the coordinator
    Coordinator(CoordinatorArgs),
    /// Run a participant: the agent beside a service's Redis
    Participant(ParticipantArgs),
    /// Run everything on this machine, with Redis servers of its own, for development
    Dev(server::dev::DevArgs),
}

/// The whole command line, for documentation and completion.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses and runs.
pub(crate) fn execute(arguments: impl IntoIterator<Item = OsString>) -> Result<Exit, Failure> {
    let matches = match Cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return told_by_clap(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return told_by_clap(&error),
    };
    let inner = matches.subcommand().map_or(&matches, |(_, inner)| inner);
    dispatch(cli, inner)
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<Exit, Failure> {
    let Global { config, output: format } = cli.global;
    let path = ConfigPath::from_flag(config);
    let file = || ConfigFile::load(&path);
    match cli.command {
        Command::Init(args) => {
            server::init::run(&CoordinatorSettings::resolve(args, matches, file()?)?, format)
        }
        Command::Coordinator(args) => {
            server::coordinator::run(CoordinatorSettings::resolve(args, matches, file()?)?)
        }
        Command::Participant(args) => {
            server::participant::run(ParticipantSettings::resolve(args, matches, file()?)?)
        }
        Command::Dev(args) => server::dev::run(args, format),
    }
}

/// Help and version go to stdout and are no error; clap knows which is which.
fn told_by_clap(error: &clap::Error) -> Result<Exit, Failure> {
    let _gone = error.print();
    Ok(if error.use_stderr() { Exit::Usage } else { Exit::Ok })
}
