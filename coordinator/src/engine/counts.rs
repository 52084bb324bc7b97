//! Numbers for metrics and health.

use std::collections::BTreeMap;

use assent_common::coordinator::Branch;
use assent_common::outcome::Heuristic;
use assent_common::time::Millis;
use assent_common::wire::transaction::{BranchProgress, ParticipantData, TransactionState};
use assent_engine::Core;

/// Numbers for metrics and health.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Active transactions by state.
    pub active: BTreeMap<&'static str, u64>,
    /// Per participant: branches whose outcome is decided and not acknowledged, and the age of the
    /// oldest decision in milliseconds.
    pub in_doubt: BTreeMap<String, (u64, u64)>,
    /// Per participant: whether its last message was answered.
    pub up: BTreeMap<String, bool>,
    /// Per participant: whether its Redis answers, as it tells; none while it tells nothing.
    pub redis_up: BTreeMap<String, Option<bool>>,
    /// Per participant: whether transactions that name it are refused, because it has not answered
    /// for a while.
    pub away: BTreeMap<String, bool>,
    /// Per participant: whether it takes the log for a copy, without showing that it is one.
    pub stale_log: BTreeMap<String, bool>,
    /// Ended transactions whose answers can be looked up.
    pub history: u64,
    /// Branches whose participants lost their data.
    pub lost: u64,
    /// Per participant and outcome there: branches that were ended by hand, against what the log
    /// says.
    pub heuristic: BTreeMap<(String, &'static str), u64>,
    /// Per participant: whether its data is open, is being resynchronised, or is lost.
    pub data: BTreeMap<String, ParticipantData>,
    /// Participants that were removed, with nothing left of them.
    pub removed: Vec<String>,
}

impl Counts {
    pub(super) fn of(core: &Core, now: Millis) -> Self {
        let mut counts = Self { history: core.history().answers() as u64, ..Self::default() };
        for lane in core.lanes().iter() {
            if lane.url().is_none() && lane.unfinished.is_empty() {
                counts.removed.push(lane.name.to_string());
                continue;
            }
            counts.in_doubt.insert(lane.name.to_string(), (0, 0));
            for outcome in [Heuristic::Committed, Heuristic::Aborted] {
                let all = core.history().by_hand_at(&lane.name);
                let number = all.filter(|it| it.outcome == outcome).count() as u64;
                counts.heuristic.insert((lane.name.to_string(), outcome.as_str()), number);
            }
            counts.data.insert(lane.name.to_string(), lane.data.word());
            counts.redis_up.insert(lane.name.to_string(), lane.redis_up());
            counts.stale_log.insert(lane.name.to_string(), lane.stale_log.is_some());
            counts.away.insert(lane.name.to_string(), lane.breaker.away_since().is_some());
            if let Some(up) = lane.up {
                counts.up.insert(lane.name.to_string(), up);
            }
        }
        for active in core.all_active() {
            *counts.active.entry(state_label(active.machine.state_word())).or_default() += 1;
            let Some((_, decided_at)) = active.machine.outcome() else { continue };
            for (branch, lane) in (0..).map(Branch).zip(&active.lanes) {
                let progress = active.machine.branch_status(branch).progress;
                counts.lost += u64::from(progress == BranchProgress::Lost);
                let waits = matches!(
                    progress,
                    BranchProgress::Committing | BranchProgress::Aborting | BranchProgress::Lost
                );
                if waits {
                    let name = core.lanes()[*lane].name.to_string();
                    let (number, oldest_ms) = counts.in_doubt.entry(name).or_default();
                    *number += 1;
                    *oldest_ms = (*oldest_ms).max(now.since(decided_at));
                }
            }
        }
        counts
    }
}

const fn state_label(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Active => "active",
        TransactionState::Preparing => "preparing",
        TransactionState::Retrying => "retrying",
        TransactionState::Deciding => "deciding",
        TransactionState::Committing => "committing",
        TransactionState::Aborting => "aborting",
        TransactionState::Asking => "asking",
        TransactionState::Ended => "ended",
    }
}
