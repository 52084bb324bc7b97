//! Repair of fenced data, from what the logs say they committed (invariants 9, 12).
//!
//! What is owed and what a repair does is `common`'s `participant::Reports` to say; here the data
//! is read and shown, and a plan is carried out. Everything is idempotent: an agent that dies
//! half-way leaves fenced data, and is told again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use assent_common::code::ErrorCode;
use assent_common::ids::{LogId, Txid};
use assent_common::outcome::{Call, Refusal};
use assent_common::participant::{
    Found, Heard, RedoBy, RepairPlan, RepairStep, ReportTaken, Reports,
};
use assent_common::value::Arg;
use assent_common::wire::resync::{
    DataPoint, DataView, Hole, Resync, Resynced, Served, StagedView,
};
use redis::{RedisResult, Value};

use super::call::{self, BRANCHES_PER_CALL_MAX, BYTES_PER_CALL_MAX, RedoItem};
use super::connection::Connection;
use super::control::{
    self, Field, one_phase_marker, pattern, read_mark, write_came_of, write_mark,
};
use super::data::{DataIdentity, FENCED, claim, identity, new_incarnation};
use super::decode::{self, Rows, report_dirty};
use super::in_doubt::{InDoubt, in_doubt};
use super::link::{Link, Live};
use super::packed::decode_redo;
use super::scripts::Script;
use super::{StoreError, mutants};
use crate::mutex::lock;

/// One step of a repair, by the packed done-marker where it is of one phase.
type Step = RepairStep<InDoubt, Arc<[u8]>>;

/// A branch that is applied.
struct OwedBranch<'a> {
    txid: Txid,
    seq: u64,
    keys: Vec<Arg>,
    /// Its record has the writes.
    is_staged: bool,
    /// Packed.
    writes: Arc<[u8]>,
    /// Of one phase that its log has not heard of.
    marker: &'a [u8],
}

impl<'a> OwedBranch<'a> {
    fn of(step: &'a Step) -> Result<Self, String> {
        let RepairStep { txid, seq, by } = step;
        let staged = match by {
            RedoBy::Record(branch) => Some(branch),
            RedoBy::Writes(_) | RedoBy::Marker(_) => None,
        };
        let (writes, marker) = match by {
            RedoBy::Record(_) => ([].into(), &[][..]),
            RedoBy::Writes(writes) => (Arc::clone(writes), &[][..]),
            RedoBy::Marker(marker) => {
                let kept = one_phase_marker(marker);
                let kept = kept.map_err(|error| format!("the marker of {txid}: {error}"))?;
                (kept.wrote.map_or_else(|| [].into(), |(_, writes)| writes), &**marker)
            }
        };
        let keys = match staged {
            Some(branch) => branch.keys.clone(),
            None => {
                let decoded = decode_redo(&writes);
                let decoded = decoded.map_err(|error| format!("the writes of {txid}: {error}"))?;
                decoded.into_iter().filter_map(|write| write.into_iter().nth(1)).collect()
            }
        };
        Ok(Self { txid: *txid, seq: *seq, keys, is_staged: staged.is_some(), writes, marker })
    }
}

/// Words of one call that writes fields.
const FIELDS_AT_ONCE: usize = 1_000;

/// What logs have said of the data.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Those whose word the repair took that opened the data of this incarnation.
    served: Mutex<Option<(u64, Vec<Served>)>>,
    /// While it is fenced.
    words: tokio::sync::Mutex<Reports>,
}

impl Repairs {
    /// What the data is now.
    pub(super) async fn data(&self, link: &Link) -> Result<DataView, StoreError> {
        let reports = self.words.lock().await;
        let live = link.live().await?;
        self.view(link, &live, &reports).await
    }

    async fn view(
        &self,
        link: &Link,
        live: &Live,
        reports: &Reports,
    ) -> Result<DataView, StoreError> {
        let connection = &live.connection;
        let found = connection.or_unavailable(identity(connection).await)?;
        let Found { incarnation, seq, .. } = found;
        let fenced = incarnation == Some(FENCED);
        let served = self.served(connection, incarnation).await?;
        let open = DataView {
            incarnation,
            seq,
            view: link.data.view(),
            fenced,
            reason: link.data.is_quarantined(),
            owed: Vec::new(),
            staged: Vec::new(),
            served,
            hole: None,
        };
        if !fenced {
            return Ok(open);
        }
        let was: Option<Vec<u8>> = connection.or_unavailable(connection.field(Field::Was).await)?;
        let was = was.and_then(|was| control::number(&was));
        let (staged, _) = in_doubt(link, live).await?;
        let staged = staged.into_iter();
        Ok(DataView {
            incarnation: was,
            owed: reports.owed(&logs_heard(connection, &link.data).await?),
            staged: staged.map(|it| StagedView { txid: it.txid, seq: it.seq }).collect(),
            hole: hole(connection, &link.data, was, found).await?,
            ..open
        })
    }

