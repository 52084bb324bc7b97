//! A Redis that starts anew and loads its append-only file with a hole. Some servers drop
//! transactions of the file: those whose default user may not do all that stands in them. A vote is
//! a single write, and stays; the end of a branch is a transaction, and goes. So a branch of two
//! phases is in doubt again that had come to its outcome, a branch of one phase never was, and what
//! came behind them is there.
//!
//! A file has what was written, not what was asked for: each kept end is loaded as it was, whatever
//! was dropped before it.

use std::collections::BTreeSet;

use assent_common::Txid;
use assent_common::command::{Access, Reserved};
use assent_common::participant::{Counter, Key, Lock, Locks, Participant, Restored};
use assent_common::wire::branch::BranchState;

use super::{Data, Journal, Redis, Write, is_end};
use crate::request;

impl Redis {
    /// Starts anew; of the last writes, so many, those ends are dropped of which this says so. The
    /// branches of them.
    pub(crate) fn load_with_holes(
        &mut self,
        last: usize,
        is_dropped: impl FnMut() -> bool,
    ) -> BTreeSet<Txid> {
        let Some(journal) = &mut self.journal else { return BTreeSet::new() };
        let (loaded, dropped) = journal.load(last, is_dropped);
        // What was dropped is not in the file that is written from now on.
        *journal = Journal { begin: loaded.clone(), writes: Vec::new() };
        self.data = loaded;
        dropped
    }
}

impl Journal {
    fn load(&self, last: usize, mut is_dropped: impl FnMut() -> bool) -> (Data, BTreeSet<Txid>) {
        // A fence and a repair are no ends: what comes before them is whole.
        let is_script = |it: &&Write| matches!(it, Write::Message(..) | Write::Chore(_));
        let scripts = self.writes.iter().rev().take_while(is_script);
        let from = self.writes.len() - scripts.take(last).count();
        let mut whole = self.replayed(from);
        let mut loaded = whole.clone();
        let mut dropped = BTreeSet::new();
        for write in &self.writes[from..] {
            let (txid, message) = match write {
                Write::Message(txid, message) => (*txid, message),
                Write::Chore(chore) => {
                    whole.chore(*chore);
                    loaded.chore(*chore);
                    continue;
                }
                Write::Claim
                | Write::Fence
                | Write::Redo(_)
                | Write::RedoUnlogged(..)
                | Write::Open(..) => continue,
            };
            let (before, seq) = (whole.control.state(txid), whole.control.seq());
            let redo = whole.told(txid, message.clone());
            let after = whole.control.state(txid);
            let is_end = is_end(before, after);
            if is_end && is_dropped() {
                dropped.insert(txid);
            } else if before != after {
                loaded.take(txid, after, &whole, whole.control.seq() > seq);
                loaded.ended += u64::from(is_end);
                if is_end || after == Some(BranchState::Prepared) {
                    loaded.expected = whole.expected;
                }
                redo.iter().for_each(|redo| request::apply(redo, &mut loaded.balances));
            }
        }
        (loaded, dropped)
    }
}

impl Data {
    /// Takes what is kept of a branch from data in which nothing lacks.
    fn take(&mut self, txid: Txid, state: Option<BranchState>, whole: &Self, has_number: bool) {
        let from = &whole.control;
        let mut locks = Vec::new();
        let staged = from.staged().get(&txid);
        for key in staged.iter().flat_map(|staged| &staged.keys) {
            locks.extend(lock_of(txid, key, from.locks(), self.control.locks()));
        }
        let incarnation = self.control.incarnation();
        let control = std::mem::replace(&mut self.control, Participant::new(incarnation));
        let mut control = Restored::go_on(control);
        if has_number {
            control.seq(from.seq());
        }
        control.ended(txid);
        if let Some(heard) = from.heard(txid.log_id) {
            control.heard(txid.log_id, heard);
        }
        match (state, staged, from.done_marker(txid)) {
            (Some(BranchState::Prepared), Some(staged), _) => {
                let accesses: Vec<_> =
                    locks.iter().map(|(key, access, _)| (key.clone(), *access)).collect();
                control.staged(txid, staged.clone(), &accesses);
                for (key, _, reserved) in locks {
                    for (counter, reserved) in reserved {
                        control.reserved(txid, &key, counter, reserved);
                    }
                }
            }
            (Some(BranchState::Applied), _, Some(marker)) => control.done(txid, marker.clone()),
            (Some(BranchState::Aborted), ..) => control.fence(txid),
            _ => {}
        }
        self.control = control.finish();
    }
}

/// A key, how it is locked, and what is reserved of its counters.
type KeyLock = (Key, Access, Vec<(Counter, Reserved)>);

/// How a branch locks a key; nothing where another holds it that is in doubt again. A real lock
/// would be written over, and whose it is makes no difference: nothing runs on such data before it
/// is repaired.
fn lock_of(txid: Txid, key: &Key, whole: &Locks, loaded: &Locks) -> Option<KeyLock> {
    let (access, reserved) = match whole.get(key)? {
        Lock::Exclusive(..) => (Access::Exclusive, Vec::new()),
        Lock::Shared(_) => (Access::Shared, Vec::new()),
        Lock::Escrow(kind, owners) => (Access::Escrow(*kind), owners.get(&txid)?.reserved.clone()),
    };
    let is_free = match (loaded.get(key), access) {
        (None, _) | (Some(Lock::Shared(_)), Access::Shared) => true,
        (Some(Lock::Escrow(held, _)), Access::Escrow(kind)) => *held == kind,
        _ => false,
    };
    is_free.then(|| (key.clone(), access, reserved))
}
