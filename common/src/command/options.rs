//! The commands with options: each parser takes what Redis 7.0 takes, in any order and case, and leaves the options in
//! fixed places. What cannot be resolved exactly is refused here.

use crate::code::ErrorCode;
use crate::command::argument::{double, integer, is, stream_id, text, wrong};
use crate::command::table::{Command, ReplyKind};
use crate::outcome::Refusal;
use crate::value::{Arg, readable};

/// The latest time that a key may expire at, and the longest time that it may live, in
/// milliseconds. Redis goes on to 2^63; a script counts in doubles, exact to 2^53, and the year
/// 144,680 is enough (`overflow`).
const EXPIRY_MS_MAX: i64 = 1 << 52;

fn syntax(command: &Command, arg: &Arg) -> Refusal {
    let detail = format!("syntax error at {}", readable(&arg.0));
    wrong(ErrorCode::BadArguments, command, detail)
}

fn conflict(command: &Command, detail: &str) -> Refusal {
    wrong(ErrorCode::BadArguments, command, detail)
}

/// `SET key value …` becomes `key value condition get ttl_kind ttl`: the condition is `N`, `X` or empty; get is `G` or
/// empty; the kind is `K` (keep), `R` (relative, ms), `A` (absolute, ms) or empty.
pub(super) fn set(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    if args.len() == 2 {
        args.extend(["", "", "", ""].map(Arg::from));
        return Ok(());
    }
    let (mut condition, mut get, mut keep) = ("", "", false);
    let mut ttl: Option<(&'static str, usize)> = None;
    let mut at = 2;
    while at < args.len() {
        let arg = &args[at];
        let unit = ["EX", "PX", "EXAT", "PXAT"].into_iter().find(|unit| is(arg, unit));
        if is(arg, "NX") && condition != "X" {
            condition = "N";
        } else if is(arg, "XX") && condition != "N" {
            condition = "X";
        } else if is(arg, "GET") {
            get = "G";
        } else if is(arg, "KEEPTTL") && ttl.is_none() {
            keep = true;
        } else if let Some(unit) = unit
            && !keep
            && ttl.is_none_or(|(other, _)| other == unit)
            && at + 1 < args.len()
        {
            at += 1;
            ttl = Some((unit, at));
        } else {
            return Err(syntax(command, arg));
        }
        at += 1;
    }
    let (kind, ms) = match ttl {
        None => (if keep { "K" } else { "" }, Arg::from("")),
        Some((unit, place)) => {
            let kind = if unit.ends_with("AT") { "A" } else { "R" };
            (kind, text(set_ttl_ms(command, unit, &args[place])?))
        }
    };
    args.truncate(2);
    args.extend([Arg::from(condition), Arg::from(get), Arg::from(kind), ms]);
    Ok(())
}

fn set_ttl_ms(command: &Command, unit: &str, arg: &Arg) -> Result<i64, Refusal> {
    let value = integer(command, "the expire time", arg)?;
    if value <= 0 {
        return Err(bad_time(command, ErrorCode::BadArguments, "the expire time must be positive"));
    }
    let ms = if unit.starts_with('E') { value.checked_mul(1000) } else { Some(value) };
    match ms {
        Some(ms) if ms <= EXPIRY_MS_MAX => Ok(ms),
        _ => Err(bad_time(command, ErrorCode::Overflow, "the expire time is too far away")),
    }
}

/// It ends in the words of Redis, by which clients know it.
fn bad_time(command: &Command, code: ErrorCode, why: &str) -> Refusal {
    let name = command.name.to_ascii_lowercase();
    wrong(code, command, format!("{why}: ERR invalid expire time in '{name}' command"))
}

/// `EXPIRE key time [NX|XX|GT|LT]` and its kin become `key kind ms flags`: the kind is `R` or `A`, the flags are a
/// string of `N`, `X`, `G` and `L`.
pub(super) fn expire(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    let mut flags = String::new();
    for arg in &args[2..] {
        let flag = [("NX", 'N'), ("XX", 'X'), ("GT", 'G'), ("LT", 'L')]
            .into_iter()
            .find_map(|(word, flag)| is(arg, word).then_some(flag))
            .ok_or_else(|| {
                let option = readable(&arg.0);
                conflict(command, &format!("ERR Unsupported option {option}"))
            })?;
        if !flags.contains(flag) {
            flags.push(flag);
        }
    }
    if flags.contains('N') && flags.len() > 1 {
        return Err(conflict(
            command,
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if flags.contains('G') && flags.contains('L') {
        let why = "ERR GT and LT options at the same time are not compatible";
        return Err(conflict(command, why));
    }
    let value = integer(command, "the expire time", &args[1])?;
    let ms = if command.name.starts_with('P') { Some(value) } else { value.checked_mul(1000) };
    let ms = match ms {
        Some(ms) if ms <= EXPIRY_MS_MAX => ms,
        _ => return Err(bad_time(command, ErrorCode::Overflow, "the expire time is too far away")),
    };
    let kind = if command.name.ends_with("AT") { "A" } else { "R" };
    args.truncate(1);
    args.extend([Arg::from(kind), text(ms), Arg(flags.into_bytes())]);
    Ok(())
}

/// `ZADD key … score member …` becomes `key flags score member …`: the flags are a string of `N`, `X`, `G`, `L`, `C`
/// (CH) and `I` (INCR).
pub(super) fn zadd(command: &Command, args: &mut Vec<Arg>) -> Result<ReplyKind, Refusal> {
    const WORDS: [(&str, char); 6] =
        [("NX", 'N'), ("XX", 'X'), ("GT", 'G'), ("LT", 'L'), ("CH", 'C'), ("INCR", 'I')];
    let mut flags = String::new();
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let found = WORDS.into_iter().find_map(|(word, flag)| is(arg, word).then_some(flag));
        let Some(flag) = found else { break };
        if !flags.contains(flag) {
            flags.push(flag);
        }
        at += 1;
    }
    let elements = args.len() - at;
    if elements == 0 || !elements.is_multiple_of(2) {
        return Err(conflict(command, "syntax error: scores and members come in pairs"));
    }
    let has = |flag| flags.contains(flag);
    if has('N') && has('X') {
        return Err(conflict(command, "XX and NX are not compatible"));
    }
    if (has('G') && has('N')) || (has('L') && has('N')) || (has('G') && has('L')) {
        return Err(conflict(command, "GT, LT and NX are not compatible"));
    }
    if has('I') && elements > 2 {
        return Err(conflict(command, "INCR takes a single increment and member"));
    }
    let reply = if has('I') { ReplyKind::Bytes } else { command.reply };
    for score in args[at..].iter().step_by(2) {
        double(command, "the score", score)?;
    }
    args.splice(1..at, [Arg(flags.into_bytes())]);
    Ok(reply)
}

/// `ZRANGE key min max …` becomes `key by rev withscores offset count min max`: by is `I` (index), `S` (score) or `L`
/// (lex); rev and withscores are `1` or empty; min and max stand as they came.
pub(super) fn zrange(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    let (mut by, mut rev, mut scores, mut offset, mut count) = ("", "", "", 0, -1);
    let mut at = 3;
    while at < args.len() {
        let arg = &args[at];
        if is(arg, "WITHSCORES") {
            scores = "1";
        } else if is(arg, "LIMIT") && at + 2 < args.len() {
            offset = integer(command, "the offset", &args[at + 1])?;
            count = integer(command, "the count", &args[at + 2])?;
            at += 2;
        } else if is(arg, "REV") && rev.is_empty() {
            rev = "1";
        } else if is(arg, "BYSCORE") && by.is_empty() {
            by = "S";
        } else if is(arg, "BYLEX") && by.is_empty() {
            by = "L";
        } else {
            return Err(syntax(command, arg));
        }
        at += 1;
    }
    let by = if by.is_empty() { "I" } else { by };
    if by == "I" && count != -1 {
        return Err(conflict(command, "syntax error: LIMIT needs BYSCORE or BYLEX"));
    }
    if by == "L" && !scores.is_empty() {
        let detail = "syntax error: WITHSCORES is not compatible with BYLEX";
        return Err(conflict(command, detail));
    }
    for bound in &args[1..3] {
        zrange_bound(command, by, bound)?;
    }
    args.truncate(3);
    let options = [Arg::from(by), Arg::from(rev), Arg::from(scores), text(offset), text(count)];
    args.splice(1..1, options);
    Ok(())
}

/// `ZREVRANGE`, `ZRANGEBYSCORE`, `ZREVRANGEBYSCORE`, `ZRANGEBYLEX` and `ZREVRANGEBYLEX` in the
/// words of `ZRANGE`, which came later and says the same by options.
pub(super) fn older_zrange(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    let by = ["BYSCORE", "BYLEX"].into_iter().find(|by| command.name.ends_with(by));
    let mut at = 3;
    while let Some(arg) = args.get(at) {
        if is(arg, "WITHSCORES") && by != Some("BYLEX") {
            at += 1;
        } else if is(arg, "LIMIT") && by.is_some() && at + 2 < args.len() {
            at += 3;
        } else {
            return Err(syntax(command, arg));
        }
    }
    args.extend(by.map(Arg::from));
    if command.name.starts_with("ZREV") {
        args.push(Arg::from("REV"));
    }
    Ok(())
}

fn zrange_bound(command: &Command, by: &str, bound: &Arg) -> Result<(), Refusal> {
    match by {
        "I" => integer(command, "the index", bound).map(drop),
        "S" => {
            let limit = bound.0.strip_prefix(b"(").unwrap_or(&bound.0).to_vec();
            double(command, "min or max", &Arg(limit))
        }
        _ => match bound.0.as_slice() {
            [b'(' | b'[', ..] | [b'+' | b'-'] => Ok(()),
            _ => Err(conflict(command, "min or max is not a valid range of strings")),
        },
    }
}

/// `XADD key [NOMKSTREAM] [MAXLEN [=|~] n] id field value …` becomes `key id_kind ms seq nomkstream trim maxlen field
/// value …`: the kind is `*`, `P` (`ms-*`) or `E`; nomkstream is `1` or empty; trim is `=`, `~` or empty.
pub(super) fn xadd(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    let (mut nomkstream, mut trim, mut maxlen) = ("", "", 0);
    let mut at = 1;
    while at < args.len() {
        let arg = &args[at];
        if is(arg, "NOMKSTREAM") {
            nomkstream = "1";
        } else if is(arg, "MAXLEN") && at + 1 < args.len() {
            if !trim.is_empty() {
                return Err(conflict(command, "MAXLEN stands twice"));
            }
            trim = "=";
            if at + 2 < args.len() && matches!(args[at + 1].0.as_slice(), b"=" | b"~") {
                trim = if args[at + 1].0 == b"~" { "~" } else { "=" };
                at += 1;
            }
            at += 1;
            maxlen = integer(command, "the MAXLEN", &args[at])?;
            if maxlen < 0 {
                return Err(conflict(command, "MAXLEN must be positive"));
            }
        } else if is(arg, "MINID") || is(arg, "LIMIT") {
            return Err(conflict(command, "MINID and LIMIT cannot be used in a transaction"));
        } else {
            break;
        }
        at += 1;
    }
    let fields = args.len().saturating_sub(at + 1);
    if fields < 2 || !fields.is_multiple_of(2) {
        return Err(conflict(command, "wrong number of arguments: fields and values in pairs"));
    }
    let (kind, ms, seq) = xadd_id(command, &args[at])?;
    let options = [
        Arg::from(kind),
        text(ms),
        text(seq),
        Arg::from(nomkstream),
        Arg::from(trim),
        text(maxlen),
    ];
    args.splice(1..=at, options);
    Ok(())
}

fn xadd_id(command: &Command, id: &Arg) -> Result<(&'static str, u64, u64), Refusal> {
    if id.0 == b"*" {
        return Ok(("*", 0, 0));
    }
    if let Some(ms) = id.0.strip_suffix(b"-*") {
        return match stream_id(command, ms)? {
            (ms, None) => Ok(("P", ms, 0)),
            _ => Err(wrong(ErrorCode::BadArguments, command, "invalid stream id")),
        };
    }
    match stream_id(command, &id.0)? {
        (0, None | Some(0)) => {
            Err(wrong(ErrorCode::StreamIdTooSmall, command, "the id must be greater than 0-0"))
        }
        (ms, seq) => Ok(("E", ms, seq.unwrap_or(0))),
    }
}

/// `XRANGE key start end [COUNT n]` becomes `key start end count`: the ids complete and inclusive, the count empty if
/// there is none.
pub(super) fn xrange(command: &Command, args: &mut Vec<Arg>) -> Result<(), Refusal> {
    // Redis looks at the ids first: of two wrong arguments the same one is named.
    let start = interval(command, &args[1], true)?;
    let end = interval(command, &args[2], false)?;
    let count = match args.len() {
        3 => Arg::from(""),
        5 if is(&args[3], "COUNT") => text(integer(command, "the count", &args[4])?.max(0)),
        _ => return Err(syntax(command, &args[3])),
    };
    args.truncate(1);
    args.extend([
        text(format_args!("{}-{}", start.0, start.1)),
        text(format_args!("{}-{}", end.0, end.1)),
        count,
    ]);
    Ok(())
}

/// One end of an interval of stream ids, made inclusive.
fn interval(command: &Command, arg: &Arg, is_start: bool) -> Result<(u64, u64), Refusal> {
    match arg.0.as_slice() {
        b"-" => return Ok((0, 0)),
        b"+" => return Ok((u64::MAX, u64::MAX)),
        _ => {}
    }
    let exclusive = arg.0.strip_prefix(b"(");
    let (ms, seq) = stream_id(command, exclusive.unwrap_or(&arg.0))?;
    let seq = seq.unwrap_or(if is_start { 0 } else { u64::MAX });
    if exclusive.is_none() {
        return Ok((ms, seq));
    }
    let next = match (is_start, seq) {
        (true, u64::MAX) => ms.checked_add(1).map(|ms| (ms, 0)),
        (true, seq) => Some((ms, seq + 1)),
        (false, 0) => ms.checked_sub(1).map(|ms| (ms, u64::MAX)),
        (false, seq) => Some((ms, seq - 1)),
    };
    next.ok_or_else(|| wrong(ErrorCode::BadArguments, command, "invalid id for the interval"))
}
