//! Logs and metrics of the server commands. Libraries emit through facades; only here is anything installed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::output;

/// How often histograms are folded, so that they do not grow between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Whether this process logs JSON lines.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Buckets of counts: messages of a batch, records of a sync.
const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Begins logging to stderr: JSON lines for machines, text for a person. `RUST_LOG` says what; without it a person gets
/// warnings, and a machine also what happened.
pub(crate) fn start_logs() {
    let watched = output::is_watched();
    let default = if watched {
        "warn"
    } else {
        "warn,assent=info,assent_coordinator=info,assent_participant=info"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Whoever embeds this code may have a subscriber already; theirs stays.
    if watched {
        let _theirs = builder.compact().try_init();
    } else if builder.json().flatten_event(true).try_init().is_ok() {
        IS_JSON.store(true, Ordering::Relaxed);
    }
}

/// Says why a server ends: as a log event where its log is one that machines read.
///
/// Returns whether that was done: nobody may listen, or the log may be a person's.
pub(crate) fn log_end(message: &str, exit: u8) -> bool {
    let is_heard = IS_JSON.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::ERROR);
    if is_heard {
        tracing::error!(exit, "{message}");
    }
    is_heard
}

/// Installs the recorder of the metrics. Must be called in a runtime.
pub(crate) fn start_metrics() -> Result<PrometheusHandle, Failure> {
    let failed = |error: metrics_exporter_prometheus::BuildError| {
        Failure::of("cannot set up the metrics", &error)
    };
    let seconds = assent_coordinator::metrics::DURATION_BUCKETS;
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), seconds)
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Full("assent_batch_messages".to_owned()),
                COUNT_BUCKETS,
            )
        })
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Full("assent_log_batch_size".to_owned()),
                COUNT_BUCKETS,
            )
        })
        .and_then(assent_participant::metrics::configure)
        .map_err(failed)?;
    let handle = builder.install_recorder().map_err(failed)?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Says something about the start: to a person as a line, to a machine as a log event.
pub(crate) fn announce(line: &str) {
    if output::is_watched() {
        output::talk(line);
    } else {
        tracing::info!("{line}");
    }
}
