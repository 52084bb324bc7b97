//! The registry of participants: their lanes, and the records that keep them over restarts.

use std::sync::Arc;
use std::time::Duration;

use assent_common::coordinator::{Branch, Outcome};
use assent_common::record::{ParticipantRemoved, ParticipantSet, Record};
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{AbandonRequest, BranchProgress, ForcedRemoval};
use assent_common::{ErrorCode, ParticipantName, TransactionId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::Core;
use super::journal::Appended;
use super::lane::Lane;
use super::{Engine, Shared};
use crate::log::Durability;

/// How long a removal by force waits for what is not decided yet. Nothing of it goes on for longer than its deadline, but
/// who asked should not wait that long for an answer.
const UNDECIDED_WAIT: Duration = Duration::from_secs(10);

/// How often it looks.
const UNDECIDED_LOOK: Duration = Duration::from_millis(50);

/// What an operator has given up of a participant.
#[derive(Default)]
struct GivenUp {
    /// Hear when each is durable.
    durable: Vec<oneshot::Receiver<()>>,
    committed: u64,
    aborted: u64,
    /// Branches whose transactions are still open.
    undecided: u64,
}

impl Engine {
    /// Removes a participant with all that it was not told yet: recorded, branch by branch, with who and why
    /// (invariant 16). It takes no new transactions from the first moment on; if some are still open after a while, the
    /// rest is done, and the answer says to ask again.
    pub async fn remove_participant_by_force(
        &self,
        name: &ParticipantName,
        by: &AbandonRequest,
    ) -> Result<ForcedRemoval, Problem> {
        let stopping = || Problem::new(ErrorCode::NotReady, "the process is stopping");
        let removed = self.core().unregister(name)?;
        if let Some(durable) = removed {
            durable.await.map_err(|_| stopping())?;
        }
        let AbandonRequest { actor, reason } = by;
        tracing::error!(participant = %name, actor, reason, "an operator removes a participant by force");
        let mut removal = ForcedRemoval { name: name.clone(), committed: 0, aborted: 0 };
        let give_up_at = Instant::now() + UNDECIDED_WAIT;
        loop {
            let given_up = self.core().give_up_all(name, by)?;
            for durable in given_up.durable {
                durable.await.map_err(|_| stopping())?;
            }
            removal.committed += given_up.committed;
            removal.aborted += given_up.aborted;
            match given_up.undecided {
                0 => return Ok(removal),
                undecided if Instant::now() >= give_up_at => {
                    let detail = format!(
                        "participant {name} is removed; {undecided} transactions with a branch there are not decided \
                         yet: none goes on for longer than its deadline; ask again then"
                    );
                    return Err(of_participant(name, ErrorCode::WrongState, detail));
                }
                _ => tokio::time::sleep(UNDECIDED_LOOK).await,
            }
        }
    }
}

const fn has_ended(progress: BranchProgress) -> bool {
    matches!(
        progress,
        BranchProgress::Applied
            | BranchProgress::Aborted
            | BranchProgress::Abandoned
            | BranchProgress::HeuristicCommitted
            | BranchProgress::HeuristicAborted
    )
}

fn of_participant(name: &ParticipantName, code: ErrorCode, detail: String) -> Problem {
    Problem { participant: Some(name.to_string()), ..Problem::new(code, detail) }
}

fn not_registered(name: &ParticipantName) -> Problem {
    let detail = format!("no participant {name} is registered");
    of_participant(name, ErrorCode::NotFound, detail)
}

impl Core {
    /// The lane of a participant; made without a URL if it is not registered.
    pub(super) fn lane(&mut self, name: &ParticipantName) -> usize {
        if let Some(lane) = self.lane_of.get(name) {
            return *lane;
        }
        self.lanes.push(Lane::new(name.clone()));
        let lane = self.lanes.len() - 1;
        self.lane_of.insert(name.clone(), lane);
        lane
    }

    /// The lane of a registered participant.
    pub(super) fn registered_lane(&self, name: &ParticipantName) -> Option<usize> {
        self.lane_of.get(name).copied().filter(|lane| self.lanes[*lane].url().is_some())
    }

    /// Registers a participant, or moves it. The receiver hears when that is durable.
    pub(super) fn set_participant(
        &mut self,
        name: &ParticipantName,
        url: &str,
        shared: &Arc<Shared>,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let lane = self.lane(name);
        self.lanes[lane].set_url(url, lane, shared)?;
        let (told, durable) = oneshot::channel();
        let record =
            Record::ParticipantSet(ParticipantSet { name: name.clone(), url: url.to_owned() });
        self.append(&record, Durability::Forced, Appended::Told(told));
        Ok(durable)
    }

    /// The same from the configuration or the log, which need no record.
    pub(super) fn restore_participant(
        &mut self,
        name: &ParticipantName,
        url: &str,
        shared: &Arc<Shared>,
    ) -> Result<(), Problem> {
        let lane = self.lane(name);
        self.lanes[lane].set_url(url, lane, shared)
    }

    pub(super) fn remove_participant(
        &mut self,
        name: &ParticipantName,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let lane = self.registered_lane(name).ok_or_else(|| not_registered(name))?;
        let unfinished = self.lanes[lane].unfinished.len();
        if unfinished > 0 {
            let detail = format!(
                "participant {name} has {unfinished} unfinished transactions; wait, move it, or give them up (assent \
                 participants remove {name} --force)"
            );
            return Err(of_participant(name, ErrorCode::WrongState, detail));
        }
        Ok(self.close_lane(lane))
    }

    fn close_lane(&mut self, lane: usize) -> oneshot::Receiver<()> {
        let lane = &mut self.lanes[lane];
        lane.clear_url();
        let name = lane.name.clone();
        let (told, durable) = oneshot::channel();
        let record = Record::ParticipantRemoved(ParticipantRemoved { name });
        self.append(&record, Durability::Forced, Appended::Told(told));
        durable
    }

    /// Takes a participant out of the registry, whatever it was not told yet. Nothing if that was done before and some of
    /// it is left.
    fn unregister(
        &mut self,
        name: &ParticipantName,
    ) -> Result<Option<oneshot::Receiver<()>>, Problem> {
        if let Some(lane) = self.registered_lane(name) {
            return Ok(Some(self.close_lane(lane)));
        }
        match self.waiting_at(name).is_empty() {
            false => Ok(None),
            true => Err(not_registered(name)),
        }
    }

    /// Gives up every decided branch that a participant was not told of, or has not acknowledged.
    fn give_up_all(
        &mut self,
        name: &ParticipantName,
        by: &AbandonRequest,
    ) -> Result<GivenUp, Problem> {
        let mut given_up = GivenUp::default();
        for (id, progress, is_committed) in self.waiting_at(name) {
            if matches!(progress, BranchProgress::Preparing | BranchProgress::Prepared) {
                given_up.undecided += 1;
                continue;
            }
            let AbandonRequest { actor, reason } = by.clone();
            given_up.durable.push(self.abandon(id, name, actor, reason)?);
            given_up.committed += u64::from(is_committed);
            given_up.aborted += u64::from(!is_committed);
        }
        Ok(given_up)
    }

    /// The branches at a participant that have not ended there, and whether their transactions were committed.
    fn waiting_at(&self, name: &ParticipantName) -> Vec<(TransactionId, BranchProgress, bool)> {
        let Some(&lane) = self.lane_of.get(name) else { return Vec::new() };
        let mut waiting = Vec::new();
        for number in &self.lanes[lane].unfinished {
            let Some(active) = self.active.get(number) else { continue };
            let outcome = active.machine.outcome();
            let is_committed = matches!(outcome, Some((Outcome::Committed { .. }, _)));
            let branches = (0..).map(Branch).zip(&active.lanes).filter(|(_, at)| **at == lane);
            let id = active.accepted.identity.id;
            let progress =
                branches.map(|(branch, _)| active.machine.branch_status(branch).progress);
            waiting.extend(
                progress.filter(|progress| !has_ended(*progress)).map(|p| (id, p, is_committed)),
            );
        }
        waiting
    }
}
