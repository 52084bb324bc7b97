//! `assent tx run`: many transactions from a file, each exactly once, however often the command is run.
//!
//! A line's key is made from what it says and from how many equal lines came before it. So a rerun of the file, of a part
//! of it, or of a longer one that contains it, asks for the same transactions, and the coordinator answers those that it
//! has already run without running them again. The keys live as long as the coordinator's retention.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::time::{Duration, Instant};

use assent_client::{CoordinatorClient, SubmitError};
use assent_common::IdempotencyKey;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::read_json;
use assent_common::wire::transaction::{Protocol, TransactionRequest};
use clap::{Args, ValueEnum};
use futures_util::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// The pauses before an unknown outcome is asked for again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The flags of `assent tx run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The file, one JSON request a line; `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Transactions at once; 1 keeps the order of the file
    #[arg(long, default_value_t = 16, value_name = "N")]
    in_flight: usize,
    /// Begins the keys; another prefix runs the same lines again
    #[arg(long, default_value = "tx-run", value_name = "TEXT")]
    key_prefix: String,
    /// How long an outcome that is not known is asked for again
    #[arg(long, default_value = "30s", value_name = "TIME")]
    give_up: DurationMs,
    /// What makes them committed; implicit ones are sent without keys, once: what is not known is not asked for again, and a
    /// rerun runs them again
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<ProtocolArg>,
}

/// See [`Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    Logged,
    Implicit,
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Logged => Self::Logged,
            ProtocolArg::Implicit => Self::Implicit,
        }
    }
}

/// What became of a line.
#[derive(Debug, Serialize)]
struct Ran {
    line: usize,
    key: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    committed: u64,
    aborted: u64,
    unknown: u64,
    rejected: u64,
}

pub(super) async fn run(
    args: &RunArgs,
    settings: &ClientSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let client = settings.coordinator()?;
    // So that a wrong URL is one clear error, and not one for each line.
    client.version().await.map_err(|error| Failure::of_call(&settings.url, error))?;
    let began = Instant::now();
    let bar = progress();
    let lines = Keyed::new(open(&args.file)?, &args.key_prefix);
    let mut running = stream::iter(lines)
        .map(|line| run_line(&client, line, args))
        .buffer_unordered(args.in_flight.max(1));
    let mut counts = Counts::default();
    while let Some(ran) = running.next().await {
        let ran = ran?;
        bar.inc(1);
        counts.add(ran.outcome);
        bar.suspend(|| show(&ran, format))?;
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let Counts { committed, aborted, unknown, rejected } = counts;
    let all = committed + aborted + unknown + rejected;
    output::talk(&format!(
        "{all} transactions in {seconds:.1} s: {committed} committed, {aborted} aborted, {unknown} not known, \
         {rejected} rejected"
    ));
    Ok(counts.exit())
}

fn progress() -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} transactions, {per_sec}, {elapsed}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn open(file: &str) -> Result<Box<dyn BufRead + Send>, Failure> {
    if file == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let opened = File::open(file);
    let opened = opened.map_err(|error| Failure::usage(format!("cannot open {file}: {error}")))?;
    Ok(Box::new(BufReader::new(opened)))
}

impl Counts {
    fn add(&mut self, outcome: &str) {
        match outcome {
            "committed" => self.committed += 1,
            "aborted" => self.aborted += 1,
            "rejected" => self.rejected += 1,
            _ => self.unknown += 1,
        }
    }

    /// What is not known matters most: a rerun must follow.
    const fn exit(&self) -> Exit {
        match self {
            Self { unknown: 1.., .. } => Exit::NotKnown,
            Self { rejected: 1.., .. } => Exit::Error,
            Self { aborted: 1.., .. } => Exit::Aborted,
            Self { .. } => Exit::Ok,
        }
    }
}

fn show(ran: &Ran, format: Format) -> Result<(), Failure> {
    match (format, &ran.id) {
        (Format::Json, _) => output::json_line(ran),
        (Format::Id, Some(id)) if ran.outcome == "committed" => output::line(id),
        (Format::Table, _) if ran.outcome != "committed" => {
            let why = ran.why.as_deref().unwrap_or("-");
            output::line(&format!("line {}: {}: {}", ran.line, ran.outcome, output::printable(why)))
        }
        (Format::Id | Format::Table, _) => Ok(()),
    }
}

/// A line of the file with its number and its key.
struct Line {
    number: usize,
    key: String,
    text: String,
}

