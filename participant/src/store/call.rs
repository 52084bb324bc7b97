//! The commands that go to Redis: which branches share a call of a script, and how they stand in
//! its arguments.

use assent_common::command::{
    Access, Claim, Comparison, OpRequest, Reserved, RunBy, ValidatedBranch, ValidatedOp,
};
use assent_common::ids::{Epoch, LogId, TxNumber, Txid};
use assent_common::value::Arg;
use assent_common::wire::branch::Mode;
use redis::Cmd;

use super::CheckedPrepare;
use super::control::{ToldPosition, pack_branches, tag};
use super::markers::Marker;
use super::packed::kind_letter;

/// Branches of one call. With the bounds below, this keeps a call at about a millisecond, in which
/// Redis answers nobody else; a branch that is larger by itself goes alone.
pub(super) const BRANCHES_PER_CALL_MAX: usize = 32;

/// Calls with prepares that are under way at once: enough for a full batch of small branches. The
/// replies of each may have twice the bytes of a branch's.
pub(super) const PREPARE_CALLS_MAX: usize = 8;

/// Ops of one call.
pub(super) const OPS_PER_CALL_MAX: usize = 256;

/// Words of the ops of one call.
pub(super) const WORDS_PER_CALL_MAX: usize = 4_096;

/// Bytes of the arguments of one call.
pub(super) const BYTES_PER_CALL_MAX: usize = 256 * 1024;

/// What every call begins with: the head of `control.lua`.
#[derive(Debug, Clone)]
pub(super) struct Head<'a> {
    pub(super) control_key: &'a str,
    pub(super) owner_key: &'a str,
    pub(super) incarnation: u64,
    /// Who this agent knows to have the Redis for itself; empty for nobody.
    pub(super) owner: &'a str,
    pub(super) log_id: LogId,
    pub(super) epoch: Epoch,
    /// Only with something to collect: until then nothing depends on the mark.
    pub(super) low_water: Option<TxNumber>,
    /// How far the log was on disk, as it said; nothing where the call ends no branch.
    pub(super) told: Option<ToldPosition>,
    pub(super) collected: Vec<Marker>,
}

/// A prepare, and its place among the messages.
#[derive(Debug, Clone)]
pub(super) struct PrepareItem {
    pub(super) slot: usize,
    pub(super) txid: Txid,
    pub(super) prepare: CheckedPrepare,
    /// Whether its ops are for the script, because the owner has found that by itself it cannot say
    /// yes to them.
    pub(super) by_script: bool,
}

impl PrepareItem {
    /// Whether a done-marker stays behind if it is applied at once.
    pub(super) fn leaves_marker(&self) -> bool {
        self.prepare.mode == Mode::OnePhase && !self.prepare.branch.read_only
    }

    /// The ops that the script evaluates, with their places: all but those in escrow, which are
    /// judged by what others have reserved.
    pub(super) fn evaluated_ops(&self) -> impl Iterator<Item = (usize, &ValidatedOp)> {
        let ops = self.prepare.branch.ops.iter().enumerate();
        ops.filter(|(_, op)| op.handler != OpRequest::ESCROW_HANDLER)
    }
}

/// Cuts the prepares into calls of bounded work, in order.
pub(super) fn chunks(items: Vec<PrepareItem>) -> Vec<Vec<PrepareItem>> {
    let mut calls: Vec<Vec<PrepareItem>> = Vec::new();
    let (mut ops, mut words, mut bytes) = (0, 0, 0);
    for item in items {
        let ValidatedBranch { words: more_words, bytes: more_bytes, .. } = item.prepare.branch;
        let more_ops = item.prepare.branch.ops.len();
        match calls.last_mut() {
            Some(call)
                if call.len() < BRANCHES_PER_CALL_MAX
                    && ops + more_ops <= OPS_PER_CALL_MAX
                    && words + more_words <= WORDS_PER_CALL_MAX
                    && bytes + more_bytes <= BYTES_PER_CALL_MAX =>
            {
                (ops, words, bytes) = (ops + more_ops, words + more_words, bytes + more_bytes);
                call.push(item);
            }
            _ => {
                (ops, words, bytes) = (more_ops, more_words, more_bytes);
                calls.push(vec![item]);
            }
        }
    }
    calls
}

/// `EVALSHA digest numkeys control owner keys…`, and the head.
fn evalsha<'a>(digest: &str, head: &Head<'_>, keys: impl Iterator<Item = &'a Arg> + Clone) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(digest).arg(2 + keys.clone().count()).arg(head.control_key).arg(head.owner_key);
    for key in keys {
        cmd.arg(key.0.as_slice());
    }
    cmd.arg(head.incarnation).arg(head.owner).arg(head.log_id.to_string()).arg(head.epoch.0);
    match head.low_water {
        Some(low_water) => cmd.arg(low_water.epoch.0).arg(low_water.n),
        None => cmd.arg("").arg(""),
    };
    let told = head.told.map_or_else(|| "0".to_owned(), |told| told.to_string());
    cmd.arg(told).arg(head.collected.len());
    for marker in &head.collected {
        cmd.arg(marker.field());
    }
    cmd
}

