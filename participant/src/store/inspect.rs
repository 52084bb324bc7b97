//! What the control hash holds, for people, for the resolver and for health: reads, the sweep, and
//! what operators decided by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use assent_common::ids::{Epoch, LogId, Txid};
use assent_common::outcome::Written;
use assent_common::participant::{Branches, DoneMarker, Heard};
use assent_common::value::readable;
use assent_common::wire::branch::BranchState;
use redis::RedisResult;

use super::control::{self, ByHand, Field, StagedRecord, done_marker, pattern};
use super::in_doubt::{InDoubt, in_doubt};
use super::link::Live;
use super::markers::COLLECTED_PER_CALL_MAX;
use super::owner::{Lost, Rounds, Turn, WriteWay, go_by_script};
use super::packed::RedoError;
use super::{Store, StoreError};
use crate::mutex::lock;

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
    /// The keys that they lock.
    pub locks: usize,
    /// Done-markers.
    pub done: usize,
    /// Fences.
    pub fences: usize,
}

impl Store {
    /// Every branch in doubt.
    pub async fn in_doubt(&self) -> Result<Vec<InDoubt>, StoreError> {
        let live = self.link.live().await?;
        let (branches, by_hand) = in_doubt(&self.link, &live).await?;
        *lock(&self.by_hand) = by_hand;
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
        let live = self.link.live().await?;
        let mut marked = BTreeSet::new();
        let scanned = live.connection.scan(pattern, |field, _| {
            // One more than is asked for says that there are more.
            if marked.len() <= count_max {
                marked.extend(Field::parse(field).and_then(Field::txid));
            }
        });
        scanned.await.map_err(|error| self.link.given_up(&live, &error))?;
        let more = marked.len() > count_max;
        Ok((marked.into_iter().take(count_max).collect(), more))
    }

    /// What is kept of one branch, if anything.
    pub async fn branch(&self, txid: Txid) -> Result<Option<StoredBranch>, StoreError> {
        let live = self.link.live().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(live.connection.control_key());
        command.arg(&Field::of_branch(txid)).arg(Field::Incarnation);
        let found = live.connection.ask(&command).await;
        let found: Vec<Option<Vec<u8>>> =
            found.map_err(|error| self.link.given_up(&live, &error))?;
        let mut found = found.into_iter();
        let mut next = || found.next().flatten();
        let (record, done, fence, incarnation) = (next(), next(), next(), next());
        let corrupt = |field: Field<'_>, error: RedoError| {
            live.connection.corrupt(format!("{}: {error}", readable(&field.name())))
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
        let live = self.link.verified().await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("HDEL").arg(live.connection.control_key());
        pipeline.arg(&[Field::Done(txid), Field::Fence(txid), Field::ByHand(txid)]);
        pipeline.cmd("DEL").arg(live.connection.owner_key());
        let forgotten: RedisResult<(u64, u64)> = live.connection.ask_all(&pipeline).await;
        forgotten.map_err(|error| self.link.given_up(&live, &error))?;
        lock(&self.by_hand).remove(&txid);
        lock(&self.link.data.unlogged).forget(txid);
        self.link.give_up(&live, "an operator changed what is kept");
        Ok(())
    }

    /// Up to `count_max` done-markers of implicit transactions that the lives of their coordinators
    /// left behind, with all branches.
    pub async fn left_behind(&self, count_max: usize) -> Result<Vec<(Txid, Branches)>, StoreError> {
        let live = self.link.live().await?;
        let mut markers: HashMap<Txid, Branches> = HashMap::new();
        let scanned = self.link.data.scan_markers(
            &live.connection,
            pattern::DONE_AND_OF_LOGS,
            |field, value| {
                if let Field::Done(txid) = field
                    && let Ok(DoneMarker::Implicit(branches)) = done_marker(&value)
                {
                    markers.insert(txid, branches);
                }
            },
        );
        let heard = scanned.await.map_err(|error| self.link.given_up(&live, &error))?;
        let is_left =
            |txid: &Txid| heard.get(&txid.log_id).is_some_and(|heard| heard.leaves_behind(*txid));
        Ok(markers.into_iter().filter(|(txid, _)| is_left(txid)).take(count_max).collect())
    }

    /// Drops such markers. Returns how many there were.
    pub async fn forget_left_behind(&self, txids: &[Txid]) -> Result<usize, StoreError> {
        let live = self.link.verified().await?;
        if live.stands_by_for().is_some() {
            return Ok(0);
        }
        let heard = lock(&self.link.data.markers).all_heard();
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
        let live = self.link.live().await?;
        let mut facts = StoreFacts {
            version: live.connection.server.id.to_string(),
            run_id: live.connection.server.run_id.clone(),
            ..StoreFacts::default()
        };
        let mut locked = HashSet::new();
        let scanned =
            live.connection.scan(pattern::ALL, |field, value| match Field::parse(field) {
                Some(Field::Incarnation) => facts.incarnation = control::number(&value),
                Some(Field::Seq) => facts.seq = control::number(&value).unwrap_or(0),
                Some(Field::Staged(_)) => {
                    facts.staged += 1;
                    locked.extend(StagedRecord::read(&value).into_iter().flat_map(|it| it.keys));
                }
                Some(Field::Done(_)) => facts.done += 1,
                Some(Field::Fence(_)) => facts.fences += 1,
                _ => {}
            });
        scanned.await.map_err(|error| self.link.given_up(&live, &error))?;
        facts.locks = locked.len();
        Ok(facts)
    }

