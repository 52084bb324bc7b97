//! List-append transactions under strict serialisability.
//!
//! Every read of a list shows the order of all the appends before it. So the longest read of a key is its version order,
//! and with it Adya's dependencies are known: `ww` from one append to the next, `wr` from an append to the reads that
//! saw it last, `rw` from a read to the append that came next. Together with real time (`realtime`, from a transaction
//! that had ended to those that began afterwards) these are orders that any explanation must obey: a cycle has none.
//!
//! ```text
//! transactions ─► versions ──► direct     what one read shows: G1a, G1b, duplicates, lost appends, lost updates…
//!                     └──────► graph ──► cycles     G0, G1c, G-single, G2, and each with real time
//! ```
//!
//! An indeterminate transaction whose append was read did commit; any other indeterminate one is left out, because it
//! has no edge to anything. Its reads are not used: nobody was told them.

mod cycles;
mod direct;
mod graph;
mod realtime;
mod transactions;
mod versions;

use crate::history::History;
use crate::report::{Checker, Report};

use graph::Graph;
use transactions::Transactions;
use versions::Versions;

/// What is to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Some order of the transactions explains every read.
    Serializable,
    /// Some order that agrees with real time does.
    StrictSerializable,
}

/// Checks strict serialisability.
#[must_use]
pub fn check(history: &History) -> Report {
    check_at(history, Level::StrictSerializable)
}

/// Checks this level.
#[must_use]
pub fn check_at(history: &History, level: Level) -> Report {
    let checker = Checker::ListAppend;
    let transactions = match Transactions::of(history) {
        Ok(transactions) => transactions,
        Err(why) => return Report::unknown(checker, history.operations.len(), why),
    };
    let examined = transactions.list.len();
    if examined == 0 {
        return Report::absent(checker);
    }
    let versions = Versions::of(&transactions);
    let mut anomalies = direct::find(&transactions, &versions, level);
    let graph = Graph::of(&transactions, &versions, level);
    anomalies.extend(cycles::find(&graph, &transactions));
    if anomalies.is_empty() && !transactions.any_read() {
        return Report::unknown(checker, examined, "no committed transaction read anything");
    }
    Report::of(checker, examined, anomalies)
}