/// A call of `prepare.lua`.
pub(super) fn prepare(
    digest: &str,
    head: &Head<'_>,
    url: &str,
    items: &[PrepareItem],
    shadow_bytes_max: u64,
) -> Cmd {
    let keys = items.iter().flat_map(|item| item.prepare.branch.locks.iter().map(|lock| &lock.key));
    let mut cmd = evalsha(digest, head, keys);
    cmd.arg(url).arg(items.len());
    let mut letters = Vec::new();
    for PrepareItem { txid, prepare, .. } in items {
        let CheckedPrepare { id, mode, branches, branch, .. } = prepare;
        let mode = match mode {
            Mode::TwoPhase => "2",
            Mode::OnePhase => "1",
        };
        cmd.arg(txid.to_string()).arg(id.to_string()).arg(mode);
        cmd.arg(if branch.read_only { "1" } else { "" });
        letters.clear();
        letters.extend(branch.locks.iter().map(|lock| lock.access.letter()));
        cmd.arg(letters.as_slice());
        letters.clear();
        letters.extend(branch.ops.iter().map(|op| kind_letter(op.reply)));
        cmd.arg(letters.as_slice()).arg(pack_branches(branches)).arg(branch.ops.len());
        let op_words = branch.ops.iter().map(op_words).sum::<usize>();
        cmd.arg(1 + CLAIM_WORDS * branch.claims.len() + op_words).arg(branch.claims.len());
        for claim in &branch.claims {
            claim_args(&mut cmd, branch, claim);
        }
        for op in &branch.ops {
            op_args(&mut cmd, op, shadow_bytes_max);
        }
    }
    cmd
}

/// A call of `evaluate.lua`. It asks for the right to each write of what is kept: a vote writes
/// none of them, so that nothing else would tell before the commit. And if Redis has refused some
/// writes of late, whether it keeps anything.
pub(super) fn evaluate(
    digest: &str,
    control_key: &str,
    items: &[PrepareItem],
    asks_memory: bool,
    shadow_bytes_max: u64,
) -> Cmd {
    let locks = || items.iter().flat_map(|item| &item.prepare.branch.locks);
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(digest).arg(1 + locks().count()).arg(control_key);
    for lock in locks() {
        cmd.arg(lock.key.0.as_slice());
    }
    cmd.arg(items.len());
    for item in items {
        let kinds: Vec<u8> = item.evaluated_ops().map(|(_, op)| kind_letter(op.reply)).collect();
        let is_kept = item.prepare.mode == Mode::TwoPhase || item.leaves_marker();
        cmd.arg(kinds.as_slice()).arg(match (is_kept, asks_memory) {
            (false, _) => "",
            (true, false) => "r",
            (true, true) => "m",
        });
        cmd.arg(item.prepare.branch.claims.len());
        for claim in &item.prepare.branch.claims {
            let command = if claim.field.is_some() { "HINCRBY" } else { "INCRBY" };
            cmd.arg(command).arg(claim.key.0.as_slice());
        }
        cmd.arg(kinds.len());
        cmd.arg(item.evaluated_ops().map(|(_, op)| op_words(op)).sum::<usize>());
        item.evaluated_ops().for_each(|(_, op)| op_args(&mut cmd, op, shadow_bytes_max));
    }
    cmd
}

/// About how many bytes of the call for one branch the server holds at once while it reads them,
/// rounded up: its largest word, and what it reads at a time. It takes a call of a script apart
/// word by word, and counts those that it has read in a `MULTI` only.
pub(super) fn largest_read(branch: &ValidatedBranch) -> usize {
    const READ_AT_A_TIME: usize = 64 * 1024;
    let operands = |op: &ValidatedOp| {
        let comparisons = op.expect.iter().flat_map(|expect| expect.comparisons());
        let operands = comparisons.filter_map(|comparison| Some(signed(comparison).1?.len()));
        operands.max().unwrap_or(0)
    };
    let words = branch.ops.iter().flat_map(|op| op.args.iter().map(|arg| arg.0.len()));
    let largest = words.chain(branch.ops.iter().map(operands)).max().unwrap_or(0);
    READ_AT_A_TIME + largest
}

/// How many arguments [`claim_args`] writes.
const CLAIM_WORDS: usize = 9;

fn claim_args(cmd: &mut Cmd, branch: &ValidatedBranch, claim: &Claim) {
    let key = branch.locks.iter().position(|lock| lock.key == claim.key).unwrap_or(0);
    let first = claim.steps.first().map_or(0, |step| step.op);
    let (needs, Reserved { delta, floor, ceiling }) = (claim.needs(), claim.reserved());
    cmd.arg(key + 1).arg(first + 1);
    cmd.arg(claim.field.as_ref().map_or(&[][..], |field| &field.0)).arg(tag(&claim.field));
    cmd.arg(delta).arg(needs.low.to_string()).arg(needs.high.to_string());
    cmd.arg(floor.to_string()).arg(ceiling.to_string());
}

