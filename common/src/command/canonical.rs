//! Brings the arguments of each command into the one form that the participant's script takes, so that the script has
//! neither options to parse nor integers to check.

use crate::code::ErrorCode;
use crate::command::number::{fits_f64, is_float, leaves_long_double, parse_i64, parse_u64};
use crate::command::options;
use crate::command::table::{Command, ReplyKind};
use crate::outcome::Refusal;
use crate::value::{Arg, readable};

/// A refusal for an argument.
pub(super) fn wrong(code: ErrorCode, command: &Command, detail: impl AsRef<str>) -> Refusal {
    Refusal::new(code, format!("{command}: {}", detail.as_ref()))
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

fn float(command: &Command, what: &str, arg: &Arg) -> Result<(), Refusal> {
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

/// Rewrites the arguments, and names the handler and the kind of the reply.
pub(super) fn canonicalise(
    command: &'static Command,
    args: &mut Vec<Arg>,
) -> Result<(&'static str, ReplyKind), Refusal> {
    let same = |handler: &'static str| Ok((handler, command.reply));
    match command.name {
        "INCR" | "DECR" | "INCRBY" | "DECRBY" => {
            increment(command, args)?;
            same("INCRBY")
        }
        "INCRBYFLOAT" => {
            float(command, "the increment", &args[1])?;
            same("INCRBYFLOAT")
        }
        "SET" => options::set(command, args).map(|()| ("SET", command.reply)),
        "GETSET" => {
            args.extend(["", "G", "", ""].map(Arg::from));
            same("SET")
        }
        "MSET" => pairs(command, args).and_then(|()| same("MSET")),
        "HSET" => pairs(command, &args[1..]).and_then(|()| same("HSET")),
        "UNLINK" => same("DEL"),
        "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
            options::expire(command, args).map(|()| ("EXPIRE", command.reply))
        }
        "HINCRBY" => {
            integer(command, "the increment", &args[2])?;
            same("HINCRBY")
        }
        "HINCRBYFLOAT" => {
            hash_float(command, &args[2])?;
            same("HINCRBYFLOAT")
        }
        "LPOP" | "RPOP" => {
            let reply = pop_count(command, args)?;
            Ok((command.name, reply))
        }
        "LREM" | "LSET" => {
            let count = integer(command, "the count or index", &args[1])?;
            // Redis from 8.0 refuses it, and would at the commit.
            if command.name == "LREM" && count == i64::MIN {
                return Err(wrong(ErrorCode::OutOfRange, command, "the count is out of range"));
            }
            same(command.name)
        }
        "LRANGE" | "LTRIM" => {
            integer(command, "the start", &args[1])?;
            integer(command, "the end", &args[2])?;
            same(command.name)
        }
        "ZADD" => options::zadd(command, args).map(|reply| ("ZADD", reply)),
        "ZINCRBY" => {
            double(command, "the increment", &args[1])?;
            args.insert(1, Arg::from("I"));
            same("ZADD")
        }
        "ZRANGE" => options::zrange(command, args).map(|()| ("ZRANGE", command.reply)),
        "XADD" => options::xadd(command, args).map(|()| ("XADD", command.reply)),
        "XRANGE" => options::xrange(command, args).map(|()| ("XRANGE", command.reply)),
        "XDEL" => {
            for id in &mut args[1..] {
                let (ms, seq) = stream_id(command, &id.0)?;
                *id = text(format_args!("{ms}-{}", seq.unwrap_or(0)));
            }
            same("XDEL")
        }
        name => Ok((name, command.reply)),
    }
}

fn increment(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    match command.name {
        "INCR" => args.push(Arg::from("1")),
        "DECR" => args.push(Arg::from("-1")),
        "INCRBY" => drop(integer(command, "the increment", &args[1])?),
        _ => {
            let decrement = integer(command, "the decrement", &args[1])?;
            let Some(increment) = decrement.checked_neg() else {
                return Err(wrong(ErrorCode::Overflow, command, "the decrement would overflow"));
            };
            args[1] = text(increment);
        }
    }
    Ok(())
}

fn hash_float(command: &Command, arg: &Arg) -> Result<(), Refusal> {
    float(command, "the increment", arg)?;
    let unsigned = match arg.0.as_slice() {
        [b'+' | b'-', rest @ ..] => rest,
        all => all,
    };
    if unsigned.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'i')) {
        return Err(wrong(ErrorCode::NotAFloat, command, "the increment is infinite"));
    }
    Ok(())
}

fn pairs(command: &Command, args: &[Arg]) -> Result<(), Refusal> {
    if args.len().is_multiple_of(2) {
        return Ok(());
    }
    Err(wrong(ErrorCode::BadArguments, command, "wrong number of arguments: they come in pairs"))
}

fn pop_count(command: &Command, args: &[Arg]) -> Result<ReplyKind, Refusal> {
    let Some(count) = args.get(1) else { return Ok(ReplyKind::Bytes) };
    if integer(command, "the count", count)? < 0 {
        return Err(wrong(ErrorCode::OutOfRange, command, "the count must be positive"));
    }
    Ok(ReplyKind::Array)
}
