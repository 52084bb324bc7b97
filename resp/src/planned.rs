//! What a client asks for, ready to run: one command, or what was queued between `MULTI` and
//! `EXEC`.

use assent_common::command::{Expect, ValidatedBranch};
use assent_common::coordinator::{Contention, Purpose};
use assent_common::time::DurationMs;
use assent_common::wire::problem::Problem;
use assent_common::wire::submission::{Submission, SubmittedBranch};
use assent_common::wire::transaction::{
    Ack, BranchRequest, Protocol, TransactionRequest, TransactionView,
};
use assent_common::{ErrorCode, IdempotencyKey, ParticipantName, TransactionId, limits};
use assent_edge::Held;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::reply::{RespVersion, Value};
use crate::shape::ReplyShape;

/// Ops of several transactions that run as one: enough to share its cost, few
/// enough that the others wait for no lock of it for long.
const MERGED_OPS_MAX: usize = 128;

/// Bytes of their words.
const MERGED_BYTES_MAX: usize = 256 * 1024;

/// An input, and whose hook decides about it.
pub(crate) type PlannedInput = (ParticipantName, Box<RawValue>);

/// A transaction of one client.
#[derive(Debug)]
pub(crate) struct Planned {
    /// What must hold before it: of watched keys, what they were.
    pub guards: Vec<PlannedOp>,
    /// What was asked, in order.
    pub entries: Vec<PlannedEntry>,
    /// Whether it is one command, or what `EXEC` runs.
    pub kind: AnswerForm,
    /// What was said of it as a whole.
    pub said: SaidOfAll,
    /// What hooks decide about, at most one at a participant.
    pub inputs: Vec<PlannedInput>,
    /// How its answer is written.
    pub version: RespVersion,
    /// Bytes of the words.
    pub bytes: usize,
    /// The memory that it was granted.
    pub held: Held,
}

/// One command.
#[derive(Debug)]
pub(crate) enum PlannedEntry {
    /// An op at a participant.
    Op(PlannedOp),
    /// What needs no participant, and its reply.
    Reply(Value),
    /// The next input, in whose place stands what its hook replies.
    Input,
}

/// An op, where it runs, and how its reply is shown.
#[derive(Debug)]
pub(crate) struct PlannedOp {
    /// The participant.
    pub participant: ParticipantName,
    /// Its words, as a JSON array.
    pub cmd: Box<RawValue>,
    /// A branch of this op alone, checked.
    pub branch: ValidatedBranch,
    /// The reply.
    pub shape: ReplyShape,
}

/// An op on its way into the ops of its branch.
#[derive(Serialize)]
struct OpText<'a> {
    cmd: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<&'a Expect>,
}

impl PlannedOp {
    fn text(&self) -> OpText<'_> {
        let expect = self.branch.ops.first().and_then(|op| op.expect.as_ref());
        OpText { cmd: &self.cmd, expect }
    }
}

/// How an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    /// The reply of one command.
    Single,
    /// The replies of `EXEC`.
    Exec,
}

/// What a client said of a transaction as a whole (`ASSENT.KEY` and its like).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SaidOfAll {
    /// The idempotency key.
    pub key: Option<IdempotencyKey>,
    /// The id.
    pub id: Option<TransactionId>,
    /// How long it may take to decide, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What the engine is asked for.
#[derive(Debug)]
pub enum DoorRequest {
    /// A transaction that nobody can ask for again.
    Once(Submission),
    /// One that has a key or an id.
    Keyed(TransactionRequest, Option<IdempotencyKey>),
}

impl DoorRequest {
    /// Bytes of its ops.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Once(submission) => submission.ops_bytes(),
            Self::Keyed(request, _) => {
                let input =
                    |it: &BranchRequest| it.input.as_ref().map_or(0, |input| input.get().len());
                request.branches.iter().map(|it| it.ops.get().len() + input(it)).sum()
            }
        }
    }
}

