//! What the control hash holds, for people, for the resolver and for health. Reads only, but for
//! the sweep.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use assent_common::ids::{Epoch, LogId, TransactionId, TxNumber, Txid};
use assent_common::outcome::Written;
use assent_common::participant::{Branches, DoneMarker, Heard};
use assent_common::value::{Arg, readable};
use assent_common::wire::branch::BranchState;
use redis::{RedisResult, Value};

use super::by_hand;
use super::call::{self, Head};
use super::connection::{INCARNATION, Live, unavailable};
use super::decode::{self, Rows};
use super::execute::send;
use super::markers::COLLECTED_PER_CALL_MAX;
use super::owner::Turn;
use super::packed::{Reader, RedoError, branches, done_marker};
use super::scripts::Script;
use super::{Store, StoreError, lock};

/// Fields that one HSCAN looks at.
const SCAN_COUNT: usize = 500;

/// The version of staged records that this code writes and reads.
pub(super) const RECORD_VERSION: i64 = 1;

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
    /// Its writes, as the vote carried them.
    pub redo: Vec<u8>,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
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

/// A staged record.
pub(super) struct Record {
    pub(super) id: TransactionId,
    pub(super) coordinator: String,
    pub(super) seq: u64,
    pub(super) keys: Vec<Arg>,
    /// How each key is locked, one letter each ([`assent_common::command::Access`]).
    pub(super) modes: Vec<u8>,
    pub(super) redo: Vec<u8>,
    pub(super) branches: Branches,
}

impl Record {
    fn in_doubt(self, txid: Txid) -> InDoubt {
        let Self { id, coordinator, seq, keys, redo, branches, .. } = self;
        InDoubt { txid, id, coordinator, seq, keys, redo, branches }
    }
}

/// Reads a staged record, but for its replies, which only the scripts give again.
pub(super) fn record(packed: &[u8]) -> Result<Record, RedoError> {
    let mut reader = Reader(packed);
    let foreign = RedoError::foreign;
    let length = reader.array()?;
    let is_known = reader.item()? == super::packed::Item::Int(RECORD_VERSION);
    if !is_known || !matches!(length, 8 | 9) {
        return Err(foreign());
    }
    let id = reader.text()?.parse().map_err(|_| foreign())?;
    let coordinator = reader.text()?.to_owned();
    let seq = reader.text()?.parse().map_err(|_| foreign())?;
    let keys = (0..reader.array()?)
        .map(|_| Ok(Arg(reader.bytes()?.to_vec())))
        .collect::<Result<_, RedoError>>()?;
    let modes = reader.bytes()?.to_vec();
    let redo = reader.bytes()?.to_vec();
    let branches = if length == 9 {
        let _replies = reader.bytes()?;
        branches(reader.bytes()?)?
    } else {
        Branches::default()
    };
    Ok(Record { id, coordinator, seq, keys, modes, redo, branches })
}

