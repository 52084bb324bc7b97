//! Passes on to the agent that owns the Redis what this agent is told while it stands by.
//!
//! ```text
//! coordinator ──► standby ── the same body, and a proof ──► owner ──► Redis
//!                    │  not taken: nobody is there, or not the owner
//!                    └──► who owns the Redis now? another ──► once more;  this agent ──► done here
//! ```
//!
//! One hop: what was passed on is never passed on again. What may have reached the owner, and was
//! not answered, is *not known*. What an agent cannot do because it does not own the Redis any more
//! is refused with `not_owner`; no coordinator is told that.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_client::pass_on::PassedOn;
use assent_client::{ParticipantClient, mutant};
use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::mutant::Mutant;
use assent_common::outcome::{Applied, Call, Refusal};
use assent_common::wire::branch::{Answer, Answers, CoordinatorRef, LifeAnswer};
use assent_common::{ErrorCode, Txid, limits};
use bytes::Bytes;

use crate::agent::{NO_MARK, definite};
use crate::service::Shared;
use crate::store::{Link, OtherOwner};
use crate::wire::{Batch, Message, PrepareMessage};

/// How often a message follows an ownership that changes hands.
const OWNERS_MAX: usize = 4;

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBy {
    /// A coordinator, or whoever speaks as one.
    Coordinator,
    /// Another agent of the Redis, with the proof that it is one.
    Agent(PassedOnAs),
}

/// What an agent passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOnAs {
    /// What it was told.
    Told,
    /// Ends of branches that it found out by itself: a coordinator was asked, or an operator
    /// decides.
    Ends,
}

impl PassedOnAs {
    const ALL: [Self; 2] = [Self::Told, Self::Ends];

    const fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Ends => "ends",
        }
    }
}

impl Shared {
    /// The agent that owns the Redis, if that is another one. Nobody owns a database.
    async fn other_owner(&self) -> Option<Arc<OtherOwner>> {
        self.store.link()?.other_owner().await
    }

    /// What the header says, if it shows that it comes from an agent of this Redis to its owner.
    pub(crate) fn passed_on_as(&self, header: &[u8]) -> Option<PassedOnAs> {
        let guard = self.store.link()?.guard()?;
        let is_it = |said: &PassedOnAs| {
            same(header, guard.proof(self.token.as_ref(), said.word()).as_bytes())
        };
        PassedOnAs::ALL.into_iter().find(is_it)
    }

    /// Answers a batch, if its coordinator may say what it says. `body` is the batch as it came.
    pub(crate) async fn batch(
        &self,
        batch: Batch,
        sent_by: SentBy,
        body: Bytes,
    ) -> Result<Answers, Refusal> {
        match sent_by {
            SentBy::Agent(PassedOnAs::Told) => return self.batch_here(batch).await,
            SentBy::Agent(PassedOnAs::Ends) => return self.ends_here(batch).await,
            SentBy::Coordinator => {}
        }
        let mut answers = self.batch_anywhere(batch, body.clone()).await?;
        for _ in 1..OWNERS_MAX {
            let open = not_done(&answers.answers);
            if open.is_empty() {
                return Ok(answers);
            }
            let (rest, rest_body) = part(&body, &open)?;
            let more = match self.batch_anywhere(rest, rest_body).await {
                Ok(more) => more,
                Err(refusal) if open.len() == answers.answers.len() => return Err(refusal),
                Err(_) => break,
            };
            answers = merged(answers, &open, more);
        }
        answers.answers.iter_mut().for_each(close);
        Ok(answers)
    }

    /// Has the owner answer a batch, whoever that is. What it does not take is refused with
    /// `not_owner`.
    async fn batch_anywhere(&self, batch: Batch, body: Bytes) -> Result<Answers, Refusal> {
        let Some(owner) = self.other_owner().await else {
            return self.batch_here(batch).await;
        };
        match self.pass_on(&owner, PassedOnAs::Told, body, batch.messages.len()).await {
            PassedOn::Answered(answers) => Ok(believed(answers)),
            PassedOn::Refused(problem) => Err(Refusal::new(problem.code, problem.detail)),
            PassedOn::NotReached(_) | PassedOn::NotOwner(_) => {
                Ok(nobodys(&batch, |kind| kind.refused(not_owner())))
            }
            PassedOn::Unknown(why) => Ok(nobodys(&batch, |kind| kind.unknown(&*why))),
        }
    }

