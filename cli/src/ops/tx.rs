//! `assent tx list|describe|wait|retry`: transactions, as the coordinator tells of them.

use assent_client::ListFilter;
use assent_common::text::cut_owned;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{
    BranchProgress, BranchReport, TransactionState, TransactionView,
};
use assent_common::{ParticipantName, TransactionId};
use clap::{Args, Subcommand, ValueEnum};

use super::tx_describe::{self, DescribeArgs};
use super::tx_run::{self, RunArgs};
use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows, age, printable, word};

/// Bytes of the reason in a list, which has more to say.
const WHY_BYTES_MAX: usize = 120;

/// Between two questions for what has not ended.
const WAIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// What to do with transactions.
#[derive(Debug, Subcommand)]
pub(crate) enum TxCommand {
    /// Run transactions from a file, one JSON request a line; a second run repeats nothing
    Run(RunArgs),
    /// List transactions, newest first
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show a transaction: its branches, last errors and next tries
    Describe(DescribeArgs),
    /// Wait until a transaction has ended: it is aborted, or committed and applied at all its
    /// participants. If it has not in that time, the exit code is 4, also of one that is committed
    Wait(WaitArgs),
    /// Send now what a transaction waits to send
    Retry(OneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this outcome
    #[arg(long, value_enum)]
    outcome: Option<OutcomeArg>,
    /// Only with a branch at this participant
    #[arg(long, value_name = "NAME")]
    participant: Option<ParticipantName>,
    /// Only those with a branch that has voted yes and waits for a decision, for more than a
    /// second, or that has not acknowledged its outcome; the oldest first. A branch that has not
    /// voted (`preparing`) is in no doubt: see --outcome pending
    #[arg(long)]
    in_doubt: bool,
    /// Only those begun longer ago
    #[arg(long, value_name = "TIME")]
    older_than: Option<DurationMs>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutcomeArg {
    /// Every branch applies
    Committed,
    /// No branch applies
    Aborted,
    /// Not known yet
    Pending,
}

#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The transaction
    id: TransactionId,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The transaction
    id: TransactionId,
    /// How long
    #[arg(long = "for", default_value = "60s", value_name = "TIME")]
    limit: DurationMs,
}

pub(crate) fn run(
    command: TxCommand,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    super::block_on(async {
        match command {
            TxCommand::Run(args) => tx_run::run(&args, settings, format).await,
            TxCommand::List(args) => list(args, settings, format).await,
            TxCommand::Describe(args) => tx_describe::run(&args, settings, format).await,
            TxCommand::Wait(args) => wait(&args, settings, format).await,
            TxCommand::Retry(OneArgs { id }) => {
                let retried = settings.admin()?.retry(id).await;
                let view = retried.map_err(|error| Failure::of_call(&settings.admin_url, error))?;
                show(&view, format)?;
                Ok(Exit::Ok)
            }
        }
    })
}

async fn list(args: ListArgs, settings: &ClientSettings, format: Format) -> Result<Exit, Failure> {
    let client = settings.coordinator()?;
    let mut filter = ListFilter {
        outcome: args.outcome.map(|outcome| match outcome {
            OutcomeArg::Committed => OutcomeWord::Committed,
            OutcomeArg::Aborted => OutcomeWord::Aborted,
            OutcomeArg::Pending => OutcomeWord::Pending,
        }),
        participant: args.participant,
        in_doubt: args.in_doubt,
        older_than: args.older_than,
        page_size: None,
        page_token: None,
    };
    let mut views: Vec<TransactionView> = Vec::new();
    loop {
        let left = args.limit - views.len();
        filter.page_size = Some(left.clamp(1, assent_common::limits::PAGE_SIZE_MAX));
        let page = client.list(&filter).await;
        let page = page.map_err(|error| Failure::of_call(&settings.url, error))?;
        views.extend(page.transactions.into_iter().take(left));
        filter.page_token = page.next_page_token;
        if filter.page_token.is_none() || views.len() >= args.limit {
            break;
        }
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "transactions": views }))?,
        Format::Id => views.iter().try_for_each(|view| output::line(&view.id.to_string()))?,
        Format::Table => {
            let mut rows = Rows::new(&["ID", "NAME", "OUTCOME", "STATE", "BRANCHES", "AGE", "WHY"]);
            views.iter().for_each(|view| rows.push(row(view)));
            output::rows(&rows)?;
            if filter.page_token.is_some() {
                output::talk(&format!("the first {}; more with --limit", views.len()));
            }
        }
    }
    Ok(Exit::Ok)
}

