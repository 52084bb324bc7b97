//! Killing things where it hurts: the coordinator after a decision, a participant after its vote, a
//! Redis with both.
//!
//! The moment is not left to chance: a peer is stopped (SIGSTOP) until the state that is wanted is
//! there to be seen, then the victim is killed, and the peer goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use assent::Failure;
use assent_client::{CoordinatorClient, ListFilter};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchProgress, TransactionView};
use assent_process::Cluster;

use super::clients::Clients;
use super::probe;
use super::story::Story;

/// How long the state that is wanted is looked for, before the kill comes anyway.
const AMBUSH_MAX: Duration = Duration::from_millis(1_500);

/// How long a victim stays down.
const DOWN: Duration = Duration::from_millis(250);

/// How long what was in flight may take to be finished after everything is up again.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// What is killed in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Coordinator,
    Participant,
    Redis,
}

/// What the rounds came to.
#[derive(Debug, Default)]
pub(super) struct Damage {
    pub(super) coordinator: u32,
    pub(super) participant: u32,
    pub(super) redis: u32,
    /// For each round in which a branch was in doubt: milliseconds until none of those was, after
    /// the victim was back.
    pub(super) resolution_ms: Vec<u64>,
}

/// The scene of the rounds.
pub(super) struct Chaos<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) api: &'a CoordinatorClient,
    pub(super) clients: &'a Clients,
    pub(super) story: Story,
    pub(super) damage: Damage,
}