/// Where the replies of an op stand: the branch, and the place in it.
type Place = (usize, usize);

/// Transactions of one client that run as one.
#[derive(Debug)]
pub(crate) struct Group {
    planned: Vec<Planned>,
    /// The participants, in the order of their first use.
    participants: Vec<ParticipantName>,
    ops: usize,
    bytes: usize,
    /// Whether nothing was said of any of them as a whole.
    is_plain: bool,
    only_reads: bool,
}

impl Planned {
    /// Its ops, in order: the guards first.
    pub(crate) fn ops(&self) -> impl Iterator<Item = &PlannedOp> {
        let asked = self.entries.iter().filter_map(|entry| match entry {
            PlannedEntry::Op(op) => Some(op),
            PlannedEntry::Reply(_) | PlannedEntry::Input => None,
        });
        self.guards.iter().chain(asked)
    }

    /// The participants, doubles included.
    fn participants(&self) -> impl Iterator<Item = &ParticipantName> {
        let inputs = self.inputs.iter().map(|(participant, _)| participant);
        self.ops().map(|op| &op.participant).chain(inputs)
    }

    /// How many they are.
    #[must_use]
    pub(crate) fn count_ops(&self) -> usize {
        self.ops().count()
    }
}

impl From<Planned> for Group {
    fn from(planned: Planned) -> Self {
        let mut participants = Vec::new();
        for participant in planned.participants() {
            if !participants.contains(participant) {
                participants.push(participant.clone());
            }
        }
        let (ops, bytes) = (planned.count_ops(), planned.bytes);
        let is_plain = planned.said == SaidOfAll::default()
            && planned.guards.is_empty()
            && planned.inputs.is_empty();
        let only_reads = planned.ops().all(|op| op.branch.read_only);
        Self { planned: vec![planned], participants, ops, bytes, is_plain, only_reads }
    }
}

impl Group {
    /// Takes one more transaction, or gives it back: then it is another group's.
    ///
    /// What a client sends without waiting for answers is done in its order. Transactions that
    /// follow each other at the same participants are that, done as one: nobody comes in between.
    pub(crate) fn join(&mut self, planned: Planned) -> Result<(), Planned> {
        self.append(planned.into()).map_err(|Self { mut planned, .. }| planned.swap_remove(0))
    }

    /// Takes the transactions of another client, which come behind these, or gives them back. Reads
    /// do not join writes, whose end they would wait for.
    pub(crate) fn absorb(&mut self, other: Self) -> Result<(), Self> {
        if self.only_reads == other.only_reads { self.append(other) } else { Err(other) }
    }

    fn append(&mut self, other: Self) -> Result<(), Self> {
        let (ops, bytes) = (self.ops + other.ops, self.bytes + other.bytes);
        let knows = |name: &ParticipantName| self.participants.contains(name);
        let fits = ops <= MERGED_OPS_MAX
            && bytes <= MERGED_BYTES_MAX
            && self.may_share()
            && other.may_share()
            && self.participants.len() == other.participants.len()
            && other.participants.iter().all(knows);
        if !fits {
            return Err(other);
        }
        (self.ops, self.bytes) = (ops, bytes);
        self.only_reads &= other.only_reads;
        self.planned.extend(other.planned);
        Ok(())
    }

    /// Whether it may be one with others: nothing was said of it as a whole.
    pub(crate) const fn may_share(&self) -> bool {
        self.is_plain
    }

    /// Whether an id or a key ties it to other copies.
    pub(crate) fn is_tied(&self) -> bool {
        self.planned.iter().any(|planned| planned.said.key.is_some() || planned.said.id.is_some())
    }

    /// These transactions, which were one group before; nothing if there are none.
    pub(crate) fn of(mut planned: impl Iterator<Item = Planned>) -> Option<Self> {
        let mut group = Self::from(planned.next()?);
        for planned in planned {
            assert!(group.join(planned).is_ok(), "what was one group is one again");
        }
        Some(group)
    }

