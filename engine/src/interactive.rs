//! Interactive transactions: what their clients have read and staged so far. Nothing of it is at a
//! participant, and nothing is locked: a commit is a transaction like any other, with what was read
//! as expectations in front.
//!
//! ```text
//! begin ─► open ── call: what is to be evaluated ─► (the shell asks) ─► called: staged, or refused
//!            │ ◄──────────────────────────────────────────────────────────┘
//!            └── commit: the transaction to run ─► closed        abort, time ─► ended
//! ```
//!
//! It is in memory only. What it holds has bounds, each in `limits`.

mod counts;
mod problems;

use std::collections::{HashMap, VecDeque};

use assent_common::command::{Access, Expect, OpRequest, ValidatedBranch, find};
use assent_common::mutant::Mutant;
use assent_common::time::{DurationMs, Millis};
use assent_common::value::Arg;
use assent_common::wire::interactive::{BeginRequest, InteractiveOp, OpsRequest};
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{BranchRequest, Protocol, TransactionRequest};
use assent_common::{ErrorCode, ParticipantName, TransactionId, limits};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

pub use self::counts::InteractiveCounts;
use self::problems::{check_room, internal, problem_of, unknown};
use crate::variant::Variant;

/// All interactive transactions of a coordinator.
#[derive(Debug, Default)]
pub struct InteractiveTransactions {
    variant: Variant,
    active: HashMap<TransactionId, InteractiveSession>,
    /// Why those that ended otherwise than by a commit did; the latest.
    ended: VecDeque<(TransactionId, Box<Problem>)>,
    counts: InteractiveCounts,
    bytes: usize,
}

/// One that is active.
#[derive(Debug)]
struct InteractiveSession {
    asked: BeginRequest,
    begun_at: Millis,
    expires_at: Millis,
    seq: u64,
    /// The last call that was done, and its replies.
    last: Option<LastCall>,
    staged: Vec<StagedBranch>,
    stage: SessionStage,
    bytes: usize,
}

/// A call that was done.
#[derive(Debug, Clone)]
struct LastCall {
    hash: [u8; 32],
    replies: Box<RawValue>,
}

/// Whether what a participant says of a call ends the transaction: 0 if it goes on. An expectation
/// is about the transaction, as in one that is sent in one request; and what was expected of
/// something that has changed says less than the change.
const fn weight(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::ReadChanged => 2,
        ErrorCode::ExpectationFailed => 1,
        _ => 0,
    }
}

/// What is known of the part at one participant.
#[derive(Debug, Clone)]
struct StagedBranch {
    participant: ParticipantName,
    /// The keys that were touched, and what each was at first.
    seen: Vec<(Arg, Option<Arg>)>,
    /// What is to be written, in order. What was only read is not done again.
    writes: Vec<OpRequest>,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionStage {
    /// A call, a commit, or an abort.
    Open,
    /// This call is under way.
    Calling(u64),
    /// Its commit has begun.
    Committing,
}

/// What is shown of one that is active.
#[derive(Debug, Clone)]
pub struct ActiveSession {
    /// Its id.
    pub id: TransactionId,
    /// The label.
    pub name: Option<String>,
    /// The last call that was done.
    pub seq: u64,
    /// When it expires if no call comes.
    pub expires_at: Millis,
    /// When it expires whatever comes.
    pub ends_at: Millis,
}

/// What a call comes to.
#[derive(Debug)]
pub enum OpsCall {
    /// It was done before, with these replies.
    Again(ActiveSession, Box<RawValue>),
    /// This is to be evaluated.
    New(Vec<CallEvaluation>),
}

/// What one participant is asked.
#[derive(Debug, Clone)]
pub struct CallEvaluation {
    /// The participant.
    pub participant: ParticipantName,
    /// The ops: a digest of each key that is touched, then what is staged, then what is new.
    pub ops: Vec<OpRequest>,
    /// The keys of those digests.
    keys: Vec<Arg>,
    /// How many of the ops came before.
    old: usize,
    /// Where the new ones stand in the call.
    places: Vec<usize>,
}

/// What a participant has answered.
pub type EvaluationReplies = Result<Vec<Box<RawValue>>, Problem>;

impl InteractiveSession {
    const fn ends_at(&self) -> Millis {
        self.begun_at.plus(limits::INTERACTIVE_AGE_MAX_MS)
    }

    fn shown(&self, id: TransactionId) -> ActiveSession {
        let (seq, expires_at, ends_at) = (self.seq, self.expires_at, self.ends_at());
        ActiveSession { id, name: self.asked.name.clone(), seq, expires_at, ends_at }
    }

