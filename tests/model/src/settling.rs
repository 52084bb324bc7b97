//! How an implicit transaction is finished without its coordinator: for a staged branch all others are asked, one after the
//! other and at any time, by the branch itself or by a coordinator that knows nothing of the transaction.

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::outcome::{Call, Settled};
use assent_common::participant::Branches;
use assent_common::participant::resolver::{Verdict, judge_branches};
use assent_common::settle::Resolution;
use assent_common::wire::branch::BranchAddress;
use assent_common::{Epoch, TxNumber, Txid};

use crate::config::Client;
use crate::log::participant_name;
use crate::mutants::Mutant;
use crate::state::{Ask, From, Mark, State};
use crate::world::World;

impl World {
    /// What every staged record of a request holds.
    pub(crate) fn branches_of(&self, client: &Client) -> Branches {
        let mutant = self.config.mutant;
        let is_left_out = |branch: &crate::config::ClientBranch| match mutant {
            Some(Mutant::BranchLeftOut) => branch.at == client.branches.len() - 1,
            Some(Mutant::ReadersLeftOut) => branch.reads(),
            _ => false,
        };
        if !client.is_implicit() {
            return Branches::default();
        }
        let branches = client.branches.iter().filter(|branch| !is_left_out(branch));
        let address = |branch: &crate::config::ClientBranch| BranchAddress {
            participant: participant_name(branch.at),
            url: String::new(),
        };
        branches.map(address).collect()
    }

    /// The branches that have not been asked for this one.
    pub(crate) fn missing(&self, state: &State, by: usize, txid: Txid) -> Vec<usize> {
        let resolution = resolution(state, by, txid);
        let missing: Vec<_> = resolution.iter().flat_map(Resolution::missing).collect();
        (0..state.participants.len())
            .filter(|at| missing.contains(&&participant_name(*at)))
            .collect()
    }

    /// One question to one branch, and what follows if that was enough.
    pub(crate) fn settle_for(&self, state: &mut State, by: usize, txid: Txid, at: usize) {
        let Some(mut resolution) = resolution(state, by, txid) else { return };
        let Some(client) = self.client_of(state, by, txid) else { return };
        let mark = Mark { epoch: txid.number.epoch, low_water: TxNumber { epoch: Epoch(0), n: 0 } };
        let message = BranchMessage::Settle;
        let ask = Ask { from: From::Resolver, at, client, txid, message, mark };
        let BranchAnswer::Settled(call) = self.execute(state, &ask) else { return };
        resolution.answered(&participant_name(at), call);
        let verdict = judge_branches(resolution.finding());
        let told = self.resolver_ask(state, by, txid, &verdict);
        match (verdict, told) {
            (Verdict::Later(_) | Verdict::Hold(_), _) | (_, None) => {
                state.resolutions.insert((by, txid), resolution);
            }
            (_, Some(ask)) => {
                state.resolutions.insert((by, txid), resolution);
                self.tell_store(state, ask);
            }
        }
    }

    fn client_of(&self, state: &State, at: usize, txid: Txid) -> Option<usize> {
        let id = state.participants[at].staged().get(&txid)?.id;
        self.config.clients.iter().position(|client| client.id == id)
    }
}

/// What is known for a staged branch; its own vote is, at first.
fn resolution(state: &State, by: usize, txid: Txid) -> Option<Resolution> {
    if let Some(known) = state.resolutions.get(&(by, txid)) {
        return Some(known.clone());
    }
    let staged = state.participants[by].staged().get(&txid)?;
    let mut resolution = Resolution::new(&staged.branches);
    resolution.answered(&participant_name(by), Call::Applied(Settled::Prepared));
    Some(resolution)
}
