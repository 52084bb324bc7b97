//! `assent branch resolve|forget`: an operator's word at a participant, whose coordinator is gone for good.

use std::time::Duration;

use assent_client::CallError;
use assent_client::participant::{ForcedOutcome, ForgetRequest, ResolveRequest};
use assent_common::wire::branch::BranchList;
use assent_common::{ErrorCode, Txid, limits};
use clap::{Args, ValueEnum};

use super::{list, locate};
use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::ops::Override;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The branch, as `assent branch list` names it
    txid: Txid,
    /// The participant: one of its base URLs, or its name at the coordinator
    #[arg(long, value_name = "URL|NAME")]
    participant: String,
    /// What becomes of the branch; look at the transaction's other branches first: if one has applied, commit
    #[arg(long, value_enum)]
    outcome: OutcomeArg,
    /// Do so even if the coordinator answers that the transaction is open, or has another outcome,
    /// or cannot be asked although somebody listens at its address: its branches may differ then
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    by: Override,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The branch, as `assent branch list --state applied` or `--by-hand` names it
    txid: Txid,
    /// The participant: one of its base URLs, or its name at the coordinator
    #[arg(long, value_name = "URL|NAME")]
    participant: String,
    #[command(flatten)]
    by: Override,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutcomeArg {
    /// Apply what it has staged
    Committed,
    /// Drop what it has staged
    Aborted,
}

impl From<OutcomeArg> for ForcedOutcome {
    fn from(outcome: OutcomeArg) -> Self {
        match outcome {
            OutcomeArg::Committed => Self::Committed,
            OutcomeArg::Aborted => Self::Aborted,
        }
    }
}

pub(super) async fn resolve(
    args: &ResolveArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let admin = locate::admin(&args.participant, settings).await?;
    let Override { actor, reason } = args.by.clone();
    let force = args.force;
    let coordinator = if force { None } else { found_at(args.txid, settings).await };
    let outcome = args.outcome.into();
    let request = ResolveRequest { outcome, actor, reason, force, coordinator };
    let resolved = admin.resolve(args.txid, &request).await;
    let view = resolved.map_err(|error| refused(&args.participant, error))?;
    match format {
        Format::Json => output::json(&view)?,
        Format::Id | Format::Table => {
            let list = BranchList { branches: vec![view], more: false };
            list::show(&[(args.participant.clone(), list)], format)?;
        }
    }
    Ok(Exit::Ok)
}

/// Where this command reaches the coordinator of the branch's log, if it does: it may have moved,
/// and the participant need not know.
async fn found_at(txid: Txid, settings: &ClientSettings) -> Option<String> {
    let coordinator = settings.coordinator().ok()?;
    let patience = Duration::from_millis(limits::WHO_IS_THERE_MS);
    let version = tokio::time::timeout(patience, coordinator.version()).await.ok()?.ok()?;
    (version.log_id? == txid.log_id.to_string()).then(|| settings.url.clone())
}

pub(super) async fn forget(args: &ForgetArgs, settings: &ClientSettings) -> Result<Exit, Failure> {
    let admin = locate::admin(&args.participant, settings).await?;
    let Override { actor, reason } = args.by.clone();
    let forgotten = admin.forget(args.txid, &ForgetRequest { actor, reason }).await;
    forgotten.map_err(|error| refused(&args.participant, error))?;
    output::talk(&format!("nothing is kept of {} any more", args.txid));
    Ok(Exit::Ok)
}

fn refused(participant: &str, error: CallError) -> Failure {
    let is_unauthorized = matches!(&error, CallError::Rejected(problem)
        if problem.code == ErrorCode::Unauthorized);
    let failure = Failure::of_call(participant, error);
    match is_unauthorized {
        true => Failure::error(format!("{failure}; this command sends --participant-token-file")),
        false => failure,
    }
}
