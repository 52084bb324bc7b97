//! The `assent` command with its crash points compiled in: what the tests start, kill and start again.

use std::process::ExitCode;

fn main() -> ExitCode {
    assent::run(std::env::args_os())
}
