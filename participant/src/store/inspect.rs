//! What the control hash holds, for people, for the resolver and for health. Reads only, but for
//! the sweep.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assent_common::command::Access;
use assent_common::ids::{Epoch, LogId, TransactionId, Txid};
use assent_common::outcome::Written;
use assent_common::participant::{Branches, DoneMarker, Heard};
use assent_common::value::{Arg, readable};
use assent_common::wire::branch::BranchState;
use redis::RedisResult;

use super::connection::{Live, unavailable};
use super::control::{self, ByHand, Field, StagedRecord, done_marker, pattern, read_mark};
use super::execute::send;
use super::markers::COLLECTED_PER_CALL_MAX;
use super::owner::{Lost, Turn, WriteWay};
use super::packed::RedoError;
use super::{Store, StoreError, lock};

/// Fields that one HSCAN looks at.
const SCAN_COUNT: usize = 500;

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
    fn new(txid: Txid, record: StagedRecord) -> Self {
        let StagedRecord { id, coordinator, seq, keys, modes, redo, branches, .. } = record;
        let locks = keys.iter().zip(&modes);
        let writes = locks.filter(|(_, mode)| **mode != Access::Shared.letter());
        let written = writes.map(|(key, _)| key.clone()).collect();
        Self { txid, id, coordinator, seq, keys, written, redo, branches }
    }
}

/// What is kept of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBranch {
    /// Its state.
    pub state: BranchState,
    /// The staged record, if it is prepared.
    pub in_doubt: Option<InDoubt>,
    /// What it wrote, if it is applied in one phase and its log may not have it yet.
    pub written: Option<Written>,
}

/// What is to be known of a store, for health and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// The server's kind and version.
    pub version: String,
    /// The id of its process life.
    pub run_id: String,
    /// The incarnation of the data, as it is stored now.
    pub incarnation: Option<u64>,
    /// The number of the last vote.
    pub seq: u64,
    /// Branches in doubt.
    pub staged: usize,
    /// Locked keys.
    pub locks: usize,
    /// Done-markers.
    pub done: usize,
    /// Fences.
    pub fences: usize,
}

impl Store {
    pub(super) fn unavailable(&self, error: &redis::RedisError) -> StoreError {
        unavailable(&self.options, error)
    }

    /// The error of a call; a connection that broke with it is given up, so that the next call
    /// opens another.
    pub(super) fn given_up(&self, live: &Arc<Live>, error: &redis::RedisError) -> StoreError {
        if error.is_io_error() {
            self.disconnect(live, &error.to_string());
        }
        self.unavailable(error)
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let live = self.live().await?;
        let answer = send(&live, &redis::cmd("PING")).await;
        answer.map(drop).map_err(|error| self.given_up(&live, &error))
    }

