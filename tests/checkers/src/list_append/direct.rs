//! What needs no graph: a read, or two, that cannot be.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::report::{Anomaly, Name};

use super::Level;
use super::transactions::{Key, Status, Step, Transactions, Txn};
use super::versions::{KeyVersions, Versions, repeated};

pub(super) fn find(
    transactions: &Transactions<'_>,
    versions: &Versions<'_>,
    level: Level,
) -> Vec<Anomaly> {
    let mut search = Direct { transactions, found: Vec::new() };
    for (key, reads) in versions.iter() {
        search.orders(key, reads);
        if reads.is_sound() {
            // Every read is a beginning of the longest.
            search.elements(key, reads.longest.into_iter());
        } else {
            search.elements(key, reads.reads.iter().copied());
        }
        search.intermediate(key, reads);
        if level == Level::StrictSerializable && reads.is_sound() {
            search.lost_appends(key, reads);
        }
    }
    for txn in 0..transactions.list.len() {
        search.internal(txn);
    }
    search.lost_updates();
    search.found
}

struct Direct<'t, 'h> {
    transactions: &'t Transactions<'h>,
    found: Vec<Anomaly>,
}

impl Direct<'_, '_> {
    fn push(&mut self, name: Name, txns: &[Txn], detail: String) {
        let operations = txns.iter().map(|txn| self.transactions.operation(*txn));
        self.found.push(Anomaly::new(name, operations, detail));
    }

    fn orders(&mut self, key: Key, versions: &KeyVersions<'_>) {
        let shown = self.transactions.keys[key];
        if let (Some((long, order)), Some((other, elements))) =
            (versions.longest, versions.contradiction)
        {
            let detail = format!(
                "{shown} was read as {order:?} and as {elements:?}, of which neither is the \
                 beginning of the other"
            );
            self.push(Name::IncompatibleOrder, &[long, other], detail);
        }
        if let (true, Some((txn, order))) = (versions.repeats, versions.longest) {
            let element = repeated(order).unwrap_or_default();
            let detail = format!("{shown} was read as {order:?}, which has {element} twice");
            self.push(Name::DuplicateElement, &[txn], detail);
        }
    }

    /// Elements that ought not to be there: aborted (G1a) ones and phantoms, each once.
    fn elements<'e>(&mut self, key: Key, reads: impl Iterator<Item = (Txn, &'e [i64])>) {
        let shown = self.transactions.keys[key];
        let mut seen = HashSet::new();
        for (reader, elements) in reads {
            for &element in elements {
                match self.transactions.writer(key, element) {
                    Some(writer) if self.transactions.list[writer].status != Status::Aborted => {}
                    _ if !seen.insert(element) => {}
                    Some(writer) => {
                        let writes = self.transactions.name(writer);
                        let detail = format!("{element} of {shown} was read, and {writes} aborted");
                        self.push(Name::G1a, &[reader, writer], detail);
                    }
                    None => {
                        let detail = format!("{element} of {shown} was read; nobody appended it");
                        self.push(Name::PhantomElement, &[reader], detail);
                    }
                }
            }
        }
    }

    /// Reads that end with what their writer was not yet done with (G1b), each such version once.
    fn intermediate(&mut self, key: Key, versions: &KeyVersions<'_>) {
        let shown = self.transactions.keys[key];
        let mut seen = HashSet::new();
        for &(reader, elements) in &versions.reads {
            let Some(&element) = elements.last() else { continue };
            let Some(writer) = self.transactions.writer(key, element) else { continue };
            let Some(last) = self.transactions.list[writer].last_append(key) else { continue };
            if writer != reader && last != element && seen.insert(element) {
                let writes = self.transactions.name(writer);
                let detail = format!(
                    "{shown} was read up to {element}, before {writes} appended {last} to it too"
                );
                self.push(Name::G1b, &[reader, writer], detail);
            }
        }
    }

    /// Appends that were confirmed before a read began that does not have them, nor has any other.
    fn lost_appends(&mut self, key: Key, versions: &KeyVersions<'_>) {
        let began = |(reader, _): &&(Txn, _)| self.transactions.operation(*reader).invoked.index;
        let Some(&(reader, _)) = versions.reads.iter().max_by_key(began) else { return };
        let read_at = self.transactions.operation(reader).invoked.index;
        let shown = self.transactions.keys[key];
        for &(writer, element) in &versions.unread {
            let ok_at = self.transactions.operation(writer).ok_at();
            if ok_at.is_some_and(|ok_at| ok_at < read_at) {
                let (writes, reads) =
                    (self.transactions.name(writer), self.transactions.name(reader));
                let detail = format!(
                    "{writes} had committed {element} to {shown} before {reads} began, which did \
                     not see it, nor did any other"
                );
                self.push(Name::LostAppend, &[writer, reader], detail);
            }
        }
    }

    /// Whether a transaction saw its own appends, and the same twice where it read twice.
    fn internal(&mut self, txn: Txn) {
        let transaction = &self.transactions.list[txn];
        let mut known: Vec<(Key, Expected)> = Vec::new();
        for step in &transaction.steps {
            let (Step::Append(key, _) | Step::Read(key, _)) = *step;
            let place = known.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                known.push((key, Expected { whole: false, elements: Vec::new() }));
                known.len() - 1
            });
            let expected = &mut known[place].1;
            match step {
                Step::Append(_, element) => expected.elements.push(*element),
                Step::Read(_, elements) if expected.admits(elements) => {
                    *expected = Expected { whole: true, elements: elements.to_vec() };
                }
                Step::Read(_, elements) => {
                    let rest = if expected.whole { "" } else { "…, " };
                    let detail = format!(
                        "it read {} as {elements:?}; by its own steps it is [{rest}{:?}]",
                        self.transactions.keys[key], expected.elements
                    );
                    self.push(Name::Internal, &[txn], detail);
                    return;
                }
            }
        }
    }

    /// Committed transactions that read the same version of a key and then appended to it.
    fn lost_updates(&mut self) {
        let mut updates: HashMap<(Key, &[i64]), Vec<Txn>> = HashMap::new();
        for (txn, transaction) in self.transactions.list.iter().enumerate() {
            let mut first: BTreeMap<Key, Option<&[i64]>> = BTreeMap::new();
            for step in &transaction.steps {
                match step {
                    Step::Read(key, elements) => {
                        first.entry(*key).or_insert(Some(elements));
                    }
                    Step::Append(key, _) => {
                        if let Some(read) = first.insert(*key, None).flatten() {
                            updates.entry((*key, read)).or_default().push(txn);
                        }
                    }
                }
            }
        }
        let mut lost: Vec<_> = updates.into_iter().filter(|(_, txns)| txns.len() > 1).collect();
        lost.sort_unstable();
        for ((key, read), txns) in lost {
            let shown = self.transactions.keys[key];
            let detail = format!("all of them read {shown} as {read:?} and then appended to it");
            self.push(Name::LostUpdate, &txns, detail);
        }
    }
}

/// What a transaction must see of a key, by its own steps.
struct Expected {
    /// Whether these are all elements, or the last ones.
    whole: bool,
    elements: Vec<i64>,
}

impl Expected {
    fn admits(&self, read: &[i64]) -> bool {
        if self.whole { read == self.elements } else { read.ends_with(&self.elements) }
    }
}
