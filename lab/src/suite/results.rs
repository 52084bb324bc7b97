//! What a run of the suite measured: a sample for each repetition, the medians of them, and the
//! ratios within each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who does the work, and what it answers when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    Floor,
    FloorPipelined,
    Uncontended,
    Applied,
    Decided,
    ImplicitApplied,
    Implicit,
    Postgres,
    Mariadb,
    Dtmrs,
}

impl Who {
    /// In tables and legends.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "no atomicity",
            Self::FloorPipelined => "no atomicity, pipelined",
            Self::Uncontended => "Assent, uncontended",
            Self::Applied => "Assent, applied",
            Self::Decided => "Assent, decided",
            Self::ImplicitApplied => "Assent, implicit, applied",
            Self::Implicit => "Assent, implicit",
            Self::Postgres => "PostgreSQL 2PC",
            Self::Mariadb => "MariaDB XA",
            Self::Dtmrs => "dtmrs saga",
        }
    }
}

/// A part of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Transfers, over the number of clients.
    Clients,
    /// Transfers, over the rate of an open loop.
    Rates,
    /// One hot item.
    HotOne,
    /// One hot item, with escrow.
    HotOneEscrow,
    /// A thousand items by Zipf.
    HotZipf,
    /// The other workloads.
    Others,
    /// Restarts.
    Recovery,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) part: Part,
    /// `transfer`, `wide 4`, ...
    pub(crate) workload: String,
    pub(crate) clients: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_rate: Option<f64>,
    pub(crate) who: Who,
}

/// One repetition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) repetition: u32,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) failed_percent: f64,
    pub(crate) retried_percent: f64,
    pub(crate) machine_busy_percent: f64,
    /// Arrivals of an open loop that were given up.
    #[serde(default)]
    pub(crate) unserved: u64,
    /// Processor time, bytes and syncs for each transaction.
    #[serde(default)]
    pub(crate) costs: Value,
}

/// What a restart takes, as `assent-lab bench recovery` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    #[serde(default)]
    pub(crate) ready_ms: Option<f64>,
    #[serde(default)]
    pub(crate) drain_ms: Option<f64>,
    /// Whatever else it says.
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

/// What could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) part: Part,
    /// All of the part, if nobody is named.
    pub(crate) who: Option<Who>,
    pub(crate) why: String,
}

/// A run of the suite.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When it was, RFC 3339.
    pub(crate) at: String,
    /// The revision of the source.
    pub(crate) revision: String,
    pub(crate) repetitions: u32,
    pub(crate) seconds: f64,
    pub(crate) took_seconds: f64,
    /// As `assent-lab bench` says them.
    pub(crate) settings: Value,
    pub(crate) peers: BTreeMap<String, Value>,
    pub(crate) samples: Vec<(Subject, Sample)>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) missing: Vec<Missing>,
    /// What in the data was not as reported; such a run has no figures.
    pub(crate) findings: Vec<String>,
}

/// Of a subject's repetitions, the one of the median rate, and the range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Median<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) rate_min: f64,
    pub(crate) rate_max: f64,
}

impl Results {
    /// All that were measured in a part, in the order in which they first were.
    pub(crate) fn subjects(&self, part: Part) -> Vec<&Subject> {
        let mut found: Vec<&Subject> = Vec::new();
        for (subject, _) in self.samples.iter().filter(|(subject, _)| subject.part == part) {
            if !found.contains(&subject) {
                found.push(subject);
            }
        }
        found
    }

