//! The tokio runtime, and the signals that end a server.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Failure;
use crate::output;

/// More workers than this help neither server: the log has one writer and Redis one thread.
const WORKERS_MAX: usize = 4;

/// The exit code after a second signal: what a shell reports for SIGINT.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Half of the cores, at most four: the other half is for Redis and the log.
#[must_use]
pub fn workers_default() -> usize {
    available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, WORKERS_MAX))
}

/// A runtime of this many workers.
pub fn start(workers: usize) -> Result<Runtime, Failure> {
    if workers == 0 {
        return Err(Failure::usage("workers must be at least 1"));
    }
    // One worker needs no stealing and no waking of others: a quarter less CPU for a transaction on a small machine.
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers)
        .thread_name("assent-worker")
        .enable_all()
        .build()
        .map_err(|error| Failure::of("cannot start the runtime", &error))
}

/// Waits for SIGTERM or SIGINT. From then on a second one ends the process at once.
pub async fn stop_signal() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::of("cannot listen for signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        output::talk(
            "second signal: exiting at once; what was not finished goes on after the next start",
        );
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(())
}
