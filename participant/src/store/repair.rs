//! Repair of fenced data, from what the logs say they committed (invariants 9, 12).
//!
//! What is owed and what a repair does is `common`'s `participant::Reports` to say; here the data
//! is read and shown, and a plan is carried out. Everything is idempotent: an agent that dies
//! half-way leaves fenced data, and is told again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId, Txid};
use assent_common::outcome::{Call, Redo, Refusal};
use assent_common::participant::{
    Found, Heard, RedoBy, RepairPlan, RepairStep, ReportTaken, Reports,
};
use assent_common::value::Arg;
use assent_common::wire::resync::{
    DataPoint, DataView, Hole, Resync, Resynced, Served, StagedView,
};
use redis::{Cmd, RedisResult, Value};

use super::call::{self, BRANCHES_PER_CALL_MAX, BYTES_PER_CALL_MAX, Head, RedoItem};
use super::connection::{FENCED, Live, claim, identity, new_incarnation};
use super::control::{self, Field, one_phase_marker, pattern, read_mark, write_came_of};
use super::decode::{self, Rows};
use super::execute::{report_dirty, send};
use super::inspect::InDoubt;
use super::mutants;
use super::packed::decode_redo;
use super::scripts::Script;
use super::{Store, StoreError, lock};

/// One step of a repair, by the packed done-marker where it is of one phase.
type Step = RepairStep<InDoubt, Arc<[u8]>>;

/// A branch that the data lost.
struct LostBranch<'a> {
    txid: Txid,
    seq: u64,
    redo: Redo,
    /// Of one phase that its log has not heard of.
    marker: &'a [u8],
}

impl<'a> LostBranch<'a> {
    /// What the data lost of a step; `None` if it is staged.
    fn of(step: &'a Step) -> Result<Option<Self>, String> {
        let RepairStep { txid, seq, by } = step;
        let (redo, marker) = match by {
            RedoBy::Record(_) => return Ok(None),
            RedoBy::Writes(redo) => (Arc::clone(redo), &[][..]),
            RedoBy::Marker(marker) => {
                let kept = one_phase_marker(marker);
                let kept = kept.map_err(|error| format!("the marker of {txid}: {error}"))?;
                (kept.wrote.map_or_else(|| [].into(), |(_, redo)| redo), &**marker)
            }
        };
        Ok(Some(Self { txid: *txid, seq: *seq, redo, marker }))
    }
}

impl Store {
    /// What the data is now.
    pub async fn data(&self) -> Result<DataView, StoreError> {
        let reports = self.words.lock().await;
        let live = self.live().await?;
        self.view(&live, &reports).await
    }

    async fn view(&self, live: &Live, reports: &Reports) -> Result<DataView, StoreError> {
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
            owed: reports.owed(&self.logs_heard(live).await?),
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
        let Some(mut hole) = found.hole(was, self.known()) else { return Ok(None) };
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
        let mut reports = self.words.lock().await;
        let live = self.verified().await.map_err(unavailable)?;
        let view = self.view(&live, &reports).await.map_err(unavailable)?;
        let spoken = match view.fenced {
            true => self.logs_heard(&live).await.map_err(unavailable)?,
            false => BTreeSet::new(),
        };
        if let ReportTaken::Answered(said) = reports.take(part, &view, &spoken)? {
            return Ok(said);
        }
        let repaired = self.repair(&live, &reports, &view).await;
        let (open, redone) = repaired.map_err(|why| {
            Refusal::new(ErrorCode::RedisUnavailable, format!("the repair stopped: {why}"))
        })?;
        *reports = Reports::default();
        self.view.store(new_incarnation(), Ordering::Release);
        Ok(Resynced { open: Some(open), owed: Vec::new(), redone })
    }

