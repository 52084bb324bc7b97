//! An agent beside the one that owns the Redis: it knows who that is, and takes over when the owner
//! is gone. Who passes messages on is `../forward.rs`.
//!
//! The owner is gone when the owner key is another's or nobody's, when the server does not list its
//! connection any more, when that connection has said nothing for seconds, or when the owner does
//! not take what is passed on to it. All of these may be wrong: then the Redis changes hands for
//! nothing, and the one that was the owner finds the owner key changed at its next write.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use assent_common::wire::resync::{DataPoint, Progress};
use redis::RedisResult;

use super::connection::{FENCED, Live, identity};
use super::execute::send;
use super::owner::{Guard, OtherOwner, Stake, Turn, is_alive_in};
use super::{Store, StoreError, lock, unlogged};

/// The other agent that owns the Redis, as the turn says it, without waiting for the turn.
#[derive(Debug, Default)]
pub(super) struct StandsByFor(RwLock<Option<Arc<OtherOwner>>>);

impl StandsByFor {
    pub(super) fn get(&self) -> Option<Arc<OtherOwner>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, turn: &Turn) {
        let other = match turn {
            Turn::Standby(owner) => Some(Arc::clone(owner)),
            Turn::Aside | Turn::Sole(_) => None,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }
}

impl Live {
    /// The connection begins with this turn.
    pub(super) async fn begin(&self, turn: Turn) {
        self.stands_by_for.set(&turn);
        *self.turn.write().await = turn;
    }
}

impl Store {
    /// Who owns the Redis, if that is another agent and this one stands by for it. Connects if
    /// there is no connection; without one nobody is known.
    pub async fn other_owner(&self) -> Option<Arc<OtherOwner>> {
        self.live().await.ok()?.stands_by_for.get()
    }

    /// The same, as far as is known without asking.
    #[must_use]
    pub fn stands_by_for(&self) -> Option<Arc<OtherOwner>> {
        self.link.current()?.stands_by_for.get()
    }