/// How many arguments [`op_args`] writes.
fn op_words(op: &ValidatedOp) -> usize {
    let comparisons = op.expect.as_ref().map_or(0, |expect| {
        expect.comparisons().map(|comparison| 1 + usize::from(signed(comparison).1.is_some())).sum()
    });
    3 + shadow_words(op) + op.args.len() + comparisons
}

/// How many words stand before the arguments of a command that has no handler.
fn shadow_words(op: &ValidatedOp) -> usize {
    if op.command.run_by == RunBy::Handler { 0 } else { 4 + op.key_places().count() }
}

fn op_args(cmd: &mut Cmd, op: &ValidatedOp, shadow_bytes_max: u64) {
    let length = shadow_words(op) + op.args.len();
    let mode = match (op.command.run_by, op.command.access) {
        (RunBy::Handler, _) => None,
        (RunBy::Part, _) => Some("P"),
        (RunBy::Whole, _) => Some("W"),
        (RunBy::Copy, Access::Shared) => Some("R"),
        (RunBy::Copy, _) => Some("C"),
    };
    match mode {
        None => {
            cmd.arg(op.handler).arg(length);
        }
        Some(mode) => {
            cmd.arg("SHADOW").arg(length).arg(mode).arg(shadow_bytes_max);
            cmd.arg(op.key_places().count());
            // The command's name is the first word.
            for place in op.key_places() {
                cmd.arg(place + 2);
            }
            cmd.arg(op.command.name);
        }
    }
    for arg in &op.args {
        cmd.arg(arg.0.as_slice());
    }
    let Some(expect) = &op.expect else {
        cmd.arg("0");
        return;
    };
    cmd.arg(expect.comparisons().count());
    for comparison in expect.comparisons() {
        let (sign, operand) = signed(comparison);
        cmd.arg(sign);
        if let Some(operand) = operand {
            cmd.arg(operand);
        }
    }
}

/// A comparison as the script has it, and its operand.
fn signed(comparison: Comparison<'_>) -> (&'static str, Option<&[u8]>) {
    match comparison {
        Comparison::Eq(operand) => ("=", Some(operand)),
        Comparison::Ne(operand) => ("!", Some(operand)),
        Comparison::EqNil => ("N", None),
        Comparison::NeNil => ("M", None),
        Comparison::Gt(operand) => (">", Some(operand)),
        Comparison::Ge(operand) => ("G", Some(operand)),
        Comparison::Lt(operand) => ("<", Some(operand)),
        Comparison::Le(operand) => ("L", Some(operand)),
        Comparison::Exists(true) => ("E", None),
        Comparison::Exists(false) => ("e", None),
    }
}

/// A call of `commit.lua`, `abort.lua` or `settle.lua`.
pub(super) fn outcome(
    digest: &str,
    head: &Head<'_>,
    keys: &[&Arg],
    txids: impl Iterator<Item = Txid>,
) -> Cmd {
    let mut cmd = evalsha(digest, head, keys.iter().copied());
    for txid in txids {
        cmd.arg(txid.to_string());
    }
    cmd
}

/// A branch that is applied again.
#[derive(Debug, Clone, Copy)]
pub(super) struct RedoItem<'a> {
    pub(super) txid: Txid,
    pub(super) writes: &'a [u8],
    /// Whether it fills a hole.
    pub(super) fills: bool,
    /// The done-marker that it leaves.
    pub(super) marker: &'a [u8],
}

/// A call of `redo.lua`.
pub(super) fn redo(digest: &str, head: &Head<'_>, keys: &[Arg], branches: &[RedoItem<'_>]) -> Cmd {
    let mut cmd = evalsha(digest, head, keys.iter());
    for RedoItem { txid, writes, fills, marker } in branches {
        cmd.arg(txid.to_string()).arg(if *fills { "1" } else { "" });
        for whole in [writes, marker] {
            cmd.arg(whole.len().div_ceil(PIECE_BYTES_MAX));
            for piece in whole.chunks(PIECE_BYTES_MAX) {
                cmd.arg(piece);
            }
        }
    }
    cmd
}

/// Bytes of a word that says what a branch wrote: it came in smaller ones, and must pass again.
pub(super) const PIECE_BYTES_MAX: usize = 256 * 1024;

/// A call of `sweep.lua`.
pub(super) fn sweep(digest: &str, head: &Head<'_>, fields: &[Vec<u8>]) -> Cmd {
    let mut cmd = evalsha(digest, head, std::iter::empty());
    for field in fields {
        cmd.arg(field.as_slice());
    }
    cmd
}
