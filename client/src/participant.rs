//! The clients of a participant: the coordinator's, on the hot path, and the operator's.
//!
//! Messages of the protocol come back as `Applied`, `Refused` or `Unknown`; an operator's calls as a result with an
//! error. Nothing is retried here.

use hyper::Method;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use assent_common::Txid;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::wire::branch::{
    Answer, Answers, Batch, BranchList, BranchState, BranchView, CoordinatorList,
};
use assent_common::wire::interactive::EvaluateRequest;
use assent_common::wire::resync::{DataView, Resync, Resynced};
use assent_common::wire::transaction::VersionView;

use crate::transport::{
    CallError, Endpoint, Heard, Http, InvalidBaseUrl, Media, Request, Unknown, foreign,
};

/// What the repair of a participant's data may take beyond the time of a usual request, in milliseconds.
const RESYNC_MS: u64 = 60_000;

/// Talks to one participant's public API.
#[derive(Debug, Clone)]
pub struct ParticipantClient {
    endpoint: Endpoint,
    // On the hot path: parsed once.
    batch_url: Url,
}

impl ParticipantClient {
    /// A client of the participant at this base URL.
    pub fn new(http: &Http, base_url: &str) -> Result<Self, InvalidBaseUrl> {
        let endpoint = Endpoint::new(http, base_url)?;
        let batch_url = endpoint.url(&["v1", "batch"]);
        Ok(Self { endpoint, batch_url })
    }

    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The base URL.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.endpoint.base_url()
    }

    /// Says all messages at once. One answer for each message, in order, or nothing is known of any of them.
    pub async fn batch<Ops: Serialize>(&self, batch: &Batch<Ops>) -> Result<Answers, Unknown> {
        let request = Request::new(Method::POST, self.batch_url.clone(), Media::Protocol);
        let heard = self.endpoint.http.say(request.json(batch)?).await;
        let answers: Answers = heard.into_said()?;
        if answers.answers.len() != batch.messages.len() {
            return Err(Unknown(format!(
                "{} answers to {} messages",
                answers.answers.len(),
                batch.messages.len()
            )));
        }
        Ok(answers)
    }

    /// Says one prepare by the call that may wait for a younger holder. `batch` holds that message only; the wait is
    /// the message's `wait_ms`.
    pub async fn prepare_waiting<Ops: Serialize>(
        &self,
        txid: Txid,
        wait_ms: u64,
        batch: &Batch<Ops>,
    ) -> Call<Prepared> {
        let url = self.endpoint.url(&["v1", "branches", &txid.to_string(), "prepare"]);
        let request = Request::new(Method::POST, url, Media::Protocol).waiting(wait_ms);
        let answer = match request.json(batch) {
            Ok(request) => self.endpoint.http.say(request).await.into_said::<Answer>(),
            Err(unknown) => Err(unknown),
        };
        match answer {
            Ok(answer) => answer.into_prepared(),
            Err(Unknown(why)) => Call::Unknown(why),
        }
    }

    /// Asks what ops would come to; nothing is kept of it.
    pub async fn evaluate(&self, request: &EvaluateRequest) -> Call<Prepared> {
        let url = self.endpoint.url(&["v1", "evaluate"]);
        let said = Request::new(Method::POST, url, Media::Protocol);
        let heard = match said.json(request) {
            Ok(said) => self.endpoint.http.say(said).await,
            Err(Unknown(why)) => return Call::Unknown(why),
        };
        match heard {
            // Nothing was to be done, so that a refusal needs no vote to be believed.
            Heard::Problem(problem) => Call::Refused(Refusal::new(problem.code, problem.detail)),
            heard => match heard.into_said::<Answer>() {
                Ok(answer) => answer.into_prepared(),
                Err(Unknown(why)) => Call::Unknown(why),
            },
        }
    }

    /// What the participant's data is now.
    pub async fn data(&self) -> Result<DataView, CallError> {
        let url = self.endpoint.url(&["v1", "data"]);
        let request = Request::new(Method::GET, url, Media::Protocol);
        self.endpoint.http.say(request).await.into_result()
    }

    /// Says a part of what a log has committed and the participant's data may lack.
    pub async fn resync(&self, part: &Resync) -> Result<Resynced, CallError> {
        let url = self.endpoint.url(&["v1", "data", "resync"]);
        let request = Request::new(Method::POST, url, Media::Protocol).waiting(RESYNC_MS);
        self.endpoint.http.say(request.json(part)?).await.into_result()
    }

    /// The branches that the participant keeps in this state.
    pub async fn branches(&self, state: BranchState) -> Result<BranchList, CallError> {
        let mut url = self.endpoint.url(&["v1", "branches"]);
        url.query_pairs_mut().append_pair("state", state.as_str());
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// The branches that were ended by hand at the participant, and have not been forgotten.
    pub async fn branches_by_hand(&self) -> Result<BranchList, CallError> {
        let mut url = self.endpoint.url(&["v1", "branches"]);
        url.query_pairs_mut().append_pair("by_hand", "true");
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// Whose messages it has had, and whether it can ask them. It asks each of them for this.
    pub async fn coordinators(&self) -> Result<CoordinatorList, CallError> {
        let url = self.endpoint.url(&["v1", "coordinators"]);
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// One branch.
    pub async fn branch(&self, txid: Txid) -> Result<BranchView, CallError> {
        let url = self.endpoint.url(&["v1", "branches", &txid.to_string()]);
        let view: BranchView = self.endpoint.http.say(Request::get(url)).await.into_result()?;
        if view.txid != txid {
            return Err(Unknown(format!("asked for {txid}, told of {}", view.txid)).into());
        }
        Ok(view)
    }

    /// What runs there.
    pub async fn version(&self) -> Result<VersionView, CallError> {
        let url = self.endpoint.url(&["v1", "version"]);
        self.endpoint.http.say(Request::get(url)).await.into_result()
    }

    /// Whether the process turns.
    pub async fn livez(&self) -> Result<Probe, Unknown> {
        probe(&self.endpoint, "livez").await
    }

    /// Whether it can vote, and if not, why.
    pub async fn readyz(&self) -> Result<Probe, Unknown> {
        probe(&self.endpoint, "readyz").await
    }
}

/// The answer of a health probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether all is well.
    pub state: ProbeState,
    /// Its words, one line for each check.
    pub text: String,
}

/// Whether a probed server is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeState {
    /// Status 200.
    Ok,
    /// Any other status.
    Failing,
}