    /// The transactions, each for itself.
    #[must_use]
    pub(crate) fn into_each(self) -> Vec<Planned> {
        self.planned
    }

    /// The transactions.
    #[must_use]
    pub(crate) fn planned(&self) -> &[Planned] {
        &self.planned
    }

    /// What the engine is asked for; an error if it would be refused as a whole.
    pub(crate) fn asked(&self, contention: Contention) -> Result<DoorRequest, Problem> {
        let mut branches: Vec<_> = self.participants.iter().map(|_| Vec::new()).collect();
        for op in self.planned.iter().flat_map(Planned::ops) {
            branches[self.branch_of(op)].push(op);
        }
        let said = self.planned.first().map(|planned| &planned.said);
        let SaidOfAll { key, id, timeout_ms } = said.cloned().unwrap_or_default();
        let branches = self.participants.iter().zip(branches);
        let branches = branches
            .map(|(participant, ops)| submitted(participant, &ops, self.input(participant)));
        let branches = branches.collect::<Result<Vec<_>, Problem>>()?;
        if key.is_some() || id.is_some() {
            let branch = |SubmittedBranch { participant, ops, input, .. }| BranchRequest {
                participant,
                ops,
                input,
            };
            let request = TransactionRequest {
                id,
                name: None,
                branches: branches.into_iter().map(branch).collect(),
                timeout: timeout_ms.map(DurationMs),
                ack: Ack::Applied,
                protocol: Protocol::Logged,
            };
            return Ok(DoorRequest::Keyed(request, key));
        }
        Ok(DoorRequest::Once(Submission {
            id,
            name: None,
            timeout_ms: timeout_ms.unwrap_or(limits::TIMEOUT_DEFAULT_MS),
            ack: Ack::Applied,
            protocol: Protocol::Logged,
            contention,
            branches,
        }))
    }

    /// Whether it was aborted because a watched key has changed. A transaction that has watched
    /// keys is alone in its group, and they stand first in each branch.
    #[must_use]
    pub(crate) fn has_lost_race(&self, problem: &Problem) -> bool {
        let (ErrorCode::ReadChanged, Some(op)) = (problem.code, problem.op) else {
            return false;
        };
        let is_there =
            |guard: &&PlannedOp| problem.participant.as_deref() == Some(guard.participant.as_str());
        let guards = self.planned.iter().flat_map(|planned| &planned.guards).filter(is_there);
        u32::try_from(guards.count()).is_ok_and(|guards| op < guards)
    }

    fn input(&self, participant: &ParticipantName) -> Option<&RawValue> {
        let mut inputs = self.planned.iter().flat_map(|planned| &planned.inputs);
        inputs.find(|(name, _)| name == participant).map(|(_, input)| &**input)
    }

    fn branch_of(&self, op: &PlannedOp) -> usize {
        self.branch_at(&op.participant)
    }

    fn branch_at(&self, participant: &ParticipantName) -> usize {
        let place = self.participants.iter().position(|name| name == participant);
        // `participants` are those of the ops and inputs.
        place.unwrap_or_default()
    }

