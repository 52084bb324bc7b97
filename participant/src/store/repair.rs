//! Repair of fenced data, from what the logs say they committed (invariants 9, 12).
//!
//! Every log that has ever spoken here owes its word. The words are kept until the last one is
//! there, because redoing in the order of the votes needs all of them; then the data is made whole
//! and opened under a new incarnation. Everything is idempotent: an agent that dies half-way leaves
//! fenced data, and is told again. `Participant::repair` in `common` is the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId, Txid};
use assent_common::outcome::{Call, Refusal};
use assent_common::participant::{Found, Heard, UnloggedBranch, opening_seq};
use assent_common::value::Arg;
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{
    DataPoint, DataView, FoundData, Hole, RedoBranch, Resync, Resynced, Served, StagedView,
};
use redis::{Cmd, RedisResult, Value};

use super::call::{self, BRANCHES_PER_CALL_MAX, BYTES_PER_CALL_MAX, Head, RedoItem};
use super::connection::{FENCED, Live, claim, identity, new_incarnation};
use super::control::{self, Field, one_phase_marker, pattern, read_mark};
use super::decode::{self, Rows};
use super::execute::{report_dirty, send};
use super::inspect::InDoubt;
use super::mutants;
use super::packed::decode_redo;
use super::scripts::Script;
use super::{Store, StoreError, lock};

/// What logs have said of the data that was found like this.
#[derive(Debug, Default)]
pub(super) struct Words {
    found: Option<FoundData>,
    logs: BTreeMap<LogId, Word>,
}

/// What one log has said.
#[derive(Debug)]
struct Word {
    heard: Heard,
    known: Option<DataPoint>,
    redo: Vec<RedoBranch>,
    parts: u32,
    whole: bool,
}

/// A committed branch, and how it is applied.
enum Step {
    /// It is staged in the data: by its record.
    Commit(InDoubt),
    /// The data lost it: by its writes.
    Redo(RedoBranch),
    /// The same, of one phase that its log has not heard of: with its done-marker.
    Unlogged(RedoBranch, Arc<[u8]>),
}

impl Step {
    fn seq(&self) -> (u64, Txid) {
        match self {
            Self::Commit(branch) => (branch.seq, branch.txid),
            Self::Redo(branch) | Self::Unlogged(branch, _) => (branch.seq, branch.txid),
        }
    }

    const fn is_redo(&self) -> bool {
        matches!(self, Self::Redo(_) | Self::Unlogged(..))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Commit(_) => 0,
            Self::Redo(branch) => branch.redo.0.len(),
            Self::Unlogged(branch, marker) => branch.redo.0.len() + marker.len(),
        }
    }
}

impl Words {
    /// Adds a part of a word.
    fn add(&mut self, part: Resync) -> Result<(), Refusal> {
        let Resync { coordinator, low_water, found, known, part, last, redo, .. } = part;
        if self.found != Some(found) {
            *self = Self { found: Some(found), logs: BTreeMap::new() };
        }
        let heard = Heard { epoch: coordinator.epoch, low_water };
        let fresh = || Word { heard, known, redo: Vec::new(), parts: 0, whole: false };
        let word = self.logs.entry(coordinator.log_id).or_insert_with(fresh);
        if part == 0 {
            *word = fresh();
        }
        if part != word.parts || heard.epoch != word.heard.epoch {
            let detail =
                format!("part {part} arrived where part {} was due; begin again", word.parts);
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        word.parts += 1;
        word.whole = last;
        word.redo.extend(redo);
        Ok(())
    }

    fn owed(&self, logs: BTreeSet<LogId>) -> Vec<LogId> {
        let begun: BTreeSet<LogId> = self.logs.keys().copied().collect();
        logs.union(&begun).filter(|log_id| !self.is_whole(**log_id)).copied().collect()
    }

    fn is_whole(&self, log_id: LogId) -> bool {
        self.logs.get(&log_id).is_some_and(|word| word.whole)
    }

    /// The logs that have said all.
    fn whole(&self) -> impl Iterator<Item = (&LogId, &Word)> {
        self.logs.iter().filter(|(_, word)| word.whole)
    }
}

impl Store {
    /// What the data is now.
    pub async fn data(&self) -> Result<DataView, StoreError> {
        let words = self.words.lock().await;
        let live = self.live().await?;
        self.view(&live, &words).await
    }

