//! `assent-check FILE`: reads a history and prints what the checkers find in it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use assent_checkers::{Checker, History, Report, Verdict, check};
use clap::{Parser, ValueEnum};

/// Everything that was looked at holds.
const HOLDS: u8 = 0;
/// Something is wrong.
const VIOLATED: u8 = 1;
/// The history cannot be read, or the command line.
const USAGE: u8 = 2;
/// Something could not be said, or was to be there and is not.
const UNKNOWN: u8 = 4;

/// Checks a history of operations: JSON lines, as Jepsen has them.
#[derive(Debug, Parser)]
#[command(
    name = "assent-check",
    version,
    after_help = "Exit codes: 0 holds, 1 violated, 2 unreadable, 4 not known"
)]
struct Arguments {
    /// The history; - for standard input
    file: PathBuf,
    /// Run only these checkers, and each must have something to look at
    #[arg(long, value_delimiter = ',', value_parser = checker)]
    only: Vec<Checker>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// An array of reports
    Json,
}

fn checker(name: &str) -> Result<Checker, String> {
    let known = || Checker::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
    let found = Checker::ALL.iter().find(|checker| checker.as_str() == name);
    found.copied().ok_or_else(|| format!("there are {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let history = match read(&arguments.file) {
        Ok(history) => history,
        Err(why) => {
            say(std::io::stderr(), &format!("{}: {why}", arguments.file.display()));
            return USAGE.into();
        }
    };
    if history.torn {
        say(std::io::stderr(), "the last line is torn, and left out");
    }
    let all = arguments.only.is_empty();
    let chosen = if all { Checker::ALL } else { &arguments.only };
    let reports: Vec<Report> = chosen.iter().map(|checker| check(*checker, &history)).collect();
    let text = match arguments.output {
        Output::Json => serde_json::to_string_pretty(&reports).unwrap_or_default(),
        Output::Text => reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    if !say(std::io::stdout(), &text) {
        return USAGE.into();
    }
    exit(&reports, all).into()
}

fn read(file: &Path) -> Result<History, String> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    read.map_err(|error| error.to_string())?;
    // A torn last line may end within a character.
    History::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| error.to_string())
}

fn exit(reports: &[Report], absent_is_fine: bool) -> u8 {
    let any = |is: fn(&Verdict) -> bool| reports.iter().any(|report| is(&report.verdict));
    if any(|verdict| matches!(verdict, Verdict::Violated { .. })) {
        VIOLATED
    } else if any(|verdict| matches!(verdict, Verdict::Unknown { .. }))
        || (!absent_is_fine && any(|verdict| *verdict == Verdict::Absent))
        || !any(|verdict| *verdict == Verdict::Holds)
    {
        UNKNOWN
    } else {
        HOLDS
    }
}

fn say(mut to: impl Write, text: &str) -> bool {
    writeln!(to, "{text}").is_ok()
}
