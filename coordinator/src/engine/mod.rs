//! The engine: runs the machines of `common`, and owns nothing of the protocol itself.
//!
//! ```text
//! HTTP ──submit──►┌──────────── Core (one mutex, no I/O, never held over an await) ───────────┐
//! timer ──tick──► │ machine.step(now, input) ─► effects:  Send    ─► lane queue of participant │
//! lanes ─results─►│                                       Persist ─► the log, at the end      │
//! log ──durable──►│                                       Answer  ─► oneshot of the waiter     │
//!                 └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything that happens comes in through one of four doors, is a step of one machine, and its
//! effects are carried out before the next. Each door takes a whole batch under one lock, and hands
//! the log all its records at once: one wake-up of the writer and one sync are dear, and serve a
//! hundred records as well as one.

mod active;
mod admission;
mod behind;
mod by_hand;
mod core;
mod counts;
mod fingerprint;
mod history;
mod holders;
mod journal;
mod lane;
mod list;
mod lives;
mod meet;
mod mutants;
mod numbers;
mod outbound;
mod participants;
mod queues;
mod resync;
mod submit;
#[cfg(test)]
mod tests;
mod view;
mod vital;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use assent_client::transport::Http;
use assent_client::{mutant, settle};
use assent_common::coordinator::recovery::Recovered;
use assent_common::coordinator::resync::SeenData;
use assent_common::lives::{Life, Proof};
use assent_common::mutant::Mutant;
use assent_common::participant::Branches;
use assent_common::record::Record;
use assent_common::settle::{Finding, Resolution};
use assent_common::wire::branch::{BranchAddress, CoordinatorRef};
use assent_common::wire::outcome::{BranchOutcome, OutcomeAnswer};
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, ParticipantName, TransactionId, Txid};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use crate::log::{LogHandle, LogPosition, Token};
use crate::recovery::StartError;

pub(crate) use self::core::Core;
pub use admission::AdmissionLimits;
pub use counts::Counts;
pub use fingerprint::Fingerprint;
pub use history::History;
pub(crate) use history::ReplayedHistory;
pub use journal::SEGMENT_BYTES_FOR_ALL;
pub use list::ListFilter;
pub use submit::{Origin, Submitted, Wait};
pub(crate) use vital::vital;

/// The coordinator's engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    core: Mutex<Core>,
    log: LogHandle,
    /// Who we are, in every batch.
    identity: CoordinatorRef,
    /// The connections to participants.
    http: Http,
    /// Where lanes run; steps also come from the log's thread, which is none of the runtime's.
    runtime: Handle,
    /// Wakes the timer task when an earlier moment than it sleeps to was armed.
    timer: Notify,
    /// Whether a registered participant may not have heard yet which life speaks.
    unmet: AtomicBool,
}

