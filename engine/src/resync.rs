//! The driver of a resynchronisation: what is asked of a participant whose Redis lost data, in
//! which order, when again, and when it is over. What is missing is `common`'s
//! `coordinator::resync` to say; here is where one try stands.
//!
//! ```text
//! the data is fenced ──► Asking ──► Deciding ──► Syncing ──► Reading ──► Saying ──► open
//!                          ▲                                    │ loss     │ owed, void
//!                          └──────────── Pausing ◄──────────────┴──────────┘
//! ```
//!
//! One at a time for each participant, and one call at a time. While it runs the participant does
//! nothing for anybody, so that no decision about a branch there is made behind the log that was
//! read.

use std::vec;

use assent_common::backoff::Backoff;
use assent_common::coordinator::resync::{Lacking, Loss, Plan, Redone, Seen};
use assent_common::record::Record;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, DataView, FoundData, RedoBranch, Resync, Resynced};
use assent_common::{LogId, ParticipantName, TxNumber};

/// Between tries: the participant may be away, or wait for the report of another log.
const AGAIN: Backoff = Backoff { base_ms: 50, cap_ms: 2_000 };

/// Bytes of writes in one part; in base64, far below what a participant takes.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Branches in one part.
const PART_BRANCHES_MAX: usize = 10_000;

/// Something to do for a resynchronisation. Each is answered once, by
/// [`Core::resync`](crate::Core::resync).
#[derive(Debug)]
pub enum ResyncCall {
    /// Ask the participant what its data is: [`ResyncHeard::DataShown`].
    AskData,
    /// Read the whole log: [`ResyncHeard::LogRead`].
    ReadLog(Box<LogReading>),
    /// Say this to the participant: [`ResyncHeard::WordTaken`].
    Say(Box<Resync>),
    /// Wait so many milliseconds: [`ResyncHeard::Due`].
    Wait(u64),
}

/// What came of a call. An error says why, for people.
#[derive(Debug)]
pub enum ResyncHeard {
    /// What the participant's data is.
    DataShown(Result<Box<DataView>, String>),
    /// What the log has of it.
    LogRead(Result<Box<DataReport>, String>),
    /// What the participant makes of a part of that.
    WordTaken(Result<Resynced, String>),
    /// It is time for the next try.
    Due,
}

/// A log that is being read for what data may lack; the core is not needed for it.
#[derive(Debug)]
pub struct LogReading {
    plan: Plan,
}

/// What is known of data when the log has been read: also of what compaction has let go meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct KnownData {
    pub(crate) seen: Seen,
    /// Whether an operator has put up with what it lacks.
    pub(crate) is_accepted: bool,
}

/// What a log reports of data that lost something.
#[derive(Debug)]
pub struct DataReport {
    known: KnownData,
    loss: Option<Loss>,
    branches: usize,
    parts: Vec<Vec<RedoBranch>>,
}

impl LogReading {
    pub(crate) const fn new(plan: Plan) -> Self {
        Self { plan }
    }

    /// Takes a record of the log, in any order.
    pub fn apply(&mut self, record: &Record) {
        self.plan.apply(record);
    }

    /// The report, with what [`Core::known_data`](crate::Core::known_data) says after the last
    /// record.
    #[must_use]
    pub fn finish(self, known: KnownData) -> DataReport {
        let Lacking { redo, loss } = self.plan.finish(known.seen);
        DataReport { known, loss, branches: redo.len(), parts: parts_of(redo) }
    }
}

impl DataReport {
    /// The loss that an operator has put up with.
    #[must_use]
    pub fn accepted_loss(&self) -> Option<&Loss> {
        self.loss.as_ref().filter(|_| self.known.is_accepted)
    }
}

/// Where a resynchronisation stands.
#[derive(Debug, Default)]
pub(crate) struct Resynchronisation {
    pub(crate) stage: Stage,
    tries: u32,
}

