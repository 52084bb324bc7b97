//! What a duty is.

use assent_common::ErrorCode;

use crate::script::{DutyScript, DutyStep};

/// What a duty needs to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DutyNeeds {
    /// Nothing.
    Nothing,
    /// An example of a branch that conflicts with a write.
    Conflict,
    /// A command that kills the participant and starts it again.
    Restart,
    /// A token, which the participant asks for.
    Token,
    /// Leave to make the participant believe that it has lost data.
    Loss,
}

/// A duty of a participant.
#[derive(Debug)]
pub struct Duty {
    /// Its name, for programs and people.
    pub name: &'static str,
    /// What it demands, in a sentence.
    pub demand: &'static str,
    /// Why that matters: what goes wrong for users where it is broken.
    pub why: &'static str,
    /// What is needed to check it.
    pub needs: DutyNeeds,
    pub(crate) script: fn() -> DutyScript,
}

impl Duty {
    /// Its steps.
    pub(crate) fn steps(&self) -> Vec<DutyStep> {
        (self.script)().into_steps()
    }
}

/// Of a branch that has ended, or that began too long ago.
pub(crate) const OVER: &[ErrorCode] =
    &[ErrorCode::Fenced, ErrorCode::BelowLowWater, ErrorCode::StaleEpoch];

/// Of a branch that is not there.
pub(crate) const UNKNOWN: &[ErrorCode] = &[ErrorCode::BranchLost, ErrorCode::BelowLowWater];
