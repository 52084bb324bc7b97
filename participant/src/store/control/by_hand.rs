//! What an operator decided of a branch: the field `h:<txid>`.

use assent_common::outcome::Heuristic;
use assent_common::value::{Arg, readable};
use assent_common::{TransactionId, text};
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
    /// The transaction; an earlier version did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TransactionId>,
    /// The keys that the branch was to write, for people: some of them, if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// Keys that are kept of a branch that was ended by hand.
const KEYS_KEPT_MAX: usize = 32;

/// Bytes that are kept of each.
const KEY_BYTES_MAX: usize = 200;

/// The names of keys as they are kept: the first ones, and how many more there were.
#[must_use]
pub fn kept_keys(keys: &[Arg]) -> Vec<String> {
    let named = keys.iter().take(KEYS_KEPT_MAX);
    let mut kept: Vec<String> =
        named.map(|key| text::cut_owned(readable(&key.0), KEY_BYTES_MAX)).collect();
    let more = keys.len().saturating_sub(KEYS_KEPT_MAX);
    kept.extend((more > 0).then(|| format!("and {more} more")));
    kept
}

impl ByHand {
    /// For people: who did what, and why.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { outcome, actor, reason, .. } = self;
        format!("{actor} ended the branch by hand as {}: {reason}", outcome.as_str())
    }

    /// The value of the field.
    pub(crate) fn value(&self) -> String {
        // Texts and words always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads it; what another version wrote says nothing.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
