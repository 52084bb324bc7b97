//! Real time, reduced: enough edges that whoever had ended before another began reaches it.

use super::transactions::{Status, Transactions, Txn};

/// Pairs of transactions of which the first had ended before the second began.
///
/// The frontier holds the ended transactions that do not precede another ended one. A transaction that begins comes
/// after each of them, and through them after all others. There are never more of them than were open at one time, so
/// that the edges are linear in the history.
pub(super) fn edges(transactions: &Transactions<'_>) -> Vec<(Txn, Txn)> {
    let mut moments = Vec::with_capacity(transactions.list.len() * 2);
    for (txn, transaction) in transactions.list.iter().enumerate() {
        if transaction.is_committed() {
            moments.push((transaction.operation.invoked.index, txn, false));
        }
        if let (Status::Committed, Some(end)) = (transaction.status, transaction.operation.ok_at())
        {
            moments.push((end, txn, true));
        }
    }
    moments.sort_unstable();

    let mut edges = Vec::new();
    let mut frontier: Vec<Txn> = Vec::new();
    // Where in `edges` those of each transaction that is open are.
    let mut before = vec![0..0; transactions.list.len()];
    for (_, txn, ended) in moments {
        if ended {
            let implied = &edges[before[txn].clone()];
            frontier.retain(|earlier| !implied.contains(&(*earlier, txn)));
            frontier.push(txn);
        } else {
            let first = edges.len();
            edges.extend(frontier.iter().map(|earlier| (*earlier, txn)));
            before[txn] = first..edges.len();
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Plan, Workload, generate};
    use crate::history::History;

    #[test]
    fn the_reduction_reaches_exactly_what_real_time_orders() {
        for seed in 0..20 {
            let processes = 1 + usize::try_from(seed).unwrap() % 7;
            let plan = Plan { workload: Workload::ListAppend, operations: 80, processes, seed };
            let history = History::of(generate(plan)).unwrap();
            let transactions = Transactions::of(&history).unwrap();
            let count = transactions.list.len();
            let edges = edges(&transactions);
            assert!(edges.len() <= count * processes, "{} edges of {count}", edges.len());
            let mut reaches = vec![vec![false; count]; count];
            for &(from, to) in &edges {
                reaches[from][to] = true;
            }
            for via in 0..count {
                let onward = reaches[via].clone();
                for from in reaches.iter_mut().filter(|from| from[via]) {
                    for (to, more) in from.iter_mut().zip(&onward) {
                        *to |= more;
                    }
                }
            }
            for (from, reached) in reaches.iter().enumerate() {
                for (to, reached) in reached.iter().enumerate() {
                    let end = transactions.operation(from).ok_at();
                    let begin = transactions.operation(to).invoked.index;
                    let both = [from, to].iter().all(|txn| transactions.list[*txn].is_committed());
                    let before = both && end.is_some_and(|end| end < begin);
                    assert_eq!(*reached, before, "seed {seed}: {from} to {to}");
                }
            }
        }
    }
}