    fn touch(&mut self, now: Millis) {
        self.expires_at = now.plus(limits::INTERACTIVE_IDLE_MS).min(self.ends_at());
    }

    fn at(&self, participant: &ParticipantName) -> Option<&StagedBranch> {
        self.staged.iter().find(|branch| branch.participant == *participant)
    }
}

impl StagedBranch {
    fn new(participant: ParticipantName) -> Self {
        Self { participant, seen: Vec::new(), writes: Vec::new() }
    }

    /// Bytes that it holds, about.
    fn weigh(&self) -> usize {
        const KEY: usize = 128;
        const OP: usize = 256;
        const WORD: usize = 32;
        let words = |op: &OpRequest| op.cmd.iter().map(|word| word.0.len() + WORD).sum::<usize>();
        self.seen.iter().map(|(key, _)| key.0.len() + KEY).sum::<usize>()
            + self.writes.iter().map(|op| words(op) + OP).sum::<usize>()
    }

    /// The branch that commits it: every key is what it was, then the writes.
    fn ops(&self, variant: Variant) -> Vec<OpRequest> {
        let is_guarded = !variant.is(Mutant::ReadsUnguarded);
        let guards = self.seen.iter().map(|(key, digest)| guard(key, is_guarded.then_some(digest)));
        guards.chain(self.writes.iter().cloned()).collect()
    }
}

/// The op that asks for the digest of a key, and expects it where it is known.
fn guard(key: &Arg, digest: Option<&Option<Arg>>) -> OpRequest {
    let expect = digest.map(|digest| Expect { eq: Some(digest.clone()), ..Expect::default() });
    OpRequest { expect, ..OpRequest::digest(key.clone()) }
}

impl InteractiveTransactions {
    /// None.
    #[must_use]
    pub fn new(variant: Variant) -> Self {
        Self { variant, ..Self::default() }
    }

    /// Begins one, or finds the one that the same request has begun before.
    pub fn begin(
        &mut self,
        id: TransactionId,
        asked: BeginRequest,
        now: Millis,
    ) -> Result<ActiveSession, Problem> {
        match self.find(id, now) {
            Some(Ok(known)) if self.active.get(&id).is_some_and(|it| it.asked == asked) => {
                return Ok(known);
            }
            Some(Ok(_)) => {
                let detail = "this id has begun an interactive transaction by another request";
                return Err(problem_of(id, ErrorCode::IdempotencyMismatch, detail));
            }
            Some(Err(problem)) => return Err(*problem),
            None => {}
        }
        let most = limits::INTERACTIVE_MAX;
        if self.active.len() >= most {
            let detail = format!("{most} interactive transactions are active; nothing was begun");
            return Err(Problem::new(ErrorCode::Overloaded, detail));
        }
        let mut session = InteractiveSession {
            asked,
            begun_at: now,
            expires_at: now,
            seq: 0,
            last: None,
            staged: Vec::new(),
            stage: SessionStage::Open,
            bytes: 0,
        };
        session.touch(now);
        let shown = session.shown(id);
        self.active.insert(id, session);
        Ok(shown)
    }

    /// What is known of one: nothing, if it was never begun here or was committed.
    pub fn find(
        &mut self,
        id: TransactionId,
        now: Millis,
    ) -> Option<Result<ActiveSession, Box<Problem>>> {
        self.sweep(now);
        if let Some(session) = self.active.get(&id) {
            return Some(Ok(session.shown(id)));
        }
        let ended = self.ended.iter().find(|(ended, _)| *ended == id);
        ended.map(|(_, problem)| Err(problem.clone()))
    }

    /// An error if it is not active.
    fn known(&mut self, id: TransactionId, now: Millis) -> Result<(), Problem> {
        match self.find(id, now) {
            Some(Ok(_)) => Ok(()),
            Some(Err(problem)) => Err(*problem),
            None => Err(unknown(id)),
        }
    }

    fn session(
        &mut self,
        id: TransactionId,
        now: Millis,
    ) -> Result<&mut InteractiveSession, Problem> {
        self.known(id, now)?;
        self.active.get_mut(&id).ok_or_else(|| unknown(id))
    }

