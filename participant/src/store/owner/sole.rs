//! A batch, as the sole owner does it: rounds.

use std::sync::Arc;

use assent_common::branch::BranchAnswer;
use assent_common::ids::{Epoch, LogId, TxNumber};
use assent_common::outcome::{Call, Done, Failed, Prepared};
use assent_common::participant::Heard;
use redis::{Pipeline, Value};

use super::super::connection::Connection;
use super::super::data::DataIdentity;
use super::super::decode::report_dirty;
use super::super::markers::Marker;
use super::super::mutants;
use super::super::refusals::without_denied;
use super::super::scripts::Script;
use super::super::work::{Answers, PrepareItem, Sorted, Speaker};
use super::apply::apply;
use super::ask::ask;
use super::candidates::{Candidates, Sight};
use super::counters::{self, Counters};
use super::exec::{Ended, Exec, exec};
use super::intake::{Intake, Said};
use super::look::{self, AskExpiry};
use super::round::{Round, dirty};
use super::{Lost, Owner, WriteWay};
use crate::mutex::lock;

/// Branches of one round: Redis answers nobody else while it runs an `EXEC`.
const BRANCHES_PER_ROUND_MAX: usize = 128;

/// Below every transaction.
const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

/// An owner at work.
pub(in super::super) struct Rounds<'a> {
    pub(in super::super) connection: &'a Connection,
    pub(in super::super) data: &'a DataIdentity,
    pub(in super::super) owner: &'a mut Owner,
}

