//! Brings the arguments of each command into the one form that the participant's script takes, so that the script has
//! neither options to parse nor integers to check.

use crate::code::ErrorCode;
use crate::command::argument::{double, float, integer, not_in_pairs, stream_id, text, wrong};
use crate::command::options;
use crate::command::request::OpRequest;
use crate::command::shadow;
use crate::command::table::{Command, ReplyKind, RunBy};
use crate::limits;
use crate::outcome::Refusal;
use crate::value::Arg;

/// Rewrites the arguments, and names the handler and the kind of the reply.
pub(super) fn canonicalise(
    command: &'static Command,
    args: &mut Vec<Arg>,
) -> Result<(&'static str, ReplyKind), Refusal> {
    let same = |handler: &'static str| Ok((handler, command.reply));
    if command.run_by != RunBy::Handler {
        return shadow::check(command, args).map(|reply| (command.name, reply));
    }
    in_newer_words(command, args)?;
    match command.name {
        "INCR" | "DECR" | "INCRBY" | "DECRBY" => {
            increment(command, args)?;
            same("INCRBY")
        }
        "INCRBYFLOAT" => {
            float(command, "the increment", &args[1])?;
            same("INCRBYFLOAT")
        }
        "SET" | "SETEX" | "PSETEX" => options::set(command, args).map(|()| ("SET", command.reply)),
        "GETSET" => {
            args.extend(["", "G", "", ""].map(Arg::from));
            same("SET")
        }
        "GETRANGE" | "SUBSTR" => get_range(command, args).and_then(|()| same("GETRANGE")),
        "SETRANGE" => set_range(command, args).and_then(same),
        "MSET" => pairs(command, args).and_then(|()| same("MSET")),
        "HSET" | "HMSET" => pairs(command, &args[1..]).and_then(|()| same(command.name)),
        "UNLINK" => same("DEL"),
        "ASSENT.DIGEST" => same(OpRequest::DIGEST_HANDLER),
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
        "LREM" | "LSET" => count_or_index(command, &args[1]).and_then(|()| same(command.name)),
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
        name if is_zrange(name) => {
            options::zrange(command, args).map(|()| ("ZRANGE", command.reply))
        }
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

fn is_zrange(name: &str) -> bool {
    name.starts_with("ZRANGE") || name.starts_with("ZREVRANGE")
}

/// The arguments of commands that a later one took the place of, as that one has them.
fn in_newer_words(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    match command.name {
        "SETEX" | "PSETEX" => {
            // The time stands before the value.
            args.insert(1, Arg::from(if command.name == "SETEX" { "EX" } else { "PX" }));
            args[1..].rotate_right(1);
            Ok(())
        }
        name if name != "ZRANGE" && is_zrange(name) => options::older_zrange(command, args),
        _ => Ok(()),
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

/// Two places from the end that are the wrong way round are an empty range, whatever the length.
/// That is seen here, where all integers can be compared, and before they are clipped to the value.
fn get_range(command: &Command, args: &mut [Arg]) -> Result<(), Refusal> {
    let start = integer(command, "the start", &args[1])?;
    let end = integer(command, "the end", &args[2])?;
    if end < start && start < 0 {
        (args[1], args[2]) = (text(1), text(0));
    }
    Ok(())
}

/// To set nothing is to ask for the length, however far behind the end.
fn set_range(command: &Command, args: &mut Vec<Arg>) -> Result<&'static str, Refusal> {
    let Ok(offset) = usize::try_from(integer(command, "the offset", &args[1])?) else {
        return Err(wrong(ErrorCode::OutOfRange, command, "the offset is negative"));
    };
    if args[2].0.is_empty() {
        args.truncate(1);
        return Ok("STRLEN");
    }
    let most = limits::BRANCH_BYTES_MAX;
    if offset.saturating_add(args[2].0.len()) > most {
        let detail = format!("the value would exceed the maximum allowed size, {most} bytes");
        return Err(wrong(ErrorCode::TooLarge, command, detail));
    }
    Ok("SETRANGE")
}

fn hash_float(command: &Command, arg: &Arg) -> Result<(), Refusal> {
    float(command, "the increment", arg)?;
    let unsigned = match arg.0.as_slice() {
        [b'+' | b'-', rest @ ..] => rest,
        all => all,
    };
    if unsigned.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'i')) {
        // The words of Redis for it, which its clients know.
        let detail = "the increment is infinite: value is NaN or Infinity";
        return Err(wrong(ErrorCode::NotAFloat, command, detail));
    }
    Ok(())
}

fn pairs(command: &Command, args: &[Arg]) -> Result<(), Refusal> {
    if args.len().is_multiple_of(2) {
        return Ok(());
    }
    Err(not_in_pairs(command))
}

fn count_or_index(command: &Command, arg: &Arg) -> Result<(), Refusal> {
    let count = integer(command, "the count or index", arg)?;
    // Redis from 8.0 refuses it, and would at the commit.
    if command.name == "LREM" && count == i64::MIN {
        return Err(wrong(ErrorCode::OutOfRange, command, "the count is out of range"));
    }
    Ok(())
}

fn pop_count(command: &Command, args: &[Arg]) -> Result<ReplyKind, Refusal> {
    let Some(count) = args.get(1) else { return Ok(ReplyKind::Bytes) };
    if integer(command, "the count", count)? < 0 {
        return Err(wrong(ErrorCode::OutOfRange, command, "the count must be positive"));
    }
    Ok(ReplyKind::Array)
}
