//! The pulse: a look at the data that no traffic asks for (invariant 12). An idle agent notices by
//! it that Redis was flushed, put back, or replaced, and fences what is there before anybody takes
//! it for whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_common::participant::{DataLook, Found, Known, Mismatch, OwnData};
use assent_common::wire::resync::{DataPoint, Progress};
use redis::{RedisError, RedisResult};

use super::connection::{Live, fit, identity, not_shown};
use super::control::{Field, read_came_of};
use super::fence::in_words;
use super::owner::Turn;
use super::requirements::Examined;
use super::{Store, StoreError, lock, mutants, requirements, rights};

impl Store {
    /// Looks whether the data is still what this agent knew, and fences it if it is not. Connects
    /// if there is no connection: what another life of the server holds is compared there.
    pub async fn pulse(&self) -> Result<(), StoreError> {
        let live = self.live().await?;
        self.still_fit(&live).await?;
        let asked = self.writes.look(&live, &self.options.control_key).await;
        asked.map_err(|error| self.unseen(&live, &error))?;
        // Before Redis is asked: what is seen from then on may be newer than what it says.
        let known = self.known();
        let found = identity(&live, &self.options.control_key).await;
        let found = found.map_err(|error| self.unseen(&live, &error))?;
        self.compare(&live, known, found).await?;
        if !self.link.is_current(&live) {
            // It goes on with other data, on the next connection.
            return Ok(());
        }
        self.mind_owner(&live).await?;
        self.verify(&live).await
    }

    /// Looks whether the server is still fit for the promises: a setting or its role may have
    /// changed under the connection. One that is not is given up, and looked up anew by its name.
    async fn still_fit(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let connection = &mut live.connection.clone();
        let off_in = lock(&self.file_off_in).clone();
        let server = requirements::look_again(connection, &live.server, off_in).await;
        let server = server.map_err(|error| self.unseen(live, &error))?;
        self.mind_rights(live, &server).await?;
        if server.request_bytes_max != live.server.request_bytes_max {
            self.disconnect(live, "client-query-buffer-limit was changed");
        }
        lock(&self.file_off_in).clone_from(&server.file_off_in);
        let fit = fit(&server, &self.options).map(drop);
        fit.inspect_err(|error| self.disconnect(live, &error.to_string()))
    }

    /// What the pulse cannot look at is not fit, whatever kept it from looking: the next call
    /// connects anew, and says what is missing.
    fn unseen(&self, live: &Arc<Live>, error: &RedisError) -> StoreError {
        let error = not_shown(&self.options, live.server.user(), error);
        self.disconnect(live, &error.to_string());
        error
    }

    /// An owner takes its rights for those that it had when it connected, and would vote for what
    /// it may not write any more. Scripts ask for each write: it goes on by them while something is
    /// missing. With all that is needed the agent connects anew.
    async fn mind_rights(&self, live: &Arc<Live>, server: &Examined) -> Result<(), StoreError> {
        let were_changed = !server.has_the_rules_of(&live.server);
        if !were_changed && lock(&live.rights_lost).is_empty() {
            return Ok(());
        }
        let mut turn = live.turn.write().await;
        if let Turn::Sole(owner) = &mut *turn {
            owner.go_by_script();
        }
        // What is tried out ends a watch, which only an owner needs that writes by EXEC.
        let connection = &mut live.connection.clone();
        let rights = rights::probe(connection, server.id, &self.options.control_key).await;
        let rights = rights.map_err(|error| self.given_up(live, &error))?;
        let missing = rights.missing().unwrap_or_default();
        if missing.is_empty() {
            self.disconnect(live, "the rights of the agent's user were changed");
            return Ok(());
        }
        let mut lost = lock(&live.rights_lost);
        if *lost != missing {
            missing.clone_into(&mut lost);
            tracing::warn!(
                missing = missing.join(", "),
                "the agent's user has lost rights; branches that need them are refused"
            );
        }
        Ok(())
    }

    /// What the agent's user may not do any more, and how it may again; nothing if it has all that
    /// is needed, as far as the last pulse saw.
    pub fn rights_missing(&self) -> Option<String> {
        let live = self.link.current()?;
        let lost = lock(&live.rights_lost);
        (!lost.is_empty()).then(|| {
            let rules: Vec<String> = lost.iter().map(|rule| rights::quoted(rule)).collect();
            format!(
                "the user of this agent has lost {}, so that branches which need it are refused: \
                 redis-cli ACL SETUSER {} {}",
                lost.join(", "),
                rights::quoted(live.server.user()),
                rules.join(" ")
            )
        })
    }

    /// What Redis said to a write, if it takes none, as far as the last pulse saw.
    pub fn refuses_writes(&self) -> Option<String> {
        self.writes.refused()
    }

    /// The data that this agent goes on with, and how far it has seen it.
    pub(super) fn known(&self) -> Known {
        let incarnation = self.incarnation();
        let data = DataPoint { incarnation, seq: self.seq_seen.load(Ordering::Acquire) };
        Known { data, ended: self.ended_seen.load(Ordering::Acquire) }
    }

    /// How many branches have ended in the data, as far as this agent has seen.
    pub fn progress(&self) -> Option<Progress> {
        let Known { data, ended } = self.known();
        let incarnation = data.incarnation;
        self.is_quarantined().is_none().then_some(Progress { incarnation, ended })
    }

    /// Takes note of how many branches have ended.
    pub(super) fn saw_ended(&self, incarnation: u64, ended: u64) {
        // A count of data that is no more says nothing of the data that is.
        if incarnation == self.incarnation() {
            self.ended_seen.fetch_max(ended, Ordering::AcqRel);
        }
    }

    /// Compares what is found with what this agent knew before it looked. Other data is met with
    /// quarantine, not with an error: it can be looked at, and repaired. If another agent has
    /// repaired it, this one goes on with it.
    pub(super) async fn compare(
        &self,
        live: &Live,
        known: Known,
        found: Found,
    ) -> Result<(), StoreError> {
        let own = OwnData { known, ..self.own_data() };
        let came_of = match found.mismatch(known) {
            Some(Mismatch::Incarnation) => {
                mutants::came_of(known.data.incarnation, self.came_of(live).await?)
            }
            _ => Vec::new(),
        };
        match own.looks(found, &came_of) {
            DataLook::Same => {}
            DataLook::Repaired(open) => self.adopt(open).await,
            DataLook::Other { mismatch, fences } if mutants::minds_mismatch(mismatch) => {
                let reason = in_words(mismatch, found, known, "this agent knew");
                let is_of_now = self.quarantine_of(known.data.incarnation, reason);
                if is_of_now && fences {
                    self.fence(live, found.incarnation).await?;
                }
            }
            DataLook::Other { .. } => {}
        }
        Ok(())
    }

    /// The incarnations that the data says it came of.
    async fn came_of(&self, live: &Live) -> Result<Vec<u64>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(&self.options.control_key).arg(Field::CameOf);
        let said: RedisResult<Option<String>> =
            command.query_async(&mut live.connection.clone()).await;
        let said = said.map_err(|error| self.unavailable(&error))?;
        Ok(said.as_deref().map(read_came_of).unwrap_or_default())
    }
}
