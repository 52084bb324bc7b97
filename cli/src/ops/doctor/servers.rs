//! The coordinator and the participants that it knows: reachable, ready, of the same version, at the same time.

use std::time::Duration;

use assent_client::participant::{Probe, ProbeState};
use assent_client::{CallError, CoordinatorClient, ParticipantClient, Unknown};
use assent_common::wire::transaction::{ParticipantView, VersionView};

use super::{Check, Verdict};
use crate::config::ClientSettings;
use crate::exit::Failure;

/// Clocks matter to people who read logs, never to safety; the Date header counts whole seconds.
const SKEW_MAX_SECONDS: i64 = 2;

pub(super) async fn check(settings: &ClientSettings) -> Result<Vec<Check>, Failure> {
    let client = settings.coordinator()?;
    let what = format!("coordinator {}", settings.url);
    let version = match client.version().await {
        Ok(version) => version,
        Err(error) => {
            let fix = "start it (assent coordinator), or correct --url and --api-token-file";
            return Ok(vec![Check::bad(Verdict::Failing, what, error.to_string(), fix)]);
        }
    };
    let mut checks = vec![
        same_version(&what, &version),
        ready(&format!("{what}: ready"), client.readyz().await),
        clock(&what, &settings.url).await,
    ];
    match client.participants().await {
        Ok(list) => {
            for participant in &list.participants {
                checks.extend(check_participant(settings, participant).await?);
            }
        }
        Err(error) => {
            let fix = "the coordinator answers and does not list its participants: read its log";
            checks.push(Check::bad(Verdict::Failing, "participants", error.to_string(), fix));
        }
    }
    checks.push(in_doubt(&client).await);
    Ok(checks)
}

fn same_version(what: &str, version: &VersionView) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let log =
        version.log_id.as_deref().map_or_else(String::new, |log_id| format!(", log {log_id}"));
    let found = format!("{} {}{log}", version.role, version.version);
    if version.version == ours {
        Check::ok(what, found)
    } else {
        let fix = format!("this is {ours}: use one version everywhere");
        Check::bad(Verdict::Warning, what, found, fix)
    }
}

fn ready(what: &str, probe: Result<Probe, Unknown>) -> Check {
    match probe {
        Ok(Probe { state: ProbeState::Ok, .. }) => Check::ok(what, "yes"),
        Ok(Probe { text, .. }) => {
            let text = text.trim_end().replace('\n', "; ");
            Check::bad(Verdict::Failing, what, text, "each failing line says why")
        }
        Err(Unknown(why)) => {
            Check::bad(Verdict::Failing, what, why, "start it, or correct its URL")
        }
    }
}

/// From the Date header of any answer.
async fn clock(what: &str, url: &str) -> Check {
    let what = format!("{what}: clock");
    match date_of(url).await {
        None => Check::bad(Verdict::Warning, what, "no Date header", "look at its clock yourself"),
        Some(theirs) => {
            let skew = theirs.as_second() - jiff::Timestamp::now().as_second();
            let found = format!("{skew} s from here");
            if skew.abs() > SKEW_MAX_SECONDS {
                let fix = "run NTP there and here; safety does not depend on it";
                Check::bad(Verdict::Warning, what, found, fix)
            } else {
                Check::ok(what, found)
            }
        }
    }
}

async fn date_of(url: &str) -> Option<jiff::Timestamp> {
    let client =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build().ok()?;
    let answer = client.get(format!("{}/livez", url.trim_end_matches('/'))).send().await.ok()?;
    let date = answer.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

async fn check_participant(
    settings: &ClientSettings,
    view: &ParticipantView,
) -> Result<Vec<Check>, Failure> {
    let what = format!("participant {} {}", view.name, view.url);
    let client = ParticipantClient::new(&settings.participant_http()?, &view.url)?;
    let version = match client.version().await {
        Ok(version) => version,
        Err(error) => {
            let fix = match &error {
                CallError::Rejected(_) => "correct --participant-token-file",
                CallError::Unknown(_) => "start it, or move it: assent participants set NAME URL",
            };
            return Ok(vec![Check::bad(Verdict::Failing, what, error.to_string(), fix)]);
        }
    };
    let mut checks = vec![
        same_version(&what, &version),
        ready(&format!("{what}: ready"), client.readyz().await),
    ];
    if version.name.as_deref() != Some(view.name.as_str()) {
        let found = format!("it calls itself {}", version.name.as_deref().unwrap_or("nothing"));
        let fix = "one of the two names is wrong: it refuses every message";
        checks.push(Check::bad(Verdict::Failing, format!("{what}: name"), found, fix));
    }
    for warning in version.warnings {
        let fix = "until then its votes may be lost";
        checks.push(Check::bad(Verdict::Failing, format!("{what}: durability"), warning, fix));
    }
    Ok(checks)
}

async fn in_doubt(client: &CoordinatorClient) -> Check {
    let filter = assent_client::ListFilter { in_doubt: true, ..Default::default() };
    match client.list(&filter).await {
        Ok(page) if page.transactions.is_empty() => Check::ok("transactions in doubt", "none"),
        Ok(page) => {
            let found = format!("{}", page.transactions.len());
            let fix = "assent tx list --in-doubt says which and why; some are normal while transactions run";
            Check::bad(Verdict::Warning, "transactions in doubt", found, fix)
        }
        Err(error) => {
            let fix = "the coordinator answers and does not list: read its log";
            Check::bad(Verdict::Failing, "transactions in doubt", error.to_string(), fix)
        }
    }
}
