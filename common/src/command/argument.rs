//! What one argument may be: an integer, a float, an id of a stream; and the refusal if it is not.

use crate::code::ErrorCode;
use crate::command::number::{fits_f64, is_float, leaves_long_double, parse_i64, parse_u64};
use crate::command::table::Command;
use crate::outcome::Refusal;
use crate::value::{Arg, readable};

/// A refusal for an argument.
pub(super) fn wrong(code: ErrorCode, command: &Command, detail: impl AsRef<str>) -> Refusal {
    Refusal::new(code, format!("{command}: {}", detail.as_ref()))
}

/// What comes in pairs has one argument too few.
pub(super) fn not_in_pairs(command: &Command) -> Refusal {
    let name = command.name.to_ascii_lowercase();
    // It ends as in Redis, by which clients know it.
    let detail = format!("arguments come in pairs: wrong number of arguments for '{name}' command");
    wrong(ErrorCode::BadArguments, command, detail)
}

/// Whether an argument is this word, in any case.
pub(super) fn is(arg: &Arg, word: &str) -> bool {
    arg.0.eq_ignore_ascii_case(word.as_bytes())
}

/// The integer in an argument.
pub(super) fn integer(command: &Command, what: &str, arg: &Arg) -> Result<i64, Refusal> {
    parse_i64(&arg.0).ok_or_else(|| {
        wrong(
            ErrorCode::NotAnInteger,
            command,
            format!("{what} is not an integer of 64 bits: {}", readable(&arg.0)),
        )
    })
}

/// A float that a long double can hold.
pub(super) fn float(command: &Command, what: &str, arg: &Arg) -> Result<(), Refusal> {
    if is_float(&arg.0) && !leaves_long_double(&arg.0) {
        return Ok(());
    }
    let detail = format!("{what} is not a float: {}", readable(&arg.0));
    Err(wrong(ErrorCode::NotAFloat, command, detail))
}

/// A float that is a double, as the scores of sorted sets are.
pub(super) fn double(command: &Command, what: &str, arg: &Arg) -> Result<(), Refusal> {
    float(command, what, arg)?;
    if fits_f64(&arg.0) {
        return Ok(());
    }
    let detail = format!("{what} is not within a double: {}", readable(&arg.0));
    Err(wrong(ErrorCode::NotAFloat, command, detail))
}

/// A stream id: its milliseconds and, if it is given, its sequence number.
pub(super) fn stream_id(command: &Command, text: &[u8]) -> Result<(u64, Option<u64>), Refusal> {
    let mut parts = text.splitn(2, |byte| *byte == b'-');
    let ms = parts.next().and_then(parse_u64);
    let seq = parts.next().map(parse_u64);
    match (ms, seq) {
        (Some(ms), None) => Ok((ms, None)),
        (Some(ms), Some(Some(seq))) => Ok((ms, Some(seq))),
        _ => {
            let detail = format!("invalid stream id: {}", readable(text));
            Err(wrong(ErrorCode::BadArguments, command, detail))
        }
    }
}

/// An argument that the script shall see.
pub(super) fn text(value: impl ToString) -> Arg {
    Arg(value.to_string().into_bytes())
}
