//! The way to own a Redis, or to stand by for who does.
//!
//! ```text
//! an owner that is alive?  no ──────────────────────────────► own
//!                          yes, and it can be reached ──────► stand by: pass all on to it
//!                          yes, and it cannot ──────────────► stand aside; own when there is work
//!
//! to own:  SET the owner key, unless another was faster ──► WATCH it ──► read the control hash
//! ```
//!
//! An agent that comes has the server list its name before it looks for others. Being wrong about
//! who is there costs speed, never safety: that is the owner key's, which every claim changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Pipeline, RedisResult};
use uuid::Uuid;

use super::super::connection::Connection;
use super::super::data::DataIdentity;
use super::super::options::AgentAddress;
use super::super::scripts::Script;
use super::super::{StoreError, mutants};
use super::company::{AgentName, Company, Stance, is_alive_in};
use super::restore::restore;
use super::{Guard, OtherOwner, Owner, Stake, Turn, WriteWay};
use crate::mutex::lock;

/// How often it is tried again because another agent was faster.
const CLAIMS_MAX: usize = 3;

/// How long an owner lives without a beat.
const PULSELESS: Duration = Duration::from_secs(4);

/// How long an agent is taken for out of reach.
const ESTRANGED_FOR: Duration = Duration::from_secs(60);

/// Within this time an agent takes the Redis at most once at once from an owner that lives.
const TAKES_ONCE_IN: Duration = Duration::from_secs(10);

/// How long agents that take turns have the Redis, at least: a turn begins with a look at all that
/// is in doubt.
const TURN: Duration = Duration::from_millis(20);

/// What this agent knows of others that it cannot reach.
#[derive(Debug, Default)]
pub(in super::super) struct Estranged {
    /// The agents that could not be reached, and when.
    unreached: HashMap<String, Instant>,
    /// The owner that was not heard the last time that something was passed on to it.
    unheard: Option<Guard>,
    /// When the Redis was taken from an owner that lives.
    taken: Option<Instant>,
}

impl Estranged {
    pub(in super::super) fn cannot_reach(&mut self, owner: &Guard, now: Instant) {
        self.unreached.retain(|_, at| now.duration_since(*at) < ESTRANGED_FOR);
        self.unreached.insert(owner.agent().to_owned(), now);
    }

    /// Whether nothing speaks against passing on to this owner.
    fn reaches(&self, owner: &Guard, now: Instant) -> bool {
        let at = self.unreached.get(owner.agent());
        at.is_none_or(|at| now.duration_since(*at) >= ESTRANGED_FOR)
    }

    /// Whether this is the second time in a row that this owner is not heard.
    pub(in super::super) fn is_unheard_again(&mut self, owner: &Guard) -> bool {
        self.unheard.replace(owner.clone()).as_ref() == Some(owner)
    }

    pub(in super::super) fn is_heard(&mut self) {
        self.unheard = None;
    }

    /// How long to wait before the Redis is taken from an owner that lives. The first time that one
    /// may be stopping; who takes it from each other all the time does nothing else.
    fn takes(&mut self, now: Instant) -> Duration {
        let last = self.taken.replace(now);
        let is_recent = last.is_some_and(|at| now.duration_since(at) < TAKES_ONCE_IN);
        if is_recent { TURN } else { Duration::ZERO }
    }
}

/// An owner that lives.
struct Living {
    /// The id of its connection, if the server lists it.
    client: Option<u64>,
}

/// The pulse of an owner that the server does not list: a value in Redis that changes each second.
#[derive(Debug, Default)]
struct Beats {
    heard: Option<(Guard, Option<String>)>,
    since: Option<Instant>,
}

impl Beats {
    /// Whether this owner lives, as far as its pulse tells that says this now. Who is heard for the
    /// first time lives.
    fn hears(&mut self, owner: &Guard, beat: Option<String>, now: Instant) -> bool {
        // One that does not know yet that it is the owner no more may beat on.
        let beat = beat.filter(|beat| beat.split(' ').next() == Some(owner.connection()));
        let heard = Some((owner.clone(), beat));
        if self.heard != heard {
            (self.heard, self.since) = (heard, Some(now));
        }
        self.since.is_some_and(|since| now.duration_since(since) < PULSELESS)
    }
}