fn row(view: &TransactionView) -> [String; 7] {
    let branches = view
        .branches
        .iter()
        .map(|branch| format!("{}:{}", branch.participant, word(&branch.state)));
    [
        view.id.to_string(),
        view.name.clone().unwrap_or_else(|| "-".to_owned()),
        word(&view.outcome),
        word(&view.state),
        branches.collect::<Vec<_>>().join(" "),
        age(view.created_at.as_deref()),
        cut_owned(why(view).unwrap_or_else(|| "-".to_owned()), WHY_BYTES_MAX),
    ]
}

/// Why it ended so, or what its branches wait for.
fn why(view: &TransactionView) -> Option<String> {
    let told = view.error.as_ref().map(|problem| format!("{}: {}", problem.code, problem.detail));
    let mut branches = view.branches.iter();
    let branch =
        branches.find_map(|it| Some(format!("{}: {}", it.participant, it.last_error.as_ref()?)));
    match (view.outcome, branch, told) {
        // What an earlier attempt has met is not what this one waits for.
        (OutcomeWord::Pending, Some(branch), Some(told)) => {
            Some(format!("{branch}; before that, {told}"))
        }
        (_, branch, told) => told.or(branch),
    }
}

async fn get(
    settings: &ClientSettings,
    id: TransactionId,
    wait: Option<DurationMs>,
) -> Result<TransactionView, Failure> {
    let view = settings.coordinator()?.transaction(id, wait).await;
    view.map_err(|error| Failure::of_call(&settings.url, error))
}

async fn wait(args: &WaitArgs, settings: &ClientSettings, format: Format) -> Result<Exit, Failure> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(args.limit.0);
    let left = || deadline.saturating_duration_since(std::time::Instant::now());
    let view = loop {
        let wait_ms = u64::try_from(left().as_millis()).unwrap_or(u64::MAX);
        let wait = DurationMs(wait_ms.min(assent_common::limits::WAIT_MAX_MS));
        let view = get(settings, args.id, Some(wait)).await?;
        if has_ended(&view) || wait_ms == 0 {
            break view;
        }
        // Of one whose client goes on with it the coordinator answers at once.
        tokio::time::sleep(WAIT_PAUSE.min(left())).await;
    };
    show(&view, format)?;
    if has_ended(&view) || view.outcome != OutcomeWord::Committed {
        return Ok(exit_of(view.outcome));
    }
    let waits = view.branches.iter().filter(|branch| branch.state != BranchProgress::Applied);
    let names: Vec<_> = waits.map(|branch| branch.participant.as_str()).collect();
    output::talk(&format!("committed, and not applied yet at {}", names.join(", ")));
    Ok(Exit::NotKnown)
}

/// Whether nothing that is known of it will change any more.
fn has_ended(view: &TransactionView) -> bool {
    match view.outcome {
        OutcomeWord::Aborted => true,
        // A branch of one that has ended may have been given up.
        OutcomeWord::Committed => {
            view.applied == Some(true) || view.state == TransactionState::Ended
        }
        OutcomeWord::Pending => false,
    }
}

/// The exit code that says an outcome.
pub(super) const fn exit_of(outcome: OutcomeWord) -> Exit {
    match outcome {
        OutcomeWord::Committed => Exit::Ok,
        OutcomeWord::Aborted => Exit::Aborted,
        OutcomeWord::Pending => Exit::NotKnown,
    }
}

pub(super) fn show(view: &TransactionView, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => return output::json(view),
        Format::Id => return output::line(&view.id.to_string()),
        Format::Table => {}
    }
    let mut facts = vec![
        ("id", view.id.to_string()),
        ("outcome", word(&view.outcome)),
        ("state", word(&view.state)),
        ("attempt", view.attempt.to_string()),
    ];
    let optional = [
        ("name", view.name.clone()),
        ("created", view.created_at.clone()),
        ("decide by", view.deadline_at.clone()),
        ("decided", view.decided_at.clone()),
        ("why", why(view)),
        ("next", next(view)),
        ("what to do", what_to_do(view)),
    ];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    for (name, value) in &facts {
        output::line(&format!("{name:<11}{}", printable(value)))?;
    }
    let mut rows = Rows::new(&["BRANCH", "STATE", "TRIES", "NEXT TRY", "LAST ERROR", "REPLIES"]);
    view.branches.iter().for_each(|branch| rows.push(branch_row(branch)));
    output::line("")?;
    output::rows(&rows)?;
    for branch in &view.branches {
        if matches!(
            branch.state,
            BranchProgress::HeuristicCommitted | BranchProgress::HeuristicAborted
        ) {
            let name = &branch.participant;
            output::talk(&format!(
                "{name}: the keys of the branch, and its txid: assent branch list --by-hand \
                 --participant {name}; what was committed: assent log dump --data-dir DIR"
            ));
        }
    }
    Ok(())
}