    /// A call: what is to be evaluated for it, or its answer, if it was done before.
    pub fn call(
        &mut self,
        id: TransactionId,
        request: OpsRequest,
        now: Millis,
    ) -> Result<OpsCall, Problem> {
        let session = self.session(id, now)?;
        let hash = hash(&request);
        let wrong = |detail: String| problem_of(id, ErrorCode::WrongState, detail);
        match session.stage {
            SessionStage::Open => {}
            SessionStage::Calling(seq) => {
                let detail = format!("call {seq} is under way; send it again when it has ended");
                return Err(wrong(detail));
            }
            SessionStage::Committing => {
                return Err(wrong("its commit has begun; commit again to hear of it".to_owned()));
            }
        }
        let next = session.seq + 1;
        if request.seq == session.seq
            && let Some(last) = &session.last
        {
            if last.hash != hash {
                let detail = format!("call {} had other ops; the next one is {next}", request.seq);
                return Err(problem_of(id, ErrorCode::IdempotencyMismatch, detail));
            }
            let replies = last.replies.clone();
            session.touch(now);
            return Ok(OpsCall::Again(session.shown(id), replies));
        }
        if request.seq != next {
            let detail = format!("`seq` is {}; the next call is {next}", request.seq);
            return Err(wrong(detail));
        }
        let evaluations = evaluations(session, request.ops)?;
        session.stage = SessionStage::Calling(next);
        session.touch(now);
        Ok(OpsCall::New(evaluations))
    }

    /// Nobody waits any more for this call: if it is under way, it came to nothing.
    pub fn call_left(&mut self, id: TransactionId, seq: u64) {
        if let Some(session) = self.active.get_mut(&id)
            && session.stage == SessionStage::Calling(seq)
        {
            session.stage = SessionStage::Open;
        }
    }

    /// What the participants have answered to a call, each to its evaluation. If one has refused,
    /// nothing is staged, and the same number may come again.
    pub fn called(
        &mut self,
        id: TransactionId,
        request: &OpsRequest,
        answered: Vec<(CallEvaluation, EvaluationReplies)>,
        now: Millis,
    ) -> Result<(ActiveSession, Box<RawValue>), Problem> {
        self.known(id, now)?;
        let Some(session) = self.active.get_mut(&id) else { return Err(unknown(id)) };
        if session.stage != SessionStage::Calling(request.seq) {
            let detail = "this call is not under way any more";
            return Err(problem_of(id, ErrorCode::WrongState, detail));
        }
        session.stage = SessionStage::Open;
        let mut replies: Vec<Option<Box<RawValue>>> = vec![None; request.ops.len()];
        let mut staged = session.staged.clone();
        let mut failed = None;
        for (evaluation, answer) in answered {
            let stages = answer.and_then(|answer| {
                let ops = &request.ops;
                stage(&mut staged, &evaluation, ops, answer, &mut replies)
            });
            if let Err(problem) = stages {
                let problem = blamed(problem, id, &evaluation);
                // What must end it is said before what may pass.
                let is_first = |met: &Problem| weight(problem.code) > weight(met.code);
                if failed.as_ref().is_none_or(is_first) {
                    failed = Some(problem);
                }
            }
        }
        if let Some(problem) = failed {
            let ends = weight(problem.code) > 0;
            return Err(if ends { *self.end(id, problem) } else { problem });
        }
        let replies = array(replies.into_iter().flatten().collect())?;
        let last = LastCall { hash: hash(request), replies: replies.clone() };
        let bytes = weigh(&staged, &last);
        let others = self.bytes - session.bytes;
        check_room(id, bytes, others)?;
        (session.staged, session.last, session.bytes) = (staged, Some(last), bytes);
        session.seq += 1;
        session.touch(now);
        let shown = session.shown(id);
        self.bytes = others + bytes;
        Ok((shown, replies))
    }

    /// The transaction that commits it: the same, however often it is asked for.
    pub fn commit(
        &mut self,
        id: TransactionId,
        now: Millis,
    ) -> Result<TransactionRequest, Problem> {
        let variant = self.variant;
        let session = self.session(id, now)?;
        if let SessionStage::Calling(seq) = session.stage {
            let detail = format!("call {seq} is under way; commit when it has ended");
            return Err(problem_of(id, ErrorCode::WrongState, detail));
        }
        if session.staged.is_empty() {
            let detail = "it has no ops yet: there is nothing to commit";
            return Err(problem_of(id, ErrorCode::WrongState, detail));
        }
        let branch = |staged: &StagedBranch| {
            let ops = serde_json::value::to_raw_value(&staged.ops(variant))
                .map_err(|error| internal(&error))?;
            Ok(BranchRequest { participant: staged.participant.clone(), ops, input: None })
        };
        let branches = session.staged.iter().map(branch).collect::<Result<_, Problem>>()?;
        session.stage = SessionStage::Committing;
        session.touch(now);
        let BeginRequest { name, timeout, ack, .. } = session.asked.clone();
        let timeout = Some(timeout.unwrap_or(DurationMs(limits::TIMEOUT_DEFAULT_MS)));
        let protocol = Protocol::Logged;
        Ok(TransactionRequest { id: Some(id), name, branches, timeout, ack, protocol })
    }