    /// The logs whose word the last repair took. Written with the incarnation, and with nothing
    /// else, so that one look is enough for data that is open.
    async fn served(
        &self,
        connection: &Connection,
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
        let scanned = connection
            .scan(pattern::SERVED, |field, value| {
                if let Some(Field::Served(log_id)) = Field::parse(field)
                    && let Some(incarnation) = control::number(&value)
                {
                    served.push(Served { log_id, incarnation });
                }
            })
            .await;
        connection.or_unavailable(scanned)?;
        if !is_open {
            return Ok(served);
        }
        // Unless a repair came between.
        let now = connection.or_unavailable(identity(connection).await)?;
        if now.incarnation == incarnation {
            *lock(&self.served) = incarnation.map(|incarnation| (incarnation, served.clone()));
        }
        Ok(served)
    }

    /// Takes a part of what a log says; with the last part of the last log that is owed, repairs
    /// and opens the data.
    pub(super) async fn resync(&self, link: &Link, part: Resync) -> Result<Resynced, Refusal> {
        let unavailable = |error: StoreError| error.refusal();
        let mut reports = self.words.lock().await;
        let live = link.verified().await.map_err(unavailable)?;
        let view = self.view(link, &live, &reports).await.map_err(unavailable)?;
        let spoken = match view.fenced {
            true => logs_heard(&live.connection, &link.data).await.map_err(unavailable)?,
            false => BTreeSet::new(),
        };
        if let ReportTaken::Answered(said) = reports.take(part, &view, &spoken)? {
            return Ok(said);
        }
        let repaired = repair(link, &live, &reports, &view).await;
        let (open, redone) = repaired.map_err(|why| {
            Refusal::new(ErrorCode::RedisUnavailable, format!("the repair stopped: {why}"))
        })?;
        *reports = Reports::default();
        link.data.next_view();
        Ok(Resynced { open: Some(open), owed: Vec::new(), redone })
    }
}

/// Makes the data whole, and opens it. Returns the data, and how many branches were applied.
async fn repair(
    link: &Link,
    live: &Live,
    reports: &Reports,
    view: &DataView,
) -> Result<(DataPoint, u64), String> {
    let (connection, data) = (&live.connection, &link.data);
    let (staged, _) = in_doubt(link, live).await.map_err(|error| error.to_string())?;
    let staged = staged.into_iter().map(|branch| (branch.txid, branch));
    let plan = {
        let mut unlogged = lock(&data.unlogged);
        let unlogged = mutants::repairs_unlogged().then_some(&mut *unlogged);
        reports.plan(view, staged, data.known().data.seq, unlogged)
    };
    let seq = plan.opening_seq();
    let came_of = plan.came_of(lock(&data.unlogged).history());
    let RepairPlan { steps, undecided, logs, served, found_seq, .. } = plan;
    for RepairStep { txid, seq, .. } in steps.iter().filter(|it| is_by_marker(it)) {
        tracing::warn!(%txid, seq, "applied in one phase, and in no log yet: it is put back");
    }
    let redone = steps.len() as u64;
    for steps in calls(steps) {
        redo(connection, &steps, found_seq).await?;
    }
    end(connection, &undecided, logs).await.map_err(|error| error.to_string())?;
    let open = open(connection, seq, &served, &came_of).await.map_err(|error| error.to_string())?;
    claim(connection).await.map_err(|error| error.to_string())?;
    tracing::warn!(redone, undecided = undecided.len(), "the data is repaired from the logs");
    lock(&data.unlogged).opened(open);
    link.went_on(data.goes_on_with(open));
    Ok((open, redone))
}

/// What lacks inside the history of fenced data, if something does; `was` is its incarnation.
async fn hole(
    connection: &Connection,
    data: &DataIdentity,
    was: Option<u64>,
    found: Found,
) -> Result<Option<Hole>, StoreError> {
    let Some(mut hole) = found.hole(was, data.known()) else { return Ok(None) };
    let scanned = connection
        .scan(pattern::DONE_AND_OF_LOGS, |field, value| match Field::parse(field) {
            Some(Field::Mark(log_id)) => {
                hole.marks.extend(read_mark(&value).map(|heard| heard.mark(log_id)));
            }
            Some(Field::Done(txid)) => hole.done.push(txid),
            _ => {}
        })
        .await;
    connection.or_unavailable(scanned)?;
    Ok(Some(hole))
}

/// Every log that has spoken here, as the data or this agent remembers.
async fn logs_heard(
    connection: &Connection,
    data: &DataIdentity,
) -> Result<BTreeSet<LogId>, StoreError> {
    let mut logs: BTreeSet<LogId> = lock(&data.markers).all_heard().into_keys().collect();
    let scanned = connection.scan(pattern::MARKS, |field, _| {
        if let Some(Field::Mark(log_id)) = Field::parse(field) {
            logs.insert(log_id);
        }
    });
    connection.or_unavailable(scanned.await)?;
    Ok(logs)
}

