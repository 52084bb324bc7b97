//! Branches that an operator ended by hand, against what the log says: what is told of them.

use assent_common::ParticipantName;
use assent_common::wire::transaction::HeuristicBranches;
use assent_engine::History;

/// Transactions that a participant's view names; whoever has more, finds them by the metric and the
/// list.
const NAMED_MAX: usize = 10;

/// The branches of a participant that were ended so, of transactions that are kept; none is `None`.
pub(super) fn heuristic_at(history: &History, name: &ParticipantName) -> Option<HeuristicBranches> {
    let mut ids: Vec<_> = history.by_hand_at(name).map(|it| it.id).collect();
    let branches = ids.len() as u64;
    ids.sort_unstable();
    ids.reverse();
    ids.truncate(NAMED_MAX);
    (branches > 0).then_some(HeuristicBranches { branches, latest: ids })
}