    /// Passes on one batch.
    async fn pass_on(
        &self,
        owner: &Arc<OtherOwner>,
        said: PassedOnAs,
        body: Bytes,
        messages: usize,
    ) -> PassedOn<Answers> {
        let passed = self.passed_on(owner, async {
            match ParticipantClient::new(&self.agents, owner.url()) {
                Ok(client) => {
                    let proof = owner.proof(self.token.as_ref(), said.word());
                    client.pass_on_batch(&proof, body, messages).await
                }
                Err(error) => PassedOn::NotReached(error.to_string()),
            }
        });
        let passed = passed.await;
        if let PassedOn::Answered(Answers { progress: Some(progress), .. }) = &passed
            && let Some(link) = self.store.link()
        {
            link.follow(*progress).await;
        }
        passed
    }

    /// Waits for what becomes of what is passed on, no longer than the owner is the owner.
    async fn passed_on<T: OfOwner>(
        &self,
        owner: &Arc<OtherOwner>,
        passed: impl Future<Output = PassedOn<T>>,
    ) -> PassedOn<T> {
        let Some(link) = self.store.link() else { return passed.await };
        let passed = tokio::select! {
            biased;
            passed = passed => passed,
            () = link.owner_changes(owner) => {
                let why = "the Redis has another owner by now than the one that was told";
                return PassedOn::Unknown(why.to_owned());
            }
        };
        match &passed {
            PassedOn::Answered(answers) if answers.some_not_done() => {
                link.not_heard(owner, "it does not own the Redis any more").await;
            }
            PassedOn::Answered(_) | PassedOn::Refused(_) => link.owner_is_heard(),
            PassedOn::NotReached(why) => link.cannot_reach(owner, why).await,
            PassedOn::NotOwner(why) | PassedOn::Unknown(why) => {
                link.not_heard(owner, why).await;
            }
        }
        self.metrics.passed_on(result(&passed));
        if let Some(said) = self.peer_said(owner, &passed) {
            self.reach.passed_on(owner.url(), said);
        }
        passed
    }

    /// What it says of the owner that this came of what was passed on to it; nothing if that agent
    /// is none any more.
    fn peer_said<T: OfOwner>(
        &self,
        owner: &Arc<OtherOwner>,
        passed: &PassedOn<T>,
    ) -> Option<Result<(), String>> {
        let is_owner = || {
            let now = self.store.link().and_then(Link::stands_by_for);
            now.is_some_and(|now| now.url() == owner.url())
        };
        match passed {
            PassedOn::Answered(answers) => (!answers.some_not_done()).then_some(Ok(())),
            PassedOn::Refused(_) => Some(Ok(())),
            PassedOn::NotReached(why) | PassedOn::Unknown(why) => Some(Err(why.clone())),
            // It may have been succeeded a moment ago, unless it says so twice.
            PassedOn::NotOwner(why) => is_owner().then(|| {
                Err(format!("{why}; all agents of one Redis need the same token (--token-file)"))
            }),
        }
    }