impl Engine {
    /// An engine over a log that has been opened and replayed. Its lanes start as participants are
    /// registered.
    pub(crate) fn new(core: Core, log: LogHandle, url: String, http: Http, life: Life) -> Self {
        let proof = Proof { nonce: life.nonce, position: 0, before: None };
        let identity =
            CoordinatorRef { log_id: log.log_id(), epoch: life.epoch, url, life: Some(proof) };
        let shared = Shared {
            core: Mutex::new(core),
            log,
            identity,
            http,
            runtime: Handle::current(),
            timer: Notify::new(),
            unmet: AtomicBool::new(true),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The core. A panic while it was held leaves machines half-stepped; nothing may be answered
    /// from them, so that the process ends, as it does when the log fails.
    fn core(&self) -> Turn<'_> {
        let core = self.shared.core.lock().unwrap_or_else(|_poisoned| {
            tracing::error!("a step of a transaction panicked; stopping");
            std::process::abort()
        });
        Turn { core, shared: &self.shared }
    }

    /// Which log decides here, in which life, and where its outcomes are asked for.
    #[must_use]
    pub fn identity(&self) -> &CoordinatorRef {
        &self.shared.identity
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &LogHandle {
        &self.shared.log
    }

    /// The answer to a branch in doubt.
    #[must_use]
    pub fn outcome(&self, txid: Txid) -> OutcomeAnswer {
        let outcome = if txid.log_id == self.shared.identity.log_id {
            self.core().outcome(txid)
        } else if mutant::is(Mutant::AnswersForOthers) {
            BranchOutcome::Aborted
        } else {
            BranchOutcome::UnknownAuthority
        };
        OutcomeAnswer { txid, log_id: self.shared.identity.log_id, outcome }
    }

    /// The answer to a branch in doubt of an implicit transaction. What the log does not know is
    /// found out by asking the branches: all of them staged is the decision, and none that is
    /// absent can be staged afterwards.
    pub async fn resolve(
        &self,
        txid: Txid,
        branches: Vec<BranchAddress>,
    ) -> Result<OutcomeAnswer, Problem> {
        let log_id = self.shared.identity.log_id;
        if txid.log_id != log_id {
            return Ok(self.outcome(txid));
        }
        let known = {
            let core = self.core();
            match core.implicit_outcome(txid) {
                Some(outcome) => Ok(outcome),
                None => Err(core.addresses_now(&branches)?),
            }
        };
        let outcome = match known {
            Ok(outcome) => outcome,
            Err(branches) => self.ask_branches(txid, &branches).await,
        };
        Ok(OutcomeAnswer { txid, log_id, outcome })
    }

    async fn ask_branches(&self, txid: Txid, branches: &Branches) -> BranchOutcome {
        let asker = self.core().speaker_to_anybody(&self.shared);
        let resolution =
            settle::ask(&self.shared.http, &asker, txid, branches, Resolution::new(branches)).await;
        let finding = resolution.finding();
        let (word, why) = finding.told();
        tracing::info!(%txid, finding = word, why, "the branches of an implicit transaction were asked");
        match finding {
            Finding::Committed => BranchOutcome::Committed,
            Finding::Aborted => BranchOutcome::Aborted,
            Finding::Open(_) => BranchOutcome::Undecided,
            Finding::Contradiction(why) => {
                tracing::error!(%txid, why, "an implicit transaction is torn; see docs/guides/recover.md");
                BranchOutcome::UnknownAuthority
            }
        }
    }

    /// A transaction, active or ended.
    pub fn transaction(&self, id: TransactionId) -> Result<TransactionView, Problem> {
        let position = {
            let core = self.core();
            if let Some(view) = core.view(id) {
                return Ok(view);
            }
            core.history.by_id(id)
        };
        position.and_then(|position| self.ended_view(position, id)).ok_or_else(|| not_found(id))
    }

    /// Changes of an active transaction: the receiver is notified after every step. `None` if it is
    /// not active.
    #[must_use]
    pub fn changes(&self, id: TransactionId) -> Option<watch::Receiver<u64>> {
        self.core().changes(id)
    }

    /// An active transaction and the version that `changes` has come to, of the same moment: a
    /// version that is read apart may be that of the state before.
    pub(crate) fn at_version(
        &self,
        id: TransactionId,
        changes: &mut watch::Receiver<u64>,
    ) -> Option<(u64, TransactionView)> {
        let core = self.core();
        let view = core.view(id)?;
        Some((*changes.borrow_and_update(), view))
    }

    /// Sends everything of a transaction that waits now.
    pub fn retry(&self, id: TransactionId) -> Result<TransactionView, Problem> {
        {
            let mut core = self.core();
            let number = core.number_of(id);
            if let Some(number) = number {
                core.retry(number, &self.shared);
                if let Some(view) = core.view(id) {
                    return Ok(view);
                }
            }
        }
        let view = self.transaction(id)?;
        let detail = format!("transaction {id} has ended; there is nothing to retry");
        Err(Problem {
            outcome: Some(view.outcome),
            ..problem_of(id, ErrorCode::WrongState, detail)
        })
    }

    /// Gives up a branch: recorded with who and why before it takes effect (invariant 16).
    pub async fn abandon(
        &self,
        id: TransactionId,
        participant: &ParticipantName,
        actor: String,
        reason: String,
    ) -> Result<TransactionView, Problem> {
        let durable = self.core().abandon(id, participant, actor, reason)?;
        durable.await.map_err(|_| {
            problem_of(id, ErrorCode::NotReady, "the process is stopping".to_owned())
        })?;
        self.transaction(id)
    }

    /// Records became durable; called from the log's writer thread.
    pub(crate) fn durable(&self, batch: Vec<(Token, LogPosition)>) {
        self.core().durable(batch, &self.shared);
    }

    /// Numbers for metrics and health.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.core().counts()
    }

    /// Runs timers until dropped.
    pub(crate) async fn run_timers(self) {
        loop {
            let next = self.core().tick(crate::clock::now(), &self.shared);
            let armed_earlier = self.shared.timer.notified();
            match next {
                Some(at) => {
                    let sleep_ms = at.since(crate::clock::now());
                    let sleep =
                        tokio::time::sleep(std::time::Duration::from_millis(sleep_ms.max(1)));
                    tokio::select! {
                        () = sleep => {}
                        () = armed_earlier => {}
                    }
                }
                None => armed_earlier.await,
            }
        }
    }

    /// Whether new transactions are refused because the process is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core().draining
    }

