//! Whether the data in Redis is what this agent, or a coordinator, knows of it (invariant 12).
//!
//! ```text
//! Batch.known ──┬─ as this agent knows it ───────────────────────────────► executed
//!               └─ else the data is looked at ──┬─ as the coordinator says ► executed; another agent repaired it
//!                                               └─ not so ► fenced ► refused, until it is resynchronised (repair.rs)
//! ```

use assent_common::participant::{DataLook, Found, Known, Mismatch, OwnData};
use assent_common::wire::resync::DataPoint;
use redis::Value;

use super::connection::Connection;
use super::control::{Field, read_came_of};
use super::data::{DataIdentity, identity};
use super::scripts::Script;
use super::{StoreError, mutants};

impl DataIdentity {
    /// Looks whether the data is still what this agent knew. Whether it goes on with other data:
    /// then the connection is to be given up.
    pub(super) async fn look(&self, connection: &Connection) -> Result<bool, StoreError> {
        // Before Redis is asked: what is seen from then on may be newer than what it says, and a
        // vote of a connection that was given up may still arrive there, and then here.
        let known = self.known();
        let found = connection.or_unavailable(identity(connection).await)?;
        self.compare(connection, known, found).await
    }

    /// Compares what is found with what this agent knew before it looked. Other data is met with
    /// quarantine, not with an error: it can be looked at, and repaired. If another agent has
    /// repaired it, this one goes on with it, and says so.
    pub(super) async fn compare(
        &self,
        connection: &Connection,
        known: Known,
        found: Found,
    ) -> Result<bool, StoreError> {
        let own = OwnData { known, ..self.own() };
        let came_of = match found.mismatch(known) {
            Some(Mismatch::Incarnation) => {
                mutants::came_of(known.data.incarnation, came_of(connection).await?)
            }
            _ => Vec::new(),
        };
        match own.looks(found, &came_of) {
            DataLook::Same => {}
            DataLook::Repaired(open) => return Ok(self.goes_on_with(open)),
            DataLook::Other { mismatch, fences } if mutants::minds_mismatch(mismatch) => {
                let reason = in_words(mismatch, found, known, "this agent knew");
                let is_of_now = self.quarantine_of(known.data.incarnation, reason);
                if is_of_now && fences {
                    fence(connection, found.incarnation).await?;
                }
            }
            DataLook::Other { .. } => {}
        }
        Ok(false)
    }
}

/// The incarnations that the data says it came of.
async fn came_of(connection: &Connection) -> Result<Vec<u64>, StoreError> {
    let said: Option<String> = connection.or_unavailable(connection.field(Field::CameOf).await)?;
    Ok(said.as_deref().map(read_came_of).unwrap_or_default())
}

/// Fences the data, if it is still of this incarnation.
pub(super) async fn fence(
    connection: &Connection,
    incarnation: Option<u64>,
) -> Result<(), StoreError> {
    let mut command = redis::cmd("EVAL");
    command.arg(Script::Fence.source()).arg(2);
    command.arg(connection.control_key()).arg(connection.owner_key());
    command.arg(incarnation.map_or_else(String::new, |incarnation| incarnation.to_string()));
    if connection.or_unavailable(connection.send(&command).await)? == Value::Int(1) {
        tracing::error!(incarnation, "the data is fenced until its coordinators have reported");
    }
    Ok(())
}

/// Why the data is not what was known of it, if it is not.
pub(super) fn not_as_known(found: Found, known: Known, who_knew: &str) -> Option<String> {
    let mismatch = found.mismatch(known).filter(|mismatch| mutants::minds_mismatch(*mismatch))?;
    Some(in_words(mismatch, found, known, who_knew))
}

/// How the data is not what was known of it.
fn in_words(mismatch: Mismatch, found: Found, known: Known, who_knew: &str) -> String {
    let Found { incarnation, seq, ended, expected: written } = found;
    let DataPoint { incarnation: expected, seq: seen } = known.data;
    match mismatch {
        Mismatch::Incarnation => {
            let found = incarnation.map_or_else(|| "none".to_owned(), |found| found.to_string());
            format!(
                "the data has incarnation {found}, {who_knew} {expected}: Redis was flushed, restored or replaced"
            )
        }
        Mismatch::Votes => {
            format!("the last vote in Redis is number {seq}, {who_knew} {seen}: votes were lost")
        }
        Mismatch::Hole => format!(
            "{ended} branches have ended in Redis, but it also says that there should be {written}: its history has a hole"
        ),
        Mismatch::Ended => {
            let seen = known.ended;
            format!(
                "{ended} branches have ended in Redis, {who_knew} of {seen}: outcomes were lost"
            )
        }
    }
}