    /// Goes through the fields of the control hash that match.
    pub(super) async fn scan(
        &self,
        live: &Live,
        pattern: &str,
        mut each: impl FnMut(&[u8], Vec<u8>),
    ) -> RedisResult<()> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&self.options.control_key).arg(cursor);
            command.arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, fields): (u64, Vec<Vec<u8>>) =
                redis::from_redis_value(send(live, &command).await?)?;
            let mut fields = fields.into_iter();
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                each(&field, value);
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Every branch in doubt. A scan may show one twice; here each stands once.
    pub async fn in_doubt(&self) -> Result<Vec<InDoubt>, StoreError> {
        let live = self.live().await?;
        let mut branches = HashMap::new();
        let mut by_hand = BTreeMap::new();
        let mut corrupt = None;
        let scanned = self
            .scan(&live, pattern::STAGED_AND_BY_HAND, |field, value| {
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
            })
            .await;
        scanned.map_err(|error| self.given_up(&live, &error))?;
        if let Some(reason) = corrupt {
            return Err(StoreError::Corrupt { key: self.options.control_key.clone(), reason });
        }
        *lock(&self.by_hand) = by_hand;
        let mut branches: Vec<InDoubt> = branches.into_values().collect();
        branches.sort_unstable_by_key(|branch| branch.seq);
        Ok(branches)
    }

    /// Up to `count_max` branches of which a mark is left, and whether there are more.
    pub async fn marked(
        &self,
        state: BranchState,
        count_max: usize,
    ) -> Result<(Vec<Txid>, bool), StoreError> {
        let pattern = match state {
            BranchState::Prepared => pattern::STAGED,
            BranchState::Applied => pattern::DONE,
            BranchState::Aborted => pattern::FENCES,
        };
        let live = self.live().await?;
        let mut marked = BTreeSet::new();
        let scanned = self.scan(&live, pattern, |field, _| {
            // One more than is asked for says that there are more.
            if marked.len() <= count_max {
                marked.extend(Field::parse(field).and_then(Field::txid));
            }
        });
        scanned.await.map_err(|error| self.given_up(&live, &error))?;
        let more = marked.len() > count_max;
        Ok((marked.into_iter().take(count_max).collect(), more))
    }

    /// What is kept of one branch, if anything.
    pub async fn branch(&self, txid: Txid) -> Result<Option<StoredBranch>, StoreError> {
        let live = self.live().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(&self.options.control_key);
        command.arg(&Field::of_branch(txid)).arg(Field::Incarnation);
        let value = send(&live, &command).await.map_err(|error| self.given_up(&live, &error))?;
        let found: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(value).map_err(|error| self.given_up(&live, &error.into()))?;
        let mut found = found.into_iter();
        let mut next = || found.next().flatten();
        let (record, done, fence, incarnation) = (next(), next(), next(), next());
        let corrupt = |field: Field<'_>, error: RedoError| StoreError::Corrupt {
            key: self.options.control_key.clone(),
            reason: format!("{}: {error}", readable(&field.name())),
        };
        let mut branch =
            StoredBranch { state: BranchState::Aborted, in_doubt: None, written: None };
        if let Some(record) = record {
            let record = StagedRecord::read(&record);
            let record = record.map_err(|error| corrupt(Field::Staged(txid), error))?;
            branch.state = BranchState::Prepared;
            branch.in_doubt = Some(InDoubt::new(txid, record));
        } else if let Some(done) = done {
            let marker = done_marker(&done);
            let marker = marker.map_err(|error| corrupt(Field::Done(txid), error))?;
            let incarnation = incarnation.and_then(|it| control::number(&it));
            branch.state = BranchState::Applied;
            branch.written = incarnation.and_then(|it| marker.done(it).written);
        } else if fence.is_none() {
            return Ok(None);
        }
        Ok(Some(branch))
    }

    /// Drops the done-marker or fence of a branch, and who left it, on an operator's word: a late
    /// message about it then finds nothing. An agent that owns the Redis reads it anew.
    pub async fn forget(&self, txid: Txid) -> Result<(), StoreError> {
        let live = self.verified().await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("HDEL").arg(&self.options.control_key);
        pipeline.arg(&[Field::Done(txid), Field::Fence(txid), Field::ByHand(txid)]);
        pipeline.cmd("DEL").arg(self.owner_key());
        let forgotten: RedisResult<(u64, u64)> =
            pipeline.query_async(&mut live.connection.clone()).await;
        forgotten.map_err(|error| self.given_up(&live, &error))?;
        lock(&self.by_hand).remove(&txid);
        lock(&self.unlogged).forget(txid);
        self.disconnect(&live, "an operator changed what is kept");
        Ok(())
    }

    /// Up to `count_max` done-markers of implicit transactions that the lives of their coordinators
    /// left behind, with all branches.
    pub async fn left_behind(&self, count_max: usize) -> Result<Vec<(Txid, Branches)>, StoreError> {
        let live = self.live().await?;
        let mut markers: HashMap<Txid, Branches> = HashMap::new();
        let scanned = self.scan_markers(&live, pattern::DONE_AND_OF_LOGS, |field, value| {
            if let Field::Done(txid) = field
                && let Ok(DoneMarker::Implicit(branches)) = done_marker(&value)
            {
                markers.insert(txid, branches);
            }
        });
        let heard = scanned.await.map_err(|error| self.given_up(&live, &error))?;
        let is_left =
            |txid: &Txid| heard.get(&txid.log_id).is_some_and(|heard| heard.leaves_behind(*txid));
        Ok(markers.into_iter().filter(|(txid, _)| is_left(txid)).take(count_max).collect())
    }

    /// Drops such markers. Returns how many there were.
    pub async fn forget_left_behind(&self, txids: &[Txid]) -> Result<usize, StoreError> {
        let live = self.verified().await?;
        if live.stands_by_for.get().is_some() {
            return Ok(0);
        }
        let heard = lock(&self.markers).all_heard();
        let mut by_log: HashMap<LogId, Vec<Vec<u8>>> = HashMap::new();
        for txid in txids {
            by_log.entry(txid.log_id).or_default().push(Field::Done(*txid).name());
        }
        let deleted = self.sweep_fields(&live, &heard, by_log).await?;
        if deleted.is_some()
            && let Turn::Sole(owner) = &mut *live.turn.write().await
        {
            owner.forget(txids);
        }
        Ok(deleted.unwrap_or(0))
    }

    /// What is to be known of the store. Scans the control hash.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let live = self.live().await?;
        let mut facts = StoreFacts {
            version: live.server.id.to_string(),
            run_id: live.server.run_id.clone(),
            ..StoreFacts::default()
        };
        let scanned = self
            .scan(&live, pattern::ALL, |field, value| match Field::parse(field) {
                Some(Field::Incarnation) => facts.incarnation = control::number(&value),
                Some(Field::Seq) => facts.seq = control::number(&value).unwrap_or(0),
                Some(Field::Staged(_)) => facts.staged += 1,
                Some(Field::Lock(_)) => facts.locks += 1,
                Some(Field::Done(_)) => facts.done += 1,
                Some(Field::Fence(_)) => facts.fences += 1,
                _ => {}
            })
            .await;
        scanned.map_err(|error| self.given_up(&live, &error))?;
        Ok(facts)
    }

    /// The highest life of each log that spoke here.
    pub async fn epochs(&self) -> Result<BTreeMap<LogId, Epoch>, StoreError> {
        let live = self.live().await?;
        let heard = self.scan_markers(&live, pattern::MARKS, |_, _| {}).await;
        let heard = heard.map_err(|error| self.given_up(&live, &error))?;
        Ok(heard.into_iter().map(|(log_id, heard)| (log_id, heard.epoch)).collect())
    }

    /// Deletes the done-markers and fences below the low-water marks, also those of agents that are
    /// gone. Returns how many there were.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let live = self.verified().await?;
        self.take_turn(&live).await?;
        if live.stands_by_for.get().is_some() {
            return Ok(0);
        }
        self.sweep_on(&live).await
    }

    async fn sweep_on(&self, live: &Arc<Live>) -> Result<usize, StoreError> {
        let mut fields: Vec<(Txid, Vec<u8>, bool)> = Vec::new();
        let scanned = self.scan_markers(live, pattern::MARKERS_AND_OF_LOGS, |field, value| {
            let Some(txid) = field.txid() else { return };
            // What cannot be read may be one.
            let is_implicit = matches!(field, Field::Done(_))
                && done_marker(&value).map_or(true, |marker| marker.is_implicit());
            fields.push((txid, field.name(), is_implicit));
        });
        let heard = scanned.await.map_err(|error| self.given_up(live, &error))?;
        let mut by_log: HashMap<LogId, Vec<Vec<u8>>> = HashMap::new();
        for (txid, field, is_implicit) in fields {
            if heard.get(&txid.log_id).is_some_and(|heard| heard.lets_go(txid, is_implicit)) {
                by_log.entry(txid.log_id).or_default().push(field);
            }
        }
        Ok(self.sweep_fields(live, &heard, by_log).await?.unwrap_or(0))
    }

    /// Reads the other fields that the pattern has, and returns what was heard of each log,
    /// by this agent or by the hash: the pattern has its marks too.
    pub(super) async fn scan_markers(
        &self,
        live: &Live,
        pattern: &str,
        mut found: impl FnMut(Field<'_>, Vec<u8>),
    ) -> RedisResult<HashMap<LogId, Heard>> {
        let mut heard = lock(&self.markers).all_heard();
        self.scan(live, pattern, |field, value| match Field::parse(field) {
            // The hash may know more of a log than this agent, or less.
            Some(Field::Mark(log_id)) => {
                if let Some(stored) = read_mark(&value) {
                    let known = heard.entry(log_id).or_insert(stored);
                    *known = known.and(stored);
                }
            }
            Some(field) => found(field, value),
            None => {}
        })
        .await?;
        Ok(heard)
    }

    /// Has the owner delete markers of these logs, by what was heard of them. Returns how many
    /// there were; nothing if this agent does not own the Redis.
    async fn sweep_fields(
        &self,
        live: &Arc<Live>,
        heard: &HashMap<LogId, Heard>,
        by_log: HashMap<LogId, Vec<Vec<u8>>>,
    ) -> Result<Option<usize>, StoreError> {
        let mut deleted = 0;
        for (log_id, fields) in by_log {
            let Some(heard) = heard.get(&log_id) else { continue };
            for fields in fields.chunks(COLLECTED_PER_CALL_MAX) {
                let mut turn = live.turn.write().await;
                let Turn::Sole(owner) = &mut *turn else { return Ok(None) };
                match self.sweep_some(live, owner, (log_id, *heard), fields).await {
                    Ok(()) => deleted += fields.len(),
                    Err(Lost::Refused(_)) if owner.way() == WriteWay::Exec => {
                        self.go_by_script(live, owner).await?;
                        return Ok(None);
                    }
                    Err(Lost::Ownership(why) | Lost::Refused(why)) => {
                        self.disconnect(live, &why);
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(deleted))
    }
}
