//! The store's mutants, for tests only: scripts with one line bent, and what the owner's way leaves
//! out. Without the feature `crash-points` every script is as it is written, and every answer here
//! is known to the compiler.

use assent_client::mutant;
use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::ids::Txid;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Call, Prepared};
use assent_common::participant::{Claimed, Key, Mismatch, Participant, Restored, Staged};

use super::control::Field;

/// A line of a script, and what a mutant has in its place.
#[cfg(feature = "crash-points")]
const BENT: [(Mutant, &str, &str); 4] = [
    (Mutant::RedoForgets, "{'a', apply_writes(packed, tonumber(found[2] or '0'))}", "{'a', 0}"),
    (Mutant::IncarnationIgnored, "if incarnation ~= ARGV[1] then", "if false then"),
    (
        Mutant::CommitNeedsMemory,
        "local first = try('HDEL', ctl, '-')",
        "local first = try('HSET', ctl, '-', '')",
    ),
    (Mutant::DigestIgnoresExpiry, "(exp and ms_text(exp) or '')", "''"),
];

/// The text of a script.
pub(super) fn script(source: String) -> String {
    #[cfg(feature = "crash-points")]
    for (mutant, good, bad) in BENT {
        if mutant::is(mutant) {
            return source.replace(good, bad);
        }
    }
    source
}

/// Whether settings that lose votes matter.
pub(super) fn minds(violations: &[String]) -> bool {
    !violations.is_empty() && !mutant::is(Mutant::SettingsUnchecked)
}

/// Whether the life of a log that was heard is compared with those that it has.
pub(super) fn compares_lives() -> bool {
    !mutant::is(Mutant::LivesIgnored)
}

/// What data says it came of, as an agent believes it that knew this.
pub(super) fn came_of(known: u64, said: Vec<u64>) -> Vec<u64> {
    if mutant::is(Mutant::AnyDataFollowed) { vec![known] } else { said }
}

/// Whether what a log says of the data is believed that nobody has heard of.
pub(super) fn believes_strangers() -> bool {
    mutant::is(Mutant::StrangersBelieved)
}

/// Whether what was told of a log is remembered.
pub(super) fn keeps_told() -> bool {
    !mutant::is(Mutant::ToldForgotten)
}

/// Whether such settings matter to transactions whose votes are the decision.
pub(super) fn minds_for_decisions(violations: &[String]) -> bool {
    !violations.is_empty() && !mutant::is(Mutant::UnsafeVotesDecide)
}

/// Whether this kind of loss is looked for. Who does not see missing votes does not look on.
pub(super) fn minds_mismatch(mismatch: Mismatch) -> bool {
    match mismatch {
        Mismatch::Incarnation => true,
        Mismatch::Votes => !mutant::is(Mutant::SeqNotCompared),
        Mismatch::Hole | Mismatch::Ended => {
            !mutant::is(Mutant::SeqNotCompared) && !mutant::is(Mutant::HoleNotCompared)
        }
    }
}

/// Whether a new connection begins with a look for what one phase came to.
pub(super) fn looks_for_one_phase() -> bool {
    !mutant::is(Mutant::UnansweredForgotten)
}

/// Whether a repair puts back what no log has heard of.
pub(super) fn repairs_unlogged() -> bool {
    !mutant::is(Mutant::UnloggedForgotten)
}

/// Whether a new life of the server is a question.
pub(super) fn asks_run() -> bool {
    !mutant::is(Mutant::RunNotAsked)
}

/// What a claim in escrow is judged on.
pub(super) fn judged(mut claimed: Claimed) -> Claimed {
    if mutant::is(Mutant::EscrowIgnoresPending) {
        let needs = claimed.claim.needs();
        if (needs.low..=needs.high).contains(&i128::from(claimed.value)) {
            // It needs nothing of the others.
            for step in &mut claimed.claim.steps {
                (step.at_least, step.at_most) = (i64::MIN, i64::MAX);
            }
        }
    }
    claimed
}

/// What a counter would be set to, instead of what is added to it.
pub(super) fn resolved(Claimed { claim, value }: &Claimed) -> Option<i64> {
    let resolves = mutant::is(Mutant::EscrowResolved) && claim.field.is_none();
    resolves.then(|| value + claim.delta())
}