    async fn view(&self, live: &Live, words: &Words) -> Result<DataView, StoreError> {
        let identity = identity(live, &self.options.control_key).await;
        let found = identity.map_err(|error| self.unavailable(&error))?;
        let Found { incarnation, seq, .. } = found;
        let fenced = incarnation == Some(FENCED);
        let served = self.served(live, incarnation).await?;
        let open = DataView {
            incarnation,
            seq,
            view: self.view.load(Ordering::Acquire),
            fenced,
            reason: self.is_quarantined(),
            owed: Vec::new(),
            staged: Vec::new(),
            served,
            hole: None,
        };
        if !fenced {
            return Ok(open);
        }
        let mut command = redis::cmd("HGET");
        command.arg(&self.options.control_key).arg(Field::Was);
        let was: RedisResult<Option<String>> =
            command.query_async(&mut live.connection.clone()).await;
        let was = was.map_err(|error| self.unavailable(&error))?;
        let was = was.and_then(|was| was.parse().ok());
        let staged = self.in_doubt().await?.into_iter();
        Ok(DataView {
            incarnation: was,
            owed: words.owed(self.logs_heard(live).await?),
            staged: staged.map(|it| StagedView { txid: it.txid, seq: it.seq }).collect(),
            hole: self.hole(live, was, found).await?,
            ..open
        })
    }

    /// What lacks inside the history of fenced data, if something does; `was` is its incarnation.
    async fn hole(
        &self,
        live: &Live,
        was: Option<u64>,
        found: Found,
    ) -> Result<Option<Hole>, StoreError> {
        if !found.has_hole() {
            return Ok(None);
        }
        let Found { ended, expected, .. } = found;
        // What went with the last end is known to those who saw it.
        let seen = if was == Some(self.incarnation()) { self.known().ended } else { 0 };
        let expected = expected.max(seen);
        let mut hole = Hole { ended, expected, done: Vec::new(), marks: Vec::new() };
        let scanned = self
            .scan(live, pattern::DONE_AND_OF_LOGS, |field, value| match Field::parse(field) {
                Some(Field::Mark(log_id)) => {
                    hole.marks.extend(read_mark(&value).map(|heard| heard.mark(log_id)));
                }
                Some(Field::Done(txid)) => hole.done.push(txid),
                _ => {}
            })
            .await;
        scanned.map_err(|error| self.unavailable(&error))?;
        Ok(Some(hole))
    }

    /// The logs whose word the last repair took. Written with the incarnation, and with nothing
    /// else, so that one look is enough for data that is open.
    async fn served(
        &self,
        live: &Live,
        incarnation: Option<u64>,
    ) -> Result<Vec<Served>, StoreError> {
        let is_open = incarnation.is_some_and(|incarnation| incarnation != FENCED);
        if let Some((of, served)) = &*lock(&self.served)
            && is_open
            && Some(*of) == incarnation
        {
            return Ok(served.clone());
        }
        let mut served = Vec::new();
        let scanned = self
            .scan(live, pattern::SERVED, |field, value| {
                if let Some(Field::Served(log_id)) = Field::parse(field)
                    && let Some(incarnation) = control::number(&value)
                {
                    served.push(Served { log_id, incarnation });
                }
            })
            .await;
        scanned.map_err(|error| self.unavailable(&error))?;
        if is_open && self.incarnation_is_still(live, incarnation).await? {
            *lock(&self.served) = incarnation.map(|incarnation| (incarnation, served.clone()));
        }
        Ok(served)
    }

