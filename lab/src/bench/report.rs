//! The figures of a bench: every repetition, and for each cell the repetition whose rate is the
//! median, whole, so that its figures belong together.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::{Keys, Way};
use super::load::{Pace, Tally};
use super::machine::Spent;
use super::stage::{Outlay, Settings};
use super::unit::{Escrow, Mode};
use super::verify::Verdict;
use super::workload::Shape;

/// Something for each committed transaction, of all processes of a kind together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ByKind {
    pub(super) redis: f64,
    pub(super) agents: f64,
    pub(super) coordinator: f64,
    pub(super) load: f64,
}

/// One way in one repetition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    /// Committed in a second of the window.
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    pub(super) committed: u64,
    /// Aborted or refused in the window, by code.
    pub(super) failed: BTreeMap<String, u64>,
    /// Their share of all answers.
    pub(super) failed_percent: f64,
    /// Answers of the window that did not say the outcome.
    pub(super) pending: u64,
    /// Committed ones that took more than one attempt, of all committed ones.
    pub(super) retried_percent: f64,
    pub(super) retries_per_tx: f64,
    pub(super) cpu_us_per_tx: ByKind,
    /// Those of the coordinator hold the zeros that it writes ahead, into segments that are not
    /// used yet.
    pub(super) disk_bytes_per_tx: ByKind,
    /// By the coordinator's own count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_syncs_per_tx: Option<f64>,
    /// An estimate: see `bench/machine.rs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redis_syncs_per_tx: Option<f64>,
    /// Of all processors, whoever used them.
    pub(super) machine_busy_percent: f64,
    /// Of that, what the processes of this bench did not use: the kernel's own threads, and others
    /// on this machine.
    pub(super) others_busy_percent: f64,
    /// How late the generator itself began, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lateness: Option<Lateness>,
}

/// The error of the generator in an open loop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Lateness {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Arrivals that were given up; their latency counts as their age then.
    pub(super) unserved: u64,
}

/// What a cell is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Subject {
    #[serde(flatten)]
    pub(super) shape: Shape,
    pub(super) clients: usize,
    /// Begun in a second, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked_rate: Option<f64>,
    #[serde(flatten)]
    pub(super) way: Way,
}

/// One way under one load: the medians, and what they are of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) median: Measured,
    pub(super) rate_min: f64,
    pub(super) rate_max: f64,
    /// Medians of the ratios within each repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_to_floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_to_floor_pipelined: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_to_uncontended: Option<f64>,
    /// Of the port for Redis clients, to the same by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_to_http: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_to_floor: Option<f64>,
    pub(super) repetitions: Vec<Measured>,
}

/// What could not be measured, and why.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NotMeasured {
    #[serde(flatten)]
    pub(super) way: Way,
    pub(super) why: String,
}

/// All of it; the document of `-o json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of this document's form.
    pub(super) version: u32,
    pub(super) settings: Settings,
    pub(super) seconds: f64,
    pub(super) repetitions: u32,
    pub(super) accounts: u64,
    pub(super) escrow: Escrow,
    pub(super) idempotency_keys: Keys,
    pub(super) verdict: Verdict,
    pub(super) not_measured: Vec<NotMeasured>,
    pub(super) cells: Vec<Cell>,
}

