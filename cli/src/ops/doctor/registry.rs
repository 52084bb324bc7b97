//! Whom the coordinator knows by name. Its transactions may name a participant that it does not
//! know any more: nothing of them ends before somebody registers it.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::wire::transaction::{BranchProgress, TransactionView, VersionView};
use assent_common::{ParticipantName, TransactionId};

use super::Check;
use super::coordinator::Told;
use crate::ops::is_admin;

/// The transactions that wait for each participant.
#[derive(Debug, Default)]
pub(super) struct Awaited(BTreeMap<ParticipantName, BTreeSet<TransactionId>>);

impl Awaited {
    pub(super) fn add(&mut self, view: &TransactionView) {
        let is_open = |state| {
            use BranchProgress::{Aborting, Committing, Lost, Prepared, Preparing};
            matches!(state, Preparing | Prepared | Committing | Aborting | Lost)
        };
        for branch in view.branches.iter().filter(|branch| is_open(branch.state)) {
            self.0.entry(branch.participant.clone()).or_default().insert(view.id);
        }
    }

    fn count(&self, name: &ParticipantName) -> usize {
        self.0.get(name).map_or(0, BTreeSet::len)
    }
}

/// The participants for which transactions wait, and which the coordinator does not know.
pub(super) fn unknown(
    awaited: &Awaited,
    is_known: impl Fn(&ParticipantName) -> bool,
) -> Vec<Check> {
    let unknown = awaited.0.keys().filter(|name| !is_known(name));
    unknown.map(|name| not_known(&format!("participant {name}"), name, awaited, "URL")).collect()
}

/// Whether the coordinator knows a participant that an operator has named by this URL; `None` if
/// it does not say its name.
pub(super) fn named(what: &str, told: &Told, url: &str, version: &VersionView) -> Option<Check> {
    let name: ParticipantName = version.name.as_deref()?.parse().ok()?;
    let Some(known) = told.participants.iter().find(|view| view.name == name) else {
        // The coordinator talks to the other one of its two addresses.
        let url = if is_admin(url, version) { "URL" } else { url };
        return Some(not_known(what, &name, &told.awaited, url));
    };
    let found = format!("as {name}, at {}", known.url);
    Some(Check::ok(format!("{what}: known to the coordinator"), found))
}

/// Nothing runs there, which is meant before the first transaction and a fault from then on.
fn not_known(what: &str, name: &ParticipantName, awaited: &Awaited, url: &str) -> Check {
    let what = format!("{what}: known to the coordinator");
    let found = format!("the coordinator does not know participant {name}");
    let fix = format!("register it: assent participants set {name} {url}");
    match awaited.count(name) {
        0 => Check::warning(what, found, fix),
        1 => Check::failing(what, format!("{found}; 1 transaction waits for it"), fix),
        count => Check::failing(what, format!("{found}; {count} transactions wait for it"), fix),
    }
}
