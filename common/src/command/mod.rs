//! The typed set of Redis commands that run in a transaction: names, arguments, keys, access, replies, expectations.
//!
//! [`OpRequest`] is what arrives; [`ValidatedBranch`] is what is staged. Everything about an op that can be checked
//! without the data is checked once, here, as Redis checks it: arity, syntax, integers, floats, times. What is left for
//! the participant's script are the answers that depend on data.
//!
//! This module knows nothing of Lua, of locks that are held, or of replies; it must never accept an op whose effect the
//! participant cannot resolve.

mod canonical;
mod expect;
mod number;
mod options;
mod request;
mod table;
#[cfg(test)]
mod tests;
mod validate;

pub use expect::{Comparison, Expect};
pub use number::{is_float, parse_i64};
pub use request::OpRequest;
pub use table::{Access, COMMANDS, Command, Family, Keys, ReplyKind};
pub use validate::{EXPIRY_MS_MAX, Lock, ValidatedBranch, ValidatedOp};
