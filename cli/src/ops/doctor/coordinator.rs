//! The coordinator: reachable, ready, of the same version, at the same time; and whether it gets rid of what it decided.

use assent_client::participant::{Probe, ProbeState};
use assent_client::{CallError, CoordinatorClient, ListFilter, ParticipantClient, Unknown};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{
    BranchProgress, HeuristicBranches, ParticipantView, TransactionView, VersionView,
};
use assent_common::{ParticipantName, Txid, limits};

use super::participant::forget;
use super::registry::{self, Awaited};
use super::{Check, PATIENCE, silent, within};
use crate::config::ClientSettings;
use crate::exit::Failure;

/// Clocks matter to people who read logs, never to safety; the Date header counts whole seconds.
const SKEW_MAX_SECONDS: i64 = 2;

/// Transactions in doubt that are counted; whoever has more does not need the number.
const IN_DOUBT_COUNTED_MAX: usize = 10_000;

/// Marks of branches ended by hand that are named.
const MARKS_NAMED_MAX: usize = 5;

/// What a coordinator that answers has told.
pub(super) struct Told {
    pub(super) version: VersionView,
    pub(super) participants: Vec<ParticipantView>,
    /// Whom its transactions wait for.
    pub(super) awaited: Awaited,
}

pub(super) async fn check(
    settings: &ClientSettings,
    held_max_ms: u64,
) -> Result<(Vec<Check>, Option<Told>), Failure> {
    let client = settings.coordinator()?;
    let what = format!("coordinator {}", settings.url);
    let version = match within(client.version()).await {
        Ok(version) => version,
        Err(error) => {
            let fix = match &error {
                CallError::Rejected(_) => {
                    "this command's --api-token-file and the coordinator's --api-token-file must hold the same token"
                }
                CallError::Unknown(_) => {
                    "start it (assent coordinator), or correct --url; its participants are asked with --participant URL"
                }
            };
            return Ok((vec![Check::failing(what, error.to_string(), fix)], None));
        }
    };
    if version.role == "participant" {
        let name = version.name.as_deref().unwrap_or("-");
        let found = format!("participant {name} answers there, and no coordinator");
        let fix = "correct --url or ASSENT_URL; a participant is asked with --participant URL";
        return Ok((vec![Check::failing(what, found, fix)], None));
    }
    let (probe, clock, list, unfinished) = tokio::join!(
        tokio::time::timeout(PATIENCE, client.readyz()),
        clock(&what, &settings.url),
        within(client.participants()),
        UnfinishedThere::ask(&client, held_max_ms)
    );
    let probe = probe.unwrap_or_else(|_| Err(silent()));
    let mut checks =
        vec![same_version(&what, &version), ready(&format!("{what}: ready"), probe), clock];
    let participants = match list {
        Ok(list) => list.participants,
        Err(error) => {
            let fix = "the coordinator answers and does not list its participants: read its log";
            checks.push(Check::failing("participants", error.to_string(), fix));
            return Ok((checks, None));
        }
    };
    checks.push(ended_by_hand(settings, version.log_id.as_deref(), &participants).await?);
    let awaited = match unfinished {
        Ok(unfinished) => {
            checks.extend(unfinished.checks(&participants));
            unfinished.awaited
        }
        Err(error) => {
            let fix = "the coordinator answers and does not list: read its log";
            checks.push(Check::failing("transactions in doubt", error.to_string(), fix));
            Awaited::default()
        }
    };
    Ok((checks, Some(Told { version, participants, awaited })))
}

pub(super) fn same_version(what: &str, version: &VersionView) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let log =
        version.log_id.as_deref().map_or_else(String::new, |log_id| format!(", log {log_id}"));
    let epoch = version.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    let found = format!("{} {}{log}{epoch}", version.role, version.version);
    if version.version == ours {
        return Check::ok(what, found);
    }
    Check::warning(what, found, format!("this is {ours}: use one version everywhere"))
}

pub(super) fn ready(what: &str, probe: Result<Probe, Unknown>) -> Check {
    match probe {
        Ok(Probe { state: ProbeState::Ok, .. }) => Check::ok(what, "yes"),
        Ok(Probe { text, .. }) => {
            let text = text.trim_end().replace('\n', "; ");
            Check::failing(what, text, "each failing line says why")
        }
        Err(Unknown(why)) => Check::failing(what, why, "start it, or correct its URL"),
    }
}

/// From the Date header of any answer.
async fn clock(what: &str, url: &str) -> Check {
    let what = format!("{what}: clock");
    let Some(theirs) = date_of(url).await else {
        return Check::warning(what, "no Date header", "look at its clock yourself");
    };
    let skew = theirs.as_second() - jiff::Timestamp::now().as_second();
    let found = format!("{skew} s from here");
    if skew.abs() <= SKEW_MAX_SECONDS {
        return Check::ok(what, found);
    }
    Check::warning(what, found, "run NTP there and here; safety does not depend on it")
}

async fn date_of(url: &str) -> Option<jiff::Timestamp> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().ok()?;
    let answer = client.get(format!("{}/livez", url.trim_end_matches('/'))).send().await.ok()?;
    let date = answer.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// Branches that an operator ended by hand, against what the log says. The coordinator counts them