/// Applies committed branches, of one call, to data whose last vote has this number.
async fn redo(connection: &Connection, steps: &[Step], seq: u64) -> Result<(), String> {
    let branches: Vec<OwedBranch<'_>> =
        steps.iter().map(OwedBranch::of).collect::<Result<_, _>>()?;
    let keys: BTreeSet<&Arg> = branches.iter().flat_map(|branch| &branch.keys).collect();
    let items = branches.iter().map(|branch| RedoItem {
        txid: branch.txid,
        writes: &branch.writes,
        // What is staged has not ended.
        fills: !branch.is_staged && branch.seq <= seq,
        marker: branch.marker,
    });
    let key = connection.control_key();
    let value =
        connection.run(Script::Redo, |digest| call::redo(digest, key, &keys, items.clone()));
    let value = value.await.map_err(|not_run| not_run.error().to_string())?;
    let rows = match decode::rows(value) {
        Rows::Each(rows) => rows,
        Rows::OtherIncarnation(found) => {
            return Err(format!("the data is of incarnation {found}"));
        }
        Rows::OtherOwner | Rows::Unreadable => {
            return Err("the script's answer cannot be read".to_owned());
        }
    };
    for (branch, row) in branches.into_iter().zip(rows) {
        applied(branch.txid, row)?;
    }
    Ok(())
}

/// Drops the branches that no log has committed, and writes down how far each log is. Nothing
/// is staged from then on, so that nothing is locked.
async fn end(
    connection: &Connection,
    undecided: &[InDoubt],
    logs: Vec<(LogId, Heard)>,
) -> RedisResult<()> {
    let mut gone: Vec<Vec<u8>> = Vec::new();
    let (mut set, mut marks) = (Vec::new(), HashMap::new());
    for InDoubt { txid, .. } in undecided {
        gone.push(Field::Staged(*txid).name());
        set.extend([Field::Fence(*txid).name(), Vec::new()]);
    }
    connection
        .scan(pattern::LOCKS_AND_OF_LOGS, |field, value| match Field::parse(field) {
            Some(Field::Mark(log_id)) => marks.extend(read_mark(&value).map(|it| (log_id, it))),
            Some(Field::Lock(_)) => gone.push(field.to_vec()),
            _ => {}
        })
        .await?;
    for (log_id, heard) in logs {
        let heard = marks.get(&log_id).map_or(heard, |known| known.and(heard));
        set.extend([Field::Mark(log_id).name(), write_mark(heard).into_bytes()]);
    }
    // What is set first: who may not fence a branch may not drop it.
    for set in set.chunks(FIELDS_AT_ONCE) {
        write_fenced(connection, &[], set).await?;
    }
    for gone in gone.chunks(FIELDS_AT_ONCE) {
        write_fenced(connection, gone, &[]).await?;
    }
    Ok(())
}

/// Writes fields of fenced data. Returns what the data is then.
async fn write_fenced(
    connection: &Connection,
    gone: &[Vec<u8>],
    set: &[Vec<u8>],
) -> RedisResult<DataPoint> {
    let mut command = redis::cmd("EVAL");
    command.arg(Script::Fenced.source()).arg(1).arg(connection.control_key());
    command.arg(gone.len()).arg(gone).arg(set);
    let (incarnation, seq): (Option<u64>, Option<u64>) = connection.ask(&command).await?;
    let [incarnation, seq] = [incarnation, seq].map(Option::unwrap_or_default);
    Ok(DataPoint { incarnation, seq })
}

async fn open(
    connection: &Connection,
    seq: u64,
    served: &[Served],
    came_of: &[u64],
) -> RedisResult<DataPoint> {
    let mut set = vec![Field::CameOf.name(), write_came_of(came_of).into_bytes()];
    let mut field = |field: Field<'_>, value: u64| {
        set.extend([field.name(), control::write_number(value)]);
    };
    field(Field::Incarnation, new_incarnation());
    field(Field::Seq, seq);
    field(Field::Ended, 0);
    field(Field::Expected, 0);
    for Served { log_id, incarnation } in served {
        field(Field::Served(*log_id), *incarnation);
    }
    write_fenced(connection, &[Field::Was.name()], &set).await
}

const fn is_by_marker(step: &Step) -> bool {
    matches!(step.by, RedoBy::Marker(_))
}

/// What a step sends or reads, at most: a marker has the writes in it, which are sent beside it.
fn bytes_of(step: &Step) -> usize {
    match &step.by {
        RedoBy::Record(branch) => branch.redo.len(),
        RedoBy::Writes(redo) => redo.len(),
        RedoBy::Marker(marker) => 2 * marker.len(),
    }
}

/// Cuts the steps into calls of bounded work, in order.
fn calls(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut calls: Vec<Vec<Step>> = Vec::new();
    let mut bytes = 0;
    for step in steps {
        bytes += bytes_of(&step);
        match calls.last_mut() {
            Some(call) if call.len() < BRANCHES_PER_CALL_MAX && bytes <= BYTES_PER_CALL_MAX => {
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