    /// Its commit is decided: from now on the transaction itself answers.
    pub fn committed(&mut self, id: TransactionId) {
        if self.remove(id) {
            self.counts.ended("decided");
        }
    }

    /// How many there are, and how others have ended.
    pub fn counts(&mut self, now: Millis) -> InteractiveCounts {
        self.sweep(now);
        InteractiveCounts { active: self.active.len(), ..self.counts.clone() }
    }

    /// Its client gives it up. Twice is once.
    pub fn abort(&mut self, id: TransactionId, now: Millis) -> Result<Box<Problem>, Problem> {
        if let Some(Err(problem)) = self.find(id, now) {
            return Ok(problem);
        }
        if self.session(id, now)?.stage == SessionStage::Committing {
            let detail = "its commit has begun; commit again to hear what became of it";
            return Err(problem_of(id, ErrorCode::WrongState, detail));
        }
        let problem = problem_of(id, ErrorCode::Cancelled, "its client has aborted it");
        Ok(self.end(id, problem))
    }

    /// Ends those whose time is over.
    fn sweep(&mut self, now: Millis) {
        let is_over = |session: &InteractiveSession| session.expires_at <= now;
        let over = self.active.iter().filter(|(_, session)| is_over(session));
        let over: Vec<(TransactionId, bool)> =
            over.map(|(id, session)| (*id, session.stage == SessionStage::Committing)).collect();
        for (id, commits) in over {
            if commits {
                // It is known as what it has become.
                self.committed(id);
                continue;
            }
            let (idle, age) = (limits::INTERACTIVE_IDLE_MS, limits::INTERACTIVE_AGE_MAX_MS);
            let (idle, age) = (DurationMs(idle), DurationMs(age));
            let detail = format!(
                "it has expired: no call came for {idle}, or it was older than {age}; nothing of \
                 it is done"
            );
            self.end(id, problem_of(id, ErrorCode::Expired, detail));
        }
    }

    fn end(&mut self, id: TransactionId, problem: Problem) -> Box<Problem> {
        self.remove(id);
        self.counts.ended(problem.code.as_str());
        let problem = Box::new(Problem { outcome: Some(OutcomeWord::Aborted), ..problem });
        if self.ended.len() >= limits::INTERACTIVE_ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((id, problem.clone()));
        problem
    }