/// What an agent finds for itself to do.
enum Stand {
    Owns(Guard),
    StandsBy(OtherOwner),
    Aside,
    /// Beside an agent that would not see what it locks.
    Refuses(String),
}

/// What an agent knows of who owns the Redis, whatever the connection.
#[derive(Debug)]
pub(in super::super) struct Claims {
    /// This agent, among those of the participant.
    agent: String,
    /// How many times it was asked who owns the Redis.
    count: AtomicU64,
    /// Other agents that this one cannot reach.
    pub(in super::super) estranged: Mutex<Estranged>,
    /// The pulse of an owner that the server does not list.
    beats: Mutex<Beats>,
    /// What this agent last set the owner key to, or tried to.
    claimed: Mutex<Option<Guard>>,
}

/// `WATCH` and the value watched.
async fn watch(connection: &Connection) -> RedisResult<Guard> {
    let () = connection.ask(redis::cmd(mutants::watch()).arg(connection.owner_key())).await?;
    held(connection).await
}

/// What the owner key holds.
pub(in super::super) async fn held(connection: &Connection) -> RedisResult<Guard> {
    let value = connection.ask(redis::cmd("GET").arg(connection.owner_key())).await?;
    Ok(Guard::read(value))
}

/// Has an owner that writes by scripts write by `EXEC` again, where nothing speaks against it.
/// Whether it still owns the Redis.
pub(in super::super) async fn watch_again(
    connection: &Connection,
    owner: &mut Owner,
) -> Result<bool, StoreError> {
    if owner.way == WriteWay::Exec || !connection.may_exec() {
        return Ok(true);
    }
    if connection.or_unavailable(watch(connection).await)? != owner.guard {
        return Ok(false);
    }
    owner.way = WriteWay::Exec;
    Ok(true)
}

/// Has an owner go on by scripts: what its machine was told is not what is kept.
pub(in super::super) async fn go_by_script(
    connection: &Connection,
    data: &DataIdentity,
    owner: &mut Owner,
) -> Result<(), StoreError> {
    *owner = restore(connection, data, owner.guard.clone(), WriteWay::Script).await?;
    Ok(())
}

/// Reads the control hash, behind the `WATCH` that guards what is read.
async fn begin_to_own(
    connection: &Connection,
    data: &DataIdentity,
    guard: Guard,
) -> Result<Owner, StoreError> {
    if !connection.may_exec() {
        return restore(connection, data, guard, WriteWay::Script).await;
    }
    if connection.or_unavailable(watch(connection).await)? != guard {
        let reason = "another agent has become the owner of this Redis".to_owned();
        return Err(StoreError::Unavailable { address: connection.options().address(), reason });
    }
    restore(connection, data, guard, WriteWay::Exec).await
}

impl Claims {
    pub(in super::super) fn new() -> Self {
        Self {
            agent: Uuid::now_v7().simple().to_string(),
            count: AtomicU64::new(0),
            estranged: Mutex::default(),
            beats: Mutex::default(),
            claimed: Mutex::default(),
        }
    }

    /// What this agent last set the owner key to.
    pub(in super::super) fn claimed(&self) -> Option<Guard> {
        lock(&self.claimed).clone()
    }

