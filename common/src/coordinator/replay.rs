//! What a coordinator learns from its log when it starts. Everything that runs a log reads it
//! through this one type.

use super::authority::Decisions;
use super::recovery::Unfinished;
use super::resync::SeenData;
use crate::lives::Lives;
use crate::record::Record;

/// The log, read from its first record to its last.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The transactions that go on, and the registered participants.
    pub unfinished: Unfinished,
    /// Which transactions were ever committed.
    pub decisions: Decisions,
    /// What was seen of the participants' data.
    pub seen: SeenData,
    /// The process lives of the log.
    pub lives: Lives,
}

impl Replay {
    /// Takes the next record. Fails with the reason if the record cannot be what was written.
    pub fn apply(&mut self, record: Record) -> Result<(), String> {
        self.seen.apply(&record);
        match &record {
            Record::Committed(committed) => self.decisions.apply(committed),
            Record::CommittedSet(set) => self.decisions.apply_set(set)?,
            Record::LifeBegan(began) => self.lives.began(*began),
            Record::SealKey(key) => self.lives.sealed_with(*key),
            _ => {}
        }
        self.unfinished.apply(record);
        Ok(())
    }
}
