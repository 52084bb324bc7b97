//! The client of a service's coordinators: the Rust SDK, with the words that those of the other
//! languages have.
//!
//! ```no_run
//! use assent_client::{AssentClient, Http, HttpOptions, Transaction, TransactionError};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let http = Http::new(&HttpOptions::default())?;
//! let client = AssentClient::new(&http, ["http://127.0.0.1:7700"])?;
//! let mut transfer = Transaction::new() // makes the id: keep it before you send
//!     .branch("bank-a", |ops| ops.op(["DECRBY", "acct:alice", "30"]).expect_ge(0))
//!     .branch("bank-b", |ops| ops.op(["INCRBY", "acct:bob", "30"]))
//!     .seal()?;
//! match client.submit(&mut transfer, None).await {
//!     Ok(committed) => println!("{:?}", committed.replies("bank-a")),
//!     Err(TransactionError::Aborted(why)) => println!("no branch applies: {why}"),
//!     Err(TransactionError::Rejected(why)) => println!("nothing was begun: {why}"),
//!     // Submit `transfer` again: it is done once.
//!     Err(TransactionError::Unknown(why)) => println!("it may have committed: {why}"),
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use assent_common::backoff::Backoff;
use assent_common::time::DurationMs;
use assent_common::wire::interactive::BeginRequest;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, TransactionId, limits};

use crate::coordinator::CoordinatorClient;
use crate::interactive::Interactive;
use crate::outcome::{AskedOf, CommittedTransaction, TransactionError};
use crate::sealed::SealedTransaction;
use crate::transaction::Transaction;
use crate::transport::{Endpoint, Http, InvalidBaseUrl, Request};

/// How long `attach` waits for the outcome, if nothing is said.
const ATTACH_WAIT_DEFAULT: DurationMs = DurationMs(5_000);

/// Between the attempts of `run`.
const PAUSE: Backoff = Backoff { base_ms: 40, cap_ms: 1_000 };

/// Runs transactions at a coordinator, or at the first of several that can be reached. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct AssentClient {
    coordinators: Vec<CoordinatorClient>,
}

/// How `run` runs a function.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How often the function is called at most.
    pub attempts_max: u32,
    /// What each attempt begins with. Each has an id of its own.
    pub begin: BeginRequest,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { attempts_max: 5, begin: BeginRequest::default() }
    }
}

impl AssentClient {
    /// A client of the coordinators at these base URLs, at least one. The next one is tried only
    /// while a transaction was sent to none; they need not share a log.
    pub fn new<U: AsRef<str>>(
        http: &Http,
        coordinators: impl IntoIterator<Item = U>,
    ) -> Result<Self, InvalidBaseUrl> {
        let client = |url: U| CoordinatorClient::new(http, url.as_ref());
        let coordinators: Vec<_> =
            coordinators.into_iter().map(client).collect::<Result<_, _>>()?;
        match coordinators.is_empty() {
            true => Err(InvalidBaseUrl::of("")),
            false => Ok(Self { coordinators }),
        }
    }

    /// The base URLs.
    pub fn coordinators(&self) -> impl Iterator<Item = &str> {
        self.coordinators.iter().map(CoordinatorClient::base_url)
    }

    /// The same client with this coordinator only: the one that a kept id belongs to.
    pub fn at(&self, coordinator: &str) -> Result<Self, InvalidBaseUrl> {
        let http = &self.coordinators[0].endpoint().http;
        Ok(Self { coordinators: vec![CoordinatorClient::new(http, coordinator)?] })
    }

    /// Runs a transaction of one request. To send it again after `Unknown`, keep what
    /// [`Transaction::seal`] makes, and [submit](Self::submit) that.
    pub async fn transaction(
        &self,
        transaction: Transaction,
    ) -> Result<CommittedTransaction, TransactionError> {
        self.submit(&mut transaction.seal()?, None).await
    }

