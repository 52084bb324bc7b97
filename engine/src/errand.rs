//! What the core has its shell do: carried out in one place, in this order, when a turn ends.

use std::mem;

use assent_common::coordinator::resync::Loss;
use assent_common::crash::CrashPoint;
use assent_common::record::EndedByHand;
use assent_common::wire::resync::DataPoint;
use assent_common::{ParticipantName, TransactionId, TxNumber};

use crate::active::{Decided, Ticket};
use crate::lane::Outgoing;
use crate::resync::ResyncCall;

/// Something to do for the shell. A lane is named by its place.
#[derive(Debug)]
pub enum Errand {
    /// Begin to run a lane.
    StartLane(usize),
    /// Look whether a lane has something to send.
    WakeLane(usize),
    /// Send this prepare by the call that may wait, beside the batches of its lane.
    SendWaiting(usize, Outgoing),
    /// Do this for the resynchronisation with the participant of a lane.
    Resync(usize, ResyncCall),
    /// Call [`Core::tick`](crate::Core::tick) earlier than it asked for.
    Tick,
    /// A transaction's answer is given, to all who wait for it.
    Answer(Decided),
    /// A transaction has ended without an answer to these, who came late: they look it up.
    Unanswered(Vec<Ticket>),
    /// What somebody waits for is durable.
    Done(Ticket),
    /// A transaction that is watched has changed.
    Changed(TxNumber),
    /// A transaction that is watched has ended.
    Ended(TxNumber),
    /// Something came in from a participant or from the log: whoever waits for that looks again.
    Progress,
    /// The life of this process is in the log: whoever waits to speak may.
    LifeIsDurable,
    /// Whether a registered participant may not have heard yet which life speaks.
    Unmet(bool),
    /// People are to know.
    Say(Notice),
    /// A place where a test has the process die.
    CrashPoint(CrashPoint),
}

/// What people are to know: a line of the process's log.
#[derive(Debug)]
pub enum Notice {
    /// A machine has refused an input: a bug.
    StepRefused(String),
    /// A participant does not answer, and why.
    ParticipantSilent(ParticipantName, String),
    /// It answers again.
    ParticipantBack(ParticipantName),
    /// A participant's Redis does not answer, and why.
    RedisSilent(ParticipantName, String),
    /// It answers again.
    RedisBack(ParticipantName),
    /// A participant knows that the log is an old or a forked copy, and why.
    StaleLog(ParticipantName, String),
    /// A participant says so, and shows nothing that the log cannot have said.
    StaleLogNotShown(ParticipantName, String),
    /// It says so no more.
    StaleLogTakenBack(ParticipantName),
    /// A participant's data is open, after a loss, as this.
    DataOpened(ParticipantName, DataPoint),
    /// A participant lost data, and hears what the log has of it.
    DataReported {
        /// Whose data it is.
        participant: ParticipantName,
        /// Committed branches that are to be redone.
        branches: usize,
        /// The last vote that was found.
        found: u64,
        /// The last vote that was known.
        known: Option<u64>,
        /// The loss that an operator has put up with.
        accepted: Option<Loss>,
    },
    /// What a participant lost is not made good, and why; whether only an operator can help.
    DataTrouble {
        /// Whose data it is.
        participant: ParticipantName,
        /// What holds it up.
        trouble: String,
        /// Whether it is lost for good.
        is_lost: bool,
    },
    /// A branch was ended by hand, against what the log says.
    EndedByHand(Box<EndedByHand>),
    /// What a transaction with one branch wrote is more than a record holds.
    TooLargeToRedo {
        /// The transaction.
        id: TransactionId,
        /// What it wrote.
        bytes: usize,
        /// What a record holds.
        bytes_max: usize,
    },
}

/// The errands of a turn.
#[derive(Debug, Default)]
pub(crate) struct Errands(Vec<Errand>);

impl Errands {
    pub(crate) fn push(&mut self, errand: Errand) {
        self.0.push(errand);
    }

    pub(crate) fn say(&mut self, notice: Notice) {
        self.0.push(Errand::Say(notice));
    }

    /// Once is enough for all that a lane is handed in a row.
    pub(crate) fn wake(&mut self, lane: usize) {
        if !matches!(self.0.last(), Some(Errand::WakeLane(last)) if *last == lane) {
            self.0.push(Errand::WakeLane(lane));
        }
    }

    /// Compiles to nothing where there are no crash points.
    pub(crate) fn crash_point(&mut self, point: CrashPoint) {
        if cfg!(feature = "crash-points") {
            self.0.push(Errand::CrashPoint(point));
        }
    }

    /// Exchanges all of them for an empty list, whose room is used again.
    pub(crate) fn swap(&mut self, empty: &mut Vec<Errand>) {
        debug_assert!(empty.is_empty(), "what was to be done is done");
        mem::swap(&mut self.0, empty);
    }
}
