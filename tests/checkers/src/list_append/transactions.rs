//! The list-append transactions of a history, with keys as small numbers and the writer of every element.

use std::collections::HashMap;

use crate::action::{Action, MicroOp, Scalar};
use crate::history::{History, Operation, Outcome};

/// A key, by its place in [`Transactions::keys`].
pub(super) type Key = usize;
/// A transaction, by its place in [`Transactions::list`].
pub(super) type Txn = usize;

/// What is known of a transaction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Its client was told that it committed.
    Committed,
    /// Its client was told nothing, and a committed transaction read what it wrote.
    Observed,
    /// Its client was told nothing, and nobody saw it.
    Unseen,
    /// Its client was told that it aborted.
    Aborted,
}

/// A step. Reads are there only where the client was told the answer of a committed transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'h> {
    Append(Key, i64),
    Read(Key, &'h [i64]),
}

#[derive(Debug)]
pub(super) struct Transaction<'h> {
    pub(super) operation: &'h Operation,
    pub(super) status: Status,
    pub(super) steps: Vec<Step<'h>>,
}

impl Transaction<'_> {
    /// Whether it took effect.
    pub(super) const fn is_committed(&self) -> bool {
        matches!(self.status, Status::Committed | Status::Observed)
    }

    /// The last element that it appended to this key.
    pub(super) fn last_append(&self, to: Key) -> Option<i64> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Append(key, element) if *key == to => Some(*element),
            Step::Append(..) | Step::Read(..) => None,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Transactions<'h> {
    pub(super) list: Vec<Transaction<'h>>,
    pub(super) keys: Vec<&'h Scalar>,
    writers: HashMap<(Key, i64), Txn>,
}

impl<'h> Transactions<'h> {
    /// Says why not, if an element was appended to a key twice: then reads say nothing about the order.
    pub(super) fn of(history: &'h History) -> Result<Self, String> {
        let mut all = Self::default();
        let mut keys = HashMap::new();
        for operation in &history.operations {
            let Action::Txn(asked) = &operation.action else { continue };
            let (status, steps) = match &operation.outcome {
                Outcome::Ok(_, Action::Txn(answered)) => (Status::Committed, answered),
                Outcome::Ok(..) | Outcome::Unknown => (Status::Unseen, asked),
                Outcome::Fail(_) => (Status::Aborted, asked),
            };
            let txn = all.list.len();
            let mut own = Vec::with_capacity(steps.len());
            for step in steps {
                let mut place = |key: &'h Scalar| {
                    *keys.entry(key).or_insert_with(|| {
                        all.keys.push(key);
                        all.keys.len() - 1
                    })
                };
                match step {
                    MicroOp::Append(key, element) => {
                        let place = place(key);
                        if all.writers.insert((place, *element), txn).is_some() {
                            return Err(format!("{element} was appended to {key} more than once"));
                        }
                        own.push(Step::Append(place, *element));
                    }
                    MicroOp::Read(key, elements) if status == Status::Committed => {
                        let elements = elements.as_deref().unwrap_or_default();
                        own.push(Step::Read(place(key), elements));
                    }
                    MicroOp::Read(..) => {}
                }
            }
            all.list.push(Transaction { operation, status, steps: own });
        }
        all.note_observed();
        Ok(all)
    }

    /// One pass is enough: only transactions that are known to be committed have reads.
    fn note_observed(&mut self) {
        let open: HashMap<(Key, i64), Txn> = self
            .writers
            .iter()
            .filter(|(_, txn)| self.list[**txn].status == Status::Unseen)
            .map(|(written, txn)| (*written, *txn))
            .collect();
        if open.is_empty() {
            return;
        }
        let mut observed: Vec<Txn> = Vec::new();
        for (_, key, elements) in self.reads() {
            observed
                .extend(elements.iter().filter_map(|element| open.get(&(key, *element)).copied()));
        }
        for txn in observed {
            self.list[txn].status = Status::Observed;
        }
    }

    /// Every read of a committed transaction.
    pub(super) fn reads(&self) -> impl Iterator<Item = (Txn, Key, &'h [i64])> {
        self.list.iter().enumerate().flat_map(|(txn, transaction)| {
            transaction.steps.iter().filter_map(move |step| match step {
                Step::Read(key, elements) => Some((txn, *key, *elements)),
                Step::Append(..) => None,
            })
        })
    }

    pub(super) fn any_read(&self) -> bool {
        self.reads().next().is_some()
    }

    /// Who appended it; nobody, if it is a phantom.
    pub(super) fn writer(&self, key: Key, element: i64) -> Option<Txn> {
        self.writers.get(&(key, element)).copied()
    }

    /// Who appended it, if that took effect.
    pub(super) fn committed_writer(&self, key: Key, element: i64) -> Option<Txn> {
        self.writer(key, element).filter(|txn| self.list[*txn].is_committed())
    }

    pub(super) fn operation(&self, txn: Txn) -> &'h Operation {
        self.list[txn].operation
    }

    /// How it is called in a report.
    pub(super) fn name(&self, txn: Txn) -> String {
        format!("T{}", self.operation(txn).invoked.index)
    }
}
