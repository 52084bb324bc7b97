//! What an agent passes on to the agent that owns their Redis: the body of the coordinator, as it
//! is, and a proof that who passes it on may.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use assent_common::wire::branch::{Answer, Answers};
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, Txid};

use crate::participant::ParticipantClient;
use crate::transport::{Heard, Media, NotSent, Request, Unknown, parse};

/// The header that shows that an agent passes something on, and with what words.
pub const PASSED_ON: HeaderName = HeaderName::from_static("assent-passed-on");

/// What became of what was passed on.
#[derive(Debug)]
pub enum PassedOn<T> {
    /// The owner has answered.
    Answered(T),
    /// The owner refused the whole of it, and says why.
    Refused(Box<Problem>),
    /// Nobody was reached, so that it was surely not done.
    NotReached(String),
    /// It was surely not done: who answers there does not own the Redis, or not any more.
    NotOwner(String),
    /// It is not known what was done.
    Unknown(String),
}

impl ParticipantClient {
    /// Passes a batch on, of so many messages. `proof` is the value of [`PASSED_ON`].
    pub async fn pass_on_batch(
        &self,
        proof: &str,
        body: Bytes,
        messages: usize,
    ) -> PassedOn<Answers> {
        let passed = self.pass_on(&["v1", "batch"], proof, body, 0).await;
        match passed {
            PassedOn::Answered(Answers { answers, .. }) if answers.len() != messages => {
                PassedOn::Unknown(format!("{} answers to {messages} messages", answers.len()))
            }
            passed => passed,
        }
    }

    /// Passes a prepare on that may wait.
    pub async fn pass_on_prepare(
        &self,
        proof: &str,
        body: Bytes,
        txid: Txid,
        wait_ms: u64,
    ) -> PassedOn<Answer> {
        let txid = txid.to_string();
        self.pass_on(&["v1", "branches", &txid, "prepare"], proof, body, wait_ms).await
    }

    async fn pass_on<T: DeserializeOwned>(
        &self,
        path: &[&str],
        proof: &str,
        body: Bytes,
        wait_ms: u64,
    ) -> PassedOn<T> {
        let Ok(proof) = HeaderValue::try_from(proof) else {
            return PassedOn::NotReached("the proof does not fit into a header".to_owned());
        };
        let url = self.endpoint().url(path);
        let mut request = Request::new(Method::POST, url, Media::Protocol).waiting(wait_ms);
        request.headers.insert(PASSED_ON, proof);
        request.body = Some(body);
        match self.endpoint().http.say_if_connected(request).await {
            Ok(Heard::Said { body, .. }) => match parse(&body) {
                Ok(answer) => PassedOn::Answered(answer),
                Err(Unknown(why)) => PassedOn::Unknown(why),
            },
            Ok(Heard::Problem(problem)) => refused(problem),
            Ok(Heard::Unknown(Unknown(why))) => PassedOn::Unknown(why),
            Err(NotSent(why)) => PassedOn::NotReached(why),
        }
    }
}

/// Who does not know the proof, or not even the header, is not the owner.
fn refused<T>(problem: Box<Problem>) -> PassedOn<T> {
    match problem.code {
        ErrorCode::NotOwner
        | ErrorCode::Unauthorized
        | ErrorCode::NotFound
        | ErrorCode::Forbidden => {
            PassedOn::NotOwner(format!("{}: {}", problem.code, problem.detail))
        }
        _ => PassedOn::Refused(problem),
    }
}
