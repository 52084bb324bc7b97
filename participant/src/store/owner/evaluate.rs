//! The ops of a branch, evaluated here instead of by the script: strings, as long as the answer is
//! yes.
//!
//! `lua/ops/strings.lua` is the rule. What this file cannot say yes to (another type, a false
//! expectation, no integer, a float, a value that is too large) it leaves to the script, so that
//! every no has one home.

use std::fmt::Write as _;
use std::sync::Arc;

use assent_common::command::{
    Comparison, OpRequest, Range, ReplyKind, ValidatedBranch, ValidatedOp, parse_i64,
};
use assent_common::limits;
use assent_common::participant::Claimed;
use assent_common::value::{Arg, Reply};

use super::super::mutants;
use super::super::packed::{Reader, RedoError, Writer};
use super::super::work::PrepareItem;
use super::look::{Found, VALUE_BYTES_MAX};

/// Keys of a branch that is evaluated here: they are looked up one by one. As many as what is
/// merged at the port for Redis clients has at each of two participants.
const KEYS_MAX: usize = 64;

/// What the ops come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Yes {
    /// The replies in order, packed.
    pub(super) packed: Vec<u8>,
    /// The same, as the text of a JSON array.
    pub(super) json: String,
    /// The writes, packed; empty for a branch that wrote nothing.
    pub(super) redo: Vec<u8>,
    /// What it adds to counters in escrow.
    pub(super) claims: Vec<Claimed>,
    /// What is known only when it is applied.
    pub(super) stars: Vec<Star>,
}

/// An `XADD *`, whose id is known when it is applied. Its reply is nil until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Star {
    /// Its place among the writes.
    pub(super) write: usize,
    /// Its place among the ops.
    pub(super) op: usize,
}

impl Yes {
    /// Nothing if it is more than an answer may carry.
    pub(super) fn new(replies: &[Reply], redo: Vec<u8>, claims: Vec<Claimed>) -> Option<Self> {
        let (packed, json) = (packed(replies), json(replies));
        let yes = Self { packed, json, redo, claims, stars: Vec::new() };
        yes.has_room().then_some(yes)
    }

    /// The same with those replies that are shown, where a hook had a part in it. The id of an
    /// entry that the hook adds is shown to nobody.
    pub(super) fn shown(self, item: &PrepareItem) -> Result<Self, RedoError> {
        let Some(hooked) = &item.prepare.hooked else { return Ok(self) };
        let ops = &item.prepare.branch.ops;
        let mut reader = Reader(&self.packed);
        let count = reader.array()?;
        let all = ops.iter().take(count).map(|op| reader.reply(op.reply));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let mut shown = all.get(hooked.client_ops()).unwrap_or_default().to_vec();
        shown.push(Reply::Hook(Arc::clone(&hooked.reply)));
        let stars = self.stars.iter().filter(|star| hooked.client_ops().contains(&star.op));
        let stars = stars.map(|star| Star { op: star.op - hooked.before, ..*star }).collect();
        Ok(Self { packed: packed(&shown), json: json(&shown), stars, ..self })
    }

    /// Whether a vote may carry it.
    pub(super) fn has_room(&self) -> bool {
        self.redo.len().max(self.packed.len()) <= limits::REPLY_BYTES_MAX
    }
}

/// Replies, packed as the script packs them.
pub(super) fn packed(replies: &[Reply]) -> Vec<u8> {
    let mut packed = Writer::default();
    packed.array(replies.len());
    for reply in replies {
        packed.reply(reply);
    }
    packed.0
}

/// Replies, as the text of a JSON array.
pub(super) fn json(replies: &[Reply]) -> String {
    let mut json = String::with_capacity(16 * replies.len() + 2);
    json.push('[');
    for (place, reply) in replies.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        match reply {
            Reply::Int(number) => {
                let _ = write!(json, "{number}");
            }
            // Serialising bytes and arrays of them cannot fail.
            reply => json.push_str(&serde_json::to_string(reply).unwrap_or_default()),
        }
    }
    json.push(']');
    json
}