    /// Whether a repair came between the reading of the incarnation and what was read behind it.
    async fn incarnation_is_still(
        &self,
        live: &Live,
        incarnation: Option<u64>,
    ) -> Result<bool, StoreError> {
        let now = identity(live, &self.options.control_key).await;
        Ok(now.map_err(|error| self.unavailable(&error))?.incarnation == incarnation)
    }

    /// Every log that has spoken here, as the data or this agent remembers.
    async fn logs_heard(&self, live: &Live) -> Result<BTreeSet<LogId>, StoreError> {
        let mut logs: BTreeSet<LogId> = lock(&self.markers).all_heard().into_keys().collect();
        let scanned = self
            .scan(live, pattern::MARKS, |field, _| {
                if let Some(Field::Mark(log_id)) = Field::parse(field) {
                    logs.insert(log_id);
                }
            })
            .await;
        scanned.map_err(|error| self.unavailable(&error))?;
        Ok(logs)
    }

    /// Takes a part of what a log says; with the last part of the last log that is owed, repairs
    /// and opens the data.
    pub async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        let unavailable = |error: StoreError| error.refusal();
        let mut words = self.words.lock().await;
        let live = self.verified().await.map_err(unavailable)?;
        let view = self.view(&live, &words).await.map_err(unavailable)?;
        if !view.fenced {
            // Open without this word, because the fence was lost or the data had forgotten the log:
            // whoever takes that for a repair forgets what it lost.
            if part.known.is_some_and(|known| !view.has_served(part.coordinator.log_id, known)) {
                let detail = "the data is open, and did not use this report; look again";
                return Err(Refusal::new(ErrorCode::WrongState, detail));
            }
            let incarnation = view.incarnation.unwrap_or_default();
            let open = Some(DataPoint { incarnation, seq: view.seq });
            return Ok(Resynced { open, owed: Vec::new(), redone: 0 });
        }
        if part.found != view.found() {
            let detail = "the data is not what the coordinator was shown; look again";
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        let (last, alone) = (part.last, part.alone);
        words.add(part)?;
        let owed = words.owed(self.logs_heard(&live).await.map_err(unavailable)?);
        if !last || !(owed.is_empty() || alone) {
            return Ok(Resynced { open: None, owed, redone: 0 });
        }
        if view.hole.is_some() {
            lock(&self.unlogged).may_lack_up_to(view.seq);
        }
        let repaired = self.repair(&live, &words).await;
        let (open, redone) = repaired.map_err(|why| {
            Refusal::new(ErrorCode::RedisUnavailable, format!("the repair stopped: {why}"))
        })?;
        *words = Words::default();
        self.view.store(new_incarnation(), Ordering::Release);
        Ok(Resynced { open: Some(open), owed: Vec::new(), redone })
    }

    /// Makes the data whole, and opens it. Returns the data, and how many branches were applied.
    async fn repair(&self, live: &Live, words: &Words) -> Result<(DataPoint, u64), String> {
        let staged = self.in_doubt().await.map_err(|error| error.to_string())?;
        let (mut steps, undecided) = steps(staged, words);
        self.add_unlogged(&mut steps, words)?;
        steps.sort_by_key(Step::seq);
        let redone = steps.len() as u64;
        for script in [Script::Commit, Script::Abort, Script::Redo] {
            self.load(live, script).await.map_err(|error| error.to_string())?;
        }
        for steps in calls(steps) {
            self.redo(live, &steps, words.found.map_or(0, |found| found.seq)).await?;
        }
        for branches in undecided.chunks(BRANCHES_PER_CALL_MAX) {
            self.end(live, Script::Abort, branches).await?;
        }
        let mut seq = self.seq_seen.load(Ordering::Acquire);
        seq = seq.max(words.found.map_or(0, |found| found.seq));
        for (log_id, word) in words.whole() {
            let head = Head { epoch: word.heard.epoch, ..self.head_of_fenced(*log_id) };
            let head = Head { low_water: Some(word.heard.low_water), ..head };
            let digest = self.scripts.digest(Script::Abort).unwrap_or_default();
            self.run_fenced(live, &call::outcome(&digest, &head, &[], std::iter::empty())).await?;
            seq = seq.max(word.known.map_or(0, |known| known.seq));
        }
        let seq = opening_seq(seq);
        let open = self.open(live, seq, words).await.map_err(|error| error.to_string())?;
        claim(live, &self.options).await.map_err(|error| error.to_string())?;
        tracing::warn!(redone, undecided = undecided.len(), "the data is repaired from the logs");
        lock(&self.unlogged).opened(open);
        self.adopt(open).await;
        Ok((open, redone))
    }

