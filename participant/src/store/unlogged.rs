//! One phase that its log may not have heard of: what this agent remembers of it, and how it finds
//! what became of a call that it had no answer to. Which of it a repair puts back is decided in
//! `assent_common::participant::Unlogged`.

use std::sync::Arc;

use assent_common::Txid;
use assent_common::participant::{DoneMarker, Heard, UnloggedBranch};

use super::connection::Connection;
use super::control::{Field, done_marker, pattern};
use super::data::DataIdentity;
use super::{StoreError, mutants};
use crate::mutex::lock;

impl DataIdentity {
    /// Remembers what one phase came to.
    pub(super) fn remember(&self, incarnation: u64, txid: Txid, seq: u64, marker: Arc<[u8]>) {
        let branch = UnloggedBranch { seq, bytes: marker.len(), marker };
        lock(&self.unlogged).applied(incarnation, txid, branch);
    }

    /// Looks what one phase came to in data that is as this agent knew it, before anybody is
    /// answered on this connection: its own calls that were not answered, and what others left.
    pub(super) async fn look_for_one_phase(
        &self,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        if self.is_quarantined().is_some() || !mutants::looks_for_one_phase() {
            return Ok(());
        }
        let incarnation = self.incarnation();
        let scanned = self.scan_markers(connection, pattern::DONE_AND_OF_LOGS, |field, value| {
            if let Field::Done(txid) = field
                && let Ok(DoneMarker::OnePhase(marker)) = done_marker(&value)
                && let Some((seq, _)) = marker.wrote
            {
                self.saw(incarnation, seq);
                self.remember(incarnation, txid, seq, value.into());
            }
        });
        let heard = connection.or_unavailable(scanned.await)?;
        for (log_id, Heard { low_water, .. }) in heard {
            lock(&self.unlogged).let_go(log_id, low_water);
        }
        Ok(())
    }
}
