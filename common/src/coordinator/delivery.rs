//! The delivery of one outcome to one branch: unbounded in number, idempotent, with capped backoff (invariant 11).

use crate::backoff::Backoff;
use crate::code::ErrorCode;
use crate::time::Millis;

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The message is out; its result will come.
    Sent {
        /// Earlier tries.
        tries: u32,
        /// What came of the last of them.
        problem: Option<Problem>,
    },
    /// The last try brought no acknowledgement; the next is due.
    Due {
        /// When.
        at: Millis,
        /// Tries so far.
        tries: u32,
        /// What came of the last one.
        problem: Problem,
    },
    /// Acknowledged.
    Done,
    /// Acknowledged, and the log has that: the branch is never told again, so that it need not know the transaction.
    Recorded,
    /// Given up by an operator (invariant 16).
    Abandoned,
    /// An operator ended the branch by hand, against the outcome: it cannot be delivered any more.
    Heuristic,
}

/// Why a delivery was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The call's result is not known.
    Unknown(String),
    /// The participant answered that it cannot, yet or ever.
    Refused {
        /// Its code; [`ErrorCode::BranchLost`] and [`ErrorCode::Fenced`] are alarms.
        code: ErrorCode,
        /// Its words.
        detail: String,
    },
}

impl Delivery {
    /// The first send.
    pub const FIRST: Self = Self::Sent { tries: 0, problem: None };

    /// A delivery that is due at once, after a restart.
    #[must_use]
    pub fn due_now(now: Millis) -> Self {
        Self::Due {
            at: now,
            tries: 0,
            problem: Problem::Unknown("not sent since the restart".to_owned()),
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Recorded | Self::Abandoned | Self::Heuristic)
    }

    /// Whether the participant has acknowledged.
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Done | Self::Recorded)
    }

    /// How often it was tried without an acknowledgement; 0 if nothing is left to do.
    pub(super) const fn tries(&self) -> u32 {
        match self {
            Self::Sent { tries, .. } | Self::Due { tries, .. } => *tries,
            Self::Done | Self::Recorded | Self::Abandoned | Self::Heuristic => 0,
        }
    }

    /// When the next try is due, if one is.
    #[must_use]
    pub const fn due_at(&self) -> Option<Millis> {
        match self {
            Self::Due { at, .. } => Some(*at),
            Self::Sent { .. } | Self::Done | Self::Recorded | Self::Abandoned | Self::Heuristic => {
                None
            }
        }
    }

    /// A try failed: the next one comes by the schedule.
    pub(super) fn failed(&mut self, now: Millis, seed: u64, problem: Problem) {
        if let Self::Sent { tries, .. } = *self {
            let at = now.plus(Backoff::OUTCOME.delay_ms(tries, seed));
            *self = Self::Due { at, tries: tries + 1, problem };
        }
    }

    /// Takes the try that is due, if one is; the caller sends.
    pub(super) fn take_due(&mut self, now: Millis) -> bool {
        match self {
            Self::Due { at, tries, problem } if *at <= now => {
                // Who looks while it is out is told what the last one met.
                let problem = Some(std::mem::replace(problem, Problem::Unknown(String::new())));
                *self = Self::Sent { tries: *tries, problem };
                true
            }
            _ => false,
        }
    }

    /// Makes the next try due now.
    pub(super) fn hurry(&mut self, now: Millis) {
        if let Self::Due { at, .. } = self {
            *at = now;
        }
    }
}
