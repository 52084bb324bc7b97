//! The clients of a coordinator: the Rust SDK's, the participant's question for an outcome, and the operator's.
//!
//! `committed`, `aborted` and *not known* stay three things here: [`SubmitError`] has a variant for each of the last
//! two. Nothing is retried; with an idempotency key, the caller may.

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use url::Url;

use assent_common::limits;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Call, Refusal};
use assent_common::participant::Branches;
use assent_common::time::DurationMs;
use assent_common::wire::ACTOR;
use assent_common::wire::outcome::{BranchOutcome, OutcomeAnswer, ResolveQuestion};
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{
    AbandonRequest, ForcedRemoval, ParticipantList, ParticipantRequest, ParticipantView,
    TransactionPage, TransactionRequest, TransactionView, VersionView,
};
use assent_common::{ErrorCode, IdempotencyKey, ParticipantName, TransactionId, Txid};

use crate::mutant;
use crate::participant::{Probe, metrics, probe};
use crate::transport::{
    CallError, Endpoint, Heard, Http, InvalidBaseUrl, Media, NotSent, Request, Unknown, parse,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a coordinator may take beyond the time of a usual request to ask the branches of an implicit transaction, in
/// milliseconds: as long as one of them may take.
const RESOLVE_MS: u64 = 5_000;

/// What a removal by force may take beyond the time of a usual request, in milliseconds: it waits for open transactions, and
/// records what it gives up.
const FORCED_REMOVAL_MS: u64 = 30_000;

/// Why a submitted transaction is not reported committed or pending.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No branch applies. Final; `retryable` says whether the same may be asked anew.
    #[error("aborted: {}: {}", .0.code, .0.detail)]
    Aborted(Box<Problem>),
    /// This copy of the request began nothing; an earlier one with its key may have committed.
    #[error("rejected: {}: {}", .0.code, .0.detail)]
    Rejected(Box<Problem>),
    /// It may have been committed, or be yet. Ask again by its id, or submit the same with the same key.
    #[error("not known: {0}")]
    Unknown(#[from] Unknown),
}

impl From<Box<Problem>> for SubmitError {
    fn from(problem: Box<Problem>) -> Self {
        match (problem.outcome, problem.code) {
            (Some(OutcomeWord::Aborted), _) => Self::Aborted(problem),
            // A fault inside says nothing of what was begun before it.
            (Some(OutcomeWord::Committed | OutcomeWord::Pending), _)
            | (None, ErrorCode::Internal) => {
                Self::Unknown(Unknown(format!("{}: {}", problem.code, problem.detail)))
            }
            (None, _) => Self::Rejected(problem),
        }
    }
}

/// Which transactions to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Of this outcome.
    pub outcome: Option<OutcomeWord>,
    /// With a branch at this participant.
    pub participant: Option<ParticipantName>,
    /// Only those that have a branch in doubt.
    pub in_doubt: bool,
    /// Begun longer ago than this.
    pub older_than: Option<DurationMs>,
    /// Rows of the page.
    pub page_size: Option<usize>,
    /// The page after the one that gave this token.
    pub page_token: Option<String>,
}

/// Talks to a coordinator's public API.
#[derive(Debug, Clone)]
pub struct CoordinatorClient {
    endpoint: Endpoint,
    // Parsed once.
    submit_url: Url,
}

impl CoordinatorClient {
    /// A client of the coordinator at this base URL.
    pub fn new(http: &Http, base_url: &str) -> Result<Self, InvalidBaseUrl> {
        let endpoint = Endpoint::new(http, base_url)?;
        let submit_url = endpoint.url(&["v1", "transactions"]);
        Ok(Self { endpoint, submit_url })
    }