    /// Sends a transaction; the same one again after `Unknown`, as often as you like. Without
    /// `wait` it is waited for as long as it may take to decide. Whoever drops the future leaves
    /// the outcome unknown.
    pub async fn submit(
        &self,
        transaction: &mut SealedTransaction,
        wait: Option<DurationMs>,
    ) -> Result<CommittedTransaction, TransactionError> {
        let SealedTransaction { id, ref key, is_kept, may_be_taken, .. } = *transaction;
        let asked = AskedOf { id, coordinator: transaction.coordinator.as_deref() };
        if may_be_taken && transaction.request.id.is_none() && key.is_none() {
            let why = "an earlier copy may have been taken, and without an id or a key a second \
                       one would be a second transaction";
            return Err(asked.unclear(why));
        }
        let candidates = self.candidates(asked, is_kept)?;
        let mut last = Err(asked.unclear("there is no coordinator"));
        for coordinator in candidates {
            let request = coordinator.submission(&transaction.request, key.as_ref(), wait);
            let asked = AskedOf { id, coordinator: Some(coordinator.base_url()) };
            let before = transaction.coordinator.replace(coordinator.base_url().to_owned());
            transaction.may_be_taken = true;
            last = match request {
                Ok(request) => {
                    let heard = coordinator.endpoint().http.say_if_connected(request).await;
                    asked.committed(heard)
                }
                Err(not_sent) => Err(asked.not_sent(not_sent)),
            };
            let was_sent = !matches!(&last, Err(error) if error.is_not_sent());
            if was_sent {
                break;
            }
            (transaction.coordinator, transaction.may_be_taken) = (before, may_be_taken);
        }
        match last {
            // What is said of this copy tells nothing of an earlier one that may have been taken.
            Err(error @ TransactionError::Rejected(_)) if may_be_taken => Err(error.into_unknown()),
            Err(error @ TransactionError::Rejected(_)) => {
                transaction.may_be_taken = false;
                Err(error)
            }
            Ok(committed) => {
                transaction.id = Some(committed.id());
                Ok(committed)
            }
            Err(error) => Err(error),
        }
    }

    /// Which coordinators may be told of it: once one may have heard of it, only that one.
    fn candidates(
        &self,
        asked: AskedOf<'_>,
        is_kept: bool,
    ) -> Result<&[CoordinatorClient], TransactionError> {
        let refused = |why| TransactionError::refused(asked, ErrorCode::BadRequest, why);
        match asked.coordinator {
            Some(url) => {
                let http = &self.coordinators[0].endpoint().http;
                let url = Endpoint::new(http, url).map_err(|error| refused(error.to_string()))?;
                let is_it = |it: &CoordinatorClient| it.base_url() == url.base_url();
                let at = self.coordinators.iter().position(is_it);
                let why = "it belongs to a coordinator that this client does not have";
                at.map(|at| &self.coordinators[at..=at]).ok_or_else(|| refused(why.to_owned()))
            }
            None if is_kept && self.coordinators.len() > 1 => {
                let why = "a kept id or key needs its coordinator: the others do not know it";
                Err(refused(why.to_owned()))
            }
            None => Ok(&self.coordinators),
        }
    }

    /// Asks what became of a transaction, and waits for the outcome, 5 s if nothing is said. All
    /// coordinators are asked; an id that nobody knows is `Unknown`, which says nothing of an
    /// outcome.
    pub async fn attach(
        &self,
        id: TransactionId,
        wait: Option<DurationMs>,
    ) -> Result<CommittedTransaction, TransactionError> {
        let (view, coordinator) = self.find(id, wait.unwrap_or(ATTACH_WAIT_DEFAULT)).await?;
        AskedOf { id: Some(id), coordinator: Some(coordinator) }.outcome_of(view)
    }

    /// The story of a transaction so far, whatever its outcome. `Unknown` if nobody knows the id.
    pub async fn describe(&self, id: TransactionId) -> Result<TransactionView, TransactionError> {
        self.find(id, DurationMs(0)).await.map(|(view, _)| view)
    }