    /// Adds what the data lacks of one phase, and no log has said.
    fn add_unlogged(&self, steps: &mut Vec<Step>, words: &Words) -> Result<(), String> {
        if !mutants::repairs_unlogged() {
            return Ok(());
        }
        let said: BTreeSet<Txid> = steps.iter().map(|step| step.seq().1).collect();
        let mut unlogged = lock(&self.unlogged);
        for (log_id, word) in words.whole() {
            unlogged.let_go(*log_id, word.heard.low_water);
        }
        let found = words.found.map_or(0, |found| found.seq);
        let known = |log_id| words.logs.get(&log_id)?.known;
        for (txid, UnloggedBranch { seq, marker, .. }) in unlogged.lacking(found, known) {
            if said.contains(&txid) {
                continue;
            }
            let kept = one_phase_marker(marker);
            let kept = kept.map_err(|error| format!("the marker of {txid}: {error}"))?;
            let redo = Base64(kept.wrote.map_or_else(|| [].into(), |(_, redo)| redo));
            tracing::warn!(%txid, seq, "applied in one phase, and in no log yet: it is put back");
            steps.push(Step::Unlogged(RedoBranch { txid, seq: *seq, redo }, Arc::clone(marker)));
        }
        Ok(())
    }

    fn head_of_fenced(&self, log_id: LogId) -> Head<'_> {
        Head {
            control_key: &self.options.control_key,
            owner_key: self.owner_key(),
            incarnation: FENCED,
            owner: "",
            log_id,
            epoch: Epoch(0),
            low_water: None,
            told: None,
            collected: Vec::new(),
        }
    }

    /// Applies committed branches, of one call, to data whose last vote has this number.
    async fn redo(&self, live: &Live, steps: &[Step], seq: u64) -> Result<(), String> {
        let mut staged = Vec::new();
        let mut lost = Vec::new();
        for step in steps {
            match step {
                Step::Commit(branch) => staged.push(branch.clone()),
                Step::Redo(branch) => lost.push((branch, &[][..])),
                Step::Unlogged(branch, marker) => lost.push((branch, &**marker)),
            }
        }
        if lost.is_empty() {
            return self.end(live, Script::Commit, &staged).await;
        }
        let mut keys: BTreeSet<Arg> = BTreeSet::new();
        for (branch, _) in &lost {
            let writes = decode_redo(&branch.redo.0);
            let writes =
                writes.map_err(|error| format!("the writes of {}: {error}", branch.txid))?;
            keys.extend(writes.into_iter().filter_map(|write| write.into_iter().nth(1)));
        }
        let keys: Vec<Arg> = keys.into_iter().collect();
        let branches = lost.iter().map(|(branch, marker)| RedoItem {
            txid: branch.txid,
            writes: &branch.redo.0,
            fills: branch.seq <= seq,
            marker,
        });
        let branches: Vec<RedoItem<'_>> = branches.collect();
        let Some(first) = branches.first() else { return Ok(()) };
        let digest = self.scripts.digest(Script::Redo).unwrap_or_default();
        let head = self.head_of_fenced(first.txid.log_id);
        let command = call::redo(&digest, &head, &keys, &branches);
        let rows = self.run_fenced(live, &command).await?;
        for (branch, row) in branches.into_iter().zip(rows) {
            applied(branch.txid, row)?;
        }
        Ok(())
    }

