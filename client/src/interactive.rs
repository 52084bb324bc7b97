//! Interactive transactions in Rust: read, decide, write, commit.
//!
//! ```no_run
//! # use assent_client::{CoordinatorClient, Interactive, interactive::op};
//! # async fn example(client: &CoordinatorClient) -> Result<(), Box<dyn std::error::Error>> {
//! let mut tx = Interactive::begin(client).await?;
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

use assent_common::ids::InvalidId;
use assent_common::time::DurationMs;
use assent_common::value::Arg;
use assent_common::wire::interactive::{BeginRequest, InteractiveOp, InteractiveView, OpsRequest};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ParticipantName, TransactionId, limits};

use crate::coordinator::{CoordinatorClient, SubmitError, prefer_wait, unless_aborted};
use crate::transport::{CallError, Heard, Media, Request, Unknown, parse};

/// An op at a participant, whose name is checked when it is sent.
#[must_use]
pub fn op<'a>(participant: &str, words: impl IntoIterator<Item = &'a str>) -> OpAt {
    let words = words.into_iter().map(Arg::from).collect();
    OpAt { participant: participant.to_owned(), words }
}

/// An op of an interactive transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpAt {
    participant: String,
    words: Vec<Arg>,
}

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// A participant's name is none.
    #[error("{name:?} cannot name a participant")]
    Participant {
        /// The text.
        name: String,
        /// The rule that it breaks.
        #[source]
        source: InvalidId,
    },
    /// It was refused, or its answer was lost: see [`Interactive::ops`].
    #[error(transparent)]
    Call(#[from] CallError),
}

/// An interactive transaction of this client.
#[derive(Debug)]
pub struct Interactive {
    client: CoordinatorClient,
    id: TransactionId,
    seq: u64,
    /// A call whose answer was lost.
    unclear: Option<OpsRequest>,
}

impl Interactive {
    /// Begins one under an id made here.
    pub async fn begin(client: &CoordinatorClient) -> Result<Self, CallError> {
        let id = TransactionId::new(uuid::Uuid::now_v7()).ok();
        Self::begin_as(client, BeginRequest { id, ..BeginRequest::default() }).await
    }

    /// Begins one with a label, a timeout of its own, or an id that was kept before.
    pub async fn begin_as(
        client: &CoordinatorClient,
        request: BeginRequest,
    ) -> Result<Self, CallError> {
        let InteractiveView { id, seq, .. } = client.begin(&request).await?;
        Ok(Self { client: client.clone(), id, seq, unclear: None })
    }

    /// One that was begun elsewhere, of which so many calls were done: an id that a service was
    /// handed.
    #[must_use]
    pub fn attach(client: &CoordinatorClient, id: TransactionId, seq: u64) -> Self {
        Self { client: client.clone(), id, seq, unclear: None }
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

    /// Reads and stages; the replies come in the order of the ops. After a refusal nothing was
    /// staged. After an answer that was lost, [`Interactive::again`] asks for it.
    pub async fn ops(
        &mut self,
        ops: impl IntoIterator<Item = OpAt>,
    ) -> Result<Vec<Value>, OpsError> {
        let op = |OpAt { participant: name, words }: OpAt| match name.parse::<ParticipantName>() {
            Ok(participant) => Ok(InteractiveOp { participant, cmd: words, expect: None }),
            Err(source) => Err(OpsError::Participant { name, source }),
        };
        let ops = ops.into_iter().map(op).collect::<Result<_, _>>()?;
        Ok(self.call(OpsRequest { seq: self.seq + 1, ops }).await?)
    }

    /// Keeps it alive.
    pub async fn keep_alive(&mut self) -> Result<(), CallError> {
        self.call(OpsRequest { seq: self.seq + 1, ops: Vec::new() }).await.map(drop)
    }

    /// The replies of the call whose answer was lost; nothing if there is none. It is done once,
    /// however often it is asked for.
    pub async fn again(&mut self) -> Result<Option<Vec<Value>>, CallError> {
        match self.unclear.take() {
            Some(request) => self.call(request).await.map(Some),
            None => Ok(None),
        }
    }

    async fn call(&mut self, request: OpsRequest) -> Result<Vec<Value>, CallError> {
        let view = match self.client.stage(self.id, &request).await {
            Ok(view) => view,
            Err(error) => {
                let is_unclear = matches!(error, CallError::Unknown(_));
                self.unclear = is_unclear.then_some(request);
                return Err(error);
            }
        };
        self.seq = view.seq;
        let replies = view.replies.as_ref().map_or("[]", |replies| replies.get());
        serde_json::from_str(replies).map_err(|error| Unknown(error.to_string()).into())
    }

    /// Commits it. If the answer is lost, say it again.
    pub async fn commit(&self, wait: Option<DurationMs>) -> Result<TransactionView, SubmitError> {
        self.client.commit(self.id, wait).await
    }

    /// Gives it up.
    pub async fn abort(&self) -> Result<(), CallError> {
        self.client.abort(self.id).await
    }
}

impl CoordinatorClient {
    /// Begins an interactive transaction; the same request with the same id again finds it.
    pub async fn begin(&self, request: &BeginRequest) -> Result<InteractiveView, CallError> {
        let url = self.endpoint().url(&["v1", "transactions"]);
        let request = Request::new(Method::POST, url, Media::Json).json(request)?;
        self.endpoint().http.say(request).await.into_result()
    }

    /// One call of an interactive transaction.
    pub async fn stage(
        &self,
        id: TransactionId,
        ops: &OpsRequest,
    ) -> Result<InteractiveView, CallError> {
        let url = self.endpoint().url(&["v1", "transactions", &id.to_string(), "ops"]);
        let request = Request::new(Method::POST, url, Media::Json).json(ops)?;
        let view: InteractiveView = self.endpoint().http.say(request).await.into_result()?;
        if view.id != id || view.seq != ops.seq {
            let told =
                format!("asked for call {} of {id}, told of {} of {}", ops.seq, view.seq, view.id);
            return Err(Unknown(told).into());
        }
        Ok(view)
    }

    /// Commits an interactive transaction, or asks again what became of its commit.
    pub async fn commit(
        &self,
        id: TransactionId,
        wait: Option<DurationMs>,
    ) -> Result<TransactionView, SubmitError> {
        let url = self.endpoint().url(&["v1", "transactions", &id.to_string(), "commit"]);
        let wait_ms = wait.map_or(limits::TIMEOUT_MAX_MS, |wait| wait.0);
        let mut request = Request::new(Method::POST, url, Media::Json).waiting(wait_ms);
        if let Some(wait) = wait {
            request.headers.insert("prefer", prefer_wait(wait));
        }
        let view: TransactionView = match self.endpoint().http.say(request).await {
            Heard::Said { body, .. } => parse(&body)?,
            Heard::Problem(problem) => return Err(problem.into()),
            Heard::Unknown(unknown) => return Err(unknown.into()),
        };
        if view.id != id {
            return Err(Unknown(format!("asked for {id}, told of {}", view.id)).into());
        }
        unless_aborted(view)
    }

    /// Gives up an interactive transaction. Refused if its commit has begun.
    pub async fn abort(&self, id: TransactionId) -> Result<(), CallError> {
        let url = self.endpoint().url(&["v1", "transactions", &id.to_string(), "abort"]);
        let request = Request::new(Method::POST, url, Media::Json);
        let view: TransactionView = self.endpoint().http.say(request).await.into_result()?;
        if view.id != id || view.outcome != OutcomeWord::Aborted {
            return Err(Unknown(format!("asked for {id}, told of {}", view.id)).into());
        }
        Ok(())
    }
}
