//! The `assent` command; everything is in the library, so that tests call the same code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    assent::run(std::env::args_os())
}
