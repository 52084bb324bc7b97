//! Every mutant must be caught, by the property of the invariant that it breaks.

use assent_common::command::Access::Shared;

use crate::check::is_violated;
use crate::config::{Budget, Client, Config};
use crate::mutants::Mutant;
use crate::worlds::{attempts, crossed, faults, few_faults, one, rivals};

fn caught(mutant: Mutant, config: Config, property: &'static str) {
    assert!(
        is_violated(config.with(mutant), property),
        "{mutant:?} was not caught by {property:?}"
    );
}

fn two() -> Client {
    Client::writer(2)
}

#[test]
fn of_1() {
    caught(Mutant::EpochReused, one(two(), faults(0, 1)), "1 ids are never reused");
}

#[test]
fn of_2() {
    caught(
        Mutant::VoteNotDurable,
        one(two(), faults(0, 0)),
        "2 a yes is staged durably before it is said",
    );
}

#[test]
fn of_3() {
    caught(
        Mutant::VoteTimesOut,
        one(two(), faults(0, 0)),
        "3 a yes stands until the outcome is told",
    );
    caught(
        Mutant::ReaderReleasedAtVote,
        attempts(1, crossed(Budget::default())),
        "3 what was read under a vote stays as it was",
    );
}

#[test]
fn of_4() {
    caught(
        Mutant::PersistedTooEarly,
        one(two(), faults(0, 1)),
        "4 no commit message before the decision is durable",
    );
    caught(
        Mutant::FailedSyncIgnored,
        one(two().keyless(), faults(0, 1)),
        "4 no committed before it is durable",
    );
    caught(
        Mutant::ReaderToldEarly,
        one(Client::of(&[Shared]), faults(0, 1)),
        "answers: a client hears one outcome",
    );
}

#[test]
fn of_5() {
    caught(Mutant::SilenceIsYes, one(two(), faults(1, 0)), "5 commit only with all votes yes");
    caught(Mutant::AttemptIgnored, rivals(Budget::default()), "5 commit only with all votes yes");
    caught(Mutant::DecidesTwice, one(two(), faults(0, 0)), "5 the decision is written once");
    caught(
        Mutant::EpochIgnored,
        attempts(1, rivals(few_faults(0, 1))),
        "5 a prepare of an earlier life is refused",
    );
}

#[test]
fn of_6() {
    caught(Mutant::NoFence, one(two(), faults(1, 0)), "6 an acknowledged abort has left its fence");
    caught(Mutant::FenceIgnored, one(two(), faults(1, 0)), "6 a fenced branch is never staged");
}

#[test]
fn of_7() {
    let property = "7 a branch is told aborted only of what never commits";
    caught(Mutant::PresumesActive, one(two(), faults(0, 0)), property);
    caught(Mutant::AnswersBeforeReplay, one(two().keyless(), faults(0, 1)), property);
    caught(Mutant::ForeignLogBelieved, one(two(), faults(0, 0)), property);
    caught(Mutant::NotFoundIsAborted, one(two(), faults(0, 0)), property);
}

#[test]
fn of_8() {
    caught(Mutant::NoDoneMarker, one(two(), faults(1, 0)), "8 a branch is applied once at most");
}

#[test]
fn of_9() {
    let budget = Budget { rollbacks: 1, ..few_faults(0, 0) };
    caught(Mutant::LossAcknowledged, one(two(), budget), "9 unknown is never ok");
    caught(
        Mutant::LossAcknowledged,
        one(two(), budget),
        "11 the end only after every branch has applied",
    );
}

#[test]
fn of_10() {
    caught(Mutant::MarkTooHigh, one(two(), faults(0, 0)), "10 the mark covers only what has ended");
    caught(
        Mutant::SweepIgnoresMark,
        one(two(), faults(0, 0)),
        "10 markers above the mark are kept",
    );
    caught(Mutant::MarkIgnored, one(two(), faults(1, 0)), "10 a prepare below the mark is refused");
}

#[test]
fn of_11() {
    caught(
        Mutant::EndsAfterFirstAck,
        one(two(), faults(0, 0)),
        "11 the end only after every branch has applied",
    );
    caught(Mutant::DeliversOnce, one(two(), faults(1, 0)), "progress: what is quiet has ended");
}

#[test]
fn of_12() {
    let budget = Budget { replacements: 1, ..few_faults(0, 0) };
    caught(Mutant::IncarnationIgnored, one(two(), budget), "12 nothing runs on other data");
}

#[test]
fn of_13() {
    let property = "13 locks are held by the votes, and by nobody else";
    caught(
        Mutant::FreesForeignLocks,
        attempts(1, rivals(Budget { deadlines: true, ..Budget::default() })),
        property,
    );
}

#[test]
fn of_14() {
    caught(
        Mutant::CommitNeedsMemory,
        one(two(), faults(0, 0)),
        "14 the commit of a staged branch is never refused",
    );
}

#[test]
fn of_15() {
    let once = one(Client::writer(1), faults(1, 0));
    caught(
        Mutant::UnknownIsConflict,
        once.clone(),
        "15 nothing is run again before it is definitely aborted",
    );
    caught(Mutant::UnknownIsConflict, once, "15 one request commits once at most");
}

#[test]
fn of_16() {
    caught(
        Mutant::TimerAbandons,
        one(two(), faults(1, 0)),
        "16 a branch is given up by an operator only",
    );
}
