//! `assent branch list|resolve|forget|abandon`: one branch at a time, at the participant that keeps it, or at the
//! coordinator that cannot tell it the outcome.
//!
//! ```text
//! list              what participants keep        said by the participants, whatever the coordinator says
//! resolve, forget   an operator's word            at the participant: for a coordinator that is gone for good
//! abandon           the same                      at the coordinator: for a participant that is gone for good
//! ```

mod abandon;
mod list;
mod locate;
mod resolve;

use clap::Subcommand;

use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::Format;

pub(super) use abandon::{waiting, would_be_lost};
pub(super) use list::show;
pub(super) use locate::asked;

/// What to do with branches.
#[derive(Debug, Subcommand)]
pub(crate) enum BranchCommand {
    /// List the branches that participants keep
    #[command(alias = "ls")]
    List(list::ListArgs),
    /// Decide a branch in doubt at its participant, if its coordinator is gone for good; cannot be undone. Refused if
    /// that coordinator answers, and says otherwise
    Resolve(resolve::ResolveArgs),
    /// Remove the marker of an ended branch at its participant; a late message about it then finds
    /// nothing. Of a branch that was ended by hand against its log, this says that the damage has
    /// been seen to
    Forget(resolve::ForgetArgs),
    /// Give up a branch at the coordinator, if its participant is gone for good; cannot be undone
    Abandon(abandon::AbandonArgs),
}

pub(crate) fn run(
    command: BranchCommand,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    super::block_on(async {
        match command {
            BranchCommand::List(args) => list::run(&args, settings, format).await,
            BranchCommand::Resolve(args) => resolve::resolve(&args, settings, format).await,
            BranchCommand::Forget(args) => resolve::forget(&args, settings).await,
            BranchCommand::Abandon(args) => abandon::run(args, settings, format).await,
        }
    })
}
