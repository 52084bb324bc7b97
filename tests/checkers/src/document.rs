//! What an audit saw of the data past the clients, before the first operation or after the last.
//!
//! A document is one line of the history, of type `info` and of a process that is no client, as Jepsen writes what its
//! nemesis does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What one counter held at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalCount {
    /// Its value.
    pub value: i64,
    /// The ids of the increments that were applied, each as often as it was; where the workload keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// The bound that every increment kept, where the workload has one: no reading is below it, and neither is the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<i64>,
}

/// How a transaction stood at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Committed, and applied everywhere.
    Committed,
    /// Aborted.
    Aborted,
    /// Anything else: not decided, or not applied everywhere, or in doubt.
    Open,
}

/// One transaction at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalTransaction {
    /// Its id; the same as a mark's, where the workload has marks.
    pub id: String,
    /// How it stood.
    pub ending: Ending,
}

/// The whole system at the end, after every fault was healed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalState {
    /// Every transaction that a coordinator knows.
    pub transactions: Vec<FinalTransaction>,
    /// The keys that are locked, by participant.
    pub locked: BTreeMap<String, Vec<String>>,
    /// The branches that are staged, by participant.
    pub staged: BTreeMap<String, Vec<String>>,
}

/// What an audit saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// `opening-balances`: what each account began with.
    OpeningBalances(BTreeMap<String, i64>),
    /// `final-balances`: what each account held at the end.
    FinalBalances(BTreeMap<String, i64>),
    /// `final-counts`: what each counter held at the end.
    FinalCounts(BTreeMap<String, FinalCount>),
    /// `final-marks`: the marks of each branch at the end, each as often as it is there.
    FinalMarks(BTreeMap<String, Vec<String>>),
    /// `final-state`: what is left open.
    FinalState(FinalState),
}

impl Document {
    /// The `f` of the line.
    #[must_use]
    pub const fn f(&self) -> &'static str {
        match self {
            Self::OpeningBalances(_) => "opening-balances",
            Self::FinalBalances(_) => "final-balances",
            Self::FinalCounts(_) => "final-counts",
            Self::FinalMarks(_) => "final-marks",
            Self::FinalState(_) => "final-state",
        }
    }

    /// The document of this `f`; nothing if there is none.
    pub(crate) fn parse(f: &str, value: &RawValue) -> Option<serde_json::Result<Self>> {
        let text = value.get();
        Some(match f {
            "opening-balances" => serde_json::from_str(text).map(Self::OpeningBalances),
            "final-balances" => serde_json::from_str(text).map(Self::FinalBalances),
            "final-counts" => serde_json::from_str(text).map(Self::FinalCounts),
            "final-marks" => serde_json::from_str(text).map(Self::FinalMarks),
            "final-state" => serde_json::from_str(text).map(Self::FinalState),
            _ => return None,
        })
    }

    /// The value of the line.
    pub(crate) fn value(&self) -> serde_json::Result<Box<RawValue>> {
        use serde_json::value::to_raw_value as raw;
        match self {
            Self::OpeningBalances(balances) | Self::FinalBalances(balances) => raw(balances),
            Self::FinalCounts(counts) => raw(counts),
            Self::FinalMarks(marks) => raw(marks),
            Self::FinalState(state) => raw(state),
        }
    }
}
