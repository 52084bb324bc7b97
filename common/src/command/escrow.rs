//! Escrow (O'Neil, *The Escrow Transactional Method*, TODS 1986): ops that add to a counter whose value nobody needs to
//! know, only that it stays within a bound. What is pending is reserved against the bound, so that many transactions may
//! add to one counter at the same time.
//!
//! Sums are counted in 128 bits: bounds less deltas of 64 bits, and the deltas of all who hold a counter, stay far inside.

use crate::code::ErrorCode;
use crate::command::number::parse_i64;
use crate::command::table::EscrowKind;
use crate::command::{Expect, OpRequest, ValidatedOp};
use crate::outcome::Refusal;
use crate::value::{Arg, Reply, readable};

/// The commands that may be asked for in escrow, for messages.
const COMMANDS: &str = "INCR, DECR, INCRBY, DECRBY and HINCRBY";

/// What a branch asks of one counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The key.
    pub key: Arg,
    /// The field of a hash; none for the number in a string.
    pub field: Option<Arg>,
    /// The branch's ops on the counter, in order; at least one.
    pub steps: Vec<Step>,
}

/// One op in escrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// Its place among the ops of the branch.
    pub op: u32,
    /// Its command, for messages.
    pub command: &'static str,
    /// What the branch has added to the counter, with this op.
    pub sum: i64,
    /// The least that the value may be behind this op.
    pub at_least: i64,
    /// The most that it may be.
    pub at_most: i64,
}

/// What a counter may be: the least and the most of all outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// The least.
    pub low: i128,
    /// The most.
    pub high: i128,
}

/// What a lock keeps of a claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reserved {
    /// What the branch adds if it commits.
    pub delta: i64,
    /// The value must not come below this by any outcome of all who hold the counter, this branch included.
    pub floor: i128,
    /// Nor above this.
    pub ceiling: i128,
}

impl Range {
    /// The range of a value that is known.
    #[must_use]
    pub fn of(value: i64) -> Self {
        Self { low: value.into(), high: value.into() }
    }

    /// The range when this delta may be added, or not.
    #[must_use]
    pub fn with(self, delta: i64) -> Self {
        let delta = i128::from(delta);
        Self { low: self.low + delta.min(0), high: self.high + delta.max(0) }
    }

    /// The reply of an op that adds this to a counter in this range. An end beyond 64 bits is cut: no value lies there.
    #[must_use]
    pub fn reply(self, sum: i64) -> Reply {
        #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
        let cut =
            |end: i128| (end + i128::from(sum)).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Reply::Estimate { at_least: cut(self.low), at_most: cut(self.high) }
    }
}

impl Claim {
    /// What the branch adds to the counter.
    #[must_use]
    pub fn delta(&self) -> i64 {
        self.steps.last().map_or(0, |step| step.sum)
    }

    /// What the counter must be without this branch, for all of its ops to be right.
    #[must_use]
    pub fn needs(&self) -> Range {
        let low = |step: &Step| i128::from(step.at_least) - i128::from(step.sum);
        let high = |step: &Step| i128::from(step.at_most) - i128::from(step.sum);
        Range {
            low: self.steps.iter().map(low).max().unwrap_or_else(|| i64::MIN.into()),
            high: self.steps.iter().map(high).min().unwrap_or_else(|| i64::MAX.into()),
        }
    }

