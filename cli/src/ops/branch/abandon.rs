//! `assent branch abandon`: an operator's word at the coordinator, about participants that are gone for good.

use assent_client::{CallError, CoordinatorClient, ListFilter};
use assent_common::time::DurationMs;
use assent_common::wire::transaction::{AbandonRequest, BranchProgress};
use assent_common::{ParticipantName, TransactionId, limits};
use clap::Args;
use futures_util::stream::{self, StreamExt as _};

use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::ops::{Override, tx};
use crate::output::{self, Format};

/// Calls at once; each waits for a sync of the log, which serves them all.
const IN_FLIGHT: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct AbandonArgs {
    /// The transaction
    #[arg(required_unless_present = "all_of", conflicts_with = "all_of", requires = "participant")]
    id: Option<TransactionId>,
    /// The participant whose branch is given up
    #[arg(long, value_name = "NAME")]
    participant: Option<ParticipantName>,
    /// Instead of one: every decided branch that this participant has not acknowledged
    #[arg(long, value_name = "NAME", conflicts_with = "participant")]
    all_of: Option<ParticipantName>,
    /// With --all-of: only of transactions begun longer ago
    #[arg(long, value_name = "TIME", requires = "all_of")]
    older_than: Option<DurationMs>,
    /// With --all-of: do it; without this it is only said what would be given up
    #[arg(long, requires = "all_of")]
    yes: bool,
    #[command(flatten)]
    by: Override,
}

pub(super) async fn run(
    args: AbandonArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let AbandonArgs { id, participant, all_of, older_than, yes, by } = args;
    let request: AbandonRequest = by.into();
    match (id, participant, all_of) {
        (Some(id), Some(participant), None) => {
            let abandoned = settings.admin()?.abandon(id, &participant, &request).await;
            let view = abandoned.map_err(|error| Failure::of_call(&settings.admin_url, error))?;
            tx::show(&view, format)?;
            Ok(Exit::Ok)
        }
        (None, None, Some(name)) => {
            let waiting = waiting(settings, &name, older_than).await?;
            if !yes {
                return Err(Failure::usage(format!(
                    "{}; nothing was done: add --yes to do it",
                    would_be_lost(&name, &waiting)
                )));
            }
            abandon_all(settings, &name, waiting, &request, format).await
        }
        // The command line admits no other.
        _ => Err(Failure::usage(
            "name a transaction and its --participant, or --all-of a participant",
        )),
    }
}

/// A decided branch that its participant has not acknowledged.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Waiting {
    id: TransactionId,
    is_committed: bool,
}

/// The decided branches that a participant has not acknowledged.
pub(in crate::ops) async fn waiting(
    settings: &ClientSettings,
    name: &ParticipantName,
    older_than: Option<DurationMs>,
) -> Result<Vec<Waiting>, Failure> {
    let client: CoordinatorClient = settings.coordinator()?;
    let mut filter = ListFilter {
        participant: Some(name.clone()),
        in_doubt: true,
        older_than,
        page_size: Some(limits::PAGE_SIZE_MAX),
        ..ListFilter::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.list(&filter).await;
        let page = page.map_err(|error| Failure::of_call(&settings.url, error))?;
        for view in page.transactions {
            let states = view.branches.iter().filter(|branch| branch.participant == *name);
            found.extend(states.filter_map(|branch| match branch.state {
                BranchProgress::Committing | BranchProgress::Lost => {
                    Some(Waiting { id: view.id, is_committed: true })
                }
                BranchProgress::Aborting => Some(Waiting { id: view.id, is_committed: false }),
                _ => None,
            }));
        }
        filter.page_token = page.next_page_token;
        if filter.page_token.is_none() {
            return Ok(found);
        }
    }
}

/// What giving all of it up costs, in a sentence.
pub(in crate::ops) fn would_be_lost(name: &ParticipantName, waiting: &[Waiting]) -> String {
    let committed = waiting.iter().filter(|one| one.is_committed).count();
    let aborted = waiting.len() - committed;
    format!(
        "{name} has not acknowledged {committed} committed and {aborted} aborted branches: the writes of the committed \
         ones would be missing there for good"
    )
}

async fn abandon_all(
    settings: &ClientSettings,
    name: &ParticipantName,
    waiting: Vec<Waiting>,
    request: &AbandonRequest,
    format: Format,
) -> Result<Exit, Failure> {
    let admin = settings.admin()?;
    let (admin, all) = (&admin, waiting.len());
    let mut calls = stream::iter(waiting)
        .map(|one| async move { (one.id, admin.abandon(one.id, name, request).await) })
        .buffer_unordered(IN_FLIGHT);
    let (mut done, mut failed) = (Vec::new(), None);
    while let Some((id, result)) = calls.next().await {
        match result {
            Ok(_) => done.push(id),
            Err(error @ CallError::Unknown(_)) => {
                failed = Some(Failure::of_call(&settings.admin_url, error));
                // Whoever does not answer now will not answer the next one either.
                break;
            }
            // It may have ended meanwhile.
            Err(error @ CallError::Rejected(_)) => {
                failed = Some(Failure::of_call(&settings.admin_url, error));
            }
        }
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "abandoned": done }))?,
        Format::Id => done.iter().try_for_each(|id| output::line(&id.to_string()))?,
        Format::Table => {
            output::line(&format!("{} of {all} branches of {name} given up", done.len()))?;
        }
    }
    failed.map_or(Ok(Exit::Ok), Err)
}