impl Chaos<'_> {
    /// One round: `place` is the participant that it is about.
    pub(super) async fn round(&mut self, victim: Victim, place: usize) -> Result<(), Failure> {
        match victim {
            Victim::Coordinator => self.kill_coordinator(place).await,
            Victim::Participant => self.kill_participant(place).await,
            Victim::Redis => self.kill_redis(place).await,
        }
    }

    /// Stops the participant's agent until a decision waits for it, and kills the coordinator then.
    async fn kill_coordinator(&mut self, place: usize) -> Result<(), Failure> {
        self.cluster.members[place].agent.pause();
        let decided = self.wait_for_a_decision().await;
        let pid = self.cluster.coordinator.pid();
        self.cluster.coordinator.kill9();
        self.cluster.members[place].agent.resume();
        self.damage.coordinator += 1;
        let doubts = self.staged(None).await?;
        let what = match &decided {
            Some(view) => format!(
                "{} ({}) was decided committed, {}",
                view.id,
                view.name.as_deref().unwrap_or("-"),
                waiting_branches(view)
            ),
            None => "no decision was waiting".to_owned(),
        };
        self.story.tell(&format!(
            "kill -9 coordinator (pid {pid}): {what}; {} branches in doubt",
            doubts.len()
        ));
        tokio::time::sleep(DOWN).await;
        let waiting = self.clients.waiting();
        self.cluster
            .coordinator
            .restart()
            .await
            .map_err(|error| Failure::error(error.to_string()))?;
        let back = Instant::now();
        let epoch = self.api.version().await.ok().and_then(|version| version.epoch).unwrap_or(0);
        self.story.tell(&format!(
            "coordinator is back in epoch {epoch}; {waiting} clients ask again with their keys"
        ));
        if let Some(view) = decided {
            self.follow(&view, back).await?;
        }
        self.wait_until_finished(doubts, None, back).await
    }

    /// Stops the coordinator until the participant has votes that wait for it, and kills the
    /// participant then.
    async fn kill_participant(&mut self, place: usize) -> Result<(), Failure> {
        self.cluster.coordinator.pause();
        let doubts = self.wait_for_votes(place).await?;
        let member = &mut self.cluster.members[place];
        let (name, pid) = (member.name.clone(), member.agent.pid());
        member.agent.kill9();
        self.cluster.coordinator.resume();
        self.damage.participant += 1;
        self.story.tell(&format!("kill -9 participant {name} (pid {pid}): {}", votes(&doubts)));
        tokio::time::sleep(DOWN).await;
        let member = &mut self.cluster.members[place];
        member.agent.restart().await.map_err(|error| Failure::error(error.to_string()))?;
        self.story.tell(&format!("participant {name} is back"));
        self.wait_until_finished(doubts, Some(place), Instant::now()).await
    }

    /// The same with the Redis: its votes must be in its append-only file.
    async fn kill_redis(&mut self, place: usize) -> Result<(), Failure> {
        self.cluster.coordinator.pause();
        let doubts = self.wait_for_votes(place).await?;
        let member = &mut self.cluster.members[place];
        let (name, pid) = (member.name.clone(), member.redis.pid());
        member.redis.kill9();
        self.cluster.coordinator.resume();
        self.damage.redis += 1;
        self.story.tell(&format!("kill -9 redis-server of {name} (pid {pid}): {}", votes(&doubts)));
        tokio::time::sleep(DOWN).await;
        let member = &mut self.cluster.members[place];
        member.redis.restart().await.map_err(|error| Failure::error(error.to_string()))?;
        self.story.tell(&format!("redis-server of {name} is back, its append-only file read"));
        self.wait_until_finished(doubts, Some(place), Instant::now()).await
    }

    async fn wait_for_a_decision(&self) -> Option<TransactionView> {
        let deadline = Instant::now() + AMBUSH_MAX;
        let filter = ListFilter {
            outcome: Some(OutcomeWord::Committed),
            in_doubt: true,
            page_size: Some(1),
            ..ListFilter::default()
        };
        while Instant::now() < deadline {
            if let Ok(page) = self.api.list(&filter).await
                && let Some(view) = page.transactions.into_iter().next()
            {
                return Some(view);
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    async fn wait_for_votes(&mut self, place: usize) -> Result<BTreeSet<String>, Failure> {
        let deadline = Instant::now() + AMBUSH_MAX;
        loop {
            let doubts = self.staged(Some(place)).await?;
            if !doubts.is_empty() || Instant::now() >= deadline {
                return Ok(doubts);
            }
            // Nothing waits: let it run for a moment, and stop it again.
            self.cluster.coordinator.resume();
            tokio::time::sleep(POLL).await;
            self.cluster.coordinator.pause();
        }
    }

    /// The branches that voted yes and wait, at one participant or at all.
    async fn staged(&self, place: Option<usize>) -> Result<BTreeSet<String>, Failure> {
        let mut staged = BTreeSet::new();
        for (at, member) in self.cluster.members.iter().enumerate() {
            if place.is_none_or(|place| place == at) {
                staged.extend(probe::control(member).await?.staged);
            }
        }
        Ok(staged)
    }

    /// Waits for the end of one decided transaction.
    async fn follow(&self, view: &TransactionView, back: Instant) -> Result<(), Failure> {
        let deadline = back + SETTLE_MAX;
        loop {
            let last = match self.api.transaction(view.id, None).await {
                Ok(now) if now.applied == Some(true) => {
                    let ms = back.elapsed().as_millis();
                    self.story.tell(&format!(
                        "{} committed, applied in every branch {ms} ms after the start",
                        view.id
                    ));
                    return Ok(());
                }
                Ok(now) => format!("{:?}, {:?}", now.outcome, now.state),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(Failure::error(format!(
                    "{} was decided and is not finished: {last}",
                    view.id
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until none of these branches is in doubt any more.
    async fn wait_until_finished(
        &mut self,
        doubts: BTreeSet<String>,
        place: Option<usize>,
        back: Instant,
    ) -> Result<(), Failure> {
        if doubts.is_empty() {
            return Ok(());
        }
        let deadline = back + SETTLE_MAX;
        loop {
            let left: Vec<String> =
                self.staged(place).await?.intersection(&doubts).cloned().collect();
            if left.is_empty() {
                let ms = u64::try_from(back.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.damage.resolution_ms.push(ms);
                self.story.tell(&format!(
                    "all {} branches that were in doubt are finished ({ms} ms)",
                    doubts.len()
                ));
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::error(format!("still in doubt: {}", left.join(", "))));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn votes(doubts: &BTreeSet<String>) -> String {
    match doubts.first() {
        Some(first) => {
            format!("{} of its votes wait for an outcome, {first} among them", doubts.len())
        }
        None => "none of its votes was waiting".to_owned(),
    }
}

fn waiting_branches(view: &TransactionView) -> String {
    let waiting: Vec<&str> = view
        .branches
        .iter()
        .filter(|branch| branch.state != BranchProgress::Applied)
        .map(|branch| branch.participant.as_str())
        .collect();
    format!("not yet applied at {}", waiting.join(", "))
}
