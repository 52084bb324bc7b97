//! The commands without a handler, which Redis itself runs: where their keys stand, and what of
//! their arguments must be known before they run. All other faults Redis names itself.

use crate::code::ErrorCode;
use crate::command::argument::{is, not_in_pairs, wrong};
use crate::command::number::parse_i64;
use crate::command::table::{Command, Keys, ReplyKind};
use crate::limits;
use crate::outcome::Refusal;
use crate::value::{Arg, readable};

/// `GET #` of one `SORT`: each says every element once more.
const SORT_GETS_MAX: usize = 16;

/// Where keys stand among the arguments: perhaps at one place before all others; then so many, from
/// a place on, every so many places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyPlaces {
    lead: Option<usize>,
    from: usize,
    step: usize,
    count: usize,
}

impl KeyPlaces {
    const fn run(from: usize, step: usize, count: usize) -> Self {
        Self { lead: None, from, step, count }
    }

    /// Those of a command. Of arguments that [`check`] refuses they may be wrong.
    pub(super) fn of(command: &Command, args: &[Arg]) -> Self {
        let counted = |at: usize| args.get(at).and_then(count).unwrap_or(0);
        match command.keys {
            Keys::First => Self::run(0, 1, 1),
            Keys::All => Self::run(0, 1, usize::MAX),
            Keys::EveryOther => Self::run(0, 2, usize::MAX),
            Keys::FirstTwo => Self::run(0, 1, 2),
            Keys::Second => Self::run(1, 1, 1),
            Keys::AfterFirst => Self::run(1, 1, usize::MAX),
            Keys::Counted => Self::run(1, 1, counted(0)),
            Keys::CountedPairs => Self::run(1, 2, counted(0)),
            Keys::FirstAndCounted => Self { lead: Some(0), ..Self::run(2, 1, counted(1)) },
            Keys::Streams => {
                let from = streams(command, args).unwrap_or(args.len());
                Self::run(from, 1, (args.len() - from) / 2)
            }
            Keys::FirstAndStore => match store(command, args) {
                Some(place) => Self { lead: Some(0), ..Self::run(place, 1, 1) },
                None => Self::run(0, 1, 1),
            },
        }
    }

    /// The places, from 0.
    pub(super) fn places(self, args: usize) -> impl Iterator<Item = usize> {
        let run = (self.from..args).step_by(self.step).take(self.count);
        self.lead.into_iter().filter(move |lead| *lead < args).chain(run)
    }
}

fn count(arg: &Arg) -> Option<usize> {
    parse_i64(&arg.0).and_then(|count| usize::try_from(count).ok())
}

fn says(args: &[Arg], word: &str) -> bool {
    args.iter().any(|arg| is(arg, word))
}

/// Where the options of `XREAD` and `XREADGROUP` begin: behind the names of a group and a consumer,
/// which may be any words.
fn stream_options(command: &Command) -> usize {
    if command.name == "XREADGROUP" { 3 } else { 0 }
}

/// Where their keys begin.
fn streams(command: &Command, args: &[Arg]) -> Option<usize> {
    let mut at = stream_options(command);
    while let Some(arg) = args.get(at) {
        if is(arg, "STREAMS") {
            return Some(at + 1);
        }
        at += if is(arg, "NOACK") { 1 } else { 2 };
    }
    None
}

/// Where the key that `STORE` names stands; of two, the last one counts.
fn store(command: &Command, args: &[Arg]) -> Option<usize> {
    let mut at = match command.name {
        "GEORADIUS" => 5,
        "GEORADIUSBYMEMBER" => 4,
        _ => 1,
    };
    let mut found = None;
    while let Some(arg) = args.get(at) {
        let words = match &*arg.0.to_ascii_uppercase() {
            b"STORE" | b"STOREDIST" => {
                found = Some(at + 1).filter(|place| *place < args.len()).or(found);
                2
            }
            b"LIMIT" => 3,
            b"BY" | b"GET" | b"COUNT" => 2,
            _ => 1,
        };
        at += words;
    }
    found
}

/// Refuses what would name keys that are not known, wait, or take memory without a bound. Says what
/// the command replies.
pub(super) fn check(command: &Command, args: &[Arg]) -> Result<ReplyKind, Refusal> {
    let bad = |detail: &str| Err(wrong(ErrorCode::BadArguments, command, detail));
    match command.keys {
        Keys::Counted => counted(command, args, 0, 1)?,
        Keys::CountedPairs => counted(command, args, 0, 2)?,
        Keys::FirstAndCounted => counted(command, args, 1, 1)?,
        Keys::EveryOther if !args.len().is_multiple_of(2) => {
            return Err(not_in_pairs(command));
        }
        Keys::Streams => match streams(command, args) {
            Some(from) if args.len() > from && (args.len() - from).is_multiple_of(2) => {
                if says(&args[stream_options(command)..from], "BLOCK") {
                    return bad("BLOCK waits for others, and would hold locks meanwhile");
                }
            }
            Some(_) => {
                let why = "ERR Unbalanced list of streams: for each stream key an ID must be given";
                return Err(wrong(ErrorCode::CommandRefused, command, why));
            }
            None => return Err(wrong(ErrorCode::CommandRefused, command, "ERR syntax error")),
        },
        _ => {}
    }
    match command.name {
        "COPY" if args.len() > 2 && !is(&args[2], "REPLACE") => {
            return bad("syntax error: only REPLACE may follow; there is one database");
        }
        "SORT" | "SORT_RO" => sort(command, args)?,
        "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" => choices(command, args)?,
        "SETBIT" => offset(command, &args[1], 1)?,
        "BITFIELD" => {
            for pair in args[1..].windows(2) {
                if let [b'i' | b'u' | b'I' | b'U', bits @ ..] = &pair[0].0[..] {
                    let bits = parse_i64(bits).unwrap_or(1);
                    let many = pair[1].0.starts_with(b"#");
                    offset(command, &pair[1], if many { bits } else { 1 })?;
                }
            }
        }
        _ => {}
    }
    Ok(reply(command, args))
}

