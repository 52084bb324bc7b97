//! Removing a participant by force, with all that it was not told yet.

use std::time::Duration;

use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{AbandonRequest, BranchProgress, ForcedRemoval};
use assent_common::{ErrorCode, ParticipantName, TransactionId};
use assent_engine::of_participant;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::shared::{Engine, Turn, stopping};
use crate::clock;

/// How long a removal by force waits for what is not decided yet. Nothing of it goes on for longer
/// than its deadline, but who asked should not wait that long for an answer.
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
    /// Removes a participant with all that it was not told yet: recorded, branch by branch, with
    /// who and why (invariant 16). It takes no new transactions from the first moment on; if some
    /// are still open after a while, the rest is done, and the answer says to ask again.
    pub async fn remove_participant_by_force(
        &self,
        name: &ParticipantName,
        by: &AbandonRequest,
    ) -> Result<ForcedRemoval, Problem> {
        let removed = {
            let mut core = self.core();
            let done = core.desk_mut().ticket();
            core.unregister(name, done)?.then(|| core.desk_mut().await_done(done))
        };
        if let Some(durable) = removed {
            durable.await.map_err(|_| stopping())?;
        }
        let AbandonRequest { actor, reason } = by;
        tracing::error!(participant = %name, actor, reason,
            "an operator removes a participant by force");
        let mut removal = ForcedRemoval { name: name.clone(), committed: 0, aborted: 0 };
        let give_up_at = Instant::now() + UNDECIDED_WAIT;
        loop {
            let given_up = self.give_up_all(name, by)?;
            for durable in given_up.durable {
                durable.await.map_err(|_| stopping())?;
            }
            removal.committed += given_up.committed;
            removal.aborted += given_up.aborted;
            match given_up.undecided {
                0 => return Ok(removal),
                undecided if Instant::now() >= give_up_at => {
                    let detail = format!(
                        "participant {name} is removed; {undecided} transactions with a branch there \
                         are not decided yet: none goes on for longer than its deadline; ask \
                         again then"
                    );
                    return Err(of_participant(name, ErrorCode::WrongState, detail));
                }
                _ => tokio::time::sleep(UNDECIDED_LOOK).await,
            }
        }
    }
    /// Gives up every decided branch that a participant was not told of, or has not acknowledged.
    fn give_up_all(&self, name: &ParticipantName, by: &AbandonRequest) -> Result<GivenUp, Problem> {
        let mut core = self.core();
        let mut given_up = GivenUp::default();
        for (id, progress, is_committed) in core.waiting_at(name) {
            if matches!(progress, BranchProgress::Preparing | BranchProgress::Prepared) {
                given_up.undecided += 1;
                continue;
            }
            given_up.durable.push(core.give_up(id, name, by.clone())?);
            given_up.committed += u64::from(is_committed);
            given_up.aborted += u64::from(!is_committed);
        }
        Ok(given_up)
    }
}

impl Turn<'_> {
    /// Gives up a branch. The receiver hears when that is durable.
    pub(super) fn give_up(
        &mut self,
        id: TransactionId,
        participant: &ParticipantName,
        by: AbandonRequest,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let (done, now) = (self.desk_mut().ticket(), clock::micros());
        let AbandonRequest { actor, reason } = by.clone();
        self.abandon(id, participant, (actor, reason), done, now)?;
        let AbandonRequest { actor, reason } = by;
        tracing::error!(%id, %participant, actor, reason, "an operator gives up a branch");
        Ok(self.desk_mut().await_done(done))
    }
}
