//! The `assent` command, for the tests of the laboratory: what they start, built with them.

use std::process::ExitCode;

fn main() -> ExitCode {
    assent::run(std::env::args_os())
}
