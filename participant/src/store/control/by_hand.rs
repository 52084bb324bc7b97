//! What an operator decided of a branch: the field `h:<txid>`.

use assent_common::outcome::Heuristic;
use serde::{Deserialize, Serialize};

/// What an operator decided of a branch, as its field keeps it: JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// How the branch was ended.
    pub outcome: Heuristic,
    /// Who decided it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Where the branch's outcome was to be asked for; empty where nobody can be asked by the txid
    /// alone.
    pub coordinator: String,
    /// Whether the log is known to say otherwise.
    #[serde(default)]
    pub is_damage: bool,
}

impl ByHand {
    /// For people: who did what, and why.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { outcome, actor, reason, .. } = self;
        format!("{actor} ended the branch by hand as {}: {reason}", outcome.as_str())
    }

    /// The value of the field.
    pub(in super::super) fn value(&self) -> String {
        // Texts and words always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads it; what another version wrote says nothing.
    pub(in super::super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
