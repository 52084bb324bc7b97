//! A hook that is another process, in any language: it is asked by HTTP.

use assent_client::hook::{HookClient, HookHeard};
use assent_client::{BuildError, Http, HttpOptions, InvalidBaseUrl, Token};
use assent_common::wire::hook::{HookQuestion, HookSays};
use serde_json::value::RawValue;

use super::{AnyHook, HookCall, HookError, HookFuture, HookStage, ReachFuture};

/// A hook behind a URL.
#[derive(Debug)]
pub struct RemoteHook {
    client: HookClient,
}

/// A hook cannot be asked there.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHook {
    /// The URL is none.
    #[error("the hook's URL: {0}")]
    Url(#[from] InvalidBaseUrl),
    /// The client cannot be set up.
    #[error(transparent)]
    Client(#[from] BuildError),
}

impl RemoteHook {
    /// The hook at this URL, which may want a token; an answer may take so many milliseconds.
    pub fn new(url: &str, token: Option<Token>, timeout_ms: u64) -> Result<Self, InvalidHook> {
        let options =
            HttpOptions { token, request_timeout_ms: timeout_ms, ..HttpOptions::default() };
        Ok(Self { client: HookClient::new(&Http::new(&options)?, url)? })
    }
}

impl AnyHook for RemoteHook {
    fn ask<'a>(
        &'a self,
        call: &'a HookCall,
        input: &'a RawValue,
        stage: &'a mut HookStage<'_>,
    ) -> HookFuture<'a> {
        Box::pin(async move {
            let HookCall { txid, id, participant } = call;
            let mut reads = Vec::new();
            loop {
                let question =
                    HookQuestion { txid: *txid, id: *id, participant, input, reads: &reads };
                match self.client.ask(&question).await {
                    HookHeard::Says(HookSays::Read(read)) => {
                        reads.extend(stage.read_all(read).await?);
                    }
                    HookHeard::Says(HookSays::Stage(ops, reply)) => {
                        stage.stage_all(ops);
                        return Ok(reply);
                    }
                    HookHeard::Says(HookSays::Veto(veto)) => return Err(veto.into()),
                    HookHeard::Invalid(what) => return Err(HookError::Invalid(what)),
                    HookHeard::Failed(why) => return Err(HookError::Failed(why)),
                    HookHeard::Unclear(why) => return Err(HookError::Unclear(why)),
                }
            }
        })
    }

    fn place(&self) -> &str {
        self.client.host()
    }

    fn reach(&self) -> ReachFuture<'_> {
        Box::pin(self.client.reach())
    }
}