/// Reads lines and gives them their keys.
struct Keyed {
    lines: std::iter::Enumerate<Lines<Box<dyn BufRead + Send>>>,
    prefix: String,
    seen: HashMap<[u8; 16], u32>,
}

impl Keyed {
    fn new(file: Box<dyn BufRead + Send>, prefix: &str) -> Self {
        Self { lines: file.lines().enumerate(), prefix: prefix.to_owned(), seen: HashMap::new() }
    }
}

impl Iterator for Keyed {
    type Item = Result<Line, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (place, text) = self.lines.next()?;
            let text = match text {
                Ok(text) => text,
                Err(error) => return Some(Err(Failure::of("cannot read the file", &error))),
            };
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let digest = Sha256::digest(text.as_bytes());
            let mut short = [0; 16];
            short.copy_from_slice(&digest[..16]);
            let seen = self.seen.entry(short).or_insert(0);
            *seen += 1;
            let hex: String = short.iter().map(|byte| format!("{byte:02x}")).collect();
            let key = format!("{}:{hex}:{seen}", self.prefix);
            return Some(Ok(Line { number: place + 1, key, text: text.to_owned() }));
        }
    }
}

async fn run_line(
    client: &CoordinatorClient,
    line: Result<Line, Failure>,
    args: &RunArgs,
) -> Result<Ran, Failure> {
    let Line { number, key, text } = line?;
    let ran =
        |outcome, id: Option<String>, why| Ran { line: number, key: key.clone(), outcome, id, why };
    let mut request: TransactionRequest = match read_json(text.as_bytes()) {
        Ok(request) => request,
        Err(error) => return Ok(ran("rejected", None, Some(format!("no transaction: {error}")))),
    };
    let parsed: IdempotencyKey =
        key.parse().map_err(|error| Failure::usage(format!("--key-prefix: {error}")))?;
    request.protocol = args.protocol.map_or(request.protocol, Protocol::from);
    // A transaction with an id of its own is known by that.
    let is_once = request.protocol == Protocol::Implicit && request.id.is_none();
    let header = (request.id.is_none() && !is_once).then_some(&parsed);
    let deadline = Instant::now() + Duration::from_millis(args.give_up.0);
    let mut pause = RETRY_FIRST;
    loop {
        let why = match client.submit(&request, header, None).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => {
                return Ok(ran("committed", Some(view.id.to_string()), None));
            }
            Ok(view) if is_once => {
                let why = Some(format!("{} is pending", view.id));
                return Ok(ran("unknown", Some(view.id.to_string()), why));
            }
            Err(SubmitError::Unknown(why)) if is_once => {
                return Ok(ran("unknown", None, Some(why.0)));
            }
            Ok(view) => format!("{} is pending", view.id),
            Err(SubmitError::Aborted(problem)) => {
                let id = problem.id.map(|id| id.to_string());
                return Ok(ran(
                    "aborted",
                    id,
                    Some(format!("{}: {}", problem.code, problem.detail)),
                ));
            }
            Err(SubmitError::Rejected(problem)) if !problem.retryable => {
                return Ok(ran(
                    "rejected",
                    None,
                    Some(format!("{}: {}", problem.code, problem.detail)),
                ));
            }
            Err(error @ (SubmitError::Rejected(_) | SubmitError::Unknown(_))) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Ok(ran("unknown", None, Some(why)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, prefix: &str) -> Vec<String> {
        let file: Box<dyn BufRead + Send> = Box::new(std::io::Cursor::new(text.to_owned()));
        Keyed::new(file, prefix).map(|line| line.unwrap().key).collect()
    }

    #[test]
    fn a_key_follows_its_line_wherever_it_stands() {
        let (short, long) = (keys("a\nb\n", "p"), keys("new\n\nb\n  a\n", "p"));
        assert_eq!((&short[0], &short[1]), (&long[2], &long[1]));
        assert_ne!(short, keys("a\nb\n", "q"));
    }

    #[test]
    fn equal_lines_are_different_transactions() {
        let keys = keys("a\na\n", "p");
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(|key| key.parse::<IdempotencyKey>().is_ok()));
    }

    #[test]
    fn what_is_not_known_outweighs_the_rest_in_the_exit_code() {
        let mut counts = Counts::default();
        assert_eq!(counts.exit(), Exit::Ok);
        for (outcome, exit) in [
            ("committed", Exit::Ok),
            ("aborted", Exit::Aborted),
            ("rejected", Exit::Error),
            ("unknown", Exit::NotKnown),
        ] {
            counts.add(outcome);
            assert_eq!(counts.exit(), exit);
        }
    }
}
