//! The graph of what must come before what.

use crate::action::Scalar;
use crate::report::Dependency;

use super::Level;
use super::realtime;
use super::transactions::{Key, Transactions, Txn};
use super::versions::{KeyVersions, Versions};

/// Why one transaction comes before another. The first that is true of a pair is kept: it is the strongest evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It appended the element before the other's.
    WriteWrite { key: Key, before: i64, after: i64 },
    /// It appended what the other read last.
    WriteRead { key: Key, element: i64 },
    /// It read up to this, and the other appended the next.
    ReadWrite { key: Key, up_to: Option<i64>, next: i64 },
    /// It had ended.
    Realtime,
}

impl Why {
    pub(super) const fn dependency(self) -> Dependency {
        match self {
            Self::WriteWrite { .. } => Dependency::WriteWrite,
            Self::WriteRead { .. } => Dependency::WriteRead,
            Self::ReadWrite { .. } => Dependency::ReadWrite,
            Self::Realtime => Dependency::Realtime,
        }
    }

    /// For people.
    pub(super) fn explain(self, keys: &[&Scalar], from: &str, to: &str) -> String {
        match self {
            Self::WriteWrite { key, before, after } => {
                format!("{to} appended {after} to {} after {from} appended {before}", keys[key])
            }
            Self::WriteRead { key, element } => {
                format!("{to} saw {element}, which {from} appended to {}", keys[key])
            }
            Self::ReadWrite { key, up_to: Some(last), next } => {
                format!("{from} saw {} up to {last}, not the {next} that {to} appended", keys[key])
            }
            Self::ReadWrite { key, up_to: None, next } => {
                format!("{from} saw {} empty, without the {next} that {to} appended", keys[key])
            }
            Self::Realtime => format!("{from} had ended before {to} began"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: Txn,
    pub(super) to: Txn,
    pub(super) why: Why,
}

/// One edge for a pair at most, sorted.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: usize,
    pub(super) edges: Vec<Edge>,
}

impl Graph {
    pub(super) fn of(
        transactions: &Transactions<'_>,
        versions: &Versions<'_>,
        level: Level,
    ) -> Self {
        let mut edges = Vec::new();
        // A key whose reads contradict each other has no order, and is reported for that.
        for (key, versions) in versions.iter().filter(|(_, versions)| versions.is_sound()) {
            of_key(key, versions, transactions, &mut edges);
        }
        if level == Level::StrictSerializable {
            let edge = |(from, to)| Edge { from, to, why: Why::Realtime };
            edges.extend(realtime::edges(transactions).into_iter().map(edge));
        }
        edges.retain(|edge| edge.from != edge.to);
        edges.sort_unstable();
        edges.dedup_by_key(|edge| (edge.from, edge.to));
        Self { nodes: transactions.list.len(), edges }
    }
}

fn of_key(
    key: Key,
    versions: &KeyVersions<'_>,
    transactions: &Transactions<'_>,
    edges: &mut Vec<Edge>,
) {
    let order = versions.order();
    // Versions of aborted transactions and of nobody are passed over: what is before them is before what is after.
    let writers: Vec<_> =
        order.iter().map(|element| transactions.committed_writer(key, *element)).collect();

    let mut last: Option<(Txn, i64)> = None;
    let mut latest = Vec::with_capacity(order.len());
    for (writer, &after) in writers.iter().zip(order) {
        if let Some(to) = *writer {
            if let Some((from, before)) = last {
                let why = Why::WriteWrite { key, before, after };
                edges.push(Edge { from, to, why });
            }
            last = Some((to, after));
        }
        latest.push(last);
    }
    // Appends that nobody read come after all that were, in an order that is not known.
    for &(to, after) in &versions.unread {
        if let Some((from, before)) = last {
            let why = Why::WriteWrite { key, before, after };
            edges.push(Edge { from, to, why });
        }
    }

    let mut next = vec![None; order.len() + 1];
    for place in (0..order.len()).rev() {
        next[place] = writers[place].map(|writer| (writer, order[place])).or(next[place + 1]);
    }
    for &(reader, elements) in &versions.reads {
        let seen = elements.len().checked_sub(1).and_then(|place| latest[place]);
        if let Some((from, element)) = seen {
            edges.push(Edge { from, to: reader, why: Why::WriteRead { key, element } });
        }
        let up_to = elements.last().copied();
        let overwritten = |(to, next): (Txn, i64)| Edge {
            from: reader,
            to,
            why: Why::ReadWrite { key, up_to, next },
        };
        match next[elements.len()] {
            Some(version) => edges.push(overwritten(version)),
            None => edges.extend(versions.unread.iter().copied().map(overwritten)),
        }
    }
}