/// What it waits for.
#[derive(Debug, Default)]
pub(crate) enum Stage {
    /// The participant shows its data.
    Asking,
    /// Nothing is undecided there.
    Deciding(Box<DataView>),
    /// What clients have been told is on disk.
    Syncing(Box<DataView>),
    /// The log is read.
    Reading(FoundData),
    /// The participant takes what is said.
    Saying(Box<Saying>),
    /// It is time for the next try.
    #[default]
    Pausing,
}

/// A report on its way, part by part.
#[derive(Debug)]
pub(crate) struct Saying {
    found: FoundData,
    known: KnownData,
    part: u32,
    rest: vec::IntoIter<Vec<RedoBranch>>,
}

/// A report that is to be said.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) saying: Box<Saying>,
    pub(crate) branches: usize,
    /// The loss that an operator has put up with.
    pub(crate) accepted: Option<Loss>,
}

impl Resynchronisation {
    /// Whether this is what it waits for: an answer comes to one call, and once.
    pub(crate) const fn awaits(&self, heard: &ResyncHeard) -> bool {
        matches!(
            (&self.stage, heard),
            (Stage::Asking, ResyncHeard::DataShown(_))
                | (Stage::Reading(_), ResyncHeard::LogRead(_))
                | (Stage::Saying(_), ResyncHeard::WordTaken(_))
                | (Stage::Pausing, ResyncHeard::Due)
        )
    }

    /// Takes what it has come to; it stands still until it is told where it stands now.
    pub(crate) fn take(&mut self) -> Stage {
        std::mem::take(&mut self.stage)
    }

    /// A try is over: how long to wait for the next one, in milliseconds.
    pub(crate) fn pause(&mut self, seed: u64) -> u64 {
        let pause_ms = AGAIN.delay_ms(self.tries, seed);
        self.tries = self.tries.saturating_add(1);
        self.stage = Stage::Pausing;
        pause_ms
    }
}

impl Saying {
    /// Begins to say what a log reports of this data; or why not all can be made good.
    pub(crate) fn begin(found: FoundData, report: DataReport) -> Result<Reported, Loss> {
        let DataReport { known, loss, branches, parts } = report;
        let accepted = match loss {
            Some(loss) if !known.is_accepted => return Err(loss),
            accepted => accepted,
        };
        let saying = Box::new(Self { found, known, part: 0, rest: parts.into_iter() });
        Ok(Reported { saying, branches, accepted })
    }

    pub(crate) const fn known(&self) -> Option<DataPoint> {
        self.known.seen.known
    }

    /// The next part, as this coordinator says it; `None` when all is said.
    pub(crate) fn next_part(
        &mut self,
        participant: ParticipantName,
        coordinator: CoordinatorRef,
        low_water: TxNumber,
    ) -> Option<Resync> {
        let redo = self.rest.next()?;
        let (part, last) = (self.part, self.rest.len() == 0);
        self.part += 1;
        let (found, known, alone) = (self.found, self.known(), self.known.is_accepted);
        Some(Resync { participant, coordinator, low_water, found, known, part, last, alone, redo })
    }
}

/// Why data is not open when all of a report is said.
pub(crate) fn owed(owed: &[LogId]) -> String {
    let owed: Vec<String> = owed.iter().map(ToString::to_string).collect();
    format!(
        "the participant waits for the report of log {}; if its coordinator is gone for good, \
         accept the loss of what only that log knew",
        owed.join(", ")
    )
}

/// Cuts a report into parts; one without a branch has one.
fn parts_of(redo: Vec<Redone>) -> Vec<Vec<RedoBranch>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for Redone { seq, txid, redo } in redo {
        bytes += redo.len();
        let branch = RedoBranch { txid, seq, redo: Base64(redo) };
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES_MAX && part.len() < PART_BRANCHES_MAX => {
                part.push(branch);
            }
            _ => {
                bytes = branch.redo.0.len();
                parts.push(vec![branch]);
            }
        }
    }
    parts
}