    /// The highest life of each log that spoke here.
    pub async fn epochs(&self) -> Result<BTreeMap<LogId, Epoch>, StoreError> {
        let live = self.link.live().await?;
        let heard = self.link.data.scan_markers(&live.connection, pattern::MARKS, |_, _| {}).await;
        let heard = heard.map_err(|error| self.link.given_up(&live, &error))?;
        Ok(heard.into_iter().map(|(log_id, heard)| (log_id, heard.epoch)).collect())
    }

    /// Deletes the done-markers and fences below the low-water marks, also those of agents that are
    /// gone. Returns how many there were.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let live = self.link.verified().await?;
        self.link.take_turn(&live).await?;
        if live.stands_by_for().is_some() {
            return Ok(0);
        }
        self.sweep_on(&live).await
    }

    async fn sweep_on(&self, live: &Live) -> Result<usize, StoreError> {
        let mut fields: Vec<(Txid, Vec<u8>, bool)> = Vec::new();
        let scanned = self.link.data.scan_markers(
            &live.connection,
            pattern::MARKERS_AND_OF_LOGS,
            |field, value| {
                let Some(txid) = field.txid() else { return };
                // What cannot be read may be one.
                let is_implicit = matches!(field, Field::Done(_))
                    && done_marker(&value).map_or(true, |marker| marker.is_implicit());
                fields.push((txid, field.name(), is_implicit));
            },
        );
        let heard = scanned.await.map_err(|error| self.link.given_up(live, &error))?;
        let mut by_log: HashMap<LogId, Vec<Vec<u8>>> = HashMap::new();
        for (txid, field, is_implicit) in fields {
            if heard.get(&txid.log_id).is_some_and(|heard| heard.lets_go(txid, is_implicit)) {
                by_log.entry(txid.log_id).or_default().push(field);
            }
        }
        Ok(self.sweep_fields(live, &heard, by_log).await?.unwrap_or(0))
    }

    /// Has the owner delete markers of these logs, by what was heard of them. Returns how many
    /// there were; nothing if this agent does not own the Redis.
    async fn sweep_fields(
        &self,
        live: &Live,
        heard: &HashMap<LogId, Heard>,
        by_log: HashMap<LogId, Vec<Vec<u8>>>,
    ) -> Result<Option<usize>, StoreError> {
        let mut deleted = 0;
        for (log_id, fields) in by_log {
            let Some(heard) = heard.get(&log_id) else { continue };
            for fields in fields.chunks(COLLECTED_PER_CALL_MAX) {
                let mut turn = live.turn.write().await;
                let Turn::Sole(owner) = &mut *turn else { return Ok(None) };
                let (connection, data) = (&live.connection, &self.link.data);
                let mut rounds = Rounds { connection, data, owner };
                match rounds.sweep_some((log_id, *heard), fields).await {
                    Ok(()) => deleted += fields.len(),
                    Err(Lost::Refused(_)) if owner.way() == WriteWay::Exec => {
                        go_by_script(connection, data, owner).await?;
                        return Ok(None);
                    }
                    Err(Lost::Ownership(why) | Lost::Refused(why)) => {
                        self.link.give_up(live, &why);
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(deleted))
    }

    /// Keeps what an operator decides of a branch, beside the marks that it leaves, which do not
    /// tell who left them. Before the branch is ended, so that none is ended by hand without it; a
    /// crash between leaves it beside a branch that is still staged, where nobody asks for it.
    pub async fn keep_by_hand(&self, txid: Txid, by_hand: &ByHand) -> Result<(), StoreError> {
        let value = by_hand.value();
        let live = self.link.verified().await?;
        let mut command = redis::cmd("HSET");
        command.arg(live.connection.control_key()).arg(Field::ByHand(txid)).arg(value);
        let sent = live.connection.send(&command).await;
        sent.map_err(|error| self.link.given_up(&live, &error))?;
        lock(&self.by_hand).insert(txid, by_hand.clone());
        Ok(())
    }

    /// What operators decided of these branches.
    pub async fn by_hand(&self, txids: &[Txid]) -> Result<HashMap<Txid, ByHand>, StoreError> {
        let live = self.link.live().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(live.connection.control_key());
        for txid in txids {
            command.arg(Field::ByHand(*txid));
        }
        let found: RedisResult<Vec<Option<Vec<u8>>>> = live.connection.ask(&command).await;
        let found = found.map_err(|error| self.link.given_up(&live, &error))?;
        let found = txids.iter().zip(found);
        Ok(found.filter_map(|(txid, text)| Some((*txid, ByHand::read(&text?)?))).collect())
    }

    /// Drops what an operator decided of a branch: its log says the same, or another operator has
    /// seen to it.
    pub async fn forget_by_hand(&self, txid: Txid) -> Result<(), StoreError> {
        let live = self.link.verified().await?;
        let mut command = redis::cmd("HDEL");
        command.arg(live.connection.control_key()).arg(Field::ByHand(txid));
        let sent = live.connection.send(&command).await;
        sent.map_err(|error| self.link.given_up(&live, &error))?;
        lock(&self.by_hand).remove(&txid);
        Ok(())
    }

    /// What operators decided, as the last look for branches in doubt has found it.
    #[must_use]
    pub fn all_by_hand(&self) -> BTreeMap<Txid, ByHand> {
        lock(&self.by_hand).clone()
    }
}
