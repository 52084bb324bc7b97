//! Heuristic outcomes: branches that an operator ended by hand, against what the log says. The outcome cannot be delivered
//! to such a branch any more, so that its delivery is over. That it was is written down, and shown as long as the
//! transaction is.

use super::effect::{Branch, Effect, Note};
use super::state::{EndedByHand, Transaction};
use crate::outcome::Heuristic;

impl Transaction {
    /// A participant says it.
    pub(super) fn ended_by_hand(
        &mut self,
        branch: Branch,
        outcome: Heuristic,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        let note = Note::EndedByHand { branch, outcome, detail: detail.clone() };
        effects.push(Effect::Note(note));
        self.by_hand.push(EndedByHand { branch, outcome, detail, is_recorded: false });
    }

    /// The log has it.
    pub(super) fn by_hand_is_recorded(&mut self, branch: Branch, outcome: Heuristic, detail: &str) {
        let mut known = self.by_hand.iter_mut();
        match known.find(|known| known.branch == branch && known.outcome == outcome) {
            Some(known) => known.is_recorded = true,
            None => {
                let detail = detail.to_owned();
                self.by_hand.push(EndedByHand { branch, outcome, detail, is_recorded: true });
            }
        }
    }

    /// How an operator ended a branch by hand, if one did.
    #[must_use]
    pub fn by_hand(&self, branch: Branch) -> Option<&EndedByHand> {
        self.by_hand.iter().find(|known| known.branch == branch)
    }
}