    /// Answers a prepare that may wait. `batch` is the rest of what came, `body` all of it.
    pub(crate) async fn prepare_waiting(
        &self,
        batch: Batch,
        prepare: PrepareMessage,
        sent_by: SentBy,
        body: Bytes,
    ) -> Result<Answer, Refusal> {
        if sent_by != SentBy::Coordinator {
            return self.prepare_here(batch, prepare).await;
        }
        let wait_ms = prepare.wait_ms.min(limits::WAIT_MAX_MS);
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let mut told = (batch, prepare, body.clone());
        for _ in 0..OWNERS_MAX {
            let (batch, prepare, said) = told;
            let answered = match self.other_owner().await {
                None => self.prepare_here(batch, prepare).await?,
                Some(owner) => match self.pass_on_prepare(&owner, &prepare, said).await {
                    PassedOn::Answered(answer) => answer,
                    PassedOn::Refused(problem) => {
                        return Err(Refusal::new(problem.code, problem.detail));
                    }
                    PassedOn::Unknown(why) => {
                        return Ok(BranchAnswer::Prepared(Call::Unknown(why)).into());
                    }
                    PassedOn::NotReached(_) | PassedOn::NotOwner(_) => {
                        BranchAnswer::Prepared(Call::Refused(not_owner())).into()
                    }
                },
            };
            if !answered.some_not_done() {
                return Ok(answered);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            told = waiting_for(&body, left)?;
        }
        let mut answer = BranchAnswer::Prepared(Call::Refused(not_owner())).into();
        close(&mut answer);
        Ok(answer)
    }

    async fn pass_on_prepare(
        &self,
        owner: &Arc<OtherOwner>,
        prepare: &PrepareMessage,
        body: Bytes,
    ) -> PassedOn<Answer> {
        let passed = self.passed_on(owner, async {
            match ParticipantClient::new(&self.agents, owner.url()) {
                Ok(client) => {
                    let proof = owner.proof(self.token.as_ref(), PassedOnAs::Told.word());
                    let wait_ms = prepare.wait_ms.min(limits::WAIT_MAX_MS);
                    client.pass_on_prepare(&proof, body, prepare.txid, wait_ms).await
                }
                Err(error) => PassedOn::NotReached(error.to_string()),
            }
        });
        passed.await
    }

    /// Applies or drops branches of one life of a coordinator on somebody else's word than its
    /// messages: the resolver's, after the coordinator answered, or an operator's. What came of
    /// each, in their order.
    pub(crate) async fn finish(
        &self,
        coordinator: CoordinatorRef,
        endings: &[(Txid, Ending)],
    ) -> Vec<Result<(), Refusal>> {
        let refused = |(_, ending): &(Txid, Ending)| ending.refused(not_owner());
        let mut answers: Vec<BranchAnswer> = endings.iter().map(refused).collect();
        for _ in 0..OWNERS_MAX {
            let is_open = |answer: &BranchAnswer| {
                answer.refused().is_some_and(|no| no.code == ErrorCode::NotOwner)
            };
            let open: Vec<usize> =
                (0..answers.len()).filter(|place| is_open(&answers[*place])).collect();
            if open.is_empty() {
                break;
            }
            let some: Vec<(Txid, Ending)> = open.iter().map(|place| endings[*place]).collect();
            let Some(more) = self.end_anywhere(&coordinator, &some).await else { continue };
            for (place, answer) in open.into_iter().zip(more) {
                answers[place] = answer;
            }
        }
        let told = |answer: &BranchAnswer| match definite(answer) {
            // Between agents only.
            Err(Refusal { code: ErrorCode::NotOwner, detail, .. }) => {
                Err(Refusal::new(ErrorCode::RedisUnavailable, detail))
            }
            told => told,
        };
        answers.iter().map(told).collect()
    }

    /// Has the owner end branches, whoever that is; nothing if it took nothing.
    async fn end_anywhere(
        &self,
        coordinator: &CoordinatorRef,
        endings: &[(Txid, Ending)],
    ) -> Option<Vec<BranchAnswer>> {
        let Some(owner) = self.other_owner().await else {
            return Some(self.agent.end(coordinator.clone(), endings).await);
        };
        let message = |(txid, ending): &(Txid, Ending)| -> Message {
            Message::new(*txid, ending.map(|never| match never {}))
        };
        let batch = Batch {
            participant: self.name.clone(),
            coordinator: coordinator.clone(),
            low_water: NO_MARK,
            known: None,
            progress: None,
            messages: endings.iter().map(message).collect(),
        };
        let all = |answer: &dyn Fn(&Ending) -> BranchAnswer| {
            Some(endings.iter().map(|(_, ending)| answer(ending)).collect())
        };
        let Ok(body) = serde_json::to_vec(&batch) else { return None };
        match self.pass_on(&owner, PassedOnAs::Ends, body.into(), endings.len()).await {
            PassedOn::Answered(Answers { answers, .. }) => {
                let answers = endings.iter().zip(answers);
                Some(answers.map(|((_, ending), answer)| answer.answering(ending)).collect())
            }
            PassedOn::Refused(problem) => {
                let refusal = Refusal::new(problem.code, problem.detail);
                all(&|ending| ending.refused(refusal.clone()))
            }
            PassedOn::Unknown(why) => all(&|ending| ending.unknown(why.clone())),
            PassedOn::NotReached(_) | PassedOn::NotOwner(_) => None,
        }
    }

    /// Ends branches on the word of another agent of this Redis.
    async fn ends_here(&self, batch: Batch) -> Result<Answers, Refusal> {
        let answers = self.agent.ends(batch).await?;
        Ok(Answers {
            progress: self.store.progress(),
            ..of_nobody(answers.into_iter().map(Answer::from).collect())
        })
    }
}

/// An answer of an owner.
trait OfOwner {
    /// Whether the owner was none any more, for some of it.
    fn some_not_done(&self) -> bool;
}

impl OfOwner for Answers {
    fn some_not_done(&self) -> bool {
        self.answers.iter().any(OfOwner::some_not_done)
    }
}

impl OfOwner for Answer {
    fn some_not_done(&self) -> bool {
        self.code == Some(ErrorCode::NotOwner)
    }
}

fn not_owner() -> Refusal {
    Refusal::new(ErrorCode::NotOwner, "which agent owns this Redis changes all the time")
}

/// What an owner says, as it says it; but for a mutant, which tests the tests.
fn believed(mut answers: Answers) -> Answers {
    let is_end = |answer: &&mut Answer| answer.some_not_done() && answer.vote.is_none();
    if mutant::is(Mutant::NotOwnerIsDone) {
        for answer in answers.answers.iter_mut().filter(is_end) {
            *answer = BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 })).into();
        }
    }
    answers
}

