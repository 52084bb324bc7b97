//! The duties of a participant, as scripts. Pure data: who reads this list reads the protocol.

mod branch;
mod doubt;
mod kept;
mod speaker;

use crate::duty::Duty;

/// All duties, in the order in which they are checked. The first one measures what a write does;
/// the last one leaves a participant that serves nobody.
pub fn duties() -> impl Iterator<Item = &'static Duty> {
    [branch::BRANCH, speaker::SPEAKER, doubt::DOUBT, kept::KEPT].into_iter().flatten()
}
