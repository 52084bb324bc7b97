//! The log's metrics: names, meanings, and the few lines that record them.

use std::time::Duration;

use super::{LogError, SegmentInfo};

pub(super) const FSYNC_SECONDS: &str = "assent_log_fsync_duration_seconds";
pub(super) const BATCH_SIZE: &str = "assent_log_batch_size";
pub(super) const BYTES: &str = "assent_log_bytes";
pub(super) const CORRUPTION: &str = "assent_log_corruption_total";

/// Describes the log's metrics to the exporter, and begins those that an alert must not find absent.
pub fn describe() {
    metrics::describe_histogram!(
        FSYNC_SECONDS,
        metrics::Unit::Seconds,
        "One fdatasync of the decision log"
    );
    metrics::describe_histogram!(BATCH_SIZE, "Records made durable by one fdatasync");
    metrics::describe_gauge!(BYTES, metrics::Unit::Bytes, "Records in segments not yet retired");
    metrics::describe_counter!(CORRUPTION, "Times that damage was found in the decision log");
    metrics::counter!(CORRUPTION).increment(0);
}

pub(super) fn record_batch(records: usize, sync: Duration) {
    metrics::histogram!(FSYNC_SECONDS).record(sync.as_secs_f64());
    metrics::histogram!(BATCH_SIZE).record(records as f64);
}

pub(super) fn set_bytes(segments: &[SegmentInfo]) {
    let bytes: u64 = segments.iter().map(|info| info.bytes).sum();
    metrics::gauge!(BYTES).set(bytes as f64);
}

pub(super) fn count_corruption(error: &LogError) {
    if matches!(error, LogError::Corrupt { .. } | LogError::Missing { .. }) {
        metrics::counter!(CORRUPTION).increment(1);
    }
}