    /// The answers of a transaction that is committed, in the order of the transactions.
    pub(crate) fn answers(self, view: &TransactionView) -> Result<Vec<Value>, Problem> {
        let places = self.places();
        let mut replies = Vec::with_capacity(view.branches.len());
        for branch in &view.branches {
            let text = branch.replies.as_ref().map_or("[]", |replies| replies.get());
            let parsed: Vec<Value> = serde_json::from_str(text).map_err(|error| {
                let detail = format!("the replies of {}: {error}", branch.participant);
                Problem { id: Some(view.id), ..Problem::new(ErrorCode::Internal, detail) }
            })?;
            replies.push(parsed);
        }
        let mut places = places.into_iter();
        // What a hook replies is the last of its branch.
        let inputs = self.planned.iter().flat_map(|planned| &planned.inputs);
        let of_hook = |(participant, _): &PlannedInput| {
            replies.get_mut(self.branch_at(participant)).and_then(Vec::pop)
        };
        let mut of_hooks = inputs.map(of_hook).collect::<Vec<_>>().into_iter();
        let missing = || Value::Error("COMMITTED this reply is not kept any more".to_owned());
        let mut reply = |shape: ReplyShape, is_new| {
            let (branch, place) = places.next().unwrap_or_default();
            let found = replies.get_mut(branch).and_then(|branch| branch.get_mut(place));
            match found {
                Some(found) => shape.form(std::mem::replace(found, Value::Nil), is_new),
                None => missing(),
            }
        };
        let answer = |planned: Planned| {
            let is_new = planned.version == RespVersion::Resp3;
            planned.guards.iter().for_each(|guard| drop(reply(guard.shape, is_new)));
            let mut replies: Vec<Value> = planned
                .entries
                .into_iter()
                .map(|entry| match entry {
                    PlannedEntry::Op(op) => reply(op.shape, is_new),
                    PlannedEntry::Reply(value) => value,
                    PlannedEntry::Input => of_hooks.next().flatten().unwrap_or_else(missing),
                })
                .collect();
            match planned.kind {
                AnswerForm::Exec => Value::Array(replies),
                AnswerForm::Single => replies.pop().unwrap_or(Value::Nil),
            }
        };
        Ok(self.planned.into_iter().map(answer).collect())
    }

    /// Where the reply of each op stands.
    fn places(&self) -> Vec<Place> {
        let mut counts = vec![0; self.participants.len()];
        let ops = self.planned.iter().flat_map(Planned::ops);
        let place = |op| {
            let branch = self.branch_of(op);
            counts[branch] += 1;
            (branch, counts[branch] - 1)
        };
        ops.map(place).collect()
    }
}

fn submitted(
    participant: &ParticipantName,
    ops: &[&PlannedOp],
    input: Option<&RawValue>,
) -> Result<SubmittedBranch, Problem> {
    let parts = ops.iter().map(|op| &op.branch);
    ValidatedBranch::check_together(parts.clone()).map_err(|refusal| Problem {
        participant: Some(participant.to_string()),
        ..Problem::from(refusal)
    })?;
    let only_reads = parts.clone().all(|part| part.read_only);
    let purpose = Purpose::of_branch(only_reads, input.is_some());
    let ops = json(&ops.iter().map(|op| op.text()).collect::<Vec<_>>())?;
    let input = input.map(ToOwned::to_owned);
    Ok(SubmittedBranch { participant: participant.clone(), ops, input, purpose })
}

