//! Which life of a log may speak here: an old or forked copy of a log is refused, for good
//! (invariant 1).
//!
//! The newest life that was heard is in the control hash, `m:n:<log id>`, and how far its log was
//! on disk by then, as it said, `m:p:<log id>`, beside the data that it decided: written with what
//! is done on its word. This agent remembers both too, so that a Redis is asked once for each life,
//! and one that lost its data is told again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId};
use assent_common::limits::EPOCH_MAX;
use assent_common::lives::{self, Heard, Life, Proof, Remembered, SealedWord};
use assent_common::outcome::Refusal;
use assent_common::wire::branch::{CoordinatorRef, LifeAnswer};

use super::connection::Connection;
use super::control::{Field, ToldPosition, read_life, write_life};
use super::data::DataIdentity;
use super::{StoreError, mutants};
use crate::mutex::lock;

/// How often a life is judged anew because another agent has remembered one meanwhile.
const TRIES_MAX: usize = 4;

/// Logs that say no life, and of which none was known when they were first heard here: a Redis is
/// asked once for each.
const NAMELESS_MAX: usize = 1_024;

/// Logs whose copies are remembered as refused, for operators.
const STALE_MAX: usize = 64;

const LIFE: &str = include_str!("../lua/life.lua");

/// What the script says of the data.
const REMEMBERED: i64 = 1;
const CHANGED: i64 = 0;

/// What has become of fields that were to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// They hold what they were to.
    Yes,
    /// Another agent has written one meanwhile.
    ByAnother,
    /// It is other data: whoever looks at that decides.
    OtherData,
}

/// Why a life of a log may not speak here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    /// What each of its messages is answered.
    pub refusal: Refusal,
    /// What becomes of the life; nothing more is to be said of one that is stale.
    pub life: Option<LifeAnswer>,
    /// What shows its coordinator that its log is a copy.
    pub shown: Option<SealedWord>,
}

impl NotAdmitted {
    /// It could not be found out.
    pub(crate) fn not_compared(error: &StoreError) -> Self {
        Self { refusal: error.refusal(), life: Some(LifeAnswer::NotCompared), shown: None }
    }
}

/// What a coordinator says beside which life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// Nothing: its life is compared, and remembered only when something is done on its word. So a
    /// copy that another participant finds out leaves no trace here.
    Nothing,
    /// Questions about branches of implicit transactions, as other participants ask them in their
    /// log's name.
    Questions,
    /// Something to be done.
    Work,
}

/// What is stored of a log.
pub(crate) struct StoredLife {
    /// The newest life, as it is stored; empty for nothing.
    life: String,
    /// How far the log was on disk, in the same way.
    told: String,
    remembered: Option<Remembered>,
}

impl StoredLife {
    /// Of what is stored; empty for nothing.
    pub(crate) fn new(life: String, told: String) -> Self {
        let remembered = remembered(&life, &told);
        Self { life, told, remembered }
    }
}

/// A text that is to be stored in the place of another one; empty for nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LifeChange<'a> {
    pub(crate) holds: &'a str,
    pub(crate) is_to_hold: &'a str,
}

/// Where the lives of logs are remembered, beside the data that they decide.
pub(crate) trait LifeStore: Sync {
    /// What is stored of a log.
    fn stored(&self, log_id: LogId) -> impl Future<Output = Result<StoredLife, StoreError>> + Send;

    /// Stores the newest life of a log, and how far it was, if that is said, where they are as they
    /// were read.
    fn write_if_same(
        &self,
        log_id: LogId,
        life: LifeChange<'_>,
        told: Option<LifeChange<'_>>,
    ) -> impl Future<Output = Result<Swapped, StoreError>> + Send;

    /// The error where others write all the time.
    fn contended(&self, reason: String) -> StoreError;
}

/// The control hash of a Redis.
pub(super) struct LivesInRedis<'a> {
    pub(super) connection: &'a Connection,
    pub(super) data: &'a DataIdentity,
}

