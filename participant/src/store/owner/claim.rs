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
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_common::command::Access;
use assent_common::ids::{LogId, Txid};
use assent_common::participant::{Heard, Restored, Staged};
use assent_common::value::{Arg, readable};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::super::connection::{Live, identity};
use super::super::control::{
    self, Field, StagedRecord, ToldPosition, done_marker, pattern, read_mark,
};
use super::super::mutants;
use super::super::options::AgentAddress;
use super::super::scripts::Script;
use super::super::{Store, StoreError, lock};
use super::company::{AgentName, Company, Stance};
use super::{Guard, OtherOwner, Owner, Stake, Turn, WriteWay};

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
pub(in super::super) struct Beats {
    heard: Option<(Guard, Option<String>)>,
    since: Option<Instant>,
}

impl Beats {
    /// Whether this owner lives, as far as its pulse tells that says this now. Who is heard for the
    /// first time lives.
    pub(in super::super) fn hears(
        &mut self,
        owner: &Guard,
        beat: Option<String>,
        now: Instant,
    ) -> bool {
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
}

/// `WATCH` and the value watched.
pub(super) async fn watch(
    connection: &mut MultiplexedConnection,
    owner_key: &str,
) -> RedisResult<Guard> {
    let () = redis::cmd(mutants::watch()).arg(owner_key).query_async(connection).await?;
    let value = redis::cmd("GET").arg(owner_key).query_async(connection).await?;
    Ok(Guard::read(value))
}

/// What the owner key holds.
async fn held(connection: &mut MultiplexedConnection, owner_key: &str) -> RedisResult<Guard> {
    Ok(Guard::read(redis::cmd("GET").arg(owner_key).query_async(connection).await?))
}

impl Store {
    /// Owns the Redis, stands by for who owns it, or stands aside.
    pub(in super::super) async fn arbitrate(
        &self,
        live: &Live,
        stake: Stake,
    ) -> Result<Turn, StoreError> {
        let name = AgentName::new(self, live.server.rights.has_names());
        let stand = self.contend(live, name, stake).await;
        match stand.map_err(|error| self.unavailable(&error))? {
            Stand::Owns(guard) => {
                let owner = match self.begin_to_own(live, guard).await {
                    Ok(owner) => owner,
                    Err(error) => {
                        // Nobody is to stand by for an agent that does nothing.
                        let connection = &mut live.connection.clone();
                        let freed: RedisResult<()> =
                            redis::cmd("DEL").arg(self.owner_key()).query_async(connection).await;
                        freed.map_err(|error| self.unavailable(&error))?;
                        let known = self.known();
                        let found = identity(live, &self.options.control_key).await;
                        let found = found.map_err(|error| self.unavailable(&error))?;
                        self.compare(live, known, found).await?;
                        return self.is_quarantined().map_or(Err(error), |_| Ok(Turn::Aside));
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
        }
    }

    /// Whether an owner may write by `EXEC`, as far as is known.
    fn may_exec(&self, live: &Live) -> bool {
        live.server.rights.may_exec()
            && lock(&live.rights_lost).is_empty()
            && self.writes.refused().is_none()
    }

    /// Has an owner that writes by scripts write by `EXEC` again, where nothing speaks against it.
    /// Whether it still owns the Redis.
    pub(in super::super) async fn watch_again(
        &self,
        live: &Live,
        owner: &mut Owner,
    ) -> Result<bool, StoreError> {
        if owner.way == WriteWay::Exec || !self.may_exec(live) {
            return Ok(true);
        }
        let held = watch(&mut live.connection.clone(), self.owner_key()).await;
        if held.map_err(|error| self.unavailable(&error))? != owner.guard {
            return Ok(false);
        }
        owner.way = WriteWay::Exec;
        Ok(true)
    }

    /// Has an owner go on by scripts: what its machine was told is not what is kept.
    pub(in super::super) async fn go_by_script(
        &self,
        live: &Live,
        owner: &mut Owner,
    ) -> Result<(), StoreError> {
        *owner = self.restore(live, owner.guard.clone(), WriteWay::Script).await?;
        Ok(())
    }

    /// Reads the control hash, behind the `WATCH` that guards what is read.
    async fn begin_to_own(&self, live: &Live, guard: Guard) -> Result<Owner, StoreError> {
        if !self.may_exec(live) {
            return self.restore(live, guard, WriteWay::Script).await;
        }
        let held = watch(&mut live.connection.clone(), self.owner_key()).await;
        if held.map_err(|error| self.unavailable(&error))? != guard {
            let reason = "another agent has become the owner of this Redis".to_owned();
            return Err(StoreError::Unavailable { address: self.options.address(), reason });
        }
        self.restore(live, guard, WriteWay::Exec).await
    }

    async fn contend(&self, live: &Live, mut name: AgentName, stake: Stake) -> RedisResult<Stand> {
        let connection = &mut live.connection.clone();
        // Also without a claim of its own: the others must see this agent.
        name.announce(connection).await?;
        for _ in 0..CLAIMS_MAX {
            let held = held(connection, self.owner_key()).await?;
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
                    .filter(|_| lock(&self.link.estranged).reaches(&held, now));
                if let Some(other) = other {
                    return Ok(Stand::StandsBy(other));
                }
                if stake == Stake::Nothing {
                    return Ok(Stand::Aside);
                }
                let pause = lock(&self.link.estranged).takes(now);
                tokio::time::sleep(pause).await;
            }
            if self.is_quarantined().is_some() && mutants::minds_incarnation() {
                return Ok(Stand::Aside);
            }
            let url = self.own_url(&company);
            let guard = Guard::new(&name.connection(), url.as_deref());
            // Before anybody can read it: what is passed on to this agent from then on waits here.
            *lock(&self.link.claimed) = Some(guard.clone());
            let mut claim = redis::cmd("EVAL");
            claim.arg(Script::Claim.source()).arg(2);
            claim.arg(&self.options.control_key).arg(self.owner_key());
            claim.arg(held.as_str()).arg(guard.as_str());
            if claim.query_async(connection).await? {
                return Ok(Stand::Owns(guard));
            }
        }
        Ok(Stand::Aside)
    }

    /// The other agent that owns the Redis, if it lives.
    async fn living_owner(
        &self,
        connection: &mut MultiplexedConnection,
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
        let beat = redis::cmd("GET").arg(self.pulse_key()).query_async(connection).await?;
        let is_alive = lock(&self.link.beats).hears(held, beat, Instant::now());
        Ok(is_alive.then_some(Living { client: None }))
    }

    /// Where other agents reach this one.
    fn own_url(&self, company: &Company) -> Option<String> {
        match &self.options.standby {
            AgentAddress::Nowhere => None,
            AgentAddress::Url(url) => Some(url.clone()),
            AgentAddress::Port(port) => Some(format!("http://{}:{port}", company.host.as_ref()?)),
        }
    }

    /// Reads the control hash. The owner key is this agent's already: nobody else writes without
    /// ending the ownership.
    async fn restore(&self, live: &Live, guard: Guard, way: WriteWay) -> Result<Owner, StoreError> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let scanned = self
            .scan(live, pattern::ALL, |field, value| fields.push((field.to_vec(), value)))
            .await;
        scanned.map_err(|error| self.unavailable(&error))?;
        let corrupt =
            |reason| StoreError::Corrupt { key: self.options.control_key.clone(), reason };
        let number = |wanted: Field<'_>| {
            let wanted = wanted.name();
            control::number(&fields.iter().find(|(name, _)| *name == wanted)?.1)
        };
        let number_or_0 = |wanted: Field<'_>| number(wanted).unwrap_or(0);
        let is_own = number(Field::Incarnation) == Some(self.incarnation());
        if !is_own && mutants::minds_incarnation() {
            return Err(corrupt("its incarnation has changed".to_owned()));
        }
        let (seq, ended) = (number_or_0(Field::Seq), number_or_0(Field::Expected));
        // As an agent that starts has seen what is there: who stood by has seen no vote of late,
        // and would take a coordinator that has for one that knows other data.
        self.saw(self.incarnation(), seq);
        self.saw_ended(self.incarnation(), ended);
        let mut restored = Restored::new(self.incarnation(), seq);
        let (mut stored, mut told) = (HashMap::new(), HashMap::new());
        let unreadable = |field: &[u8]| corrupt(format!("{} cannot be read", readable(field)));
        let mut locks = Vec::new();
        for (name, value) in mutants::succeeds_to(&fields) {
            match Field::parse(name) {
                Some(Field::Lock(key)) => locks.push((name, key, value)),
                Some(Field::Told(log_id)) => {
                    told.extend(told_position(value).map(|position| (log_id, position)));
                }
                Some(field) => {
                    let added = add(&mut restored, &mut stored, self.incarnation(), field, value);
                    added.ok_or_else(|| unreadable(name))?;
                }
                None if control::is_of_machine(name) => return Err(unreadable(name)),
                None => {}
            }
        }
        // Behind the branches that have reserved it.
        for (name, key, value) in locks.into_iter().filter(|_| mutants::minds_locks()) {
            let key = Arg(key.to_vec());
            let reserved = control::reserved(value).ok_or_else(|| unreadable(name))?;
            for (txid, counter, reserved) in reserved {
                restored.reserved(txid, &key, counter, reserved);
            }
        }
        Ok(Owner {
            guard,
            way,
            machine: restored.finish(),
            ended,
            stored,
            told,
            short_keys: super::look::ShortKeys::default(),
            busy: false,
        })
    }
}

/// Adds one field of the control hash. Locks are in the staged records, but for what is reserved in
/// escrow.
fn add(
    restored: &mut Restored,
    stored: &mut HashMap<LogId, Heard>,
    incarnation: u64,
    field: Field<'_>,
    value: &[u8],
) -> Option<()> {
    match field {
        Field::Staged(txid) => {
            let (txid, staged, locks) = staged(incarnation, txid, value)?;
            restored.staged(txid, staged, if mutants::minds_locks() { &locks } else { &[] });
        }
        Field::Done(txid) => restored.done(txid, done_marker(value).ok()?),
        Field::Fence(txid) => restored.fence(txid),
        Field::Mark(log_id) => {
            let heard = read_mark(value)?;
            restored.heard(log_id, heard);
            stored.insert(log_id, heard);
        }
        // The rest is not the machine's.
        _ => {}
    }
    Some(())
}

/// How far a log was on disk, as its field says.
fn told_position(value: &[u8]) -> Option<u64> {
    Some(ToldPosition::parse(std::str::from_utf8(value).ok()?)?.position)
}

type Locks = Vec<(Arg, Access)>;

/// A branch in doubt. Its replies stay where they are: a prepare that comes again reads them there.
fn staged(incarnation: u64, txid: Txid, value: &[u8]) -> Option<(Txid, Staged, Locks)> {
    let record = StagedRecord::read(value).ok()?;
    let StagedRecord { id, seq, keys, modes, redo, branches, .. } = record;
    let accesses = modes.iter().map(|letter| Access::of_letter(*letter));
    let accesses = accesses.collect::<Option<Vec<_>>>()?;
    let locks = keys.iter().cloned().zip(accesses).collect();
    let vote =
        assent_common::outcome::Vote { replies: "[]".into(), redo: redo.into(), incarnation, seq };
    Some((txid, Staged { id, keys: keys.into_iter().collect(), vote, branches }, locks))
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
