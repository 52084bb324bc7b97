//! What operators decided by hand, kept beside the marks of the branches: a mark alone does not tell who left it. It is
//! looked at where a coordinator's outcome meets an end that contradicts it, which is rare; nothing else depends on it.
//!
//! It is written before the branch is ended, so that no branch is ended by hand without it. A crash between leaves it
//! beside a branch that is still staged, and then it says nothing: only a contradiction makes anybody ask for it.

use std::collections::{BTreeMap, HashMap};

use assent_common::Txid;
use redis::RedisResult;

use super::control::{ByHand, Field};
use super::execute::send;
use super::{Store, StoreError, lock};

impl Store {
    /// Keeps what an operator decides.
    pub async fn keep_by_hand(&self, txid: Txid, by_hand: &ByHand) -> Result<(), StoreError> {
        let value = by_hand.value();
        let live = self.verified().await?;
        let mut command = redis::cmd("HSET");
        command.arg(&self.options.control_key).arg(Field::ByHand(txid)).arg(value);
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
            command.arg(Field::ByHand(*txid));
        }
        let read = async {
            let found: RedisResult<Vec<Option<Vec<u8>>>> =
                Ok(redis::from_redis_value(send(&live, &command).await?)?);
            found
        };
        let found = read.await.map_err(|error| self.given_up(&live, &error))?;
        let found = txids.iter().zip(found);
        Ok(found.filter_map(|(txid, text)| Some((*txid, ByHand::read(&text?)?))).collect())
    }

    /// Drops what an operator decided of a branch: its log says the same, or another operator has seen to it.
    pub async fn forget_by_hand(&self, txid: Txid) -> Result<(), StoreError> {
        let live = self.verified().await?;
        let mut command = redis::cmd("HDEL");
        command.arg(&self.options.control_key).arg(Field::ByHand(txid));
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
