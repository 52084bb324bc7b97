//! What is broken, when and for how long: all of it drawn from the seed, before anything runs.
//!
//! A step is a calm, then one fault or two that overlap, then the healing of them. The same seed and the same kinds give
//! the same steps, whatever the machine does meanwhile; how many of them a run comes to depends on its time.

use std::fmt;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::proxy::link::{Cut, Weather};

/// The banks, each a participant with its Redis and a replica.
pub(crate) const BANKS: [&str; 3] = ["a", "b", "c"];

/// One of so many steps has two faults at a time.
const TWO_AT_ONCE_ONE_IN: u32 = 3;

/// One of so many steps lasts longer than any time limit of a message.
const LONG_ONE_IN: u32 = 10;

/// Times of a step, in milliseconds.
const CALM_MS: std::ops::RangeInclusive<u64> = 500..=3_500;
const HOLD_MS: std::ops::RangeInclusive<u64> = 300..=5_000;
const LONG_HOLD_MS: std::ops::RangeInclusive<u64> = 10_500..=14_000;
const STAGGER_MS: std::ops::RangeInclusive<u64> = 0..=1_500;

/// The kinds of faults, as `--faults` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// SIGKILL to a container, started again later
    Kill,
    /// A container is stopped and started by the rules
    Restart,
    /// A container is frozen, and goes on later
    Pause,
    /// A container is taken off a network
    Partition,
    /// A link is slow
    Slow,
    /// A link loses packets, and breaks where it loses too many
    Loss,
    /// A link carries nothing, one way or both
    Cut,
    /// A link is narrow
    Throttle,
    /// The disk of the decision log or of a Redis is full
    FullDisk,
    /// A server's wall clock jumps, forwards or backwards
    Clock,
    /// A Redis dies and its replica takes over: what the replica lagged by is lost
    Promote,
    /// A Redis comes back with an append-only file from a while ago
    OldAof,
    /// A Redis loses all that it has, twice
    Flush,
}

impl Kind {
    /// What is broken unless something else is asked for. The three that lose acknowledged writes are not in it.
    pub(crate) const DEFAULT: [Self; 10] = [
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::Partition,
        Self::Slow,
        Self::Loss,
        Self::Cut,
        Self::Throttle,
        Self::FullDisk,
        Self::Clock,
    ];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Slow => "slow",
            Self::Loss => "loss",
            Self::Cut => "cut",
            Self::Throttle => "throttle",
            Self::FullDisk => "full-disk",
            Self::Clock => "clock",
            Self::Promote => "promote",
            Self::OldAof => "old-aof",
            Self::Flush => "flush",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault, with everything that it needs to be done and undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    Kill { service: String },
    Restart { service: String },
    Pause { service: String },
    Partition { service: String, network: String },
    Link { kind: Kind, link: String, weather: Weather },
    FullDisk { disk: String, service: String },
    Clock { service: String, jump_s: i64 },
    Promote { bank: &'static str },
    OldAof { bank: &'static str },
    Flush { service: String },
}

impl Fault {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Restart { .. } => Kind::Restart,
            Self::Pause { .. } => Kind::Pause,
            Self::Partition { .. } => Kind::Partition,
            Self::Link { kind, .. } => *kind,
            Self::FullDisk { .. } => Kind::FullDisk,
            Self::Clock { .. } => Kind::Clock,
            Self::Promote { .. } => Kind::Promote,
            Self::OldAof { .. } => Kind::OldAof,
            Self::Flush { .. } => Kind::Flush,
        }
    }

    /// What it is done to. Two faults at once are done to two things.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::Kill { service }
            | Self::Restart { service }
            | Self::Pause { service }
            | Self::Partition { service, .. }
            | Self::FullDisk { service, .. }
            | Self::Flush { service }
            | Self::Clock { service, .. } => service.clone(),
            Self::Link { link, .. } => format!("link {link}"),
            Self::Promote { bank } | Self::OldAof { bank } => format!("redis-{bank}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { service } => write!(f, "kill -9 {service}"),
            Self::Restart { service } => write!(f, "restart {service}"),
            Self::Pause { service } => write!(f, "pause {service}"),
            Self::Partition { service, network } => {
                write!(f, "take {service} off network {network}")
            }
            Self::Link { kind: Kind::Slow, link, weather } => {
                write!(
                    f,
                    "link {link}: {} to {} ms late",
                    weather.delay_ms,
                    weather.delay_ms + weather.jitter_ms
                )
            }
            Self::Link { kind: Kind::Loss, link, weather } => {
                write!(f, "link {link}: {} % lost", weather.loss_percent)
            }
            Self::Link { kind: Kind::Throttle, link, weather } => {
                write!(f, "link {link}: {} bytes/s", weather.bytes_per_s.unwrap_or(0))
            }
            Self::Link { link, weather, .. } => {
                let way = match weather.cut {
                    Cut::None => "open",
                    Cut::ToTarget => "cut towards its target",
                    Cut::FromTarget => "cut on the way back",
                    Cut::Both => "cut both ways",
                };
                write!(f, "link {link}: {way}")
            }
            Self::FullDisk { disk, .. } => write!(f, "the disk of {disk} is full"),
            Self::Clock { service, jump_s } => {
                write!(f, "the clock of {service} jumps by {jump_s} s")
            }
            Self::Promote { bank } => write!(f, "redis-{bank} dies, its replica is promoted"),
            Self::OldAof { bank } => write!(f, "redis-{bank} gets back an old append-only file"),
            Self::Flush { service } => write!(f, "{service} loses all that it has, and again"),
        }
    }
}