/// Whether these are ops that this file knows.
pub(super) fn is_known(branch: &ValidatedBranch) -> bool {
    let known = |op: &ValidatedOp| match op.handler {
        // Conditions and expiries are the script's.
        "SET" => op.args[2].0.is_empty() && op.args[4].0.is_empty(),
        "GET" | "GETRANGE" | "STRLEN" | "SETNX" | "GETDEL" | "APPEND" | "SETRANGE" => true,
        "INCRBY" | "MGET" | "MSET" => true,
        OpRequest::ESCROW_HANDLER => true,
        _ => false,
    };
    branch.locks.len() <= KEYS_MAX && branch.ops.iter().all(known)
}

/// A key, as the branch sees it by now.
struct Cell<'a> {
    key: &'a Arg,
    value: Option<Vec<u8>>,
    expires_at_ms: Option<i64>,
    existed: bool,
    written: bool,
}

impl Cell<'_> {
    fn overwrite(&mut self, value: &Arg) {
        self.value = Some(value.0.clone());
        self.expires_at_ms = None;
        self.written = true;
    }

    /// A new value that leaves the expiry as it is.
    fn set(&mut self, value: Vec<u8>) {
        self.value = Some(value);
        self.written = true;
    }

    fn clear(&mut self) -> Option<Vec<u8>> {
        self.expires_at_ms = None;
        self.written = true;
        self.value.take()
    }

    fn reply(&self) -> Reply {
        self.value.clone().map_or(Reply::Nil, Reply::Bytes)
    }

    /// The bytes between two places, both of them included; below 0 they count from the end.
    fn range(&self, first: i64, last: i64) -> Reply {
        let value = self.value.as_deref().unwrap_or_default();
        let place = |at: i64| {
            let far = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
            if at < 0 { value.len().saturating_sub(far) } else { far }
        };
        let end = place(last).saturating_add(1).min(value.len());
        Reply::Bytes(value.get(place(first)..end).unwrap_or_default().to_vec())
    }

    fn append(&mut self, part: &Arg) -> Option<Reply> {
        let mut value = self.value.take().unwrap_or_default();
        value.extend(&part.0);
        if value.len() > limits::BRANCH_BYTES_MAX {
            return None;
        }
        let reply = length(value.len());
        self.set(value);
        Some(reply)
    }

    /// Writes over the bytes from `offset` on, behind zeros if there is nothing yet.
    fn set_range(&mut self, offset: i64, part: &Arg) -> Option<Reply> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(part.0.len())?;
        // A short op that makes a long value: what it may cost is counted by the script.
        if end > VALUE_BYTES_MAX {
            return None;
        }
        let mut value = self.value.take().unwrap_or_default();
        value.resize(value.len().max(end), 0);
        value[offset..end].copy_from_slice(&part.0);
        let reply = length(value.len());
        self.set(value);
        Some(reply)
    }
}

/// The keys, in the order of their first use.
struct Cells<'a>(Vec<Cell<'a>>);

impl<'a> Cells<'a> {
    fn new(branch: &'a ValidatedBranch, found: Vec<Found>) -> Option<Self> {
        let cells = branch.locks.iter().zip(found).map(|(lock, found)| {
            let (value, expires_at_ms) = match found {
                Found::NotAsked | Found::Absent => (None, None),
                Found::String(value, expires_at_ms) => (Some(value), expires_at_ms),
                Found::Other => return None,
            };
            let existed = value.is_some();
            Some(Cell { key: &lock.key, value, expires_at_ms, existed, written: false })
        });
        cells.collect::<Option<_>>().map(Self)
    }

