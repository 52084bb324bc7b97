//! The way to own a Redis, or to stand by for who does.
//!
//! ```text
//! who is connected?  nobody else ──────────────────────────────► own
//!                    one that can only share ──────────────────► all share, by the scripts
//!                    an owner that is alive and can be reached ► stand by: pass all on to it
//!                    else, if the others can reach this agent ─► own; if not ──► share
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

use super::super::connection::Live;
use super::super::control::{
    self, Field, StagedRecord, ToldPosition, done_marker, pattern, read_mark,
};
use super::super::mutants;
use super::super::options::AgentAddress;
use super::super::scripts::Script;
use super::super::{Store, StoreError, lock};
use super::company::{AgentName, Company, Stance};
use super::{Guard, OtherOwner, Owner, Turn, WriteWay};

/// How often it is tried again because another agent was faster.
const CLAIMS_MAX: usize = 3;

/// Within this time a second owner that lives and cannot be reached means that the agents cannot
/// reach each other, and not that one of them is stopping.
const ESTRANGED_WITHIN: Duration = Duration::from_secs(10);

/// How long an owner lives without a beat.
const PULSELESS: Duration = Duration::from_secs(4);

/// How long agents share by the scripts that cannot reach each other.
const ESTRANGED_FOR: Duration = Duration::from_secs(60);

/// What this agent knows of others that it cannot reach.
#[derive(Debug, Default)]
pub(in super::super) struct Estranged {
    /// The owner that could not be reached.
    unreached: Option<Guard>,
    /// The owner that was not heard the last time that something was passed on to it.
    unheard: Option<Guard>,
    /// When the Redis was taken from an owner that lives.
    taken: Option<Instant>,
    /// When a Redis was last claimed that nobody owned.
    claimed: Option<Instant>,
    shares_until: Option<Instant>,
}

impl Estranged {
    pub(in super::super) fn cannot_reach(&mut self, owner: &Guard) {
        self.unreached = Some(owner.clone());
    }

    /// Whether this is the second time in a row that this owner is not heard.
    pub(in super::super) fn is_unheard_again(&mut self, owner: &Guard) -> bool {
        self.unheard.replace(owner.clone()).as_ref() == Some(owner)
    }

    pub(in super::super) fn is_heard(&mut self) {
        self.unheard = None;
    }

    /// Whether the Redis may be taken from an owner that lives and cannot be reached. The second
    /// time it is not: who takes it from each other all the time is slower than who shares.
    fn may_take(&mut self, now: Instant) -> bool {
        if self.taken.is_some_and(|at| now.duration_since(at) < ESTRANGED_WITHIN) {
            return false;
        }
        self.taken = Some(now);
        true
    }

    /// Whether the Redis may be claimed that nobody owns. Not when the claim of a moment ago was
    /// deleted.
    fn may_claim(&mut self, is_deleted: bool, now: Instant) -> bool {
        let last = self.claimed.replace(now);
        let is_recent = last.is_some_and(|at| now.duration_since(at) < ESTRANGED_WITHIN);
        if is_deleted && is_recent {
            self.share(now);
        }
        !(is_deleted && is_recent)
    }

    fn share(&mut self, now: Instant) {
        self.shares_until = Some(now + ESTRANGED_FOR);
    }

