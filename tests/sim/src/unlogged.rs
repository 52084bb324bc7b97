//! What an agent remembers of one phase until its log has it: the shell around `common`'s
//! `Unlogged`, as `store/unlogged` is at the real agent.

use assent_common::Txid;
use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Aborted, Call, Prepared};
use assent_common::participant::{DoneMarker, OnePhaseMarker, UnloggedBranch};

use crate::agent::Agent;

/// Looks what one phase came to in data that is as the agent knew it.
pub(crate) fn look(agent: &mut Agent) {
    if agent.own.is_quarantined {
        return;
    }
    let control = &agent.redis.data.control;
    for txid in control.done().collect::<Vec<_>>() {
        remember(agent, txid);
    }
    let control = &agent.redis.data.control;
    for log_id in &agent.heard {
        if let Some(heard) = control.heard(*log_id) {
            agent.unlogged.let_go(*log_id, heard.low_water);
        }
    }
}

/// Takes note of what a script has said.
pub(crate) fn hears(agent: &mut Agent, txid: Txid, answer: &BranchAnswer) {
    if matches!(answer, BranchAnswer::Prepared(Call::Applied(_))) {
        agent.saw_vote(agent.redis.data.control.seq());
    }
    if agent.redis.data.incarnation() == Some(agent.incarnation()) {
        agent.own.known.ended = agent.own.known.ended.max(agent.redis.data.ended);
    }
    match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Committed(_))) => remember(agent, txid),
        BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)) => agent.unlogged.forget(txid),
        _ => {}
    }
}

fn remember(agent: &mut Agent, txid: Txid) {
    let marker = agent.redis.data.control.done_marker(txid);
    let Some(DoneMarker::OnePhase(marker)) = marker else { return };
    let OnePhaseMarker { replies, wrote: Some((seq, redo)) } = marker else { return };
    let (seq, bytes) = (*seq, redo.len() + replies.len());
    let branch = UnloggedBranch { seq, bytes, marker: marker.clone() };
    agent.saw_vote(seq);
    agent.unlogged.applied(agent.incarnation(), txid, branch);
}