/// as long as their transactions are kept. Whoever has seen to one has its mark at the participant
/// forgotten, and it is told no more.
async fn ended_by_hand(
    settings: &ClientSettings,
    log_id: Option<&str>,
    participants: &[ParticipantView],
) -> Result<Check, Failure> {
    let what = "branches ended by hand";
    let (mut damaged, mut seen_to, mut where_) = (Vec::new(), 0, None);
    for participant in participants {
        let Some(HeuristicBranches { branches, latest }) = &participant.heuristic else { continue };
        let client = ParticipantClient::new(&settings.participant_http()?, &participant.url)?;
        // A participant that does not answer has not said that anybody has seen to it.
        let marks = within(client.branches_by_hand()).await.ok().map(|list| {
            let ours = |txid: &Txid| Some(txid.log_id.to_string().as_str()) == log_id;
            list.branches.into_iter().map(|branch| branch.txid).filter(ours).collect::<Vec<_>>()
        });
        let left = marks.as_ref().map_or(*branches, |marks| marks.len() as u64);
        seen_to += branches.saturating_sub(left);
        if left == 0 {
            continue;
        }
        let ids: Vec<_> = latest.iter().map(ToString::to_string).collect();
        let name = &participant.name;
        let marks = match marks {
            Some(marks) => {
                let named = marks.iter().take(MARKS_NAMED_MAX).map(ToString::to_string);
                format!("marks there: {}", named.collect::<Vec<_>>().join(", "))
            }
            None => "it does not say whether somebody has seen to them".to_owned(),
        };
        damaged.push(format!("{left} at {name}, of {} ({marks})", ids.join(", ")));
        where_ = Some(name.to_string());
    }
    let Some(name) = where_ else {
        return Ok(Check::ok(
            what,
            match seen_to {
                0 => "none against what the log says".to_owned(),
                _ => format!(
                    "{seen_to} against what the log says, all seen to: their marks are forgotten"
                ),
            },
        ));
    };
    let found = format!("against what the log says, {}", damaged.join("; "));
    let fix = format!(
        "compare (assent tx describe ID), and make good at the participant what differs: \
         docs/guides/recover.md, `A branch was ended by hand, and its log says otherwise`; then \
         drop each mark: {}",
        forget(&name)
    );
    Ok(Check::failing(what, found, fix))
}

/// What has not ended at this coordinator.
struct UnfinishedThere {
    /// Transactions with a branch in doubt.
    in_doubt: usize,
    /// Whether there are more of them than were counted.
    is_cut: bool,
    /// For how long an outcome may wait to be acknowledged.
    held_max_ms: u64,
    late: Vec<LateBranch>,
    awaited: Awaited,
}

/// A branch that has not acknowledged its outcome for too long.
struct LateBranch {
    seconds: i64,
    participant: ParticipantName,
    /// The last thing that went wrong.
    why: String,
}

impl UnfinishedThere {
    async fn ask(client: &CoordinatorClient, held_max_ms: u64) -> Result<Self, CallError> {
        let (late, awaited) = (Vec::new(), Awaited::default());
        let mut found = Self { in_doubt: 0, is_cut: false, held_max_ms, late, awaited };
        let page_size = Some(limits::PAGE_SIZE_MAX);
        let mut filter = ListFilter { in_doubt: true, page_size, ..ListFilter::default() };
        loop {
            let page = within(client.list(&filter)).await?;
            found.in_doubt += page.transactions.len();
            page.transactions.iter().for_each(|view| found.add(view));
            filter.page_token = page.next_page_token;
            found.is_cut = filter.page_token.is_some();
            if !found.is_cut || found.in_doubt >= IN_DOUBT_COUNTED_MAX {
                break;
            }
        }
        // A branch without a vote is in no doubt, and waits for its participant all the same. All
        // that is active stands on the first page, as far as it fits.
        let outcome = Some(OutcomeWord::Pending);
        let pending = ListFilter { outcome, page_size, ..ListFilter::default() };
        let page = within(client.list(&pending)).await?;
        page.transactions.iter().for_each(|view| found.awaited.add(view));
        Ok(found)
    }

    fn add(&mut self, view: &TransactionView) {
        self.awaited.add(view);
        let decided = view.decided_at.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let Some(decided) = decided else { return };
        let seconds = jiff::Timestamp::now().duration_since(decided).as_secs();
        if seconds * 1_000 <= self.held_max_ms.cast_signed() {
            return;
        }
        let is_open = |state| {
            use BranchProgress::{Aborting, Committing, Lost};
            matches!(state, Committing | Aborting | Lost)
        };
        let open = view.branches.iter().filter(|branch| is_open(branch.state));
        self.late.extend(open.map(|branch| LateBranch {
            seconds,
            participant: branch.participant.clone(),
            why: branch.last_error.clone().unwrap_or_else(|| "-".to_owned()),
        }));
    }

    fn checks(&self, participants: &[ParticipantView]) -> Vec<Check> {
        let is_known = |name: &ParticipantName| participants.iter().any(|it| it.name == *name);
        let more = if self.is_cut { " or more" } else { "" };
        let found = match self.in_doubt {
            0 => "none".to_owned(),
            count => format!("{count}{more}; some are normal while transactions run"),
        };
        let mut checks = registry::unknown(&self.awaited, is_known);
        checks.push(Check::ok("transactions in doubt", found));
        checks.push(self.late_check(is_known));
        checks
    }

    /// Of participants that are not known is said what to do about that: nothing there is gone.
    fn late_check(&self, is_known: impl Fn(&ParticipantName) -> bool) -> Check {
        let what = "outcomes that are not acknowledged";
        let late: Vec<_> = self.late.iter().filter(|it| is_known(&it.participant)).collect();
        let Some(oldest) = late.iter().max_by_key(|it| it.seconds) else {
            return Check::ok(what, format!("none for longer than {} s", self.held_max_ms / 1_000));
        };
        let LateBranch { seconds, participant, why } = oldest;
        let count = late.len();
        let found = format!("{count}, the oldest for {seconds} s at {participant}: {why}");
        let fix = format!(
            "bring {participant} back (assent tx list --in-doubt says what it says); if it is gone \
             for good: assent branch abandon --all-of {participant}"
        );
        Check::failing(what, found, fix)
    }
}
