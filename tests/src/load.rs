//! Clients that move money until they are told to stop, each insisting on an outcome of every transfer and holding the
//! coordinator to the first one that it was told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bank::{Bank, Told, Transfer};
use crate::wait::wait_for;

/// Between two transfers of one client: a load that leaves the machine room, not a benchmark.
const THINK: Duration = Duration::from_millis(5);

/// What the clients have been told so far. Each transfer is asked for twice at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Committed.
    pub committed: u64,
    /// Aborted, or rejected.
    pub refused: u64,
    /// Not known.
    pub unknown: u64,
}

/// Some clients at work.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    counts: Arc<watch::Sender<Counts>>,
    clients: Vec<JoinHandle<Vec<(Transfer, Told)>>>,
}

/// The transfers of a load: of two branches both ways, and of one.
#[must_use]
pub fn transfer(client: usize, n: usize, accounts: usize) -> Transfer {
    let (from, to) = [("bank-a", "bank-b"), ("bank-b", "bank-a"), ("bank-b", "bank-b")][n % 3];
    let place = (client + n) % accounts;
    Transfer {
        key: format!("{client}-{n}"),
        from: (from, place),
        to: (to, (place + 1) % accounts),
        amount: 1,
    }
}

async fn ask(bank: &Bank, transfer: &Transfer, counts: &watch::Sender<Counts>) -> Told {
    let told = bank.ask(transfer).await;
    counts.send_modify(|counts| match told {
        Told::Committed(_) => counts.committed += 1,
        Told::Aborted(_) | Told::Rejected(_) => counts.refused += 1,
        Told::Unknown(_) => counts.unknown += 1,
    });
    told
}

impl Load {
    /// Starts so many clients on a bank of so many accounts.
    #[must_use]
    pub fn start(bank: &Bank, clients: usize, accounts: usize) -> Self {
        let stop = watch::Sender::new(false);
        let counts = Arc::new(watch::Sender::new(Counts::default()));
        let clients = (0..clients).map(|name| {
            let (bank, counts, stop) = (bank.clone(), Arc::clone(&counts), stop.subscribe());
            tokio::spawn(async move {
                let mut ledger = Vec::new();
                while !*stop.borrow() {
                    let transfer = transfer(name, ledger.len(), accounts);
                    let told = ask(&bank, &transfer, &counts).await;
                    let now = wait_for(&format!("the outcome of {}", transfer.key), || async {
                        let told = ask(&bank, &transfer, &counts).await;
                        if told.is_definite() { Ok(told) } else { Err(format!("{told:?}")) }
                    })
                    .await;
                    // What was not known may become anything; what was told stays.
                    assert!(!told.is_definite() || told == now, "{transfer:?}: {told:?}, {now:?}");
                    ledger.push((transfer, now));
                    tokio::time::sleep(THINK).await;
                }
                ledger
            })
        });
        let clients = clients.collect();
        Self { stop, counts, clients }
    }

    /// What the clients were told so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until the counts are as this says.
    pub async fn wait(&self, what: &str, mut is_so: impl FnMut(Counts) -> bool) {
        wait_for(what, || {
            let counts = self.counts();
            let is_so = is_so(counts);
            async move { if is_so { Ok(()) } else { Err(format!("{counts:?}")) } }
        })
        .await;
    }

    /// Waits until the clients have been told so many more times that a transfer has committed.
    pub async fn wait_committed(&self, more: u64) {
        let before = self.counts().committed;
        self.wait("transfers to commit", |counts| counts.committed >= before + more).await;
    }

    /// Ends it, and returns every transfer with its outcome.
    ///
    /// # Panics
    /// If a client was told two outcomes.
    pub async fn finish(self) -> Vec<(Transfer, Told)> {
        self.stop.send_replace(true);
        let mut ledger = Vec::new();
        for client in self.clients {
            ledger.extend(client.await.expect("a client that was told one outcome of each"));
        }
        ledger
    }
}
