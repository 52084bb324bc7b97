//! `assent tx describe`: a transaction as its coordinator tells of it. Where the coordinator knows
//! nothing, the participants are asked what they hold of it: the holder of a lock is not always one
//! of this coordinator's.

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
    /// Who is asked what it holds: a participant's base URL, or its name at the coordinator; may be
    /// repeated. By URL no coordinator is needed [default: all that the coordinator knows]
    #[arg(long = "participant", value_name = "URL|NAME")]
    participants: Vec<String>,
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

pub(super) async fn run(
    args: &DescribeArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let named = args.named;
    // A coordinator knows its transactions by id; who holds a branch knows both names.
    let (id, already_held) = match named {
        Named::Id(id) => (Some(id), None),
        Named::Branches(_) => {
            let held = held(args, settings).await?;
            let id = branches(&held).find_map(|branch| branch.id);
            (id, Some(held))
        }
    };
    let nothing_known = match id {
        None => Failure::error(format!("no participant that answers holds {}", name_of(named))),
        Some(id) => match settings.coordinator()?.transaction(id, None).await {
            Ok(view) => {
                tx::show(&view, format)?;
                // Those who were asked know the keys, and who ended a branch by hand.
                if let (Format::Table, Some(held)) = (format, &already_held) {
                    output::line("")?;
                    branch::show(held, format)?;
                }
                return Ok(Exit::Ok);
            }
            Err(error) => {
                let is_unknown = matches!(&error, CallError::Rejected(problem)
                    if problem.code == ErrorCode::NotFound);
                let failure = Failure::of_call(&settings.url, error);
                // Whoever names participants wants their word also without a coordinator's.
                if !is_unknown && args.participants.is_empty() {
                    return Err(failure);
                }
                failure
            }
        },
    };
    let held = match already_held {
        Some(held) => held,
        // Where nobody was named, asking is no more than a help.
        None if args.participants.is_empty() => held(args, settings).await.unwrap_or_default(),
        None => held(args, settings).await?,
    };
    if branches(&held).next().is_none() {
        let hint = match args.participants.is_empty() {
            true => "; ask those that may hold it: assent tx describe --participant URL",
            false => {
                "; those that were asked hold nothing of it, which says nothing about its outcome"
            }
        };
        let message = format!("{nothing_known}{hint}");
        return Err(Failure { message, ..nothing_known });
    }
    // Marks of ended branches name no transaction.
    if id.is_some() {
        output::talk(&nothing_known.to_string());
    }
    output::talk(&format!("participants hold of {}:", name_of(named)));
    branch::show(&held, format)?;
    let is_silent =
        |branch: &BranchView| branch.state != BranchState::Prepared && branch.keys.is_empty();
    if branches(&held).any(is_silent) {
        output::talk(
            "a mark of an ended branch without keys does not say which ones it wrote; what was \
             committed stands in the log: assent log dump --data-dir DIR",
        );
    }
    Ok(Exit::NotKnown)
}

fn branches(held: &[(String, BranchList)]) -> impl Iterator<Item = &BranchView> {
    held.iter().flat_map(|(_, list)| &list.branches)
}

fn name_of(named: Named) -> String {
    match named {
        Named::Id(id) => id.to_string(),
        Named::Branches(txid) => txid.to_string(),
    }
}

/// What the participants hold of the transaction. One that does not answer is named, and the others
/// are asked all the same.
async fn held(
    args: &DescribeArgs,
    settings: &ClientSettings,
) -> Result<Vec<(String, BranchList)>, Failure> {
    let asked = branch::asked(&args.participants, settings).await?;
    let http = settings.participant_http()?;
    let mut found = Vec::new();
    for (name, url) in asked {
        let client = ParticipantClient::new(&http, &url)?;
        match held_at(&client, args.named).await {
            Ok(list) => found.push((name, list)),
            Err(error) => output::talk(&format!(
                "assent: {name} says nothing: {}",
                Failure::of_call(&url, error)
            )),
        }
    }
    Ok(found)
}

/// What one participant holds: by its txid a branch in any state, by its id one that is prepared,
/// or was ended by hand. Other marks of ended branches have no id.
async fn held_at(client: &ParticipantClient, named: Named) -> Result<BranchList, CallError> {
    let branches = match named {
        Named::Branches(txid) => match client.branch(txid).await {
            Ok(branch) => vec![branch],
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::NotFound => Vec::new(),
            Err(error) => return Err(error),
        },
        Named::Id(id) => {
            let mut list = client.branches(BranchState::Prepared).await?.branches;
            // An earlier version cannot be asked for these.
            list.extend(client.branches_by_hand().await.into_iter().flat_map(|it| it.branches));
            list.into_iter().filter(|branch| branch.id == Some(id)).collect()
        }
    };
    Ok(BranchList { branches, more: false })
}
