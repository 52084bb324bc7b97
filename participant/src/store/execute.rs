//! A batch of messages to Redis and back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::{Aborted, Applied, Call, Failed, Prepared, Refusal, Settled};
use assent_common::participant::Heard;
use assent_common::value::Arg;
use assent_common::wire::branch::CoordinatorRef;
use futures_util::future::join_all;
use redis::{Cmd, RedisError, RedisResult, Value};

use super::call::{self, Head, PrepareItem};
use super::connection::Live;
use super::decode::{self, CallError, Rows};
use super::markers::Marker;
use super::owner::{Lost, Turn, WriteWay};
use super::refusals::refusal;
use super::sorted::Sorted;
use super::unlogged::{OnePhaseUnderWay, remember};
use super::work::{Answers, EndingItem, Speaker, Work};
use super::{CheckedPrepare, Store, lock};

/// Branches whose keys are remembered between prepare and outcome; the keys of others are asked
/// for.
const KEYS_REMEMBERED_MAX: usize = 100_000;

/// How often a batch follows an ownership that changes hands.
const TURNS_MAX: usize = 4;

/// Whose turn it was to do a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This agent's.
    Own,
    /// Another agent owns the Redis: what has no answer was not done.
    Others,
}

impl Store {
    /// Runs a batch of messages: outcomes first, so that locks are freed for the prepares. The
    /// answers are in the order of the messages.
    ///
    /// A prepare is refused with `redis_unavailable` where it surely was not sent; a commit or an
    /// abort is then unknown. What another agent is to do, which owns the Redis, is refused with
    /// `not_owner`.
    pub async fn execute(
        &self,
        coordinator: &CoordinatorRef,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
    ) -> Vec<BranchAnswer> {
        let heard = Heard { epoch: coordinator.epoch, low_water };
        let raised = self.raise(coordinator.log_id, heard);
        let speaker =
            Speaker { log_id: coordinator.log_id, epoch: coordinator.epoch, url: &coordinator.url };
        self.run(&speaker, raised, messages).await
    }

    async fn run(
        &self,
        speaker: &Speaker<'_>,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
    ) -> Vec<BranchAnswer> {
        let mut answers = Answers::to(messages.iter().map(|(_, message)| message.kind()));
        let mut sorted = self.sort(speaker, low_water, messages, &mut answers);
        for _ in 0..TURNS_MAX {
            if sorted.is_empty() {
                break;
            }
            match self.verified().await {
                Ok(live) => {
                    let open = answers.open();
                    sorted.weigh(&live);
                    self.weigh_replicas(&live, &mut sorted).await;
                    let one_phase = OnePhaseUnderWay::begins(self, &live, &sorted);
                    let whose = self.run_on(&live, speaker, &mut sorted, &mut answers).await;
                    if whose == Whose::Others {
                        sorted.answer_elsewhere(&mut answers);
                    }
                    one_phase.ends(&answers);
                    self.certify(&live, &open, &mut answers).await;
                    if let Some(said) = answers.demoted() {
                        // The master is elsewhere by now: its name is looked up anew.
                        self.disconnect(&live, said);
                    }
                }
                Err(error) => sorted.answer_unsent(&error.refusal(), &mut answers),
            }
        }
        let changes = "which agent owns this Redis changes all the time";
        let refusal = Refusal::new(ErrorCode::RedisUnavailable, changes);
        sorted.answer_unsent(&refusal, &mut answers);
        answers.finish()
    }

