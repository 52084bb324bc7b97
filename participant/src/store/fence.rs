//! Whose data this is, asked with every batch: what its coordinator has seen of it must be there
//! (invariant 12).
//!
//! ```text
//! Batch.known ──┬─ as this agent knows it ───────────────────────────────► executed
//!               └─ else the data is looked at ──┬─ as the coordinator says ► executed; another agent repaired it
//!                                               └─ not so ► fenced ► refused, until it is resynchronised (repair.rs)
//! ```

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use assent_common::code::ErrorCode;
use assent_common::ids::{LogId, TxNumber};
use assent_common::outcome::Refusal;
use assent_common::participant::{Found, Heard, Known, Meeting, Mismatch, OwnData};
use assent_common::wire::resync::{DataPoint, Progress};
use redis::{RedisResult, Value};

use super::connection::{Live, identity};
use super::control::Field;
use super::execute::send;
use super::mutants;
use super::scripts::Script;
use super::{Store, StoreError, lock};

impl Store {
    /// Why nothing may be done for a coordinator that knows this of the data; `None` if it may.
    pub async fn admit(
        &self,
        log_id: LogId,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Option<Refusal> {
        let own = self.own_data();
        if !own.is_quarantined && own.has_all_of(known, progress) {
            return None;
        }
        match self.look_again(log_id, known, progress).await {
            Ok(None) => None,
            Ok(Some(reason)) => Some(Refusal::new(ErrorCode::Quarantined, reason)),
            Err(error) => Some(error.refusal()),
        }
    }

    /// What this agent knows of the data.
    pub(super) fn own_data(&self) -> OwnData {
        let is_quarantined = self.is_quarantined().is_some();
        OwnData { known: self.known(), is_quarantined }
    }

    /// Whether a log that knows this of the data knows something else than this agent does. Nobody
    /// else is to be shut out on its word alone.
    #[must_use]
    pub fn is_other_data(&self, known: Option<DataPoint>, progress: Option<Progress>) -> bool {
        !self.own_data().has_all_of(known, progress) && !mutants::believes_strangers()
    }

    /// Whether a log has spoken here, as far as the data and this agent know.
    pub async fn has_spoken(&self, log_id: LogId) -> Result<bool, StoreError> {
        if lock(&self.markers).heard(log_id).is_some() {
            return Ok(true);
        }
        let live = self.live().await?;
        let mut command = redis::cmd("HEXISTS");
        command.arg(&self.options.control_key).arg(Field::Mark(log_id));
        let has_spoken: RedisResult<bool> = command.query_async(&mut live.connection.clone()).await;
        has_spoken.map_err(|error| self.unavailable(&error))
    }

    /// Takes note of a log that speaks here, also where it is refused: its word is owed.
    pub fn heard(&self, log_id: LogId, heard: Heard) {
        self.raise(log_id, heard);
    }

    /// The same; the highest mark that is known of it.
    pub(super) fn raise(&self, log_id: LogId, said: Heard) -> TxNumber {
        let low_water = lock(&self.markers).raise(log_id, said);
        lock(&self.unlogged).let_go(log_id, low_water);
        low_water
    }

    /// Compares the data itself with what a coordinator knows of it, and fences it if it is not
    /// that.
    async fn look_again(
        &self,
        log_id: LogId,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Result<Option<String>, StoreError> {
        let live = self.live().await?;
        let found = identity(&live, &self.options.control_key)
            .await
            .map_err(|error| self.unavailable(&error))?;
        let told = known.map(|known| Known::told(known, progress));
        let quarantined = self.is_quarantined();
        let waits = || quarantined.clone().unwrap_or_else(|| "the data is fenced".to_owned());
        match self.own_data().meets(found, told) {
            Meeting::Serves(data) => {
                self.adopt(data).await;
                if known.is_some() {
                    self.saw_ended(data.incarnation, found.ended);
                }
                return Ok(None);
            }
            Meeting::Fenced => {
                self.quarantine(waits());
                return Ok(Some(waits()));
            }
            Meeting::Unlike => {}
        }
        if let Some(known) = known
            && self.data().await?.has_served(log_id, known)
        {
            let data =
                "the data was repaired meanwhile; the coordinator asks for its present state";
            return Ok(Some(data.to_owned()));
        }
        let as_found = |incarnation| {
            let data = DataPoint { incarnation, seq: found.seq };
            Known { data, ended: 0 }
        };
        let told = told.or_else(|| found.incarnation.map(as_found));
        let not_as_told = || not_as_known(found, told?, "its coordinator knew");
        let reason = quarantined.clone().or_else(not_as_told).unwrap_or_else(waits);
        self.quarantine(reason.clone());
        self.fence(&live, found.incarnation).await?;
        Ok(Some(reason))
    }

    /// Goes on with this data.
    pub(super) async fn adopt(&self, data: DataPoint) {
        lock(&self.unlogged).goes_on_with(data);
        let mut own = self.own_data();
        let is_other = own.goes_on_with(data);
        let Known { data, ended } = own.known;
        if !is_other {
            self.seq_seen.fetch_max(data.seq, Ordering::AcqRel);
            return;
        }
        {
            // Who compared the data with what was known before finds this lock, and then what is
            // known now.
            let mut quarantine = self.quarantine.write().unwrap_or_else(PoisonError::into_inner);
            // What was seen of other data says nothing of this; until this is known, no vote on it
            // is taken for seen.
            self.seq_seen.store(data.seq, Ordering::Release);
            self.ended_seen.store(ended, Ordering::Release);
            self.incarnation.store(data.incarnation, Ordering::Release);
            *quarantine = None;
        }
        tracing::warn!(incarnation = data.incarnation, seq = data.seq, "the data is open");
        if let Some(live) = self.link.current() {
            self.disconnect(&live, "the data was repaired");
        }
    }

    /// Fences the data, if it is still of this incarnation.
    pub(super) async fn fence(
        &self,
        live: &Live,
        incarnation: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut command = redis::cmd("EVAL");
        command.arg(Script::Fence.source()).arg(2);
        command.arg(&self.options.control_key).arg(self.owner_key());
        command.arg(incarnation.map_or_else(String::new, |incarnation| incarnation.to_string()));
        let fenced: RedisResult<Value> = send(live, &command).await;
        let fenced = fenced.map_err(|error| self.unavailable(&error))?;
        if fenced == Value::Int(1) {
            tracing::error!(incarnation, "the data is fenced until its coordinators have reported");
        }
        Ok(())
    }
}

/// Why the data is not what was known of it, if it is not.
fn not_as_known(found: Found, known: Known, who_knew: &str) -> Option<String> {
    let mismatch = found.mismatch(known).filter(|mismatch| mutants::minds_mismatch(*mismatch))?;
    Some(in_words(mismatch, found, known, who_knew))
}

/// How the data is not what was known of it.
pub(super) fn in_words(mismatch: Mismatch, found: Found, known: Known, who_knew: &str) -> String {
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
