//! `assent branch list`: what participants keep, said by themselves.

use assent_client::ParticipantClient;
use assent_common::wire::branch::{BranchList, BranchState, BranchView};
use clap::{Args, ValueEnum};

use super::locate;
use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows, millis};

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The participant: its base URL, or its name at the coordinator [default: all that the coordinator knows]
    #[arg(long, value_name = "URL|NAME")]
    participant: Option<String>,
    /// Only of this state
    #[arg(long, value_enum, default_value_t = StateArg::Prepared)]
    state: StateArg,
    /// Those that were ended by hand (assent branch resolve), whatever their state, until they are
    /// forgotten
    #[arg(long, conflicts_with = "state")]
    by_hand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArg {
    /// Voted yes, outcome not known there
    Prepared,
    /// Applied, and its mark is left
    Applied,
    /// Aborted, and its mark is left
    Aborted,
}

impl From<StateArg> for BranchState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Prepared => Self::Prepared,
            StateArg::Applied => Self::Applied,
            StateArg::Aborted => Self::Aborted,
        }
    }
}

pub(super) async fn run(
    args: &ListArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let asked = locate::asked(args.participant.as_slice(), settings).await?;
    let http = settings.participant_http()?;
    let mut found = Vec::new();
    let mut exit = Exit::Ok;
    for (name, url) in asked {
        let client = ParticipantClient::new(&http, &url)?;
        let list = match args.by_hand {
            true => client.branches_by_hand().await,
            false => client.branches(args.state.into()).await,
        };
        match list.map_err(|error| Failure::of_call(&url, error)) {
            Ok(list) => found.push((name, list)),
            Err(failure) if args.participant.is_some() => return Err(failure),
            // What the others keep is worth more than silence.
            Err(failure) => {
                output::talk(&format!("assent: {name}: {failure}"));
                exit = exit.max(failure.exit);
            }
        }
    }
    if format == Format::Json && args.participant.is_some() {
        let [(_, list)] = &found[..] else { return Ok(exit) };
        output::json(list)?;
        return Ok(exit);
    }
    show(&found, format)?;
    Ok(exit)
}

/// Shows what several participants keep.
pub(in crate::ops) fn show(found: &[(String, BranchList)], format: Format) -> Result<(), Failure> {
    let branches =
        || found.iter().flat_map(|(name, list)| list.branches.iter().map(move |b| (name, b)));
    match format {
        Format::Json => {
            let document = found.iter().map(
                |(name, list)| serde_json::json!({ "participant": name, "branches": list.branches }),
            );
            output::json(&document.collect::<Vec<_>>())?;
        }
        Format::Id => {
            branches().try_for_each(|(_, branch)| output::line(&branch.txid.to_string()))?;
        }
        Format::Table => {
            let mut rows = Rows::new(&[
                "PARTICIPANT",
                "TXID",
                "ID",
                "STATE",
                "IN DOUBT FOR",
                "KEYS",
                "COORDINATOR",
                "LAST ERROR",
            ]);
            branches().for_each(|(name, branch)| rows.push(row(name, branch)));
            output::rows(&rows)?;
        }
    }
    for (name, list) in found.iter().filter(|(_, list)| list.more) {
        output::talk(&format!("{name}: the first {} of them", list.branches.len()));
    }
    Ok(())
}

fn row(participant: &str, branch: &BranchView) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let by_hand = branch.by_hand.as_ref().map(|hand| {
        let against = if hand.is_damage { "; its log says otherwise" } else { "" };
        let outcome = hand.outcome.as_str();
        format!("ended by hand as {outcome} by {}: {}{against}", hand.actor, hand.reason)
    });
    [
        participant.to_owned(),
        branch.txid.to_string(),
        or_dash(branch.id.map(|id| id.to_string())),
        branch.state.as_str().to_owned(),
        or_dash(branch.in_doubt_ms.map(millis)),
        branch.keys.join(" "),
        or_dash(branch.coordinator.clone()),
        or_dash(by_hand.or_else(|| branch.last_error.clone())),
    ]
}