/// The txid in a field `s:<txid>`, `d:<txid>` or `a:<txid>`.
pub(super) fn txid_of(field: &[u8]) -> Option<Txid> {
    std::str::from_utf8(field.get(2..)?).ok()?.parse().ok()
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
            .scan(&live, "[hs]:*", |field, record| {
                if field.starts_with(b"h:") {
                    by_hand.extend(txid_of(field).zip(by_hand::read_back(&record)));
                    return;
                }
                let branch = txid_of(field).ok_or_else(RedoError::foreign);
                match branch.and_then(|txid| Ok((txid, self::record(&record)?))) {
                    Ok((txid, record)) => drop(branches.insert(txid, record.in_doubt(txid))),
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
            BranchState::Prepared => "s:*",
            BranchState::Applied => "d:*",
            BranchState::Aborted => "a:*",
        };
        let live = self.live().await?;
        let mut marked = BTreeSet::new();
        let scanned = self.scan(&live, pattern, |field, _| {
            // One more than is asked for says that there are more.
            if marked.len() <= count_max {
                marked.extend(txid_of(field));
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
        command.arg(format!("s:{txid}")).arg(format!("d:{txid}")).arg(format!("a:{txid}"));
        command.arg(INCARNATION);
        let value = send(&live, &command).await.map_err(|error| self.given_up(&live, &error))?;
        let found: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(value).map_err(|error| self.given_up(&live, &error.into()))?;
        let mut found = found.into_iter();
        let mut next = || found.next().flatten();
        let (record, done, fence, incarnation) = (next(), next(), next(), next());
        let corrupt = |kind: char, error: RedoError| StoreError::Corrupt {
            key: self.options.control_key.clone(),
            reason: format!("{kind}:{txid}: {error}"),
        };
        let mut branch =
            StoredBranch { state: BranchState::Aborted, in_doubt: None, written: None };
        if let Some(record) = record {
            let record = self::record(&record).map_err(|error| corrupt('s', error))?;
            branch.state = BranchState::Prepared;
            branch.in_doubt = Some(record.in_doubt(txid));
        } else if let Some(done) = done {
            let marker = done_marker(&done).map_err(|error| corrupt('d', error))?;
            let incarnation =
                incarnation.and_then(|it| std::str::from_utf8(&it).ok()?.parse().ok());
            branch.state = BranchState::Applied;
            branch.written = incarnation.and_then(|it| marker.done(it).written);
        } else if fence.is_none() {
            return Ok(None);
        }
        Ok(Some(branch))
    }

    /// Those of these branches of which something is kept.
    pub(super) async fn kept(&self, live: &Live, txids: &[Txid]) -> RedisResult<HashSet<Txid>> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.options.control_key);
        for txid in txids {
            command.arg(format!("s:{txid}")).arg(format!("d:{txid}")).arg(format!("a:{txid}"));
        }
        let found: Vec<Option<Vec<u8>>> = redis::from_redis_value(send(live, &command).await?)?;
        let kept = txids.iter().zip(found.chunks(3));
        Ok(kept.filter(|(_, fields)| fields.iter().any(Option::is_some)).map(|(t, _)| *t).collect())
    }

    /// Drops the done-marker or fence of a branch, and who left it, on an operator's word: a late
    /// message about it then finds nothing.
    pub async fn forget(&self, txid: Txid) -> Result<(), StoreError> {
        let live = self.verified().await?;
        let mut command = redis::cmd("HDEL");
        command.arg(&self.options.control_key).arg(format!("d:{txid}")).arg(format!("a:{txid}"));
        command.arg(format!("h:{txid}"));
        send(&live, &command).await.map_err(|error| self.given_up(&live, &error))?;
        lock(&self.by_hand).remove(&txid);
        self.disconnect(&live, "an operator changed what is kept");
        Ok(())
    }

    /// Up to `count_max` done-markers of implicit transactions that the lives of their coordinators
    /// left behind, with all branches.
    pub async fn left_behind(&self, count_max: usize) -> Result<Vec<(Txid, Branches)>, StoreError> {
        let live = self.live().await?;
        let mut markers: HashMap<Txid, Branches> = HashMap::new();
        let scanned = self.scan_markers(&live, "[dm]:*", |txid, field, value| {
            if field.starts_with(b"d:")
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
        let heard = lock(&self.markers).all_heard();
        let mut by_log: HashMap<LogId, Vec<Vec<u8>>> = HashMap::new();
        for txid in txids {
            by_log.entry(txid.log_id).or_default().push(format!("d:{txid}").into_bytes());
        }
        let deleted = self.sweep_fields(&live, &heard, by_log).await;
        let deleted = deleted.map_err(|error| self.given_up(&live, &error))?;
        // Where the scripts said no, this agent knows too little of the data to forget anything.
        if deleted.is_some()
            && let Turn::Sole(owner) = &mut *live.turn.write().await
        {
            owner.forget(txids);
        }
        Ok(deleted.unwrap_or(0))
    }

    /// The keys of those branches that are staged.
    pub(super) async fn staged_keys(
        &self,
        live: &Live,
        txids: &[Txid],
    ) -> RedisResult<Vec<(Txid, Vec<Arg>)>> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.options.control_key);
        for txid in txids {
            command.arg(format!("s:{txid}"));
        }
        let records: Vec<Option<Vec<u8>>> = redis::from_redis_value(send(live, &command).await?)?;
        let found = txids.iter().zip(records);
        Ok(found.filter_map(|(txid, packed)| Some((*txid, record(&packed?).ok()?.keys))).collect())
    }

    /// What is to be known of the store. Scans the control hash.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let live = self.live().await?;
        let mut facts = StoreFacts {
            version: live.server.id.to_string(),
            run_id: live.server.run_id.clone(),
            ..StoreFacts::default()
        };
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let scanned = self
            .scan(&live, "*", |field, value| match field {
                b"m:inc" => facts.incarnation = number(&value),
                b"m:seq" => facts.seq = number(&value).unwrap_or(0),
                [b's', b':', ..] => facts.staged += 1,
                [b'l', b':', ..] => facts.locks += 1,
                [b'd', b':', ..] => facts.done += 1,
                [b'a', b':', ..] => facts.fences += 1,
                _ => {}
            })
            .await;
        scanned.map_err(|error| self.given_up(&live, &error))?;
        Ok(facts)
    }

    /// The highest life of each log that spoke here.
    pub async fn epochs(&self) -> Result<BTreeMap<LogId, Epoch>, StoreError> {
        let live = self.live().await?;
        let heard = self.scan_markers(&live, "m:c:*", |_, _, _| {}).await;
        let heard = heard.map_err(|error| self.given_up(&live, &error))?;
        Ok(heard.into_iter().map(|(log_id, heard)| (log_id, heard.epoch)).collect())
    }

    /// Deletes the done-markers and fences below the low-water marks, also those of agents that are
    /// gone. Returns how many there were.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let live = self.verified().await?;
        self.take_turn(&live).await?;
        let swept = self.sweep_on(&live).await;
        swept.map_err(|error| self.given_up(&live, &error))
    }

    async fn sweep_on(&self, live: &Arc<Live>) -> RedisResult<usize> {
        let mut fields: Vec<(Txid, Vec<u8>, bool)> = Vec::new();
        let scanned = self.scan_markers(live, "[adm]:*", |txid, field, value| {
            let marker = field.starts_with(b"d:").then(|| done_marker(&value));
            // What cannot be read may be one.
            let is_implicit =
                marker.is_some_and(|marker| marker.map_or(true, |marker| marker.is_implicit()));
            fields.push((txid, field.to_vec(), is_implicit));
        });
        let heard = scanned.await?;
        let mut by_log: HashMap<LogId, Vec<Vec<u8>>> = HashMap::new();
        for (txid, field, is_implicit) in fields {
            if heard.get(&txid.log_id).is_some_and(|heard| heard.lets_go(txid, is_implicit)) {
                by_log.entry(txid.log_id).or_default().push(field);
            }
        }
        Ok(self.sweep_fields(live, &heard, by_log).await?.unwrap_or(0))
    }

    /// Reads the fields of branches that the pattern has, and returns what was heard of each log,
    /// by this agent or by the hash: the pattern has its marks too.
    async fn scan_markers(
        &self,
        live: &Live,
        pattern: &str,
        mut found: impl FnMut(Txid, &[u8], Vec<u8>),
    ) -> RedisResult<HashMap<LogId, Heard>> {
        let mut heard = lock(&self.markers).all_heard();
        self.scan(live, pattern, |field, value| {
            if let Some(log_id) = field.strip_prefix(b"m:c:") {
                hear_stored(&mut heard, log_id, &value);
            } else if let Some(txid) = txid_of(field) {
                found(txid, field, value);
            }
        })
        .await?;
        Ok(heard)
    }

    /// Has the script delete markers of these logs, by what was heard of them. Returns how many
    /// there were; nothing if the data, or the Redis, is another's by now.
    async fn sweep_fields(
        &self,
        live: &Arc<Live>,
        heard: &HashMap<LogId, Heard>,
        by_log: HashMap<LogId, Vec<Vec<u8>>>,
    ) -> RedisResult<Option<usize>> {
        if self.scripts.digest(Script::Sweep).is_none() && !by_log.is_empty() {
            self.load(live, Script::Sweep).await?;
        }
        let mut deleted = 0;
        for (log_id, fields) in by_log {
            let heard = heard.get(&log_id);
            for fields in fields.chunks(COLLECTED_PER_CALL_MAX) {
                // Nobody else writes between the script and what the owner is told of it.
                let mut turn = live.turn.write().await;
                let head = Head {
                    control_key: &self.options.control_key,
                    owner_key: self.owner_key(),
                    incarnation: self.incarnation(),
                    owner: turn.owner(),
                    log_id,
                    epoch: heard.map_or(Epoch(0), |heard| heard.epoch),
                    low_water: heard.map(|heard| heard.low_water),
                    told: 0,
                    collected: Vec::new(),
                };
                let Some(count) = self.sweep_some(live, &head, fields).await? else {
                    return Ok(None);
                };
                deleted += count;
                if let (Turn::Sole(owner), Some(heard)) = (&mut *turn, heard) {
                    owner.is_kept(log_id, *heard);
                }
            }
        }
        Ok(Some(deleted))
    }

    async fn sweep_some(
        &self,
        live: &Arc<Live>,
        head: &Head<'_>,
        fields: &[Vec<u8>],
    ) -> RedisResult<Option<usize>> {
        let digest = self.scripts.digest(Script::Sweep).unwrap_or_default();
        let command = call::sweep(&digest, head, fields);
        let mut result = send(live, &command).await;
        if result.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            self.load(live, Script::Sweep).await?;
            result = send(live, &command).await;
        }
        match decode::rows(result?) {
            Rows::Each(items) => match items.get(1) {
                Some(Value::Int(count)) => Ok(Some(usize::try_from(*count).unwrap_or(0))),
                _ => Ok(None),
            },
            Rows::OtherOwner(found) => {
                self.disconnect(live, &format!("the owner of this Redis is now {found:?}"));
                Ok(None)
            }
            Rows::OtherIncarnation(_) | Rows::Unreadable => Ok(None),
        }
    }
}

/// Adds what a field `m:c:<log id>` says to what was heard: the hash may know more than this agent,
/// or less.
fn hear_stored(heard: &mut HashMap<LogId, Heard>, log_id: &[u8], value: &[u8]) {
    if let Some((log_id, stored)) = stored_mark(log_id, value) {
        let known = heard.entry(log_id).or_insert(stored);
        *known = known.and(stored);
    }
}

/// What a field `m:c:<log id>` says of a log.
pub(super) fn stored_mark(log_id: &[u8], value: &[u8]) -> Option<(LogId, Heard)> {
    let log_id = std::str::from_utf8(log_id).ok()?.parse().ok()?;
    let mut numbers = std::str::from_utf8(value).ok()?.split(' ').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let epoch = Epoch(number()?);
    let low_water = TxNumber { epoch: Epoch(number()?), n: number()? };
    Some((log_id, Heard { epoch, low_water }))
}
