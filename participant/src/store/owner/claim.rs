//! Who is alone on a server, and the way to own it.
//!
//! Every agent's connection bears its name. One that comes writes (its name, or the owner key)
//! before it looks for the other, so that of two that come at once at least one sees the other and
//! ends the ownership. Being wrong about being alone costs speed, never safety: that is the owner
//! key's.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use assent_common::ParticipantName;
use assent_common::command::Access;
use assent_common::ids::{LogId, Txid};
use assent_common::participant::{Heard, Restored, Staged};
use assent_common::value::{Arg, readable};
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::super::connection::Live;
use super::super::control::{
    self, Field, StagedRecord, ToldPosition, done_marker, pattern, read_mark,
};
use super::super::mutants;
use super::super::{Store, StoreError, lock};
use super::{Owner, Turn};

/// What the server lists this agent's connection as.
#[derive(Debug, Clone)]
struct Name {
    /// What all agents of the participant have in common.
    family: String,
    /// The agent.
    agent: String,
    /// How often the agent has asked for ownership: the value of the owner key is new each time.
    claim: u64,
}

impl Name {
    fn new(store: &Store) -> Self {
        let participant = store.options.participant.as_ref().map_or("-", ParticipantName::as_str);
        let claim = store.link.claims.fetch_add(1, Ordering::Relaxed);
        let family = format!("assent-agent:{participant}:");
        Self { family, agent: store.agent.clone(), claim }
    }

    /// The value of the owner key.
    fn guard(&self) -> String {
        format!("{}.{}", self.agent, self.claim)
    }

    /// Has the server list the connection under its name.
    async fn announce(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let name = format!("{}{}", self.family, self.guard());
        redis::cmd("CLIENT").arg("SETNAME").arg(name).query_async(connection).await
    }

    /// Whether the server lists a connection of another agent to the same database.
    async fn has_company(&self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(connection).await?;
        Ok(self.is_company_in(&list))
    }

    fn is_company_in(&self, list: &str) -> bool {
        let of_family = || {
            let named = |client| Some((client, field(client, "name")?.strip_prefix(&self.family)?));
            list.lines().filter_map(named)
        };
        let own = of_family().find(|(_, guard)| *guard == self.guard());
        // A server that does not list this connection shows too little to be sure.
        let Some(database) = own.map(|(client, _)| field(client, "db")) else { return true };
        of_family().any(|(client, guard)| {
            let agent = guard.split_once('.').map(|(agent, _)| agent);
            agent != Some(self.agent.as_str()) && field(client, "db") == database
        })
    }
}

/// A field of a line of `CLIENT LIST`.
fn field<'a>(client: &'a str, name: &str) -> Option<&'a str> {
    client.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

/// `WATCH` and the value watched: of no use unless it is the expected one.
async fn watch(connection: &mut MultiplexedConnection, owner_key: &str) -> RedisResult<Value> {
    let () = redis::cmd(mutants::watch()).arg(owner_key).query_async(connection).await?;
    redis::cmd("GET").arg(owner_key).query_async(connection).await
}

impl Store {
    /// Owns the Redis if this agent is alone there, or sees to it that nobody does.
    pub(in super::super) async fn arbitrate(&self, live: &Live) -> Result<Turn, StoreError> {
        let name = Name::new(self);
        let claimed = self.claim(live, &name).await.unwrap_or_else(|error| {
            tracing::info!(%error, "no sole ownership; the scripts do the work");
            false
        });
        if claimed {
            match self.restore(live, name.guard()).await {
                Ok(owner) => {
                    tracing::info!(in_doubt = owner.machine.staged().len(), "sole owner of Redis");
                    return Ok(Turn::Sole(Box::new(owner)));
                }
                Err(error) => tracing::warn!(%error, "no sole ownership; the scripts do the work"),
            }
        }
        let connection = &mut live.connection.clone();
        let freed: RedisResult<()> =
            redis::cmd("DEL").arg(self.owner_key()).query_async(connection).await;
        freed.map_err(|error| self.unavailable(&error))?;
        Ok(Turn::Scripts { owner: String::new() })
    }

    pub(in super::super) fn may_own(&self, live: &Live) -> bool {
        self.options.sole_ownership
            && self.is_quarantined().is_none()
            && live.server.id.features().expire_time
            && live.server.rights.may_own()
            && lock(&live.rights_lost).is_empty()
    }

    async fn claim(&self, live: &Live, name: &Name) -> RedisResult<bool> {
        let connection = &mut live.connection.clone();
        // Also without a claim of its own: the others must see this agent.
        name.announce(connection).await?;
        if !self.may_own(live) || name.has_company(connection).await? {
            return Ok(false);
        }
        let owner_key = self.owner_key();
        let guard = name.guard();
        let () = redis::cmd("SET").arg(owner_key).arg(&guard).query_async(connection).await?;
        // Who came since then has either found the key, and ends this, or is found now.
        if name.has_company(connection).await? {
            return Ok(false);
        }
        Ok(watch(connection, owner_key).await? == Value::BulkString(guard.into_bytes()))
    }

    /// Reads the control hash. The owner key is watched already: nobody else writes it without
    /// ending the ownership.
    async fn restore(&self, live: &Live, guard: String) -> Result<Owner, StoreError> {
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
        if number(Field::Incarnation) != Some(self.incarnation()) {
            return Err(corrupt("its incarnation has changed".to_owned()));
        }
        let mut restored = Restored::new(self.incarnation(), number(Field::Seq).unwrap_or(0));
        let (mut stored, mut told) = (HashMap::new(), HashMap::new());
        let unreadable = |field: &[u8]| corrupt(format!("{} cannot be read", readable(field)));
        let mut locks = Vec::new();
        for (name, value) in &fields {
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
        let ended = number(Field::Expected).unwrap_or(0);
        Ok(Owner {
            guard,
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

/// A branch in doubt. Its replies stay where they are: a prepare that comes again is the scripts'
/// to answer.
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

    const LIST: &str = "id=3 addr=a:1 name=assent-agent:bank:one.2 db=0 cmd=client\n\
                        id=4 addr=a:2 name=assent-agent:bank:one.1 db=0 cmd=get\n\
                        id=5 addr=a:3 name= db=0 cmd=get\n\
                        id=6 addr=a:4 name=assent-agent:bank-b:two.1 db=0 cmd=get\n\
                        id=7 addr=a:5 name=assent-agent:bank:three.1 db=1 cmd=get\n";

    fn name() -> Name {
        Name { family: "assent-agent:bank:".to_owned(), agent: "one".to_owned(), claim: 2 }
    }

    #[test]
    fn only_another_agent_of_the_participant_on_the_same_database_is_company() {
        assert!(!name().is_company_in(LIST), "itself, plain clients, others, other databases");
        let other = "id=8 addr=a:6 name=assent-agent:bank:two.7 db=0 cmd=get\n";
        assert!(name().is_company_in(&format!("{LIST}{other}")));
        assert!(name().is_company_in(""), "a server that lists nobody shows too little");
    }
}