    fn at(&mut self, key: &Arg) -> Option<&mut Cell<'a>> {
        self.0.iter_mut().find(|cell| cell.key == key)
    }

    /// Runs one op; `None` if it is not for this file to answer.
    fn run(&mut self, op: &ValidatedOp, ranges: &[Range]) -> Option<Reply> {
        let args = &op.args;
        let ok = || Reply::Bytes(b"OK".to_vec());
        if op.handler == "MSET" {
            for pair in args.chunks_exact(2) {
                self.at(&pair[0])?.overwrite(&pair[1]);
            }
            return Some(ok());
        }
        if op.handler == "MGET" {
            let (mut replies, mut bytes) = (Vec::with_capacity(args.len()), 0);
            for key in args {
                let reply = self.at(key)?.reply();
                bytes += bytes_of(&reply);
                if bytes > limits::REPLY_BYTES_MAX {
                    return None;
                }
                replies.push(reply);
            }
            return Some(Reply::Array(replies));
        }
        if op.handler == OpRequest::ESCROW_HANDLER {
            return estimate(op, ranges);
        }
        let cell = self.at(&args[0])?;
        Some(match op.handler {
            "GET" => cell.reply(),
            "STRLEN" => length(cell.value.as_ref().map_or(0, Vec::len)),
            "SET" => {
                let reply = if args[3].0.is_empty() { ok() } else { cell.reply() };
                cell.overwrite(&args[1]);
                reply
            }
            "SETNX" if cell.value.is_some() => Reply::Int(0),
            "SETNX" => {
                cell.overwrite(&args[1]);
                Reply::Int(1)
            }
            "GETDEL" if cell.value.is_none() => Reply::Nil,
            "GETDEL" => cell.clear().map_or(Reply::Nil, Reply::Bytes),
            "GETRANGE" => cell.range(parse_i64(&args[1].0)?, parse_i64(&args[2].0)?),
            "APPEND" => cell.append(&args[1])?,
            "SETRANGE" => cell.set_range(parse_i64(&args[1].0)?, &args[2])?,
            "INCRBY" => {
                let old = cell.value.as_deref().map_or(Some(0), parse_i64)?;
                let sum = old.checked_add(parse_i64(&args[1].0)?)?;
                cell.set(sum.to_string().into_bytes());
                Reply::Int(sum)
            }
            _ => return None,
        })
    }

    /// The writes that leave the keys as they are here, and what is added in escrow; deletions
    /// last.
    fn redo(&self, claims: &[Claimed]) -> Vec<u8> {
        let written = |cell: &&Cell<'_>| cell.written && (cell.value.is_some() || cell.existed);
        let count = self.0.iter().filter(written).count() + claims.len();
        if count == 0 {
            return Vec::new();
        }
        let mut redo = Writer::default();
        redo.array(count);
        let cells = || self.0.iter().filter(written);
        for cell in cells() {
            let Some(value) = &cell.value else { continue };
            redo.array(if cell.expires_at_ms.is_some() { 5 } else { 3 });
            redo.bytes(b"SET");
            redo.bytes(&cell.key.0);
            redo.bytes(value);
            if let Some(ms) = cell.expires_at_ms {
                redo.bytes(b"PXAT");
                redo.bytes(ms.to_string().as_bytes());
            }
        }
        claims.iter().for_each(|claimed| push_claimed(&mut redo, claimed));
        for cell in cells().filter(|cell| cell.value.is_none()) {
            redo.array(2);
            redo.bytes(b"UNLINK");
            redo.bytes(&cell.key.0);
        }
        redo.0
    }
}

/// The write of a claim: others change the value until it is applied, so that it is the delta.
pub(super) fn push_claimed(redo: &mut Writer, claimed: &Claimed) {
    let claim = &claimed.claim;
    let (command, number) = match (&claim.field, mutants::resolved(claimed)) {
        (_, Some(value)) => ("SET", value),
        (None, None) => ("INCRBY", claim.delta()),
        (Some(_), None) => ("HINCRBY", claim.delta()),
    };
    redo.array(if claim.field.is_some() { 4 } else { 3 });
    redo.bytes(command.as_bytes());
    redo.bytes(&claim.key.0);
    claim.field.iter().for_each(|field| redo.bytes(&field.0));
    redo.bytes(number.to_string().as_bytes());
}

