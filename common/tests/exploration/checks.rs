//! What must hold after every event, and what a run has met.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::command::Access;
use assent_common::coordinator::Outcome;
use assent_common::participant::{Key, Lock, Participant};
use assent_common::record::Committed;
use assent_common::{Attempt, TxNumber, Txid};

use crate::world::Client;

/// All that ever happened, as somebody would know it who sees everything.
#[derive(Default)]
pub(crate) struct History {
    /// Decisions that are durable, with the number of their branches.
    decided: BTreeMap<Txid, usize>,
    /// Branches applied, by participant.
    applied: BTreeMap<Txid, BTreeSet<usize>>,
    /// Branches whose staged record was dropped.
    dropped: BTreeSet<(Txid, usize)>,
    /// Branches applied in one phase.
    one_phase: BTreeSet<Txid>,
    /// Transactions that read in one phase, of which a branch keeps no trace.
    untraced: BTreeSet<TxNumber>,
    /// Which transactions were begun for a client's request; more than one if it asked again after a crash.
    executions: BTreeMap<usize, Vec<TxNumber>>,
    /// What a client was told: whether it is committed.
    pub(crate) told: BTreeMap<usize, bool>,
    /// How often each key was written.
    versions: BTreeMap<(usize, Key), u64>,
    /// What the locked keys' versions were when a branch voted yes.
    seen: BTreeMap<(Txid, usize), Vec<(Key, u64)>>,
    pub(crate) met: Met,
}

/// How often a run met what matters.
#[derive(Default, Clone)]
pub(crate) struct Met {
    pub(crate) decided: u64,
    pub(crate) one_phase: u64,
    pub(crate) dropped: u64,
    pub(crate) retried: u64,
    pub(crate) recovered: u64,
    pub(crate) waits: u64,
    pub(crate) told_aborted: u64,
    pub(crate) asked: u64,
}

