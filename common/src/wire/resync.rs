//! Resynchronisation: what a coordinator and a participant say to each other about data that was lost (invariants 9, 12).
//!
//! ```text
//! Batch.known                what the coordinator has seen of the data; less than that is a loss, and fences the data
//! GET  /v1/data              DataView: what the data is now
//! POST /v1/data/resync       Resync → Resynced: what this log decided of it, in parts; the last part of the last log
//!                            that is owed opens the data again, under a new incarnation
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{Epoch, LogId, ParticipantName, TxNumber, Txid};
use crate::wire::redo::Base64;
use crate::wire::speaker::CoordinatorRef;

/// A point in the history of a participant's data. Vote numbers go on rising over incarnations.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct DataPoint {
    /// Which data: random, given when the data is new, and again after each loss.
    pub incarnation: u64,
    /// The number of the last vote.
    pub seq: u64,
}

/// How many branches have ended in data, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Which data.
    pub incarnation: u64,
    /// How many have been applied or dropped, since it was opened.
    pub ended: u64,
}

/// What a participant's data is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataView {
    /// The incarnation; of fenced data the one that it had, and none of data that was flushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// The number of the last vote in it.
    pub seq: u64,
    /// Which look at it this is: random, another one after each reconnection and each repair. A Redis that goes back once
    /// more may show the same last vote again, and a word about what it was before then says nothing of what it lost.
    pub view: u64,
    /// Whether it takes nothing before it is resynchronised.
    pub fenced: bool,
    /// Why it is fenced, where this agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The logs whose word is missing before it opens again, in the order of their ids; empty while it is open.
    #[schema(value_type = Vec<String>)]
    pub owed: Vec<LogId>,
    /// The branches that are staged in it, while it is fenced.
    pub staged: Vec<StagedView>,
    /// The logs whose word the last repair took.
    pub served: Vec<Served>,
    /// What lacks inside its history, where it is fenced and something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hole: Option<Hole>,
}

/// Fenced data whose own counts differ: more branches have ended than it shows, or fewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hole {
    /// How many branches have ended in it, applied or dropped.
    pub ended: u64,
    /// How many had, as it says.
    pub expected: u64,
    /// The branches that are applied in it, and whose marker it still has.
    #[schema(value_type = Vec<String>)]
    pub done: Vec<Txid>,
    /// Below these marks a branch that is applied may have no marker any more.
    pub marks: Vec<Mark>,
}

/// How far a log had come, as the data knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// The log.
    #[schema(value_type = String)]
    pub log_id: LogId,
    /// Its low-water mark.
    #[schema(value_type = Object)]
    pub low_water: TxNumber,
    /// The life of the log that spoke last: one that is at work on what an earlier life began says
    /// a mark of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub epoch: Option<Epoch>,
}

/// A log whose word a repair took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Served {
    /// The log.
    #[schema(value_type = String)]
    pub log_id: LogId,
    /// The incarnation that it knew when it spoke: the data that is open now is what became of that one.
    pub incarnation: u64,
}

/// A branch that is staged in fenced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StagedView {
    /// The branch's transaction.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// The number of its vote.
    pub seq: u64,
}

/// A part of what one log says of a participant's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resync {
    /// Whom it is for.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// Who speaks.
    pub coordinator: CoordinatorRef,
    /// As in a batch.
    #[schema(value_type = Object)]
    pub low_water: TxNumber,
    /// What the coordinator was shown of the data: if it is another by now, the word is void.
    pub found: FoundData,
    /// What the coordinator had seen of the data before the loss; absent if it never heard a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<DataPoint>,
    /// The place of this part; the first one, 0, begins anew.
    pub part: u32,
    /// Whether nothing follows.
    pub last: bool,
    /// Whether an operator has accepted what the data lacks, and does not wait for other logs'
    /// words.
    #[serde(default)]
    pub alone: bool,
    /// What the log has committed and the data may lack, in the order of the votes.
    pub redo: Vec<RedoBranch>,
}

/// The data that a word is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundData {
    /// As in [`DataView`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// As in [`DataView`].
    pub seq: u64,
    /// As in [`DataView`].
    pub view: u64,
}

impl FoundData {
    /// Whether it is the same data, whichever look at it this was.
    #[must_use]
    pub fn is_same_data(&self, other: Self) -> bool {
        (self.incarnation, self.seq) == (other.incarnation, other.seq)
    }
}

/// A committed branch, with its writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedoBranch {
    /// The branch's transaction.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// The number of its vote.
    pub seq: u64,
    /// Its writes, as its vote carried them.
    pub redo: Base64,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resynced {
    /// The data as it is now that it is open; absent while more is owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<DataPoint>,
    /// The logs whose word is missing.
    #[schema(value_type = Vec<String>)]
    pub owed: Vec<LogId>,
    /// How many branches were applied for this.
    pub redone: u64,
}

impl DataView {
    /// Whether open data is what became, by a repair that took this log's word, of the data that it knew.
    #[must_use]
    pub fn has_served(&self, log_id: LogId, known: DataPoint) -> bool {
        let served = Served { log_id, incarnation: known.incarnation };
        !self.fenced && self.seq >= known.seq && self.served.contains(&served)
    }

    /// Whether it is the data that was known, with all the votes that were seen, and open.
    #[must_use]
    pub fn has_all_of(&self, known: DataPoint) -> bool {
        !self.fenced && self.incarnation == Some(known.incarnation) && self.seq >= known.seq
    }

    /// What a word about this data names.
    #[must_use]
    pub const fn found(&self) -> FoundData {
        FoundData { incarnation: self.incarnation, seq: self.seq, view: self.view }
    }
}
