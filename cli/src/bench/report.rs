//! The figures of a bench: every repetition, and the medians.

use serde::Serialize;

use super::load::{Keys, Tally, Targets, Way};
use crate::exit::Failure;
use crate::output::{self, Rows};

/// Processor time for each committed transfer, in microseconds, of all processes of a kind together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct CpuMicros {
    pub(super) redis: f64,
    pub(super) agents: f64,
    pub(super) coordinator: f64,
    pub(super) load: f64,
}

/// One way in one repetition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) way: Way,
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) cpu_us: CpuMicros,
    /// Transfers for each sync of the decision log, warm-up included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transfers_per_log_sync: Option<f64>,
}

impl Measured {
    pub(super) fn new(way: Way, tally: &Tally, cpu_us: CpuMicros, syncs: Option<f64>) -> Self {
        let ms = |quantile: f64| tally.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
        let committed = tally.committed as f64;
        Self {
            way,
            rate: committed / tally.seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            committed: tally.committed,
            aborted: tally.aborted,
            cpu_us,
            transfers_per_log_sync: syncs
                .filter(|syncs| *syncs > 0.0)
                .map(|syncs| committed / syncs),
        }
    }
}

/// The medians of one way.
#[derive(Debug, Clone, Serialize)]
struct Median {
    way: Way,
    rate: f64,
    /// Of the rate to the floor's in the same repetition.
    ratio_to_floor: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    aborted: u64,
    cpu_us: CpuMicros,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfers_per_log_sync: Option<f64>,
}

/// All of it; the document of `-o json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    seconds: u64,
    accounts: u32,
    writes: usize,
    ack: &'static str,
    keys: Keys,
    cores: usize,
    sums: &'static str,
    moved: i64,
    medians: Vec<Median>,
    repetitions: Vec<Measured>,
}

impl Report {
    pub(super) fn new(
        clients: usize,
        seconds: u64,
        targets: &Targets,
        moved: i64,
        repetitions: Vec<Measured>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let medians = [Way::Floor, Way::FloorPipelined, Way::Assent]
            .into_iter()
            .map(|way| Median::of(way, &repetitions))
            .collect();
        Self {
            clients,
            seconds,
            accounts: targets.accounts,
            writes: targets.writes,
            ack: targets.ack,
            keys: targets.keys,
            cores,
            sums: "as reported",
            moved,
            medians,
            repetitions,
        }
    }

    /// For people.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        let Self { clients, seconds, accounts, writes, ack, keys, cores, medians, .. } = self;
        let repetitions = &self.repetitions;
        let keys = match keys {
            Keys::None => "no idempotency keys",
            Keys::Each => "an idempotency key each",
        };
        output::line(&format!(
            "two-branch transfers, accounts changed in each branch: {writes}; {clients} closed-loop clients, {accounts} \
             accounts at each of 2 Redis (AOF, fsync always), ack {ack}, {keys}"
        ))?;
        output::line(&format!(
            "all on this machine ({cores} cores), median of {} repetitions of {seconds} s, interleaved",
            repetitions.len() / medians.len().max(1)
        ))?;
        let mut rows = Rows::new(&[
            "WAY",
            "TX/S",
            "TO FLOOR",
            "P50 MS",
            "P99 MS",
            "P99.9 MS",
            "ABORTED",
            "CPU US/TX: REDIS",
            "AGENTS",
            "COORD",
            "LOAD",
        ]);
        for one in medians {
            let CpuMicros { redis, agents, coordinator, load } = one.cpu_us;
            rows.push([
                name(one.way).to_owned(),
                format!("{:.0}", one.rate),
                format!("{:.2}", one.ratio_to_floor),
                format!("{:.2}", one.p50_ms),
                format!("{:.2}", one.p99_ms),
                format!("{:.2}", one.p999_ms),
                one.aborted.to_string(),
                format!("{redis:.0}"),
                format!("{agents:.0}"),
                format!("{coordinator:.0}"),
                format!("{load:.0}"),
            ]);
        }
        output::rows(&rows)?;
        if let Some(each) = medians.iter().find_map(|one| one.transfers_per_log_sync) {
            output::line(&format!("decision log: {each:.1} transfers for each fsync"))?;
        }
        output::line(&format!("sums: as reported ({} moved net)", self.moved))
    }
}

const fn name(way: Way) -> &'static str {
    match way {
        Way::Floor => "no atomicity",
        Way::FloorPipelined => "no atomicity, pipelined",
        Way::Assent => "assent",
    }
}

impl Median {
    fn of(way: Way, all: &[Measured]) -> Self {
        let of_way = |way: Way| all.iter().filter(move |one| one.way == way);
        let pick = |value: &dyn Fn(&Measured) -> f64| median(of_way(way).map(value).collect());
        let ratios = of_way(way).zip(of_way(Way::Floor)).map(|(one, floor)| one.rate / floor.rate);
        let syncs: Vec<f64> = of_way(way).filter_map(|one| one.transfers_per_log_sync).collect();
        Self {
            way,
            rate: pick(&|one| one.rate),
            ratio_to_floor: median(ratios.collect()),
            p50_ms: pick(&|one| one.p50_ms),
            p99_ms: pick(&|one| one.p99_ms),
            p999_ms: pick(&|one| one.p999_ms),
            aborted: of_way(way).map(|one| one.aborted).sum(),
            cpu_us: CpuMicros {
                redis: pick(&|one| one.cpu_us.redis),
                agents: pick(&|one| one.cpu_us.agents),
                coordinator: pick(&|one| one.cpu_us.coordinator),
                load: pick(&|one| one.cpu_us.load),
            },
            transfers_per_log_sync: (!syncs.is_empty()).then(|| median(syncs)),
        }
    }
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
