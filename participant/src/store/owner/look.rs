//! What the ops of a branch need to know of its keys, asked of Redis before they are evaluated.
//!
//! A value may be long, and a client chooses which keys a branch reads: a key of which nothing is
//! known is read by `GETRANGE`, one command for each. Most keys were read before and were short.
//! Those are read together by one `MGET`, which costs Redis a third as much.

use std::hash::{BuildHasher as _, RandomState};

use assent_common::command::{Access, Lock, OpRequest, ValidatedBranch, ValidatedOp};
use assent_common::value::Arg;
use redis::{Cmd, Pipeline, Value};

use super::super::kind::Features;
use super::super::work::PrepareItem;

/// Bytes of a value that is read here. Larger ones are the script's: whether they may be read at
/// all is counted there.
pub(super) const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Keys that are remembered for their short values.
const SHORT_KEYS_MAX: usize = 1 << 15;

/// What asks when a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskExpiry {
    /// `PEXPIRETIME`: the time at which.
    At,
    /// `PTTL`, of a server that has no other: that it does, and not when, because time passes
    /// between the commands. What expires there is the script's, in which no time passes.
    Whether,
}

impl AskExpiry {
    pub(super) const fn of(features: Features) -> Self {
        if features.expire_time { Self::At } else { Self::Whether }
    }

    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::At => "PEXPIRETIME",
            Self::Whether => "PTTL",
        }
    }
}

/// What those say where there is nothing.
const NO_SUCH_KEY: i64 = -2;

/// What they say of a key that stays.
const NEVER: i64 = -1;

/// What a key of the branch was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// No op of the branch needs to know.
    NotAsked,
    /// There is no such key.
    Absent,
    /// A string, and when it expires, in milliseconds since the epoch: known if the branch may
    /// write it.
    String(Vec<u8>, Option<i64>),
    /// Of another type, or too long to be evaluated here, or expiring at a time that is not known.
    Other,
}

/// The keys whose values were short when they were last read. What a client of ours has made of
/// them since is at most twice as long: a branch that could make more of a key forgets it. Only
/// somebody who writes past the agent can make one longer, and that is read once.
#[derive(Debug)]
pub(super) struct ShortKeys {
    /// Hashes by a secret of this process, so that nobody can choose two keys of one hash.
    hashes: Box<[u64]>,
    state: RandomState,
}

impl Default for ShortKeys {
    fn default() -> Self {
        Self { hashes: vec![0; SHORT_KEYS_MAX].into(), state: RandomState::new() }
    }
}

impl ShortKeys {
    fn place(&self, key: &Arg) -> (usize, u64) {
        let hash = self.state.hash_one(&key.0);
        (usize::try_from(hash % SHORT_KEYS_MAX as u64).unwrap_or_default(), hash)
    }

    fn has(&self, key: &Arg) -> bool {
        let (place, hash) = self.place(key);
        self.hashes[place] == hash
    }

    fn note(&mut self, key: &Arg, found: &Found) {
        match found {
            Found::String(..) => {
                let (place, hash) = self.place(key);
                self.hashes[place] = hash;
            }
            Found::NotAsked | Found::Absent | Found::Other => self.forget(key),
        }
    }

    fn forget(&mut self, key: &Arg) {
        let (place, hash) = self.place(key);
        if self.hashes[place] == hash {
            self.hashes[place] = 0;
        }
    }

    /// Forgets what a branch may make long: one that brings many bytes, or that is not evaluated
    /// by the owner.
    pub(super) fn forget_written(&mut self, branch: &ValidatedBranch) {
        for lock in branch.locks.iter().filter(|lock| lock.access == Access::Exclusive) {
            self.forget(&lock.key);
        }
    }
}

/// A key that is looked at.
#[derive(Debug)]
pub(super) struct KeyLook<'a> {
    /// Of the branch among the prepares.
    branch: usize,
    /// Of the key among its locks.
    place: usize,
    lock: &'a Lock,
    /// Whether its value was short.
    is_short: bool,
}

impl KeyLook<'_> {
    /// Who only reads a string need not know when it expires.
    fn asks_expiry(&self) -> bool {
        !self.is_short || self.lock.access == Access::Exclusive
    }
}

