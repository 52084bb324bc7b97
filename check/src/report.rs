//! What a check has found.

use serde::Serialize;

use crate::duty::{Duty, DutyNeeds};

/// How a duty came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DutyVerdict {
    /// It is kept.
    Ok,
    /// It is not kept.
    Failed,
    /// It was not checked.
    NotChecked,
}

/// Where a duty was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// The step, from 1.
    pub step: usize,
    /// What was sent or done.
    pub sent: String,
    /// What came.
    pub came: String,
    /// What is right.
    pub right: String,
    /// What is wrong with what came.
    pub wrong: String,
}

/// What was found of one duty.
#[derive(Debug, Clone, Serialize)]
pub struct DutyReport {
    /// Its name.
    pub duty: &'static str,
    /// How it came out.
    pub verdict: DutyVerdict,
    /// What it demands.
    pub demand: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What was met, where it is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
    /// Why it was not checked, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_checked: Option<&'static str>,
}

impl DutyReport {
    fn of(duty: &Duty, verdict: DutyVerdict) -> Self {
        let Duty { name, demand, why, .. } = duty;
        Self { duty: name, verdict, demand, why, shortfall: None, not_checked: None }
    }

    pub(crate) fn played(duty: &Duty, played: Result<(), Shortfall>) -> Self {
        match played {
            Ok(()) => Self::of(duty, DutyVerdict::Ok),
            Err(shortfall) => {
                let failed = Self::of(duty, DutyVerdict::Failed);
                Self { shortfall: Some(shortfall), ..failed }
            }
        }
    }

    pub(crate) fn not_checked(duty: &Duty, why: &'static str) -> Self {
        Self { not_checked: Some(why), ..Self::of(duty, DutyVerdict::NotChecked) }
    }
}

impl DutyNeeds {
    /// Why a duty is not checked without this.
    pub(crate) const fn lacking(self) -> &'static str {
        match self {
            Self::Nothing => "a duty before it has failed",
            Self::Conflict => "it needs an example `conflict` (--ops)",
            Self::Restart => "it needs --restart-command",
            Self::Token => "it needs --token-file",
            Self::Loss => "it needs --with-loss, behind which the participant serves nobody",
        }
    }
}