    /// Owns the Redis, stands by for who owns it, or stands aside.
    pub(in super::super) async fn arbitrate(
        &self,
        connection: &Connection,
        data: &DataIdentity,
        stake: Stake,
    ) -> Result<Turn, StoreError> {
        match connection.or_unavailable(self.contend(connection, data, stake).await)? {
            Stand::Owns(guard) => {
                let owner = match begin_to_own(connection, data, guard).await {
                    Ok(owner) => owner,
                    Err(error) => {
                        // Nobody is to stand by for an agent that does nothing.
                        let free =
                            connection.send(redis::cmd("DEL").arg(connection.owner_key())).await;
                        connection.or_unavailable(free)?;
                        // Who asks gives the connection up if that is other data by now.
                        let _ = data.look(connection).await?;
                        return data.is_quarantined().map_or(Err(error), |_| Ok(Turn::Aside));
                    }
                };
                tracing::info!(in_doubt = owner.machine.staged().len(), "owner of Redis");
                Ok(Turn::Sole(Box::new(owner)))
            }
            Stand::StandsBy(owner) => {
                let url = assent_common::text::cut(owner.url(), 200);
                tracing::info!(%url, "another agent owns this Redis; this one stands by");
                Ok(Turn::Standby(Arc::new(owner)))
            }
            Stand::Aside => Ok(Turn::Aside),
            Stand::Refuses(reason) => {
                let address = connection.options().address();
                Err(StoreError::Unavailable { address, reason })
            }
        }
    }

    async fn contend(
        &self,
        connection: &Connection,
        data: &DataIdentity,
        stake: Stake,
    ) -> RedisResult<Stand> {
        let claim = self.count.fetch_add(1, Ordering::Relaxed);
        let mut name = AgentName::new(connection, &self.agent, claim);
        // Also without a claim of its own: the others must see this agent.
        name.announce(connection).await?;
        for _ in 0..CLAIMS_MAX {
            let held = held(connection).await?;
            let company = match name.stance {
                Stance::HasPulse => None,
                _ => Company::ask(connection, &name).await?,
            };
            let company = company.unwrap_or_else(|| {
                // The server shows too little.
                name.stance = Stance::HasPulse;
                Company::unseen()
            });
            if let Some(owner) = self.living_owner(connection, &held, &company).await? {
                let now = Instant::now();
                let other = OtherOwner::new(&held, owner.client)
                    .filter(|_| lock(&self.estranged).reaches(&held, now));
                if let Some(other) = other {
                    return Ok(Stand::StandsBy(other));
                }
                if stake == Stake::Nothing {
                    return Ok(Stand::Aside);
                }
                let pause = lock(&self.estranged).takes(now);
                tokio::time::sleep(pause).await;
            }
            if data.is_quarantined().is_some() && mutants::minds_incarnation() {
                return Ok(Stand::Aside);
            }
            if let Some(older) = company.older() {
                return Ok(Stand::Refuses(format!(
                    "an agent of an older version is connected to it (CLIENT LIST, id {}), which \
                     does not see the locks of this one: stop that agent",
                    older.client
                )));
            }
            let url = own_url(&connection.options().standby, &company);
            let guard = Guard::new(&name.connection(), url.as_deref());
            // Before anybody can read it: what is passed on to this agent from then on waits here.
            *lock(&self.claimed) = Some(guard.clone());
            let mut claim = redis::cmd("EVAL");
            claim.arg(Script::Claim.source()).arg(2);
            claim.arg(connection.control_key()).arg(connection.owner_key());
            claim.arg(held.as_str()).arg(guard.as_str());
            if connection.ask(&claim).await? {
                return Ok(Stand::Owns(guard));
            }
        }
        Ok(Stand::Aside)
    }

    /// The other agent that owns the Redis, if it lives.
    async fn living_owner(
        &self,
        connection: &Connection,
        held: &Guard,
        company: &Company,
    ) -> RedisResult<Option<Living>> {
        if held.agent().is_empty() || held.agent() == self.agent {
            return Ok(None);
        }
        if let Some(owner) = company.of(held.connection()) {
            return Ok(owner.is_alive().then_some(Living { client: Some(owner.client) }));
        }
        // What cannot be listed is known by its pulse.
        if company.host.is_some() && !held.has_pulse() {
            return Ok(None);
        }
        let beat = connection.ask(redis::cmd("GET").arg(connection.pulse_key())).await?;
        let is_alive = lock(&self.beats).hears(held, beat, Instant::now());
        Ok(is_alive.then_some(Living { client: None }))
    }