impl Measured {
    pub(super) fn new(shape: Shape, pace: Pace, tally: &Tally, outlay: &Outlay) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile: f64| ms(tally.latency_us.value_at_quantile(quantile));
        let committed = tally.committed as f64;
        let failed: u64 = tally.failed.values().sum();
        let rate = committed / tally.seconds;
        // The window of the processes is a little longer than that of the clients.
        let transactions = (rate * outlay.seconds).max(1.0);
        let by_kind = |value: &dyn Fn(Spent) -> f64| ByKind {
            redis: value(outlay.redis) / transactions,
            agents: value(outlay.agents) / transactions,
            coordinator: value(outlay.coordinator) / transactions,
            load: value(outlay.load) / transactions,
        };
        let cpu_us_per_tx = by_kind(&|spent| spent.cpu.as_secs_f64() * 1e6);
        let ByKind { redis, agents, coordinator, load } = cpu_us_per_tx;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let ours = (redis + agents + coordinator + load) * transactions / 1e6;
        let ours_percent = 100.0 * ours / (outlay.seconds * cores);
        let syncs = outlay.redis.writes as f64 - outlay.redis.reads as f64;
        Self {
            rate,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(tally.latency_us.max()),
            committed: tally.committed,
            failed: tally.failed.clone(),
            failed_percent: percent(failed, tally.committed + failed + tally.pending),
            pending: tally.pending,
            retried_percent: percent(tally.retried, tally.committed),
            retries_per_tx: tally.retries as f64 / committed.max(1.0),
            cpu_us_per_tx,
            disk_bytes_per_tx: by_kind(&|spent| spent.disk_bytes as f64),
            log_syncs_per_tx: outlay.log_syncs.map(|syncs| syncs / transactions),
            redis_syncs_per_tx: (!matches!(shape, Shape::Large { .. }) && outlay.redis.writes > 0)
                .then_some(syncs.max(0.0) / transactions),
            machine_busy_percent: outlay.busy_percent,
            others_busy_percent: (outlay.busy_percent - ours_percent).max(0.0),
            lateness: matches!(pace, Pace::Open(_)).then(|| Lateness {
                p50_ms: ms(tally.lateness_us.value_at_quantile(0.5)),
                p99_ms: ms(tally.lateness_us.value_at_quantile(0.99)),
                unserved: tally.unserved,
            }),
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / (whole as f64).max(1.0)
}

/// Puts the repetitions of each subject together. Within a repetition all ways of a load come one
/// after the other, so that the n-th figure of one belongs to the n-th of another.
pub(super) fn cells(measured: &[(Subject, Measured)]) -> Vec<Cell> {
    let mut subjects: Vec<Subject> = Vec::new();
    for (subject, _) in measured {
        if !subjects.contains(subject) {
            subjects.push(*subject);
        }
    }
    let of = |subject: Subject| -> Vec<&Measured> {
        measured.iter().filter(|(other, _)| *other == subject).map(|(_, one)| one).collect()
    };
    let cell = |subject: &Subject| {
        let own = of(*subject);
        let against = |way: Way, figure: fn(&Measured) -> f64| {
            let reference = of(Subject { way, ..*subject });
            let both = own.iter().zip(&reference);
            // Where nothing was committed there is no latency.
            let both = both.filter(|(one, other)| one.committed > 0 && other.committed > 0);
            let ratios: Vec<f64> = both.map(|(one, other)| figure(one) / figure(other)).collect();
            (subject.way != way && !ratios.is_empty()).then(|| median(ratios))
        };
        let uncontended = match subject.way {
            Way::Assent(mode) => against(Way::Uncontended(mode), |one| one.rate),
            _ => None,
        };
        let http = match subject.way {
            Way::Port | Way::PortPipelined => against(Way::Assent(Mode::DEFAULT), |one| one.rate),
            _ => None,
        };
        let rates: Vec<f64> = own.iter().map(|one| one.rate).collect();
        Some(Cell {
            subject: *subject,
            median: (*own.get(middle(&rates)?)?).clone(),
            rate_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            rate_max: rates.iter().copied().fold(0.0, f64::max),
            rate_to_floor: against(Way::Floor, |one| one.rate),
            rate_to_floor_pipelined: against(Way::FloorPipelined, |one| one.rate),
            rate_to_uncontended: uncontended,
            rate_to_http: http,
            p50_to_floor: against(Way::Floor, |one| one.p50_ms),
            repetitions: own.into_iter().cloned().collect(),
        })
    };
    subjects.iter().filter_map(cell).collect()
}

/// The place of the middle one; of an even number, of the lower of the two in the middle.
fn middle(values: &[f64]) -> Option<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|one, other| values[*one].total_cmp(&values[*other]));
    places.get(places.len().saturating_sub(1) / 2).copied()
}

