//! `ASSENT.KEY`, `ASSENT.ID`, `ASSENT.TIMEOUT`, `ASSENT.EXPECT` and `ASSENT.INPUT`: what HTTP says
//! beside the ops.

use assent_common::time::DurationMs;
use assent_common::value::{Arg, readable};
use assent_common::wire::problem::Problem;
use assent_common::wire::too_deep_at;
use assent_common::{ErrorCode, ParticipantName, limits};
use serde_json::value::RawValue;

use crate::planned::{Planned, PlannedEntry, PlannedInput};
use crate::refusal::{error, of_problem};
use crate::reply::Value;

/// Takes what was said of what is queued; `what` stands behind `ASSENT.`.
pub(crate) fn say(planned: &mut Planned, what: &[u8], args: &[Arg]) -> Result<Value, Value> {
    let done = match what {
        b"EXPECT" => return expect(planned, args),
        b"KEY" => one(args).and_then(|text| {
            planned.said.key = Some(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        b"ID" => one(args).and_then(|text| {
            planned.said.id = Some(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        b"TIMEOUT" => one(args).and_then(|text| {
            planned.said.timeout_ms = Some(timeout_ms(text)?);
            Ok(())
        }),
        _ => Err("only KEY, ID, TIMEOUT, EXPECT and INPUT can be said".to_owned()),
    };
    match done {
        Ok(()) => Ok(Value::ok()),
        Err(why) => Err(error(format!("ERR ASSENT.{}: {why}", readable(what)))),
    }
}

fn one(args: &[Arg]) -> Result<&str, String> {
    let [arg] = args else { return Err("it takes one argument".to_owned()) };
    std::str::from_utf8(&arg.0).map_err(|_| "the argument is no text".to_owned())
}

fn timeout_ms(text: &str) -> Result<u64, String> {
    let (min, max) = (limits::TIMEOUT_MIN_MS, limits::TIMEOUT_MAX_MS);
    match text.parse::<DurationMs>() {
        Ok(DurationMs(ms)) if (min..=max).contains(&ms) => Ok(ms),
        Ok(_) | Err(_) => {
            let (min, max) = (DurationMs(min), DurationMs(max));
            Err(format!("it takes a time between {min} and {max}, as in 5s"))
        }
    }
}

/// What the hook of a participant decides about, and its bytes.
pub(crate) fn input(planned: &Planned, args: &[Arg]) -> Result<(PlannedInput, usize), Value> {
    let wrong = |why: String| error(format!("ERR ASSENT.INPUT: {why}"));
    let [participant, json] = args else {
        return Err(wrong("it takes a participant and a JSON text".to_owned()));
    };
    let name = readable(&participant.0);
    let participant: ParticipantName =
        name.parse().map_err(|error| wrong(format!("participant {name:?}: {error}")))?;
    if planned.inputs.iter().any(|(known, _)| *known == participant) {
        return Err(wrong(format!("participant {participant} has an input already")));
    }
    let most = limits::INPUT_BYTES_MAX;
    if json.0.len() > most {
        let why = format!("`input` has more than {most} bytes");
        return Err(of_problem(&Problem::new(ErrorCode::TooLarge, why)));
    }
    if too_deep_at(&json.0, limits::JSON_DEPTH_MAX).is_some() {
        let most = limits::JSON_DEPTH_MAX;
        return Err(wrong(format!("more than {most} arrays and objects inside each other")));
    }
    // The words of the parser may quote the input.
    let parsed: Result<Box<RawValue>, _> = serde_json::from_slice(&json.0);
    let input = parsed.map_err(|_| wrong("the input is no JSON".to_owned()))?;
    Ok(((participant, input), json.0.len()))
}

/// What the reply of the op before must be. Said again, both must hold.
fn expect(planned: &mut Planned, args: &[Arg]) -> Result<Value, Value> {
    const USAGE: &str = "ERR ASSENT.EXPECT: it takes EQ, NE, GT, GE, LT or LE and a value, or one \
                         of NIL, NOTNIL, EXISTS, MISSING";
    let last = planned.entries.iter_mut().rev().find_map(|entry| match entry {
        PlannedEntry::Op(op) => Some(op),
        PlannedEntry::Reply(_) | PlannedEntry::Input => None,
    });
    let Some(op) = last else {
        return Err(error("ERR ASSENT.EXPECT stands behind the command that it is about"));
    };
    let Some(checked) = op.branch.ops.first_mut() else { return Err(error(USAGE)) };
    let mut expect = checked.expect.clone().unwrap_or_default();
    let word = args.first().map(|word| word.0.to_ascii_uppercase()).unwrap_or_default();
    let said = match (&word[..], &args[1.min(args.len())..]) {
        (b"EQ", [value]) => set(&mut expect.eq, Some(value.clone())),
        (b"NE", [value]) => set(&mut expect.ne, Some(value.clone())),
        (b"GT", [value]) => set(&mut expect.gt, Some(value.clone())),
        (b"GE", [value]) => set(&mut expect.ge, Some(value.clone())),
        (b"LT", [value]) => set(&mut expect.lt, Some(value.clone())),
        (b"LE", [value]) => set(&mut expect.le, Some(value.clone())),
        (b"NIL", []) => set(&mut expect.eq, None),
        (b"NOTNIL", []) => set(&mut expect.ne, None),
        (b"EXISTS", []) => set(&mut expect.exists, Some(true)),
        (b"MISSING", []) => set(&mut expect.exists, Some(false)),
        _ => return Err(error(USAGE)),
    };
    if !said {
        let word = readable(&word);
        return Err(error(format!("ERR ASSENT.EXPECT: {word} was said of this command before")));
    }
    let said = checked.expecting(expect);
    said.map(|()| Value::ok()).map_err(|refusal| of_problem(&Problem::from(refusal)))
}

/// Whether nothing was there.
fn set<T>(field: &mut Option<Option<T>>, value: Option<T>) -> bool {
    field.replace(value).is_none()
}
