//! The participants' side: a message arrives, one script runs, and the witness sees what it did.

use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::coordinator::PrepareCall;
use assent_common::outcome::{Aborted, Call, Prepared, Refusal, Settled};
use assent_common::participant::{Evaluation, Heard, Participant, Prepare};
use assent_common::wire::branch::{BranchState, Mode};
use assent_common::{Epoch, TxNumber};

use crate::config::{Adds, Client, ClientBranch};
use crate::mutants::Mutant;
use crate::state::{Ask, Breach, From, INCARNATION, Mark, Packet, State, log_id};
use crate::world::World;

impl World {
    pub(crate) fn arrive(&self, state: &mut State, ask: Ask) {
        let answer = self.execute(state, &ask);
        if ask.from == From::Coordinator {
            // What the message carried beside itself has been said.
            let mark = Mark { epoch: Epoch(0), low_water: TxNumber { epoch: Epoch(0), n: 0 } };
            state.send(Packet::Answer(Ask { mark, ..ask }, Arc::new(answer)));
        }
    }

    /// The mark, and one script.
    pub(crate) fn execute(&self, state: &mut State, ask: &Ask) -> BranchAnswer {
        let Ask { at, txid, message, mark, .. } = *ask;
        let client = &self.config.clients[ask.client];
        let branch = client.branches.iter().find(|branch| branch.at == at).expect("a branch");
        let participant = Arc::make_mut(&mut state.participants[at]);
        let incarnation = self.incarnation(participant);
        let value = state.counters[at];
        let Mark { epoch, low_water } = mark;
        if incarnation == participant.incarnation() {
            participant.hear(txid.log_id, Heard { epoch, low_water });
        }
        let before = participant.clone();
        let told = message.map(|_| self.prepare(client, branch, value));
        let is_aborted = message == BranchMessage::Settle
            && ask.from == From::Coordinator
            && self.config.is(Mutant::AbortsUnsettled);
        let stepped = if is_aborted {
            self.abort_unsettled(participant, txid)
        } else {
            self.script(participant, incarnation, txid, told)
        };
        let is_applied = stepped.apply.is_some();
        if let (Some(adds), Some(redo)) = (branch.adds, &stepped.apply) {
            count(state, at, adds, redo);
        }
        observe(state, ask, client, branch, &before, is_applied, &stepped.answer);
        match (message, stepped.answer) {
            // A prepare that waits is at the agent for as long as it is not delivered here; then its time is over.
            (
                BranchMessage::Prepare(PrepareCall::Waiting),
                BranchAnswer::Prepared(Call::Applied(Prepared::Wait(holder))),
            ) => {
                let refusal = Refusal::new(ErrorCode::LockConflict, holder.to_string());
                BranchAnswer::Prepared(Call::Refused(Refusal { holder: Some(holder), ..refusal }))
            }
            (_, answer) => answer,
        }
    }

    fn prepare(&self, client: &Client, branch: &ClientBranch, value: i64) -> Prepare {
        let redo = match branch.adds {
            _ if branch.reads() => [][..].into(),
            None => [1][..].into(),
            Some(adds) if self.config.is(Mutant::EscrowResolved) => {
                resolved(value + adds.delta).into()
            }
            Some(adds) => adds.delta.to_le_bytes()[..].into(),
        };
        let refusal = || Refusal::new(ErrorCode::ExpectationFailed, "met another value");
        let mut locks = branch.locks.clone();
        if self.config.is(Mutant::ReaderReleasedAtVote) {
            locks.retain(|(_, access)| *access == Access::Exclusive);
        }
        if self.config.is(Mutant::EscrowExclusive) {
            locks.iter_mut().for_each(|(_, access)| *access = Access::Exclusive);
        }
        Prepare {
            id: client.id,
            branches: self.branches_of(client),
            mode: if client.is_one_phase() { Mode::OnePhase } else { Mode::TwoPhase },
            locks,
            evaluation: if branch.fails {
                Err(refusal())
            } else {
                Ok(Evaluation { replies: "[1]".into(), redo, claims: branch.claims(value) })
            },
        }
    }

    /// What the agent believes to be the incarnation of its data: that of its start.
    pub(crate) fn incarnation(&self, participant: &Participant) -> u64 {
        match self.config.mutant {
            Some(Mutant::IncarnationIgnored) => participant.incarnation(),
            _ => INCARNATION,
        }
    }

