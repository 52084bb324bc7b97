//! The machine as a control hash has it: for an agent that goes on where another one stopped.

use super::{Counter, DoneMarker, Heard, Key, Participant, Staged};
use crate::command::{Access, Reserved};
use crate::ids::{LogId, Txid};

/// What is read from a control hash, in any order.
///
/// Locks are what the staged records say, because only a staged branch holds any; so is what a
/// branch has reserved in escrow.
#[derive(Debug)]
pub struct Restored(Participant);

impl Restored {
    /// Of the data of this incarnation, whose last vote had this number.
    #[must_use]
    pub const fn new(incarnation: u64, seq: u64) -> Self {
        let mut participant = Participant::new(incarnation);
        participant.seq = seq;
        Self(participant)
    }

    /// Of what was read before, for who reads on: what comes behind it.
    #[must_use]
    pub const fn go_on(participant: Participant) -> Self {
        Self(participant)
    }

    /// The number of the last vote.
    pub const fn seq(&mut self, seq: u64) {
        self.0.seq = seq;
    }

    /// A branch is in doubt no more, and its locks are free.
    pub fn ended(&mut self, txid: Txid) {
        self.0.free(txid);
    }

    /// A branch in doubt, and how it locks its keys.
    pub fn staged(&mut self, txid: Txid, staged: Staged, locks: &[(Key, Access)]) {
        for (key, access) in locks {
            self.0.locks.take(txid, staged.id, key, *access);
        }
        self.0.staged.insert(txid, staged);
    }

    /// What a branch in doubt has reserved of a counter. It comes behind the branch.
    pub fn reserved(&mut self, txid: Txid, key: &Key, counter: Counter, reserved: Reserved) {
        self.0.locks.reserve(txid, key, counter, reserved);
    }

    /// A done-marker.
    pub fn done(&mut self, txid: Txid, marker: DoneMarker) {
        self.0.done.insert(txid, marker);
    }

    /// A fence.
    pub fn fence(&mut self, txid: Txid) {
        self.0.fences.insert(txid);
    }

    /// What a log has said of itself.
    pub fn heard(&mut self, log_id: LogId, heard: Heard) {
        self.0.logs.insert(log_id, heard);
    }

    /// The machine.
    #[must_use]
    pub fn finish(self) -> Participant {
        self.0
    }
}