    /// What the owner key holds if this agent owns the Redis. Whether it still does shows when
    /// something is done.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        lock(&self.link.claimed).clone()
    }

    /// Returns when that agent does not own the Redis any more, as far as this one knows. Without a
    /// connection it knows of no change.
    pub async fn owner_changes(&self, owner: &OtherOwner) {
        let mut changes = self.link.changes.subscribe();
        let is_owner = |live: Arc<Live>| {
            live.stands_by_for.get().is_some_and(|now| now.guard() == owner.guard())
        };
        // The sender lives as long as the store.
        while self.link.current().is_none_or(is_owner) && changes.changed().await.is_ok() {}
    }

    /// What was passed on to this owner was not taken: looks again who owns the Redis, and takes it
    /// over if that is still the same one.
    pub async fn cannot_reach(&self, owner: &Arc<OtherOwner>, why: &str) {
        let Some(live) = self.link.current() else { return };
        let url = assent_common::text::cut(owner.url(), 200);
        tracing::warn!(%url, why, "the owner of this Redis took nothing");
        lock(&self.link.estranged).cannot_reach(owner.guard(), Instant::now());
        if let Err(error) = self.succeed(&live, owner, Stake::Work).await {
            tracing::warn!(%error, "who owns the Redis cannot be found out");
        }
    }

    /// It is not known what became of something that was passed on to this owner: looks whether it
    /// is gone. The second time in a row it is as good as gone.
    pub async fn not_heard(&self, owner: &Arc<OtherOwner>, why: &str) {
        if lock(&self.link.estranged).is_unheard_again(owner.guard()) {
            return self.cannot_reach(owner, why).await;
        }
        let Some(live) = self.link.current() else { return };
        if let Err(error) = self.mind_owner(&live).await {
            tracing::warn!(%error, "who owns the Redis cannot be found out");
        }
    }

    /// The owner has answered something that was passed on to it.
    pub fn owner_is_heard(&self) {
        lock(&self.link.estranged).is_heard();
    }

    /// Looks whether the agent that owns the Redis still does, this one or another; if the other
    /// does not, this one may.
    pub(super) async fn mind_owner(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let Some(owner) = live.stands_by_for.get() else { return self.mind_own(live).await };
        let still_owns = self.still_owns(live, &owner).await;
        match still_owns.map_err(|error| self.given_up(live, &error))? {
            true => Ok(()),
            false => self.succeed(live, &owner, Stake::Nothing).await,
        }
    }

    /// An owner that does nothing would not notice that it is none any more, and say that it is.
    async fn mind_own(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let guard = match live.turn.try_read().as_deref() {
            Ok(Turn::Sole(owner)) => owner.guard().clone(),
            Ok(_) => return Ok(()),
            // One that is at work finds out by it.
            Err(_) => return self.beat(live).await,
        };
        let connection = &mut live.connection.clone();
        let held: RedisResult<Option<String>> =
            redis::cmd("GET").arg(self.owner_key()).query_async(connection).await;
        if held.map_err(|error| self.given_up(live, &error))?.as_deref() == Some(guard.as_str()) {
            return self.beat(live).await;
        }
        self.disconnect(live, "another agent owns this Redis");
        Ok(())
    }

    async fn still_owns(&self, live: &Live, owner: &OtherOwner) -> RedisResult<bool> {
        let connection = &mut live.connection.clone();
        let (mut pipeline, guard) = (redis::pipe(), owner.guard());
        pipeline.cmd("GET").arg(self.owner_key());
        let Some(client) = owner.client() else {
            pipeline.cmd("GET").arg(self.pulse_key());
            let found: RedisResult<(Option<String>, Option<String>)> =
                pipeline.query_async(connection).await;
            let (held, beat) = found?;
            let is_alive = lock(&self.link.beats).hears(guard, beat, Instant::now());
            return Ok(held.as_deref() == Some(guard.as_str()) && is_alive);
        };
        pipeline.cmd("CLIENT").arg("LIST").arg("ID").arg(client);
        let found: RedisResult<(Option<String>, String)> = pipeline.query_async(connection).await;
        let (held, list) = found?;
        Ok(held.as_deref() == Some(guard.as_str()) && is_alive_in(&list, guard.connection()))
    }

    /// Changes the pulse, if the connection of this agent, which owns the Redis, has no name there.
    async fn beat(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let Some(guard) = self.guard().filter(Guard::has_pulse) else { return Ok(()) };
        let beat = self.link.claims.fetch_add(1, Ordering::Relaxed);
        let mut command = redis::cmd("SET");
        command.arg(self.pulse_key()).arg(format!("{} {beat}", guard.connection()));
        match send(live, &command).await {
            Err(error) if error.is_io_error() => Err(self.given_up(live, &error)),
            // A Redis that is full, say, is no reason to give up: the others take over, or try to.
            _ => Ok(()),
        }
    }

    /// Looks again who owns the Redis, unless that has changed already.
    async fn succeed(
        &self,
        live: &Live,
        owner: &Arc<OtherOwner>,
        stake: Stake,
    ) -> Result<(), StoreError> {
        let mut turn = live.turn.write().await;
        match &*turn {
            Turn::Standby(now) if Arc::ptr_eq(now, owner) => {
                self.arbitrate_again(live, &mut turn, stake).await
            }
            _ => Ok(()),
        }
    }

    /// Looks again who owns the Redis. An agent that comes to work there begins with a look at what
    /// others did in one phase, as a connection does.
    pub(super) async fn arbitrate_again(
        &self,
        live: &Live,
        turn: &mut Turn,
        stake: Stake,
    ) -> Result<(), StoreError> {
        let next = self.arbitrate(live, stake).await?;
        if matches!(next, Turn::Sole(_)) {
            unlogged::look(self, live).await?;
        }
        *turn = next;
        live.stands_by_for.set(turn);
        self.link.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Goes on with the data that the owner goes on with, if that is what is there: it was
    /// repaired, and the owner has heard so from a coordinator.
    pub async fn follow(&self, progress: Progress) {
        let is_known = self.incarnation() == progress.incarnation;
        if is_known || progress.incarnation == FENCED || self.stands_by_for().is_none() {
            return;
        }
        let Ok(live) = self.live().await else { return };
        let Ok(found) = identity(&live, &self.options.control_key).await else { return };
        if found.incarnation == Some(progress.incarnation) {
            self.adopt(DataPoint { incarnation: progress.incarnation, seq: found.seq }).await;
            self.ended_seen.fetch_max(found.ended, Ordering::AcqRel);
        }
    }
}
