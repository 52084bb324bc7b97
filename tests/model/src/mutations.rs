//! Every mutant must be caught, by the property of the invariant that it breaks; and every property must catch one.

use assent_common::command::Access::{self, Exclusive, Shared};
use stateright::Expectation;

use crate::check::is_violated;
use crate::config::{Budget, Client, Config};
use crate::mutants::Mutant;
use crate::properties;
use crate::worlds::{
    a_seller_and_one_who_keeps_a_bound, attempts, crossed, faults, few_faults, implicit, one,
    rivals, sellers,
};

/// What is bent, in which world, and which property must notice. A mutant that is missing here is an unused variant,
/// which is an error of the build.
type Case = (Mutant, Config, &'static str);

fn cases() -> Vec<Case> {
    let (escrow, implicit) = (cases_of_escrow(), cases_of_implicit_transactions());
    [cases_of_votes(), cases_of_outcomes(), cases_of_what_is_kept(), escrow, implicit].concat()
}

fn two() -> Config {
    one(Client::writer(2), faults(0, 0))
}

fn two_with(losses: u8, crashes: u8) -> Config {
    one(Client::writer(2), faults(losses, crashes))
}

/// Invariants 1 to 5.
fn cases_of_votes() -> Vec<Case> {
    let crossed = attempts(1, crossed(Budget::default()));
    let keyless = || one(Client::writer(2).keyless(), faults(0, 1));
    let reader = one(Client::of(&[Shared]), faults(0, 1));
    let rivals_with_crash = attempts(1, rivals(few_faults(0, 1)));
    vec![
        (Mutant::EpochReused, two_with(0, 1), "1 ids are never reused"),
        (Mutant::VoteNotDurable, two(), "2 a yes is staged durably before it is said"),
        (Mutant::VoteTimesOut, two(), "3 a yes stands until the outcome is told"),
        (Mutant::ReaderReleasedAtVote, crossed, "3 what was read under a vote stays as it was"),
        (
            Mutant::PersistedTooEarly,
            two_with(0, 1),
            "4 no commit message before the decision is durable",
        ),
        (Mutant::PersistedTooEarly, two_with(0, 1), "8 applied only what is decided"),
        (Mutant::FailedSyncIgnored, keyless(), "4 no committed before it is durable"),
        (Mutant::ReaderToldEarly, reader, "answers: a client hears one outcome"),
        (Mutant::SilenceIsYes, two_with(1, 0), "5 commit only with all votes yes"),
        (Mutant::AttemptIgnored, rivals(Budget::default()), "5 commit only with all votes yes"),
        (Mutant::DecidesTwice, two(), "5 the decision is written once"),
        (Mutant::EpochIgnored, rivals_with_crash, "5 a prepare of an earlier life is refused"),
    ]
}

/// Invariants 6 to 9, 11, 15, 16.
fn cases_of_outcomes() -> Vec<Case> {
    let presumed = "7 a branch is told aborted only of what never commits";
    let one_phase = || one(Client::writer(1), faults(1, 0));
    let loses_data = || one(Client::writer(2), Budget { rollbacks: 1, ..few_faults(0, 0) });
    let keyless = one(Client::writer(2).keyless(), faults(0, 1));
    let ended = "11 the end only after every branch has applied";
    vec![
        (Mutant::NoFence, two_with(1, 0), "6 an acknowledged abort has left its fence"),
        (Mutant::FenceIgnored, two_with(1, 0), "6 a fenced branch is never staged"),
        (Mutant::PresumesActive, two(), presumed),
        (Mutant::PresumesActive, two(), "8 all branches or none"),
        (Mutant::AnswersBeforeReplay, keyless, presumed),
        (Mutant::ForeignLogBelieved, two(), presumed),
        (Mutant::NotFoundIsAborted, two(), presumed),
        (Mutant::NoDoneMarker, two_with(1, 0), "8 a branch is applied once at most"),
        (Mutant::LossAcknowledged, loses_data(), "9 unknown is never ok"),
        (Mutant::LossAcknowledged, loses_data(), ended),
        (Mutant::EndsAfterFirstAck, two(), ended),
        (Mutant::EndsAfterFirstAck, two(), "answers: applied is said of what is applied"),
        (Mutant::DeliversOnce, two_with(1, 0), "progress: what is quiet has ended"),
        (
            Mutant::UnknownIsConflict,
            one_phase(),
            "15 nothing is run again before it is definitely aborted",
        ),
        (Mutant::UnknownIsConflict, one_phase(), "15 one request commits once at most"),
        (Mutant::UnknownIsConflict, one_phase(), "answers: what is told is true"),
        (Mutant::TimerAbandons, two_with(1, 0), "16 a branch is given up by an operator only"),
        (Mutant::TimerAbandons, two_with(1, 0), "the shell feeds no impossible input"),
    ]
}

/// Invariants 10, 12, 13, 14.
fn cases_of_what_is_kept() -> Vec<Case> {
    let replaced = one(Client::writer(2), Budget { replacements: 1, ..few_faults(0, 0) });
    let rivals = attempts(1, rivals(Budget { deadlines: true, ..Budget::default() }));
    let locks = "13 locks are held by the votes, and by nobody else";
    vec![
        (Mutant::MarkTooHigh, two(), "10 the mark covers only what has ended"),
        (Mutant::NotedTooEarly, two_with(1, 1), "10 the mark covers only what has ended"),
        (Mutant::SweepIgnoresMark, two(), "10 markers above the mark are kept"),
        (Mutant::MarkIgnored, two_with(1, 0), "10 a prepare below the mark is refused"),
        (Mutant::IncarnationIgnored, replaced, "12 nothing runs on other data"),
        (Mutant::FreesForeignLocks, rivals, locks),
        (Mutant::CommitNeedsMemory, two(), "14 the commit of a staged branch is never refused"),
    ]
}

/// Escrow. Who takes no more than there is may still break the bound of another, or be broken by one.
fn cases_of_escrow() -> Vec<Case> {
    let sellers = || attempts(1, sellers(Budget::default())).stocked(1);
    let bounded = attempts(1, a_seller_and_one_who_keeps_a_bound(Budget::default())).stocked(2);
    vec![
        (Mutant::EscrowIgnoresPending, sellers(), "escrow: a bound holds when it is applied"),
        (
            Mutant::EscrowExclusive,
            sellers().stocked(2),
            "escrow: who has room neither waits nor dies",
        ),
        (Mutant::EscrowIgnoresBounds, bounded, "escrow: a bound holds by every outcome"),
        (Mutant::EscrowResolved, sellers().stocked(2), "escrow: nothing is lost or added twice"),
    ]
}

/// What only transactions whose votes are their decision need.
fn cases_of_implicit_transactions() -> Vec<Case> {
    let with = |losses, crashes| implicit(few_faults(losses, crashes));
    let later = |losses, crashes| Budget { marks: false, ..faults(losses, crashes) };
    let three = |accesses: &[Access]| one(Client::of(accesses).implicit(), few_faults(0, 0));
    let reader_last = || one(Client::of(&[Exclusive, Shared]).implicit(), few_faults(0, 1));
    let marked = implicit(Budget { marks: true, ..few_faults(0, 1) });
    let undecided = "8 applied only what is decided";
    let split = "8 all branches or none";
    vec![
        (Mutant::AbortsUnsettled, with(0, 0), split),
        (Mutant::PresumesImplicit, with(0, 1), split),
        (
            Mutant::PresumesImplicit,
            implicit(later(0, 1)),
            "7 a branch is told aborted only of what never commits",
        ),
        (Mutant::SettlesWithoutFence, with(0, 0), split),
        (Mutant::BranchLeftOut, three(&[Exclusive; 3]), undecided),
        (Mutant::ReadersLeftOut, three(&[Exclusive, Exclusive, Shared]), undecided),
        (Mutant::ReaderVoteNotKept, reader_last(), "2 a yes is staged durably before it is said"),
        (
            Mutant::MarkerCollectedEarly,
            marked,
            "10 an applied branch is found while another is staged",
        ),
    ]
}

fn all_caught(cases: Vec<Case>) {
    for (mutant, config, property) in cases {
        assert!(
            is_violated(config.with(mutant), property),
            "{mutant:?} was not caught by {property:?}"
        );
    }
}

#[test]
fn of_votes_are_caught() {
    all_caught(cases_of_votes());
}

#[test]
fn of_outcomes_are_caught() {
    all_caught(cases_of_outcomes());
}

#[test]
fn of_escrow_are_caught() {
    all_caught(cases_of_escrow());
}

#[test]
fn of_implicit_transactions_are_caught() {
    all_caught(cases_of_implicit_transactions());
}

#[test]
fn of_what_is_kept_are_caught() {
    all_caught(cases_of_what_is_kept());
}

/// A property that nothing violates may be one that nothing can.
#[test]
fn every_property_catches_one() {
    let caught: Vec<_> = cases().into_iter().map(|(_, _, property)| property).collect();
    let properties = properties::of(&two()).into_iter();
    let idle: Vec<_> = properties
        .filter(|property| property.expectation == Expectation::Always)
        .map(|property| property.name)
        .filter(|name| !caught.contains(name))
        .collect();
    assert!(idle.is_empty(), "no mutant shows that these can fail: {idle:?}");
}
