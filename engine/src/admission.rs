//! Admission: what may begin. Counted is what is not decided, in all, and at each participant what
//! waits for its vote, so that one that does not answer shuts out only those who name it. What is
//! decided counts at those only that have not acknowledged it.

use assent_common::coordinator::Branch;
use assent_common::time::Millis;
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, TxNumber, limits};

use crate::active::Active;
use crate::lanes::{Lane, Lanes};

/// How much may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Undecided transactions in all.
    pub in_flight_max: usize,
    /// Undecided transactions that wait for the vote of one participant.
    pub per_participant_max: usize,
    /// Decided transactions that one participant has not acknowledged.
    pub undelivered_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            in_flight_max: limits::TRANSACTIONS_IN_FLIGHT_MAX,
            per_participant_max: limits::TRANSACTIONS_PER_PARTICIPANT_MAX,
            undelivered_max: limits::OUTCOMES_UNDELIVERED_MAX,
        }
    }
}

/// The limits, and how much there is of all; what there is at each participant is with its lane.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    pub(crate) undecided: usize,
}

impl From<AdmissionLimits> for Admission {
    fn from(limits: AdmissionLimits) -> Self {
        Self { limits, undecided: 0 }
    }
}

/// Brings a count, and the bit that says whether a branch is in it, to what is now.
fn recount(count: &mut usize, bits: &mut u64, branch: Branch, is_in: bool) {
    let bit = 1 << branch.0;
    match (*bits & bit != 0, is_in) {
        (false, true) => *count += 1,
        (true, false) => *count -= 1,
        (true, true) | (false, false) => return,
    }
    *bits ^= bit;
}

impl Admission {
    /// What a participant has too much of, if it has.
    fn is_full_at(&self, lane: &Lane) -> Option<String> {
        let AdmissionLimits { per_participant_max, undelivered_max, .. } = self.limits;
        let undelivered = lane.undelivered;
        if lane.voting >= per_participant_max {
            Some(format!("{} transactions wait for its vote", lane.voting))
        } else if undelivered >= undelivered_max {
            Some(format!("it has not acknowledged the outcomes of {undelivered} transactions"))
        } else {
            None
        }
    }
}

/// Counts a transaction anew after a step: where it waits for a vote, or for an acknowledgement.
/// What is decided keeps only what its delivery needs, and participants that are never told of it
/// again need not wait for its other branches.
pub(crate) fn settle_accounts(
    admission: &mut Admission,
    lanes: &mut Lanes,
    number: TxNumber,
    active: &mut Active,
) {
    let machine = &active.machine;
    if machine.is_decided() && std::mem::take(&mut active.is_undecided) {
        active.ops = None;
        admission.undecided -= 1;
    }
    for (branch, place) in (0..).map(Branch).zip(&active.lanes) {
        let (lane, counted) = (&mut lanes[*place], &mut active.counted);
        let is_waited_for = machine.waits_for_vote(branch);
        recount(&mut lane.voting, &mut counted.voting, branch, is_waited_for);
        let owes = machine.owes_an_answer(branch);
        recount(&mut lane.undelivered, &mut counted.owing, branch, owes);
        if machine.is_over_at(branch) {
            lane.unfinished.remove(&number);
        }
    }
}

impl Admission {
    /// Whether anything may begin.
    pub(crate) fn admit(&self, is_draining: bool, log_is_full: bool) -> Result<(), Problem> {
        if is_draining {
            let detail =
                "this coordinator is draining and takes no new transactions; nothing was begun";
            return Err(Problem::new(ErrorCode::NotReady, detail));
        }
        let undecided = self.undecided;
        if log_is_full {
            let detail = "the log's disk does not keep up; nothing was begun, try again";
            return Err(Problem::new(ErrorCode::Overloaded, detail));
        }
        if undecided >= self.limits.in_flight_max {
            let detail = format!(
                "{undecided} transactions are undecided, which is the limit; nothing was begun, \
                 try again"
            );
            return Err(Problem::new(ErrorCode::Overloaded, detail));
        }
        Ok(())
    }

    /// Whether anything may begin at these participants.
    pub(crate) fn admit_at<'a>(
        &self,
        lanes: impl Iterator<Item = &'a Lane>,
        now: Millis,
    ) -> Result<(), Problem> {
        for lane in lanes {
            if let Some(since) = lane.breaker.away_since() {
                return Err(away(lane, now.since(since)));
            }
            if let Some(much) = self.is_full_at(lane) {
                let name = &lane.name;
                let last_error = lane.last_error.as_deref().unwrap_or("none");
                let detail = format!(
                    "participant {name} does not keep up: {much}; nothing was begun, try again \
                     (last error there: {last_error})"
                );
                let problem = Problem::new(ErrorCode::Overloaded, detail);
                return Err(Problem { participant: Some(name.to_string()), ..problem });
            }
        }
        Ok(())
    }
}

/// Nobody is asked, so that nobody's keys stay locked until the deadline; and nothing is recorded,
/// so that the same request may come again under the same key.
fn away(lane: &Lane, silent_ms: u64) -> Problem {
    let name = &lane.name;
    let detail = format!(
        "participant {name} has not answered for {silent_ms} ms, and nothing was begun: start its \
         agent, or correct its address; it is asked again every second (last error: {})",
        lane.last_error.as_deref().unwrap_or("none")
    );
    let problem = Problem::new(ErrorCode::ParticipantUnreachable, detail);
    Problem { participant: Some(name.to_string()), ..problem }
}
