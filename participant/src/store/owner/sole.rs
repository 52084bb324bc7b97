//! A batch, as the sole owner does it: rounds, and the scripts for what only they can evaluate.

use std::sync::Arc;

use assent_common::branch::BranchAnswer;
use assent_common::ids::{Epoch, TxNumber};
use assent_common::limits;
use assent_common::outcome::{Call, Done, Failed, Prepared};
use assent_common::participant::Heard;
use redis::{Pipeline, Value};

use super::super::call::PrepareItem;
use super::super::connection::Live;
use super::super::execute::report_dirty;
use super::super::markers::Marker;
use super::super::mutants;
use super::super::sorted::Sorted;
use super::super::unlogged::remember;
use super::super::work::{Answers, Speaker};
use super::super::{Store, lock};
use super::Owner;
use super::counters::{self, Counters};
use super::evaluate;
use super::exec::Ended;
use super::look::{self, AskExpiry, Found};
use super::round::{Learnt, Round, dirty};

/// Branches of one round: Redis answers nobody else while it runs an `EXEC`.
const BRANCHES_PER_ROUND_MAX: usize = 128;

/// Bytes of the arguments of the prepares of one round.
const BYTES_PER_ROUND_MAX: usize = 1024 * 1024;

/// Below every transaction.
const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

/// Why the rest of a batch must go another way. What has no answer yet was not done.
#[derive(Debug)]
pub(in super::super) enum Lost {
    /// The ownership, or the connection.
    Ownership(String),
    /// Redis refuses the commands of an `EXEC`: the scripts know better what can still be done.
    Refused(String),
}

/// The prepares of a batch that no round takes.
#[derive(Default)]
struct Aside {
    /// Those that must be looked at after this round.
    later: Vec<PrepareItem>,
    /// Those that only the scripts can evaluate.
    scripts: Vec<PrepareItem>,
}

