//! How a command ends: the exit codes, and the one error type of the command line.

use std::error::Error as StdError;
use std::process::ExitCode;

use assent_client::{BuildError, CallError, InvalidBaseUrl, SubmitError, Unknown};
use assent_common::ErrorCode;
use assent_common::wire::problem::{OutcomeWord, Problem};

use crate::output::printable;

/// The exit codes. Scripts rely on them: they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done; for a transaction: committed.
    Ok = 0,
    /// It failed, and is known to have failed.
    Error = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage = 2,
    /// The transaction was aborted.
    Aborted = 3,
    /// The outcome is not known yet.
    NotKnown = 4,
    /// Nobody of ours answered.
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends without what it was asked for. The message is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, and what to do.
    pub message: String,
}

impl Failure {
    /// A plain failure.
    pub fn error(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, message: message.into() }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// Nobody of ours answered.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }

    /// An error with its sources, behind what was tried.
    pub fn of(tried: &str, error: &(dyn StdError + 'static)) -> Self {
        Self::error(format!("{tried}: {}", chain(error)))
    }

    /// A call to the API that has no result.
    pub fn of_call(url: &str, error: CallError) -> Self {
        match error {
            CallError::Rejected(problem) => Self::of_problem(&problem),
            CallError::Unknown(Unknown(why)) => Self::unreachable(format!("{url}: {why}")),
        }
    }

    fn of_problem(problem: &Problem) -> Self {
        let exit = match (problem.outcome, problem.code) {
            (Some(OutcomeWord::Aborted), _) => Exit::Aborted,
            (Some(OutcomeWord::Pending), _) => Exit::NotKnown,
            (Some(OutcomeWord::Committed), _) | (None, _) => Exit::Error,
        };
        let advice = advice(problem.code);
        let detail = printable(&problem.detail);
        Self { exit, message: format!("{}: {detail}{advice}", problem.code) }
    }

    /// A transaction that was submitted, and is not reported committed or pending.
    pub fn of_submit(url: &str, error: SubmitError) -> Self {
        match error {
            SubmitError::Aborted(problem) => {
                Self { exit: Exit::Aborted, ..Self::of_problem(&problem) }
            }
            SubmitError::Rejected(problem) => Self::of_problem(&problem),
            SubmitError::Unknown(Unknown(why)) => Self {
                exit: Exit::NotKnown,
                message: format!(
                    "{url}: {why}; it is not known what became of it: submit the same again with the same key"
                ),
            },
        }
    }
}

fn advice(code: ErrorCode) -> String {
    match code.advice() {
        "" => String::new(),
        advice => format!(" ({advice})"),
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::of("cannot set up the HTTP client", &error)
    }
}
impl From<InvalidBaseUrl> for Failure {
    fn from(error: InvalidBaseUrl) -> Self {
        Self::usage(error.to_string())
    }
}
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::error(error.to_string())
    }
}

/// The text of an error and of its sources, each once.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
