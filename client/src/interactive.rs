//! Interactive transactions in Rust: read, decide, write, commit.
//!
//! ```no_run
//! # use assent_client::{AssentClient, interactive::op};
//! # async fn example(client: &AssentClient) -> Result<(), Box<dyn std::error::Error>> {
//! let mut tx = client.begin(Default::default()).await?;
//! let replies = tx.ops([op("bank-a", ["GET", "acct:alice"])]).await?;
//! let alice: i64 = replies[0].as_str().unwrap_or("0").parse()?;
//! let left = (alice - 30).to_string();
//! tx.ops([op("bank-a", ["SET", "acct:alice", &left]), op("bank-b", ["INCRBY", "acct:bob", "30"])])
//!     .await?;
//! tx.commit(None).await?;
//! # Ok(())
//! # }
//! ```

use hyper::Method;
use serde_json::Value;

use assent_common::command::Expect;
use assent_common::time::DurationMs;
use assent_common::value::Arg;
use assent_common::wire::interactive::{BeginRequest, InteractiveOp, InteractiveView, OpsRequest};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, TransactionId, limits};

use crate::coordinator::{CoordinatorClient, prefer_wait};
use crate::outcome::{AskedOf, CommittedTransaction, TransactionError};
use crate::transport::{Heard, Media, NotSent, Request, Unknown};

/// An op at a participant, whose name is checked when it is sent.
#[must_use]
pub fn op<A: Into<Arg>>(participant: &str, words: impl IntoIterator<Item = A>) -> OpAt {
    let words = words.into_iter().map(Into::into).collect();
    OpAt { participant: participant.to_owned(), words, expect: None }
}

/// An op of an interactive transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpAt {
    participant: String,
    words: Vec<Arg>,
    expect: Option<Expect>,
}

impl OpAt {
    /// What the reply must be, now and when it commits.
    #[must_use]
    pub fn expect(mut self, expectation: Expect) -> Self {
        self.expect = Some(expectation);
        self
    }
}

/// How far an interactive transaction is, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InteractiveProgress {
    Active,
    /// A commit was asked for, and it is not known what came of it.
    Committing,
    Ended,
}

/// An interactive transaction of this client. One that is dropped expires by itself; see
/// [`close`](Self::close).
#[derive(Debug)]
pub struct Interactive {
    client: CoordinatorClient,
    id: TransactionId,
    seq: u64,
    /// A call whose answer was lost, or is on its way.
    unclear: Option<OpsRequest>,
    progress: InteractiveProgress,
    /// How long a commit may take.
    timeout_ms: u64,
    /// Whether the last call failed so that a new attempt may help.
    may_help: bool,
    /// What it has come to, where that is no commit.
    ended_by: Option<TransactionError>,
}

impl Interactive {
    /// Begins one under an id made here.
    pub async fn begin(client: &CoordinatorClient) -> Result<Self, TransactionError> {
        Self::begin_as(client, BeginRequest::default()).await
    }

    /// Begins one with a label, a timeout of its own, or an id that was kept before. After an error
    /// nothing was done.
    pub async fn begin_as(
        client: &CoordinatorClient,
        mut request: BeginRequest,
    ) -> Result<Self, TransactionError> {
        request.id = request.id.or_else(|| TransactionId::new(uuid::Uuid::now_v7()).ok());
        let asked = AskedOf { id: request.id, coordinator: Some(client.base_url()) };
        let url = client.endpoint().url(&["v1", "transactions"]);
        let view: InteractiveView = asked.said(exchange(client, url, Some(&request)).await)?;
        if request.id.is_some_and(|id| id != view.id) {
            return Err(asked.unclear(format!("told of {}", view.id)));
        }
        let timeout_ms = request.timeout.map_or(limits::TIMEOUT_MAX_MS, |timeout| timeout.0);
        Ok(Self { timeout_ms, ..Self::attach(client, view.id, view.seq) })
    }

