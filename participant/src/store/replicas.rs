//! Votes that replicas must have: `WAIT` behind what was done, on the same connection.
//!
//! A vote on one server is lost with a failover to a replica that lags, and until the loss is repaired from the log the
//! branch is fenced; an old master that is cut off and still written to shows no loss at all. Both are kept away by
//! `min_replicas`: what fewer replicas have heard is *not known*, so that no decision is built on it. `WAIT` counts
//! replicas that received the writes of its own connection, in memory (<https://redis.io/docs/latest/commands/wait/>).

use std::sync::Mutex;

use assent_common::ErrorCode;
use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Call, Prepared, Refusal};
use redis::{RedisResult, Value};

use super::StoreOptions;
use super::connection::Connection;
use super::work::{Answers, Sorted};
use crate::mutex::lock;

/// How long replicas are waited for, in milliseconds; what they have not heard by then is asked again.
const WAIT_MS: u64 = 1_000;

/// The same, where it is only looked whether they have heard it by now.
const LOOK_MS: u64 = 100;

/// The replicas that votes need.
#[derive(Debug)]
pub(super) struct Replicas {
    needed: u32,
    /// Why votes would not count, as far as is known: too few are online, or they did not
    /// acknowledge the last ones.
    lacks: Mutex<Option<String>>,
}

impl Replicas {
    /// Those of a new connection.
    pub(super) fn new(options: &StoreOptions) -> Self {
        let needed = options.min_replicas;
        let not_seen = "which replicas there are is not known yet";
        Self { needed, lacks: Mutex::new((needed > 0).then(|| not_seen.to_owned())) }
    }

    /// What the last look found.
    pub(super) fn missed(&self) -> Option<String> {
        lock(&self.lacks).clone()
    }

    /// Takes back what was answered at these slots, unless enough replicas have it.
    pub(super) async fn certify(
        &self,
        connection: &Connection,
        slots: &[usize],
        answers: &mut Answers,
    ) {
        let needed = self.needed;
        let rests_on_writes = |slot: &&usize| answers.of(**slot).is_some_and(is_done);
        let slots: Vec<usize> = slots.iter().filter(rests_on_writes).copied().collect();
        if needed == 0 || slots.is_empty() {
            return;
        }
        let why = match connection.send(redis::cmd("WAIT").arg(needed).arg(WAIT_MS)).await {
            Ok(Value::Int(count)) if count >= i64::from(needed) => return,
            Ok(Value::Int(count)) => unacknowledged(count, needed),
            Ok(_) => "WAIT was not answered as such".to_owned(),
            Err(error) => format!("whether replicas have it is not known: {error}"),
        };
        *lock(&self.lacks) = Some(why.clone());
        tracing::warn!(why, answers = slots.len(), "not certified by replicas");
        for slot in slots {
            if let Some(answer) = answers.of(slot) {
                let unknown = answer.kind().unknown(&*why);
                answers.put(slot, unknown);
            }
        }
    }

    /// Which of them are missing; nothing if there are as many as votes need, and the last votes
    /// were acknowledged.
    pub(super) async fn missing(&self, connection: &Connection) -> RedisResult<Option<String>> {
        let needed = self.needed;
        if needed == 0 {
            return Ok(None);
        }
        let told: String = connection.ask(redis::cmd("INFO").arg("replication")).await?;
        let online = online(&told);
        let found = if online < needed {
            let why = "acknowledged it: no more are online (--min-replicas)";
            Some(format!("{online} of {needed} replicas {why}"))
        } else if lock(&self.lacks).is_none() {
            None
        } else {
            // A replica that hangs is online for a while. It lacks this connection's last write.
            let count: i64 = connection.ask(redis::cmd("WAIT").arg(needed).arg(LOOK_MS)).await?;
            (count < i64::from(needed)).then(|| unacknowledged(count, needed))
        };
        lock(&self.lacks).clone_from(&found);
        Ok(found)
    }

    /// Refuses new prepares while it is known that their votes would not count: a no at once, where
    /// a vote would wait for its transaction's end.
    pub(super) async fn weigh(&self, connection: &Connection, sorted: &mut Sorted) {
        if sorted.prepares.is_empty() || lock(&self.lacks).is_none() {
            return;
        }
        // What breaks the connection is met again by the batch itself.
        let Ok(Some(why)) = self.missing(connection).await else { return };
        for item in &mut sorted.prepares {
            let refusal = Refusal::new(ErrorCode::RedisRefuses, &*why);
            item.prepare.if_new = Some(Box::new(refusal));
        }
    }
}

fn unacknowledged(count: i64, needed: u32) -> String {
    format!("{count} of {needed} replicas acknowledged it (--min-replicas)")
}

/// How many replicas `INFO replication` calls online.
fn online(told: &str) -> u32 {
    let replicas = told.lines().filter(|line| line.starts_with("slave"));
    let online = replicas.filter(|line| line.contains("state=online"));
    u32::try_from(online.count()).unwrap_or(u32::MAX)
}

/// Whether an answer says that something is kept in Redis.
fn is_done(answer: &BranchAnswer) -> bool {
    let waits = matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))));
    !waits && answer.refused().is_none() && answer.unknown().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_that_are_online_count() {
        let told = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\n\
            slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n";
        assert_eq!(online(told), 1);
        assert_eq!(online("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"), 0);
    }
}
