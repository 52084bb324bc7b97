//! What breaks things during a soak: data is flushed, old files are put back, processes die and connections are cut, again
//! and again, by a seed.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use assent_checkers::Recorder;
use assent_client::ListFilter;
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::ParticipantData;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::load::{PARTICIPANTS, Shared};
use crate::cluster::{Cluster, restart};
use crate::link::{Fault, Way};
use crate::wait::wait_for;
use crate::{aof, plain};

/// Old files that are kept of each server.
const COPIES_MAX: usize = 3;

/// Transactions that commit between two faults, mostly; and how long they may take.
const BETWEEN: u64 = 25;
const BETWEEN_MAX: Duration = Duration::from_secs(2);

/// Without so many a run proves little, however slow the machine is.
const FLUSHES_MIN: u32 = 2;

/// Pauses between two faults otherwise.
const PAUSE_MS: std::ops::Range<u64> = 5..300;

/// Answers of a server come so much later while its data goes, so that what is under way then is much.
const SLOW_MS: u64 = 15;

/// How often each thing was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    /// `FLUSHALL`.
    pub flushes: u32,
    /// Old append-only files put back.
    pub old_files: u32,
    /// `kill -9`, and a start.
    pub kills: u32,
    /// Connections of an agent to its Redis cut.
    pub cuts: u32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flushes, old_files, kills, cuts } = self;
        write!(f, "{flushes} flushes, {old_files} old files, {kills} kills, {cuts} cuts")
    }
}

pub(super) struct Nemesis<'c> {
    pub(super) cluster: &'c mut Cluster,
    pub(super) done: Done,
    recorder: Recorder,
    random: StdRng,
    copies: [Vec<PathBuf>; PARTICIPANTS.len()],
    kills_coordinator: bool,
}

impl<'c> Nemesis<'c> {
    pub(super) fn new(
        cluster: &'c mut Cluster,
        recorder: Recorder,
        seed: u64,
        kills_coordinator: bool,
    ) -> Self {
        let (random, copies) = (StdRng::seed_from_u64(seed), Default::default());
        Self { cluster, done: Done::default(), recorder, random, copies, kills_coordinator }
    }

    /// Breaks things until then, and until there was something to lose.
    pub(super) async fn run(&mut self, until: Instant, load: &Shared) {
        while Instant::now() < until || self.done.flushes < FLUSHES_MIN {
            if self.random.random_bool(0.7) {
                let committed = load.wait_committed(BETWEEN);
                let _or_go_on = tokio::time::timeout(BETWEEN_MAX, committed).await;
            } else {
                let pause = self.random.random_range(PAUSE_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let place = self.random.random_range(0..PARTICIPANTS.len());
            if self.random.random_bool(0.3) {
                self.take_copy(place);
            }
            match self.random.random_range(0..100) {
                0..40 => self.flush(place).await,
                40..65 => self.put_back(place).await,
                65..75 => self.kill_redis(place).await,
                75..85 => self.kill_agent(place).await,
                85..92 if self.kills_coordinator => self.kill_coordinator().await,
                _ => self.cut(place).await,
            }
        }
    }

    fn note(&self, what: &str, place: usize) {
        self.recorder.note("nemesis", what, &PARTICIPANTS[place].into());
    }

    fn slow(&self, place: usize, fault: Fault) {
        self.cluster.peers[place].redis_link.as_ref().expect("a linked cluster").set(fault);
    }

    async fn flush(&mut self, place: usize) {
        let is_slow = self.random.random_bool(0.5);
        if is_slow {
            self.slow(place, Fault::Delay(Way::Answers, SLOW_MS));
            tokio::time::sleep(Duration::from_millis(2 * SLOW_MS)).await;
        }
        self.note("flush", place);
        plain::run::<()>(&self.cluster.peers[place].redis, &["FLUSHALL"]).await;
        self.done.flushes += 1;
        if is_slow {
            tokio::time::sleep(Duration::from_millis(4 * SLOW_MS)).await;
            self.slow(place, Fault::None);
        }
    }

    fn take_copy(&mut self, place: usize) {
        self.note("copy", place);
        let number = self.random.random::<u32>();
        let to = self.cluster.dir().join(format!("copy-{place}-{number}"));
        aof::copy(&mut self.cluster.peers[place].redis, &to).expect("a copy can be taken");
        self.copies[place].push(to);
        if self.copies[place].len() > COPIES_MAX {
            let oldest = self.copies[place].remove(0);
            let _best_effort = std::fs::remove_dir_all(oldest);
        }
    }

    /// An old file in the place of the server's; any of those that are kept, so that one may come back twice.
    async fn put_back(&mut self, place: usize) {
        if self.copies[place].is_empty() {
            return self.take_copy(place);
        }
        let which = self.random.random_range(0..self.copies[place].len());
        self.note("old file", place);
        let redis = &mut self.cluster.peers[place].redis;
        let started = aof::put_back(redis, &self.copies[place][which]).await;
        started.unwrap_or_else(|error| panic!("{error}"));
        self.done.old_files += 1;
    }

    async fn kill_redis(&mut self, place: usize) {
        self.note("kill redis", place);
        let started = self.cluster.peers[place].redis.restart().await;
        started.unwrap_or_else(|error| panic!("{error}"));
        self.done.kills += 1;
    }

    async fn kill_agent(&mut self, place: usize) {
        self.note("kill agent", place);
        restart(&mut self.cluster.peers[place].agent).await;
        self.done.kills += 1;
    }

    /// Not while data is being repaired, and no data is lost before it has asked about all that it began: what one phase
    /// wrote a moment before both is not promised (docs/start/guarantees.md).
    async fn kill_coordinator(&mut self) {
        wait_open(self.cluster).await;
        self.recorder.note("nemesis", "kill coordinator", &serde_json::Value::Null);
        restart(&mut self.cluster.coordinator).await;
        self.done.kills += 1;
        let began = Instant::now();
        wait_for("the coordinator to know what its last life began", || async {
            let age = u64::try_from(began.elapsed().as_millis()).expect("a short time");
            let filter = ListFilter {
                outcome: Some(OutcomeWord::Pending),
                older_than: Some(DurationMs(age)),
                ..ListFilter::default()
            };
            let page = self.cluster.api.list(&filter).await.map_err(|error| error.to_string())?;
            match page.transactions.first() {
                None => Ok(()),
                Some(one) => Err(format!("{one:?}")),
            }
        })
        .await;
    }

    /// The server closes all connections of its agent.
    async fn cut(&mut self, place: usize) {
        self.note("cut", place);
        let redis = &self.cluster.peers[place].redis;
        plain::run::<u64>(redis, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        self.done.cuts += 1;
    }
}

/// Waits until nothing is missing anywhere, as far as the coordinator knows.
pub(super) async fn wait_open(cluster: &Cluster) {
    wait_for("all data to be open", || async {
        let list = cluster.api.participants().await.map_err(|error| error.to_string())?;
        match list.participants.iter().find(|one| one.data != ParticipantData::Open) {
            None => Ok(()),
            Some(one) => Err(format!("{one:?}")),
        }
    })
    .await;
}
