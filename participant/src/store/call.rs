//! The commands that go to Redis: which branches share a call of a script, and how they stand in
//! its arguments.

use std::collections::BTreeSet;

use assent_common::command::{Access, Comparison, RunBy, ValidatedBranch, ValidatedOp};
use assent_common::ids::Txid;
use assent_common::value::Arg;
use assent_common::wire::branch::Mode;
use redis::Cmd;

use super::StoreOptions;
use super::packed::kind_letter;
use super::work::PrepareItem;

/// Branches of one call. With the bounds below, this keeps a call at about a millisecond, in which
/// Redis answers nobody else; a branch that is larger by itself goes alone.
pub(super) const BRANCHES_PER_CALL_MAX: usize = 32;

/// Ops of one call.
pub(super) const OPS_PER_CALL_MAX: usize = 256;

/// Words of the ops of one call.
pub(super) const WORDS_PER_CALL_MAX: usize = 4_096;

/// Bytes of the arguments of one call.
pub(super) const BYTES_PER_CALL_MAX: usize = 256 * 1024;

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

/// A call of `evaluate.lua`. It asks for the right to each write of what is kept: a vote writes
/// none of them, so that nothing else would tell before the commit. And if Redis has refused some
/// writes of late, whether it keeps anything.
pub(super) fn evaluate(
    digest: &str,
    options: &StoreOptions,
    items: &[PrepareItem],
    asks_memory: bool,
) -> Cmd {
    let StoreOptions { control_key, shadow_bytes_max, .. } = options;
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
        item.evaluated_ops().for_each(|(_, op)| op_args(&mut cmd, op, *shadow_bytes_max));
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
pub(super) fn redo<'a>(
    digest: &str,
    control_key: &str,
    keys: &BTreeSet<&Arg>,
    branches: impl Iterator<Item = RedoItem<'a>>,
) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(digest).arg(1 + keys.len()).arg(control_key);
    for key in keys {
        cmd.arg(key.0.as_slice());
    }
    for RedoItem { txid, writes, fills, marker } in branches {
        cmd.arg(txid.to_string()).arg(if fills { "1" } else { "" });
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