    /// Whether that agent owns the Redis, and lives.
    pub(in super::super) async fn still_owns(
        &self,
        connection: &Connection,
        owner: &OtherOwner,
    ) -> RedisResult<bool> {
        let (mut pipeline, guard) = (Pipeline::new(), owner.guard());
        pipeline.cmd("GET").arg(connection.owner_key());
        let Some(client) = owner.client() else {
            pipeline.cmd("GET").arg(connection.pulse_key());
            let (held, beat): (Option<String>, Option<String>) =
                connection.ask_all(&pipeline).await?;
            let is_alive = lock(&self.beats).hears(guard, beat, Instant::now());
            return Ok(held.as_deref() == Some(guard.as_str()) && is_alive);
        };
        pipeline.cmd("CLIENT").arg("LIST").arg("ID").arg(client);
        let (held, list): (Option<String>, String) = connection.ask_all(&pipeline).await?;
        Ok(held.as_deref() == Some(guard.as_str()) && is_alive_in(&list, guard.connection()))
    }

    /// Changes the pulse, if the connection of this agent, which owns the Redis, has no name there.
    pub(in super::super) async fn beat(&self, connection: &Connection) -> RedisResult<()> {
        let Some(guard) = self.claimed().filter(Guard::has_pulse) else { return Ok(()) };
        let beat = self.count.fetch_add(1, Ordering::Relaxed);
        let mut command = redis::cmd("SET");
        command.arg(connection.pulse_key()).arg(format!("{} {beat}", guard.connection()));
        match connection.send(&command).await {
            Err(error) if error.is_io_error() => Err(error),
            // A Redis that is full, say, is no reason to give up: the others take over, or try to.
            _ => Ok(()),
        }
    }
}

/// Where other agents reach this one.
fn own_url(address: &AgentAddress, company: &Company) -> Option<String> {
    match address {
        AgentAddress::Nowhere => None,
        AgentAddress::Url(url) => Some(url.clone()),
        AgentAddress::Port(port) => Some(format!("http://{}:{port}", company.host.as_ref()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two agents that reach Redis and not each other take turns.
    #[test]
    fn who_takes_the_redis_from_owners_that_live_does_not_take_it_all_the_time() {
        let mut estranged = Estranged::default();
        let start = Instant::now();
        assert_eq!(estranged.takes(start), Duration::ZERO, "it may be stopping");
        assert_eq!(estranged.takes(start + TAKES_ONCE_IN / 2), TURN);
        assert_eq!(estranged.takes(start + 2 * TAKES_ONCE_IN), Duration::ZERO);
    }

    /// A new claim of an agent that is out of reach does not bring it into reach.
    #[test]
    fn an_agent_out_of_reach_is_tried_again_after_a_while() {
        let (one, again) = (Guard::new("one.1.a", None), Guard::new("one.2.a", None));
        let (mut estranged, start) = (Estranged::default(), Instant::now());
        assert!(estranged.reaches(&one, start));
        estranged.cannot_reach(&one, start);
        assert!(!estranged.reaches(&again, start + ESTRANGED_FOR / 2));
        assert!(estranged.reaches(&Guard::new("two.1.a", None), start));
        assert!(estranged.reaches(&again, start + ESTRANGED_FOR));
    }

    #[test]
    fn an_owner_without_a_beat_for_seconds_does_not_live() {
        let (owner, start) = (Guard::new("one.1.p", None), Instant::now());
        let mut beats = Beats::default();
        let beat = |n: u32| Some(format!("one.1.p {n}"));
        let after = |ms| start + Duration::from_millis(ms);
        assert!(beats.hears(&owner, beat(1), start) && beats.hears(&owner, beat(1), after(3_900)));
        assert!(beats.hears(&owner, beat(2), after(3_950)), "it has changed");
        assert!(beats.hears(&owner, beat(2), after(7_900)));
        assert!(!beats.hears(&owner, beat(2), after(8_000)));
        let other = Guard::new("two.1.p", None);
        assert!(beats.hears(&other, beat(2), after(8_000)), "another owner");
        assert!(!beats.hears(&other, beat(3), after(12_000)), "the beats of the one before it");
    }
}
