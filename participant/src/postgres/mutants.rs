//! The mutants of a participant with a database, for tests only: each leaves out one of its rules.
//! Without the feature `crash-points` every answer here is known to the compiler.

use std::borrow::Cow;

use assent_client::mutant;
use assent_common::ErrorCode;
use assent_common::ids::Txid;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Failed, Refusal};

use crate::store::{InDoubt, new_incarnation};

/// Whether an abort leaves a fence.
pub(super) fn leaves_fences() -> bool {
    !mutant::is(Mutant::SqlNoFence)
}

/// What becomes of a marker in whose place there is a row.
pub(super) fn in_the_way() -> &'static str {
    if mutant::is(Mutant::SqlFenceIgnored) {
        "ON CONFLICT (txid) DO UPDATE SET fence = false"
    } else {
        ""
    }
}

/// The name that the marker of a branch has.
pub(super) fn marker(txid: Txid) -> String {
    if mutant::is(Mutant::SqlNoDoneMarker) {
        return format!("{txid} {}", new_incarnation());
    }
    txid.to_string()
}

/// Whether a commit is taken for applied of which nothing is kept.
pub(super) fn believes_commits() -> bool {
    mutant::is(Mutant::SqlLossApplied)
}

/// What came of a `PREPARE TRANSACTION` that was sent.
pub(super) fn called(result: Result<(), Failed>) -> Result<(), Failed> {
    match result {
        Err(Failed::Unknown(_)) if mutant::is(Mutant::SqlUnclearIsYes) => Ok(()),
        result => result,
    }
}

/// The branches in doubt that are found.
pub(super) fn found(in_doubt: Vec<InDoubt>) -> Vec<InDoubt> {
    if mutant::is(Mutant::SqlOrphansForgotten) { Vec::new() } else { in_doubt }
}

/// Whether votes are kept.
pub(super) fn keeps_votes() -> bool {
    !mutant::is(Mutant::SqlVoteForgotten)
}

/// Whether this no of a prepare that may not begin counts.
pub(super) fn minds(no: &Refusal) -> bool {
    let is_ignored = mutant::is(Mutant::SqlMarkIgnored) && no.code == ErrorCode::BelowLowWater
        || mutant::is(Mutant::SqlEpochIgnored) && no.code == ErrorCode::StaleEpoch;
    !is_ignored
}

/// What a marker must be to be swept, if it should be this.
pub(super) fn swept(below: &'static str) -> &'static str {
    if mutant::is(Mutant::SqlSweepsAll) { "true" } else { below }
}

/// A statement as it is run.
pub(super) fn statement(sql: &str) -> Cow<'_, str> {
    if mutant::is(Mutant::SqlReadsUnlocked) {
        return sql.replace(" FOR SHARE", "").into();
    }
    sql.into()
}

/// Whether data is followed that has fewer votes than it had.
pub(super) fn follows_less() -> bool {
    mutant::is(Mutant::SqlSeqNotCompared)
}

/// What the names of prepared transactions begin with, if it should be this.
pub(super) fn gid_prefix(prefix: String) -> String {
    if mutant::is(Mutant::SqlGidUnscoped) { "assent:".to_owned() } else { prefix }
}
