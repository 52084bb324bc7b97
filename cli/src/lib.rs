//! The `assent` command: one binary for the coordinator, the participants and their operators.
//!
//! [`run`] is all of it, so that tests call the code that people run.
//!
//! ```text
//! run ── args (clap) ── config (flags > environment > file > defaults) ── command ── output ── exit code
//! ```

mod args;
pub mod config;
pub mod exit;
mod ops;
pub mod output;
pub mod runtime;
mod server;
mod telemetry;

use std::ffi::OsString;
use std::process::ExitCode;

pub use args::{RedisProgram, command};
pub use config::reference::{cli_page, config_page};
pub use exit::{Exit, Failure};

/// Runs the command line, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match args::execute(arguments) {
        Ok(exit) => exit.into(),
        Err(Failure { exit, message }) => {
            if !message.is_empty() && !telemetry::log_end(&message, exit as u8) {
                output::talk(&format!("assent: {message}"));
            }
            exit.into()
        }
    }
}