    /// Does what is sorted, if this agent has the turn. What is left there was not done.
    async fn run_on(
        &self,
        live: &Arc<Live>,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Whose {
        match &*live.turn.read().await {
            Turn::Scripts { owner } => {
                self.run_scripts(live, owner.as_str(), speaker, sorted, answers).await;
                return Whose::Own;
            }
            Turn::Standby(_) => return Whose::Others,
            Turn::Sole(_) => {}
        }
        let mut turn = live.turn.write().await;
        let owner = match &mut *turn {
            Turn::Sole(owner) => owner,
            Turn::Scripts { owner } => {
                self.run_scripts(live, owner.as_str(), speaker, sorted, answers).await;
                return Whose::Own;
            }
            Turn::Standby(_) => return Whose::Others,
        };
        if !owner.begin_batch() {
            self.disconnect(live, "a batch was cut off half-way");
            return Whose::Own;
        }
        match self.run_rounds(live, owner, speaker, sorted, answers).await {
            Ok(()) => owner.end_batch(),
            Err(Lost::Ownership(why)) => self.disconnect(live, &why),
            Err(Lost::Refused(why)) if owner.way() == WriteWay::Exec => {
                tracing::warn!(why, "Redis refuses the owner's commands; it goes on by scripts");
                if let Err(error) = self.go_by_script(live, owner).await {
                    self.disconnect(live, &error.to_string());
                }
            }
            // What was asked a moment ago has changed.
            Err(Lost::Refused(why)) => self.disconnect(live, &why),
        }
        Whose::Own
    }

    /// Sorts the messages by kind, and answers those prepares that need no Redis to be refused.
    fn sort(
        &self,
        speaker: &Speaker<'_>,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
        answers: &mut Answers,
    ) -> Sorted {
        let quarantined = self.is_quarantined();
        let mut sorted = Sorted::default();
        for (slot, (txid, message)) in messages.into_iter().enumerate() {
            let ending = match message {
                BranchMessage::Commit => Ending::Commit,
                BranchMessage::Abort => Ending::Abort,
                BranchMessage::Settle => Ending::Settle,
                BranchMessage::Prepare(prepare) => {
                    match refusal(quarantined.as_deref(), speaker, low_water, txid) {
                        Some(refusal) => {
                            answers.put(slot, BranchAnswer::Prepared(Call::Refused(refusal)));
                        }
                        None => sorted.prepares.push(PrepareItem {
                            slot,
                            txid,
                            prepare,
                            by_script: false,
                        }),
                    }
                    continue;
                }
            };
            sorted.endings.push(EndingItem { slot, txid, ending });
        }
        sorted
    }

    /// Has the scripts do what is sorted. What a call puts off goes into the next ones, which each
    /// do at least one branch.
    async fn run_scripts(
        &self,
        live: &Arc<Live>,
        owner: &str,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) {
        self.refuse_new(live, sorted, answers).await;
        loop {
            let put_off = self.run_calls(live, owner, speaker, sorted, answers).await;
            let is_done = put_off.is_empty() || !sorted.is_empty();
            sorted.prepares.extend(put_off);
            answers.leave_if_full(&mut sorted.prepares);
            if is_done {
                return;
            }
        }
    }

    /// Sends what is sorted, in calls of bounded work. Returns the prepares that were put off; what
    /// must go another way is sorted again.
    async fn run_calls(
        &self,
        live: &Arc<Live>,
        owner: &str,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Vec<PrepareItem> {
        let work = sorted.take_work();
        let mut put_off = std::mem::take(&mut sorted.prepares);
        let ready = self.ready(live, &work).await;
        if let Err(error) = ready {
            let failed = self.failed(live, &error);
            work.iter().for_each(|work| work.fail(&failed, answers));
            return put_off;
        }
        // A vote is of the data that it was sent to, whatever data this agent goes on with
        // meanwhile.
        let incarnation = self.incarnation();
        let mut collected = lock(&self.markers).collect(speaker.log_id);
        let carried = collected.clone();
        let mut commands = Vec::with_capacity(work.len());
        for work in &work {
            let collected = std::mem::take(&mut collected);
            commands.push(self.command(speaker, owner, incarnation, work, collected));
        }
        // All are polled once, in order, before any is awaited: they leave back to back.
        let results = join_all(commands.iter().map(|command| send(live, command))).await;
        let mut collecting = !carried.is_empty();
        for ((work, command), mut result) in work.into_iter().zip(&commands).zip(results) {
            let missing = result.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT"));
            if missing {
                // Safe: what is not there did not run.
                result = match self.load(live, work.script()).await {
                    Ok(()) => send(live, command).await,
                    Err(error) => Err(error),
                };
            }
            if work.len() > 1 && result.as_ref().is_err_and(|error| error.code() == Some("NOPERM"))
            {
                // Nothing ran. The keys of one branch are no reason to refuse the others.
                if std::mem::take(&mut collecting) {
                    lock(&self.markers).restore(speaker.log_id, carried.clone());
                }
                let more = self.one_by_one(live, owner, speaker, work, sorted, answers).await;
                put_off.extend(more);
                continue;
            }
            let rows = result.map(decode::rows);
            let is_done = matches!(rows, Ok(Rows::Each(_)));
            if std::mem::take(&mut collecting) && !is_done {
                lock(&self.markers).restore(speaker.log_id, carried.clone());
            }
            put_off.extend(self.take(live, incarnation, work, rows, sorted, answers).await);
        }
        put_off
    }

    /// Calls the script once for each branch. Returns the prepares that were put off.
    async fn one_by_one(
        &self,
        live: &Arc<Live>,
        owner: &str,
        speaker: &Speaker<'_>,
        work: Work,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Vec<PrepareItem> {
        let mut put_off = Vec::new();
        let incarnation = self.incarnation();
        for work in work.each() {
            if let Err(error) = self.ready(live, std::slice::from_ref(&work)).await {
                work.fail(&self.failed(live, &error), answers);
                continue;
            }
            let command = self.command(speaker, owner, incarnation, &work, Vec::new());
            let rows = send(live, &command).await.map(decode::rows);
            put_off.extend(self.take(live, incarnation, work, rows, sorted, answers).await);
        }
        put_off
    }

    /// Takes what came of a call. Returns the prepares that were put off.
    async fn take(
        &self,
        live: &Arc<Live>,
        incarnation: u64,
        work: Work,
        rows: RedisResult<Rows>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Vec<PrepareItem> {
        match rows {
            Ok(Rows::OtherOwner(found)) => {
                sorted.put_back(work);
                let found = found.connection();
                self.disconnect(live, &format!("the owner of this Redis is now {found:?}"));
            }
            Ok(rows) => return self.take_answers(incarnation, work, rows, answers),
            Err(error) => {
                let failed = self.failed(live, &error);
                let failed = match error.code() {
                    Some("NOPERM") => self.with_keys(live, &work, failed).await,
                    _ => failed,
                };
                work.fail(&failed, answers);
            }
        }
        Vec::new()
    }

    /// Sees to it that the digests are known, and the keys of the branches that have an outcome.
    async fn ready(&self, live: &Live, work: &[Work]) -> RedisResult<()> {
        for work in work {
            if self.scripts.digest(work.script()).is_none() {
                self.load(live, work.script()).await?;
            }
        }
        let unknown: Vec<Txid> = {
            let keys = lock(&self.keys);
            work.iter()
                .filter_map(|work| match work {
                    Work::Endings(ending, items) if *ending != Ending::Settle => Some(items),
                    // They free no lock.
                    Work::Endings(..) | Work::Prepares(_) => None,
                })
                .flatten()
                .map(|item| item.txid)
                .filter(|txid| !keys.contains_key(txid))
                .collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        for (txid, keys) in self.staged_keys(live, &unknown).await? {
            self.remember_keys(txid, keys);
        }
        Ok(())
    }

    fn remember_keys(&self, txid: Txid, keys: Vec<Arg>) {
        let mut remembered = lock(&self.keys);
        if remembered.len() >= KEYS_REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(txid, keys);
    }

    fn command(
        &self,
        speaker: &Speaker<'_>,
        owner: &str,
        incarnation: u64,
        work: &Work,
        collected: Vec<Marker>,
    ) -> Cmd {
        // The mark goes with the life that gave it, which may be a later one than that of the
        // messages.
        let heard =
            (!collected.is_empty()).then(|| lock(&self.markers).heard(speaker.log_id)).flatten();
        let head = Head {
            control_key: &self.options.control_key,
            owner_key: self.owner_key(),
            incarnation,
            owner,
            log_id: speaker.log_id,
            epoch: heard.map_or(speaker.epoch, |heard| heard.epoch.max(speaker.epoch)),
            low_water: heard.map(|heard| heard.low_water),
            told: self.told(speaker.log_id).filter(|_| work.may_end()),
            collected,
        };
        let digest = self.scripts.digest(work.script()).unwrap_or_default();
        let (ending, items) = match work {
            Work::Prepares(items) => {
                let most = self.options.shadow_bytes_max;
                return call::prepare(&digest, &head, speaker.url, items, most);
            }
            Work::Endings(ending, items) => (*ending, items),
        };
        let txids = items.iter().map(|item| item.txid);
        let remembered = lock(&self.keys);
        // A settle frees no lock.
        let freed = txids.clone().filter(|_| ending != Ending::Settle);
        let keys: Vec<&Arg> = freed.filter_map(|txid| remembered.get(&txid)).flatten().collect();
        call::outcome(&digest, &head, &keys, txids)
    }

    /// What the failure of a call means for its messages.
    pub(super) fn failed(&self, live: &Arc<Live>, error: &RedisError) -> Failed {
        match decode::classify(error) {
            CallError::Refused(refusal) => Failed::Refused(refusal),
            CallError::NoScript => Failed::Unknown("the script could not be loaded".to_owned()),
            CallError::Unknown(why) => {
                tracing::error!(why, "a script failed");
                Failed::Unknown(why)
            }
            CallError::Broken(why) => {
                self.disconnect(live, &why);
                Failed::Unknown(why)
            }
        }
    }

    /// Data of another incarnation was met (invariant 12).
    pub(super) fn quarantine_foreign(&self, found: &str) -> Refusal {
        let reason = format!(
            "the data has incarnation {found:?}, this agent started with {}: Redis was flushed, restored or replaced",
            self.incarnation()
        );
        self.quarantine(reason.clone());
        Refusal::new(ErrorCode::Quarantined, reason)
    }

    /// Takes the answers of a call. Returns the prepares that it put off.
    fn take_answers(
        &self,
        incarnation: u64,
        work: Work,
        rows: Rows,
        answers: &mut Answers,
    ) -> Vec<PrepareItem> {
        let mut put_off = Vec::new();
        let rows = match rows {
            Rows::Each(rows) => rows,
            Rows::OtherIncarnation(found) => {
                let refusal = self.quarantine_foreign(&found);
                work.fail(&Failed::Refused(refusal), answers);
                return put_off;
            }
            Rows::OtherOwner(_) | Rows::Unreadable => Vec::new(),
        };
        let mut rows = rows.into_iter();
        let mut next = || rows.next().unwrap_or(Value::Nil);
        match work {
            Work::Endings(_, items) => {
                for item in items {
                    answers.put(item.slot, self.answer(incarnation, item, next()));
                }
            }
            Work::Prepares(items) => {
                for item in items {
                    let (slot, row) = (item.slot, next());
                    if decode::is_put_off(&row) {
                        put_off.push(item);
                        continue;
                    }
                    let call = self.prepared(incarnation, item, row);
                    answers.put(slot, BranchAnswer::Prepared(call));
                }
            }
        }
        // A settle ends nothing, and has no such row.
        self.heard_ended(incarnation, &next());
        put_off
    }

    fn answer(&self, incarnation: u64, item: EndingItem, row: Value) -> BranchAnswer {
        let EndingItem { txid, ending, .. } = item;
        match ending {
            Ending::Commit => BranchAnswer::Applied(self.applied(txid, row)),
            Ending::Abort => BranchAnswer::Aborted(self.aborted(incarnation, txid, row)),
            Ending::Settle => BranchAnswer::Settled(self.settled(txid, row)),
        }
    }

    fn prepared(&self, incarnation: u64, item: PrepareItem, row: Value) -> Call<Prepared> {
        let marker = decode::done_marker_in(&row).filter(|_| item.leaves_marker());
        let marker: Option<Arc<[u8]>> = marker.map(Arc::from);
        let call = decode::prepared(row, &item, incarnation);
        match &call {
            Call::Applied(Prepared::Yes(vote)) => {
                self.saw(incarnation, vote.seq);
                let keys = item.prepare.branch.locks.into_iter().map(|lock| lock.key).collect();
                self.remember_keys(item.txid, keys);
            }
            Call::Applied(Prepared::Committed(done)) => {
                if let (Some(written), Some(marker)) = (&done.written, marker) {
                    self.saw(incarnation, written.seq);
                    self.left(&[Marker::OnePhase(item.txid, marker.len())]);
                    remember(self, incarnation, item.txid, written.seq, marker);
                }
            }
            Call::Applied(Prepared::Wait(_)) | Call::Refused(_) | Call::Unknown(_) => {}
        }
        call
    }

    /// Takes note of markers that were left.
    pub(super) fn left(&self, left: &[Marker]) {
        for marker in left {
            if let Marker::Fence(txid) = marker {
                lock(&self.unlogged).forget(*txid);
            }
        }
        let mut markers = lock(&self.markers);
        for marker in left {
            markers.left(*marker);
        }
    }

    fn applied(&self, txid: Txid, row: Value) -> Call<Applied> {
        let marker = match decode::is_implicit(&row) {
            true => Marker::DoneImplicit(txid),
            false => Marker::Done(txid),
        };
        let (call, first_error) = decode::applied(row);
        if let Call::Applied(applied) = &call {
            lock(&self.keys).remove(&txid);
            self.left(&[marker]);
            if applied.dirty_writes > 0 {
                report_dirty(txid, applied, first_error.as_deref());
            }
        }
        call
    }

    /// Takes note of the count of ended branches that a script says.
    fn heard_ended(&self, incarnation: u64, said: &Value) {
        if let Value::BulkString(count) = said
            && let Some(count) = std::str::from_utf8(count).ok().and_then(|it| it.parse().ok())
        {
            self.saw_ended(incarnation, count);
        }
    }

    /// Takes note of a vote that was given.
    pub(super) fn saw(&self, incarnation: u64, seq: u64) {
        // A number of data that is no more says nothing of the data that is.
        if incarnation == self.incarnation() {
            self.seq_seen.fetch_max(seq, Ordering::AcqRel);
        }
    }

    fn aborted(&self, incarnation: u64, txid: Txid, row: Value) -> Call<Aborted> {
        let call = decode::aborted(row, incarnation);
        if matches!(call, Call::Applied(Aborted::Fenced)) {
            lock(&self.keys).remove(&txid);
            self.left(&[Marker::Fence(txid)]);
        }
        call
    }

    fn settled(&self, txid: Txid, row: Value) -> Call<Settled> {
        let call = decode::settled(row);
        if call == Call::Applied(Settled::Fenced) {
            self.left(&[Marker::Fence(txid)]);
        }
        call
    }
}

/// The decision stands, whatever somebody did to the data meanwhile.
pub(super) fn report_dirty(txid: Txid, applied: &Applied, first_error: Option<&str>) {
    tracing::error!(
        %txid,
        dirty_writes = applied.dirty_writes,
        first_error,
        "writes met data that was changed past the agent; the others are applied"
    );
}

/// Sends one command. An error that came as a reply is an error here.
pub(super) async fn send(live: &Live, command: &Cmd) -> RedisResult<Value> {
    live.connection.clone().send_packed_command(command).await.and_then(Value::extract_error)
}