    /// One that was begun elsewhere, and whose id a service was handed; `seq` is the number of the
    /// last call that was done.
    #[must_use]
    pub fn attach(client: &CoordinatorClient, id: TransactionId, seq: u64) -> Self {
        Self {
            client: client.clone(),
            id,
            seq,
            unclear: None,
            progress: InteractiveProgress::Active,
            timeout_ms: limits::TIMEOUT_MAX_MS,
            may_help: false,
            ended_by: None,
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// The number of the last call that was done.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The base URL of the coordinator that has it.
    #[must_use]
    pub fn coordinator(&self) -> &str {
        self.client.base_url()
    }

    /// Whether neither commit nor abort was asked for.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.progress == InteractiveProgress::Active
    }

    /// Whether its last call failed so that a new transaction may do better: what it read has
    /// changed, a lock was held for too long, or the coordinator has too much to do.
    pub(crate) const fn may_help(&self) -> bool {
        self.may_help
    }

    /// Whether nobody has asked it for an op: another service may have, to which its id was handed.
    /// The number of the first call is free then.
    pub(crate) async fn is_untouched(&mut self) -> bool {
        let is_empty = self.is_active() && self.seq == 0 && self.unclear.is_none();
        is_empty && self.keep_alive().await.is_ok()
    }

    pub(crate) async fn commit_unless_ended(&mut self) -> Result<(), TransactionError> {
        if let Some(error) = &self.ended_by {
            // Its function has aborted it, or has caught what ended it.
            return Err(error.clone());
        }
        self.commit(None).await.map(drop)
    }

    /// Gives it up, if no commit is under way. Whether its coordinator says that it is aborted:
    /// nothing of it is done, for certain.
    pub(crate) async fn give_up(&mut self) -> bool {
        if self.is_active() {
            let _told = self.abort().await;
        }
        matches!(self.ended_by, Some(TransactionError::Aborted(_)))
    }

    /// Reads and stages; the replies come in the order of the ops, and see what was staged before.
    ///
    /// `Rejected`: nothing of this call was staged, and the transaction goes on. `Aborted`: it has
    /// ended, such as by `read_changed`. `Unknown`: the answer was lost, so ask for it by
    /// [`again`](Self::again), or abort.
    pub async fn ops(
        &mut self,
        ops: impl IntoIterator<Item = OpAt>,
    ) -> Result<Vec<Value>, TransactionError> {
        self.refuse_unclear()?;
        let op = |OpAt { participant: name, words: cmd, expect }: OpAt| match name.parse() {
            Ok(participant) => Ok(InteractiveOp { participant, cmd, expect }),
            Err(error) => {
                let why = format!("{name:?} cannot name a participant: {error}");
                Err(TransactionError::refused(self.asked(), ErrorCode::BadRequest, why))
            }
        };
        let ops = ops.into_iter().map(op).collect::<Result<_, _>>()?;
        self.call(OpsRequest { seq: self.seq + 1, ops }).await
    }

    /// Keeps it alive: it expires a minute after its last call.
    pub async fn keep_alive(&mut self) -> Result<(), TransactionError> {
        self.ops([]).await.map(drop)
    }

    /// The replies of the call whose answer was lost; nothing if there is none. It is done once,
    /// however often it is asked for.
    pub async fn again(&mut self) -> Result<Option<Vec<Value>>, TransactionError> {
        match self.unclear.clone() {
            Some(request) => self.call(request).await.map(Some),
            None => Ok(None),
        }
    }

    async fn call(&mut self, request: OpsRequest) -> Result<Vec<Value>, TransactionError> {
        // Before it is sent: whoever drops this future does not know whether it was done.
        let was_unclear = self.unclear.replace(request.clone()).is_some();
        let heard = exchange(&self.client, self.url("ops"), Some(&request)).await;
        let error = match self.replies(heard, request.seq) {
            Ok(replies) => {
                (self.unclear, self.seq, self.may_help) = (None, request.seq, false);
                return Ok(replies);
            }
            Err(error) => error,
        };
        self.may_help = error.retryable();
        match error {
            TransactionError::Aborted(_) => {
                (self.unclear, self.progress) = (None, InteractiveProgress::Ended);
                self.ended_by = Some(error.clone());
                Err(error)
            }
            // An earlier copy of the call may have been done, whatever is said of this one.
            TransactionError::Rejected(_) if was_unclear => Err(error.into_unknown()),
            TransactionError::Rejected(_) => {
                self.unclear = None;
                Err(error)
            }
            TransactionError::Unknown(_) => Err(error),
        }
    }

    fn replies(
        &self,
        heard: Result<Heard, NotSent>,
        seq: u64,
    ) -> Result<Vec<Value>, TransactionError> {
        let asked = self.asked();
        let view: InteractiveView = asked.said(heard)?;
        if view.id != self.id || view.seq != seq {
            let told = format!("asked for call {seq}, told of {} of {}", view.seq, view.id);
            return Err(asked.unclear(told));
        }
        let replies = view.replies.as_ref().map_or("[]", |replies| replies.get());
        serde_json::from_str(replies).map_err(|_| asked.unclear("the replies are no list"))
    }

    /// Nobody knows what would be committed, while it is not known whether a call was done.
    fn refuse_unclear(&mut self) -> Result<(), TransactionError> {
        let Some(OpsRequest { seq, .. }) = &self.unclear else { return Ok(()) };
        let why = format!("the answer to call {seq} was lost: ask for it by again(), or abort");
        self.may_help = false;
        Err(TransactionError::refused(self.asked(), ErrorCode::WrongState, why))
    }

    /// Commits it. After `Unknown`, say it again, or attach its id. `Aborted`: nothing was done;
    /// `read_changed`, if something that it read is not so any more. `Rejected`: the commit has not
    /// begun, as while the answer to a call is lost: its ops might be in, or not.
    pub async fn commit(
        &mut self,
        wait: Option<DurationMs>,
    ) -> Result<CommittedTransaction, TransactionError> {
        let before = self.progress;
        if before == InteractiveProgress::Active {
            self.refuse_unclear()?;
            self.progress = InteractiveProgress::Committing;
        }
        let waits_ms = wait.map_or(self.timeout_ms, |wait| wait.0);
        let mut request = Request::new(Method::POST, self.url("commit"), Media::Json);
        if let Some(wait) = wait {
            request.headers.insert("prefer", prefer_wait(wait));
        }
        let http = &self.client.endpoint().http;
        let heard = http.say_if_connected(request.waiting(waits_ms)).await;
        let committed = self.asked().committed(heard);
        self.may_help = committed.as_ref().is_err_and(TransactionError::retryable);
        match committed {
            Err(error @ TransactionError::Rejected(_)) => {
                self.progress = before;
                // An earlier commit may have been taken.
                Err(if before == InteractiveProgress::Active {
                    error
                } else {
                    error.into_unknown()
                })
            }
            Err(error) => {
                if matches!(error, TransactionError::Aborted(_)) {
                    self.progress = InteractiveProgress::Ended;
                }
                self.ended_by = Some(error.clone());
                Err(error)
            }
            Ok(committed) => {
                (self.progress, self.ended_by) = (InteractiveProgress::Ended, None);
                Ok(committed)
            }
        }
    }

    /// Gives it up: nothing of it is done. `Rejected` if its commit has begun; after `Unknown`
    /// nothing of it will ever be done, unless a commit was asked for.
    pub async fn abort(&mut self) -> Result<(), TransactionError> {
        let heard = exchange::<()>(&self.client, self.url("abort"), None).await;
        let asked = self.asked();
        let ended_by = match asked.view(heard).and_then(|view| is_aborted(asked, &view)) {
            Ok(()) => asked.cancelled(),
            Err(error @ TransactionError::Aborted(_)) => error,
            Err(error) => return Err(error),
        };
        self.progress = InteractiveProgress::Ended;
        // An abort that is said again does not change why it was aborted.
        if !matches!(self.ended_by, Some(TransactionError::Aborted(_))) {
            self.ended_by = Some(ended_by);
        }
        Ok(())
    }

    /// Gives it up, if no commit was asked for. What does not arrive expires by itself.
    pub async fn close(mut self) {
        self.give_up().await;
    }

    fn asked(&self) -> AskedOf<'_> {
        AskedOf { id: Some(self.id), coordinator: Some(self.client.base_url()) }
    }

    fn url(&self, what: &str) -> url::Url {
        self.client.endpoint().url(&["v1", "transactions", &self.id.to_string(), what])
    }
}

fn is_aborted(asked: AskedOf<'_>, view: &TransactionView) -> Result<(), TransactionError> {
    match view.outcome {
        OutcomeWord::Aborted => Ok(()),
        _ => Err(asked.unclear(format!("asked to abort {}, told that it is not", view.id))),
    }
}

async fn exchange<T: serde::Serialize>(
    client: &CoordinatorClient,
    url: url::Url,
    body: Option<&T>,
) -> Result<Heard, NotSent> {
    let mut request = Request::new(Method::POST, url, Media::Json);
    if let Some(body) = body {
        request = request.json(body).map_err(|Unknown(why)| NotSent(why))?;
    }
    client.endpoint().http.say_if_connected(request).await
}