    /// Whether this agent only shares for now.
    pub(super) fn shares(&self, now: Instant) -> bool {
        self.shares_until.is_some_and(|until| now < until)
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
    Shares,
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
    /// Owns the Redis, stands by for who owns it, or sees to it that nobody does.
    pub(in super::super) async fn arbitrate(&self, live: &Live) -> Result<Turn, StoreError> {
        let name = AgentName::new(self, live.server.rights.has_names());
        let stand = self.contend(live, name).await.unwrap_or_else(|error| {
            tracing::info!(%error, "no owner of Redis; the scripts do the work");
            Stand::Shares
        });
        match stand {
            Stand::Owns(guard) => match self.begin_to_own(live, guard).await {
                Ok(owner) => {
                    tracing::info!(in_doubt = owner.machine.staged().len(), "owner of Redis");
                    return Ok(Turn::Sole(Box::new(owner)));
                }
                Err(error) => tracing::warn!(%error, "no owner of Redis; the scripts do the work"),
            },
            Stand::StandsBy(owner) => {
                let url = assent_common::text::cut(owner.url(), 200);
                tracing::info!(%url, "another agent owns this Redis; this one stands by");
                return Ok(Turn::Standby(Arc::new(owner)));
            }
            Stand::Shares => {}
        }
        let connection = &mut live.connection.clone();
        let freed: RedisResult<()> =
            redis::cmd("DEL").arg(self.owner_key()).query_async(connection).await;
        freed.map_err(|error| self.unavailable(&error))?;
        Ok(Turn::Scripts { owner: Guard::nobody() })
    }

    pub(in super::super) fn may_own(&self) -> bool {
        self.options.sole_ownership && self.is_quarantined().is_none()
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

    async fn contend(&self, live: &Live, mut name: AgentName) -> RedisResult<Stand> {
        let connection = &mut live.connection.clone();
        // Also without a claim of its own: the others must see this agent.
        name.announce(connection).await?;
        for _ in 0..CLAIMS_MAX {
            let held = held(connection, self.owner_key()).await?;
            let company = match name.stance {
                Stance::HasPulse => Some(Company::unseen()),
                _ => Company::ask(connection, &name).await?,
            };
            let Some(company) = company else { break };
            let owner = self.living_owner(connection, &held, &company).await?;
            if let Some(stand) = self.stand(&name, &held, &company, owner) {
                if lock(&self.link.estranged).shares(Instant::now()) {
                    name.stance = Stance::Shares;
                    name.announce(connection).await?;
                }
                return Ok(stand);
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
        Ok(Stand::Shares)
    }

    /// What is to be done without a claim; nothing if the Redis is to be claimed.
    fn stand(
        &self,
        name: &AgentName,
        held: &Guard,
        company: &Company,
        owner: Option<Living>,
    ) -> Option<Stand> {
        let may_own = self.may_own();
        if company.is_alone() && owner.is_none() {
            // An agent that cannot be seen, and only shares, deletes the owner key again and again.
            let is_deleted = name.stance == Stance::HasPulse && *held == Guard::nobody();
            let mut estranged = lock(&self.link.estranged);
            let may_claim = may_own && estranged.may_claim(is_deleted, Instant::now());
            return (!may_claim).then_some(Stand::Shares);
        }
        if name.stance == Stance::Shares || company.has_sharers() {
            return Some(Stand::Shares);
        }
        let mut estranged = lock(&self.link.estranged);
        match owner.and_then(|owner| OtherOwner::new(held, owner.client)) {
            Some(owner) if estranged.unreached.as_ref() != Some(held) => {
                Some(Stand::StandsBy(owner))
            }
            Some(_) if may_own && estranged.may_take(Instant::now()) => None,
            Some(_) => {
                estranged.share(Instant::now());
                Some(Stand::Shares)
            }
            // Nobody can pass anything on to one that has no address.
            None => {
                let may_claim = may_own && self.has_address(name);
                (!may_claim).then_some(Stand::Shares)
            }
        }
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

    fn has_address(&self, name: &AgentName) -> bool {
        match &self.options.standby {
            Some(AgentAddress::Url(_)) => true,
            Some(AgentAddress::Port(_)) => name.stance == Stance::HasAddress,
            Some(AgentAddress::Nowhere) | None => false,
        }
    }

    /// Where other agents reach this one.
    fn own_url(&self, company: &Company) -> Option<String> {
        match self.options.standby.as_ref()? {
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
        if number(Field::Incarnation) != Some(self.incarnation()) {
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
        for (name, key, value) in locks {
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
            restored.staged(txid, staged, &locks);
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

    /// Two agents that reach Redis and not each other would take it from each other all the time.
    #[test]
    fn who_takes_the_redis_twice_from_owners_that_live_shares_for_a_while() {
        let mut estranged = Estranged::default();
        let start = Instant::now();
        assert!(estranged.may_take(start) && !estranged.shares(start), "one may be stopping");
        let soon = start + ESTRANGED_WITHIN / 2;
        assert!(!estranged.may_take(soon));
        estranged.share(soon);
        assert!(estranged.shares(soon));
        assert!(!estranged.shares(soon + ESTRANGED_FOR));
        assert!(estranged.may_take(soon + ESTRANGED_FOR));
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
