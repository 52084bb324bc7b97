//! A batch, sorted into the calls that it takes.

use assent_common::Txid;

use super::call::{self, PrepareItem};
use super::work::Work;

/// The messages of a batch by kind, outcomes first: they free the locks that prepares want. What is
/// done is taken out.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) commits: Vec<(usize, Txid)>,
    pub(super) aborts: Vec<(usize, Txid)>,
    pub(super) settles: Vec<(usize, Txid)>,
    pub(super) prepares: Vec<PrepareItem>,
}

impl Sorted {
    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty()
            && self.aborts.is_empty()
            && self.settles.is_empty()
            && self.prepares.is_empty()
    }

    /// Takes messages out, in calls of bounded work: all outcomes, and prepares for as many calls
    /// as may be under way.
    pub(super) fn take_work(&mut self) -> Vec<Work> {
        let mut work = Vec::with_capacity(3);
        for txids in std::mem::take(&mut self.commits).chunks(call::BRANCHES_PER_CALL_MAX) {
            work.push(Work::Commits(txids.to_vec()));
        }
        for txids in std::mem::take(&mut self.aborts).chunks(call::BRANCHES_PER_CALL_MAX) {
            work.push(Work::Aborts(txids.to_vec()));
        }
        for txids in std::mem::take(&mut self.settles).chunks(call::BRANCHES_PER_CALL_MAX) {
            work.push(Work::Settles(txids.to_vec()));
        }
        let prepares = std::mem::take(&mut self.prepares);
        let mut calls = call::chunks(prepares);
        let later = calls.split_off(calls.len().min(call::PREPARE_CALLS_MAX));
        self.prepares = later.into_iter().flatten().collect();
        work.extend(calls.into_iter().map(Work::Prepares));
        work
    }

    pub(super) fn put_back(&mut self, work: Work) {
        match work {
            Work::Commits(txids) => self.commits.extend(txids),
            Work::Aborts(txids) => self.aborts.extend(txids),
            Work::Settles(txids) => self.settles.extend(txids),
            Work::Prepares(items) => self.prepares.extend(items),
        }
    }
}
