//! `assent branch list`: what a participant keeps. Said by the participant, whatever its coordinator says.

use assent_client::{BranchFilter, ParticipantClient};
use assent_common::ParticipantName;
use assent_common::wire::branch::BranchState;
use clap::{Args, Subcommand, ValueEnum};

use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows, word};

/// What to do with branches.
#[derive(Debug, Subcommand)]
pub(crate) enum BranchCommand {
    /// List the branches of a participant
    #[command(alias = "ls")]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The participant: its base URL, or its name at the coordinator
    #[arg(long, value_name = "URL|NAME")]
    participant: String,
    /// Only of this state
    #[arg(long, value_enum, default_value_t = StateArg::Prepared)]
    state: StateArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArg {
    /// Voted yes, outcome not known there
    Prepared,
    /// Applied
    Applied,
    /// Aborted
    Aborted,
    /// Everything that is kept
    All,
}

impl From<StateArg> for BranchFilter {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Prepared => Self::State(BranchState::Prepared),
            StateArg::Applied => Self::State(BranchState::Applied),
            StateArg::Aborted => Self::State(BranchState::Aborted),
            StateArg::All => Self::All,
        }
    }
}

pub(crate) fn run(
    command: BranchCommand,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let BranchCommand::List(args) = command;
    super::block_on(async {
        let url = locate(&args.participant, settings).await?;
        let client = ParticipantClient::new(&settings.participant_http()?, &url)?;
        let list = client.branches(args.state.into()).await;
        let list = list.map_err(|error| Failure::of_call(&url, error))?;
        match format {
            Format::Json => output::json(&list)?,
            Format::Id => list
                .branches
                .iter()
                .try_for_each(|branch| output::line(&branch.txid.to_string()))?,
            Format::Table => {
                let mut rows = Rows::new(&[
                    "TXID",
                    "ID",
                    "STATE",
                    "IN DOUBT FOR",
                    "KEYS",
                    "COORDINATOR",
                    "LAST ERROR",
                ]);
                for branch in &list.branches {
                    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                    rows.push([
                        branch.txid.to_string(),
                        or_dash(branch.id.map(|id| id.to_string())),
                        word(&branch.state),
                        or_dash(
                            branch.in_doubt_ms.map(|ms| format!("{:.1}s", ms as f64 / 1_000.0)),
                        ),
                        branch.keys.join(" "),
                        or_dash(branch.coordinator.clone()),
                        or_dash(branch.last_error.clone()),
                    ]);
                }
                output::rows(&rows)?;
            }
        }
        Ok(Exit::Ok)
    })
}

/// The base URL of a participant.
async fn locate(participant: &str, settings: &ClientSettings) -> Result<String, Failure> {
    if participant.contains("://") {
        return Ok(participant.to_owned());
    }
    let name: ParticipantName = participant.parse().map_err(|error| {
        Failure::usage(format!(
            "--participant {participant:?} is neither a URL nor a name: {error}"
        ))
    })?;
    let list = settings.coordinator()?.participants().await;
    let list = list.map_err(|error| Failure::of_call(&settings.url, error))?;
    let found = list.participants.into_iter().find(|view| view.name == name);
    found.map(|view| view.url).ok_or_else(|| {
        Failure::error(format!("the coordinator at {} knows no participant {name}", settings.url))
    })
}
