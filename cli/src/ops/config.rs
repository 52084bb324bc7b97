//! `assent config show`: every setting with the value that counts and where it comes from.

use clap::{Args, FromArgMatches, Subcommand, ValueEnum};
use serde_json::json;

use crate::config::{
    ClientArgs, ClientSettings, ConfigFile, ConfigPath, CoordinatorArgs, CoordinatorSettings,
    ParticipantArgs, ParticipantSettings, Shown,
};
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its origin
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Only this section
    #[arg(value_enum)]
    section: Option<Section>,
    /// Flags that the section's command would be given
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Of `assent coordinator` and `assent init`
    Coordinator,
    /// Of `assent participant`
    Participant,
    /// Of the commands that talk to a coordinator
    Client,
}

pub(crate) fn run(
    command: &ConfigCommand,
    path: &ConfigPath,
    format: Format,
) -> Result<Exit, Failure> {
    let ConfigCommand::Show(args) = command;
    if args.section.is_none() && !args.flags.is_empty() {
        return Err(Failure::usage(
            "flags belong to one section: assent config show coordinator -- --listen …",
        ));
    }
    let mut shown = Vec::new();
    for section in [Section::Coordinator, Section::Participant, Section::Client] {
        if args.section.is_none_or(|asked| asked == section) {
            shown.extend(resolve(section, &args.flags, path)?);
        }
    }
    show(&shown, format)?;
    Ok(Exit::Ok)
}

fn resolve(section: Section, flags: &[String], path: &ConfigPath) -> Result<Vec<Shown>, Failure> {
    let file = ConfigFile::load(path)?;
    Ok(match section {
        Section::Coordinator => {
            let (args, matches) = parse::<CoordinatorArgs>(flags)?;
            CoordinatorSettings::resolve(args, &matches, file)?.shown
        }
        Section::Participant => {
            let (args, matches) = parse::<ParticipantArgs>(flags)?;
            ParticipantSettings::resolve(args, &matches, file)?.shown
        }
        Section::Client => {
            let (args, matches) = parse::<ClientArgs>(flags)?;
            ClientSettings::resolve(args, &matches, file)?.shown
        }
    })
}

/// The flags as the section's own command would read them, the environment included.
fn parse<T: Args + FromArgMatches>(flags: &[String]) -> Result<(T, clap::ArgMatches), Failure> {
    let command = T::augment_args(clap::Command::new("assent").no_binary_name(true));
    let usage = |error: clap::Error| Failure::usage(error.to_string());
    let matches = command.try_get_matches_from(flags).map_err(usage)?;
    let args = T::from_arg_matches(&matches).map_err(usage)?;
    Ok((args, matches))
}

fn show(shown: &[Shown], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let settings = shown.iter().map(|one| {
                json!({ "key": one.key, "value": one.value, "origin": one.origin.to_string() })
            });
            output::json(&settings.collect::<Vec<_>>())
        }
        Format::Id => shown.iter().try_for_each(|one| output::line(&one.key)),
        Format::Table => {
            let mut rows = Rows::new(&["SETTING", "VALUE", "ORIGIN"]);
            for one in shown {
                rows.push([one.key.clone(), one.value.clone(), one.origin.to_string()]);
            }
            output::rows(&rows)
        }
    }
}
