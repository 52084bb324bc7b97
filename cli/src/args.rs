//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::environment;
use crate::config::{
    ClientArgs, ClientSettings, ConfigFile, ConfigPath, CoordinatorArgs, CoordinatorSettings,
    ParticipantArgs, ParticipantSettings,
};
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::{ops, server, telemetry};

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

/// The flag of every command that starts Redis servers of its own.
#[derive(Debug, Clone, Args)]
pub struct RedisProgram {
    /// The program that is started as Redis
    #[arg(
        long,
        env = "ASSENT_REDIS_SERVER",
        default_value = "redis-server",
        value_name = "PROGRAM"
    )]
    pub redis_server: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an empty decision log, once
    Init(CoordinatorArgs),
    /// Run the coordinator
    Coordinator(CoordinatorArgs),
    /// Run a participant: the agent beside a service's Redis; or check one of any kind
    Participant(OfParticipant),
    /// Run everything on this machine for development, with Redis servers of its own
    Dev(server::dev::DevArgs),
    /// Run, list and inspect transactions
    Tx(OfClient<ops::tx::TxCommand>),
    /// Inspect and resolve the branches that a participant keeps
    Branch(OfClient<ops::branch::BranchCommand>),
    /// List, register and remove participants
    Participants(OfClient<ops::participants::ParticipantsCommand>),
    /// Inspect a decision log, offline
    #[command(subcommand)]
    Log(ops::log::LogCommand),
    /// Check what the promises depend on, and say what to change
    Doctor(ops::doctor::DoctorArgs),
    /// Show the configuration
    #[command(subcommand)]
    Config(ops::config::ConfigCommand),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Ask a server whether it is healthy, for container health checks
    Health(ops::health::HealthArgs),
}

/// A participant that is run, if no command says otherwise.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct OfParticipant {
    #[command(subcommand)]
    command: Option<ParticipantCommand>,
    #[command(flatten)]
    run: ParticipantArgs,
}

/// What is done with a participant that runs.
#[derive(Debug, Subcommand)]
enum ParticipantCommand {
    /// Hold a participant, of any kind and in any language, to the participant protocol. It leaves
    /// keys and logs behind: run it on one that is made for it
    Check(Box<ops::participant_check::CheckArgs>),
}

/// A command that talks to a coordinator.
#[derive(Debug, Args)]
struct OfClient<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    client: ClientArgs,
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
    let is_server = match &cli.command {
        Command::Coordinator(_) | Command::Dev(_) => true,
        Command::Participant(of) => of.command.is_none(),
        _ => false,
    };
    if is_server {
        // Before anything can go wrong: why a server did not start is an event of its log.
        telemetry::start_logs();
    }
    environment::check(&Cli::command())?;
    match cli.command {
        Command::Init(args) => {
            server::init::run(&CoordinatorSettings::resolve(args, matches, file()?)?, format)
        }
        Command::Coordinator(args) => {
            server::coordinator::run(CoordinatorSettings::resolve(args, matches, file()?)?)
        }
        Command::Participant(OfParticipant { command: Some(command), .. }) => match command {
            ParticipantCommand::Check(args) => ops::participant_check::run(*args, format),
        },
        Command::Participant(OfParticipant { run, .. }) => {
            server::participant::run(ParticipantSettings::resolve(run, matches, file()?)?)
        }
        Command::Dev(args) => server::dev::run(args, format),
        Command::Tx(OfClient { command, client }) => {
            ops::tx::run(command, &ClientSettings::resolve(client, matches, file()?)?, format)
        }
        Command::Branch(OfClient { command, client }) => {
            ops::branch::run(command, &ClientSettings::resolve(client, matches, file()?)?, format)
        }
        Command::Participants(OfClient { command, client }) => {
            let settings = ClientSettings::resolve(client, matches, file()?)?;
            ops::participants::run(command, &settings, format)
        }
        Command::Log(command) => {
            let (action, args) = command.split();
            let inner = matches.subcommand().map_or(matches, |(_, inner)| inner);
            ops::log::run(action, &CoordinatorSettings::resolve(args, inner, file()?)?, format)
        }
        Command::Doctor(mut args) => {
            let client = std::mem::take(&mut args.client);
            let settings = ClientSettings::resolve(client, matches, file()?)?;
            ops::doctor::run(args, &settings, &path, format)
        }
        Command::Config(command) => ops::config::run(&command, &path, format),
        Command::Completions { shell } => completions(shell),
        Command::Health(args) => ops::health::run(&args),
    }
}

fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "assent", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}

/// Help and version go to stdout and are no error; clap knows which is which.
fn told_by_clap(error: &clap::Error) -> Result<Exit, Failure> {
    let _gone = error.print();
    Ok(if error.use_stderr() { Exit::Usage } else { Exit::Ok })
}
