//! What operators decided by hand, kept beside the marks of the branches: a mark alone does not tell who left it. It is
//! looked at where a coordinator's outcome meets an end that contradicts it, which is rare; nothing else depends on it.
//!
//! It is written before the branch is ended, so that no branch is ended by hand without it. A crash between leaves it
//! beside a branch that is still staged, and then it says nothing: only a contradiction makes anybody ask for it.

use std::collections::{BTreeMap, HashMap};

use assent_common::Txid;
use assent_common::outcome::Heuristic;
use redis::RedisResult;
use serde::{Deserialize, Serialize};

use super::execute::send;
use super::{Store, StoreError, lock};

/// What an operator decided of a branch, as the field `h:<txid>` of the control hash keeps it: JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// How the branch was ended.
    pub outcome: Heuristic,
    /// Who decided it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Where the branch's outcome was to be asked for; empty where nobody can be asked by the txid alone.
    pub coordinator: String,
    /// Whether the log is known to say otherwise.
    #[serde(default)]
    pub is_damage: bool,
}

impl ByHand {
    /// For people: who did what, and why.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { outcome, actor, reason, .. } = self;
        format!("{actor} ended the branch by hand as {}: {reason}", outcome.as_str())
    }
}

/// The field of a branch in the control hash.
fn field(txid: Txid) -> String {
    format!("h:{txid}")
}

impl Store {
    /// Keeps what an operator decides.
    pub async fn keep_by_hand(&self, txid: Txid, by_hand: &ByHand) -> Result<(), StoreError> {
        // Texts and words always become JSON.
        let value = serde_json::to_string(by_hand).unwrap_or_default();
        let live = self.verified().await?;
        let mut command = redis::cmd("HSET");
        command.arg(&self.options.control_key).arg(field(txid)).arg(value);
        send(&live, &command).await.map_err(|error| self.given_up(&live, &error))?;
        lock(&self.by_hand).insert(txid, by_hand.clone());
        Ok(())
    }

    /// What operators decided of these branches.
    pub async fn by_hand(&self, txids: &[Txid]) -> Result<HashMap<Txid, ByHand>, StoreError> {
        let live = self.live().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(&self.options.control_key);
        for txid in txids {
            command.arg(field(*txid));
        }
        let read = async {
            let found: RedisResult<Vec<Option<Vec<u8>>>> =
                Ok(redis::from_redis_value(send(&live, &command).await?)?);
            found
        };
        let found = read.await.map_err(|error| self.given_up(&live, &error))?;
        let found = txids.iter().zip(found);
        Ok(found.filter_map(|(txid, text)| Some((*txid, read_back(&text?)?))).collect())
    }

    /// Drops what an operator decided of a branch: its log says the same, or another operator has seen to it.
    pub async fn forget_by_hand(&self, txid: Txid) -> Result<(), StoreError> {
        let live = self.verified().await?;
        let mut command = redis::cmd("HDEL");
        command.arg(&self.options.control_key).arg(field(txid));
        send(&live, &command).await.map_err(|error| self.given_up(&live, &error))?;
        lock(&self.by_hand).remove(&txid);
        Ok(())
    }

    /// What operators decided, as the last look for branches in doubt has found it.
    #[must_use]
    pub fn all_by_hand(&self) -> BTreeMap<Txid, ByHand> {
        lock(&self.by_hand).clone()
    }
}

/// The value of such a field; what another version wrote says nothing.
pub(super) fn read_back(value: &[u8]) -> Option<ByHand> {
    serde_json::from_slice(value).ok()
}