/// The places of the answers that say that nothing was done.
fn not_done(answers: &[Answer]) -> Vec<usize> {
    let is_it = |place: &usize| answers[*place].some_not_done();
    (0..answers.len()).filter(is_it).collect()
}

/// What a coordinator is told instead: of a prepare that nothing was done; an outcome may have been
/// carried out when it came before.
fn close(answer: &mut Answer) {
    if !answer.some_not_done() {
        return;
    }
    let Refusal { detail, .. } = not_owner();
    *answer = match answer.vote {
        Some(_) => {
            let refusal = Refusal::new(ErrorCode::RedisUnavailable, detail);
            BranchAnswer::Prepared(Call::Refused(refusal)).into()
        }
        None => BranchAnswer::Applied(Call::Unknown(detail)).into(),
    };
}

/// The messages of a batch at these places, as a batch.
fn part(body: &[u8], places: &[usize]) -> Result<(Batch, Bytes), Refusal> {
    let mut batch: Batch = parsed(body)?;
    let mut messages: Vec<Option<Message>> = batch.messages.drain(..).map(Some).collect();
    batch.messages = places.iter().filter_map(|place| messages[*place].take()).collect();
    let body = written(&batch)?;
    Ok((batch, body))
}

/// The one prepare of a body, which may wait for so long.
fn waiting_for(body: &[u8], left: Duration) -> Result<(Batch, PrepareMessage, Bytes), Refusal> {
    let mut batch: Batch = parsed(body)?;
    for message in &mut batch.messages {
        if let Message::Prepare(prepare) = message {
            prepare.wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        }
    }
    let body = written(&batch)?;
    match batch.messages.pop() {
        Some(Message::Prepare(prepare)) => Ok((batch, prepare, body)),
        _ => Err(Refusal::new(ErrorCode::Internal, "the body is no prepare any more")),
    }
}

fn parsed(body: &[u8]) -> Result<Batch, Refusal> {
    // It was parsed when it came.
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(ErrorCode::Internal, format!("the batch: {error}")))
}

fn written(batch: &Batch) -> Result<Bytes, Refusal> {
    let written = serde_json::to_vec(batch);
    let written = written
        .map_err(|error| Refusal::new(ErrorCode::Internal, format!("the batch: {error}")))?;
    Ok(written.into())
}

/// The answers with those to the messages that were open.
fn merged(before: Answers, open: &[usize], more: Answers) -> Answers {
    let Answers { mut answers, progress, .. } = before;
    for (place, answer) in open.iter().zip(more.answers) {
        answers[*place] = answer;
    }
    Answers { answers, progress: more.progress.or(progress), ..more }
}

/// Answers that no agent gave.
fn nobodys(batch: &Batch, answer: impl Fn(BranchMessage<()>) -> BranchAnswer) -> Answers {
    of_nobody(batch.messages.iter().map(|message| answer(message.kind()).into()).collect())
}

/// Answers of nobody who has looked at who speaks, and at the data.
fn of_nobody(answers: Vec<Answer>) -> Answers {
    let life = Some(LifeAnswer::NotCompared);
    Answers { answers, progress: None, stale_log: None, stale_log_shown: None, life }
}

/// What came of it, for the metrics.
fn result<T>(passed: &PassedOn<T>) -> &'static str {
    match passed {
        PassedOn::Answered(_) => "answered",
        PassedOn::Refused(_) => "refused",
        PassedOn::NotReached(_) => "not_reached",
        PassedOn::NotOwner(_) => "not_owner",
        PassedOn::Unknown(_) => "unknown",
    }
}

/// Compares in a time that depends on the lengths only.
fn same(sent: &[u8], expected: &[u8]) -> bool {
    let difference = sent
        .iter()
        .zip(expected)
        .fold(0, |difference, (one, other)| difference | std::hint::black_box(one ^ other));
    sent.len() == expected.len() && difference == 0
}
