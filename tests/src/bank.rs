//! A bank: transfers between accounts at two services, each with a mark in every branch, and an account of what the
//! clients were told.

use std::collections::BTreeMap;

use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::time::DurationMs;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{Ack, Protocol, TransactionRequest};
use assent_common::{ErrorCode, IdempotencyKey, TransactionId};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::plain;
use crate::wait::wait_for;

/// What each account begins with.
pub const OPENING: i64 = 1_000;

/// The accounts of a cluster: `acct:0` to `acct:<n-1>` at each participant.
#[derive(Debug, Clone)]
pub struct Bank {
    api: CoordinatorClient,
    accounts: usize,
    /// How long a transaction may take to decide.
    pub timeout: DurationMs,
    /// When `committed` is answered.
    pub ack: Ack,
    /// What makes it committed. Implicit transactions are sent without their keys, which would make them logged.
    pub protocol: Protocol,
}

/// Money from one account to another. Of one branch if both are at one participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The idempotency key, and the name of the mark.
    pub key: String,
    /// Participant and account that pay.
    pub from: (&'static str, usize),
    /// Participant and account that receive.
    pub to: (&'static str, usize),
    /// How much.
    pub amount: i64,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Committed.
    Committed(TransactionId),
    /// Aborted, for this reason.
    Aborted(ErrorCode),
    /// Nothing was begun.
    Rejected(ErrorCode),
    /// Not known (yet).
    Unknown(String),
}

impl Told {
    /// Whether it is the final word.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(self, Self::Committed(_) | Self::Aborted(_))
    }

    /// Whether it is committed.
    #[must_use]
    pub const fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }
}

impl Transfer {
    /// One of one unit between the first accounts of two participants.
    #[must_use]
    pub fn new(key: impl Into<String>, from: &'static str, to: &'static str) -> Self {
        let place = usize::from(from == to);
        Self { key: key.into(), from: (from, 0), to: (to, place), amount: 1 }
    }

    fn request(&self, timeout: DurationMs, ack: Ack) -> TransactionRequest {
        let mark = format!("mark:{}", self.key);
        let amount = self.amount.to_string();
        let (debit, credit) = (format!("acct:{}", self.from.1), format!("acct:{}", self.to.1));
        // `new` would make an id, which would make every repetition another request.
        let transaction = Transaction::default().timeout(timeout).ack(ack);
        let pay = |ops: assent_client::transaction::Ops| {
            ops.op(["DECRBY", &debit, &amount]).expect_ge(0).op(["INCR", &mark])
        };
        let receive = |ops: assent_client::transaction::Ops| ops.op(["INCRBY", &credit, &amount]);
        let transaction = if self.from.0 == self.to.0 {
            transaction.branch(self.from.0, |ops| receive(pay(ops)))
        } else {
            transaction
                .branch(self.from.0, pay)
                .branch(self.to.0, |ops| receive(ops).op(["INCR", &mark]))
        };
        transaction.build().expect("a transfer is a transaction")
    }
}

impl Bank {
    /// Opens this many accounts at each participant.
    pub async fn open(cluster: &Cluster, accounts: usize) -> Self {
        for peer in &cluster.peers {
            for account in 0..accounts {
                let words = ["SET", &format!("acct:{account}"), &OPENING.to_string()];
                plain::run::<()>(&peer.redis, &words).await;
            }
        }
        Self {
            api: cluster.api.clone(),
            accounts,
            timeout: DurationMs(5_000),
            ack: Ack::Applied,
            protocol: Protocol::Logged,
        }
    }

    /// The same, with balances that the log knows too: a server that loses them gets them back.
    ///
    /// # Panics
    /// If the coordinator does not commit that.
    pub async fn open_in_log(cluster: &Cluster, accounts: usize) -> Self {
        let bank = Self::open(cluster, accounts).await;
        let opening = || {
            cluster.peers.iter().fold(Transaction::new(), |transaction, peer| {
                transaction.branch(peer.name, |ops| {
                    (0..accounts).fold(ops, |ops, account| {
                        ops.op(["SET", &format!("acct:{account}"), &OPENING.to_string()])
                    })
                })
            })
        };
        // Replicas that votes wait for may be slow to begin. Each try has an id of its own.
        wait_for("the opening to commit", || async {
            let request = opening().build().expect("the opening is a transaction");
            let opened = cluster.api.submit(&request, None, None).await;
            opened.map(drop).map_err(|why| format!("{why:?}"))
        })
        .await;
        bank
    }

