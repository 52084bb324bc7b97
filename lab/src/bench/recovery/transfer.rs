//! The transfers that the log is full of: one unit from an account at the first participant to that
//! of the same number at the second.

use assent_common::command::OpRequest;
use assent_common::outcome::Vote;
use assent_common::record::CommittedBranch;
use assent_common::{ParticipantName, TxNumber};

pub(super) const PARTICIPANTS: [&str; 2] = ["bank-a", "bank-b"];

/// One transfer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub(super) number: TxNumber,
    /// How many accounts there are; as many transfers in a row have one each.
    pub(super) accounts: u64,
}

impl Transfer {
    pub(super) fn account(self) -> String {
        account(self.number.n % self.accounts)
    }

    /// The key that its client sent: as long as a UUID, as most are.
    pub(super) fn key(self) -> String {
        let TxNumber { epoch, n } = self.number;
        format!("recovery-{:08}-{n:018}", epoch.0)
    }

    /// The request of its client.
    pub(super) fn body(self) -> String {
        let account = self.account();
        let [from, to] = PARTICIPANTS;
        format!(
            r#"{{"branches":[{{"participant":"{from}","ops":[{{"cmd":["DECRBY","{account}",1]}}]}},{{"participant":"{to}","ops":[{{"cmd":["INCRBY","{account}",1]}}]}}]}}"#
        )
    }

    /// The ops of its branch at a participant, by place.
    pub(super) fn ops(self, place: usize) -> Vec<OpRequest> {
        let command = if place == 0 { "DECRBY" } else { "INCRBY" };
        vec![OpRequest::new([command, &self.account(), "1"])]
    }
}

pub(super) fn account(number: u64) -> String {
    format!("acct:{number}")
}

/// A branch as the log keeps it.
pub(super) fn committed_branch(participant: &ParticipantName, vote: Vote) -> CommittedBranch {
    let Vote { replies, redo, incarnation, seq } = vote;
    CommittedBranch { participant: participant.clone(), replies, redo, incarnation, seq }
}

/// What transfers looked like that have ended long ago: like this one, whose votes were given last.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) transfer: Transfer,
    pub(super) last: Vec<CommittedBranch>,
}

impl Past {
    /// The branches of one of them. Nobody's data may have seen a later vote than was given.
    pub(super) fn branches(&self, n: u64) -> Vec<CommittedBranch> {
        let voted = |branch: &CommittedBranch| CommittedBranch {
            seq: 1 + n % branch.seq.max(1),
            ..branch.clone()
        };
        self.last.iter().map(voted).collect()
    }
}
