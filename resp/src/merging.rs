//! Transactions of several connections that run as one.
//!
//! What many clients ask for in the same moment costs hardly more than what one of them asks for,
//! if it is one transaction: one message to each participant, one decision, one sync. Nobody may
//! suffer for it, so a merged transaction waits for no lock: where anything stands in its way it is
//! aborted at once, nothing of it is done, and each part runs for itself.
//!
//! ```text
//! connection ──join──►┐                           ┌──answers──► connection
//! connection ──join──►├ open ──close──► the engine┤
//! connection ──join──►┘                           └──for itself─► connection
//!        as long as somebody else is ready
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::planned::{Group, Planned};
use crate::reply::Value;

/// Parts of a merged transaction.
const PARTS_MAX: u32 = 64;

/// How much more may be merged after each transaction that went well: a part in so many.
const GROWTH: u32 = 16;

/// How many of its transactions a connection runs for itself, when one that was merged fell apart
/// by its fault.
pub(crate) const APART: u32 = 64;

/// Merged transactions that have not begun.
#[derive(Debug)]
pub(crate) struct Merging {
    open: Mutex<Open>,
    /// How many parts a transaction may have, in parts of [`GROWTH`]. It halves whenever one falls
    /// apart: where clients want the same keys, merging costs more than it gives.
    room: AtomicU32,
}

#[derive(Debug, Default)]
struct Open {
    mergers: Vec<Merger>,
    last: u64,
}

/// Several groups on their way to be one.
#[derive(Debug)]
struct Merger {
    number: u64,
    group: Group,
    parts: Vec<MergedPart>,
}

/// What one connection has added.
#[derive(Debug)]
struct MergedPart {
    /// How many transactions.
    count: usize,
    said: oneshot::Sender<PartRun>,
}

/// What a connection hears of its part.
#[derive(Debug)]
pub(crate) enum PartRun {
    /// The answer of each transaction.
    Answered(Vec<Value>),
    /// Nothing was done: it is to run for itself.
    ForItself {
        group: Group,
        /// Whether it was tried together with others.
        fell_apart: bool,
    },
}

/// A part that was added.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Hears what became of it.
    pub heard: oneshot::Receiver<PartRun>,
    /// The number of the merged transaction, for the first part: it has it closed and run.
    pub first_of: Option<u64>,
}

/// A merged transaction that is complete.
#[derive(Debug)]
pub(crate) struct Merged {
    /// All of its transactions.
    pub group: Group,
    parts: Vec<MergedPart>,
}

impl Default for Merging {
    fn default() -> Self {
        Self { open: Mutex::default(), room: AtomicU32::new(PARTS_MAX * GROWTH) }
    }
}

impl Merging {
    /// Adds a group to those that other connections ask for at the same participants.
    pub(crate) fn join(&self, mut group: Group) -> Joined {
        let (said, heard) = oneshot::channel();
        let part = MergedPart { count: group.planned().len(), said };
        let room = self.room.load(Ordering::Relaxed) / GROWTH;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for merger in &mut open.mergers {
            if merger.parts.len() >= room as usize {
                continue;
            }
            match merger.group.absorb(group) {
                Ok(()) => {
                    merger.parts.push(part);
                    return Joined { heard, first_of: None };
                }
                Err(another) => group = another,
            }
        }
        open.last += 1;
        let number = open.last;
        open.mergers.push(Merger { number, group, parts: vec![part] });
        Joined { heard, first_of: Some(number) }
    }

    /// Takes a merged transaction out: nothing is added to it any more.
    pub(crate) fn close(&self, number: u64) -> Option<Merged> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open.mergers.iter().position(|merger| merger.number == number)?;
        let Merger { group, parts, .. } = open.mergers.swap_remove(place);
        Some(Merged { group, parts })
    }

    fn went_well(&self) {
        let more = |room| (room < PARTS_MAX * GROWTH).then_some(room + 1);
        let _at_most = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn fell_apart(&self) {
        let fewer = |room: u32| Some((room / 2).max(GROWTH));
        let _always = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }
}

/// The parts of a merged transaction, which wait for what becomes of it.
#[derive(Debug)]
pub(crate) struct Parts(Vec<MergedPart>);

impl Merged {
    /// The group and its parts; nothing if there is one part only, which is told to run for itself.
    pub(crate) fn begin(self, merging: &Merging) -> Option<(Group, Parts)> {
        let Self { group, mut parts } = self;
        if parts.len() > 1 {
            return Some((group, Parts(parts)));
        }
        merging.went_well();
        if let Some(MergedPart { said, .. }) = parts.pop() {
            // Who has left wants nothing done.
            let _left = said.send(PartRun::ForItself { group, fell_apart: false });
        }
        None
    }
}

impl Parts {
    /// Tells each its answers, which are in the order of the transactions.
    pub(crate) fn answered(self, merging: &Merging, answers: Vec<Value>) {
        merging.went_well();
        let mut answers = answers.into_iter();
        for MergedPart { count, said } in self.0 {
            let of_part = answers.by_ref().take(count).collect();
            let _left = said.send(PartRun::Answered(of_part));
        }
    }

    /// Tells each to run for itself, as nothing was done.
    pub(crate) fn fell_apart(self, merging: &Merging, planned: Vec<Planned>) {
        merging.fell_apart();
        let mut planned = planned.into_iter();
        for MergedPart { count, said } in self.0 {
            if let Some(group) = Group::of(planned.by_ref().take(count)) {
                let _left = said.send(PartRun::ForItself { group, fell_apart: true });
            }
        }
    }
}
