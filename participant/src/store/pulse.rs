//! The pulse: a look at the data that no traffic asks for (invariant 12). An idle agent notices by
//! it that Redis was flushed, put back, or replaced, and fences what is there before anybody takes
//! it for whole.

use redis::RedisError;

use super::data::identity;
use super::link::{Link, Live};
use super::owner::Turn;
use super::requirements::Examined;
use super::said::not_shown;
use super::{StoreError, rights, writable};
use crate::mutex::lock;

impl Link {
    /// Looks whether the data is still what this agent knew, and fences it if it is not. Connects
    /// if there is no connection: what another life of the server holds is compared there.
    pub async fn pulse(&self) -> Result<(), StoreError> {
        let live = self.live().await?;
        let connection = &live.connection;
        self.still_fit(&live).await?;
        writable::look(connection).await.map_err(|error| self.unseen(&live, &error))?;
        // Before Redis is asked: what is seen from then on may be newer than what it says.
        let known = self.data.known();
        let found = identity(connection).await.map_err(|error| self.unseen(&live, &error))?;
        self.went_on(self.data.compare(connection, known, found).await?);
        if !self.is_current(&live) {
            // It goes on with other data, on the next connection.
            return Ok(());
        }
        self.mind_owner(&live).await?;
        live.trust.verify(connection).await
    }

    /// Looks whether the server is still fit for the promises: a setting or its role may have
    /// changed under the connection. One that is not is given up, and looked up anew by its name.
    async fn still_fit(&self, live: &Live) -> Result<(), StoreError> {
        let server = live.connection.look_again().await;
        let server = server.map_err(|error| self.unseen(live, &error))?;
        self.mind_rights(live, &server).await?;
        if server.request_bytes_max != live.connection.server.request_bytes_max {
            self.give_up(live, "client-query-buffer-limit was changed");
        }
        let fit = self.memory.fit(&server).map(drop);
        fit.inspect_err(|error| self.give_up(live, &error.to_string()))
    }

    /// What the pulse cannot look at is not fit, whatever kept it from looking: the next call
    /// connects anew, and says what is missing.
    fn unseen(&self, live: &Live, error: &RedisError) -> StoreError {
        let user = live.connection.server.user();
        let error = not_shown(&self.memory.options, user, error);
        self.give_up(live, &error.to_string());
        error
    }

    /// An owner takes its rights for those that it had when it connected, and would vote for what
    /// it may not write any more. Scripts ask for each write: it goes on by them while something is
    /// missing. With all that is needed the agent connects anew.
    async fn mind_rights(&self, live: &Live, server: &Examined) -> Result<(), StoreError> {
        let connection = &live.connection;
        let were_changed = !server.has_the_rules_of(&connection.server);
        if !were_changed && lock(&connection.rights_lost).is_empty() {
            return Ok(());
        }
        let mut turn = live.turn.write().await;
        if let Turn::Sole(owner) = &mut *turn {
            owner.go_by_script();
        }
        // What is tried out ends a watch, which only an owner needs that writes by EXEC.
        let rights = connection.rights().await.map_err(|error| self.given_up(live, &error))?;
        let missing = rights.missing().unwrap_or_default();
        if missing.is_empty() {
            self.give_up(live, "the rights of the agent's user were changed");
            return Ok(());
        }
        let mut lost = lock(&connection.rights_lost);
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
        let live = self.current()?;
        let connection = &live.connection;
        let lost = lock(&connection.rights_lost);
        (!lost.is_empty()).then(|| {
            let rules: Vec<String> = lost.iter().map(|rule| rights::quoted(rule)).collect();
            format!(
                "the user of this agent has lost {}, so that branches which need it are refused: \
                 redis-cli ACL SETUSER {} {}",
                lost.join(", "),
                rights::quoted(connection.server.user()),
                rules.join(" ")
            )
        })
    }

    /// What Redis said to a write, if it takes none, as far as the last pulse saw.
    pub fn refuses_writes(&self) -> Option<String> {
        lock(&self.memory.writes_refused).clone()
    }
}