    /// The base URL.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.endpoint.base_url()
    }

    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Runs a transaction. Returns it committed, or pending if `wait` ends first; without `wait` it is waited for as
    /// long as it may take to decide.
    pub async fn submit(
        &self,
        transaction: &TransactionRequest,
        key: Option<&IdempotencyKey>,
        wait: Option<DurationMs>,
    ) -> Result<TransactionView, SubmitError> {
        let request = self.submission(transaction, key, wait);
        let request = request.map_err(|NotSent(why)| Unknown(why))?;
        let view: TransactionView = match self.endpoint.http.say(request).await {
            Heard::Said { body, .. } => parse(&body)?,
            Heard::Problem(problem) => return Err(problem.into()),
            Heard::Unknown(unknown) => return Err(unknown.into()),
        };
        match transaction.id {
            Some(id) if id != view.id => Err(told_of_another(&id, &view.id).into()),
            _ => unless_aborted(view),
        }
    }

    /// What submits a transaction.
    pub(crate) fn submission(
        &self,
        transaction: &TransactionRequest,
        key: Option<&IdempotencyKey>,
        wait: Option<DurationMs>,
    ) -> Result<Request, NotSent> {
        let decides_ms =
            transaction.timeout.map_or(limits::TIMEOUT_DEFAULT_MS, |timeout| timeout.0);
        let wait_ms = wait.map_or(decides_ms, |wait| wait.0);
        let mut request = Request::new(Method::POST, self.submit_url.clone(), Media::Json)
            .json(transaction)
            .map_err(|Unknown(why)| NotSent(why))?
            .waiting(wait_ms);
        if let Some(value) = key.and_then(|key| HeaderValue::from_str(key.as_str()).ok()) {
            request.headers.insert(IDEMPOTENCY_KEY, value);
        }
        if let Some(wait) = wait {
            request.headers.insert(PREFER, prefer_wait(wait));
        }
        Ok(request)
    }

    /// The whole story of a transaction; waits for its end as long as `wait` says.
    pub async fn transaction(
        &self,
        id: TransactionId,
        wait: Option<DurationMs>,
    ) -> Result<TransactionView, CallError> {
        let mut url = self.endpoint.url(&["v1", "transactions", &id.to_string()]);
        if let Some(wait) = wait {
            url.query_pairs_mut().append_pair("wait", &wait.to_string());
        }
        let request = Request::get(url).waiting(wait.map_or(0, |wait| wait.0));
        let view: TransactionView = self.endpoint.http.say(request).await.into_result()?;
        if view.id != id {
            return Err(told_of_another(&id, &view.id).into());
        }
        Ok(view)
    }

    /// A page of transactions.
    pub async fn list(&self, filter: &ListFilter) -> Result<TransactionPage, CallError> {
        let mut url = self.submit_url.clone();
        for (name, value) in query(filter) {
            url.query_pairs_mut().append_pair(name, &value);
        }
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// What became of a branch's transaction, for a participant in doubt. Believed only under Assent's media type, and
    /// only if it names this txid and the txid's own log (invariant 7). Refused only where the coordinator refuses this
    /// participant's token; anything else is *unknown*.
    pub async fn outcome(&self, txid: Txid) -> Call<BranchOutcome> {
        let url = self.endpoint.url(&["v1", "transactions", &txid.to_string(), "outcome"]);
        self.ask(txid, Request::new(Method::GET, url, Media::Protocol)).await
    }

    /// The same question, of a branch of an implicit transaction: a coordinator that knows nothing of it asks the branches.
    pub async fn resolve(&self, txid: Txid, branches: &Branches) -> Call<BranchOutcome> {
        let url = self.endpoint.url(&["v1", "transactions", &txid.to_string(), "resolve"]);
        let question = ResolveQuestion { branches: branches.to_vec() };
        let request = Request::new(Method::POST, url, Media::Protocol).waiting(RESOLVE_MS);
        match request.json(&question) {
            Ok(request) => self.ask(txid, request).await,
            Err(Unknown(why)) => Call::Unknown(why),
        }
    }

    async fn ask(&self, txid: Txid, request: Request) -> Call<BranchOutcome> {
        let heard = self.endpoint.http.say(request).await;
        if let Heard::Problem(problem) = &heard
            && problem.code == ErrorCode::Unauthorized
        {
            // No word about the outcome, but a clear one about who may ask.
            return Call::Refused(Refusal::new(problem.code, problem.detail.clone()));
        }
        match heard.into_said::<OutcomeAnswer>() {
            Err(Unknown(why)) if is_taken_for_aborted(&why) => {
                Call::Applied(BranchOutcome::Aborted)
            }
            Err(Unknown(why)) => Call::Unknown(why),
            Ok(answer) if answer.txid != txid => {
                Call::Unknown(told_of_another(&txid, &answer.txid).0)
            }
            Ok(OutcomeAnswer { outcome: BranchOutcome::UnknownAuthority, .. }) => {
                // Said by a log that is not the branch's, so it names itself.
                Call::Applied(BranchOutcome::UnknownAuthority)
            }
            Ok(answer) if answer.log_id != txid.log_id => Call::Unknown(format!(
                "log {} answered for {txid}, which is not its own",
                answer.log_id
            )),
            Ok(answer) => Call::Applied(answer.outcome),
        }
    }

    /// The registered participants.
    pub async fn participants(&self) -> Result<ParticipantList, CallError> {
        let url = self.endpoint.url(&["v1", "participants"]);
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// What runs there: version, log id, epoch.
    pub async fn version(&self) -> Result<VersionView, CallError> {
        let url = self.endpoint.url(&["v1", "version"]);
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// Whether the process turns.
    pub async fn livez(&self) -> Result<Probe, Unknown> {
        probe(&self.endpoint, "livez").await
    }

    /// Whether it takes transactions, and if not, why.
    pub async fn readyz(&self) -> Result<Probe, Unknown> {
        probe(&self.endpoint, "readyz").await
    }
}

/// `Prefer: wait` counts in seconds; a part of one is a whole one.
pub(crate) fn prefer_wait(wait: DurationMs) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.0.div_ceil(1_000)))
        .unwrap_or_else(|_| HeaderValue::from_static("wait=0"))
}

