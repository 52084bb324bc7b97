//! From what arrived to what can be staged: every check that needs no data, once, and the keys to lock.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use crate::code::ErrorCode;
use crate::command::canonical::canonicalise;
use crate::command::escrow::{self, Claim};
use crate::command::op::ValidatedOp;
use crate::command::table::{self, Access, ReplyKind};
use crate::command::{Expect, OpRequest, is_float};
use crate::limits;
use crate::outcome::Refusal;
use crate::value::{Arg, readable};

impl ValidatedOp {
    /// Says what the reply must be. A condition that says nothing, or that no reply can be held
    /// against, is refused.
    pub fn expecting(&mut self, expect: Expect) -> Result<(), Refusal> {
        check_condition(self.command, &expect)?;
        check_expectation(self, &expect)?;
        self.expect = Some(expect);
        Ok(())
    }
}

/// A key that a branch locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The key.
    pub key: Arg,
    /// How: exclusive wins where a branch both reads and writes the key.
    pub access: Access,
}

/// A branch that may be staged.
#[derive(Debug, Clone)]
pub struct ValidatedBranch {
    /// The ops, in order.
    pub ops: Vec<ValidatedOp>,
    /// The distinct keys, in the order of their first use.
    pub locks: Vec<Lock>,
    /// The counters that it adds to in escrow, in the order of their first use.
    pub claims: Vec<Claim>,
    /// Whether no op can write.
    pub read_only: bool,
    /// The families of the ops, one bit each ([`table::Family::bit`]).
    pub families: u8,
    /// Words of all ops, as they arrived.
    pub words: usize,
    /// Bytes of all arguments, as they arrived.
    pub bytes: usize,
}

impl ValidatedBranch {
    /// Checks the ops of a branch. The refusal names the op, its command and the argument.
    pub fn new(requests: Vec<OpRequest>) -> Result<Self, Refusal> {
        check_ops(requests.len())?;
        let mut branch = Self {
            ops: Vec::with_capacity(requests.len()),
            locks: Vec::with_capacity(requests.len()),
            claims: Vec::new(),
            read_only: true,
            families: 0,
            words: 0,
            bytes: 0,
        };
        let mut keys = KeyIndex::default();
        for (index, request) in requests.into_iter().enumerate() {
            // Bounded by OPS_PER_BRANCH_MAX above.
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            branch.words += request.cmd.len();
            branch.bytes += request.cmd.iter().map(|arg| arg.0.len()).sum::<usize>();
            check_size(branch.words, branch.bytes).map_err(|refusal| refusal.at_op(index))?;
            let is_escrow = request.escrow;
            let mut op = ValidatedOp::new(request).map_err(|refusal| refusal.at_op(index))?;
            branch.families |= op.command.family.bit();
            let mut access = op.command.access;
            branch.read_only &= access == Access::Shared;
            if is_escrow {
                let claimed = escrow::claim(&mut branch.claims, index, &mut op);
                access = Access::Escrow(claimed.map_err(|refusal| refusal.at_op(index))?);
                op.reply = ReplyKind::Estimate;
            }
            let locked = keys.lock(&mut branch.locks, &op, access);
            locked.map_err(|refusal| refusal.at_op(index))?;
            branch.ops.push(op);
        }
        Ok(branch)
    }

    /// Holds the limits of one branch against parts of it that were checked each for itself. None
    /// of them has a key in escrow.
    pub fn check_together<'a>(
        parts: impl Iterator<Item = &'a Self> + Clone,
    ) -> Result<(), Refusal> {
        check_ops(parts.clone().map(|part| part.ops.len()).sum())?;
        let (mut words, mut bytes) = (0, 0);
        for (part, index) in parts.clone().zip(0..) {
            (words, bytes) = (words + part.words, bytes + part.bytes);
            check_size(words, bytes).map_err(|refusal| refusal.at_op(index))?;
        }
        let keys = || parts.clone().flat_map(|part| &part.locks).map(|lock| &lock.key);
        // Few branches have so many that it matters which of them are the same.
        if keys().nth(limits::KEYS_PER_BRANCH_MAX).is_some() {
            check_keys(keys().collect::<HashSet<_>>().len())?;
        }
        Ok(())
    }
}

fn check_ops(count: usize) -> Result<(), Refusal> {
    if count <= limits::OPS_PER_BRANCH_MAX {
        return Ok(());
    }
    let detail = format!("the branch has more than {} ops", limits::OPS_PER_BRANCH_MAX);
    Err(Refusal::new(ErrorCode::TooManyOps, detail))
}

fn check_size(words: usize, bytes: usize) -> Result<(), Refusal> {
    if words > limits::WORDS_PER_BRANCH_MAX {
        let most = limits::WORDS_PER_BRANCH_MAX;
        let detail = format!("the ops of the branch have more than {most} words together");
        return Err(Refusal::new(ErrorCode::TooManyOps, detail));
    }
    if bytes > limits::BRANCH_BYTES_MAX {
        let detail = format!("the branch has more than {} bytes", limits::BRANCH_BYTES_MAX);
        return Err(Refusal::new(ErrorCode::TooLarge, detail));
    }
    Ok(())
}

