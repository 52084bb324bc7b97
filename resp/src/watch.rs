//! `WATCH`: what a client has looked at, so that `EXEC` writes only if it is still so. Nothing is
//! locked meanwhile: a digest of each key is kept, and is held against the key under the locks of
//! `EXEC`.

use assent_client::mutant;
use assent_common::ErrorCode;
use assent_common::command::Expect;
use assent_common::limits;
use assent_common::mutant::Mutant;
use assent_common::value::Arg;
use assent_common::wire::problem::Problem;
use assent_edge::{BYTES_PER_OP, Budget, Held};

use crate::planned::PlannedOp;
use crate::refusal::{error, no_memory, of_problem};
use crate::reply::Value;

/// The keys that a client watches.
#[derive(Debug)]
pub(crate) struct Watches {
    keys: Vec<WatchedKey>,
    /// A client that overlooked that would write what it has not guarded.
    has_failed: bool,
    held: Held,
}

/// A key, and what it was.
#[derive(Debug)]
struct WatchedKey {
    key: Arg,
    /// None where it was not there.
    digest: Option<Arg>,
}

impl Watches {
    /// None.
    pub(crate) fn none(budget: &Budget) -> Self {
        Self { keys: Vec::new(), has_failed: false, held: budget.hold() }
    }

    /// Whether a key is watched.
    pub(crate) const fn is_any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Nothing is watched any more.
    pub(crate) fn forget(&mut self) {
        self.keys = Vec::new();
        self.has_failed = false;
        self.held.shrink_to(0);
    }

    /// Those of these keys that are not watched yet; an error if they are more than may be.
    pub(crate) fn unwatched(&mut self, keys: &[Arg]) -> Result<Vec<Arg>, Value> {
        let mut new: Vec<Arg> = Vec::new();
        for key in keys {
            let is_known = self.keys.iter().any(|watched| watched.key == *key);
            if !is_known && !new.contains(key) {
                new.push(key.clone());
            }
        }
        let most = limits::WATCHED_KEYS_MAX;
        if self.keys.len() + new.len() > most {
            let why = format!("a connection watches at most {most} keys; UNWATCH those of before");
            return Err(of_problem(&Problem::new(ErrorCode::TooManyOps, why)));
        }
        let bytes = new.iter().map(|key| key.0.len() + BYTES_PER_OP).sum();
        if !self.held.grow(bytes) {
            return Err(of_problem(&no_memory()));
        }
        Ok(new)
    }

    /// Takes what the look at these keys came to, and says what `WATCH` answers.
    pub(crate) fn seen(&mut self, keys: Vec<Arg>, answer: Value) -> Value {
        let digest = |value| match value {
            Value::Bulk(digest) => Ok(Some(Arg(digest))),
            Value::Nil => Ok(None),
            _ => Err(error("ERR the digest of a watched key is missing; nothing was watched")),
        };
        let digests = match answer {
            Value::Array(values) if values.len() == keys.len() => {
                values.into_iter().map(digest).collect::<Result<Vec<_>, _>>()
            }
            Value::Error(why) => Err(Value::Error(why)),
            other => digest(Value::Array(vec![other])).map(|digest| vec![digest]),
        };
        match digests {
            Ok(digests) => {
                self.keys.retain(|_| !mutant::is(Mutant::WatchForgets));
                let seen = keys.into_iter().zip(digests);
                self.keys.extend(seen.map(|(key, digest)| WatchedKey { key, digest }));
                Value::ok()
            }
            Err(why) => self.failed(why),
        }
    }

    /// A `WATCH` was refused.
    pub(crate) fn failed(&mut self, why: Value) -> Value {
        self.has_failed = true;
        why
    }

    /// The keys and what they must be, which are watched no more; an error if one of them could not
    /// be watched.
    pub(crate) fn take(&mut self) -> Result<Vec<(Arg, Option<Arg>)>, Value> {
        let has_failed = self.has_failed;
        let keys = std::mem::take(&mut self.keys);
        self.forget();
        if has_failed {
            let why = "EXECABORT Transaction discarded because a WATCH before it was refused.";
            return Err(error(why));
        }
        let is_guarded = |watched: &WatchedKey| {
            watched.digest.is_some() || !mutant::is(Mutant::AbsenceUnwatched)
        };
        let guarded = keys.into_iter().filter(is_guarded);
        Ok(guarded.map(|watched| (watched.key, watched.digest)).collect())
    }
}

/// Has an op that asks for a digest expect this one.
pub(crate) fn expecting(op: &mut PlannedOp, digest: Option<Arg>) -> Result<(), Value> {
    let expect = Expect { eq: Some(digest), ..Expect::default() };
    let mut asks = op.branch.ops.iter_mut();
    let said = asks.try_for_each(|op| op.expecting(expect.clone()));
    said.map_err(|refusal| of_problem(&Problem::from(refusal)))
}
