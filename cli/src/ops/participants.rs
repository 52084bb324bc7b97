//! `assent participants list|set|remove|accept-loss`: whom the coordinator knows, and where.

use assent_client::ParticipantClient;
use assent_common::ParticipantName;
use assent_common::wire::transaction::{AbandonRequest, ParticipantView};
use clap::{Args, Subcommand};

use super::{LOOK_TIME, Override, branch};
use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows, age, word};

/// What to do with participants.
#[derive(Debug, Subcommand)]
pub(crate) enum ParticipantsCommand {
    /// List the registered participants
    #[command(alias = "ls")]
    List,
    /// Register a participant, or give it another address: by the coordinator's admin API
    /// (--admin-url). The coordinator's --participant overrides it at the next start
    Set(SetArgs),
    /// Remove a participant that no unfinished transaction needs
    Remove(RemoveArgs),
    /// Accept what a participant's Redis lost and the log no longer has
    AcceptLoss(AcceptLossArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Its name
    name: ParticipantName,
    /// The base URL of its API for coordinators, as the coordinator reaches it: what its --listen
    /// says, or with the path that a service mounts its router at
    participant_url: String,
    /// Who asks for it; logged
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Its name
    name: ParticipantName,
    /// Give up everything that it was not told yet; committed writes among it are missing there for good
    #[arg(long, requires_all = ["actor", "reason"])]
    force: bool,
    /// With --force: do it; without this it is only said what would be given up
    #[arg(long, requires = "force")]
    yes: bool,
    /// Who asks for it; logged, and with --force recorded
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Why; recorded
    #[arg(long, value_name = "WHY", requires = "force")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptLossArgs {
    /// Its name
    name: ParticipantName,
    #[command(flatten)]
    by: Override,
}

pub(crate) fn run(
    command: ParticipantsCommand,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    super::block_on(async {
        let client = settings.coordinator()?;
        let failed = |error| Failure::of_call(&settings.url, error);
        let admin = || settings.admin();
        let of_admin = |error| Failure::of_call(&settings.admin_url, error);
        match command {
            ParticipantsCommand::List => {
                let list = client.participants().await.map_err(failed)?;
                match format {
                    Format::Json => output::json(&list)?,
                    Format::Id | Format::Table => show(&list.participants, format)?,
                }
            }
            ParticipantsCommand::Set(SetArgs { name, participant_url, actor }) => {
                let admin = admin()?.acting_as(actor.as_deref());
                let view =
                    admin.set_participant(&name, &participant_url).await.map_err(of_admin)?;
                if let Some(doubt) = doubt(settings, &view).await? {
                    output::talk(&format!("assent: registered, but {doubt}"));
                }
                match format {
                    Format::Json => output::json(&view)?,
                    Format::Id | Format::Table => show(&[view], format)?,
                }
            }
            ParticipantsCommand::AcceptLoss(AcceptLossArgs { name, by }) => {
                let request = by.into();
                let view = admin()?.accept_loss(&name, &request).await.map_err(of_admin)?;
                match format {
                    Format::Json => output::json(&view)?,
                    Format::Id | Format::Table => show(&[view], format)?,
                }
            }
            ParticipantsCommand::Remove(args) if args.force => {
                remove_by_force(args, settings, format).await?;
            }
            ParticipantsCommand::Remove(RemoveArgs { name, actor, .. }) => {
                let admin = admin()?.acting_as(actor.as_deref());
                admin.remove_participant(&name).await.map_err(of_admin)?;
                output::talk(&format!("{name} removed"));
            }
        }
        Ok(Exit::Ok)
    })
}

/// Why a participant that was registered may not be what is meant, as far as it can be seen from
/// here. Nobody need answer yet, or here.
async fn doubt(
    settings: &ClientSettings,
    view: &ParticipantView,
) -> Result<Option<String>, Failure> {
    let ParticipantView { name, url, .. } = view;
    let client = ParticipantClient::new(&settings.participant_http()?, url)?;
    let Ok(Ok(version)) = tokio::time::timeout(LOOK_TIME, client.version()).await else {
        return Ok(None);
    };
    let found = version.name.as_deref().unwrap_or("nothing");
    Ok(if version.role == "coordinator" {
        Some(format!("a coordinator answers at {url}, and no participant"))
    } else if super::is_admin(url, &version) {
        Some(format!("{url} is its API for operators: register the one of its --listen"))
    } else if version.name.is_some() && found != name.as_str() {
        Some(format!("who answers at {url} calls itself {found}, and refuses every message"))
    } else {
        None
    })
}

async fn remove_by_force(
    args: RemoveArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<(), Failure> {
    let RemoveArgs { name, yes, actor, reason, .. } = args;
    if !yes {
        let waiting = branch::waiting(settings, &name, None).await?;
        let cost = branch::would_be_lost(&name, &waiting);
        return Err(Failure::usage(format!("{cost}; nothing was done: add --yes to do it")));
    }
    // The command line demands both.
    let request =
        AbandonRequest { actor: actor.unwrap_or_default(), reason: reason.unwrap_or_default() };
    let removed = settings.admin()?.remove_by_force(&name, &request).await;
    let removed = removed.map_err(|error| Failure::of_call(&settings.admin_url, error))?;
    match format {
        Format::Json => output::json(&removed),
        Format::Id => output::line(removed.name.as_str()),
        Format::Table => output::line(&format!(
            "{name} removed; {} committed and {} aborted branches given up",
            removed.committed, removed.aborted
        )),
    }
}

fn show(views: &[ParticipantView], format: Format) -> Result<(), Failure> {
    if format == Format::Id {
        return views.iter().try_for_each(|view| output::line(view.name.as_str()));
    }
    let mut rows = Rows::new(&[
        "NAME",
        "URL",
        "UP",
        "SINCE",
        "STORE",
        "DATA",
        "UNFINISHED",
        "NEXT CHECK",
        "LAST ERROR",
    ]);
    views.iter().for_each(|view| rows.push(row(view)));
    output::rows(&rows)
}

fn row(view: &ParticipantView) -> [String; 9] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let yes_or_no = |is_up| if is_up { "yes" } else { "no" };
    let stale_log = view.stale_log.as_ref().map(|why| format!("stale_log: {why}"));
    let last_error = stale_log.or_else(|| view.last_error.clone());
    [
        view.name.to_string(),
        view.url.clone(),
        if view.away { "away".to_owned() } else { or_dash(view.up.map(yes_or_no)) },
        age(view.since.as_deref()),
        or_dash(view.redis_up.map(yes_or_no)),
        word(&view.data),
        view.unfinished.to_string(),
        or_dash(view.next_probe_at.as_deref()),
        or_dash(last_error.as_deref()),
    ]
}
