//! The figures of `assent-lab bench recovery`: every repetition, and the medians.

use std::time::Duration;

use assent::{
    Failure,
    output::{self, Rows},
};
use serde::Serialize;

use super::RecoveryArgs;
use super::asking::Repeats;
use super::log::Keyed;
use super::servers::Memory;

/// One repetition. Times are from the start of the coordinator's process, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Repetition {
    /// Records in the log.
    pub(super) records: u64,
    /// Bytes of them.
    pub(super) log_bytes: u64,
    /// Until `/readyz` answered 200.
    pub(super) ready_ms: f64,
    /// Processor time of the coordinator until then.
    pub(super) ready_cpu_ms: f64,
    /// Until nothing was unfinished, and all of it applied in both Redis servers.
    pub(super) drain_ms: f64,
    /// Until `/readyz` answered 200, in the part about what was not decided.
    pub(super) resolve_ready_ms: f64,
    /// Until no branch was in doubt that nobody had decided.
    pub(super) resolve_ms: f64,
    /// When it was ready, with all that is unfinished.
    #[serde(flatten)]
    pub(super) memory: Memory,
}

/// A coordinator that knows this many ended transactions and nothing else.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct MemoryPoint {
    pub(super) ended: u64,
    pub(super) keyed: Keyed,
    pub(super) ready_ms: f64,
    pub(super) ready_cpu_ms: f64,
    pub(super) log_bytes: u64,
    /// When the allocator keeps nothing of the start.
    #[serde(flatten)]
    pub(super) memory: Memory,
}

/// All of it; the document of `-o json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ended: u64,
    unfinished: u64,
    cores: usize,
    debug_build: bool,
    data: &'static str,
    records: u64,
    log_bytes: u64,
    ready_ms: f64,
    ready_cpu_ms: f64,
    drain_ms: f64,
    resolve_ms: f64,
    rss_bytes: u64,
    rss_high_bytes: u64,
    /// Of an ended transaction that can be found by its id and by its key.
    bytes_per_ended_transaction: f64,
    /// What of it is for the key.
    bytes_per_idempotency_entry: f64,
    repeats: Repeats,
    memory: Vec<MemoryPoint>,
    repetitions: Vec<Repetition>,
}

impl Report {
    pub(super) fn new(
        args: &RecoveryArgs,
        repetitions: Vec<Repetition>,
        repeats: Repeats,
        memory: Vec<MemoryPoint>,
    ) -> Self {
        let of = |value: &dyn Fn(&Repetition) -> f64| median(repetitions.iter().map(value));
        let whole = |value: &dyn Fn(&Repetition) -> u64| {
            let mut values: Vec<u64> = repetitions.iter().map(value).collect();
            values.sort_unstable();
            values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
        };
        let rss = |ended, keyed| {
            let point = memory.iter().find(|point| point.ended == ended && point.keyed == keyed);
            point.map_or(0.0, |point| point.memory.rss_bytes as f64)
        };
        let all = rss(args.ended, Keyed::Yes);
        let each = |without: f64| (all - without) / args.ended as f64;
        Self {
            ended: args.ended,
            unfinished: args.unfinished,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            debug_build: cfg!(debug_assertions),
            data: "as decided",
            records: whole(&|one| one.records),
            log_bytes: whole(&|one| one.log_bytes),
            ready_ms: of(&|one| one.ready_ms),
            ready_cpu_ms: of(&|one| one.ready_cpu_ms),
            drain_ms: of(&|one| one.drain_ms),
            resolve_ms: of(&|one| one.resolve_ms),
            rss_bytes: whole(&|one| one.memory.rss_bytes),
            rss_high_bytes: whole(&|one| one.memory.rss_high_bytes),
            bytes_per_ended_transaction: each(rss(0, Keyed::Yes)),
            bytes_per_idempotency_entry: each(rss(args.ended, Keyed::No)),
            repeats,
            memory,
            repetitions,
        }
    }

    /// For people.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        let Self { ended, unfinished, cores, repetitions, repeats, .. } = self;
        output::line(&format!(
            "restart of a coordinator with {ended} ended and {unfinished} unfinished transactions of two branches; {} \
             records, {:.0} MB of log in the page cache; all on this machine ({cores} cores), median of {} repetitions",
            self.records,
            mega(self.log_bytes),
            repetitions.len()
        ))?;
        let mut rows = Rows::new(&["FROM THE START OF THE PROCESS", "MS"]);
        let unfinished_is = |what| format!("{unfinished} {what}");
        rows.push(["ready".to_owned(), format!("{:.0}", self.ready_ms)]);
        rows.push(["its processor time".to_owned(), format!("{:.0}", self.ready_cpu_ms)]);
        rows.push([
            unfinished_is("decided and told nobody: applied everywhere"),
            format!("{:.0}", self.drain_ms),
        ]);
        rows.push([
            unfinished_is("voted on and not decided: dropped everywhere"),
            format!("{:.0}", self.resolve_ms),
        ]);
        output::rows(&rows)?;
        let mut rows =
            Rows::new(&["ENDED", "KEYS", "READY MS", "CPU MS", "LOG MB", "RSS MB", "PEAK MB"]);
        for point in &self.memory {
            rows.push([
                point.ended.to_string(),
                output::word(&point.keyed),
                format!("{:.0}", point.ready_ms),
                format!("{:.0}", point.ready_cpu_ms),
                format!("{:.1}", mega(point.log_bytes)),
                format!("{:.1}", mega(point.memory.rss_bytes)),
                format!("{:.1}", mega(point.memory.rss_high_bytes)),
            ]);
        }
        output::rows(&rows)?;
        output::line(&format!(
            "memory: {:.0} bytes for an ended transaction, {:.0} of them for its idempotency key",
            self.bytes_per_ended_transaction, self.bytes_per_idempotency_entry
        ))?;
        output::line(&format!(
            "{} asked for again by key, {} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            repeats.asked, repeats.clients, repeats.rate, repeats.p50_ms, repeats.p99_ms
        ))?;
        output::line("data: as decided, nothing staged, nothing run twice")
    }
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
