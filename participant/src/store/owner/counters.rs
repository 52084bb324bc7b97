//! The counters that branches add to in escrow, as a round finds them.
//!
//! Many branches of one round add to the same counter, which is why they are not put off until the round is kept: what the
//! round itself adds is known here, and each counter is looked at once.

use std::collections::{BTreeMap, HashMap, HashSet};

use assent_common::command::{Access, Claim, Range, parse_i64};
use assent_common::ids::Txid;
use assent_common::participant::{Claimed, Counter, Key, Lock};
use redis::{Pipeline, Value};

use super::super::call::PrepareItem;
use super::super::mutants;
use super::Owner;
use super::look::AskExpiry;

/// What `PEXPIRETIME`, `PTTL` and `HPEXPIRETIME` say of what does not expire, or is not there.
const NEVER: std::ops::RangeInclusive<i64> = -2..=-1;

/// What a round has added to counters so far, before Redis has.
#[derive(Debug, Default)]
pub(super) struct Added(HashMap<Key, BTreeMap<Counter, i128>>);

/// What Redis has of the counters of a round: nothing of one that is not for the owner to judge.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<Key, BTreeMap<Counter, Option<i64>>>);

impl Added {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn concerns(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn add(&mut self, key: &Key, counter: &Counter, delta: i64) {
        let of_key = self.0.entry(key.clone()).or_default();
        *of_key.entry(counter.clone()).or_insert(0) += i128::from(delta);
    }

    fn of(&self, claim: &Claim) -> i128 {
        let of_key = self.0.get(&claim.key);
        of_key.and_then(|counters| counters.get(&claim.field)).copied().unwrap_or(0)
    }
}

/// The distinct counters of these branches.
pub(super) fn asked(items: &[PrepareItem]) -> Vec<(&Key, &Counter)> {
    let mut seen = HashSet::new();
    let claims = items.iter().flat_map(|item| &item.prepare.branch.claims);
    let counters = claims.map(|claim| (&claim.key, &claim.field));
    counters.filter(|counter| seen.insert(*counter)).collect()
}

/// The commands that look at the counters. Returns how many they are.
pub(super) fn look(
    pipeline: &mut Pipeline,
    counters: &[(&Key, &Counter)],
    expiry: AskExpiry,
    fields_expire: bool,
) -> usize {
    let before = pipeline.len();
    for (key, counter) in counters {
        match counter {
            Some(field) => pipeline.cmd("HGET").arg(key.0.as_slice()).arg(field.0.as_slice()),
            None => pipeline.cmd("GET").arg(key.0.as_slice()),
        };
        pipeline.cmd(expiry.command()).arg(key.0.as_slice());
        if let Some(field) = counter.as_ref().filter(|_| fields_expire) {
            let command = pipeline.cmd("HPEXPIRETIME").arg(key.0.as_slice());
            command.arg("FIELDS").arg(1).arg(field.0.as_slice());
        }
    }
    pipeline.len() - before
}

/// Whether what was asked for its expiry has none. Whoever asks for a field is answered by an array.
fn stays(answer: &Value) -> bool {
    match answer {
        Value::Int(ms) => NEVER.contains(ms),
        Value::Array(fields) => fields.iter().all(stays),
        Value::Nil => true,
        _ => false,
    }
}

impl Counters {
    /// From the answers to those commands.
    pub(super) fn found(
        counters: &[(&Key, &Counter)],
        answers: Vec<Value>,
        fields_expire: bool,
    ) -> Self {
        let mut found: HashMap<Key, BTreeMap<Counter, Option<i64>>> = HashMap::new();
        let mut answers = answers.into_iter();
        for (key, counter) in counters {
            let value = match answers.next() {
                Some(Value::Nil) => Some(0),
                Some(Value::BulkString(digits)) => parse_i64(&digits),
                _ => None,
            };
            let expiries = 1 + usize::from(fields_expire && counter.is_some());
            let stays = answers.by_ref().take(expiries).all(|answer| stays(&answer));
            let of_key = found.entry((*key).clone()).or_default();
            of_key.insert((*counter).clone(), value.filter(|_| stays));
        }
        Self(found)
    }

    /// The claims of a branch with the values that they meet; `None` if one of them is for the scripts to judge.
    pub(super) fn claimed(&self, item: &PrepareItem, added: &Added) -> Option<Vec<Claimed>> {
        let claims = item.prepare.branch.claims.iter().map(|claim| {
            let found = (*self.0.get(&claim.key)?.get(&claim.field)?)?;
            let value = i64::try_from(i128::from(found) + added.of(claim)).ok()?;
            Some(mutants::judged(Claimed { claim: claim.clone(), value: Some(value) }))
        });
        claims.collect()
    }
}

impl Owner {
    /// What the counters of these claims may become by those who hold them.
    pub(super) fn ranges(&self, claims: &[Claimed]) -> Vec<Range> {
        let locks = self.machine.locks();
        let range = |Claimed { claim, value }: &Claimed| {
            locks.range(&claim.key, &claim.field, value.unwrap_or(0))
        };
        claims.iter().map(range).collect()
    }

    /// What a branch in doubt adds to a key that it holds in escrow; `None` if it holds it otherwise.
    pub(super) fn adds(&self, txid: Txid, key: &Key) -> Option<Vec<(Counter, i64)>> {
        match self.machine.locks().get(key)? {
            Lock::Escrow(_, owners) => {
                let reserved = owners.get(&txid)?.reserved.iter();
                Some(reserved.map(|(counter, it)| (counter.clone(), it.delta)).collect())
            }
            Lock::Exclusive(..) | Lock::Shared(_) => None,
        }
    }
}

/// Whether a key is held in escrow.
pub(super) const fn is_escrow(access: Access) -> bool {
    matches!(access, Access::Escrow(_))
}
