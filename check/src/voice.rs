//! The messages of a duty, from its lines: names become ids, examples become ops and inputs.

use std::collections::BTreeMap;

use assent_common::branch::BranchMessage;
use assent_common::ids::{LogId, TxNumber};
use assent_common::wire::branch::{Batch, CoordinatorRef, Message, PrepareMessage};
use assent_common::{Attempt, Epoch, ParticipantName, TransactionId, Txid};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::examples::{BranchParts, ExampleBranches};
use crate::script::{BranchName, DutyLine, ExampleKind, LogName, PrepareOf, SpeaksAs};

/// A batch as it is sent.
pub(crate) type SentBatch = Batch<Box<RawValue>>;

/// The names of one duty, and what they stand for.
#[derive(Debug)]
pub(crate) struct DutyVoice {
    participant: ParticipantName,
    /// Where the participant asks; the log's id follows.
    desk_url: String,
    /// The word in the examples.
    run: String,
    logs: BTreeMap<LogName, LogId>,
    ids: BTreeMap<BranchName, TransactionId>,
}

impl DutyVoice {
    pub(crate) fn new(participant: ParticipantName, desk_url: String) -> Self {
        let run = Uuid::now_v7().as_simple().to_string();
        let logs = [LogName::Own, LogName::Other, LogName::Reader]
            .map(|name| (name, LogId(Uuid::now_v7())));
        Self { participant, desk_url, run, logs: logs.into(), ids: BTreeMap::new() }
    }

    /// The word of this duty.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn log_id(&self, log: LogName) -> LogId {
        self.logs[&log]
    }

    pub(crate) fn txid(&self, BranchName { log, epoch, n }: BranchName) -> Txid {
        let number = TxNumber { epoch: Epoch(epoch), n };
        Txid { log_id: self.log_id(log), number, attempt: Attempt::FIRST }
    }

    /// The branches that were spoken of.
    pub(crate) fn spoken_of(&self) -> Vec<BranchName> {
        self.ids.keys().copied().collect()
    }

    /// The same lines are the same bytes, whenever they are said.
    pub(crate) fn batch(
        &mut self,
        speaks: SpeaksAs,
        lines: &[DutyLine],
        examples: &ExampleBranches,
    ) -> Result<SentBatch, serde_json::Error> {
        let messages = lines.iter().map(|line| self.message(line, examples));
        let messages = messages.collect::<Result<_, _>>()?;
        Ok(self.batch_of(speaks, messages))
    }

    /// A batch of these messages.
    pub(crate) fn batch_of(
        &self,
        speaks: SpeaksAs,
        messages: Vec<Message<Box<RawValue>>>,
    ) -> SentBatch {
        let SpeaksAs { log, epoch, mark: (mark_epoch, mark_n) } = speaks;
        let log_id = self.log_id(log);
        let url = format!("{}/{log_id}", self.desk_url);
        Batch {
            participant: self.participant.clone(),
            coordinator: CoordinatorRef { log_id, epoch: Epoch(epoch), url, life: None },
            low_water: TxNumber { epoch: Epoch(mark_epoch), n: mark_n },
            known: None,
            progress: None,
            messages,
        }
    }

    /// The prepare of a branch.
    pub(crate) fn prepare(
        &mut self,
        branch: BranchName,
        mode: assent_common::wire::branch::Mode,
        BranchParts { ops, input }: BranchParts,
    ) -> Message<Box<RawValue>> {
        let (txid, id) = (self.txid(branch), self.id(branch));
        let prepare =
            PrepareMessage { txid, id, mode, wait_ms: 0, branches: Vec::new(), ops, input };
        Message::new(txid, BranchMessage::Prepare(prepare))
    }

    fn message(
        &mut self,
        line: &DutyLine,
        examples: &ExampleBranches,
    ) -> Result<Message<Box<RawValue>>, serde_json::Error> {
        let branch = line.branch;
        self.id(branch);
        let ending = match line.message {
            BranchMessage::Prepare(PrepareOf { kind, mode }) => {
                let example = match kind {
                    ExampleKind::Write => &examples.write,
                    ExampleKind::Refused => &examples.refused,
                    ExampleKind::Conflict => examples.conflict.as_ref().unwrap_or(&examples.write),
                };
                return Ok(self.prepare(branch, mode, example.parts(&self.run)?));
            }
            BranchMessage::Commit => BranchMessage::Commit,
            BranchMessage::Abort => BranchMessage::Abort,
            BranchMessage::Settle => BranchMessage::Settle,
        };
        Ok(Message::new(self.txid(branch), ending))
    }

    /// The public id of a branch's transaction, made when it is first spoken of.
    fn id(&mut self, branch: BranchName) -> TransactionId {
        *self.ids.entry(branch).or_insert_with(|| {
            loop {
                // Of version 7 by its making.
                if let Ok(id) = TransactionId::new(Uuid::now_v7()) {
                    break id;
                }
            }
        })
    }
}