    /// Another transaction's batch: the mark as it is now, and a sweep.
    pub(crate) fn batch(&self, state: &mut State, at: usize) {
        let low_water = state.low_water(at, &self.config);
        let epoch = state.epoch;
        let participant = Arc::make_mut(&mut state.participants[at]);
        let incarnation = self.incarnation(participant);
        let is_later_life = self.config.is(Mutant::MarkerCollectedEarly) && epoch > Epoch(1);
        if is_later_life && participant.staged().is_empty() {
            *participant = Participant::new(INCARNATION);
        }
        if incarnation == participant.incarnation() {
            participant.hear(log_id(), Heard { epoch, low_water });
            participant.sweep();
        }
        if self.config.is(Mutant::SweepIgnoresMark) && participant.staged().is_empty() {
            *participant = Participant::new(INCARNATION);
        }
    }

    /// A branch in doubt decides for itself after a while; only a mutant does.
    pub(crate) fn misbehave(&self, state: &mut State, at: usize) {
        let participant = Arc::make_mut(&mut state.participants[at]);
        if let Some(txid) = participant.staged().keys().next().copied() {
            participant.step(INCARNATION, txid, BranchMessage::Abort);
        }
    }
}

/// The write of a mutant: what the value is to be, not what is added.
fn resolved(value: i64) -> Vec<u8> {
    [&[1], &value.to_le_bytes()[..]].concat()
}

/// Applies what a branch adds to the counter. The bound holds behind it in this order of applications, whatever the order is.
fn count(state: &mut State, at: usize, adds: Adds, redo: &[u8]) {
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let counter = &mut state.counters[at];
    match redo {
        [_, value @ ..] if value.len() == 8 => *counter = number(value),
        delta if delta.len() == 8 => *counter += number(delta),
        // A mutant's second application.
        _ => *counter += adds.delta,
    }
    if !(adds.at_least..=adds.at_most).contains(counter) {
        state.witness().breaches.insert(Breach::BoundBroken);
    }
}

/// What a script did, as somebody knows it who sees everything.
fn observe(
    state: &mut State,
    ask: &Ask,
    client: &Client,
    branch: &ClientBranch,
    before: &Participant,
    is_applied: bool,
    answer: &BranchAnswer,
) {
    let Ask { at, txid, .. } = *ask;
    let after = Arc::clone(&state.participants[at]);
    let witness = state.witness();
    let (was, is) = (before.state(txid), after.state(txid));
    let is_staged = was != Some(BranchState::Prepared) && is == Some(BranchState::Prepared);
    if ask.message.is_prepare() && (is_staged || is_applied) {
        let heard = before.heard(txid.log_id);
        if heard.is_some_and(|heard| txid.number.epoch < heard.epoch) {
            witness.breaches.insert(Breach::StaleEpochStaged);
        }
        if heard.is_some_and(|heard| txid.number < heard.low_water) {
            witness.breaches.insert(Breach::BelowMarkStaged);
        }
        if was == Some(BranchState::Aborted) {
            witness.breaches.insert(Breach::FencedStaged);
        }
    }
    if let BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))) = answer {
        witness.voted.insert((txid, at));
    }
    if is_staged {
        let versions = &witness.versions;
        let version = |key| versions.get(&(at, key)).copied().unwrap_or(0);
        let seen = branch.locks.iter().map(|(key, _)| version(key.clone())).collect();
        witness.seen.insert((txid, at), seen);
    }
    if is_applied && client.is_one_phase() && branch.reads() {
        witness.untraced.insert(txid.number);
    } else if is_applied {
        *witness.applied.entry((txid, at)).or_default() += 1;
        let written = branch.locks.iter().filter(|(_, access)| *access == Access::Exclusive);
        for (key, _) in written {
            *witness.versions.entry((at, key.clone())).or_default() += 1;
        }
    }
    // What comes below the mark, and to nobody's knowledge, changes nothing and tells nothing.
    let is_told = ask.from == From::Coordinator || is == Some(BranchState::Aborted);
    let is_fenced = matches!(
        answer,
        BranchAnswer::Aborted(Call::Applied(Aborted::Fenced))
            | BranchAnswer::Settled(Call::Applied(Settled::Fenced))
    );
    if is_told && is_fenced {
        witness.aborted.insert((txid, at));
    }
    match answer {
        BranchAnswer::Applied(Call::Applied(_)) if is != Some(BranchState::Applied) => {
            witness.breaches.insert(Breach::UnappliedAcknowledged);
        }
        BranchAnswer::Applied(Call::Refused(_)) if was == Some(BranchState::Prepared) => {
            witness.breaches.insert(Breach::StagedCommitRefused);
        }
        _ => {}
    }
}
