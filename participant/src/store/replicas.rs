//! Votes that replicas must have: `WAIT` behind what was done, on the same connection.
//!
//! A vote on one server is lost with a failover to a replica that lags, and until the loss is repaired from the log the
//! branch is fenced; an old master that is cut off and still written to shows no loss at all. Both are kept away by
//! `min_replicas`: what fewer replicas have heard is *not known*, so that no decision is built on it. `WAIT` counts
//! replicas that received the writes of its own connection, in memory (<https://redis.io/docs/latest/commands/wait/>).

use assent_common::outcome::{Call, Prepared};
use redis::{RedisResult, Value};

use super::connection::Live;
use super::execute::send;
use super::work::Answers;
use super::{BranchAnswer, Store};

/// How long replicas are waited for, in milliseconds; what they have not heard by then is asked again.
const WAIT_MS: u64 = 1_000;

impl Store {
    /// Takes back what was answered at these slots, unless enough replicas have it.
    pub(super) async fn certify(&self, live: &Live, slots: &[usize], answers: &mut Answers) {
        let needed = self.options.min_replicas;
        let rests_on_writes = |slot: &&usize| answers.of(**slot).is_some_and(is_done);
        let slots: Vec<usize> = slots.iter().filter(rests_on_writes).copied().collect();
        if needed == 0 || slots.is_empty() {
            return;
        }
        let mut command = redis::cmd("WAIT");
        command.arg(needed).arg(WAIT_MS);
        let heard: RedisResult<Value> = send(live, &command).await;
        let why = match heard {
            Ok(Value::Int(count)) if count >= i64::from(needed) => return,
            Ok(Value::Int(count)) => format!("{count} of {needed} replicas have it"),
            Ok(_) => "WAIT was not answered as such".to_owned(),
            Err(error) => format!("whether replicas have it is not known: {error}"),
        };
        tracing::warn!(why, answers = slots.len(), "not certified by replicas");
        for slot in slots {
            if let Some(answer) = answers.of(slot) {
                let unknown = unknown(answer, &why);
                answers.put(slot, unknown);
            }
        }
    }
}

/// Whether an answer says that something is kept in Redis.
const fn is_done(answer: &BranchAnswer) -> bool {
    match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))) => false,
        BranchAnswer::Prepared(call) => matches!(call, Call::Applied(_)),
        BranchAnswer::Applied(call) => matches!(call, Call::Applied(_)),
        BranchAnswer::Aborted(call) => matches!(call, Call::Applied(_)),
        BranchAnswer::Settled(call) => matches!(call, Call::Applied(_)),
    }
}

fn unknown(answer: &BranchAnswer, why: &str) -> BranchAnswer {
    let why = why.to_owned();
    match answer {
        BranchAnswer::Prepared(_) => BranchAnswer::Prepared(Call::Unknown(why)),
        BranchAnswer::Applied(_) => BranchAnswer::Applied(Call::Unknown(why)),
        BranchAnswer::Aborted(_) => BranchAnswer::Aborted(Call::Unknown(why)),
        BranchAnswer::Settled(_) => BranchAnswer::Settled(Call::Unknown(why)),
    }
}