impl Store {
    /// Answers what is sorted, but for the prepares that are left there for the scripts.
    pub(in super::super) async fn run_rounds(
        &self,
        live: &Live,
        owner: &mut Owner,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Result<(), Lost> {
        let mut aside = Aside::default();
        loop {
            let mut round = Round::default();
            let collected = self.begin(owner, &mut round, speaker);
            let outcome = self.round(live, owner, speaker, sorted, &mut round, &mut aside).await;
            owner.keep_told(&mut round, speaker, self.told(speaker.log_id));
            let outcome = match outcome {
                Ok(()) => self.keep(live, owner, round, sorted, answers).await,
                Err(lost) => {
                    sorted.put_all_back(round.taken);
                    Err(lost)
                }
            };
            if outcome.is_err() {
                lock(&self.markers).restore(speaker.log_id, collected);
            } else if !collected.is_empty() {
                owner.sweep();
            }
            sorted.prepares.append(&mut aside.later);
            answers.leave_if_full(&mut sorted.prepares);
            answers.leave_if_full(&mut aside.scripts);
            if outcome.is_err() || sorted.is_empty() {
                sorted.prepares.append(&mut aside.scripts);
                return outcome;
            }
        }
    }

    /// What every round begins with: what the coordinator says of itself, and the markers that its
    /// mark lets go.
    fn begin(&self, owner: &mut Owner, round: &mut Round, speaker: &Speaker<'_>) -> Vec<Marker> {
        let (heard, collected) = {
            let mut markers = lock(&self.markers);
            (markers.heard(speaker.log_id), markers.collect(speaker.log_id))
        };
        let said = Heard { epoch: speaker.epoch, low_water: NO_MARK };
        // Only with something to collect: until then nothing depends on the mark. It goes with the
        // life that gave it, which may be a later one than that of the messages.
        let heard = heard.filter(|_| !collected.is_empty());
        owner.hear(round, speaker.log_id, heard.map_or(said, |heard| heard.and(said)));
        for marker in &collected {
            round.exec.delete(marker.field());
        }
        collected
    }

    /// Takes messages into a round. Outcomes first: they free locks.
    async fn round(
        &self,
        live: &Live,
        owner: &mut Owner,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        round: &mut Round,
        aside: &mut Aside,
    ) -> Result<(), Lost> {
        round.taken.endings = sorted.take_endings(BRANCHES_PER_ROUND_MAX);
        for place in 0..round.taken.endings.len() {
            let ended = owner.end(round, round.taken.endings[place]);
            // A record that this version cannot read: the scripts say so of that branch alone.
            ended.map_err(|error| Lost::Refused(error.to_string()))?;
        }
        let room = BRANCHES_PER_ROUND_MAX - round.taken.endings.len();
        let candidates = choose(owner, sorted, round, aside, room);
        if candidates.is_empty() {
            return Ok(());
        }
        let (found, counters) = match self.look(live, owner, &candidates).await {
            Ok(found) => found,
            Err(lost) => {
                round.taken.prepares.extend(candidates);
                return Err(lost);
            }
        };
        let mut replied = 0;
        for (item, found) in candidates.into_iter().zip(found) {
            if round.concerns(&item) || replied > limits::REPLY_BYTES_MAX {
                aside.later.push(item);
                continue;
            }
            let claims = counters.claimed(&item, &round.added);
            let yes = claims.and_then(|claims| {
                let ranges = owner.ranges(&claims);
                evaluate::evaluate(&item.prepare.branch, found, claims, &ranges)
            });
            let Some(yes) = yes else {
                aside.scripts.push(item);
                continue;
            };
            replied += yes.reply_bytes;
            if item.prepare.branch.bytes > look::VALUE_BYTES_MAX {
                owner.short_keys.forget_written(&item.prepare.branch);
            }
            let prepared = owner.prepare(round, &item, yes, speaker.url);
            round.taken.prepares.push(item);
            prepared.map_err(|error| Lost::Refused(error.to_string()))?;
        }
        Ok(())
    }

    /// Reads what the ops of the branches need to know, in their order.
    async fn look(
        &self,
        live: &Live,
        owner: &mut Owner,
        items: &[PrepareItem],
    ) -> Result<(Vec<Vec<Found>>, Counters), Lost> {
        let mut pipeline = Pipeline::with_capacity(2 * items.len() + 1);
        let asked = look::asked(items, &owner.short_keys);
        let features = live.server.id.features();
        let expiry = AskExpiry::of(features);
        look::look(&mut pipeline, &asked, expiry);
        let counters = counters::asked(items);
        let fields_expire = features.field_expiry;
        let of_counters = counters::look(&mut pipeline, &counters, expiry, fields_expire);
        // Last: who owned the Redis until here has read what nobody else could change.
        pipeline.cmd("GET").arg(self.owner_key());
        let count = pipeline.len();
        let sent = live.connection.clone().send_packed_commands(&pipeline, 0, count).await;
        let mut values = sent.map_err(|error| Lost::Ownership(error.to_string()))?;
        if values.pop() != Some(Value::BulkString(owner.guard.as_str().into())) {
            return Err(Lost::Ownership("another agent owns this Redis, or shares it".to_owned()));
        }
        let of_counters = values.split_off(values.len() - of_counters);
        let counters = Counters::found(&counters, of_counters, fields_expire);
        let found = look::found(items, &asked, values, expiry, &mut owner.short_keys);
        Ok((found, counters))
    }

    /// Has Redis keep what the round came to, and gives its answers.
    async fn keep(
        &self,
        live: &Live,
        owner: &Owner,
        mut round: Round,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Result<(), Lost> {
        owner.keep_locks(&mut round);
        owner.keep_count(&mut round);
        if round.exec.is_empty() && !round.asserts {
            give(round, &[], answers);
            return Ok(());
        }
        let lost = |why: &str| Err(Lost::Ownership(why.to_owned()));
        match self.exec(live, &owner.guard, &round.exec).await {
            Ended::Done { results, owned } => {
                self.note(&round);
                self.saw_ended(self.incarnation(), owner.ended());
                give(round, &results, answers);
                if owned { Ok(()) } else { lost("another agent came") }
            }
            Ended::Lost => {
                sorted.put_all_back(round.taken);
                lost("another agent came, or the data was replaced")
            }
            Ended::Refused(error) => {
                sorted.put_all_back(round.taken);
                Err(Lost::Refused(error.to_string()))
            }
            Ended::Foreign(found) => {
                self.quarantine_foreign(&found);
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

    /// What is remembered of the answers of a round that is kept.
    fn note(&self, round: &Round) {
        for (_, answer) in &round.answers {
            match answer {
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
                    self.saw(vote.incarnation, vote.seq);
                }
                BranchAnswer::Prepared(Call::Applied(Prepared::Committed(Done {
                    written: Some(written),
                    ..
                }))) => self.saw(written.incarnation, written.seq),
                _ => {}
            }
        }
        self.left(&round.left);
        for (txid, seq, marker) in &round.one_phase {
            remember(self, self.incarnation(), *txid, *seq, Arc::clone(marker));
        }
    }
}

impl Owner {
    /// Takes note of what the scripts did; an error if the memory is worth nothing any more.
    pub(in super::super) fn learn_all(
        &mut self,
        items: &[PrepareItem],
        answers: &Answers,
    ) -> Result<(), Lost> {
        for item in items {
            self.short_keys.forget_written(&item.prepare.branch);
            let learnt = match answers.of(item.slot) {
                Some(BranchAnswer::Prepared(call)) => self.learn(item, call),
                _ => Learnt::Differs,
            };
            if learnt == Learnt::Differs {
                return Err(Lost::Ownership("a script's effect is not known".to_owned()));
            }
        }
        Ok(())
    }
}

/// The prepares that a round looks at; what can be answered or put aside without a look is.
fn choose(
    owner: &Owner,
    sorted: &mut Sorted,
    round: &mut Round,
    aside: &mut Aside,
    room: usize,
) -> Vec<PrepareItem> {
    let mut chosen = Vec::new();
    let mut bytes = 0;
    for item in std::mem::take(&mut sorted.prepares) {
        let is_full = chosen.len() >= room || bytes >= BYTES_PER_ROUND_MAX;
        if is_full || round.concerns(&item) {
            aside.later.push(item);
        } else if let Some(call) = owner.refusal_if_new(&item) {
            round.answers.push((item.slot, BranchAnswer::Prepared(call)));
            round.taken.prepares.push(item);
        } else if owner.knows(item.txid) || !evaluate::is_known(&item.prepare.branch) {
            // A branch that was here before: its replies are in its record.
            aside.scripts.push(item);
        } else if let Some(call) = owner.obstacle(&item) {
            round.answers.push((item.slot, BranchAnswer::Prepared(call)));
            round.taken.prepares.push(item);
        } else {
            bytes += item.prepare.branch.bytes;
            chosen.push(item);
        }
    }
    chosen
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