    /// Whether it was active.
    fn remove(&mut self, id: TransactionId) -> bool {
        let removed = self.active.remove(&id);
        self.bytes -= removed.as_ref().map_or(0, |session| session.bytes);
        removed.is_some()
    }
}

/// Bytes that a transaction holds, about.
fn weigh(staged: &[StagedBranch], last: &LastCall) -> usize {
    last.replies.get().len() + staged.iter().map(StagedBranch::weigh).sum::<usize>()
}

/// What each participant of a call is asked.
fn evaluations(
    session: &InteractiveSession,
    ops: Vec<InteractiveOp>,
) -> Result<Vec<CallEvaluation>, Problem> {
    let mut parts: Vec<(ParticipantName, Vec<(usize, OpRequest)>)> = Vec::new();
    for (place, InteractiveOp { participant, cmd, expect }) in ops.into_iter().enumerate() {
        let op = OpRequest { cmd, expect, escrow: false };
        match parts.iter_mut().find(|(name, _)| *name == participant) {
            Some((_, part)) => part.push((place, op)),
            None => parts.push((participant, vec![(place, op)])),
        }
    }
    let new = parts.iter().filter(|(name, _)| session.at(name).is_none()).count();
    if session.staged.len() + new > limits::BRANCHES_MAX {
        let detail =
            format!("the transaction would have more than {} branches", limits::BRANCHES_MAX);
        return Err(Problem::new(ErrorCode::TooManyOps, detail));
    }
    let staged = |name: &ParticipantName| {
        session.at(name).cloned().unwrap_or_else(|| StagedBranch::new(name.clone()))
    };
    parts.into_iter().map(|(name, part)| evaluation(&staged(&name), part)).collect()
}

fn evaluation(
    staged: &StagedBranch,
    part: Vec<(usize, OpRequest)>,
) -> Result<CallEvaluation, Problem> {
    let participant = staged.participant.clone();
    let (places, new): (Vec<usize>, Vec<OpRequest>) = part.into_iter().unzip();
    let of = |problem| Problem { participant: Some(participant.to_string()), ..problem };
    let checked = ValidatedBranch::new(new.clone()).map_err(|refusal| {
        let op = refusal.op.and_then(|op| places.get(usize::try_from(op).ok()?));
        let op = op.and_then(|place| u32::try_from(*place).ok());
        of(Problem { op, ..Problem::from(refusal) })
    })?;
    // What is answered now must be what the commit does.
    if let Some((op, place)) =
        checked.ops.iter().zip(&places).find(|(op, _)| op.command.is_fickle())
    {
        let detail = format!(
            "{}: what it does depends on chance or on the clock, and the commit would do something \
             else than this call says; send it in one request",
            op.title()
        );
        let op = u32::try_from(*place).ok();
        return Err(of(Problem { op, ..Problem::new(ErrorCode::BadArguments, detail) }));
    }
    let mut keys: Vec<Arg> = staged.seen.iter().map(|(key, _)| key.clone()).collect();
    let mut ops = staged.seen.iter().map(|(key, seen)| guard(key, Some(seen))).collect::<Vec<_>>();
    for lock in checked.locks {
        if !keys.contains(&lock.key) {
            ops.push(guard(&lock.key, None));
            keys.push(lock.key);
        }
    }
    ops.extend(staged.writes.iter().cloned());
    let old = ops.len();
    ops.extend(new);
    // It will be committed as one branch, and must fit into one.
    ValidatedBranch::new(ops.clone())
        .map_err(|refusal| of(Problem { op: None, ..Problem::from(refusal) }))?;
    Ok(CallEvaluation { participant, ops, keys, old, places })
}

/// Takes what a participant has answered to its evaluation.
fn stage(
    staged: &mut Vec<StagedBranch>,
    evaluation: &CallEvaluation,
    ops: &[InteractiveOp],
    answer: Vec<Box<RawValue>>,
    replies: &mut [Option<Box<RawValue>>],
) -> Result<(), Problem> {
    let CallEvaluation { participant, keys, old, places, .. } = evaluation;
    if answer.len() != evaluation.ops.len() {
        let detail = format!("{} replies to {} ops", answer.len(), evaluation.ops.len());
        return Err(Problem::new(ErrorCode::ParticipantUnreachable, detail));
    }
    let place = staged.iter().position(|branch| branch.participant == *participant);
    let place = place.unwrap_or_else(|| {
        staged.push(StagedBranch::new(participant.clone()));
        staged.len() - 1
    });
    let branch = &mut staged[place];
    let mut answer = answer.into_iter();
    for (at, (key, digest)) in keys.iter().zip(answer.by_ref()).enumerate() {
        if at >= branch.seen.len() {
            let digest = serde_json::from_str(digest.get()).map_err(|error| internal(&error))?;
            branch.seen.push((key.clone(), digest));
        }
    }
    let new = answer.skip(old - keys.len());
    for (place, reply) in places.iter().zip(new) {
        replies[*place] = Some(reply);
        let InteractiveOp { cmd, expect, .. } = &ops[*place];
        let reads = cmd.first().and_then(|name| find(&name.0));
        if reads.is_none_or(|command| command.access != Access::Shared) {
            let (cmd, expect) = (cmd.clone(), expect.clone());
            branch.writes.push(OpRequest { cmd, expect, escrow: false });
        }
    }
    Ok(())
}

/// A refusal of a participant, in the words of the call: its own op is to blame, or none.
fn blamed(problem: Problem, id: TransactionId, evaluation: &CallEvaluation) -> Problem {
    let place = problem.op.and_then(|op| {
        let new = usize::try_from(op).ok()?.checked_sub(evaluation.old)?;
        u32::try_from(*evaluation.places.get(new)?).ok()
    });
    let participant = Some(evaluation.participant.to_string());
    Problem { id: Some(id), participant, op: place, ..problem }
}

fn array(replies: Vec<Box<RawValue>>) -> Result<Box<RawValue>, Problem> {
    serde_json::value::to_raw_value(&replies).map_err(|error| internal(&error))
}

fn hash(request: &OpsRequest) -> [u8; 32] {
    // What cannot be written was never read.
    Sha256::digest(serde_json::to_vec(request).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests;