/// What a person may do. Of an outcome that is not known, an error's advice would be wrong: who
/// follows "try again" may have it done twice.
fn what_to_do(view: &TransactionView) -> Option<String> {
    let is_away = |branch: &BranchReport| branch.last_error.is_some();
    match view.outcome {
        OutcomeWord::Pending if view.branches.iter().any(is_away) => Some(
            "do not send it again under another key; mend the participants with a last error, and \
             it ends by itself"
                .to_owned(),
        ),
        OutcomeWord::Pending => None,
        OutcomeWord::Committed if !has_ended(view) && view.branches.iter().any(is_away) => {
            Some("mend the participants with a last error, and it is applied there too".to_owned())
        }
        _ => view.error.as_ref().map(|problem| problem.code.advice().to_owned()),
    }
}

/// What happens next without anybody's doing; `None` where nothing does.
fn next(view: &TransactionView) -> Option<String> {
    let (told, until) = match view.state {
        TransactionState::Ended => return None,
        TransactionState::Active => {
            let expires = view.deadline_at.as_deref().unwrap_or("its time");
            return Some(format!("its client goes on with it, or it expires at {expires}"));
        }
        TransactionState::Preparing => {
            let deadline = view.deadline_at.as_deref().unwrap_or("its deadline");
            return Some(format!(
                "it commits when all branches have voted yes, or is aborted at {deadline}"
            ));
        }
        TransactionState::Retrying => {
            return Some("it is tried again in a moment: a lock was held".to_owned());
        }
        TransactionState::Deciding => {
            return Some("the decision is being synced to disk".to_owned());
        }
        TransactionState::Committing => ("told to commit", "it has applied"),
        TransactionState::Aborting => ("told to abort", "it has aborted"),
        TransactionState::Asking => ("asked what became of its branch", "it says"),
    };
    let waits = |branch: &&BranchReport| {
        use BranchProgress::{Aborting, Committing, Prepared, Preparing};
        matches!(branch.state, Preparing | Prepared | Committing | Aborting)
    };
    let names: Vec<_> =
        view.branches.iter().filter(waits).map(|it| it.participant.as_str()).collect();
    let who = match &names[..] {
        [] => return Some("its end is being logged".to_owned()),
        [name] => (*name).to_owned(),
        names => format!("each of {}", names.join(", ")),
    };
    Some(format!("{who} is {told} again and again until {until}"))
}

fn branch_row(branch: &BranchReport) -> [String; 6] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    [
        branch.participant.to_string(),
        word(&branch.state),
        branch.tries.to_string(),
        or_dash(branch.next_try_at.as_deref()),
        or_dash(branch.last_error.as_deref()),
        or_dash(branch.replies.as_ref().map(|replies| replies.get())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(outcome: &str, state: &str, last_error: Option<&str>) -> TransactionView {
        let text = format!(
            r#"{{"id": "0198f1c2-a4b2-7c1d-9c0e-000000000001", "outcome": "{outcome}",
                "state": "{state}", "error": {{"type": "x", "title": "x", "status": 503,
                "code": "participant_unreachable", "detail": "no answer", "retryable": true}},
                "branches": [{{"participant": "bank-a", "state": "preparing",
                "last_error": {}}}]}}"#,
            serde_json::to_string(&last_error).unwrap()
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn who_is_silent_now_is_named_before_what_was_met_earlier() {
        let met = "participant_unreachable: no answer";
        let pending = |last_error| why(&view("pending", "preparing", last_error));
        let silent = format!("bank-a: connection refused; before that, {met}");
        assert_eq!(pending(Some("connection refused")), Some(silent));
        assert_eq!(pending(None).as_deref(), Some(met));
        assert_eq!(why(&view("aborted", "ended", Some("late"))).as_deref(), Some(met));
    }

    /// Promise *honest*: nobody is told to send again what may be committed.
    #[test]
    fn an_outcome_that_is_not_known_is_not_advised_to_be_tried_again() {
        let advice = what_to_do(&view("pending", "asking", Some("connection refused"))).unwrap();
        assert!(advice.starts_with("do not send it again"), "{advice}");
        assert_eq!(what_to_do(&view("pending", "asking", None)), None);
        let aborted = what_to_do(&view("aborted", "ended", None)).unwrap();
        assert_eq!(aborted, assent_common::ErrorCode::ParticipantUnreachable.advice());
    }
}