/// A fault and when in its step it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Timed {
    /// After the step's first fault began.
    pub(crate) after_ms: u64,
    pub(crate) fault: Fault,
}

/// A calm, then faults, then their healing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) number: u32,
    pub(crate) calm_ms: u64,
    pub(crate) faults: Vec<Timed>,
    /// How long after the last of them has begun they are healed.
    pub(crate) hold_ms: u64,
}

/// All steps of a seed; it does not end.
#[derive(Debug)]
pub(crate) struct Schedule {
    rng: StdRng,
    kinds: Vec<Kind>,
    steps: u32,
    /// The banks whose replica has not been promoted: there is one each.
    promotable: Vec<&'static str>,
}

impl Schedule {
    /// The schedule of a seed, of these kinds of faults. `kinds` is not empty.
    pub(crate) fn new(seed: u64, kinds: &[Kind]) -> Self {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        kinds.dedup();
        Self { rng: StdRng::seed_from_u64(seed), kinds, steps: 0, promotable: BANKS.to_vec() }
    }

    fn fault(&mut self) -> Fault {
        let kind = self.kinds.choose(&mut self.rng).copied().unwrap_or(Kind::Kill);
        match kind {
            Kind::Kill => Fault::Kill { service: self.service() },
            Kind::Restart => Fault::Restart { service: self.service() },
            Kind::Pause => Fault::Pause { service: self.service() },
            Kind::Partition => self.partition(),
            Kind::Slow | Kind::Loss | Kind::Cut | Kind::Throttle => self.weather(kind),
            Kind::FullDisk => self.full_disk(),
            Kind::Clock => self.clock(),
            Kind::Promote => match self.promotable.pop() {
                Some(bank) => Fault::Promote { bank },
                // All are promoted: a kill, so that the step is none the emptier.
                None => Fault::Kill { service: self.service() },
            },
            Kind::OldAof => match self.bank() {
                bank if self.promotable.contains(&bank) => Fault::OldAof { bank },
                // The file of a Redis that is dead for good.
                bank => Fault::Kill { service: self.redis(bank) },
            },
            Kind::Flush => {
                let bank = self.bank();
                Fault::Flush { service: self.redis(bank) }
            }
        }
    }