impl LifeStore for LivesInRedis<'_> {
    async fn stored(&self, log_id: LogId) -> Result<StoredLife, StoreError> {
        let Self { connection, .. } = self;
        let mut command = redis::cmd("HMGET");
        command.arg(connection.control_key());
        command.arg(Field::Life(log_id)).arg(Field::Told(log_id));
        let (life, told): (Option<String>, Option<String>) =
            connection.or_unavailable(connection.ask(&command).await)?;
        Ok(StoredLife::new(life.unwrap_or_default(), told.unwrap_or_default()))
    }

    async fn write_if_same(
        &self,
        log_id: LogId,
        life: LifeChange<'_>,
        told: Option<LifeChange<'_>>,
    ) -> Result<Swapped, StoreError> {
        let Self { connection, data } = self;
        let mut command = redis::cmd("EVAL");
        command.arg(LIFE).arg(1).arg(connection.control_key()).arg(data.incarnation());
        let told = told.map(|told| (Field::Told(log_id), told));
        for (field, change) in [(Field::Life(log_id), life)].into_iter().chain(told) {
            command.arg(field).arg(change.holds).arg(change.is_to_hold);
        }
        match connection.or_unavailable(connection.send(&command).await)? {
            redis::Value::Int(REMEMBERED) => Ok(Swapped::Yes),
            redis::Value::Int(CHANGED) => Ok(Swapped::ByAnother),
            _ => Ok(Swapped::OtherData),
        }
    }

    fn contended(&self, reason: String) -> StoreError {
        StoreError::Unavailable { address: self.connection.options().address(), reason }
    }
}

/// What this agent remembers of the lives of logs.
#[derive(Debug, Default)]
pub(crate) struct KnownLives {
    /// Of each log that it has heard.
    heard: Mutex<HashMap<LogId, Remembered>>,
    /// Logs that say no life, and of which none was known when they were first heard here.
    nameless: Mutex<HashSet<LogId>>,
    /// The logs of which a copy was refused since they were last heard themselves, and why.
    stale: Mutex<BTreeMap<LogId, String>>,
    has_stale: AtomicBool,
}