fn check_keys(count: usize) -> Result<(), Refusal> {
    if count <= limits::KEYS_PER_BRANCH_MAX {
        return Ok(());
    }
    let detail = format!("the branch has more than {} keys", limits::KEYS_PER_BRANCH_MAX);
    Err(Refusal::new(ErrorCode::TooManyOps, detail))
}

impl ValidatedOp {
    fn new(OpRequest { cmd: mut args, expect, .. }: OpRequest) -> Result<Self, Refusal> {
        if args.is_empty() {
            return Err(Refusal::new(ErrorCode::BadArguments, "the op has no command"));
        }
        if args.len() > limits::ARGS_PER_OP_MAX {
            return Err(Refusal::new(
                ErrorCode::TooManyOps,
                format!("the op has more than {} arguments", limits::ARGS_PER_OP_MAX),
            ));
        }
        let name = args.remove(0);
        let Some(command) = table::find(&name.0) else {
            return Err(Refusal::new(
                ErrorCode::UnsupportedCommand,
                format!("{} is not a command that runs in a transaction", readable(&name.0)),
            ));
        };
        if args.len() < command.args_min || args.len() > command.args_max {
            return Err(Refusal::new(
                ErrorCode::BadArguments,
                format!("{command}: wrong number of arguments ({})", args.len()),
            ));
        }
        let (handler, reply) = canonicalise(command, &mut args)?;
        let mut op = Self { command, handler, args, reply, expect: None };
        if let Some(expect) = expect {
            op.expecting(expect)?;
        }
        Ok(op)
    }
}

fn check_expectation(op: &ValidatedOp, expect: &Expect) -> Result<(), Refusal> {
    let bad = |detail: String| {
        Err(Refusal::new(ErrorCode::BadArguments, format!("{}: expect: {detail}", op.command)))
    };
    if op.reply == ReplyKind::Array && expect.compares_values() {
        return bad("a reply that is an array can only be asked whether it `exists`".to_owned());
    }
    if op.command.name == "XADD" {
        return bad("the id of a stream entry may be known only when it is applied".to_owned());
    }
    if expect.exists.is_some() && matches!(op.command.name, "GETRANGE" | "TTL" | "PTTL" | "TYPE") {
        return bad("`exists` is asked of EXISTS".to_owned());
    }
    Ok(())
}

/// Checks what is the same for every op: that a condition says something, and holds numbers against
/// numbers.
pub(crate) fn check_condition(of: impl Display, expect: &Expect) -> Result<(), Refusal> {
    let bad = |detail: String| {
        Err(Refusal::new(ErrorCode::BadArguments, format!("{of}: expect: {detail}")))
    };
    if *expect == Expect::default() {
        return bad("it says nothing: give it a condition, or leave it out".to_owned());
    }
    if let Some(name) = expect.null() {
        return bad(format!("`{name}` is null: say what it must be, or leave the field out"));
    }
    match expect.numeric().find(|(_, operand)| !is_float(&operand.0)) {
        Some((name, operand)) => bad(format!("`{name}` is not a number: {}", readable(&operand.0))),
        None => Ok(()),
    }
}

/// Finds the lock of a key again. Most branches have a handful of keys, where looking through them is faster than
/// hashing.
#[derive(Default)]
struct KeyIndex {
    places: HashMap<Arg, usize>,
}

impl KeyIndex {
    const LINEAR_MAX: usize = 16;

    fn lock(
        &mut self,
        locks: &mut Vec<Lock>,
        op: &ValidatedOp,
        access: Access,
    ) -> Result<(), Refusal> {
        for key in op.keys() {
            if key.0.len() > limits::KEY_BYTES_MAX {
                return Err(Refusal::new(
                    ErrorCode::TooLarge,
                    format!(
                        "{}: the key has {} bytes; at most {} are allowed",
                        op.command,
                        key.0.len(),
                        limits::KEY_BYTES_MAX
                    ),
                ));
            }
            if let Some(place) = self.find(locks, key) {
                let known = &mut locks[place].access;
                if op.handler == OpRequest::DIGEST_HANDLER && *known != Access::Shared {
                    let key = readable(&key.0);
                    let detail = format!(
                        "{}: the branch changes {key} before it; ask for the digest first",
                        op.command
                    );
                    return Err(Refusal::new(ErrorCode::BadArguments, detail));
                }
                let is_escrow = |access| matches!(access, Access::Escrow(_));
                if *known != access && (is_escrow(*known) || is_escrow(access)) {
                    let key = readable(&key.0);
                    let detail = format!("{}: {key} is in escrow, for nothing else", op.command);
                    return Err(Refusal::new(ErrorCode::BadArguments, detail));
                }
                *known = access.max(*known);
                continue;
            }
            check_keys(locks.len() + 1)?;
            locks.push(Lock { key: key.clone(), access });
        }
        Ok(())
    }

    fn find(&mut self, locks: &[Lock], key: &Arg) -> Option<usize> {
        if locks.len() <= Self::LINEAR_MAX {
            return locks.iter().position(|lock| lock.key == *key);
        }
        for (place, lock) in locks.iter().enumerate().skip(self.places.len()) {
            self.places.insert(lock.key.clone(), place);
        }
        self.places.get(key).copied()
    }
}
