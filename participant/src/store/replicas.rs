//! Votes that replicas must have: `WAIT` behind what was done, on the same connection.
//!
//! A vote on one server is lost with a failover to a replica that lags, and until the loss is repaired from the log the
//! branch is fenced; an old master that is cut off and still written to shows no loss at all. Both are kept away by
//! `min_replicas`: what fewer replicas have heard is *not known*, so that no decision is built on it. `WAIT` counts
//! replicas that received the writes of its own connection, in memory (<https://redis.io/docs/latest/commands/wait/>).

use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Call, Prepared};
use redis::{RedisResult, Value};

use super::connection::Live;
use super::execute::send;
use super::work::Answers;
use super::{Store, StoreError};

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
                let unknown = answer.kind().unknown(&*why);
                answers.put(slot, unknown);
            }
        }
    }
}

impl Store {
    /// Which replicas are missing; nothing if there are as many as votes need.
    pub async fn replicas_missing(&self) -> Result<Option<String>, StoreError> {
        let needed = self.options.min_replicas;
        if needed == 0 {
            return Ok(None);
        }
        let live = self.live().await?;
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let told = async { Ok(redis::from_redis_value::<String>(send(&live, &command).await?)?) };
        let told: RedisResult<String> = told.await;
        let told = told.map_err(|error| self.given_up(&live, &error))?;
        let online = online(&told);
        Ok((online < needed).then(|| {
            format!("{online} of {needed} replicas are online: no vote counts before they are")
        }))
    }
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
