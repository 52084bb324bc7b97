//! Branches that an operator ended by hand, against what the log says: what is told of them.

use assent_common::ParticipantName;
use assent_common::record::{EndedByHand, Record};
use assent_common::wire::transaction::HeuristicBranches;

use super::core::Core;

/// Transactions that a participant's view names; whoever has more, finds them by the metric and the list.
const NAMED_MAX: usize = 10;

impl Core {
    /// Takes note of such a branch, and says it loudly.
    pub(super) fn ended_by_hand(&mut self, record: &Record) {
        let Record::EndedByHand(EndedByHand { id, participant, outcome, detail, .. }) = record
        else {
            return;
        };
        self.history.ended_by_hand(record);
        tracing::error!(
            %id, %participant, ended = outcome.as_str(), decided = outcome.decided(), detail,
            "heuristic damage: a branch was ended by hand, and the log says otherwise; the other branches follow the log. \
             Make good at this participant what differs (docs/guides/recover.md)"
        );
    }

    /// The branches of a participant that were ended so, of transactions that are kept; none is `None`.
    pub(super) fn heuristic_at(&self, name: &ParticipantName) -> Option<HeuristicBranches> {
        let mut ids: Vec<_> = self.history.by_hand_at(name).map(|it| it.id).collect();
        let branches = ids.len() as u64;
        ids.sort_unstable();
        ids.reverse();
        ids.truncate(NAMED_MAX);
        (branches > 0).then_some(HeuristicBranches { branches, latest: ids })
    }
}