/// Whether an op writes a key without a look at it here. Counters in escrow are looked at by
/// themselves.
fn overwrites(op: &ValidatedOp) -> bool {
    match op.handler {
        "MSET" | OpRequest::ESCROW_HANDLER => true,
        "SET" => op.args[2..].iter().all(|option| option.0.is_empty()),
        _ => false,
    }
}

/// The locks whose keys must be looked at, and their places.
fn locks_asked(branch: &ValidatedBranch) -> impl Iterator<Item = (usize, &Lock)> {
    let is_asked = |key: &Arg| {
        branch.ops.iter().any(|op| !overwrites(op) && op.keys().any(|asked| asked == key))
    };
    let locks = branch.locks.iter().enumerate();
    locks.filter(move |(_, lock)| is_asked(&lock.key))
}

/// The keys that these branches need to know of.
pub(super) fn asked<'a>(items: &'a [PrepareItem], short: &ShortKeys) -> Vec<KeyLook<'a>> {
    let of_branch = |(branch, item): (usize, &'a PrepareItem)| {
        let of_key = move |(place, lock): (usize, &'a Lock)| KeyLook {
            branch,
            place,
            lock,
            is_short: short.has(&lock.key),
        };
        locks_asked(&item.prepare.branch).map(of_key)
    };
    items.iter().enumerate().flat_map(of_branch).collect()
}

/// The commands that look at them. How long a value is does not matter: of a long one the
/// beginning tells.
pub(super) fn look(pipeline: &mut Pipeline, asked: &[KeyLook<'_>], expiry: AskExpiry) {
    /// More than the other words of a command.
    const WORDS_BYTES: usize = 24;
    let mut strings = redis::cmd("MGET");
    for short in asked.iter().filter(|asked| asked.is_short) {
        strings.arg(short.lock.key.0.as_slice());
    }
    if strings.args_iter().len() > 1 {
        pipeline.add_command(strings);
    }
    for asked in asked {
        let key = asked.lock.key.0.as_slice();
        let command = |words| Cmd::with_capacity(words, key.len() + WORDS_BYTES);
        if !asked.is_short {
            let mut range = command(4);
            range.arg("GETRANGE").arg(key).arg(0).arg(VALUE_BYTES_MAX);
            pipeline.add_command(range);
        }
        if asked.asks_expiry() {
            let mut asks = command(2);
            asks.arg(expiry.command()).arg(key);
            pipeline.add_command(asks);
        }
    }
}

/// What the answers to those commands say, for each lock of each branch.
pub(super) fn found(
    items: &[PrepareItem],
    asked: &[KeyLook<'_>],
    answers: Vec<Value>,
    ask: AskExpiry,
    short: &mut ShortKeys,
) -> Vec<Vec<Found>> {
    let mut answers = answers.into_iter();
    let strings = asked.iter().any(|asked| asked.is_short).then(|| answers.next()).flatten();
    let mut strings = match strings {
        Some(Value::Array(strings)) => strings,
        _ => Vec::new(),
    }
    .into_iter();
    let not_asked = |item: &PrepareItem| vec![Found::NotAsked; item.prepare.branch.locks.len()];
    let mut found: Vec<_> = items.iter().map(not_asked).collect();
    for asked in asked {
        let string = if asked.is_short { strings.next() } else { answers.next() };
        let expiry = if asked.asks_expiry() { answers.next() } else { Some(Value::Int(NEVER)) };
        let this = Found::of(string, expiry, ask);
        short.note(&asked.lock.key, &this);
        found[asked.branch][asked.place] = this;
    }
    found
}

impl Found {
    /// From the answers about a key: of another type is what is there and no string; gone is what
    /// has expired in between.
    fn of(string: Option<Value>, expiry: Option<Value>, ask: AskExpiry) -> Self {
        match (string, expiry) {
            (_, Some(Value::Int(NO_SUCH_KEY))) => Self::Absent,
            (_, Some(Value::Int(ms))) if ms >= 0 && ask == AskExpiry::Whether => Self::Other,
            (Some(Value::BulkString(value)), Some(Value::Int(ms)))
                if value.len() <= VALUE_BYTES_MAX =>
            {
                Self::String(value, (ms >= 0).then_some(ms))
            }
            _ => Self::Other,
        }
    }
}
