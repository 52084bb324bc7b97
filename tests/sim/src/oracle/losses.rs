//! What a Redis has lost after it had said that it was kept, and who has noticed. What was promised of data that are
//! gone is promised no more, but for two things that always hold: nobody says `applied` of what is not, and every loss
//! of a vote is noticed by whoever can know.

use assent_common::participant::{Participant, Request as Script};

use super::{Oracle, Site};
use crate::request::Request;

impl Oracle {
    /// A Redis has come back without its last scripts.
    pub(crate) fn lost(
        &mut self,
        at: usize,
        lost: &[Script],
        control: &Participant,
        requests: &[Request],
    ) {
        self.loses_data(at);
        for txid in lost.iter().filter_map(Script::txid) {
            let coordinator = self.coordinator_of(txid);
            let Some(fact) = self.facts[coordinator].get_mut(&txid.number) else { continue };
            fact.is_tainted = true;
            self.requests[fact.request].is_tainted = true;
            let branches = &requests[fact.request].branches;
            let place = branches.iter().position(|branch| branch.at == at).expect("a branch");
            let heard = control.heard(txid.log_id);
            let is_below = heard.is_some_and(|heard| txid.number < heard.low_water);
            let attempt = fact.attempt(txid.attempt, branches.len());
            if !is_below {
                use assent_common::wire::branch::BranchState::{Aborted, Applied};
                let state = control.state(txid);
                attempt.branches[place].is_applied &= state == Some(Applied);
                attempt.branches[place].is_aborted &= state == Some(Aborted);
            }
        }
        let markers = &mut self.sites[at].markers;
        markers.retain(|txid, state| control.state(*txid) == Some(*state));
    }

    /// A Redis has been replaced by an empty one.
    pub(crate) fn replaced(&mut self, at: usize, requests: &[Request]) {
        self.loses_data(at);
        self.sites[at].markers.clear();
        for fact in self.facts.iter_mut().flat_map(|facts| facts.values_mut()) {
            let branches = &requests[fact.request].branches;
            let Some(place) = branches.iter().position(|branch| branch.at == at) else { continue };
            fact.is_tainted = true;
            self.requests[fact.request].is_tainted = true;
            for attempt in &mut fact.attempts {
                attempt.branches[place].is_applied = false;
                attempt.branches[place].is_aborted = false;
            }
        }
    }

    fn loses_data(&mut self, at: usize) {
        let Site { has_lost, loses, .. } = &mut self.sites[at];
        (*has_lost, *loses) = (true, true);
    }

    /// An agent has met the data that there are now, and knows them or not.
    pub(crate) fn reconnected(&mut self, at: usize, is_quarantined: bool) {
        self.sites[at].was_quarantined |= is_quarantined;
        self.sites[at].loses = false;
    }

    /// An agent begins, and knows nothing of what was before.
    pub(crate) fn agent_forgets(&mut self, at: usize) {
        let site = &mut self.sites[at];
        site.seq_given = 0;
        site.was_blind |= site.loses;
        site.loses = false;
    }

    /// Whether any data of a participant has been lost.
    pub(crate) fn has_lost(&self, at: usize) -> bool {
        self.sites[at].has_lost
    }
}
