//! Which life of a log may speak here: an old or forked copy of a log is refused, for good (invariant 1).
//!
//! The newest life that was heard is in the control hash, `m:n:<log id>`, beside the data that it decided. This agent
//! remembers it too, so that a Redis is asked once for each life, and one that lost its data does not forget.

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId};
use assent_common::lives::{self, Heard, Life};
use assent_common::outcome::Refusal;
use assent_common::wire::branch::CoordinatorRef;
use redis::RedisResult;

use super::execute::send;
use super::{Store, lock, mutants};

/// How often a life is judged anew because another agent has remembered one meanwhile.
const TRIES_MAX: usize = 4;

const LIFE: &str = include_str!("../lua/life.lua");

/// What the script says of a field that is as it was to be.
const REMEMBERED: i64 = 1;
const CHANGED: i64 = 0;

impl Store {
    /// Why this life of a coordinator may not speak here; `None` if it may. An older version says nothing of its life.
    pub async fn admit_life(&self, coordinator: &CoordinatorRef) -> Option<Refusal> {
        let proof = coordinator.life.as_ref()?;
        let said = Life { epoch: coordinator.epoch, nonce: proof.nonce };
        let known = || lock(&self.lives).get(&coordinator.log_id).copied();
        if known() == Some(said) || !mutants::compares_lives() {
            return None;
        }
        for _ in 0..TRIES_MAX {
            let live = match self.live().await {
                Ok(live) => live,
                Err(error) => {
                    return Some(Refusal::new(ErrorCode::RedisUnavailable, error.to_string()));
                }
            };
            let field = format!("m:n:{}", coordinator.log_id);
            let mut command = redis::cmd("HGET");
            command.arg(&self.options.control_key).arg(&field);
            let stored: RedisResult<Option<String>> =
                command.query_async(&mut live.connection.clone()).await;
            let stored = match stored {
                Ok(stored) => stored.unwrap_or_default(),
                Err(error) => {
                    return Some(Refusal::new(ErrorCode::RedisUnavailable, error.to_string()));
                }
            };
            let remembered = known().max(parse(&stored));
            match lives::hear(remembered, coordinator.epoch, proof) {
                Heard::Known => {
                    if remembered == Some(said) {
                        lock(&self.lives).insert(coordinator.log_id, said);
                    }
                    return None;
                }
                Heard::Stale => return Some(stale(coordinator.log_id, said, remembered)),
                Heard::Newest => {}
            }
            let mut command = redis::cmd("EVAL");
            command.arg(LIFE).arg(1).arg(&self.options.control_key).arg(self.incarnation());
            command.arg(field).arg(stored).arg(format!("{} {}", said.epoch, said.nonce));
            match send(&live, &command).await {
                Ok(redis::Value::Int(CHANGED)) => {}
                Ok(redis::Value::Int(REMEMBERED)) => {
                    lock(&self.lives).insert(coordinator.log_id, said);
                    return None;
                }
                // Other data: whoever looks at that decides, and this life is remembered when it is the agent's.
                Ok(_) => return None,
                Err(error) => {
                    return Some(Refusal::new(ErrorCode::RedisUnavailable, error.to_string()));
                }
            }
        }
        let detail = "other agents hear other lives of this log all the time";
        Some(Refusal::new(ErrorCode::RedisUnavailable, detail))
    }
}

/// What a field `m:n:<log id>` says.
fn parse(value: &str) -> Option<Life> {
    let (epoch, nonce) = value.split_once(' ')?;
    Some(Life { epoch: Epoch(epoch.parse().ok()?), nonce: nonce.parse().ok()? })
}

fn stale(log_id: LogId, said: Life, remembered: Option<Life>) -> Refusal {
    let heard = remembered.map_or(Epoch(0), |life| life.epoch);
    let detail = format!(
        "life {} of log {log_id} was heard here, and is not among those of the coordinator that \
         speaks now as life {}: its log is an old or a forked copy",
        heard, said.epoch
    );
    tracing::error!(%log_id, epoch = %said.epoch, heard = %heard,
        "an old or forked copy of a log is refused (docs/guides/recover.md, `Backup`)");
    Refusal::new(ErrorCode::StaleLog, detail)
}
