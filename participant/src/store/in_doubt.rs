//! The branches that voted yes here and were not told the outcome.

use std::collections::{BTreeMap, HashMap};

use assent_common::command::Access;
use assent_common::ids::{TransactionId, Txid};
use assent_common::participant::Branches;
use assent_common::value::{Arg, readable};

use super::StoreError;
use super::control::{ByHand, Field, StagedRecord, pattern};
use super::link::{Link, Live};
use super::packed::RedoError;

/// A branch that voted yes and was not told the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// The branch's transaction.
    pub txid: Txid,
    /// Its public id.
    pub id: TransactionId,
    /// Where its outcome is asked for.
    pub coordinator: String,
    /// The number of its vote.
    pub seq: u64,
    /// The keys that it locks.
    pub keys: Vec<Arg>,
    /// Those of them that it locks for a write.
    pub written: Vec<Arg>,
    /// Its writes, as the vote carried them.
    pub redo: Vec<u8>,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
}

impl InDoubt {
    pub(super) fn new(txid: Txid, record: StagedRecord) -> Self {
        let StagedRecord { id, coordinator, seq, keys, modes, redo, branches, .. } = record;
        let locks = keys.iter().zip(&modes);
        let writes = locks.filter(|(_, mode)| **mode != Access::Shared.letter());
        let written = writes.map(|(key, _)| key.clone()).collect();
        Self { txid, id, coordinator, seq, keys, written, redo, branches }
    }
}

/// Every branch in doubt, and what operators decided by hand. A scan may show a branch twice; here
/// each stands once.
pub(super) async fn in_doubt(
    link: &Link,
    live: &Live,
) -> Result<(Vec<InDoubt>, BTreeMap<Txid, ByHand>), StoreError> {
    let mut branches = HashMap::new();
    let mut by_hand = BTreeMap::new();
    let mut corrupt = None;
    let scanned = live.connection.scan(pattern::STAGED_AND_BY_HAND, |field, value| {
        let staged = match Field::parse(field) {
            Some(Field::ByHand(txid)) => {
                by_hand.extend(ByHand::read(&value).map(|it| (txid, it)));
                return;
            }
            Some(Field::Staged(txid)) => {
                StagedRecord::read(&value).map(|record| InDoubt::new(txid, record))
            }
            _ => Err(RedoError::foreign()),
        };
        match staged {
            Ok(branch) => drop(branches.insert(branch.txid, branch)),
            Err(error) => corrupt = Some(format!("{}: {error}", readable(field))),
        }
    });
    scanned.await.map_err(|error| link.given_up(live, &error))?;
    if let Some(reason) = corrupt {
        return Err(live.connection.corrupt(reason));
    }
    let mut branches: Vec<InDoubt> = branches.into_values().collect();
    branches.sort_unstable_by_key(|branch| branch.seq);
    Ok((branches, by_hand))
}