    fn of<'a>(&'a self, subject: &Subject) -> Vec<&'a Sample> {
        self.samples.iter().filter(|(other, _)| other == subject).map(|(_, one)| one).collect()
    }

    pub(crate) fn median(&self, subject: &Subject) -> Option<Median<'_>> {
        let own = self.of(subject);
        let rates: Vec<f64> = own.iter().map(|sample| sample.rate).collect();
        Some(Median {
            sample: own.get(middle(&rates)?)?,
            rate_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            rate_max: rates.iter().copied().fold(0.0, f64::max),
        })
    }

    /// The median of the ratios of one figure to the best of some others' in the same repetition.
    pub(crate) fn ratio(
        &self,
        subject: &Subject,
        others: &[Who],
        figure: fn(&Sample) -> f64,
    ) -> Option<f64> {
        let ratios: Vec<f64> = self
            .of(subject)
            .into_iter()
            .filter_map(|sample| {
                let figures = others.iter().filter_map(|who| {
                    let other = Subject { who: *who, ..subject.clone() };
                    let own = |found: &&Sample| found.repetition == sample.repetition;
                    self.of(&other).into_iter().find(own).map(figure)
                });
                let best = figures.filter(|other| *other > 0.0).fold(0.0, f64::max);
                (best > 0.0).then(|| figure(sample) / best)
            })
            .collect();
        middle(&ratios).map(|place| ratios[place])
    }

    /// Enters a repetition of a peer.
    pub(crate) fn note_peer(&mut self, clients: usize, who: Who, sample: Sample) {
        let workload = "transfer".to_owned();
        let part = Part::Clients;
        self.samples.push((Subject { part, workload, clients, asked_rate: None, who }, sample));
    }

    /// The largest of a figure over a subject's repetitions.
    pub(crate) fn worst(&self, subject: &Subject, figure: fn(&Sample) -> f64) -> f64 {
        self.of(subject).into_iter().map(figure).fold(0.0, f64::max)
    }

    /// Why somebody was not measured in a part.
    pub(crate) fn why_missing(&self, part: Part, who: Who) -> Option<&str> {
        let fits = |missing: &&Missing| {
            missing.part == part && missing.who.is_none_or(|other| other == who)
        };
        self.missing.iter().find(fits).map(|missing| missing.why.as_str())
    }
}

/// The place of the middle one; of an even number, of the lower of the two in the middle.
fn middle(values: &[f64]) -> Option<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|one, other| values[*one].total_cmp(&values[*other]));
    places.get(places.len().saturating_sub(1) / 2).copied()
}

/// For tests of what is made of results.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    pub(crate) fn subject(part: Part, clients: usize, who: Who) -> Subject {
        let workload = "transfer".to_owned();
        Subject { part, workload, clients, asked_rate: None, who }
    }

    pub(crate) fn sample(repetition: u32, rate: f64, p50_ms: f64) -> Sample {
        Sample { repetition, rate, p50_ms, p99_ms: p50_ms * 3.0, ..Sample::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::{sample, subject};
    use super::*;

    fn results() -> Results {
        let of = |who, repetition, rate| {
            (subject(Part::Clients, 64, who), sample(repetition, rate, 1_000.0 / rate))
        };
        let samples = vec![
            of(Who::Floor, 1, 100.0),
            of(Who::Applied, 1, 50.0),
            of(Who::Floor, 2, 200.0),
            of(Who::Applied, 2, 120.0),
            of(Who::Floor, 3, 400.0),
            of(Who::Applied, 3, 280.0),
            of(Who::Postgres, 1, 10.0),
            of(Who::Mariadb, 1, 25.0),
            of(Who::Postgres, 2, 30.0),
        ];
        Results { samples, ..Results::default() }
    }

    #[test]
    fn the_median_is_of_one_repetition() {
        let results = results();
        let median = results.median(&subject(Part::Clients, 64, Who::Applied)).unwrap();
        assert_eq!(median.sample.repetition, 2);
        assert_eq!((median.rate_min, median.rate_max), (50.0, 280.0));
        assert_eq!(results.median(&subject(Part::Clients, 65, Who::Applied)), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_those_within_a_repetition() {
        let results = results();
        let applied = subject(Part::Clients, 64, Who::Applied);
        let ratio = results.ratio(&applied, &[Who::Floor], |sample| sample.rate).unwrap();
        assert!((ratio - 0.6).abs() < 1e-9, "{ratio}");
        let ratio = results.ratio(&applied, &[Who::Floor], |sample| sample.p50_ms).unwrap();
        assert!((ratio - 1.0 / 0.6).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn of_several_others_the_best_of_the_repetition_counts() {
        let results = results();
        let applied = subject(Part::Clients, 64, Who::Applied);
        let others = [Who::Postgres, Who::Mariadb];
        // 50/25 and 120/30; in the third nobody was measured.
        let ratio = results.ratio(&applied, &others, |sample| sample.rate).unwrap();
        assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
        assert_eq!(results.ratio(&applied, &[Who::Dtmrs], |sample| sample.rate), None);
    }
}