impl KnownLives {
    /// Why this life of a coordinator may not speak here, and nothing if it may; where that is
    /// known without a look at the data.
    ///
    /// Nobody who is known by a life speaks without one, but for those who only ask.
    pub(crate) fn admit_at_once(
        &self,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Option<Option<NotAdmitted>> {
        let CoordinatorRef { log_id, epoch, life, .. } = coordinator;
        if !mutants::compares_lives() {
            return Some(None);
        }
        let mut heard = lock(&self.heard);
        let known = heard.get_mut(log_id);
        let Some(proof) = life else {
            let is_known = known.is_some() || lock(&self.nameless).contains(log_id);
            return is_known.then(|| nameless(known.copied(), *log_id, *epoch, says));
        };
        let known = known.filter(|it| it.life == Life { epoch: *epoch, nonce: proof.nonce })?;
        *known = Remembered::and(Some(*known), *epoch, proof);
        self.is_heard(*log_id);
        Some(None)
    }

    /// The same, with a look at the data.
    pub(crate) async fn admit(
        &self,
        store: &impl LifeStore,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Result<Option<NotAdmitted>, StoreError> {
        let CoordinatorRef { log_id, epoch, life, .. } = coordinator;
        if let Some(proof) = life {
            let said = Life { epoch: *epoch, nonce: proof.nonce };
            return self.judge(store, *log_id, said, proof, says).await;
        }
        let known = store.stored(*log_id).await?.remembered;
        let mut unknown = lock(&self.nameless);
        if known.is_none() && unknown.len() < NAMELESS_MAX {
            unknown.insert(*log_id);
        }
        Ok(nameless(known, *log_id, *epoch, says))
    }

    async fn judge(
        &self,
        store: &impl LifeStore,
        log_id: LogId,
        said: Life,
        proof: &Proof,
        says: Says,
    ) -> Result<Option<NotAdmitted>, StoreError> {
        for _ in 0..TRIES_MAX {
            let stored = store.stored(log_id).await?;
            let remembered = newest(lock(&self.heard).get(&log_id).copied(), stored.remembered);
            let now = Remembered::and(remembered, said.epoch, proof);
            match lives::hear(remembered, said.epoch, proof) {
                Heard::Known => {
                    lock(&self.heard).insert(log_id, now);
                    self.is_heard(log_id);
                    return Ok(None);
                }
                Heard::Newest if says == Says::Nothing => {
                    // It has shown the life that is known here: a copy that was refused has gone.
                    self.is_heard(log_id);
                    return Ok(None);
                }
                Heard::Newest => {}
                Heard::Unproven(epoch) => return Ok(Some(unproven(log_id, said.epoch, epoch))),
                Heard::TooFar => return Ok(Some(too_far(log_id, said.epoch))),
                heard @ (Heard::Stale | Heard::Cut(_)) => {
                    let refused = stale(log_id, said.epoch, remembered, heard);
                    self.is_refused(log_id, &refused.refusal.detail);
                    return Ok(Some(refused));
                }
            }
            let is_to_hold = write_life(said, now.heard);
            let life = LifeChange { holds: &stored.life, is_to_hold: &is_to_hold };
            match store.write_if_same(log_id, life, None).await? {
                Swapped::ByAnother => {}
                Swapped::Yes => {
                    lock(&self.heard).insert(log_id, now);
                    self.is_heard(log_id);
                    return Ok(None);
                }
                // This life is remembered when the data is the agent's.
                Swapped::OtherData => return Ok(None),
            }
        }
        Err(changes_all_the_time(store))
    }

    /// Writes what this agent knows of lives and the data does not: an old copy of it may have been
    /// put back. An agent that starts on it would admit what was refused.
    pub(crate) async fn tell(&self, store: &impl LifeStore) -> Result<(), StoreError> {
        let known: Vec<_> = lock(&self.heard).iter().map(|(log_id, it)| (*log_id, *it)).collect();
        for (log_id, known) in known {
            tell_life(store, log_id, known).await?;
        }
        Ok(())
    }

    fn is_refused(&self, log_id: LogId, why: &str) {
        let mut stale = lock(&self.stale);
        if stale.len() < STALE_MAX || stale.contains_key(&log_id) {
            stale.insert(log_id, why.to_owned());
            self.has_stale.store(true, Ordering::Release);
        }
    }

    fn is_heard(&self, log_id: LogId) {
        if self.has_stale.load(Ordering::Acquire) {
            let mut stale = lock(&self.stale);
            stale.remove(&log_id);
            self.has_stale.store(!stale.is_empty(), Ordering::Release);
        }
    }

    /// The logs of which a copy was refused since they were last heard themselves, and why.
    pub(crate) fn stale_logs(&self) -> BTreeMap<LogId, String> {
        lock(&self.stale).clone()
    }

    /// How far a log was on disk, as it is stored; empty for nothing.
    pub(crate) fn told_text(&self, log_id: LogId) -> String {
        self.told(log_id).map(|told| told.to_string()).unwrap_or_default()
    }

    /// How far a log was on disk, as it was last told here.
    pub(super) fn told(&self, log_id: LogId) -> Option<ToldPosition> {
        let known = lock(&self.heard).get(&log_id).copied();
        known.map(|Remembered { life, position, told, .. }| told_in(life, position, told))
    }
}

async fn tell_life(
    store: &impl LifeStore,
    log_id: LogId,
    known: Remembered,
) -> Result<(), StoreError> {
    for _ in 0..TRIES_MAX {
        let stored = store.stored(log_id).await?;
        let newest = newest(Some(known), stored.remembered);
        let Some(Remembered { life, position, heard, told }) = newest else { return Ok(()) };
        if newest == stored.remembered {
            return Ok(());
        }
        let (life_text, told_text) =
            (write_life(life, heard), told_in(life, position, told).to_string());
        let life = LifeChange { holds: &stored.life, is_to_hold: &life_text };
        let told = LifeChange { holds: &stored.told, is_to_hold: &told_text };
        let written = store.write_if_same(log_id, life, Some(told)).await?;
        if written != Swapped::ByAnother {
            return Ok(());
        }
    }
    Err(changes_all_the_time(store))
}

fn changes_all_the_time(store: &impl LifeStore) -> StoreError {
    store.contended("other agents hear other lives of this log all the time".to_owned())
}

/// What one hears that does not say its life, of a log that is known by this one: it is an older
/// version, or somebody who knows only the log's name.
fn nameless(
    known: Option<Remembered>,
    log_id: LogId,
    epoch: Epoch,
    says: Says,
) -> Option<NotAdmitted> {
    if epoch.0 > EPOCH_MAX {
        return Some(too_far(log_id, epoch));
    }
    let known = known?;
    let may_ask = says == Says::Questions && epoch <= known.life.epoch;
    (!may_ask).then(|| unproven(log_id, epoch, Some(known.life.epoch)))
}

/// How far a log was on disk, and which of its lives said it: the newest, where nothing shows that
/// it was an earlier one.
fn told_in(newest: Life, position: u64, word: Option<SealedWord>) -> ToldPosition {
    ToldPosition { position, epoch: word.map_or(newest.epoch, |word| word.epoch), word }
}

/// The newer life of the two, with all that was told.
fn newest(known: Option<Remembered>, stored: Option<Remembered>) -> Option<Remembered> {
    let newest = match (known, stored) {
        (Some(known), Some(stored)) if known.life < stored.life => stored,
        (known, stored) => known.or(stored)?,
    };
    let told = [known, stored].into_iter().flatten().max_by_key(|it| (it.position, it.told));
    let Remembered { position, told, .. } = told?;
    Some(Remembered { position, told, ..newest })
}

/// What the fields `m:n:<log id>` and `m:p:<log id>` say together. Data that was put back may have
/// an older life than the agent that went on with it, and then a position of the newer one: it says
/// nothing of where the older one ended.
fn remembered(life: &str, told: &str) -> Option<Remembered> {
    let (life, heard) = read_life(life)?;
    let told = ToldPosition::parse(told).filter(|told| told.epoch <= life.epoch);
    let position = told.map_or(0, |told| told.position);
    Some(Remembered { life, position, heard, told: told.and_then(|told| told.word) })
}

fn unproven(log_id: LogId, said: Epoch, known: Option<Epoch>) -> NotAdmitted {
    let known_text = known.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
    let detail = format!(
        "life {said} of log {log_id} has not shown that its log has the life that is known here \
         ({known_text}); nothing was done"
    );
    let refusal = Refusal::new(ErrorCode::UnprovenLife, detail);
    NotAdmitted { refusal, life: Some(LifeAnswer::Unproven { epoch: known }), shown: None }
}

fn too_far(log_id: LogId, said: Epoch) -> NotAdmitted {
    let detail = format!("no log comes as far as life {said} (log {log_id}); nothing was done");
    tracing::warn!(%log_id, epoch = %said, "a life of a log that cannot be is refused");
    NotAdmitted {
        refusal: Refusal::new(ErrorCode::UnprovenLife, detail),
        life: Some(LifeAnswer::Unproven { epoch: None }),
        shown: None,
    }
}

fn stale(log_id: LogId, said: Epoch, remembered: Option<Remembered>, heard: Heard) -> NotAdmitted {
    let known = remembered.map_or(Epoch(0), |known| known.life.epoch);
    let lacks = match heard {
        Heard::Cut(position) => {
            format!("told here of record {}:{}", position >> 32, position as u32)
        }
        _ => "was heard here".to_owned(),
    };
    let which = if matches!(heard, Heard::Cut(_)) { "not in" } else { "not among those of" };
    let detail = format!(
        "life {known} of log {log_id} {lacks}, which is {which} the log of the coordinator that speaks \
         now as life {said}: its log is an old or a forked copy"
    );
    tracing::error!(%log_id, epoch = %said, heard = %known, detail,
        "an old or forked copy of a log is refused (docs/guides/recover.md, `Backup`)");
    let shown = remembered.and_then(|known| known.shows(heard));
    NotAdmitted { refusal: Refusal::new(ErrorCode::StaleLog, detail), life: None, shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent of life 3 went on with data that was put back from life 2, and was restarted: the
    /// log itself was then taken for a copy that had been cut.
    #[test]
    fn a_position_of_a_later_life_says_nothing_of_where_the_remembered_one_ended() {
        let life = Life { epoch: Epoch(2), nonce: 7 };
        for (told, position) in [("", 0), ("900 2", 900), ("800 1", 800), ("900 3", 0)] {
            let is = Remembered { life, position, heard: None, told: None };
            assert_eq!(remembered("2 7", told), Some(is), "{told}");
        }
        assert_eq!(remembered("", "900 2"), None);
    }
}
