//! Which life of a log may speak here: an old or forked copy of a log is refused, for good
//! (invariant 1).
//!
//! The newest life that was heard is in the control hash, `m:n:<log id>`, and how far its log was
//! on disk by then, as it said, `m:p:<log id>`, beside the data that it decided: written with what
//! is done on its word. This agent remembers both too, so that a Redis is asked once for each life,
//! and one that lost its data is told again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use assent_common::code::ErrorCode;
use assent_common::ids::{Epoch, LogId};
use assent_common::limits::EPOCH_MAX;
use assent_common::lives::{self, Heard, Life, Proof, Remembered, SealedWord};
use assent_common::outcome::Refusal;
use assent_common::wire::branch::{CoordinatorRef, LifeAnswer};
use redis::RedisResult;

use super::connection::Live;
use super::control::{Field, ToldPosition, read_life, write_life};
use super::execute::send;
use super::{Store, StoreError, lock, mutants};

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
enum Swapped {
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

/// What the control hash says of a log.
struct Stored {
    /// The field `m:n:<log id>` as it is; empty for nothing.
    life: String,
    /// The field `m:p:<log id>`, in the same way.
    told: String,
    remembered: Option<Remembered>,
}

impl Store {
    /// Why this life of a coordinator may not speak here; `None` if it may.
    ///
    /// Nobody who is known by a life speaks without one, but for those who only ask.
    pub async fn admit_life(
        &self,
        coordinator: &CoordinatorRef,
        says: Says,
    ) -> Option<NotAdmitted> {
        let CoordinatorRef { log_id, epoch, life, .. } = coordinator;
        if !mutants::compares_lives() {
            return None;
        }
        let Some(proof) = life else {
            return self.admit_nameless(*log_id, *epoch, says).await;
        };
        let said = Life { epoch: *epoch, nonce: proof.nonce };
        if let Some(known) = lock(&self.lives).get_mut(log_id)
            && known.life == said
        {
            *known = Remembered::and(Some(*known), *epoch, proof);
            self.is_heard(*log_id);
            return None;
        }
        match self.judge_life(*log_id, said, proof, says).await {
            Ok(judged) => judged,
            Err(error) => Some(not_compared(&error)),
        }
    }

    async fn judge_life(
        &self,
        log_id: LogId,
        said: Life,
        proof: &Proof,
        says: Says,
    ) -> Result<Option<NotAdmitted>, StoreError> {
        let live = self.live().await?;
        for _ in 0..TRIES_MAX {
            let stored = self.stored_life(&live, log_id).await?;
            let remembered = newest(lock(&self.lives).get(&log_id).copied(), stored.remembered);
            let now = Remembered::and(remembered, said.epoch, proof);
            match lives::hear(remembered, said.epoch, proof) {
                Heard::Known => {
                    lock(&self.lives).insert(log_id, now);
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
            let field = (Field::Life(log_id), &*stored.life, write_life(said, now.heard));
            match self.write_if_same(&live, &[field]).await? {
                Swapped::ByAnother => {}
                Swapped::Yes => {
                    lock(&self.lives).insert(log_id, now);
                    self.is_heard(log_id);
                    return Ok(None);
                }
                // This life is remembered when the data is the agent's.
                Swapped::OtherData => return Ok(None),
            }
        }
        Err(self.changes_all_the_time())
    }

    /// Writes what this agent knows of lives and the data does not: an old copy of it may have been
    /// put back. An agent that starts on it would admit what was refused.
    pub(super) async fn tell_lives(&self, live: &Live) -> Result<(), StoreError> {
        let known: Vec<_> = lock(&self.lives).iter().map(|(log_id, it)| (*log_id, *it)).collect();
        for (log_id, known) in known {
            self.tell_life(live, log_id, known).await?;
        }
        Ok(())
    }

    async fn tell_life(
        &self,
        live: &Live,
        log_id: LogId,
        known: Remembered,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let stored = self.stored_life(live, log_id).await?;
            let newest = newest(Some(known), stored.remembered);
            let Some(Remembered { life, position, heard, told }) = newest else { return Ok(()) };
            if newest == stored.remembered {
                return Ok(());
            }
            let told = told_in(life, position, told).to_string();
            let fields = [
                (Field::Life(log_id), &*stored.life, write_life(life, heard)),
                (Field::Told(log_id), &*stored.told, told),
            ];
            let written = self.write_if_same(live, &fields).await?;
            if written != Swapped::ByAnother {
                return Ok(());
            }
        }
        Err(self.changes_all_the_time())
    }

    /// Writes fields that hold what is said here beside each; empty for nothing.
    async fn write_if_same(
        &self,
        live: &Live,
        fields: &[(Field<'_>, &str, String)],
    ) -> Result<Swapped, StoreError> {
        let mut command = redis::cmd("EVAL");
        command.arg(LIFE).arg(1).arg(&self.options.control_key).arg(self.incarnation());
        for (field, holds, is_to_hold) in fields {
            command.arg(field).arg(holds).arg(is_to_hold);
        }
        match send(live, &command).await.map_err(|error| self.unavailable(&error))? {
            redis::Value::Int(REMEMBERED) => Ok(Swapped::Yes),
            redis::Value::Int(CHANGED) => Ok(Swapped::ByAnother),
            _ => Ok(Swapped::OtherData),
        }
    }

    fn changes_all_the_time(&self) -> StoreError {
        let reason = "other agents hear other lives of this log all the time".to_owned();
        StoreError::Unavailable { address: self.options.address(), reason }
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
    #[must_use]
    pub fn stale_logs(&self) -> BTreeMap<LogId, String> {
        lock(&self.stale).clone()
    }

    /// One that does not say its life: an older version, or somebody who knows only the log's name.
    async fn admit_nameless(&self, log_id: LogId, epoch: Epoch, says: Says) -> Option<NotAdmitted> {
        let mut known = lock(&self.lives).get(&log_id).copied();
        if known.is_none() && !lock(&self.nameless).contains(&log_id) {
            let stored = match self.live().await {
                Ok(live) => self.stored_life(&live, log_id).await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(stored) => known = stored.remembered,
                Err(error) => return Some(not_compared(&error)),
            }
            let mut nameless = lock(&self.nameless);
            if known.is_none() && nameless.len() < NAMELESS_MAX {
                nameless.insert(log_id);
            }
        }
        if epoch.0 > EPOCH_MAX {
            return Some(too_far(log_id, epoch));
        }
        let known = known?;
        let may_ask = says == Says::Questions && epoch <= known.life.epoch;
        (!may_ask).then(|| unproven(log_id, epoch, Some(known.life.epoch)))
    }

    async fn stored_life(&self, live: &Live, log_id: LogId) -> Result<Stored, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.options.control_key);
        command.arg(Field::Life(log_id)).arg(Field::Told(log_id));
        let stored: RedisResult<(Option<String>, Option<String>)> =
            command.query_async(&mut live.connection.clone()).await;
        let (life, told) = stored.map_err(|error| self.unavailable(&error))?;
        let (life, told) = (life.unwrap_or_default(), told.unwrap_or_default());
        let remembered = remembered(&life, &told);
        Ok(Stored { life, told, remembered })
    }

    /// How far a log was on disk, as it was last told here.
    pub(super) fn told(&self, log_id: LogId) -> Option<ToldPosition> {
        let known = lock(&self.lives).get(&log_id).copied();
        known.map(|Remembered { life, position, told, .. }| told_in(life, position, told))
    }
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

fn not_compared(error: &StoreError) -> NotAdmitted {
    NotAdmitted { refusal: error.refusal(), life: Some(LifeAnswer::NotCompared), shown: None }
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