/// Never, but as a mutant.
fn is_taken_for_aborted(why: &str) -> bool {
    mutant::is(Mutant::NotFoundIsAborted)
        && ["status 404", "status 502", "not_found"].iter().any(|sign| why.contains(sign))
}

fn told_of_another(asked: &impl ToString, told: &impl ToString) -> Unknown {
    Unknown(format!("asked for {}, told of {}", asked.to_string(), told.to_string()))
}

pub(crate) fn unless_aborted(view: TransactionView) -> Result<TransactionView, SubmitError> {
    match view.outcome {
        OutcomeWord::Committed | OutcomeWord::Pending => Ok(view),
        OutcomeWord::Aborted => {
            let problem = view.error.unwrap_or_else(|| Problem {
                id: Some(view.id),
                outcome: Some(OutcomeWord::Aborted),
                ..Problem::new(ErrorCode::Cancelled, "aborted; the answer does not say why")
            });
            Err(SubmitError::Aborted(Box::new(problem)))
        }
    }
}

fn query(filter: &ListFilter) -> Vec<(&'static str, String)> {
    let outcome = filter.outcome.map(|outcome| match outcome {
        OutcomeWord::Committed => "committed".to_owned(),
        OutcomeWord::Aborted => "aborted".to_owned(),
        OutcomeWord::Pending => "pending".to_owned(),
    });
    [
        ("outcome", outcome),
        ("participant", filter.participant.as_ref().map(ToString::to_string)),
        ("in_doubt", filter.in_doubt.then(|| "true".to_owned())),
        ("older_than", filter.older_than.map(|age| age.to_string())),
        ("page_size", filter.page_size.map(|size| size.to_string())),
        ("page_token", filter.page_token.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Talks to a coordinator's admin API.
#[derive(Debug, Clone)]
pub struct CoordinatorAdmin {
    endpoint: Endpoint,
    actor: Option<HeaderValue>,
}

impl CoordinatorAdmin {
    /// A client of the admin API at this base URL.
    pub fn new(http: &Http, base_url: &str) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { endpoint: Endpoint::new(http, base_url)?, actor: None })
    }

    /// The same client, whose changes of the participants are logged with who asks for them. A name that no header can hold
    /// is left out.
    #[must_use]
    pub fn acting_as(self, actor: Option<&str>) -> Self {
        let actor = actor.and_then(|actor| HeaderValue::from_bytes(actor.as_bytes()).ok());
        Self { actor, ..self }
    }

    /// Sends everything that a transaction waits to send, now.
    pub async fn retry(&self, id: TransactionId) -> Result<TransactionView, CallError> {
        let url = self.endpoint.url(&["v1", "transactions", &id.to_string(), "retry"]);
        self.endpoint.http.say(Request::new(Method::POST, url, Media::Json)).await.into_result()
    }

    /// Gives up a branch: recorded, loud, and no undo (invariant 16).
    pub async fn abandon(
        &self,
        id: TransactionId,
        participant: &ParticipantName,
        request: &AbandonRequest,
    ) -> Result<TransactionView, CallError> {
        let id = id.to_string();
        let path = ["v1", "transactions", &id, "branches", participant.as_str(), "abandon"];
        let request =
            Request::new(Method::POST, self.endpoint.url(&path), Media::Json).json(request)?;
        self.endpoint.http.say(request).await.into_result()
    }

    /// Registers a participant, or gives it another address.
    pub async fn set_participant(
        &self,
        name: &ParticipantName,
        url: &str,
    ) -> Result<ParticipantView, CallError> {
        let path = self.endpoint.url(&["v1", "participants", name.as_str()]);
        let body = ParticipantRequest { url: url.to_owned() };
        let request = Request::new(Method::PUT, path, Media::Json).json(&body)?;
        self.endpoint.http.say(self.signed(request)).await.into_result()
    }

    /// Removes a participant that no transaction needs any more.
    pub async fn remove_participant(&self, name: &ParticipantName) -> Result<(), CallError> {
        let path = self.endpoint.url(&["v1", "participants", name.as_str()]);
        let request = Request::new(Method::DELETE, path, Media::JsonOrNothing);
        self.endpoint.http.say(self.signed(request)).await.into_nothing()
    }

    fn signed(&self, mut request: Request) -> Request {
        if let Some(actor) = &self.actor {
            request.headers.insert(HeaderName::from_static(ACTOR), actor.clone());
        }
        request
    }

    /// Puts up with what a participant's Redis lost: recorded, loud, and no undo (invariant 16).
    pub async fn accept_loss(
        &self,
        participant: &ParticipantName,
        request: &AbandonRequest,
    ) -> Result<ParticipantView, CallError> {
        let path = ["v1", "participants", participant.as_str(), "accept-loss"];
        let request =
            Request::new(Method::POST, self.endpoint.url(&path), Media::Json).json(request)?;
        self.endpoint.http.say(request).await.into_result()
    }

    /// Removes a participant with everything that it was not told yet: recorded, loud, and no undo (invariant 16).
    pub async fn remove_by_force(
        &self,
        participant: &ParticipantName,
        request: &AbandonRequest,
    ) -> Result<ForcedRemoval, CallError> {
        let path = ["v1", "participants", participant.as_str(), "remove"];
        let request = Request::new(Method::POST, self.endpoint.url(&path), Media::Json)
            .json(request)?
            .waiting(FORCED_REMOVAL_MS);
        self.endpoint.http.say(request).await.into_result()
    }

    /// The metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Unknown> {
        metrics(&self.endpoint).await
    }
}
