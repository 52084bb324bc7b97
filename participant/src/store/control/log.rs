//! What was heard of a log: `m:c:<log id>` its highest life and its low-water mark, `m:n:<log id>`
//! its newest life, `m:p:<log id>` how far it was on disk.

use std::fmt;

use assent_common::ids::{Epoch, TxNumber};
use assent_common::lives::Life;
use assent_common::participant::Heard;

/// What a field `m:c:<log id>` holds: `<highest life> <life of the mark> <n of the mark>`.
pub(in super::super) fn write_mark(heard: Heard) -> String {
    let Heard { epoch, low_water } = heard;
    format!("{epoch} {} {}", low_water.epoch, low_water.n)
}

/// Reads it.
pub(in super::super) fn read_mark(value: &[u8]) -> Option<Heard> {
    let mut numbers = std::str::from_utf8(value).ok()?.split(' ').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let epoch = Epoch(number()?);
    let low_water = TxNumber { epoch: Epoch(number()?), n: number()? };
    Some(Heard { epoch, low_water })
}

/// What a field `m:n:<log id>` holds: `<life> <nonce>`.
pub(in super::super) fn write_life(life: Life) -> String {
    format!("{} {}", life.epoch, life.nonce)
}

/// Reads it.
pub(in super::super) fn read_life(value: &str) -> Option<Life> {
    let (epoch, nonce) = value.split_once(' ')?;
    Some(Life { epoch: Epoch(epoch.parse().ok()?), nonce: nonce.parse().ok()? })
}

/// What a field `m:p:<log id>` holds: how far the log was on disk, and the life that told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct ToldPosition {
    pub(in super::super) position: u64,
    pub(in super::super) epoch: Epoch,
}

impl ToldPosition {
    pub(in super::super) fn parse(value: &str) -> Option<Self> {
        let (position, epoch) = value.split_once(' ')?;
        Some(Self { position: position.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
}

impl fmt::Display for ToldPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.position, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_log_is_read() {
        let low_water = TxNumber { epoch: Epoch(2), n: u64::MAX };
        let heard = Heard { epoch: Epoch(3), low_water };
        assert_eq!(read_mark(write_mark(heard).as_bytes()), Some(heard));
        let life = Life { epoch: Epoch(2), nonce: 7 };
        assert_eq!(read_life(&write_life(life)), Some(life));
        let told = ToldPosition { position: 900, epoch: Epoch(2) };
        assert_eq!(ToldPosition::parse(&told.to_string()), Some(told));
        assert_eq!(
            (read_mark(b"3 2"), read_life("2"), ToldPosition::parse("")),
            (None, None, None)
        );
    }
}
