//! The shell of the engine: carries out what the pure core (`assent-engine`) wants done, and owns
//! nothing of the protocol itself.
//!
//! ```text
//! HTTP ──submit──► ┌──── Core (one mutex, no I/O, never held over an await) ─────────────┐
//! timer ──tick──►  │ machine.step(now, input) ─► effects ─► errands, records for the log │
//! lanes ─answers─► └─────────────────────────────────────────────────────────────────────┘
//! log ──durable──►       when a turn ends: errands.rs carries all of it out
//! ```
//!
//! Everything that happens comes in through one of the core's doors. Each takes a whole batch under
//! one lock.

mod by_hand;
mod counts;
mod desk;
mod errands;
mod lane;
mod list;
mod lives;
mod meet;
mod participants;
mod resync;
mod shared;
mod submit;
#[cfg(test)]
mod tests;
mod view;
mod vital;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use assent_client::participant::ParticipantClient;
use assent_client::settle;
use assent_client::transport::Http;
use assent_common::participant::Branches;
use assent_common::settle::{Finding, Resolution};
use assent_common::wire::branch::{BranchAddress, CoordinatorRef};
use assent_common::wire::outcome::{BranchOutcome, OutcomeAnswer};
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{AbandonRequest, TransactionView};
use assent_common::{ErrorCode, ParticipantName, TransactionId, TxNumber, Txid, limits};
use assent_engine::{Compaction, Core, Resumption, of_participant, problem_of};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use self::desk::Desk;
use self::shared::{Guarded, Shared, Turn, not_found, stopping};
use self::view::view;
use crate::clock;
use crate::log::{LogHandle, LogPosition, Token};

pub use assent_engine::{AdmissionLimits, Fingerprint, SEGMENT_BYTES_FOR_ALL};
pub use counts::Counts;
pub use list::ListFilter;
pub use shared::Engine;
pub use submit::{Origin, Submitted};
pub(crate) use vital::vital;

