//! A service with a hook: what a customer owes, over all accounts, has a limit.

use std::sync::Arc;

use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::IdempotencyKey;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{TransactionRequest, TransactionView};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bank::Told;
use crate::cluster::Cluster;
use crate::hook::serve_hook;
use crate::plain;
use crate::wait::wait_for;

/// What a customer may owe.
pub const LIMIT: i64 = 100;

/// How many accounts a customer has.
pub const ACCOUNTS: usize = 3;

/// The service beside the participants; one answers for all.
#[derive(Debug, Clone)]
pub struct LimitService {
    url: &'static str,
    /// Whether it decides; it reads in any case.
    open: Arc<watch::Sender<bool>>,
    /// How often it has come to decide.
    decides: Arc<watch::Sender<u64>>,
}

/// A debt that a customer wants to make, or to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    /// The idempotency key, and the name of the mark.
    pub key: String,
    /// Who.
    pub customer: usize,
    /// In which account.
    pub account: usize,
    /// How much more.
    pub amount: i64,
    /// Whether there is a branch without a hook, which counts the same elsewhere.
    pub is_counted: bool,
}

impl LimitService {
    /// Starts it.
    ///
    /// # Panics
    /// If there is no port for it.
    pub async fn start() -> Self {
        let (open, decides) = (Arc::new(watch::Sender::new(true)), Arc::default());
        let mut service = Self { url: "", open, decides };
        let answering = service.clone();
        let answer = move |question: Value| {
            let service = answering.clone();
            async move { service.answer(&question).await }
        };
        service.url = Box::leak(serve_hook(answer).await.into_boxed_str());
        service
    }

    /// The arguments of a participant that has it for its hook.
    #[must_use]
    pub fn arguments(&self) -> Vec<&'static str> {
        vec!["--hook-url", self.url, "--hook-timeout", "20s"]
    }

    /// From now on it reads, and does not decide.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// From now on it decides.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// How often it has come to decide so far.
    #[must_use]
    pub fn decided(&self) -> u64 {
        *self.decides.borrow()
    }

    /// Waits until it has come to decide so often.
    pub async fn comes_to_decide(&self, times: u64) {
        wait_for("the hook to have read", || async {
            let met = self.decided();
            if met >= times { Ok(()) } else { Err(format!("{met} of {times} times")) }
        })
        .await;
    }

    async fn answer(&self, question: &Value) -> Value {
        let input = &question["input"];
        let number = |field: &str| input[field].as_i64().unwrap_or_default();
        let (customer, account, amount) = (number("customer"), number("account"), number("amount"));
        let Some(owed) = question["reads"].get(0) else {
            let keys = (0..ACCOUNTS).map(|account| format!("owes:{customer}:{account}"));
            let read: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
            return json!({"read": [{"cmd": read}]});
        };
        self.decides.send_modify(|times| *times += 1);
        let mut open = self.open.subscribe();
        // The sender is this service's own.
        let _ = open.wait_for(|open| *open).await;
        let owed = sum(owed);
        if owed + amount > LIMIT {
            let reason = format!("customer {customer} owes {owed} of {LIMIT}");
            return json!({"veto": {"code": "limit_exceeded", "reason": reason}});
        }
        let key = input["key"].as_str().unwrap_or_default();
        json!({
            "ops": [{"cmd": ["INCRBY", format!("owes:{customer}:{account}"), amount]},
                    {"cmd": ["INCR", format!("mark:{key}")]}],
            "reply": {"owes": owed + amount},
        })
    }
}

/// The sum of the replies of `MGET`.
#[must_use]
pub fn sum(accounts: &Value) -> i64 {
    let owed = |account: &Value| account.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    accounts.as_array().into_iter().flatten().map(owed).sum::<i64>()
}

impl Debt {
    /// The transaction.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn request(&self) -> TransactionRequest {
        let Self { key, customer, account, amount, is_counted } = self;
        let input = json!({"key": key, "customer": customer, "account": account, "amount": amount});
        // `new` would make an id, which would make every repetition another request.
        let transaction = Transaction::default().branch("bank-a", |ops| ops.input(&input));
        let count = ["INCRBY", &format!("total:{customer}"), &amount.to_string()];
        let transaction = match is_counted {
            true => transaction.branch("bank-b", |ops| ops.op(count)),
            false => transaction,
        };
        transaction.build().expect("a debt is a transaction")
    }

    /// Asks once.
    ///
    /// # Panics
    /// If its key is none.
    pub async fn ask(&self, api: &CoordinatorClient) -> Result<TransactionView, SubmitError> {
        let key: IdempotencyKey = self.key.parse().expect("a key");
        api.submit(&self.request(), Some(&key), None).await
    }

    /// Asks with the same key until the answer is definite.
    pub async fn insist(&self, api: &CoordinatorClient) -> Told {
        wait_for(&format!("the outcome of {}", self.key), || async {
            match self.ask(api).await {
                Ok(view) if view.outcome == OutcomeWord::Committed => Ok(Told::Committed(view.id)),
                Ok(view) => Err(format!("{:?}, {:?}", view.outcome, view.state)),
                Err(SubmitError::Aborted(problem)) => Ok(Told::Aborted(problem.code)),
                Err(why) => Err(format!("{why:?}")),
            }
        })
        .await
    }
}

/// Checks a cluster at rest against what the clients were told: every debt that is committed is
/// there once, no other one is, and nobody owes more than the limit.
///
/// # Panics
/// If it is otherwise.
pub async fn check_debts(cluster: &Cluster, told: &[(Debt, Told)]) {
    let [first, second, ..] = &cluster.peers[..] else { panic!("two participants") };
    let number = async |peer: &crate::Peer, key: String| {
        plain::run::<Option<i64>>(&peer.redis, &["GET", &key]).await.unwrap_or(0)
    };
    for (debt, told) in told {
        let marks = number(first, format!("mark:{}", debt.key)).await;
        assert_eq!(marks, i64::from(told.is_committed()), "{debt:?} was told {told:?}");
    }
    let customers = told.iter().map(|(debt, _)| debt.customer).max().map_or(0, |last| last + 1);
    for customer in 0..customers {
        let committed =
            told.iter().filter(|(it, told)| it.customer == customer && told.is_committed());
        let amounts = |is_wanted: fn(&Debt) -> bool| {
            let wanted = committed.clone().filter(move |(debt, _)| is_wanted(debt));
            wanted.map(|(debt, _)| debt.amount).sum::<i64>()
        };
        let mut owes = 0;
        for account in 0..ACCOUNTS {
            owes += number(first, format!("owes:{customer}:{account}")).await;
        }
        assert_eq!(owes, amounts(|_| true), "customer {customer} owes what was told");
        let total = number(second, format!("total:{customer}")).await;
        assert_eq!(total, amounts(|debt| debt.is_counted), "both branches of {customer} are there");
        assert!(owes <= LIMIT, "the limit of {customer} is broken: {owes}");
    }
}