    /// Takes no new transactions from here on, and waits until none is active but those that wait
    /// for participants that do not answer: what is left of them is in the log, and goes on after
    /// the next start.
    pub async fn drain(&self) {
        let mut progress = {
            let mut core = self.core();
            core.draining = true;
            core.progress.subscribe()
        };
        while !self.core().is_drained() {
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
    }
}

/// The core, while it is held. When it is let go, the log gets what it has to write.
struct Turn<'a> {
    core: MutexGuard<'a, Core>,
    shared: &'a Shared,
}

impl Deref for Turn<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A step that panicked is half done, and so is what it would have written.
        if !std::thread::panicking() {
            self.core.hand_over(self.shared);
        }
    }
}

/// Nothing is known here under this id.
fn not_found(id: TransactionId) -> Problem {
    let detail = format!(
        "transaction {id} was not found: it is neither active nor within the retention; its outcome is unknown"
    );
    problem_of(id, ErrorCode::NotFound, detail)
}

fn problem_of(id: TransactionId, code: ErrorCode, detail: String) -> Problem {
    Problem { id: Some(id), ..Problem::new(code, detail) }
}

/// What recovery and compaction do with the engine.
impl Engine {
    /// Registers the participants of the log and of the configuration.
    pub(crate) fn restore_participants(
        &self,
        participants: BTreeMap<ParticipantName, String>,
    ) -> Result<(), StartError> {
        let mut core = self.core();
        for (name, url) in participants {
            core.restore_participant(&name, &url, &self.shared)
                .map_err(|problem| StartError::Participant { name, detail: problem.detail })?;
        }
        Ok(())
    }

    /// What the log has seen of the participants' data.
    pub(crate) fn restore_data(&self, seen: SeenData) {
        let mut core = self.core();
        for (participant, seen) in seen.into_each() {
            let lane = core.lane(&participant);
            core.lanes[lane].data.seen = seen;
        }
    }

    /// Goes on with the transactions that the log left unfinished.
    pub(crate) fn resume(&self, transactions: Vec<Recovered>) {
        let mut core = self.core();
        for recovered in transactions {
            core.resume(recovered, &self.shared);
        }
    }

    /// Whether a record is about a transaction that has not ended.
    pub(crate) fn is_active(&self, record: &Record) -> bool {
        record.number().is_some_and(|number| self.core().active.contains_key(&number))
    }

    /// Appends again what must outlive the segments up to `segment`, and forgets the answers in
    /// them. The receiver hears when the segments may go.
    pub(crate) fn keep(
        &self,
        records: Vec<Record>,
        retired: &BTreeMap<ParticipantName, u64>,
        segment: u32,
    ) -> oneshot::Receiver<()> {
        let mut core = self.core();
        core.retire_votes(retired.iter().map(|(participant, seq)| (participant, *seq)));
        let durable = core.keep(records);
        core.forget_through(segment);
        durable
    }
}