impl Met {
    pub(crate) fn add(&mut self, other: &Self) {
        self.decided += other.decided;
        self.one_phase += other.one_phase;
        self.dropped += other.dropped;
        self.retried += other.retried;
        self.recovered += other.recovered;
        self.waits += other.waits;
        self.told_aborted += other.told_aborted;
        self.asked += other.asked;
    }
}

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl History {
    pub(crate) fn began(&mut self, client: usize, number: TxNumber) {
        self.executions.entry(client).or_default().push(number);
    }

    /// Invariants 5 and 8: a decision finds every branch staged, and it is the only one of its transaction.
    pub(crate) fn decided(&mut self, log_id: assent_common::LogId, record: &Committed) -> Check {
        let txid = Txid { log_id, number: record.number, attempt: record.attempt };
        self.met.decided += 1;
        self.met.retried += u64::from(record.attempt != Attempt::FIRST);
        let other = self.decided.keys().find(|other| other.number == txid.number);
        ensure(other.is_none_or(|other| *other == txid), || format!("{txid} decided twice"))?;
        self.decided.insert(txid, record.branches.len());
        let dropped = self.dropped.iter().find(|(dropped, _)| *dropped == txid);
        ensure(dropped.is_none(), || format!("{txid} is decided and a branch was dropped"))
    }

    /// A branch voted yes: what it saw must be what is there when it applies.
    pub(crate) fn voted(&mut self, txid: Txid, at: usize, keys: &[(Key, Access)]) {
        let version = |key: &Key| self.versions.get(&(at, key.clone())).copied().unwrap_or(0);
        let seen = keys.iter().map(|(key, _)| (key.clone(), version(key))).collect();
        self.seen.insert((txid, at), seen);
    }

    /// Invariants 3, 4 and 8: once, decided, and on the data that was voted on.
    pub(crate) fn applied(
        &mut self,
        txid: Txid,
        at: usize,
        keys: &[(Key, Access)],
        is_one_phase: bool,
    ) -> Check {
        if is_one_phase {
            self.met.one_phase += 1;
            self.one_phase.insert(txid);
        } else {
            ensure(self.decided.contains_key(&txid), || format!("{txid} applied undecided"))?;
            for (key, version) in self.seen.get(&(txid, at)).into_iter().flatten() {
                let now = self.versions.get(&(at, key.clone())).copied().unwrap_or(0);
                ensure(now == *version, || format!("{key:?} changed under the vote of {txid}"))?;
            }
        }
        for (key, access) in keys {
            if *access == Access::Exclusive {
                *self.versions.entry((at, key.clone())).or_default() += 1;
            }
        }
        ensure(self.applied.entry(txid).or_default().insert(at), || format!("{txid} applied twice"))
    }

    /// A one-phase branch read, and nothing was kept of it.
    pub(crate) fn read_untraced(&mut self, txid: Txid) {
        self.untraced.insert(txid.number);
    }

    /// Atomicity, the other way round.
    pub(crate) fn dropped(&mut self, txid: Txid, at: usize) -> Check {
        self.met.dropped += 1;
        self.dropped.insert((txid, at));
        ensure(!self.decided.contains_key(&txid), || format!("{txid} dropped although decided"))
    }

    /// What a client hears never changes.
    pub(crate) fn told(&mut self, client: usize, outcome: &Outcome) -> Check {
        self.told_committed(client, matches!(outcome, Outcome::Committed { .. }))?;
        if let Outcome::Committed { applied: true, .. } = outcome {
            let numbers = self.executions.get(&client).map(Vec::as_slice).unwrap_or_default();
            let of_client = |txid: &Txid| numbers.contains(&txid.number);
            let decided = self.decided.iter().find(|(txid, _)| of_client(txid));
            if let Some((txid, branches)) = decided {
                let applied = self.applied.get(txid).map_or(0, BTreeSet::len);
                let what = || format!("{txid} is said to be applied, and is at {applied} only");
                ensure(applied == *branches, what)?;
            }
        }
        Ok(())
    }

    pub(crate) fn told_committed(&mut self, client: usize, is_committed: bool) -> Check {
        self.met.told_aborted += u64::from(!is_committed);
        let before = self.told.insert(client, is_committed);
        ensure(before.is_none_or(|before| before == is_committed), || {
            format!("client {client} was told both outcomes")
        })
    }

    /// One request is one outcome, and what was told is true and stays so.
    fn answers_hold(&self) -> Check {
        for (client, numbers) in &self.executions {
            let of_client = |txid: &&Txid| numbers.contains(&txid.number);
            let decided = self.decided.keys().filter(of_client).count();
            let committed = decided + self.one_phase.iter().filter(of_client).count();
            ensure(committed <= 1, || format!("client {client}'s request committed twice"))?;
            match self.told.get(client) {
                Some(true) if numbers.iter().any(|number| self.untraced.contains(number)) => {}
                Some(true) => ensure(committed == 1, || {
                    format!("client {client} was told committed, and nothing is")
                })?,
                Some(false) => ensure(committed == 0, || {
                    format!("client {client} was told aborted, and it is committed")
                })?,
                None => {}
            }
        }
        Ok(())
    }

    /// Invariant 3: what voted yes for a decision is still staged, until it is applied.
    fn votes_stand(&self, participants: &[Participant]) -> Check {
        for (txid, branches) in &self.decided {
            let applied = self.applied.get(txid).map_or(0, BTreeSet::len);
            let staged = participants.iter().filter(|p| p.staged().contains_key(txid)).count();
            ensure(applied + staged == *branches, || {
                format!("{txid} is decided: {applied} applied and {staged} staged of {branches}")
            })?;
        }
        Ok(())
    }

    pub(crate) fn check(&self, participants: &[Participant], clients: &[Client]) -> Check {
        self.answers_hold()?;
        self.votes_stand(participants)?;
        for (at, participant) in participants.iter().enumerate() {
            locks_match_votes(at, participant, clients)?;
        }
        Ok(())
    }
}

/// Invariants 3 and 13: exactly what is staged is locked, and as strongly as it was asked for.
fn locks_match_votes(at: usize, participant: &Participant, clients: &[Client]) -> Check {
    let mut owned = 0;
    for (key, lock) in participant.locks().iter() {
        for (owner, id) in lock.owners() {
            owned += 1;
            let staged = participant.staged().get(&owner);
            let is_voted =
                staged.is_some_and(|staged| staged.id == id && staged.keys.contains(key));
            ensure(is_voted, || format!("{key:?} is locked by {owner}, which is not staged"))?;
        }
    }
    let mut voted = 0;
    for (txid, staged) in participant.staged() {
        voted += staged.keys.len();
        let client = clients.iter().find(|c| crate::coordinator::public_id(c.age) == staged.id);
        let branch = client.and_then(|c| c.branches.iter().find(|branch| branch.at == at));
        for (key, access) in branch.into_iter().flat_map(|branch| &branch.locks) {
            let is_held = match (participant.locks().get(key), access) {
                (Some(Lock::Exclusive(owner, _)), Access::Exclusive) => owner == txid,
                (Some(Lock::Shared(owners)), Access::Shared) => owners.contains_key(txid),
                _ => false,
            };
            ensure(is_held, || format!("{txid} voted yes and does not hold {key:?}"))?;
        }
    }
    ensure(owned == voted, || format!("{owned} locks are held for {voted} keys of votes"))
}
