//! What the duties share: how the participant is reached, killed and asked, and why a check ends
//! without a word on it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use assent_client::{CallError, Http, InvalidBaseUrl, ParticipantClient, Unknown};
use assent_common::ParticipantName;
use tokio::process::Command;
use tokio::time::Instant;

use crate::desk::QuestionDesk;
use crate::examples::ExampleBranches;
use crate::report::Shortfall;

/// Between two looks whether something has come about.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How a participant is checked.
#[derive(Debug)]
pub struct CheckOptions {
    /// Its base URL.
    pub url: String,
    /// Its name; it is asked for it, if this is not said.
    pub name: Option<ParticipantName>,
    /// Speaks with the token, if it asks for one.
    pub http: Http,
    /// Speaks without one; absent if there is no token.
    pub stranger: Option<Http>,
    /// What its branches look like.
    pub examples: ExampleBranches,
    /// Where its questions about branches in doubt are answered.
    pub listen: SocketAddr,
    /// The base URL at which it reaches that; by `listen`, if this is not said.
    pub advertised_url: Option<String>,
    /// What kills it and starts it again.
    pub restart_command: Option<String>,
    /// Milliseconds that the command may take, and then the participant until it answers.
    pub restart_timeout_ms: u64,
    /// Milliseconds within which a branch in doubt asks, each time.
    pub ask_within_ms: u64,
    /// Whether it may be made to believe that it has lost data.
    pub with_loss: bool,
    /// The duties that are checked, beside the first one; all, if there are none.
    pub only: Vec<String>,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] InvalidBaseUrl),
    /// There is no such duty.
    #[error("there is no duty {0:?}; see docs/reference/participant-protocol.md")]
    NoDuty(String),
    /// The participant does not answer.
    #[error(
        "{url} does not answer `GET /v1/data` as a participant does: {why}; see \
         docs/reference/participant-protocol.md"
    )]
    Silent {
        /// Its base URL.
        url: String,
        /// What came.
        why: String,
    },
    /// It does not say its name.
    #[error(
        "the participant's name is not known: say it (--name NAME); asked for it, it says: {0}"
    )]
    Nameless(String),
    /// The questions of branches in doubt cannot be heard.
    #[error("cannot listen on {addr} for the participant's questions: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The participant did not come back.
    #[error("after the restart command: {0}")]
    Restart(String),
    /// An example cannot be written as JSON.
    #[error("an example cannot be sent: {0}")]
    Example(#[from] serde_json::Error),
}

/// How a step ended that is not as it should be.
#[derive(Debug)]
pub(crate) enum StepFailed {
    /// The participant has not kept the duty.
    Duty(Shortfall),
    /// Nothing can be said of this duty or any other.
    Check(CheckError),
}

impl<E: Into<CheckError>> From<E> for StepFailed {
    fn from(error: E) -> Self {
        Self::Check(error.into())
    }
}

/// What all duties share.
#[derive(Debug)]
pub(crate) struct DutyDriver {
    pub(crate) options: CheckOptions,
    pub(crate) client: ParticipantClient,
    pub(crate) stranger: Option<ParticipantClient>,
    pub(crate) name: ParticipantName,
    pub(crate) desk: QuestionDesk,
    /// By how much one write changes what is read.
    pub(crate) write: Option<i64>,
}

impl DutyDriver {
    pub(crate) async fn new(options: CheckOptions) -> Result<Self, CheckError> {
        let client = ParticipantClient::new(&options.http, &options.url)?;
        let stranger = options.stranger.as_ref();
        let stranger =
            stranger.map(|http| ParticipantClient::new(http, &options.url)).transpose()?;
        let url = options.url.clone();
        client.data().await.map_err(|error| CheckError::Silent { url, why: error.to_string() })?;
        let name = match options.name.clone() {
            Some(name) => name,
            None => name_of(&client).await?,
        };
        let desk = QuestionDesk::open(options.listen).await;
        let desk = desk.map_err(|source| CheckError::Listen { addr: options.listen, source })?;
        Ok(Self { options, client, stranger, name, desk, write: None })
    }

    /// Where its questions are answered, as the participant reaches it.
    pub(crate) fn desk_url(&self) -> String {
        let here = || format!("http://{}", self.desk.addr());
        let url = self.options.advertised_url.clone().unwrap_or_else(here);
        url.trim_end_matches('/').to_owned()
    }

    /// Kills the participant and waits until it is back.
    pub(crate) async fn restart(&self) -> Result<(), CheckError> {
        let Some(command) = &self.options.restart_command else { return Ok(()) };
        let patience = Duration::from_millis(self.options.restart_timeout_ms);
        let failed = |why: String| Err(CheckError::Restart(why));
        // What it starts in the background keeps its output: nobody waits for the end of that.
        let ran = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status();
        match tokio::time::timeout(patience, ran).await {
            Err(_) => return failed(format!("{command:?} has not ended within {patience:?}")),
            Ok(Err(error)) => return failed(format!("{command:?} cannot be run: {error}")),
            Ok(Ok(status)) if !status.success() => {
                return failed(format!("{command:?} ended with {status}"));
            }
            Ok(Ok(_)) => {}
        }
        let until = Instant::now() + patience;
        loop {
            match self.client.data().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return failed(format!("it does not answer within {patience:?}: {error}"));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

async fn name_of(client: &ParticipantClient) -> Result<ParticipantName, CheckError> {
    let version = client.version().await.map_err(|error| match error {
        CallError::Unknown(Unknown(why)) => CheckError::Nameless(why),
        CallError::Rejected(problem) => CheckError::Nameless(problem.detail),
    })?;
    let name = version.name.unwrap_or_default();
    name.parse().map_err(|_| CheckError::Nameless(format!("{name:?}")))
}
