//! The memory that requests may hold, in bytes over all of them: what strangers can make a server keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that parsing may need for one word of an op beyond those of its text: a vector of its own, and its slack.
pub const BYTES_PER_WORD: usize = 64;

/// The same for one op: a word's, and what it may expect.
pub const BYTES_PER_OP: usize = 384;

/// Bytes to hold requests in; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<AtomicUsize>,
    total: usize,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// That many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)), total: bytes }
    }

    /// Nothing of it yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }

    /// Bytes that nobody holds.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Relaxed)
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

/// What it may need to parse this JSON, beyond its text: a word of two bytes becomes a vector, as
/// does an array that is opened, and an op of eleven a structure. What stands in strings counts as well; it is given back when the request is parsed.
pub(crate) fn bytes_to_parse(json: &[u8]) -> usize {
    (count(json, b',') + count(json, b'[')) * BYTES_PER_WORD + count(json, b'{') * BYTES_PER_OP
}

/// How often a byte occurs. In parts whose counts fit into a byte, so that the compiler counts many
/// at a time.
fn count(text: &[u8], wanted: u8) -> usize {
    let in_part = |part: &[u8]| part.iter().map(|byte| u8::from(*byte == wanted)).sum::<u8>();
    text.chunks(usize::from(u8::MAX)).map(|part| usize::from(in_part(part))).sum()
}

impl Held {
    /// Takes that many more, if they are there. Never waits: who waits for memory holds memory.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        // Nothing but the number is shared.
        let taken = |left: usize| left.checked_sub(bytes);
        let is_there = self.budget.left.fetch_update(Relaxed, Relaxed, taken).is_ok();
        if is_there {
            self.bytes += bytes;
        }
        is_there
    }

    /// Gives back all but that many.
    pub fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.left.fetch_add(excess, Relaxed);
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_missing_until_it_is_dropped() {
        let budget = Budget::new(1_000);
        let mut held = budget.hold();
        assert!(held.grow(600) && held.grow(300));
        assert!(!budget.hold().grow(101), "100 are left");
        held.shrink_to(200);
        assert_eq!((held.bytes(), budget.left()), (200, 800));
        assert_eq!(bytes_to_parse(b"[0,0,{}]"), 3 * BYTES_PER_WORD + BYTES_PER_OP);
        drop(held);
        assert_eq!(budget.left(), budget.total());
        assert!(!budget.hold().grow(usize::MAX), "more than there is");
    }

    #[test]
    fn a_long_text_of_what_is_counted_is_counted_whole() {
        let commas = vec![b','; 100_000];
        assert_eq!(bytes_to_parse(&commas), commas.len() * BYTES_PER_WORD);
        assert_eq!(bytes_to_parse(&[b'['; 300]), 300 * BYTES_PER_WORD);
        assert_eq!(bytes_to_parse(&[b'{'; 256]), 256 * BYTES_PER_OP);
    }
}