/// Whether an owner goes on in spite of what a prepare has met. Then its machine does not know of
/// it any more.
pub(super) fn ignores(machine: &mut Participant, met: &Call<Prepared>) -> bool {
    let code = met.refused().map(|refusal| refusal.code);
    let waits = matches!(met, Call::Applied(Prepared::Wait(_)));
    if mutant::is(Mutant::LocksIgnored) && (waits || code == Some(ErrorCode::LockConflict)) {
        let mut unlocked = Restored::new(machine.incarnation(), machine.seq());
        for (txid, staged) in machine.staged() {
            unlocked.staged(*txid, staged.clone(), &[]);
        }
        for (txid, marker) in machine.done().filter_map(|it| Some((it, machine.done_marker(it)?))) {
            unlocked.done(txid, marker.clone());
        }
        *machine = unlocked.finish();
        return true;
    }
    let is_ignored = mutant::is(Mutant::FenceIgnored) && code == Some(ErrorCode::Fenced)
        || mutant::is(Mutant::EpochIgnored) && code == Some(ErrorCode::StaleEpoch)
        || mutant::is(Mutant::MarkIgnored) && code == Some(ErrorCode::BelowLowWater);
    if is_ignored {
        *machine = Restored::new(machine.incarnation(), machine.seq()).finish();
    }
    is_ignored
}

/// Whether an owner that begins takes the locks of what is staged.
pub(super) fn minds_locks() -> bool {
    !mutant::is(Mutant::LocksIgnored)
}

/// Which locks an owner keeps beyond a vote.
pub(super) fn keeps_locks(machine: &mut Participant, txid: Txid, locks: &[(Key, Access)]) {
    if !mutant::is(Mutant::ReaderFreedAtVote) {
        return;
    }
    let Some(staged) = machine.staged().get(&txid).cloned() else { return };
    let mut freed = Restored::go_on(machine.clone());
    freed.ended(txid);
    let kept = locks.iter().filter(|(_, access)| *access != Access::Shared);
    freed.staged(txid, staged, &kept.cloned().collect::<Vec<_>>());
    *machine = freed.finish();
}

/// Which locks an owner frees when a branch ends that locked these keys: under the mutant, those of
/// others too.
pub(super) fn frees_locks(machine: &mut Participant, keys: &[Key]) {
    if !mutant::is(Mutant::FreesForeignLocks) {
        return;
    }
    let holds = |staged: &Staged| staged.keys.iter().any(|key| keys.contains(key));
    let others = machine.staged().iter().filter(|(_, staged)| holds(staged));
    let others: Vec<_> = others.map(|(txid, staged)| (*txid, staged.clone())).collect();
    for (txid, staged) in others {
        let mut freed = Restored::go_on(machine.clone());
        freed.ended(txid);
        freed.staged(txid, staged, &[]);
        *machine = freed.finish();
    }
}

/// Whether data of another incarnation is told from the agent's own when something is written.
pub(super) fn minds_incarnation() -> bool {
    !mutant::is(Mutant::IncarnationIgnored)
}

/// Whether the owner writes down this field.
pub(super) fn keeps(field: Field<'_>) -> bool {
    let is_left_out = match field {
        Field::Fence(_) => mutant::is(Mutant::NoFence),
        Field::Done(_) => mutant::is(Mutant::NoDoneMarker),
        _ => false,
    };
    !is_left_out
}

/// What an agent that comes to own a Redis reads of what is kept there.
pub(super) fn succeeds_to(fields: &[(Vec<u8>, Vec<u8>)]) -> &[(Vec<u8>, Vec<u8>)] {
    if mutant::is(Mutant::SuccessorUnread) { &[] } else { fields }
}

/// The command that guards the owner.
pub(super) fn watch() -> &'static str {
    if mutant::is(Mutant::OwnerUnwatched) { "EXISTS" } else { "WATCH" }
}

/// Whether an `EXEC` without an answer is taken for done.
pub(super) fn believes_the_unclear() -> bool {
    mutant::is(Mutant::UnclearVoteIsYes)
}

#[cfg(all(test, feature = "crash-points"))]
mod tests {
    use super::super::scripts::Script;
    use super::*;

    #[test]
    fn every_bent_line_is_a_line_of_a_script() {
        let scripts = [Script::Redo, Script::Apply, Script::May, Script::Evaluate(u8::MAX)];
        let scripts = scripts.map(Script::source);
        for (mutant, good, _) in BENT {
            assert!(scripts.iter().any(|script| script.contains(good)), "{mutant} bends nothing");
        }
    }
}
