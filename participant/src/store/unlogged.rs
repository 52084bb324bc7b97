//! One phase that its log may not have heard of: what this agent remembers of it, and how it hears
//! what became of a call that it had no answer to. Which of it a repair puts back is decided in
//! `assent_common::participant::Unlogged`.

use std::sync::Arc;

use assent_common::Txid;
use assent_common::participant::{DoneMarker, Heard, UnloggedBranch};

use super::connection::Live;
use super::control::{Field, done_marker, pattern};
use super::sorted::Sorted;
use super::work::Answers;
use super::{Store, StoreError, lock, mutants};

/// Remembers what one phase came to.
pub(super) fn remember(store: &Store, incarnation: u64, txid: Txid, seq: u64, marker: Arc<[u8]>) {
    let branch = UnloggedBranch { seq, bytes: marker.len(), marker };
    lock(&store.unlogged).applied(incarnation, txid, branch);
}

/// Looks what one phase came to in data that is as this agent knew it, before anybody is answered
/// on this connection: its own calls that were not answered, and what others left.
pub(super) async fn look(store: &Store, live: &Live) -> Result<(), StoreError> {
    if store.is_quarantined().is_some() || !mutants::looks_for_one_phase() {
        return Ok(());
    }
    let incarnation = store.incarnation();
    let scanned = store.scan_markers(live, pattern::DONE_AND_OF_LOGS, |field, value| {
        if let Field::Done(txid) = field
            && let Ok(DoneMarker::OnePhase(marker)) = done_marker(&value)
            && let Some((seq, _)) = marker.wrote
        {
            store.saw(incarnation, seq);
            remember(store, incarnation, txid, seq, value.into());
        }
    });
    let heard = scanned.await.map_err(|error| store.unavailable(&error))?;
    for (log_id, Heard { low_water, .. }) in heard {
        lock(&store.unlogged).let_go(log_id, low_water);
    }
    Ok(())
}

/// One phase that was sent to Redis. If what became of it is not known in the end, or nobody waits
/// for it any more, its connection is given up: the next one begins with a look.
pub(super) struct OnePhaseUnderWay<'a> {
    store: &'a Store,
    live: &'a Arc<Live>,
    slots: Vec<usize>,
}

impl<'a> OnePhaseUnderWay<'a> {
    pub(super) fn begins(store: &'a Store, live: &'a Arc<Live>, sorted: &Sorted) -> Self {
        let items = sorted.prepares.iter().filter(|item| item.leaves_marker());
        Self { store, live, slots: items.map(|item| item.slot).collect() }
    }

    pub(super) fn ends(mut self, answers: &Answers) {
        self.slots.retain(|slot| answers.is_unclear(*slot));
    }
}

impl Drop for OnePhaseUnderWay<'_> {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.store.disconnect(self.live, "what became of one phase is not known");
        }
    }
}
