//! What a decision log takes and gives: records on their way to disk, and where they lie there. The
//! log itself is the coordinator's.

use std::fmt;

/// The kind that the log keeps for its own epoch records; owners use the others.
pub const KIND_EPOCH: u8 = 0;

/// Where a record lies: segment in the upper half, offset in the lower. Later records have greater
/// positions.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// The position of an offset in a segment.
    #[must_use]
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// The segment's number.
    #[must_use]
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset within the segment.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}
impl fmt::Debug for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogPosition({self})")
    }
}

/// How soon an appended record must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As soon as the disk allows: causes a sync.
    Forced,
    /// With the next forced record, or after the lazy interval.
    Lazy,
}

/// What the owner calls its record by until the record has a position; opaque to the log.
pub type Token = u64;

/// A record on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// What `on_durable` will name it by.
    pub token: Token,
    /// What it is; never [`KIND_EPOCH`].
    pub kind: u8,
    /// The record.
    pub payload: Vec<u8>,
    /// How soon it must be durable.
    pub durability: Durability,
}
