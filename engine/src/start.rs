//! A start: the log is replayed, and its next life goes on from there. The shell opens the log,
//! reads it, and registers the participants; the order of it all, and what each step has, is here.
//!
//! ```text
//! records ─► Replaying ──begin──► NextLife ── participants are registered ── rest.go_on ──►
//! ```

use std::collections::BTreeMap;

use assent_common::ParticipantName;
use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::recovery::{Plan, Recovered};
use assent_common::coordinator::replay::Replay;
use assent_common::coordinator::resync::SeenData;
use assent_common::lives::{Life, LifeBegan, Proof, SealKey};
use assent_common::log::LogPosition;
use assent_common::record::Record;
use assent_common::time::{Micros, Millis};
use assent_common::wire::branch::CoordinatorRef;

use crate::core::{Core, CoreSettings};
use crate::history::ReplayedHistory;

/// A log that is read from its first record to its last.
#[derive(Debug, Default)]
pub struct Replaying {
    replay: Replay,
    history: ReplayedHistory,
    last: LogPosition,
}

/// What a life of a log begins with.
#[derive(Debug)]
pub struct NextLife {
    /// Nothing leaves it before a turn ends: the first record of the life is in its outbox.
    pub core: Core,
    /// The participants that the log has, and their URLs.
    pub participants: BTreeMap<ParticipantName, String>,
    /// What is left of the start when the participants are registered.
    pub rest: Resumption,
}

/// What goes on where the log left it.
#[derive(Debug)]
pub struct Resumption {
    seen: SeenData,
    transactions: Vec<Recovered>,
}

impl Replaying {
    /// Takes the next record. Fails with the reason if the record cannot be what was written.
    pub fn apply(&mut self, position: LogPosition, record: Record) -> Result<(), String> {
        self.last = position;
        self.history.apply(position, &record);
        self.replay.apply(record)
    }

    /// Begins the next life, which has this nonce. A log that has no key gets a new one.
    #[must_use]
    pub fn begin(
        self,
        settings: CoreSettings,
        nonce: u64,
        new_key: impl FnOnce() -> SealKey,
        now: Millis,
    ) -> NextLife {
        let Replay { unfinished, decisions, seen, mut lives } = self.replay;
        let CoordinatorRef { log_id, epoch, .. } = settings.identity;
        let began = LifeBegan { life: Life { epoch, nonce }, at: Some(self.last.0) };
        lives.began(began);
        let new_key = lives.key().is_none().then(new_key);
        if let Some(key) = new_key {
            lives.sealed_with(key);
        }
        let life = Some(Proof { nonce, position: 0, seal: None, before: None });
        let identity = CoordinatorRef { life, ..settings.identity };
        let settings = CoreSettings { identity, ..settings };
        let authority = Authority::new(log_id, epoch, decisions);
        let mut core = Core::new(settings, authority, self.history.finish(), lives);
        core.begin_life(began, new_key);
        let Plan { transactions, participants } = unfinished.plan(now);
        NextLife { core, participants, rest: Resumption { seen, transactions } }
    }
}

impl Resumption {
    /// The transactions that go on.
    #[must_use]
    pub fn transactions(&self) -> &[Recovered] {
        &self.transactions
    }

    /// Goes on with all of it. No transaction speaks before every one is there: the low-water mark
    /// counts on that.
    pub fn go_on(self, core: &mut Core, now: Micros) {
        core.restore_data(self.seen);
        for recovered in self.transactions {
            core.resume(recovered, now);
        }
    }
}