/// What every line of a probe's answer begins with; or it is one of the whole lines below.
const LINE_BEGINNINGS: [&str; 3] = ["[+]", "[!]", "[-]"];
const WHOLE_LINES: [&str; 3] = ["ok", "ready", "not ready"];

pub(crate) async fn probe(endpoint: &Endpoint, path: &str) -> Result<Probe, Unknown> {
    let mut url = endpoint.url(&[path]);
    url.set_query(Some("verbose"));
    let (status, text) = endpoint.http.text(Request::get(url)).await?;
    // A probe may be sent to any server. No line is passed on that none of ours says.
    let is_ours = |line: &&str| {
        WHOLE_LINES.contains(line) || LINE_BEGINNINGS.iter().any(|sign| line.starts_with(sign))
    };
    let ours: String = text.lines().filter(is_ours).flat_map(|line| [line, "\n"]).collect();
    if ours.is_empty() {
        return Err(foreign(status, "text/plain", text.len()));
    }
    let state = if status == 200 { ProbeState::Ok } else { ProbeState::Failing };
    Ok(Probe { state, text: ours })
}

/// The metrics of a server, in the text format of Prometheus; only of one that is Assent's.
pub(crate) async fn metrics(endpoint: &Endpoint) -> Result<String, Unknown> {
    let (status, text) = endpoint.http.text(Request::get(endpoint.url(&["metrics"]))).await?;
    if status != 200 || !text.lines().any(|line| line.starts_with("assent_")) {
        return Err(foreign(status, "text/plain", text.len()));
    }
    Ok(text)
}

/// `POST /v1/branches/{txid}/resolve`: an operator decides a branch in the coordinator's place (invariant 16).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// What to do with the branch.
    pub outcome: ForcedOutcome,
    /// Who decides it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Whether it is decided even though the branch's coordinator answers that it is not decided
    /// yet, or was decided otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Where the operator finds a running coordinator of the branch's log, which may have moved. It
    /// is asked too, and is not taken for gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
}

/// What an operator makes of a branch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForcedOutcome {
    /// Apply it.
    Committed,
    /// Drop it.
    Aborted,
}

impl ForcedOutcome {
    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }
}

/// `POST /v1/branches/{txid}/forget`: an operator has the mark of an ended branch dropped (invariant 16).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Who decides it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Talks to one participant's admin API.
#[derive(Debug, Clone)]
pub struct ParticipantAdmin {
    endpoint: Endpoint,
}

impl ParticipantAdmin {
    /// A client of the admin API at this base URL.
    pub fn new(http: &Http, base_url: &str) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { endpoint: Endpoint::new(http, base_url)? })
    }

    /// Forces a branch in doubt. Loud, recorded, and refused if the branch is not prepared.
    pub async fn resolve(
        &self,
        txid: Txid,
        request: &ResolveRequest,
    ) -> Result<BranchView, CallError> {
        let url = self.endpoint.url(&["v1", "branches", &txid.to_string(), "resolve"]);
        let request = Request::new(Method::POST, url, Media::Json).json(request)?;
        self.endpoint.http.say(request).await.into_result()
    }

    /// Has the mark of an ended branch dropped. Loud, recorded, and refused if the branch is prepared.
    pub async fn forget(&self, txid: Txid, request: &ForgetRequest) -> Result<(), CallError> {
        let url = self.endpoint.url(&["v1", "branches", &txid.to_string(), "forget"]);
        let request = Request::new(Method::POST, url, Media::JsonOrNothing).json(request)?;
        self.endpoint.http.say(request).await.into_nothing()
    }

    /// The metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Unknown> {
        metrics(&self.endpoint).await
    }
}