impl Engine {
    /// An engine around the core that goes on from a log. Its lanes start as participants are
    /// registered.
    pub(crate) fn new(core: Core, log: LogHandle, http: Http) -> Self {
        let shared = Shared {
            identity: core.identity().clone(),
            held: Mutex::new(Guarded { core, desk: Desk::default() }),
            log,
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
        let held = self.shared.held.lock().unwrap_or_else(|_poisoned| {
            tracing::error!("a step of a transaction panicked; stopping");
            std::process::abort()
        });
        Turn { held, shared: &self.shared }
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
        let outcome = self.core().outcome(txid);
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
        let asker = self.core().speaker_to_anybody();
        let resolution =
            settle::ask(&self.shared.http, &asker, txid, branches, Resolution::new(branches)).await;
        let finding = resolution.finding();
        let (word, why) = finding.told();
        tracing::info!(%txid, finding = word, why,
            "the branches of an implicit transaction were asked");
        if let Finding::Contradiction(why) = &finding {
            tracing::error!(%txid, why,
                "an implicit transaction is torn; see docs/guides/recover.md");
        }
        finding.outcome()
    }

    /// A transaction, active or ended.
    pub fn transaction(&self, id: TransactionId) -> Result<TransactionView, Problem> {
        let position = {
            let core = self.core();
            if let Some(view) = view(&core, id) {
                return Ok(view);
            }
            core.history().by_id(id)
        };
        position.and_then(|position| self.ended_view(position, id)).ok_or_else(|| not_found(id))
    }

    /// The connection to a participant that is registered.
    pub(crate) fn client_of(
        &self,
        name: &ParticipantName,
    ) -> Result<Arc<ParticipantClient>, Problem> {
        let core = self.core();
        let client = core.lanes().registered(name).and_then(|place| core.client(place));
        client.ok_or_else(|| {
            let detail = format!("no participant {name} is registered; nothing was asked of it");
            of_participant(name, ErrorCode::UnknownParticipant, detail)
        })
    }

    /// Changes of an active transaction: the receiver is notified after every step. `None` if it is
    /// not active.
    #[must_use]
    pub fn changes(&self, id: TransactionId) -> Option<watch::Receiver<u64>> {
        let mut core = self.core();
        let number = core.number_of(id)?;
        core.watch(number).then(|| core.desk_mut().changes(number))
    }

    /// An active transaction and the version that `changes` has come to, of the same moment: a
    /// version that is read apart may be that of the state before.
    pub(crate) fn at_version(
        &self,
        id: TransactionId,
        changes: &mut watch::Receiver<u64>,
    ) -> Option<(u64, TransactionView)> {
        let core = self.core();
        let view = view(&core, id)?;
        Some((*changes.borrow_and_update(), view))
    }

    /// Sends everything of a transaction that waits now.
    pub fn retry(&self, id: TransactionId) -> Result<TransactionView, Problem> {
        {
            let mut core = self.core();
            if let Some(number) = core.number_of(id).filter(|number| !core.is_over(*number)) {
                core.retry(number, clock::micros());
                if let Some(view) = view(&core, id) {
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
        let by = AbandonRequest { actor, reason };
        let durable = self.core().give_up(id, participant, by)?;
        durable.await.map_err(|_| Problem { id: Some(id), ..stopping() })?;
        self.transaction(id)
    }

    /// Records became durable; called from the log's writer thread.
    pub(crate) fn durable(&self, batch: Vec<(Token, LogPosition)>) {
        self.core().durable(batch, clock::micros());
    }

    /// Numbers for metrics and health.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(&self.core(), clock::now())
    }

    /// Runs timers until dropped.
    pub(crate) async fn run_timers(self) {
        loop {
            let next = self.core().tick(clock::micros());
            let armed_earlier = self.shared.timer.notified();
            match next {
                Some(at) => {
                    let sleep_ms = at.since(clock::now());
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
        self.core().is_draining()
    }

    /// Takes no new transactions from here on, and waits until none is active but those that wait
    /// for participants that do not answer: what is left of them is in the log, and goes on after
    /// the next start.
    pub async fn drain(&self) {
        let mut progress = {
            let mut core = self.core();
            core.drain();
            core.desk().progress()
        };
        while !self.core().is_drained() {
            // The sender goes with the engine, which this holds.
            let _ = progress.changed().await;
        }
    }
}

/// A participant of the log or of the configuration that cannot be registered.
pub(crate) struct NotRestored {
    pub(crate) name: ParticipantName,
    pub(crate) detail: String,
}

/// What recovery and compaction do with the engine.
impl Engine {
    /// Why the disk of the log takes nothing more, for as long as that is so.
    pub(crate) fn log_trouble(&self) -> Option<String> {
        self.shared.log.trouble()
    }

    /// Registers the participants of the log and of the configuration.
    pub(crate) fn restore_participants(
        &self,
        participants: BTreeMap<ParticipantName, String>,
    ) -> Result<(), NotRestored> {
        let client = |(name, url): (ParticipantName, String)| match self.client_at(&name, &url) {
            Ok(client) => Ok((name, client)),
            Err(problem) => Err(NotRestored { name, detail: problem.detail }),
        };
        let clients: Vec<_> = participants.into_iter().map(client).collect::<Result<_, _>>()?;
        // In one turn: no lane may think that it is the only one.
        let mut core = self.core();
        for (name, client) in clients {
            let place = core.restore_participant(&name, client.base_url());
            core.desk_mut().set_client(place, client);
        }
        Ok(())
    }

    /// A connection to a participant, if its URL is one.
    fn client_at(&self, name: &ParticipantName, url: &str) -> Result<ParticipantClient, Problem> {
        let wrong = |detail: String| of_participant(name, ErrorCode::BadRequest, detail);
        if url.len() > limits::URL_BYTES_MAX {
            let most = limits::URL_BYTES_MAX;
            return Err(wrong(format!("`url` must have at most {most} bytes")));
        }
        ParticipantClient::new(&self.shared.http, url).map_err(|error| wrong(error.to_string()))
    }

    /// Goes on with what the log left unfinished.
    pub(crate) fn go_on(&self, rest: Resumption) {
        rest.go_on(&mut self.core(), clock::micros());
    }

    /// Whether a transaction has not ended.
    pub(crate) fn is_active(&self, number: TxNumber) -> bool {
        self.core().active(number).is_some()
    }

    /// Appends again what must outlive segments. The receiver hears when they may go.
    pub(crate) fn keep(&self, compaction: Compaction) -> oneshot::Receiver<()> {
        let mut core = self.core();
        let done = core.desk_mut().ticket();
        compaction.keep(&mut core, done);
        core.desk_mut().await_done(done)
    }
}
