//! What breaks things under a mixed load, by a seed: every process is killed, and answers of the
//! database get lost.

use std::collections::BTreeMap;
use std::time::Duration;

use assent_checkers::Recorder;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::load::MixedClients;
use super::servers::MixedCluster;
use crate::cluster::restart;
use crate::link::{Fault, Way, Which};

/// Transactions that commit between two faults, mostly; and how long they may take.
const BETWEEN: u64 = 40;
const BETWEEN_MAX: Duration = Duration::from_secs(4);

/// Pauses between two faults otherwise.
const PAUSE_MS: std::ops::Range<u64> = 5..300;

/// How long a link may be bad.
const FAULT_MAX: Duration = Duration::from_millis(700);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KilledProcess {
    /// The server of the databases.
    Postgres,
    /// The Redis.
    Redis,
    /// The agent beside the Redis.
    Cache,
    /// The agent of the first database.
    Ledger,
    /// The agent of the second database.
    Orders,
    /// The coordinator.
    Coordinator,
}

impl KilledProcess {
    /// Each of them; what others need to start stands before them.
    pub const ALL: [Self; 6] =
        [Self::Postgres, Self::Redis, Self::Cache, Self::Ledger, Self::Orders, Self::Coordinator];

    fn kill(self, mixed: &mut MixedCluster) {
        match self {
            Self::Postgres => mixed.postgres.kill9(),
            Self::Redis => mixed.cluster.peers[0].redis.kill9(),
            Self::Cache => mixed.cluster.peers[0].agent.kill9(),
            Self::Ledger => mixed.databases[0].agent.kill9(),
            Self::Orders => mixed.databases[1].agent.kill9(),
            Self::Coordinator => mixed.cluster.coordinator.kill9(),
        }
    }

    async fn start(self, mixed: &mut MixedCluster) {
        let server = match self {
            Self::Postgres => mixed.postgres.restart().await,
            Self::Redis => mixed.cluster.peers[0].redis.restart().await,
            Self::Cache => return restart(&mut mixed.cluster.peers[0].agent).await,
            Self::Ledger => return restart(&mut mixed.databases[0].agent).await,
            Self::Orders => return restart(&mut mixed.databases[1].agent).await,
            Self::Coordinator => return restart(&mut mixed.cluster.coordinator).await,
        };
        server.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// How often each thing was done.
#[derive(Debug, Default, Clone)]
pub struct MixedBroken {
    /// Kills of each process.
    pub kills: BTreeMap<KilledProcess, u32>,
    /// Times that the way from an agent to its database was bad.
    pub links: u32,
}

pub(super) struct MixedNemesis<'c> {
    mixed: &'c mut MixedCluster,
    pub(super) broken: MixedBroken,
    recorder: Recorder,
    random: StdRng,
}

impl<'c> MixedNemesis<'c> {
    pub(super) fn new(mixed: &'c mut MixedCluster, recorder: Recorder, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { mixed, broken: MixedBroken::default(), recorder, random }
    }

    /// Breaks one thing, once the clients have gone on for a while.
    pub(super) async fn once(&mut self, clients: &MixedClients) {
        if self.random.random_bool(0.75) {
            let committed = clients.wait_committed(BETWEEN);
            let _or_go_on = tokio::time::timeout(BETWEEN_MAX, committed).await;
        } else {
            let pause = self.random.random_range(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        // Each once, before chance decides.
        let all_once =
            KilledProcess::ALL.into_iter().find(|one| !self.broken.kills.contains_key(one));
        match (all_once, self.random.random_range(0..100)) {
            (_, 0..30) => self.spoil_a_link().await,
            (Some(one), _) => self.kill(&[one]).await,
            (None, 30..75) => {
                let one = KilledProcess::ALL[self.random.random_range(0..KilledProcess::ALL.len())];
                self.kill(&[one]).await;
            }
            (None, _) => {
                let mut two: Vec<KilledProcess> =
                    KilledProcess::ALL.choose_multiple(&mut self.random, 2).copied().collect();
                two.sort_unstable();
                self.kill(&two).await;
            }
        }
    }

    /// Kills these at once, and starts them again.
    async fn kill(&mut self, victims: &[KilledProcess]) {
        self.recorder.note("nemesis", "kill", &format!("{victims:?}").into());
        for victim in victims {
            victim.kill(self.mixed);
            *self.broken.kills.entry(*victim).or_default() += 1;
        }
        for victim in victims {
            victim.start(self.mixed).await;
        }
    }

    /// The way from an agent to its database is bad until something has met that.
    async fn spoil_a_link(&mut self) {
        let fault = [
            Fault::CutAfter(Which::With("PREPARE TRANSACTION")),
            Fault::CutBefore(Which::With("PREPARE TRANSACTION")),
            Fault::CutAfter(Which::With("COMMIT PREPARED")),
            Fault::CutAfter(Which::With("ROLLBACK PREPARED")),
            Fault::CutAfter(Which::Every(20)),
            Fault::Delay(Way::Both, 15),
        ]
        .choose(&mut self.random)
        .copied()
        .expect("there are some");
        let peer = &self.mixed.databases[self.random.random_range(0..self.mixed.databases.len())];
        self.recorder.note("nemesis", &format!("{fault:?}"), &peer.name.into());
        let met = peer.link.met();
        peer.link.set(fault);
        let _or_go_on = tokio::time::timeout(FAULT_MAX, peer.link.wait_met(met, 2)).await;
        peer.link.set(Fault::None);
        self.broken.links += 1;
    }
}