/// The count of keys, which stands at this place, and how many words belong to each.
fn counted(command: &Command, args: &[Arg], at: usize, words: usize) -> Result<(), Refusal> {
    let behind = (args.len() - at - 1) / words;
    let is_newer = matches!(command.name, "SINTERCARD" | "LMPOP" | "ZMPOP");
    let why = match args.get(at).and_then(count) {
        Some(keys) if (1..=behind).contains(&keys) => return Ok(()),
        Some(keys) if keys > behind && command.name == "SINTERCARD" => {
            "ERR Number of keys can't be greater than number of args".to_owned()
        }
        Some(keys) if keys > behind => "ERR syntax error".to_owned(),
        _ if is_newer => "ERR numkeys should be greater than 0".to_owned(),
        _ if command.name == "MSETEX" => "ERR invalid numkeys value or out of range".to_owned(),
        _ if args.get(at).is_some_and(|arg| parse_i64(&arg.0).is_none()) => {
            "ERR value is not an integer or out of range".to_owned()
        }
        _ => {
            let name = command.name.to_ascii_lowercase();
            format!("ERR at least 1 input key is needed for '{name}' command")
        }
    };
    // In the words of Redis, by which clients know it.
    Err(wrong(ErrorCode::CommandRefused, command, why))
}

fn sort(command: &Command, args: &[Arg]) -> Result<(), Refusal> {
    let mut gets = 0;
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let next = args.get(at + 1);
        let is_of_others = match next {
            // A name without a star is that of no key.
            Some(pattern) if is(arg, "BY") || is(arg, "GET") => pattern.0.contains(&b'*'),
            _ => false,
        };
        if let (true, Some(pattern)) = (is_of_others, next) {
            let pattern = readable(&pattern.0);
            let detail = format!("{pattern} names keys that are not known before it runs");
            return Err(wrong(ErrorCode::BadArguments, command, detail));
        }
        gets += usize::from(is(arg, "GET"));
        at += match &*arg.0.to_ascii_uppercase() {
            b"LIMIT" => 3,
            b"BY" | b"GET" | b"STORE" => 2,
            _ => 1,
        };
    }
    if gets > SORT_GETS_MAX {
        let detail = format!("more than {SORT_GETS_MAX} GET");
        return Err(wrong(ErrorCode::TooManyOps, command, detail));
    }
    Ok(())
}

/// How many are chosen. Redis itself refuses what cannot be turned round, or doubled.
fn choices(command: &Command, args: &[Arg]) -> Result<(), Refusal> {
    let most = if args.len() > 2 { i64::MAX / 2 } else { i64::MAX };
    match args.get(1).and_then(|count| parse_i64(&count.0)) {
        Some(count) if !(-most..=most).contains(&count) => {
            let why = "ERR value is out of range";
            Err(wrong(ErrorCode::CommandRefused, command, why))
        }
        _ => Ok(()),
    }
}

/// A place among bits, up to which the value would grow.
fn offset(command: &Command, arg: &Arg, times: i64) -> Result<(), Refusal> {
    let digits = arg.0.strip_prefix(b"#").unwrap_or(&arg.0);
    let most = limits::BRANCH_BYTES_MAX;
    let place = parse_i64(digits).map(|offset| offset.saturating_mul(times));
    // What is no number, or behind what any string can have, Redis refuses.
    if place.is_none_or(|place| !(8 * most as i64..=u32::MAX.into()).contains(&place)) {
        return Ok(());
    }
    let detail = format!("the value would exceed the maximum allowed size, {most} bytes");
    Err(wrong(ErrorCode::TooLarge, command, detail))
}

fn reply(command: &Command, args: &[Arg]) -> ReplyKind {
    let has = |count| args.len() >= count;
    match command.name {
        "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" if has(2) => ReplyKind::Array,
        "LPOS" if says(&args[2..], "COUNT") => ReplyKind::Array,
        "ZRANK" | "ZREVRANK" if has(3) => ReplyKind::Array,
        "LCS" if says(&args[2..], "IDX") => ReplyKind::Array,
        "LCS" if says(&args[2..], "LEN") => ReplyKind::Int,
        "XGROUP" if !is(&args[0], "CREATE") && !is(&args[0], "SETID") => ReplyKind::Int,
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" if store(command, args).is_some() => {
            ReplyKind::Int
        }
        _ => command.reply,
    }
}