    /// What a lock keeps of it.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        let (delta, needs) = (self.delta(), self.needs());
        let Range { low, high } = needs.with(delta);
        Reserved { delta, floor: low, ceiling: high }
    }

    /// The no of a claim that nothing in this range satisfies: the first op that is wrong in all of it.
    #[must_use]
    pub fn refusal(&self, range: Range) -> Refusal {
        let after = |step: &Step| Range {
            low: range.low + i128::from(step.sum),
            high: range.high + i128::from(step.sum),
        };
        let is_wrong = |step: &&Step| {
            let Range { low, high } = after(step);
            high < step.at_least.into() || low > step.at_most.into()
        };
        let Some(step) = self.steps.iter().find(is_wrong) else {
            // Each op has room of its own, and no value is in all of them.
            let detail = format!("{}: its bounds leave no room", readable(&self.key.0));
            return Refusal::new(ErrorCode::ExpectationFailed, detail);
        };
        let Range { low, high } = after(step);
        let title = format!("{} {}", step.command, readable(&self.key.0));
        if high < i64::MIN.into() || low > i64::MAX.into() {
            let detail = format!("{title}: the result would leave the range of 64 bits");
            return Refusal::new(ErrorCode::Overflow, detail).at_op(step.op);
        }
        let (end, bound) = match high < step.at_least.into() {
            true => (format!("at most {high}"), format!("at least {}", step.at_least)),
            false => (format!("at least {low}"), format!("at most {}", step.at_most)),
        };
        let detail = format!("{title}: the value would be {end}, expected {bound}");
        let mut refusal = Refusal::new(ErrorCode::ExpectationFailed, detail).at_op(step.op);
        // A pair of numbers serialises.
        refusal.reply = serde_json::to_string(&range.reply(step.sum)).ok().map(Into::into);
        refusal
    }
}

/// Adds an op to the claims of its branch, and makes it the op that the participant runs: key, place of its claim from 1,
/// sum.
pub(super) fn claim(
    claims: &mut Vec<Claim>,
    place: u32,
    op: &mut ValidatedOp,
) -> Result<EscrowKind, Refusal> {
    let bad = |detail: &str| {
        Err(Refusal::new(ErrorCode::BadArguments, format!("{}: {detail}", op.command)))
    };
    let (kind, field, delta) = match (op.handler, op.args.as_slice()) {
        ("INCRBY", [_, delta]) => (EscrowKind::String, None, delta),
        ("HINCRBY", [_, field, delta]) => (EscrowKind::Hash, Some(field.clone()), delta),
        _ => return bad(&format!("`escrow` is for {COMMANDS}")),
    };
    // Integers by now.
    let delta = parse_i64(&delta.0).unwrap_or(0);
    let (at_least, at_most) = match op.expect.take() {
        None => (i64::MIN, i64::MAX),
        Some(expect) => match bounds(&expect) {
            Ok(bounds) => bounds,
            Err(detail) => return bad(&detail),
        },
    };
    let key = op.args[0].clone();
    let at = claims.iter().position(|claim| claim.key == key && claim.field == field);
    let at = at.unwrap_or_else(|| {
        claims.push(Claim { key: key.clone(), field, steps: Vec::with_capacity(1) });
        claims.len() - 1
    });
    let Some(sum) = claims[at].delta().checked_add(delta) else {
        let detail = format!("{}: the sum of the ops on the counter would overflow", op.command);
        return Err(Refusal::new(ErrorCode::Overflow, detail));
    };
    let step = Step { op: place, command: op.command.name, sum, at_least, at_most };
    claims[at].steps.push(step);
    op.handler = OpRequest::ESCROW_HANDLER;
    op.args = vec![key, number(at + 1), number(sum)];
    Ok(kind)
}

fn number(number: impl ToString) -> Arg {
    Arg(number.to_string().into_bytes())
}

/// The least and the most that an expectation allows, or what is wrong with it.
fn bounds(expect: &Expect) -> Result<(i64, i64), String> {
    if expect.eq.is_some() || expect.ne.is_some() || expect.exists.is_some() {
        return Err(
            "expect: in escrow the value is known by its bounds only: ge, gt, le, lt".into()
        );
    }
    let (mut at_least, mut at_most) = (i64::MIN, i64::MAX);
    for (name, operand) in expect.numeric() {
        let bound = parse_i64(&operand.0).and_then(|bound| match name {
            "gt" => bound.checked_add(1),
            "lt" => bound.checked_sub(1),
            _ => Some(bound),
        });
        let Some(bound) = bound else {
            let operand = readable(&operand.0);
            return Err(format!("expect: `{name}` is no bound of integers of 64 bits: {operand}"));
        };
        match name {
            "gt" | "ge" => at_least = at_least.max(bound),
            _ => at_most = at_most.min(bound),
        }
    }
    if at_least > at_most {
        return Err("expect: nothing is within these bounds".into());
    }
    Ok((at_least, at_most))
}