impl Rounds<'_> {
    /// Answers what is sorted.
    pub(in super::super) async fn run(
        &mut self,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Result<(), Lost> {
        let mut later = Vec::new();
        loop {
            let mut round = Round::default();
            round.taken.endings = sorted.take_endings(BRANCHES_PER_ROUND_MAX);
            if self.owner.way == WriteWay::Script
                && let Err(lost) = ask(self.connection, self.owner, &mut round, answers).await
            {
                sorted.put_all_back(round.taken);
                return Err(lost);
            }
            let collected = match round.exec.only_fences {
                true => Vec::new(),
                false => self.begin(&mut round, speaker),
            };
            let outcome = self.round(speaker, sorted, &mut round, &mut later).await;
            if !round.exec.only_fences {
                self.owner.keep_told(&mut round, speaker);
            }
            let outcome = match outcome {
                Ok(()) => self.keep(round, sorted, answers).await,
                Err(lost) => {
                    sorted.put_all_back(round.taken);
                    Err(lost)
                }
            };
            if outcome.is_err() {
                lock(&self.data.markers).restore(speaker.log_id, collected);
            } else if !collected.is_empty() {
                self.owner.sweep();
            }
            sorted.prepares.append(&mut later);
            answers.leave_if_full(&mut sorted.prepares);
            if outcome.is_err() || sorted.is_empty() {
                return outcome;
            }
        }
    }

    /// What every round begins with: what the coordinator says of itself, and the markers that its
    /// mark lets go.
    fn begin(&mut self, round: &mut Round, speaker: &Speaker<'_>) -> Vec<Marker> {
        let (heard, collected) = {
            let mut markers = lock(&self.data.markers);
            (markers.heard(speaker.log_id), markers.collect(speaker.log_id))
        };
        let said = Heard { epoch: speaker.epoch, low_water: NO_MARK };
        // Only with something to collect: until then nothing depends on the mark. It goes with the
        // life that gave it, which may be a later one than that of the messages.
        let heard = heard.filter(|_| !collected.is_empty());
        self.owner.hear(round, speaker.log_id, heard.map_or(said, |heard| heard.and(said)));
        for marker in &collected {
            round.exec.delete(marker.field());
        }
        collected
    }

    /// Takes messages into a round. Outcomes first: they free locks.
    async fn round(
        &mut self,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        round: &mut Round,
        later: &mut Vec<PrepareItem>,
    ) -> Result<(), Lost> {
        for place in 0..round.taken.endings.len() {
            let item = round.taken.endings[place];
            if let Err(error) = self.owner.end(round, item) {
                let why = format!("the writes of the branch cannot be read: {error}");
                round.answers.push((item.slot, item.ending.failed(Failed::Unknown(why))));
            }
        }
        let room = BRANCHES_PER_ROUND_MAX - round.taken.endings.len();
        let by_script =
            self.owner.way == WriteWay::Script || !self.connection.server.rights.has_all_keys();
        let candidates = Candidates::choose(self.owner, sorted, round, later, room, by_script);
        if candidates.is_empty() {
            return Ok(());
        }
        let sight = match self.look(&candidates).await {
            Ok(sight) => sight,
            Err(lost) => {
                round.taken.prepares.extend(candidates.all());
                return Err(lost);
            }
        };
        let Candidates { again, plain, scripts } = candidates;
        let Sight { records, found, evaluated, counters } = sight;
        let (counters, url) = (&counters, speaker.url);
        let owner = &mut *self.owner;
        let mut intake = Intake { owner, round, counters, url, later, bytes: 0 };
        for (place, item) in again.into_iter().enumerate() {
            intake.again(item, records.get(place));
        }
        let plain = plain.into_iter().zip(found.into_iter().map(Said::Found));
        let evaluated = scripts.answered(evaluated);
        let evaluated = evaluated.map(|(item, row)| (item, Said::Evaluated(row)));
        let mut unreadable = None;
        for (item, said) in plain.chain(evaluated) {
            if unreadable.is_some() {
                intake.later.push(item);
            } else {
                unreadable = intake.take(item, said).err();
            }
        }
        unreadable.map_or(Ok(()), |error| Err(Lost::Ownership(error.to_string())))
    }

    /// Reads what the ops of the branches need to know, in their order.
    async fn look(&mut self, candidates: &Candidates) -> Result<Sight, Lost> {
        for script in candidates.scripts.unknown(self.connection) {
            self.load_to_look(script).await?;
        }
        let mut sight = self.look_once(candidates).await?;
        let missing = candidates.scripts.missing(&sight.evaluated);
        if !missing.is_empty() {
            for script in missing {
                self.load_to_look(script).await?;
            }
            sight = self.look_once(candidates).await?;
        }
        for (items, said) in candidates.scripts.0.iter().zip(&mut sight.evaluated) {
            if let Value::ServerError(error) = said
                && error.code() == "NOPERM"
            {
                let why = error.to_string();
                if let Some(rows) = without_denied(self.connection, items, &why).await {
                    *said = rows;
                }
            }
        }
        Ok(sight)
    }

    async fn load_to_look(&self, script: Script) -> Result<(), Lost> {
        let loaded = self.connection.load(script).await;
        loaded.map(drop).map_err(|error| match error.code() {
            Some(_) => Lost::Refused(error.to_string()),
            None => Lost::Ownership(error.to_string()),
        })
    }

    async fn look_once(&mut self, candidates: &Candidates) -> Result<Sight, Lost> {
        let Self { connection, owner, .. } = self;
        let Candidates { plain, scripts, .. } = candidates;
        let mut pipeline = Pipeline::with_capacity(2 * plain.len() + 2);
        let asked = look::asked(plain, &owner.short_keys);
        let features = connection.server.id.features();
        let expiry = AskExpiry::of(features);
        look::look(&mut pipeline, &asked, expiry);
        let of_keys = pipeline.len();
        let counters = counters::asked(candidates.evaluated());
        let fields_expire = features.field_expiry;
        let of_counters = counters::look(&mut pipeline, &counters, expiry, fields_expire);
        scripts.look(&mut pipeline, connection, owner.way == WriteWay::Script);
        candidates.look_at_records(&mut pipeline, connection.control_key());
        // Last: who owned the Redis until here has read what nobody else could change.
        pipeline.cmd("GET").arg(connection.owner_key());
        let sent = connection.send_all(&pipeline).await;
        let mut values = sent.map_err(|error| Lost::Ownership(error.to_string()))?;
        if values.pop() != Some(Value::BulkString(owner.guard.as_str().into())) {
            return Err(Lost::Ownership("another agent owns this Redis".to_owned()));
        }
        let records = match candidates.again.is_empty() {
            true => Vec::new(),
            false => array(values.pop()),
        };
        let evaluated = values.split_off((of_keys + of_counters).min(values.len()));
        let of_counters = values.split_off(of_keys.min(values.len()));
        let counters = Counters::found(&counters, of_counters, fields_expire);
        let found = look::found(plain, &asked, values, expiry, &mut owner.short_keys);
        Ok(Sight { records, found, evaluated, counters })
    }

    /// Has Redis keep what the round came to, and gives its answers.
    async fn keep(
        &mut self,
        mut round: Round,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Result<(), Lost> {
        self.owner.keep_count(&mut round);
        if !round.exec.is_empty() && !round.exec.only_fences {
            self.owner.old_locks.drop_stale(&mut round.exec);
        }
        if round.exec.is_empty() && !round.asserts {
            give(round, &[], answers);
            return Ok(());
        }
        let lost = |why: &str| Err(Lost::Ownership(why.to_owned()));
        match self.write(&round.exec).await {
            Ended::Done { results, owned } => {
                self.owner.now_known(&mut round, &results);
                self.note(&round);
                self.data.saw_ended(self.data.incarnation(), self.owner.ended());
                give(round, &results, answers);
                if owned { Ok(()) } else { lost("another agent came") }
            }
            Ended::Lost => {
                sorted.put_all_back(round.taken);
                lost("another agent came, or the data was replaced")
            }
            Ended::Refused(error) => {
                sorted.put_all_back(round.taken);
                Err(Lost::Refused(error))
            }
            Ended::Foreign(found) => {
                self.data.quarantine_foreign(&found);
                round.taken.fail(
                    &Failed::Unknown("the data is not what this agent knew".to_owned()),
                    answers,
                );
                lost("the data is not what this agent knew")
            }
            Ended::Unknown(_) if mutants::believes_the_unclear() => {
                give(round, &[], answers);
                lost("it may have run")
            }
            Ended::Unknown(error) => {
                round.taken.fail(&Failed::Unknown(error.to_string()), answers);
                Err(Lost::Ownership(error.to_string()))
            }
        }
    }

    async fn write(&self, writes: &Exec) -> Ended {
        let Self { connection, data, owner } = self;
        let bytes_max = connection.server.request_bytes_max;
        if owner.way == WriteWay::Script || writes.needs_script(bytes_max) {
            return apply(connection, data.incarnation(), owner, writes).await;
        }
        exec(connection, data.incarnation(), &owner.guard, writes).await
    }

    /// Deletes markers of a log that the owner does not need any more. The mark first: what it
    /// covers may go only because a late prepare below it is refused.
    pub(in super::super) async fn sweep_some(
        &mut self,
        (log_id, heard): (LogId, Heard),
        fields: &[Vec<u8>],
    ) -> Result<(), Lost> {
        if !self.owner.begin_batch() {
            return Err(Lost::Ownership("a batch was cut off half-way".to_owned()));
        }
        let mut round = Round::default();
        self.owner.hear(&mut round, log_id, heard);
        round.exec.gone.extend_from_slice(fields);
        // By the script, which looks whose data it is before it writes.
        match apply(self.connection, self.data.incarnation(), self.owner, &round.exec).await {
            Ended::Done { owned: true, .. } => {
                self.owner.end_batch();
                Ok(())
            }
            Ended::Refused(why) => Err(Lost::Refused(why)),
            Ended::Foreign(found) => {
                self.data.quarantine_foreign(&found);
                Err(Lost::Ownership("the data is not what this agent knew".to_owned()))
            }
            Ended::Unknown(error) => Err(Lost::Ownership(error.to_string())),
            Ended::Done { .. } | Ended::Lost => {
                Err(Lost::Ownership("another agent came".to_owned()))
            }
        }
    }

    /// What is remembered of the answers of a round that is kept.
    fn note(&self, round: &Round) {
        for (_, answer) in &round.answers {
            match answer {
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
                    self.data.saw(vote.incarnation, vote.seq);
                }
                BranchAnswer::Prepared(Call::Applied(Prepared::Committed(Done {
                    written: Some(written),
                    ..
                }))) => self.data.saw(written.incarnation, written.seq),
                _ => {}
            }
        }
        self.data.left(&round.left);
        for (txid, seq, marker) in &round.one_phase {
            self.data.remember(self.data.incarnation(), *txid, *seq, Arc::clone(marker));
        }
    }
}

/// The items of an array.
fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn give(round: Round, results: &[Value], answers: &mut Answers) {
    for (slot, answer) in round.answers {
        answers.put(slot, answer);
    }
    for (slot, writes) in round.applied {
        let results = results.get(writes.clone()).unwrap_or_default();
        let (applied, first_error) = dirty(round.exec.writes(&writes), results);
        if applied.dirty_writes > 0 {
            if let Some(item) = round.taken.endings.iter().find(|item| item.slot == slot) {
                report_dirty(item.txid, &applied, first_error.as_deref());
            }
            answers.put(slot, BranchAnswer::Applied(Call::Applied(applied)));
        }
    }
}
