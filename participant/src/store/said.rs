//! What Redis says in an error, and what that means to who asked.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Call, Prepared, Refusal};
use redis::RedisError;

use super::{StoreError, StoreOptions, rights};

/// What an error of a whole call means.
pub(super) enum CallError {
    /// The script is not there, and did not run.
    NoScript,
    /// Redis refused before the first write.
    Refused(Refusal),
    /// Not known; the connection is worth keeping.
    Unknown(String),
    /// Not known, and the connection is of no more use.
    Broken(String),
}

/// The error codes of Redis with which a script is refused before it wrote anything.
const REFUSES: [&str; 11] = [
    "CROSSSLOT",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
    "MOVED",
];

/// Whether Redis says that this server is no master any more, or that its data is being replaced.
/// In a script it says so to the command that writes, so that only the text is left of it.
pub(super) fn is_demoted(said: &str) -> bool {
    ["READONLY", "MASTERDOWN", "LOADING"].iter().any(|code| said.contains(code))
}

/// The code of what a script met, where the script's own error has only its text: Redis 6.2 says
/// `Error running script (call to f_…): @user_script:1: @user_script: 1: -NOREPLICAS Not enough…`.
fn code_in_script(said: &str) -> Option<&str> {
    let (_, met) = said.split_once("Error running script")?;
    let (_, met) = met.split_once(": -")?;
    met.split(' ').next()
}

/// What Redis said to a command of a script, without the place in the script that Redis 6.2 puts
/// before it, as in `Redis refuses SET: @user_script: 1103: -OOM command not allowed….\r\n`.
pub(super) fn said_outside(said: &str) -> String {
    let met = said.rsplit_once("@user_script: ").and_then(|(before, met)| {
        let (line, met) = met.split_once(": ")?;
        line.parse::<u32>().ok()?;
        // Of an error of the whole script that is more about the script.
        let before = before.split("Error running script").next().filter(|it| *it == before);
        Some(format!("{}{}", before.unwrap_or_default(), met.trim_start_matches('-')))
    });
    met.as_deref().unwrap_or(said).trim_end().to_owned()
}

/// The code of an error of the server, whose text this is.
fn code_of<'a>(error: &'a RedisError, text: &'a str) -> Option<&'a str> {
    error.code().map(|code| code_in_script(text).unwrap_or(code))
}

/// Whether a server that is there refuses a command for good reasons of its own: the code of that.
pub(super) fn refuses(error: &RedisError) -> Option<ErrorCode> {
    match code_of(error, &error.to_string())? {
        "OOM" => Some(ErrorCode::RedisOutOfMemory),
        "NOREPLICAS" | "MISCONF" => Some(ErrorCode::RedisRefuses),
        "NOPERM" => Some(ErrorCode::RedisNoPermission),
        _ => None,
    }
}

/// The command that Redis says the user may not run, as a rule of an ACL names it. It is said as
/// `… no permissions to run the 'info' command`.
pub(super) fn command_denied(said: &str) -> Option<String> {
    let (_, denied) = said.split_once("to run the '")?;
    let (name, _) = denied.split_once('\'')?;
    Some(name.to_lowercase())
}

pub(super) fn classify(error: &RedisError) -> CallError {
    let whole = error.to_string();
    let text = said_outside(&whole);
    match code_of(error, &whole) {
        Some("NOSCRIPT") => CallError::NoScript,
        Some("NOPERM") => CallError::Refused(Refusal::new(ErrorCode::RedisNoPermission, text)),
        Some("OOM") => CallError::Refused(Refusal::new(ErrorCode::RedisOutOfMemory, text)),
        Some(code) if REFUSES.contains(&code) => {
            CallError::Refused(Refusal::new(ErrorCode::RedisRefuses, text))
        }
        Some(_) => CallError::Unknown(text),
        // Timeouts too: the reply may still come, and would be taken for the next call's.
        None => CallError::Broken(text),
    }
}

/// What an error of something that only reads means to the branch that it was asked for.
pub(super) fn unevaluated(error: &RedisError) -> Call<Prepared> {
    match classify(error) {
        CallError::Refused(refusal) => Call::Refused(refusal),
        CallError::NoScript => Call::Unknown("the script could not be loaded".to_owned()),
        CallError::Unknown(why) | CallError::Broken(why) => Call::Unknown(why),
    }
}

pub(super) fn unavailable(options: &StoreOptions, error: &RedisError) -> StoreError {
    let (address, reason) = (options.address(), error.to_string());
    match refuses(error) {
        Some(code) => StoreError::Refuses { address, code, reason },
        None => StoreError::Unavailable { address, reason },
    }
}

/// Why a server does not show what must be known of it: where that is a right of the agent's user,
/// with the command that gives it.
pub(super) fn not_shown(options: &StoreOptions, user: &str, error: &RedisError) -> StoreError {
    let found = unavailable(options, error);
    let right = command_denied(&error.to_string()).map(|name| rights::quoted(&name));
    match (found, right) {
        (StoreError::Refuses { address, code, reason }, Some(right)) => {
            let user = rights::quoted(user);
            let reason = format!("{reason}; allow it: redis-cli ACL SETUSER {user} +{right}");
            StoreError::Refuses { address, code, reason }
        }
        (found, _) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise *honest*: a person reads what Redis said, and not where in the script.
    #[test]
    fn the_words_of_redis_are_shown_without_the_place_in_the_script() {
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        let refused = format!("Redis refuses SET: {oom}");
        for (said, shown) in [
            (format!("Redis refuses SET: @user_script: 1103: -{oom}\r\n"), refused),
            (format!("@user_script: 7: {oom}"), oom.to_owned()),
            (
                "Error running script (call to f_1a): @user_script:1: @user_script: 1: -NOREPLICAS \
                 Not enough good replicas to write."
                    .to_owned(),
                "NOREPLICAS Not enough good replicas to write.".to_owned(),
            ),
            (oom.to_owned(), oom.to_owned()),
            ("of @user_script: nothing".to_owned(), "of @user_script: nothing".to_owned()),
        ] {
            assert_eq!(said_outside(&said), shown);
        }
    }
}