    fn bank(&mut self) -> &'static str {
        BANKS.choose(&mut self.rng).copied().unwrap_or(BANKS[0])
    }

    /// Whoever is the master of a bank by then.
    fn redis(&self, bank: &str) -> String {
        let promoted = !self.promotable.contains(&bank);
        format!("redis-{bank}{}", if promoted { "-replica" } else { "" })
    }

    /// A third each: the coordinator, a participant, a Redis; now and then a replica.
    fn service(&mut self) -> String {
        let bank = self.bank();
        match self.rng.random_range(0..10) {
            0..3 => "coordinator".to_owned(),
            3..6 => format!("bank-{bank}"),
            6..9 => self.redis(bank),
            _ => format!("redis-{bank}-replica"),
        }
    }

    fn partition(&mut self) -> Fault {
        let bank = self.bank();
        let (service, network) = match self.rng.random_range(0..6) {
            0 => ("coordinator".to_owned(), "agents".to_owned()),
            1 => ("coordinator".to_owned(), "front".to_owned()),
            2 => (format!("bank-{bank}"), "agents".to_owned()),
            3 => (format!("bank-{bank}"), format!("bank-{bank}")),
            4 => (self.redis(bank), format!("bank-{bank}")),
            _ => (format!("redis-{bank}-replica"), format!("bank-{bank}")),
        };
        Fault::Partition { service, network }
    }

    fn weather(&mut self, kind: Kind) -> Fault {
        let bank = self.bank();
        let link = match self.rng.random_range(0..10) {
            0..4 => format!("coordinator-bank-{bank}"),
            4..7 => format!("redis-{bank}"),
            7 => "outcomes".to_owned(),
            8 => "clients".to_owned(),
            _ => format!("replica-{bank}"),
        };
        let mut weather = Weather::default();
        match kind {
            Kind::Slow => {
                weather.delay_ms = self.rng.random_range(20..=400);
                weather.jitter_ms = self.rng.random_range(0..=400);
            }
            Kind::Loss => weather.loss_percent = self.rng.random_range(5..=60),
            Kind::Throttle => weather.bytes_per_s = Some(self.rng.random_range(2_000..=50_000)),
            _ => {
                let ways = [Cut::ToTarget, Cut::FromTarget, Cut::FromTarget, Cut::Both];
                weather.cut = ways.choose(&mut self.rng).copied().unwrap_or(Cut::Both);
            }
        }
        Fault::Link { kind, link, weather }
    }

    fn full_disk(&mut self) -> Fault {
        let bank = self.bank();
        // A replica's disk has no size here.
        if self.rng.random_bool(0.4) || !self.promotable.contains(&bank) {
            Fault::FullDisk { disk: "log".to_owned(), service: "coordinator".to_owned() }
        } else {
            Fault::FullDisk { disk: format!("redis-{bank}"), service: format!("redis-{bank}") }
        }
    }

    fn clock(&mut self) -> Fault {
        let bank = self.bank();
        let service = if self.rng.random_bool(0.5) {
            "coordinator".to_owned()
        } else {
            format!("bank-{bank}")
        };
        let far: i64 = *[2, 30, 600, 7_200].choose(&mut self.rng).unwrap_or(&2);
        let jump_s = if self.rng.random_bool(0.5) { far } else { -far };
        Fault::Clock { service, jump_s }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.steps += 1;
        let calm_ms = self.rng.random_range(CALM_MS);
        let first = self.fault();
        let mut faults = Vec::with_capacity(2);
        if self.rng.random_range(0..TWO_AT_ONCE_ONE_IN) == 0 {
            let second = self.fault();
            let after_ms = self.rng.random_range(STAGGER_MS);
            if second.subject() != first.subject() {
                faults.push(Timed { after_ms, fault: second });
            }
        }
        faults.insert(0, Timed { after_ms: 0, fault: first });
        let long = self.rng.random_range(0..LONG_ONE_IN) == 0;
        let hold_ms = self.rng.random_range(if long { LONG_HOLD_MS } else { HOLD_MS });
        Some(Step { number: self.steps, calm_ms, faults, hold_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn steps(seed: u64, kinds: &[Kind]) -> Vec<Step> {
        Schedule::new(seed, kinds).take(400).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_schedule_and_another_is_another() {
        assert_eq!(steps(7, &Kind::DEFAULT), steps(7, &Kind::DEFAULT));
        assert_ne!(steps(7, &Kind::DEFAULT), steps(8, &Kind::DEFAULT));
        // The order in which they are named is no matter.
        let reversed: Vec<_> = Kind::DEFAULT.into_iter().rev().collect();
        assert_eq!(steps(7, &Kind::DEFAULT), steps(7, &reversed));
    }

    #[test]
    fn every_kind_comes_and_nothing_that_was_not_asked_for() {
        let seen: BTreeSet<Kind> = steps(1, &Kind::DEFAULT)
            .iter()
            .flat_map(|step| step.faults.iter().map(|timed| timed.fault.kind()))
            .collect();
        assert_eq!(seen, BTreeSet::from(Kind::DEFAULT));
        for losing in [Kind::Promote, Kind::OldAof, Kind::Flush] {
            assert!(!Kind::DEFAULT.contains(&losing));
        }
        for only in [Kind::OldAof, Kind::Flush] {
            for step in steps(1, &[only]) {
                assert!(step.faults.iter().all(|timed| timed.fault.kind() == only), "{step:?}");
            }
        }
        let losing = steps(1, &[Kind::Promote, Kind::OldAof, Kind::FullDisk]);
        let faults: Vec<&Fault> =
            losing.iter().flat_map(|step| step.faults.iter().map(|timed| &timed.fault)).collect();
        let promoted = faults.iter().rposition(|fault| fault.kind() == Kind::Promote).unwrap();
        let dead = ["redis-a", "redis-b", "redis-c"].map(str::to_owned);
        assert!(faults[promoted + 1..].iter().all(|fault| !dead.contains(&fault.subject())));
    }

    #[test]
    fn a_replica_is_promoted_once() {
        let promoted: Vec<_> = steps(3, &[Kind::Promote])
            .iter()
            .flat_map(|step| step.faults.iter().filter(|timed| timed.fault.kind() == Kind::Promote))
            .map(|timed| timed.fault.subject())
            .collect();
        assert_eq!(promoted, ["redis-c", "redis-b", "redis-a"]);
    }

    #[test]
    fn faults_at_one_time_are_done_to_different_things_and_all_ends() {
        let mut both = 0;
        for step in steps(5, &Kind::DEFAULT) {
            let subjects: BTreeSet<_> =
                step.faults.iter().map(|timed| timed.fault.subject()).collect();
            assert_eq!(subjects.len(), step.faults.len(), "{step:?}");
            assert!(step.hold_ms <= *LONG_HOLD_MS.end() && step.calm_ms >= *CALM_MS.start());
            both += usize::from(step.faults.len() == 2);
        }
        assert!(both > 50, "{both}");
    }
}
