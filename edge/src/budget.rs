//! The memory that requests may hold, in bytes over all of them: what strangers can make a server keep.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that parsing may need for one word of an op beyond those of its text: a vector of its own, and its slack.
const BYTES_PER_WORD: usize = 64;

/// The same for one op: a word's, and what it may expect.
const BYTES_PER_OP: usize = 384;

/// Bytes to hold requests in; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<Semaphore>,
    total: usize,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// That many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total = bytes.min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(total)), total }
    }

    /// Nothing of it yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), permit: None }
    }

    /// Bytes that nobody holds.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.available_permits()
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

/// What it may need to parse this JSON, beyond its text: a word of two bytes becomes a vector, an op of eleven a
/// structure. What stands in strings counts as well; it is given back when the request is parsed.
pub(crate) fn bytes_to_parse(json: &[u8]) -> usize {
    let cost = |byte: &u8| match byte {
        b',' => BYTES_PER_WORD,
        b'{' => BYTES_PER_OP,
        _ => 0,
    };
    json.iter().map(cost).sum()
}

impl Held {
    /// Takes that many more, if they are there. Never waits: who waits for memory holds memory.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Ok(count) = u32::try_from(bytes) else { return false };
        let left = Arc::clone(&self.budget.left);
        let Ok(more) = left.try_acquire_many_owned(count) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        true
    }

    /// Gives back all but that many.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let excess = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(excess));
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
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
        assert_eq!(bytes_to_parse(b"[0,0,{}]"), 2 * BYTES_PER_WORD + BYTES_PER_OP);
        drop(held);
        assert_eq!(budget.left(), budget.total());
    }
}