    /// The same bank, through another coordinator.
    #[must_use]
    pub fn through(&self, api: &CoordinatorClient) -> Self {
        Self { api: api.clone(), ..self.clone() }
    }

    /// Asks once, in a task of its own.
    pub fn asking(&self, transfer: &Transfer) -> JoinHandle<Told> {
        let (bank, transfer) = (self.clone(), transfer.clone());
        tokio::spawn(async move { bank.ask(&transfer).await })
    }

    /// Asks once.
    pub async fn ask(&self, transfer: &Transfer) -> Told {
        let key: IdempotencyKey = transfer.key.parse().expect("a key");
        let request = TransactionRequest {
            protocol: self.protocol,
            ..transfer.request(self.timeout, self.ack)
        };
        let key = (self.protocol == Protocol::Logged).then_some(&key);
        match self.api.submit(&request, key, None).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => Told::Committed(view.id),
            Ok(view) => Told::Unknown(format!("{:?}, {:?}", view.outcome, view.state)),
            Err(SubmitError::Aborted(problem)) => Told::Aborted(problem.code),
            Err(SubmitError::Rejected(problem)) => Told::Rejected(problem.code),
            Err(SubmitError::Unknown(why)) => Told::Unknown(why.0),
        }
    }

    /// Asks with the same key until the answer is definite.
    pub async fn insist(&self, transfer: &Transfer) -> Told {
        wait_for(&format!("the outcome of {}", transfer.key), || async {
            let told = self.ask(transfer).await;
            if told.is_definite() { Ok(told) } else { Err(format!("{told:?}")) }
        })
        .await
    }

    /// The sum of all accounts, past the agents. Meant for a cluster at rest.
    pub async fn total(&self, cluster: &Cluster) -> i64 {
        let mut total = 0;
        for peer in &cluster.peers {
            for account in 0..self.accounts {
                total += plain::run::<i64>(&peer.redis, &["GET", &format!("acct:{account}")]).await;
            }
        }
        total
    }

    /// Checks the ledger of a cluster at rest against what the clients were told: every mark once in all of its
    /// branches or in none, committed ones in all, aborted ones in none, the total as at the opening.
    pub async fn check(&self, cluster: &Cluster, told: &[(Transfer, Told)]) {
        let mut marks = BTreeMap::new();
        for peer in &cluster.peers {
            let keys: Vec<String> = plain::run(&peer.redis, &["KEYS", "mark:*"]).await;
            if keys.is_empty() {
                continue;
            }
            let words: Vec<&str> =
                std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let counts: Vec<i64> = plain::run(&peer.redis, &words).await;
            marks.extend(keys.into_iter().map(|key| (peer.name, key)).zip(counts));
        }
        for (transfer, told) in told {
            let mark = format!("mark:{}", transfer.key);
            let take =
                |marks: &mut BTreeMap<_, _>, name| marks.remove(&(name, mark.clone())).unwrap_or(0);
            let debited = take(&mut marks, transfer.from.0);
            let credited = if transfer.from.0 == transfer.to.0 {
                debited
            } else {
                take(&mut marks, transfer.to.0)
            };
            assert_eq!(debited, credited, "half of {transfer:?} is there; told {told:?}");
            assert!(
                (0..=1).contains(&debited),
                "{transfer:?} has {debited} effects; told {told:?}"
            );
            match told {
                Told::Committed(_) => assert_eq!(debited, 1, "{transfer:?} is lost; told {told:?}"),
                Told::Aborted(_) | Told::Rejected(_) => {
                    assert_eq!(debited, 0, "{transfer:?} has an effect; told {told:?}");
                }
                Told::Unknown(_) => {}
            }
        }
        assert!(marks.is_empty(), "marks of nobody: {marks:?}");
        let accounts = i64::try_from(self.accounts * cluster.peers.len()).expect("few accounts");
        assert_eq!(self.total(cluster).await, accounts * OPENING, "the total has changed");
    }
}