fn median(values: Vec<f64>) -> f64 {
    middle(&values).map_or(0.0, |place| values[place])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::unit::{Ack, Mode, Protocol};

    const MODE: Mode = Mode { ack: Ack::Applied, protocol: Protocol::Logged };

    fn subject(way: Way) -> Subject {
        Subject { shape: Shape::Transfer { writes: 1 }, clients: 64, asked_rate: None, way }
    }

    fn outlay() -> Outlay {
        let spent = |ms, writes, reads| Spent {
            cpu: Duration::from_millis(ms),
            disk_bytes: 4_000,
            writes,
            reads,
        };
        Outlay {
            seconds: 2.0,
            busy_percent: 80.0,
            coordinator: spent(100, 0, 0),
            agents: spent(200, 0, 0),
            redis: spent(400, 1_500, 1_000),
            load: spent(300, 0, 0),
            log_syncs: Some(50.0),
        }
    }

    fn measured(rate: f64, p50_ms: f64) -> Measured {
        let mut tally = crate::bench::load::tests_support::tally(2.0);
        tally.committed = 1;
        let shape = Shape::Transfer { writes: 1 };
        let one = Measured::new(shape, Pace::Closed, &tally, &outlay());
        Measured { rate, p50_ms, ..one }
    }

    #[test]
    fn the_median_is_a_repetition_that_was_measured_whole() {
        let one = |rate, p50| (subject(Way::Floor), measured(rate, p50));
        let cells = cells(&[one(30.0, 1.0), one(10.0, 9.0), one(20.0, 5.0)]);
        assert_eq!(cells.len(), 1);
        assert!((cells[0].median.p50_ms - 5.0).abs() < 1e-9);
        assert_eq!((cells[0].rate_min, cells[0].rate_max), (10.0, 30.0));
        assert_eq!(cells[0].rate_to_floor, None);
        assert_eq!(middle(&[4.0, 1.0]), Some(1));
        assert_eq!(middle(&[]), None);
    }

    #[test]
    fn ratios_are_of_one_repetition_and_then_the_median() {
        let floor = |rate| (subject(Way::Floor), measured(rate, 1.0));
        let assent = |rate| (subject(Way::Assent(MODE)), measured(rate, 3.0));
        let reference = |rate| (subject(Way::Uncontended(MODE)), measured(rate, 1.0));
        // The machine is twice as fast in the second repetition: the ratio of the medians would say
        // 0.75.
        let all = [
            floor(100.0),
            reference(80.0),
            assent(50.0),
            floor(200.0),
            reference(160.0),
            assent(100.0),
            floor(100.0),
            reference(80.0),
            assent(75.0),
        ];
        let cells = cells(&all);
        let assent = cells.iter().find(|cell| cell.subject.way == Way::Assent(MODE)).unwrap();
        assert_eq!(assent.rate_to_floor, Some(0.5));
        assert_eq!(assent.rate_to_uncontended, Some(0.625));
        assert_eq!(assent.p50_to_floor, Some(3.0));
        assert_eq!(assent.rate_to_floor_pipelined, None);
    }

    #[test]
    fn what_was_spent_is_shared_among_the_committed() {
        let mut tally = crate::bench::load::tests_support::tally(2.0);
        tally.committed = 1_000;
        tally.failed.insert("lock_conflict".to_owned(), 250);
        tally.retried = 100;
        let one = Measured::new(Shape::Read, Pace::Closed, &tally, &outlay());
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        };
        close(one.rate, 500.0);
        close(one.cpu_us_per_tx.redis, 400.0);
        close(one.disk_bytes_per_tx.agents, 4.0);
        close(one.log_syncs_per_tx.unwrap(), 0.05);
        close(one.redis_syncs_per_tx.unwrap(), 0.5);
        close(one.failed_percent, 20.0);
        close(one.retried_percent, 10.0);
        // Of pieces of large requests nothing can be told.
        let large = Measured::new(Shape::Large { bytes: 1_024 }, Pace::Closed, &tally, &outlay());
        assert_eq!(large.redis_syncs_per_tx, None);
    }
}