/// The reply of an op in escrow, whose counter is in one of these ranges, a [`Range`] for each
/// claim.
pub(super) fn estimate(op: &ValidatedOp, ranges: &[Range]) -> Option<Reply> {
    let claim = usize::try_from(parse_i64(&op.args[1].0)?).ok()?.checked_sub(1)?;
    Some(ranges.get(claim)?.reply(parse_i64(&op.args[2].0)?))
}

fn length(bytes: usize) -> Reply {
    Reply::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Runs the ops on what was found, a [`Found`] for each lock, and on what is claimed, a [`Range`]
/// for each claim; `None` if it is not for this file to answer.
pub(super) fn evaluate(
    branch: &ValidatedBranch,
    found: Vec<Found>,
    claims: Vec<Claimed>,
    ranges: &[Range],
) -> Option<Yes> {
    let mut cells = Cells::new(branch, found)?;
    let mut replies = Vec::with_capacity(branch.ops.len());
    let mut bytes = 0;
    for op in &branch.ops {
        let reply = cells.run(op, ranges)?;
        bytes += bytes_of(&reply);
        if bytes > limits::REPLY_BYTES_MAX {
            return None;
        }
        let expected = op.expect.as_ref().map(|expect| expect.comparisons());
        for comparison in expected.into_iter().flatten() {
            if !holds(comparison, &reply, op.reply) {
                return None;
            }
        }
        replies.push(reply);
    }
    Yes::new(&replies, cells.redo(&claims), claims)
}

fn bytes_of(reply: &Reply) -> usize {
    const HEADER: usize = 5;
    HEADER
        + match reply {
            Reply::Nil | Reply::Int(_) => 20,
            Reply::Estimate { .. } => 40,
            Reply::Bytes(bytes) => bytes.len(),
            Reply::Hook(json) => json.len(),
            Reply::Array(items) => items.iter().map(bytes_of).sum(),
        }
}

/// Whether a comparison surely holds; those of floats are left to the script.
fn holds(comparison: Comparison<'_>, reply: &Reply, kind: ReplyKind) -> bool {
    let is_there = match (reply, kind) {
        (Reply::Nil, _) => false,
        (Reply::Int(number), ReplyKind::Int) => *number != 0,
        (Reply::Array(items), _) => !items.is_empty(),
        (Reply::Int(_) | Reply::Bytes(_) | Reply::Estimate { .. } | Reply::Hook(_), _) => true,
    };
    let equals = |operand: &[u8]| match reply {
        Reply::Int(number) => number.to_string().as_bytes() == operand,
        Reply::Bytes(bytes) => bytes == operand,
        Reply::Nil | Reply::Array(_) | Reply::Estimate { .. } | Reply::Hook(_) => false,
    };
    let number = || match reply {
        Reply::Int(number) => Some(*number),
        Reply::Bytes(bytes) => parse_i64(bytes),
        Reply::Nil | Reply::Array(_) | Reply::Estimate { .. } | Reply::Hook(_) => None,
    };
    let ordered = |operand: &[u8], holds: fn(&i64, &i64) -> bool| {
        number().zip(parse_i64(operand)).is_some_and(|(reply, operand)| holds(&reply, &operand))
    };
    match comparison {
        Comparison::Eq(operand) => equals(operand),
        Comparison::Ne(operand) => !equals(operand),
        Comparison::EqNil => *reply == Reply::Nil,
        Comparison::NeNil => *reply != Reply::Nil,
        Comparison::Gt(operand) => ordered(operand, i64::gt),
        Comparison::Ge(operand) => ordered(operand, i64::ge),
        Comparison::Lt(operand) => ordered(operand, i64::lt),
        Comparison::Le(operand) => ordered(operand, i64::le),
        Comparison::Exists(wanted) => is_there == wanted,
    }
}
