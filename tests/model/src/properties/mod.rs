//! The properties, named after the invariants of the design that they state. One function each; every one is checked in
//! every state.

mod answers;
mod decision;
mod escrow;
mod fences;
mod locks;
mod marks;
mod outcome;
mod progress;
mod votes;

use stateright::Property;

use crate::config::Config;
use crate::state::{Breach, State};
use crate::world::World;

type Check = fn(&World, &State) -> bool;

/// What holds however much goes wrong.
const ALWAYS: &[(&str, Check)] = &[
    ("1 ids are never reused", votes::ids_are_never_reused),
    ("4 no commit message before the decision is durable", decision::no_commit_before_durable),
    ("4 no committed before it is durable", decision::no_committed_before_durable),
    ("5 the decision is written once", decision::written_once),
    ("5 commit only with all votes yes", decision::commit_needs_all_votes),
    ("5 a prepare of an earlier life is refused", votes::stale_epoch_is_refused),
    ("6 a fenced branch is never staged", fences::a_fence_holds),
    ("7 a branch is told aborted only of what never commits", fences::presumed_abort_is_true),
    ("8 applied only what is decided", outcome::applied_only_when_decided),
    ("8 all branches or none", outcome::all_or_none),
    ("escrow: a bound holds when it is applied", escrow::bounds_hold),
    ("escrow: a bound holds by every outcome", escrow::bounds_will_hold),
    ("escrow: who has room neither waits nor dies", escrow::room_is_for_all),
    ("9 unknown is never ok", outcome::unknown_is_never_ok),
    ("10 a prepare below the mark is refused", marks::below_mark_is_refused),
    ("10 the mark covers only what has ended", marks::covers_only_what_has_ended),
    ("11 the end only after every branch has applied", outcome::end_needs_every_branch),
    ("12 nothing runs on other data", marks::nothing_runs_on_other_data),
    ("13 locks are held by the votes, and by nobody else", locks::locks_are_the_votes),
    ("14 the commit of a staged branch is never refused", outcome::staged_commits),
    ("15 nothing is run again before it is definitely aborted", answers::no_rerun_while_unclear),
    ("15 one request commits once at most", answers::one_request_one_commit),
    ("16 a branch is given up by an operator only", answers::override_is_an_operators),
    ("answers: a client hears one outcome", answers::one_outcome),
    ("answers: what is told is true", answers::told_is_true),
    ("answers: applied is said of what is applied", answers::said_applied),
    ("the shell feeds no impossible input", answers::no_impossible_input),
];

/// What holds as long as every Redis keeps its data.
const WITHOUT_LOSS: &[(&str, Check)] = &[
    ("2 a yes is staged durably before it is said", votes::yes_is_staged),
    ("3 a yes stands until the outcome is told", votes::yes_stands),
    ("3 what was read under a vote stays as it was", locks::data_waits_for_the_outcome),
    ("6 an acknowledged abort has left its fence", fences::abort_leaves_a_fence),
    ("8 a branch is applied once at most", outcome::applied_once),
    ("escrow: nothing is lost or added twice", escrow::nothing_is_lost),
    ("10 markers above the mark are kept", marks::markers_above_the_mark_are_kept),
    ("10 an applied branch is found while another is staged", marks::applied_is_found),
    ("progress: what is quiet has ended", progress::quiet_means_ended),
];

/// All of a configuration.
pub(crate) fn of(config: &Config) -> Vec<Property<World>> {
    let without_loss = if config.loses_data() { &[] } else { WITHOUT_LOSS };
    let always = ALWAYS.iter().chain(without_loss);
    let sometimes = progress::SOMETIMES.iter().filter(|(_, concerns, _)| concerns(config));
    always
        .map(|(name, check)| Property::always(name, *check))
        .chain(sometimes.map(|(name, _, check)| Property::sometimes(name, *check)))
        .collect()
}

fn never(state: &State, breach: Breach) -> bool {
    !state.witness.breaches.contains(&breach)
}
