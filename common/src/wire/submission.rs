//! A transaction request, checked once: what the coordinator takes.

use serde_json::value::RawValue;

use crate::code::ErrorCode;
use crate::command::ValidatedBranch;
use crate::coordinator::{Contention, Purpose};
use crate::ids::{ParticipantName, TransactionId};
use crate::limits;
use crate::outcome::Refusal;
use crate::sql::SqlBranch;
use crate::time::DurationMs;
use crate::wire::form::{Form, Head, Sink};
use crate::wire::interactive::BeginRequest;
use crate::wire::objects::read_ops;
use crate::wire::ops::BranchOps;
use crate::wire::problem::Problem;
use crate::wire::transaction::{Ack, BranchRequest, Protocol, TransactionRequest};

/// A transaction that may be run: its branches name different participants and their ops are valid as far as that can be
/// told without the data.
#[derive(Debug)]
pub struct Submission {
    /// The public id, if the client chose one.
    pub id: Option<TransactionId>,
    /// The label.
    pub name: Option<String>,
    /// How long it may take to decide, in milliseconds.
    pub timeout_ms: u64,
    /// When `committed` is answered.
    pub ack: Ack,
    /// What makes it committed, if it has several branches and no key.
    pub protocol: Protocol,
    /// What it does where a key is locked.
    pub contention: Contention,
    /// The branches.
    pub branches: Vec<SubmittedBranch>,
}

/// A branch whose ops are valid; they stay JSON, to be passed through.
#[derive(Debug)]
pub struct SubmittedBranch {
    /// The participant.
    pub participant: ParticipantName,
    /// The ops.
    pub ops: Box<RawValue>,
    /// What its hook decides about, if the client sent that.
    pub input: Option<Box<RawValue>>,
    /// Whether it writes anything.
    pub purpose: Purpose,
}

impl Submission {
    /// Bytes of the ops and inputs of all branches: what is kept of the request.
    #[must_use]
    pub fn ops_bytes(&self) -> usize {
        let input = |branch: &SubmittedBranch| branch.input.as_ref().map_or(0, |it| it.get().len());
        self.branches.iter().map(|branch| branch.ops.get().len() + input(branch)).sum()
    }
}

impl TransactionRequest {
    /// Checks everything that can be checked before a participant is asked. The problem names the branch and the op.
    pub fn validate(self) -> Result<Submission, Problem> {
        self.check(None)
    }

    /// The same, and says the request in its one form, for a hash: what comes again in other bytes
    /// says the same there. What was said of a request that is refused is of no use.
    pub fn validate_into(self, form: &mut dyn FnMut(&[u8])) -> Result<Submission, Problem> {
        self.check(Some(form))
    }

    fn check(self, form: Option<Sink<'_>>) -> Result<Submission, Problem> {
        let Self { id, name, branches, timeout, ack, protocol } = self;
        check_name(name.as_deref())?;
        if branches.is_empty() {
            let detail = "`branches` is empty; a transaction has at least one branch";
            return Err(Problem::new(ErrorCode::BadRequest, detail));
        }
        if branches.len() > limits::BRANCHES_MAX {
            let detail = format!("`branches` has more than {}", limits::BRANCHES_MAX);
            return Err(Problem::new(ErrorCode::TooManyOps, detail));
        }
        if let Some(twice) = first_duplicate(&branches) {
            let detail = format!("participant {twice} has two branches");
            let participant = Some(twice.to_string());
            return Err(Problem {
                participant,
                ..Problem::new(ErrorCode::DuplicateParticipant, detail)
            });
        }
        let timeout_ms = timeout_ms(timeout)?;
        let name_text = name.as_deref();
        let head =
            Head { id, name: name_text, timeout_ms, ack, protocol, branches: branches.len() };
        let mut form = form.map(|sink| Form::begin(sink, &head));
        let branches = branches
            .into_iter()
            .map(|branch| check_branch(branch, form.as_mut()))
            .collect::<Result<_, _>>()?;
        let contention = Contention::Waits;
        Ok(Submission { id, name, timeout_ms, ack, protocol, contention, branches })
    }
}

impl BeginRequest {
    /// Checks the label and the timeout.
    pub fn check(&self) -> Result<(), Problem> {
        check_name(self.name.as_deref())?;
        timeout_ms(self.timeout).map(drop)
    }
}

fn check_name(name: Option<&str>) -> Result<(), Problem> {
    if name.is_some_and(|name| name.is_empty() || name.len() > limits::NAME_BYTES_MAX) {
        let detail = format!("`name` must have 1 to {} bytes", limits::NAME_BYTES_MAX);
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    // It ends in terminals, tables and logs.
    if name.is_some_and(|name| name.chars().any(char::is_control)) {
        let detail = "`name` has a control character; it is a label of one line";
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    Ok(())
}

fn first_duplicate(branches: &[BranchRequest]) -> Option<&ParticipantName> {
    branches.iter().enumerate().find_map(|(place, branch)| {
        let earlier = &branches[..place];
        earlier
            .iter()
            .any(|other| other.participant == branch.participant)
            .then_some(&branch.participant)
    })
}

fn check_branch(
    branch: BranchRequest,
    form: Option<&mut Form<'_>>,
) -> Result<SubmittedBranch, Problem> {
    let BranchRequest { participant, ops, input } = branch;
    let ops_parsed: BranchOps = read_ops(ops.get()).map_err(|error| {
        let detail = format!("the ops of participant {participant}: {error}");
        Problem {
            participant: Some(participant.to_string()),
            ..Problem::new(ErrorCode::BadRequest, detail)
        }
    })?;
    if input.as_ref().is_some_and(|input| input.get().len() > limits::INPUT_BYTES_MAX) {
        let detail = format!("`input` has more than {} bytes", limits::INPUT_BYTES_MAX);
        return Err(of_participant(Refusal::new(ErrorCode::TooLarge, detail), &participant));
    }
    if let Some(form) = form {
        form.branch(&participant, &ops_parsed, input.as_deref());
    }
    // What statements do is for their database to know: they are taken to write.
    let only_reads = match ops_parsed {
        BranchOps::Redis(ops) => ValidatedBranch::new(ops).map(|branch| branch.read_only),
        BranchOps::Sql(ops) => SqlBranch::new(ops).map(|_| false),
    };
    match only_reads {
        Ok(only_reads) => {
            let purpose = Purpose::of_branch(only_reads, input.is_some());
            Ok(SubmittedBranch { participant, ops, input, purpose })
        }
        Err(refusal) => Err(of_participant(refusal, &participant)),
    }
}

fn of_participant(refusal: Refusal, participant: &ParticipantName) -> Problem {
    Problem { participant: Some(participant.to_string()), ..Problem::from(refusal) }
}

fn timeout_ms(timeout: Option<DurationMs>) -> Result<u64, Problem> {
    let Some(DurationMs(ms)) = timeout else { return Ok(limits::TIMEOUT_DEFAULT_MS) };
    if (limits::TIMEOUT_MIN_MS..=limits::TIMEOUT_MAX_MS).contains(&ms) {
        return Ok(ms);
    }
    let (min, max) = (DurationMs(limits::TIMEOUT_MIN_MS), DurationMs(limits::TIMEOUT_MAX_MS));
    Err(Problem::new(ErrorCode::BadRequest, format!("`timeout` must be between {min} and {max}")))
}
