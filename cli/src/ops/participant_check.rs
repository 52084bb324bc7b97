//! `assent participant check`: holds a participant, of any kind, to the participant protocol.

use std::net::SocketAddr;
use std::path::PathBuf;

use assent_check::{
    CheckError, CheckOptions, DutyReport, DutyVerdict, ExampleBranches, Shortfall, check,
};
use assent_client::{Http, HttpOptions};
use assent_common::ParticipantName;
use assent_common::time::DurationMs;
use clap::Args;
use serde::Serialize;

use crate::config::{PathValue, read_token};
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, Format, printable};

/// The flags of `assent participant check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The participant's API for coordinators
    url: String,
    /// The participant's name [default: what it says at /v1/version]
    #[arg(long, value_name = "NAME")]
    name: Option<ParticipantName>,
    /// File with what its branches look like, as JSON; docs/reference/participant-protocol.md has
    /// the form [default: Redis commands]
    #[arg(long, value_name = "FILE")]
    ops: Option<PathBuf>,
    /// What kills the participant and starts it again, for `sh -c`; without it, nothing is checked
    /// that must survive a crash
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// How long that may take, and then the participant until it answers
    #[arg(long, value_name = "TIME", default_value = "30s")]
    restart_timeout: DurationMs,
    /// How soon a branch in doubt must ask, each time
    #[arg(long, value_name = "TIME", default_value = "15s")]
    ask_within: DurationMs,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "5s")]
    request_timeout: DurationMs,
    /// Where the participant's questions about branches in doubt are answered
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Base URL at which the participant reaches that [default: by --listen]
    #[arg(long, value_name = "URL")]
    advertised_url: Option<String>,
    /// File with the bearer token that the participant asks for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathValue>,
    /// Check this duty, and the first one, which measures what a write does. Repeatable
    #[arg(long = "duty", value_name = "NAME")]
    duties: Vec<String>,
    /// At the end, also tell the participant that it has lost data: it serves nobody from then on
    #[arg(long)]
    with_loss: bool,
}

/// The document of `-o json`.
#[derive(Debug, Serialize)]
struct CheckDocument<'a> {
    url: &'a str,
    ok: usize,
    failed: usize,
    not_checked: usize,
    duties: &'a [DutyReport],
}

pub(crate) fn run(args: CheckArgs, format: Format) -> Result<Exit, Failure> {
    let url = args.url.clone();
    let options = options(args)?;
    let mut told = Ok(());
    let reports = super::block_on(async {
        let tell = |report: &DutyReport| {
            if format == Format::Table && told.is_ok() {
                told = tell(report);
            }
        };
        check(options, tell).await.map_err(failure)
    })?;
    told?;
    let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let (ok, failed) = (count(DutyVerdict::Ok), count(DutyVerdict::Failed));
    let not_checked = count(DutyVerdict::NotChecked);
    match format {
        Format::Table => output::line(&format!(
            "{} duties: {ok} ok, {failed} failed, {not_checked} not checked",
            reports.len()
        ))?,
        Format::Json => {
            let url = &url;
            output::json(&CheckDocument { url, ok, failed, not_checked, duties: &reports })?;
        }
        Format::Id => {
            let mut broken = reports.iter().filter(|report| report.verdict == DutyVerdict::Failed);
            broken.try_for_each(|report| output::line(report.duty))?;
        }
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::Error })
}

fn options(args: CheckArgs) -> Result<CheckOptions, Failure> {
    let examples = match &args.ops {
        None => ExampleBranches::redis(),
        Some(path) => {
            let json = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            ExampleBranches::parse(&json)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
        }
    };
    let http = HttpOptions {
        request_timeout_ms: args.request_timeout.0,
        token: read_token(args.token_file.as_ref())?,
        ..HttpOptions::default()
    };
    let stranger =
        HttpOptions { request_timeout_ms: http.request_timeout_ms, ..HttpOptions::default() };
    let stranger = http.token.as_ref().map(|_| Http::new(&stranger)).transpose()?;
    Ok(CheckOptions {
        url: args.url,
        name: args.name,
        http: Http::new(&http)?,
        stranger,
        examples,
        listen: args.listen,
        advertised_url: args.advertised_url,
        restart_command: args.restart_command,
        restart_timeout_ms: args.restart_timeout.0,
        ask_within_ms: args.ask_within.0,
        with_loss: args.with_loss,
        only: args.duties,
    })
}

fn failure(error: CheckError) -> Failure {
    let message = chain(&error);
    match error {
        CheckError::Url(_) | CheckError::NoDuty(_) | CheckError::Nameless(_) => {
            Failure::usage(message)
        }
        CheckError::Silent { .. } => Failure::unreachable(message),
        CheckError::Listen { .. } | CheckError::Restart(_) | CheckError::Example(_) => {
            Failure::error(message)
        }
    }
}

/// One duty, as soon as it is known.
fn tell(report: &DutyReport) -> Result<(), Failure> {
    let mark = match report.verdict {
        DutyVerdict::Ok => "ok",
        DutyVerdict::Failed => "FAILED",
        DutyVerdict::NotChecked => "-",
    };
    let not_checked = report.not_checked.map(|why| format!(" (not checked: {why})"));
    output::line(&format!(
        "{mark:<7} {:<14} {}{}",
        report.duty,
        report.demand,
        not_checked.unwrap_or_default()
    ))?;
    let Some(Shortfall { step, sent, came, right, wrong }) = &report.shortfall else {
        return Ok(());
    };
    let step = format!("step {step} of the duty");
    let rows = [
        ("at", step.as_str()),
        ("sent", sent),
        ("came", came),
        ("right", right),
        ("wrong", wrong),
        ("why", report.why),
    ];
    rows.iter().try_for_each(|(word, said)| {
        output::line(&format!("        {word:<6} {}", printable(said)))
    })
}