pub(crate) fn json(what: &impl Serialize) -> Result<Box<RawValue>, Problem> {
    let json = serde_json::value::to_raw_value(what);
    json.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use assent_common::value::Arg;
    use assent_edge::Budget;

    use super::*;
    use crate::connect::Rules;
    use crate::request::ClientCommand;
    use crate::route::Routes;
    use crate::session::{Session, SessionStep};

    fn planned(lines: &[&str], version: RespVersion) -> Planned {
        let rules = ["a:*=bank-a", "b:*=bank-b"].map(|rule| rule.parse().unwrap());
        let routes = Routes::new(rules.into()).unwrap();
        let rules = Rules { routes, token: None, budget: Budget::new(1 << 20) };
        let mut session = Session::new(Arc::new(rules), 1);
        let mut step = None;
        for line in lines {
            let words = line.split_ascii_whitespace().map(Arg::from).collect();
            step = Some(session.take(ClientCommand::Words(words)));
        }
        match step {
            Some(SessionStep::Run(planned)) => Planned { version, ..planned },
            step => panic!("{step:?}"),
        }
    }

    fn view(replies: &[(&str, &str)]) -> TransactionView {
        let branch = |(name, replies): &(&str, &str)| {
            format!(r#"{{"participant":"{name}","state":"applied","replies":{replies}}}"#)
        };
        let branches: Vec<_> = replies.iter().map(branch).collect();
        let json = format!(
            r#"{{"id":"0198f1c2-a4b2-7c1d-9c0e-000000000001","outcome":"committed","state":"ended",
                "branches":[{}]}}"#,
            branches.join(",")
        );
        serde_json::from_str(&json).unwrap()
    }

    /// The participants answer op by op; each client hears in the order in which it asked.
    #[test]
    fn every_transaction_of_a_group_has_its_own_replies_in_its_order() {
        let first = ["MULTI", "SET b:x 1", "PING", "HGETALL a:h", "ASSENT.EXPECT MISSING", "EXEC"];
        let mut group = Group::from(planned(&first, RespVersion::Resp3));
        let second = ["MULTI", "INCR a:n", "INCR b:n", "INCR a:n", "EXEC"];
        group.join(planned(&second, RespVersion::Resp2)).unwrap();
        let Ok(DoorRequest::Once(submission)) = group.asked(Contention::Waits) else {
            panic!("no key was said")
        };
        let asked = submission.branches.iter();
        let asked: Vec<_> = asked.map(|it| (it.participant.as_str(), it.ops.get())).collect();
        assert_eq!(
            asked,
            [
                ("bank-b", r#"[{"cmd":["SET","b:x","1"]},{"cmd":["INCR","b:n"]}]"#),
                (
                    "bank-a",
                    "[{\"cmd\":[\"HGETALL\",\"a:h\"],\"expect\":{\"exists\":false}},\
                 {\"cmd\":[\"INCR\",\"a:n\"]},{\"cmd\":[\"INCR\",\"a:n\"]}]"
                ),
            ]
        );
        let view = view(&[("bank-b", r#"["OK",5]"#), ("bank-a", "[[],1,2]")]);
        let answers = group.answers(&view).unwrap();
        let pong = Value::Status("PONG".into());
        let first = Value::Array(vec![Value::ok(), pong, Value::Map(Vec::new()), Value::ok()]);
        let second = Value::Array(vec![Value::Int(1), Value::Int(5), Value::Int(2)]);
        assert_eq!(answers, [first, second]);
    }

    #[test]
    fn what_has_a_key_is_asked_for_as_by_http() {
        let lines = ["MULTI", "INCR a:n", "ASSENT.KEY k", "ASSENT.TIMEOUT 2s", "EXEC"];
        let group = Group::from(planned(&lines, RespVersion::Resp2));
        let Ok(DoorRequest::Keyed(request, key)) = group.asked(Contention::Waits) else {
            panic!("a key was said")
        };
        assert_eq!(key.unwrap().as_str(), "k");
        assert_eq!(request.timeout, Some(DurationMs(2_000)));
    }

    #[test]
    fn a_branch_above_its_limits_is_refused_before_the_engine_is_asked() {
        let mut lines = vec!["MULTI"];
        lines.extend(vec!["INCR a:n"; limits::OPS_PER_BRANCH_MAX + 1]);
        lines.push("EXEC");
        let group = Group::from(planned(&lines, RespVersion::Resp2));
        assert_eq!(group.asked(Contention::Waits).unwrap_err().code, ErrorCode::TooManyOps);
    }

    /// A committed transaction is never said to be anything else.
    #[test]
    fn replies_that_are_not_kept_are_named_and_are_no_failure() {
        let group = Group::from(planned(&["INCR a:n"], RespVersion::Resp2));
        let answers = group.answers(&view(&[("bank-a", "null")])).unwrap();
        let Value::Error(text) = &answers[0] else { panic!("{answers:?}") };
        assert!(text.starts_with("COMMITTED "), "{text}");
    }
}
