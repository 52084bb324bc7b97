//! The hook of a participant: a part of the service that votes on branches with an input.
//!
//! A service writes one [`Hook`]. It has it built into its participant, or serves it to an agent
//! beside it, by [`answer_hook`] or, with the feature `axum`, by `hook_router`.
//!
//! ```text
//! agent ── HookClient ──HTTP──► hook_router ─► answer_hook ─► Hook ── HookStage: reads, stages
//! ```

mod answer;
mod client;
#[cfg(feature = "axum")]
mod router;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use assent_common::command::{Expect, OpRequest};
use assent_common::value::Arg;
use assent_common::wire::hook::Veto;
use assent_common::{ParticipantName, TransactionId, Txid};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use answer::{Unanswerable, answer_hook, ask_hook};
pub use client::{HookClient, HookHeard};
#[cfg(feature = "axum")]
pub use router::hook_router;

/// A part of a service that decides about branches.
///
/// It is asked before anything is locked, and what it reads is what its branch commits on: if one
/// of those keys is changed before the branch is staged, it is asked anew. It may be asked several
/// times for one branch, and its branch may be aborted later; so it changes nothing by itself, but
/// stages what is to change.
pub trait Hook: Send + Sync + 'static {
    /// What clients send as `input`.
    type Input: DeserializeOwned + Send;

    /// Reads, stages, and says what the client is told; or vetoes.
    fn prepare(
        &self,
        call: &HookCall,
        input: Self::Input,
        stage: &mut HookStage<'_>,
    ) -> impl Future<Output = Result<serde_json::Value, HookError>> + Send;
}

/// Which branch a hook is asked about.
#[derive(Debug, Clone)]
pub struct HookCall {
    /// The branch: for one txid a hook answers the same.
    pub txid: Txid,
    /// The transaction, as its client knows it.
    pub id: TransactionId,
    /// The participant.
    pub participant: ParticipantName,
}

/// Why a hook stages nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HookError {
    /// The transaction must not be.
    #[error("vetoed: {}: {}", .0.code, .0.reason)]
    Veto(Veto),
    /// It does not know yet: it is asked again, as long as there is time.
    #[error("{0}")]
    Unclear(String),
    /// It has failed over this input: it is asked again, a few times.
    #[error("{0}")]
    Failed(String),
    /// What it says is no answer of a hook.
    #[error("{0}")]
    Invalid(String),
    /// What it wanted to read is not there: it was changed, or must be fetched first. Passed on as
    /// it is, it costs nothing: if there is a way, the hook is asked anew.
    #[error("what the hook reads is not there yet, was changed, or cannot be read")]
    ReadFailed,
}

impl HookError {
    /// A veto: a word for programs, of letters, digits, `_`, `-` and `.`, and a sentence for
    /// people. Both go to the client.
    #[must_use]
    pub fn veto(code: &str, reason: &str) -> Self {
        Veto::new(code, reason).map_or_else(Self::Invalid, Self::Veto)
    }
}

impl From<Veto> for HookError {
    fn from(veto: Veto) -> Self {
        Self::Veto(veto)
    }
}

/// The replies of what a hook reads.
pub type HookReplies<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Box<RawValue>>, HookError>> + Send + 'a>>;

/// Who reads for a hook.
pub trait HookReads: Send {
    /// The replies, with what the hook has staged so far in view where that can be.
    fn read<'a>(&'a mut self, staged: &'a [OpRequest], read: Vec<OpRequest>) -> HookReplies<'a>;
}

/// What a hook has in its hands: it reads through it, and stages with it.
pub struct HookStage<'r> {
    staged: Vec<OpRequest>,
    reads: &'r mut dyn HookReads,
}

impl fmt::Debug for HookStage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookStage").field("staged", &self.staged).finish_non_exhaustive()
    }
}

impl<'r> HookStage<'r> {
    /// For one asking of a hook.
    pub fn new(reads: &'r mut dyn HookReads) -> Self {
        Self { staged: Vec::new(), reads }
    }

    /// What was staged.
    #[must_use]
    pub fn into_staged(self) -> Vec<OpRequest> {
        self.staged
    }

    /// The reply of a Redis command that reads, as JSON. The client's ops are in view; built into
    /// the participant, also what is staged by now.
    pub async fn read<A: Into<Arg>>(
        &mut self,
        words: impl IntoIterator<Item = A>,
    ) -> Result<serde_json::Value, HookError> {
        let cmd = words.into_iter().map(Into::into).collect();
        let read = vec![OpRequest { cmd, expect: None, escrow: false }];
        let replies = self.read_all(read).await?;
        let reply = replies.first().map(|reply| serde_json::from_str(reply.get()));
        reply.transpose().map_err(|_| HookError::ReadFailed).map(Option::unwrap_or_default)
    }

    /// The replies of several, of one moment.
    pub async fn read_all(
        &mut self,
        read: Vec<OpRequest>,
    ) -> Result<Vec<Box<RawValue>>, HookError> {
        self.reads.read(&self.staged, read).await
    }

    /// Stages a Redis command behind the client's ops and what is staged by now.
    pub fn op<A: Into<Arg>>(&mut self, words: impl IntoIterator<Item = A>) -> &mut Self {
        let cmd = words.into_iter().map(Into::into).collect();
        self.stage(OpRequest { cmd, expect: None, escrow: false })
    }

    /// The same, of which the reply must be this.
    pub fn op_expecting<A: Into<Arg>>(
        &mut self,
        words: impl IntoIterator<Item = A>,
        expect: Expect,
    ) -> &mut Self {
        let cmd = words.into_iter().map(Into::into).collect();
        self.stage(OpRequest { cmd, expect: Some(expect), escrow: false })
    }

    /// The same, of a counter that many add to at once, which it shares with others that do the
    /// same.
    pub fn op_in_escrow<A: Into<Arg>>(&mut self, words: impl IntoIterator<Item = A>) -> &mut Self {
        let cmd = words.into_iter().map(Into::into).collect();
        self.stage(OpRequest { cmd, expect: None, escrow: true })
    }

    /// The same, of an op in any form.
    pub fn stage(&mut self, op: OpRequest) -> &mut Self {
        self.staged.push(op);
        self
    }

    /// The same, of several.
    pub fn stage_all(&mut self, ops: Vec<OpRequest>) -> &mut Self {
        self.staged.extend(ops);
        self
    }
}
