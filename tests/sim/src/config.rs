//! What is simulated: the few things that a caller chooses, and the many that the seed does.

use serde::{Deserialize, Serialize};

use crate::mutants::Mutant;
use crate::random::Random;

/// One run: together with the code, it decides everything that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Decides all that may come one way or another, the shape of the world included.
    pub seed: u64,
    /// Requests of all clients together.
    #[serde(default = "Config::default_transactions")]
    pub transactions: u32,
    /// Whether Redis servers lose data.
    #[serde(default)]
    pub losses: Losses,
    /// A known-bad variant of the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<Mutant>,
}

/// Whether Redis servers lose data in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(clap::ValueEnum)]
pub enum Losses {
    /// The seed decides: in every fifth world or so.
    #[default]
    Seed,
    /// They do not.
    Never,
    /// They do.
    Always,
}

impl Config {
    /// A run of the default length.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let transactions = Self::default_transactions();
        Self { seed, transactions, losses: Losses::Seed, mutant: None }
    }

    const fn default_transactions() -> u32 {
        500
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// The shape of a world, and how much goes wrong in it. Which faults there are differs from world
/// to world, because some breaches need one kind of trouble and much peace of the others (swarm
/// testing: Groce et al., ISSTA 2012).
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) coordinators: usize,
    pub(crate) participants: usize,
    pub(crate) clients: usize,
    /// Keys of each participant; the fewer, the hotter.
    pub(crate) keys: usize,
    /// What a client waits at most between two requests, in microseconds.
    pub(crate) think_us: u64,
    /// How long a message takes at most if nothing is wrong, in microseconds.
    pub(crate) latency_us: u64,
    pub(crate) sync_us: u64,
    /// Whether most of what is added is added in escrow: in every fourth world. It takes no chance
    /// of its own.
    pub(crate) escrow: bool,
    /// Whether hooks decide about some branches: in every fifth world, and without a chance of its
    /// own.
    pub(crate) hooks: bool,
    pub(crate) faults: Faults,
}

/// Chances in a million, of each occasion. All 0: nothing goes wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// A message or an answer is lost, or so late that nobody waits for it any more.
    pub(crate) loss: u32,
    /// A message comes twice.
    pub(crate) duplicate: u32,
    /// A message takes up to a hundred times as long, and so is overtaken.
    pub(crate) delay: u32,
    /// A coordinator dies, at each of its effects.
    pub(crate) coordinator_dies: u32,
    /// An agent dies, before, between and after its scripts.
    pub(crate) agent_dies: u32,
    /// A Redis does what an agent asks, and its answer is lost with the connection.
    pub(crate) redis_answer_lost: u32,
    /// A sync of a log fails.
    pub(crate) sync_fails: u32,
    /// A question of a branch in doubt reaches a coordinator of another log, or something that
    /// answers 404.
    pub(crate) astray: u32,
    /// How often something larger goes wrong, in microseconds; 0 for never.
    pub(crate) trouble_us: u64,
    pub(crate) troubles: Vec<Trouble>,
    /// Redis servers lose data so often at most; where they do so rarely, what follows has its
    /// peace.
    pub(crate) losses_max: u64,
}

/// Something larger that goes wrong now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A coordinator dies, whatever it is doing.
    CoordinatorDies,
    /// An agent dies, whatever it is doing.
    AgentDies,
    /// A coordinator and a participant do not hear each other for a while.
    Partition,
    /// A Redis comes back without the last part of its history.
    RedisGoesBack,
    /// A Redis comes back without some ends of branches in the middle of its history.
    RedisLoadsHoles,
    /// A Redis is replaced by an empty one.
    RedisReplaced,
    /// No trouble: an operator wants what waits to be sent now.
    RetryNow,
    /// No trouble: an operator looks after what was lost.
    OperatorLooks,
}

impl Profile {
    pub(crate) fn new(config: &Config, random: &mut Random) -> Self {
        let coordinators = random.between(1, 3);
        let participants = random.between(2, 5);
        Self {
            coordinators: small(coordinators),
            participants: small(participants),
            clients: small(random.between(2, 14)),
            keys: small(random.between(2, 8)),
            think_us: [500, 5_000, 20_000][random.place(3)],
            latency_us: [200, 1_000, 5_000][random.place(3)],
            sync_us: [300, 2_000, 15_000][random.place(3)],
            escrow: config.seed.is_multiple_of(4),
            hooks: config.seed % 5 == 1,
            faults: Faults::new(config, random),
        }
    }
}

impl Faults {
    fn new(config: &Config, random: &mut Random) -> Self {
        let mut some = |percent: u32, most: u64| {
            if random.percent(percent) {
                u32::try_from(random.between(most / 20, most)).unwrap_or(u32::MAX)
            } else {
                0
            }
        };
        let loss = some(60, 150_000);
        let duplicate = some(50, 150_000);
        let delay = some(50, 100_000);
        let coordinator_dies = some(50, 4_000);
        let agent_dies = some(50, 4_000);
        let sync_fails = some(30, 10_000);
        let astray = some(50, 300_000);
        let mut troubles = Vec::new();
        let larger = [
            (50, Trouble::CoordinatorDies),
            (50, Trouble::AgentDies),
            (50, Trouble::Partition),
            (50, Trouble::RetryNow),
        ];
        for (percent, trouble) in larger {
            if random.percent(percent) {
                troubles.push(trouble);
            }
        }
        let loses = match config.losses {
            Losses::Seed => random.percent(20),
            Losses::Never => false,
            Losses::Always => true,
        };
        if loses {
            troubles.extend([Trouble::RedisGoesBack, Trouble::OperatorLooks]);
            if random.percent(30) {
                troubles.extend([Trouble::RedisReplaced, Trouble::OperatorLooks]);
            }
            // It takes no chance of its own, so that the other worlds stay what they were.
            if matches!(config.seed % 5, 1 | 3) {
                troubles.extend([Trouble::RedisLoadsHoles; 2]);
            }
        }
        // Neither does this.
        let redis_answer_lost = if loses && matches!(config.seed % 5, 2 | 4) { 60_000 } else { 0 };
        let losses_max = if random.percent(70) { random.between(1, 5) } else { u64::MAX };
        let trouble_us = [20_000, 100_000, 400_000][random.place(3)];
        Self {
            loss,
            duplicate,
            delay,
            coordinator_dies,
            agent_dies,
            redis_answer_lost,
            sync_fails,
            astray,
            trouble_us: if troubles.is_empty() { 0 } else { trouble_us },
            troubles,
            losses_max,
        }
    }

    pub(crate) fn lose_data(&self) -> bool {
        // Wherever one loses data in some way, one goes back.
        self.troubles.contains(&Trouble::RedisGoesBack)
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}
