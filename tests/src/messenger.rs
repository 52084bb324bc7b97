//! A coordinator's voice without a coordinator: says any message to a participant, in any order.

use assent_client::{Http, ParticipantClient};
use assent_common::command::OpRequest;
use assent_common::ids::{LogId, TxNumber};
use assent_common::outcome::{Aborted, Applied, Call, Prepared};
use assent_common::sql::SqlOp;
use assent_common::wire::branch::{
    Answer, Batch, CoordinatorRef, Message, Mode, PrepareMessage, TxidOnly,
};
use assent_common::wire::ops::BranchOps;
use assent_common::{Attempt, Epoch, ParticipantName, TransactionId, Txid};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::Peer;

/// Speaks for a log of its own to one participant.
#[derive(Debug, Clone)]
pub struct Messenger {
    client: ParticipantClient,
    participant: ParticipantName,
    /// As whom it speaks.
    pub coordinator: CoordinatorRef,
    /// The mark that it carries.
    pub low_water: TxNumber,
}

impl Messenger {
    /// A new log's voice, of epoch 1. Agents that ask for outcomes find nobody at its URL.
    #[must_use]
    pub fn new(peer: &Peer, http: &Http) -> Self {
        Self::at(peer.agent.url(), peer.name, http)
    }

    /// The same, to an agent at this URL.
    ///
    /// # Panics
    /// If it is no URL, or no participant's name.
    #[must_use]
    pub fn at(url: &str, participant: &str, http: &Http) -> Self {
        let coordinator = CoordinatorRef {
            log_id: LogId(Uuid::now_v7()),
            epoch: Epoch(1),
            url: "http://127.0.0.1:9".to_owned(),
            life: None,
        };
        let low_water = TxNumber { epoch: Epoch(0), n: 0 };
        let participant = participant.parse().expect("a participant's name");
        let client = ParticipantClient::new(http, url).expect("an agent's URL");
        Self { client, participant, coordinator, low_water }
    }

    /// The txid of its `n`-th transaction, first attempt.
    #[must_use]
    pub fn txid(&self, n: u64) -> Txid {
        let number = TxNumber { epoch: self.coordinator.epoch, n };
        Txid { log_id: self.coordinator.log_id, number, attempt: Attempt::FIRST }
    }

    async fn say<Ops: Serialize>(&self, message: Message<Ops>) -> Answer {
        let batch = Batch {
            known: None,
            progress: None,
            participant: self.participant.clone(),
            coordinator: self.coordinator.clone(),
            low_water: self.low_water,
            messages: vec![message],
        };
        let answers = self.client.batch(&batch).await.expect("the agent answers");
        answers.answers.into_iter().next().expect("one answer to one message")
    }

    /// Asks to prepare this one command.
    pub async fn prepare(&self, n: u64, words: &[&str]) -> Call<Prepared> {
        self.prepare_op(n, OpRequest::new(words.iter().copied())).await
    }

    /// Asks to prepare this one op.
    pub async fn prepare_op(&self, n: u64, op: OpRequest) -> Call<Prepared> {
        self.prepare_ops(n, vec![op]).await
    }

    /// Asks to prepare these statements, as JSON.
    ///
    /// # Panics
    /// If they are none.
    pub async fn prepare_sql(&self, n: u64, ops: Value) -> Call<Prepared> {
        let ops: Vec<SqlOp> = serde_json::from_str(&ops.to_string()).expect("statements");
        self.prepare_ops(n, BranchOps::Sql(ops)).await
    }

    async fn prepare_ops<Ops: Serialize>(&self, n: u64, ops: Ops) -> Call<Prepared> {
        let id = TransactionId::new(Uuid::now_v7()).expect("a UUID of version 7");
        let (txid, mode) = (self.txid(n), Mode::TwoPhase);
        let prepare =
            PrepareMessage { txid, id, mode, wait_ms: 0, branches: Vec::new(), ops, input: None };
        self.say(Message::Prepare(prepare)).await.into_prepared()
    }

    /// Tells it to commit.
    pub async fn commit(&self, n: u64) -> Call<Applied> {
        self.say::<()>(Message::Commit(TxidOnly { txid: self.txid(n) })).await.into_applied()
    }

    /// Tells it to abort.
    pub async fn abort(&self, n: u64) -> Call<Aborted> {
        self.say::<()>(Message::Abort(TxidOnly { txid: self.txid(n) })).await.into_aborted()
    }
}
