//! The counters that branches add to in escrow, as a round finds them.
//!
//! Many branches of one round add to the same counter, which is why they are not put off until the
//! round is kept: what the round itself adds is known here, and each counter is looked at once.

use std::collections::{BTreeMap, HashMap, HashSet};

use assent_common::code::ErrorCode;
use assent_common::command::{Access, Claim, Range, parse_i64};
use assent_common::ids::Txid;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::participant::{Claimed, Counter, Key, Lock};
use redis::{Pipeline, Value};

use super::super::mutants;
use super::super::said::unevaluated;
use super::super::work::PrepareItem;
use super::Owner;
use super::look::AskExpiry;

/// What `PEXPIRETIME`, `PTTL` and `HPEXPIRETIME` say of what does not expire, or is not there.
const NEVER: std::ops::RangeInclusive<i64> = -2..=-1;

/// What a round has added to counters so far, before Redis has.
#[derive(Debug, Default)]
pub(super) struct Added(HashMap<Key, BTreeMap<Counter, i128>>);

/// What Redis has of the counters of a round.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<Key, BTreeMap<Counter, Result<i64, NoCounter>>>);

/// Why nothing can be added to a counter in escrow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NoCounter {
    OfData(ErrorCode, &'static str),
    /// Redis does not say what is there.
    Failed(Call<Prepared>),
}

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
pub(super) fn asked<'a>(
    items: impl Iterator<Item = &'a PrepareItem>,
) -> Vec<(&'a Key, &'a Counter)> {
    let mut seen = HashSet::new();
    let claims = items.flat_map(|item| &item.prepare.branch.claims);
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

/// Whether what was asked for its expiry has none. Whoever asks for a field is answered by an
/// array.
fn stays(answer: &Value) -> bool {
    match answer {
        Value::Int(ms) => NEVER.contains(ms),
        Value::Array(fields) => fields.iter().all(stays),
        Value::Nil => true,
        _ => false,
    }
}

impl NoCounter {
    const NO_INTEGER: Self =
        Self::OfData(ErrorCode::NotAnInteger, "the value is not an integer of 64 bits");

    fn of(error: &redis::ServerError) -> Self {
        match error.code() {
            "WRONGTYPE" => Self::OfData(ErrorCode::WrongType, "the key holds another type"),
            _ => Self::Failed(unevaluated(&error.clone().into())),
        }
    }

    /// The answer to the branch that claims it.
    fn said_to(&self, item: &PrepareItem, claim: &Claim) -> Call<Prepared> {
        match self {
            Self::OfData(code, detail) => {
                let place = claim.steps.first().map_or(0, |step| step.op);
                let op = usize::try_from(place).ok().and_then(|it| item.prepare.branch.ops.get(it));
                let title = op.map_or_else(String::new, |op| op.title());
                Call::Refused(Refusal::new(*code, format!("{title}: {detail}")).at_op(place))
            }
            Self::Failed(call) => call.clone(),
        }
    }
}

/// What is there, by the answers about its value, about the expiry of its key, and about its own.
fn found(
    value: Option<Value>,
    key: Option<Value>,
    field: Option<&Value>,
) -> Result<i64, NoCounter> {
    let value = match value {
        Some(Value::Nil) => 0,
        Some(Value::BulkString(digits)) => parse_i64(&digits).ok_or(NoCounter::NO_INTEGER)?,
        Some(Value::ServerError(error)) => return Err(NoCounter::of(&error)),
        _ => return Err(NoCounter::NO_INTEGER),
    };
    let expires = |detail| Err(NoCounter::OfData(ErrorCode::KeyExpires, detail));
    if !key.is_some_and(|answer| stays(&answer)) {
        return expires("the key expires, and with it would what is reserved");
    }
    if !field.is_none_or(stays) {
        return expires("the field expires, and with it would what is reserved");
    }
    Ok(value)
}

impl Counters {
    /// From the answers to those commands.
    pub(super) fn found(
        counters: &[(&Key, &Counter)],
        answers: Vec<Value>,
        fields_expire: bool,
    ) -> Self {
        let mut all: HashMap<Key, BTreeMap<Counter, Result<i64, NoCounter>>> = HashMap::new();
        let mut answers = answers.into_iter();
        for (key, counter) in counters {
            let (value, expiry) = (answers.next(), answers.next());
            let asks_field = fields_expire && counter.is_some();
            let of_field = asks_field.then(|| answers.next()).flatten();
            let of_key = all.entry((*key).clone()).or_default();
            of_key.insert((*counter).clone(), found(value, expiry, of_field.as_ref()));
        }
        Self(all)
    }

    /// The claims of a branch with the values that they meet; up to the first that meets no
    /// counter, and what is said of that.
    pub(super) fn claimed(
        &self,
        item: &PrepareItem,
        added: &Added,
    ) -> (Vec<Claimed>, Option<Call<Prepared>>) {
        let claims = &item.prepare.branch.claims;
        let mut claimed = Vec::with_capacity(claims.len());
        for claim in claims {
            match self.value(claim, added) {
                Ok(value) => claimed.push(mutants::judged(Claimed { claim: claim.clone(), value })),
                Err(none) => return (claimed, Some(none.said_to(item, claim))),
            }
        }
        (claimed, None)
    }

    fn value(&self, claim: &Claim, added: &Added) -> Result<i64, NoCounter> {
        let of_key = self.0.get(&claim.key);
        let found = of_key.and_then(|counters| counters.get(&claim.field));
        let value = i128::from(found.cloned().unwrap_or(Err(NoCounter::NO_INTEGER))?);
        i64::try_from(value + added.of(claim)).map_err(|_| {
            NoCounter::OfData(ErrorCode::Overflow, "the result would leave the range of 64 bits")
        })
    }
}

impl Owner {
    /// What the counters of these claims may become by those who hold them.
    pub(super) fn ranges(&self, claims: &[Claimed]) -> Vec<Range> {
        let locks = self.machine.locks();
        let range =
            |Claimed { claim, value }: &Claimed| locks.range(&claim.key, &claim.field, *value);
        claims.iter().map(range).collect()
    }

    /// What a branch in doubt adds to a key that it holds in escrow; `None` if it holds it
    /// otherwise.
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
