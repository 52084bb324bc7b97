//! `assent tx describe`: a transaction as its coordinator tells of it. Where the coordinator knows nothing, the participants
//! are asked what they hold of it: the holder of a lock is not always one of this coordinator's.

use std::str::FromStr;

use assent_client::{CallError, ParticipantClient};
use assent_common::wire::branch::{BranchList, BranchState, BranchView};
use assent_common::{ErrorCode, TransactionId, Txid};
use clap::Args;

use super::{branch, tx};
use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The transaction: its id, or the txid of its branches
    #[arg(value_name = "ID|TXID")]
    named: Named,
}

/// A transaction by one of its names.
#[derive(Debug, Clone, Copy)]
enum Named {
    Id(TransactionId),
    Branches(Txid),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.parse().map(Self::Id);
        id.or_else(|_| text.parse().map(Self::Branches)).map_err(|_| {
            format!(
                "{text:?} is neither an id (a UUIDv7) nor a txid (<log id>.<epoch>.<n>.<attempt>)"
            )
        })
    }
}

impl Named {
    fn is_of(self, branch: &BranchView) -> bool {
        match self {
            Self::Id(id) => branch.id == Some(id),
            Self::Branches(txid) => branch.txid == txid,
        }
    }
}

pub(super) async fn run(
    args: &DescribeArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let named = args.named;
    let (id, held) = match named {
        Named::Id(id) => (Some(id), None),
        // A coordinator knows its transactions by id; who holds a branch knows both names.
        Named::Branches(_) => {
            let held = held(settings, named).await?;
            (
                held.iter().flat_map(|(_, list)| &list.branches).find_map(|branch| branch.id),
                Some(held),
            )
        }
    };
    let not_found = match id {
        None => Failure::error(format!("no participant that answers holds {}", name_of(named))),
        Some(id) => match settings.coordinator()?.transaction(id, None).await {
            Ok(view) => {
                tx::show(&view, format)?;
                return Ok(Exit::Ok);
            }
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::NotFound => {
                Failure::of_call(&settings.url, CallError::Rejected(problem))
            }
            Err(error) => return Err(Failure::of_call(&settings.url, error)),
        },
    };
    let held = match held {
        Some(held) => held,
        None => held_if_asked(settings, named).await,
    };
    if held.iter().all(|(_, list)| list.branches.is_empty()) {
        let hint = "ask the participants that may hold it: assent branch list --participant URL";
        return Err(Failure { message: format!("{not_found}; {hint}"), ..not_found });
    }
    output::talk(&format!(
        "the coordinator at {} knows nothing of {}; participants hold a branch of it, whose coordinator is another \
         one:",
        settings.url,
        name_of(named)
    ));
    branch::show(&held, format)?;
    Ok(Exit::NotKnown)
}

fn name_of(named: Named) -> String {
    match named {
        Named::Id(id) => id.to_string(),
        Named::Branches(txid) => txid.to_string(),
    }
}

/// What participants hold, where asking them is no more than a help.
async fn held_if_asked(settings: &ClientSettings, named: Named) -> Vec<(String, BranchList)> {
    held(settings, named).await.unwrap_or_default()
}

/// The branches of a transaction that participants hold.
async fn held(
    settings: &ClientSettings,
    named: Named,
) -> Result<Vec<(String, BranchList)>, Failure> {
    let http = settings.participant_http()?;
    let mut found = Vec::new();
    for participant in branch::registered(settings).await? {
        let client = ParticipantClient::new(&http, &participant.url)?;
        match client.branches(BranchState::Prepared).await {
            Ok(mut list) => {
                list.branches.retain(|branch| named.is_of(branch));
                found.push((participant.name.to_string(), list));
            }
            Err(error) => output::talk(&format!(
                "assent: {} is not asked: {}",
                participant.name,
                Failure::of_call(&participant.url, error)
            )),
        }
    }
    Ok(found)
}
