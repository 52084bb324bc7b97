//! Who owns the Redis. An agent beside the one that owns it knows who that is, and takes over when
//! the owner is gone. Who passes messages on is `../forward.rs`.
//!
//! The owner is gone when the owner key is another's or nobody's, when the server does not list its
//! connection any more, when that connection has said nothing for seconds, or when the owner does
//! not take what is passed on to it. All of these may be wrong: then the Redis changes hands for
//! nothing, and the one that was the owner finds the owner key changed at its next write.

use std::sync::Arc;
use std::time::Instant;

use assent_common::wire::resync::{DataPoint, Progress};

use super::StoreError;
use super::data::{FENCED, identity};
use super::link::{Link, Live};
use super::owner::{Guard, OtherOwner, Stake, Turn, held, watch_again};
use crate::mutex::lock;

impl Link {
    /// Who owns the Redis, if that is another agent and this one stands by for it. Connects if
    /// there is no connection; without one nobody is known.
    pub async fn other_owner(&self) -> Option<Arc<OtherOwner>> {
        self.live().await.ok()?.stands_by_for()
    }

    /// The same, as far as is known without asking.
    #[must_use]
    pub fn stands_by_for(&self) -> Option<Arc<OtherOwner>> {
        self.current()?.stands_by_for()
    }

    /// Whether this agent owns its Redis. Only an owner holds the turn for itself for longer than a
    /// look.
    #[must_use]
    pub fn is_sole_owner(&self) -> bool {
        self.current().is_some_and(|live| {
            live.turn.try_read().map_or(true, |turn| matches!(*turn, Turn::Sole(_)))
        })
    }

    /// What the owner key holds if this agent owns the Redis. Whether it still does shows when
    /// something is done.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        self.claims.claimed()
    }

    /// Returns when that agent does not own the Redis any more, as far as this one knows. Without a
    /// connection it knows of no change.
    pub async fn owner_changes(&self, owner: &OtherOwner) {
        let mut changes = self.changes.subscribe();
        let is_owner =
            |live: Arc<Live>| live.stands_by_for().is_some_and(|now| now.guard() == owner.guard());
        // The sender lives as long as the link.
        while self.current().is_none_or(is_owner) && changes.changed().await.is_ok() {}
    }

    /// What was passed on to this owner was not taken: looks again who owns the Redis, and takes it
    /// over if that is still the same one.
    pub async fn cannot_reach(&self, owner: &Arc<OtherOwner>, why: &str) {
        let Some(live) = self.current() else { return };
        let url = assent_common::text::cut(owner.url(), 200);
        tracing::warn!(%url, why, "the owner of this Redis took nothing");
        lock(&self.claims.estranged).cannot_reach(owner.guard(), Instant::now());
        if let Err(error) = self.succeed(&live, owner, Stake::Work).await {
            tracing::warn!(%error, "who owns the Redis cannot be found out");
        }
    }

    /// It is not known what became of something that was passed on to this owner: looks whether it
    /// is gone. The second time in a row it is as good as gone.
    pub async fn not_heard(&self, owner: &Arc<OtherOwner>, why: &str) {
        if lock(&self.claims.estranged).is_unheard_again(owner.guard()) {
            return self.cannot_reach(owner, why).await;
        }
        let Some(live) = self.current() else { return };
        if let Err(error) = self.mind_owner(&live).await {
            tracing::warn!(%error, "who owns the Redis cannot be found out");
        }
    }

    /// The owner has answered something that was passed on to it.
    pub fn owner_is_heard(&self) {
        lock(&self.claims.estranged).is_heard();
    }

    /// Looks whether the agent that owns the Redis still does, this one or another; if the other
    /// does not, this one may.
    pub(super) async fn mind_owner(&self, live: &Live) -> Result<(), StoreError> {
        let Some(owner) = live.stands_by_for() else { return self.mind_own(live).await };
        let still_owns = self.claims.still_owns(&live.connection, &owner).await;
        match still_owns.map_err(|error| self.given_up(live, &error))? {
            true => Ok(()),
            false => self.succeed(live, &owner, Stake::Nothing).await,
        }
    }

    /// An owner that does nothing would not notice that it is none any more, and say that it is.
    async fn mind_own(&self, live: &Live) -> Result<(), StoreError> {
        let guard = match live.turn.try_read().as_deref() {
            Ok(Turn::Sole(owner)) => Some(owner.guard().clone()),
            Ok(_) => return Ok(()),
            // One that is at work finds out by it.
            Err(_) => None,
        };
        let failed = |error: redis::RedisError| self.given_up(live, &error);
        if let Some(guard) = guard
            && held(&live.connection).await.map_err(failed)? != guard
        {
            self.give_up(live, "another agent owns this Redis");
            return Ok(());
        }
        self.claims.beat(&live.connection).await.map_err(failed)
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
        let incarnation = self.data.incarnation();
        let next = self.claims.arbitrate(&live.connection, &self.data, stake).await;
        if self.data.incarnation() != incarnation {
            self.give_up(live, "the data was repaired");
        }
        let next = next?;
        if matches!(next, Turn::Sole(_)) {
            self.data.look_for_one_phase(&live.connection).await?;
        }
        live.turns(turn, next);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Keeps the turn in order, now and then: the sole owner forgets what was swept, and writes by
    /// `EXEC` again if it may; who stands aside looks whether it is alone by now.
    pub(super) async fn take_turn(&self, live: &Live) -> Result<(), StoreError> {
        let mut turn = live.turn.write().await;
        match &mut *turn {
            Turn::Sole(owner) => {
                owner.sweep();
                if !watch_again(&live.connection, owner).await? {
                    self.give_up(live, "another agent owns this Redis");
                }
            }
            Turn::Aside => self.arbitrate_again(live, &mut turn, Stake::Nothing).await?,
            // Whether the other still owns the Redis, the pulse looks.
            Turn::Standby(_) => {}
        }
        Ok(())
    }

    /// Goes on with the data that the owner goes on with, if that is what is there: it was
    /// repaired, and the owner has heard so from a coordinator.
    pub async fn follow(&self, progress: Progress) {
        let Progress { incarnation, .. } = progress;
        let is_known = self.data.incarnation() == incarnation;
        if is_known || incarnation == FENCED || self.stands_by_for().is_none() {
            return;
        }
        let Ok(live) = self.live().await else { return };
        let Ok(found) = identity(&live.connection).await else { return };
        if found.incarnation == Some(incarnation) {
            self.went_on(self.data.goes_on_with(DataPoint { incarnation, seq: found.seq }));
            self.data.saw_ended(incarnation, found.ended);
        }
    }
}
