//! What was heard of a log: `m:c:<log id>` its highest life and its low-water mark, `m:n:<log id>`
//! its newest life, `m:p:<log id>` how far it was on disk.

use std::fmt;

use assent_common::ids::{Epoch, TxNumber};
use assent_common::lives::{Life, SealedWord};
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

/// What a field `m:n:<log id>` holds: `<life> <nonce>`, and the position, the mark and the seal of
/// the word that shows that it was heard, where there is one.
pub(in super::super) fn write_life(life: Life, heard: Option<SealedWord>) -> String {
    let Life { epoch, nonce } = life;
    match heard {
        Some(SealedWord { mark, position, seal, .. }) => {
            format!("{epoch} {nonce} {position} {mark} {seal}")
        }
        None => format!("{epoch} {nonce}"),
    }
}

/// Reads it.
pub(in super::super) fn read_life(value: &str) -> Option<(Life, Option<SealedWord>)> {
    let [epoch, nonce, sealed @ ..] = &numbers(value)?[..] else { return None };
    let life = Life { epoch: Epoch(*epoch), nonce: *nonce };
    match *sealed {
        [] => Some((life, None)),
        [position, mark, seal] => {
            Some((life, Some(SealedWord { epoch: life.epoch, mark, position, seal })))
        }
        _ => None,
    }
}

/// What a field `m:p:<log id>` holds: how far the log was on disk, the life that told it, and the
/// mark and the seal of the word that shows that, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct ToldPosition {
    pub(in super::super) position: u64,
    pub(in super::super) epoch: Epoch,
    pub(in super::super) word: Option<SealedWord>,
}

impl ToldPosition {
    pub(in super::super) fn parse(value: &str) -> Option<Self> {
        let [position, epoch, sealed @ ..] = &numbers(value)?[..] else { return None };
        let (position, epoch) = (*position, Epoch(*epoch));
        let word = match *sealed {
            [] => None,
            [mark, seal] => Some(SealedWord { epoch, mark, position, seal }),
            _ => return None,
        };
        Some(Self { position, epoch, word })
    }
}

impl fmt::Display for ToldPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, epoch, word } = self;
        match word {
            Some(SealedWord { mark, seal, .. }) => write!(f, "{position} {epoch} {mark} {seal}"),
            None => write!(f, "{position} {epoch}"),
        }
    }
}

fn numbers(value: &str) -> Option<Vec<u64>> {
    value.split(' ').map(|number| number.parse().ok()).collect()
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
        let said = SealedWord { epoch: Epoch(2), mark: 8, position: 900, seal: u64::MAX };
        for word in [None, Some(said)] {
            assert_eq!(read_life(&write_life(life, word)), Some((life, word)));
            let told = ToldPosition { position: 900, epoch: Epoch(2), word };
            assert_eq!(ToldPosition::parse(&told.to_string()), Some(told));
        }
        assert_eq!(
            (read_mark(b"3 2"), read_life("2"), ToldPosition::parse("")),
            (None, None, None)
        );
    }
}
