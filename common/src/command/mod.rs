//! The typed set of Redis commands that run in a transaction: names, arguments, keys, access, replies, expectations.
//!
//! [`OpRequest`] is what arrives; [`ValidatedBranch`] is what is staged. Everything about an op that can be checked
//! without the data is checked once, here, as Redis checks it: arity, syntax, integers, floats, times. What is left for
//! the participant's script are the answers that depend on data.
//!
//! Where a branch differs from the same commands in `MULTI`/`EXEC`, on purpose:
//! - an op that errs refuses the branch, instead of letting the others go on;
//! - the id of `XADD *` is known when it is applied: in two phases its reply is `null`, it takes no `expect`, and the
//!   stream's entries cannot be read, deleted or added to with an id of one's own behind it in the same branch; behind
//!   `MAXLEN ~` its length cannot be read either. `MINID` and `LIMIT` of `XADD` are refused;
//! - a key may expire at most at 2^52 ms, the year 144,680 (`overflow`);
//! - more than [`crate::limits::MATERIALISED_ELEMENTS_MAX`] elements are not read in one op, and a string of more than
//!   [`crate::limits::BRANCH_BYTES_MAX`] bytes is not read at all (`too_large`); a branch takes no more than
//!   [`crate::limits::BRANCH_STEPS_MAX`] steps (`too_much_work`) and reads no more than
//!   [`crate::limits::REPLY_BYTES_MAX`] bytes (`reply_too_large`);
//! - `ASSENT.DIGEST` is no command of Redis: a digest of what a key is, of whatever type (or nil
//!   where there is none), for who wants to know later whether it is the same. It is of the key as
//!   it was before the branch, and is refused behind an op that may change it; a key above
//!   [`crate::limits::DIGEST_BYTES_MAX`] has none (`too_large`);
//! - a stream id is written without leading zeros or a plus.
//!
//! This module knows nothing of Lua, of locks that are held, or of replies; it must never accept an op whose effect the
//! participant cannot resolve.

mod argument;
mod canonical;
mod escrow;
mod expect;
mod number;
mod op;
mod options;
mod request;
mod shadow;
mod table;
#[cfg(test)]
mod tests;
mod validate;

pub use escrow::{Claim, Range, Reserved, Step};
pub use expect::{Comparison, Expect};
pub use number::{is_float, parse_i64};
pub use op::ValidatedOp;
pub use request::OpRequest;
pub use table::{Access, COMMANDS, Command, EscrowKind, Family, Keys, ReplyKind, RunBy, find};
pub(crate) use validate::check_condition;
pub use validate::{Lock, ValidatedBranch};