    async fn find(
        &self,
        id: TransactionId,
        wait: DurationMs,
    ) -> Result<(TransactionView, &str), TransactionError> {
        let wait = DurationMs(wait.0.min(limits::WAIT_MAX_MS));
        let mut unknown: Option<TransactionError> = None;
        for coordinator in &self.coordinators {
            let endpoint = coordinator.endpoint();
            let mut url = endpoint.url(&["v1", "transactions", &id.to_string()]);
            url.query_pairs_mut().append_pair("wait", &wait.to_string());
            let request = Request::get(url).waiting(wait.0);
            let asked = AskedOf { id: Some(id), coordinator: Some(coordinator.base_url()) };
            match asked.view(endpoint.http.say_if_connected(request).await) {
                Ok(view) => return Ok((view, coordinator.base_url())),
                // Who could not be asked may know it.
                Err(error) if unknown.as_ref().is_none_or(|it| it.code() == Some("not_found")) => {
                    unknown = Some(error.into_unknown());
                }
                Err(_) => {}
            }
        }
        let asked = AskedOf { id: Some(id), coordinator: None };
        Err(unknown.unwrap_or_else(|| asked.unclear("there is no coordinator")))
    }

    /// Begins an interactive transaction: it reads, you decide, it writes, and it commits at the
    /// end. After an error nothing was done; begin again, with the same id if you like.
    pub async fn begin(&self, request: BeginRequest) -> Result<Interactive, TransactionError> {
        let asked = AskedOf { id: request.id, coordinator: None };
        let mut begun = Err(asked.unclear("there is no coordinator"));
        for coordinator in self.candidates(asked, request.id.is_some())? {
            begun = Interactive::begin_as(coordinator, request.clone()).await;
            if !matches!(&begun, Err(error) if error.is_not_sent()) {
                break;
            }
        }
        begun
    }

    /// An interactive transaction that was begun elsewhere, of which so many calls were done. A
    /// client of several coordinators says which one has it, by [`at`](Self::at).
    pub fn interactive(
        &self,
        id: TransactionId,
        seq: u64,
    ) -> Result<Interactive, TransactionError> {
        let asked = AskedOf { id: Some(id), coordinator: None };
        self.candidates(asked, true).map(|only| Interactive::attach(&only[0], id, seq))
    }

    /// Runs a function in an interactive transaction, and commits it. If the function returns an
    /// error, it is given up. It returns `Ok` only if the transaction is committed, or empty; if
    /// the function has aborted it, that is `Aborted` with the code `cancelled`.
    ///
    /// If a call, the commit or the beginning failed so that nothing was done and another attempt
    /// may help, the function is called again in a new transaction: what was read has changed, a
    /// lock was held for too long, the coordinator has too much to do or cannot be reached. So it
    /// must do nothing that may not be done twice. It is not called again after an unclear answer.
    pub async fn run<T, E: From<TransactionError>>(
        &self,
        options: RunOptions,
        mut work: impl AsyncFnMut(&mut Interactive) -> Result<T, E>,
    ) -> Result<T, E> {
        let RunOptions { attempts_max, begin } = options;
        let mut tries = 0;
        loop {
            tries += 1;
            let begin = BeginRequest { id: None, ..begin.clone() };
            let (error, may_help): (E, bool) = match self.begin(begin).await {
                Err(error) => {
                    let may_help = error.retryable();
                    // Nobody was given its id.
                    (error.into_nothing_done().into(), may_help)
                }
                Ok(mut tx) => match attempt(&mut tx, &mut work).await {
                    Ok(result) => return Ok(result),
                    Err(error) => {
                        let is_over = tx.give_up().await;
                        (error, is_over && tx.may_help())
                    }
                },
            };
            if !may_help || tries >= attempts_max {
                return Err(error);
            }
            let pause = PAUSE.delay_ms(tries - 1, uuid::Uuid::now_v7().as_u64_pair().1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

async fn attempt<T, E: From<TransactionError>>(
    tx: &mut Interactive,
    work: &mut impl AsyncFnMut(&mut Interactive) -> Result<T, E>,
) -> Result<T, E> {
    let result = work(tx).await?;
    if !tx.is_untouched().await {
        tx.commit_unless_ended().await?;
    }
    Ok(result)
}