    /// Makes the data whole, and opens it. Returns the data, and how many branches were applied.
    async fn repair(
        &self,
        live: &Live,
        reports: &Reports,
        view: &DataView,
    ) -> Result<(DataPoint, u64), String> {
        let staged = self.in_doubt().await.map_err(|error| error.to_string())?;
        let staged = staged.into_iter().map(|branch| (branch.txid, branch));
        let plan = {
            let mut unlogged = lock(&self.unlogged);
            let unlogged = mutants::repairs_unlogged().then_some(&mut *unlogged);
            reports.plan(view, staged, self.seq_seen.load(Ordering::Acquire), unlogged)
        };
        let seq = plan.opening_seq();
        let came_of = plan.came_of(lock(&self.unlogged).history());
        let RepairPlan { steps, undecided, logs, served, found_seq, .. } = plan;
        for RepairStep { txid, seq, .. } in steps.iter().filter(|it| is_by_marker(it)) {
            tracing::warn!(%txid, seq, "applied in one phase, and in no log yet: it is put back");
        }
        let redone = steps.len() as u64;
        for script in [Script::Commit, Script::Abort, Script::Redo] {
            self.load(live, script).await.map_err(|error| error.to_string())?;
        }
        for steps in calls(steps) {
            self.redo(live, &steps, found_seq).await?;
        }
        for branches in undecided.chunks(BRANCHES_PER_CALL_MAX) {
            self.end(live, Script::Abort, branches).await?;
        }
        for (log_id, Heard { epoch, low_water }) in logs {
            let head = Head { epoch, ..self.head_of_fenced(log_id) };
            let head = Head { low_water: Some(low_water), ..head };
            let digest = self.scripts.digest(Script::Abort).unwrap_or_default();
            self.run_fenced(live, &call::outcome(&digest, &head, &[], std::iter::empty())).await?;
        }
        let open =
            self.open(live, seq, &served, &came_of).await.map_err(|error| error.to_string())?;
        claim(live, &self.options).await.map_err(|error| error.to_string())?;
        tracing::warn!(redone, undecided = undecided.len(), "the data is repaired from the logs");
        lock(&self.unlogged).opened(open);
        self.adopt(open).await;
        Ok((open, redone))
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
            if let RedoBy::Record(branch) = &step.by {
                staged.push(branch.clone());
            }
            lost.extend(LostBranch::of(step)?);
        }
        if lost.is_empty() {
            return self.end(live, Script::Commit, &staged).await;
        }
        let mut keys: BTreeSet<Arg> = BTreeSet::new();
        for LostBranch { txid, redo, .. } in &lost {
            let writes = decode_redo(redo);
            let writes = writes.map_err(|error| format!("the writes of {txid}: {error}"))?;
            keys.extend(writes.into_iter().filter_map(|write| write.into_iter().nth(1)));
        }
        let keys: Vec<Arg> = keys.into_iter().collect();
        let branches = lost.iter().map(|branch| RedoItem {
            txid: branch.txid,
            writes: &branch.redo,
            fills: branch.seq <= seq,
            marker: branch.marker,
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

    async fn open(
        &self,
        live: &Live,
        seq: u64,
        served: &[Served],
        came_of: &[u64],
    ) -> RedisResult<DataPoint> {
        let mut command = redis::cmd("EVAL");
        command.arg(Script::Open.source()).arg(1).arg(&self.options.control_key);
        command.arg(new_incarnation()).arg(seq);
        command.arg(Field::CameOf).arg(write_came_of(came_of));
        for Served { log_id, incarnation } in served {
            command.arg(Field::Served(*log_id)).arg(*incarnation);
        }
        let (incarnation, seq): (u64, u64) =
            command.query_async(&mut live.connection.clone()).await?;
        Ok(DataPoint { incarnation, seq })
    }
}

const fn is_by_marker(step: &Step) -> bool {
    matches!(step.by, RedoBy::Marker(_))
}

const fn is_staged(step: &Step) -> bool {
    matches!(step.by, RedoBy::Record(_))
}

/// What a step sends, at most: a marker has the writes in it, which are sent beside it.
fn bytes_of(step: &Step) -> usize {
    match &step.by {
        RedoBy::Record(_) => 0,
        RedoBy::Writes(redo) => redo.len(),
        RedoBy::Marker(marker) => 2 * marker.len(),
    }
}

/// Cuts the steps into calls of bounded work, each of one kind, in order.
fn calls(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut calls: Vec<Vec<Step>> = Vec::new();
    let mut bytes = 0;
    for step in steps {
        bytes += bytes_of(&step);
        match calls.last_mut() {
            Some(call)
                if call.len() < BRANCHES_PER_CALL_MAX
                    && is_staged(&call[0]) == is_staged(&step)
                    && bytes <= BYTES_PER_CALL_MAX =>
            {
                call.push(step);
            }
            _ => {
                bytes = bytes_of(&step);
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
