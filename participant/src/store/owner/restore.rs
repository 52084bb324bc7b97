//! An owner begins with what the control hash holds.

use std::collections::{HashMap, HashSet};

use assent_common::command::Access;
use assent_common::ids::{LogId, Txid};
use assent_common::outcome::Vote;
use assent_common::participant::{Heard, Restored, Staged};
use assent_common::value::{Arg, readable};

use super::super::connection::Connection;
use super::super::control::{
    self, Field, StagedRecord, ToldPosition, done_marker, pattern, read_mark,
};
use super::super::data::DataIdentity;
use super::super::{StoreError, mutants};
use super::counters::is_escrow;
use super::look::ShortKeys;
use super::{Guard, OldLocks, Owner, WriteWay};

/// Reads the control hash. The owner key is this agent's already: nobody else writes without
/// ending the ownership.
pub(super) async fn restore(
    connection: &Connection,
    data: &DataIdentity,
    guard: Guard,
    way: WriteWay,
) -> Result<Owner, StoreError> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let scanned =
        connection.scan(pattern::ALL, |field, value| fields.push((field.to_vec(), value)));
    connection.or_unavailable(scanned.await)?;
    let number = |wanted: Field<'_>| {
        let wanted = wanted.name();
        control::number(&fields.iter().find(|(name, _)| *name == wanted)?.1)
    };
    let number_or_0 = |wanted: Field<'_>| number(wanted).unwrap_or(0);
    let incarnation = data.incarnation();
    let is_own = number(Field::Incarnation) == Some(incarnation);
    if !is_own && mutants::minds_incarnation() {
        return Err(connection.corrupt("its incarnation has changed".to_owned()));
    }
    let (seq, ended) = (number_or_0(Field::Seq), number_or_0(Field::Expected));
    // As an agent that starts has seen what is there: who stood by has seen no vote of late,
    // and would take a coordinator that has for one that knows other data.
    data.saw(incarnation, seq);
    data.saw_ended(incarnation, ended);
    let mut restored = Restored::new(incarnation, seq);
    let (mut stored, mut told) = (HashMap::new(), HashMap::new());
    let unreadable =
        |field: &[u8]| connection.corrupt(format!("{} cannot be read", readable(field)));
    let (mut locks, mut silent) = (Vec::new(), HashSet::new());
    for (name, value) in mutants::succeeds_to(&fields) {
        match Field::parse(name) {
            Some(Field::Lock(key)) => locks.push((name, Arg(key.to_vec()), value)),
            Some(Field::Told(log_id)) => {
                told.extend(told_position(value).map(|position| (log_id, position)));
            }
            Some(Field::Staged(txid)) => {
                let is_silent = add_staged(&mut restored, incarnation, txid, value);
                if is_silent.ok_or_else(|| unreadable(name))? {
                    silent.insert(txid);
                }
            }
            Some(field) => {
                let added = add(&mut restored, &mut stored, field, value);
                added.ok_or_else(|| unreadable(name))?;
            }
            None if control::is_of_machine(name) => return Err(unreadable(name)),
            None => {}
        }
    }
    // Behind the branches that have reserved it.
    let mut old_locks = OldLocks::default();
    for (name, key, value) in locks {
        let added = old_locks.restore(&mut restored, (key, value), |txid| silent.contains(&txid));
        added.ok_or_else(|| unreadable(name))?;
    }
    Ok(Owner {
        guard,
        way,
        machine: restored.finish(),
        ended,
        stored,
        told,
        short_keys: ShortKeys::default(),
        old_locks,
        busy: false,
    })
}

/// Adds one field of the control hash.
fn add(
    restored: &mut Restored,
    stored: &mut HashMap<LogId, Heard>,
    field: Field<'_>,
    value: &[u8],
) -> Option<()> {
    match field {
        Field::Done(txid) => restored.done(txid, done_marker(value).ok()?),
        Field::Fence(txid) => restored.fence(txid),
        Field::Mark(log_id) => {
            let heard = read_mark(value)?;
            restored.heard(log_id, heard);
            stored.insert(log_id, heard);
        }
        // The rest is not the machine's.
        _ => {}
    }
    Some(())
}

/// Adds a branch in doubt, with its locks. Its replies stay where they are: a prepare that comes
/// again reads them there. Whether it holds a key in escrow and does not say what it has reserved.
fn add_staged(restored: &mut Restored, incarnation: u64, txid: Txid, value: &[u8]) -> Option<bool> {
    let record = StagedRecord::read(value).ok()?;
    let StagedRecord { id, seq, keys, modes, redo, branches, reserved, .. } = record;
    let accesses = modes.iter().map(|letter| Access::of_letter(*letter));
    let accesses = accesses.collect::<Option<Vec<_>>>()?;
    let is_silent = reserved.is_empty() && accesses.iter().any(|access| is_escrow(*access));
    let locks: Vec<_> = keys.iter().cloned().zip(accesses).collect();
    let keys = keys.into_iter().collect();
    let vote = Vote { replies: "[]".into(), redo: redo.into(), incarnation, seq };
    let staged = Staged { id, keys, vote, branches };
    restored.staged(txid, staged, if mutants::minds_locks() { &locks } else { &[] });
    for (key, counter, reserved) in reserved {
        restored.reserved(txid, &key, counter, reserved);
    }
    Some(is_silent)
}

/// How far a log was on disk, as its field says.
fn told_position(value: &[u8]) -> Option<u64> {
    Some(ToldPosition::parse(std::str::from_utf8(value).ok()?)?.position)
}