    /// Ends branches that are staged, by the script of their outcome.
    async fn end(&self, live: &Live, script: Script, branches: &[InDoubt]) -> Result<(), String> {
        let Some(first) = branches.first() else { return Ok(()) };
        let keys: Vec<&Arg> = branches.iter().flat_map(|branch| &branch.keys).collect();
        let txids = branches.iter().map(|branch| branch.txid);
        let digest = self.scripts.digest(script).unwrap_or_default();
        let head = self.head_of_fenced(first.txid.log_id);
        let command = call::outcome(&digest, &head, &keys, txids.clone());
        let rows = self.run_fenced(live, &command).await?;
        if script == Script::Commit {
            for (txid, row) in txids.zip(rows) {
                applied(txid, row)?;
            }
        }
        Ok(())
    }

    async fn run_fenced(&self, live: &Live, command: &Cmd) -> Result<Vec<Value>, String> {
        let value = send(live, command).await.map_err(|error| error.to_string())?;
        match decode::rows(value) {
            Rows::Each(rows) => Ok(rows),
            Rows::OtherIncarnation(found) => Err(format!("the data is of incarnation {found}")),
            Rows::OtherOwner(found) => Err(format!("agent {} owns this Redis", found.connection())),
            Rows::Unreadable => Err("the script's answer cannot be read".to_owned()),
        }
    }

    async fn open(&self, live: &Live, seq: u64, words: &Words) -> RedisResult<DataPoint> {
        let mut command = redis::cmd("EVAL");
        command.arg(Script::Open.source()).arg(1).arg(&self.options.control_key);
        command.arg(new_incarnation()).arg(seq);
        for (log_id, word) in words.whole() {
            let known = word.known.map_or(0, |known| known.incarnation);
            command.arg(Field::Served(*log_id)).arg(known);
        }
        let (incarnation, seq): (u64, u64) =
            command.query_async(&mut live.connection.clone()).await?;
        Ok(DataPoint { incarnation, seq })
    }
}

/// What the logs say is to be applied, and what is staged and was not committed.
fn steps(staged: Vec<InDoubt>, words: &Words) -> (Vec<Step>, Vec<InDoubt>) {
    let mut staged: BTreeMap<Txid, InDoubt> =
        staged.into_iter().map(|branch| (branch.txid, branch)).collect();
    let committed = words.whole().flat_map(|(_, word)| &word.redo);
    let steps = committed
        .map(|branch| match staged.remove(&branch.txid) {
            Some(staged) => Step::Commit(staged),
            None => Step::Redo(branch.clone()),
        })
        .collect();
    // What is of a log that has not spoken stays in doubt.
    let undecided = staged.into_values().filter(|branch| words.is_whole(branch.txid.log_id));
    (steps, undecided.collect())
}

/// Cuts the steps into calls of bounded work, each of one kind, in order.
fn calls(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut calls: Vec<Vec<Step>> = Vec::new();
    let mut bytes = 0;
    for step in steps {
        bytes += step.bytes();
        match calls.last_mut() {
            Some(call)
                if call.len() < BRANCHES_PER_CALL_MAX
                    && call[0].is_redo() == step.is_redo()
                    && bytes <= BYTES_PER_CALL_MAX =>
            {
                call.push(step);
            }
            _ => {
                bytes = step.bytes();
                calls.push(vec![step]);
            }
        }
    }
    calls
}

fn applied(txid: Txid, row: Value) -> Result<(), String> {
    match decode::applied(row) {
        (Call::Applied(applied), first_error) => {
            if applied.dirty_writes > 0 {
                report_dirty(txid, &applied, first_error.as_deref());
            }
            Ok(())
        }
        (Call::Refused(refusal), _) => Err(format!("{txid}: {}", refusal.detail)),
        (Call::Unknown(why), _) => Err(format!("{txid}: {why}")),
    }
}
