//! The prepares that a round looks at, by what is to be known of them.

use std::collections::HashSet;

use assent_common::branch::BranchAnswer;
use redis::{Pipeline, Value};

use super::super::control::Field;
use super::super::work::{PrepareItem, Sorted};
use super::by_script::ScriptCalls;
use super::counters::Counters;
use super::evaluate;
use super::look::Found;
use super::round::Round;
use super::{KeptBranch, Owner};

/// Bytes of the arguments of the prepares of one round.
const BYTES_PER_ROUND_MAX: usize = 1024 * 1024;

/// The prepares that a round looks at. What can be answered without a look is not among them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Those that came before and are staged, with writes: their replies are in their records.
    pub(super) again: Vec<PrepareItem>,
    /// Those whose ops the owner evaluates by itself.
    pub(super) plain: Vec<PrepareItem>,
    /// Those whose ops the script evaluates.
    pub(super) scripts: ScriptCalls,
}

/// What Redis says of them.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// The records of those that came before.
    pub(super) records: Vec<Value>,
    /// What their keys are, of those that the owner evaluates.
    pub(super) found: Vec<Vec<Found>>,
    /// What each call of the script has answered.
    pub(super) evaluated: Vec<Value>,
    pub(super) counters: Counters,
}

impl Candidates {
    /// Takes up to so many out of what is sorted. What must be looked at after this round is put
    /// behind `later`. An owner that takes its rights for granted evaluates by itself what it can.
    pub(super) fn choose(
        owner: &mut Owner,
        sorted: &mut Sorted,
        round: &mut Round,
        later: &mut Vec<PrepareItem>,
        room: usize,
        all_by_script: bool,
    ) -> Self {
        let (mut chosen, mut scripts) = (Self::default(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        let mut seen = HashSet::new();
        for item in std::mem::take(&mut sorted.prepares) {
            let is_full = count >= room || bytes >= BYTES_PER_ROUND_MAX;
            // The same branch twice: the second one finds what is kept of the first.
            if is_full || round.concerns(&item) || seen.contains(&item.txid) {
                later.push(item);
                continue;
            }
            let kept = owner.kept(&item);
            let answered = match &kept {
                KeptBranch::Answer(call) => Some(call.clone()),
                KeptBranch::Nothing => {
                    owner.refusal_if_new(&item).or_else(|| owner.obstacle(&item))
                }
                KeptBranch::Writes | KeptBranch::Reads => None,
            };
            if let Some(call) = answered {
                round.asserts |= !matches!(kept, KeptBranch::Nothing);
                round.answers.push((item.slot, BranchAnswer::Prepared(call)));
                round.taken.prepares.push(item);
                continue;
            }
            seen.insert(item.txid);
            (count, bytes) = (count + 1, bytes + item.prepare.branch.bytes);
            if matches!(kept, KeptBranch::Writes) {
                chosen.again.push(item);
            } else if all_by_script || item.by_script || !evaluate::is_known(&item.prepare.branch) {
                scripts.push(item);
            } else {
                chosen.plain.push(item);
            }
        }
        let (calls, mut rest) = ScriptCalls::cut(scripts);
        chosen.scripts = calls;
        later.append(&mut rest);
        chosen
    }

    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.plain.is_empty() && self.scripts.0.is_empty()
    }

    /// Those whose ops are evaluated.
    pub(super) fn evaluated(&self) -> impl Iterator<Item = &PrepareItem> {
        self.plain.iter().chain(self.scripts.0.iter().flatten())
    }

    /// All of them.
    pub(super) fn all(self) -> impl Iterator<Item = PrepareItem> {
        let Self { again, plain, scripts } = self;
        again.into_iter().chain(plain).chain(scripts.0.into_iter().flatten())
    }

    /// The command that reads the records of those that came before, if there are any.
    pub(super) fn look_at_records(&self, pipeline: &mut Pipeline, control_key: &str) {
        if self.again.is_empty() {
            return;
        }
        let command = pipeline.cmd("HMGET").arg(control_key);
        for item in &self.again {
            command.arg(Field::Staged(item.txid));
        }
    }
}
