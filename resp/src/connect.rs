//! What Redis clients say beside commands on keys: at connect, and to look around.

use std::sync::Arc;

use assent_client::Token;
use assent_common::command::{Access, COMMANDS, Command, Keys};
use assent_common::value::{Arg, readable};
use assent_edge::Budget;

use crate::refusal::{error, wrong_number};
use crate::reply::{RespVersion, Value};
use crate::route::Routes;

/// Bytes of a client's name.
const NAME_BYTES_MAX: usize = 256;

/// What all sessions share.
#[derive(Debug)]
pub struct Rules {
    /// Where keys lie.
    pub routes: Routes,
    /// What `AUTH` must say, if anything.
    pub token: Option<Token>,
    /// The memory that commands may hold.
    pub budget: Budget,
}

/// A client, as it has made itself known.
#[derive(Debug)]
pub(crate) struct ClientOfDoor {
    pub(crate) rules: Arc<Rules>,
    pub(crate) id: u64,
    pub(crate) version: RespVersion,
    pub(crate) is_authenticated: bool,
    /// Whether it said something before it was known, or a wrong password.
    pub(crate) was_refused: bool,
    name: Vec<u8>,
}

/// Whether a command is answered without `AUTH`.
pub(crate) fn is_open(name: &[u8]) -> bool {
    matches!(name, b"AUTH" | b"HELLO" | b"QUIT" | b"RESET")
}

/// What is said beside commands on keys.
pub(crate) fn is_known(name: &[u8]) -> bool {
    may_be_queued(name)
        || matches!(name, b"AUTH" | b"HELLO" | b"CLIENT" | b"COMMAND" | b"INFO" | b"SELECT")
}

/// What of it changes nothing that would have to wait for `EXEC`.
pub(crate) fn may_be_queued(name: &[u8]) -> bool {
    matches!(name, b"PING" | b"ECHO" | b"UNWATCH")
}

impl ClientOfDoor {
    /// One that has just come.
    pub(crate) fn new(rules: Arc<Rules>, id: u64) -> Self {
        let is_authenticated = rules.token.is_none();
        let (version, name) = (RespVersion::Resp2, Vec::new());
        Self { rules, id, version, is_authenticated, was_refused: false, name }
    }

    /// The answer to one of these.
    pub(crate) fn answer(&mut self, name: &[u8], args: &[Arg]) -> Result<Value, Value> {
        match (name, args) {
            (b"PING", []) => Ok(Value::Status("PONG".into())),
            (b"PING" | b"ECHO", [text]) => Ok(Value::bulk(&text.0)),
            // A client that was given a password expects that it is asked for.
            (b"AUTH", [_]) if self.rules.token.is_none() => Err(error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            )),
            (b"AUTH", [password]) => self.auth(b"default", &password.0).map(|()| Value::ok()),
            (b"AUTH", [user, password]) => self.auth(&user.0, &password.0).map(|()| Value::ok()),
            (b"HELLO", args) => self.hello(args),
            (b"CLIENT", [what, rest @ ..]) => self.client(&what.0.to_ascii_uppercase(), rest),
            (b"COMMAND", args) => Ok(command(args)),
            (b"INFO", _) => Ok(Value::bulk(info())),
            (b"SELECT", [index]) => match &index.0[..] {
                b"0" => Ok(Value::ok()),
                _ => Err(error("ERR DB index is out of range; there is database 0 only")),
            },
            _ => Err(wrong_number(name)),
        }
    }

    /// Any user's name will do: the token says who may speak.
    fn auth(&mut self, user: &[u8], password: &[u8]) -> Result<(), Value> {
        let Some(token) = &self.rules.token else {
            return if user == b"default" { Ok(()) } else { Err(wrong_password()) };
        };
        if !token.admits(&[b"Bearer ", password].concat()) {
            self.was_refused = true;
            return Err(wrong_password());
        }
        self.is_authenticated = true;
        Ok(())
    }

    fn hello(&mut self, args: &[Arg]) -> Result<Value, Value> {
        let mut version = self.version;
        let mut name = None;
        let mut credentials = None;
        let mut rest = args;
        if let [number, after @ ..] = rest {
            version = match &number.0[..] {
                b"2" => RespVersion::Resp2,
                b"3" => RespVersion::Resp3,
                _ => return Err(error("NOPROTO unsupported protocol version")),
            };
            rest = after;
        }
        while let [option, after @ ..] = rest {
            rest = match (&option.0.to_ascii_uppercase()[..], after) {
                (b"AUTH", [user, password, after @ ..]) => {
                    credentials = Some((user, password));
                    after
                }
                (b"SETNAME", [text, after @ ..]) => {
                    name = Some(checked_name(text)?);
                    after
                }
                _ => {
                    let option = readable(&option.0);
                    return Err(error(format!("ERR Syntax error in HELLO option '{option}'")));
                }
            };
        }
        if let Some((user, password)) = credentials {
            self.auth(&user.0, &password.0)?;
        }
        if !self.is_authenticated {
            return Err(error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                 HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
                 and select the RESP protocol version at the same time",
            ));
        }
        self.version = version;
        if let Some(name) = name {
            self.name = name;
        }
        Ok(self.about())
    }

    fn about(&self) -> Value {
        let proto = match self.version {
            RespVersion::Resp2 => 2,
            RespVersion::Resp3 => 3,
        };
        let id = i64::try_from(self.id).unwrap_or(i64::MAX);
        Value::Map(vec![
            (Value::bulk("server"), Value::bulk("assent")),
            (Value::bulk("version"), Value::bulk(env!("CARGO_PKG_VERSION"))),
            (Value::bulk("proto"), Value::Int(proto)),
            (Value::bulk("id"), Value::Int(id)),
            (Value::bulk("mode"), Value::bulk("standalone")),
            (Value::bulk("role"), Value::bulk("master")),
            (Value::bulk("modules"), Value::Array(Vec::new())),
        ])
    }

    fn client(&mut self, what: &[u8], args: &[Arg]) -> Result<Value, Value> {
        match (what, args) {
            (b"ID", []) => Ok(Value::Int(i64::try_from(self.id).unwrap_or(i64::MAX))),
            (b"GETNAME", []) if self.name.is_empty() => Ok(Value::Nil),
            (b"GETNAME", []) => Ok(Value::bulk(&self.name)),
            (b"SETNAME", [name]) => {
                self.name = checked_name(name)?;
                Ok(Value::ok())
            }
            // The library's name and version; and what concerns a cache that is not here.
            (b"SETINFO", [_, _]) | (b"NO-EVICT" | b"NO-TOUCH", [_]) => Ok(Value::ok()),
            (b"INFO", []) => {
                let (id, name) = (self.id, readable(&self.name));
                Ok(Value::bulk(format!("id={id} name={name} db=0\n")))
            }
            _ => {
                let what = readable(what);
                Err(error(format!("ERR CLIENT {what} is not served here")))
            }
        }
    }
}

fn wrong_password() -> Value {
    error("WRONGPASS invalid username-password pair or user is disabled.")
}

fn checked_name(name: &Arg) -> Result<Vec<u8>, Value> {
    if name.0.len() > NAME_BYTES_MAX || !name.0.iter().all(u8::is_ascii_graphic) {
        return Err(error(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(name.0.clone())
}

/// Clients look at the version before they use a command, and at `loading` before they use any.
fn info() -> String {
    format!(
        "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nassent_version:{}\r\n\
         # Persistence\r\nloading:0\r\n# Replication\r\nrole:master\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn command(args: &[Arg]) -> Value {
    let what = args.first().map(|what| what.0.to_ascii_uppercase());
    match (what.as_deref(), args) {
        (Some(b"COUNT"), [_]) => Value::Int(i64::try_from(COMMANDS.len()).unwrap_or(i64::MAX)),
        // redis-cli asks for them to help whoever types.
        (Some(b"DOCS"), _) => Value::Map(Vec::new()),
        (Some(b"INFO"), [_, names @ ..]) if !names.is_empty() => {
            let named = |name: &Arg| {
                let command = assent_common::command::find(&name.0);
                command.map_or(Value::NilArray, described)
            };
            Value::Array(names.iter().map(named).collect())
        }
        (None, _) | (Some(b"INFO"), _) => Value::Array(COMMANDS.iter().map(described).collect()),
        (Some(what), _) => error(format!("ERR COMMAND {} is not served here", readable(what))),
    }
}

fn described(command: &Command) -> Value {
    let least = i64::try_from(command.args_min).unwrap_or(i64::MAX - 1) + 1;
    let arity = if command.args_min == command.args_max { least } else { -least };
    let flag = if command.access == Access::Shared { "readonly" } else { "write" };
    let mut flags = vec![Value::Status(flag.into())];
    if has_movable_keys(command.keys) {
        flags.push(Value::Status("movablekeys".into()));
    }
    let (first, last, step) = key_places(command.keys);
    Value::Array(vec![
        Value::bulk(command.name.to_ascii_lowercase()),
        Value::Int(arity),
        Value::Set(flags),
        Value::Int(first),
        Value::Int(last),
        Value::Int(step),
    ])
}

/// Whether there may be keys beside those at the places that `COMMAND` tells.
const fn has_movable_keys(keys: Keys) -> bool {
    match keys {
        Keys::First | Keys::All | Keys::EveryOther | Keys::FirstTwo => false,
        Keys::Second | Keys::AfterFirst => false,
        Keys::FirstAndCounted | Keys::FirstAndStore => true,
        Keys::Counted | Keys::CountedPairs | Keys::Streams => true,
    }
}

/// The keys of a command for `COMMAND`: the first, the last, and the step.
const fn key_places(keys: Keys) -> (i64, i64, i64) {
    match keys {
        Keys::First => (1, 1, 1),
        Keys::All => (1, -1, 1),
        Keys::EveryOther => (1, -1, 2),
        Keys::FirstTwo => (1, 2, 1),
        Keys::Second => (2, 2, 1),
        Keys::AfterFirst => (2, -1, 1),
        // As far as the places are fixed.
        Keys::FirstAndCounted | Keys::FirstAndStore => (1, 1, 1),
        Keys::Counted | Keys::CountedPairs | Keys::Streams => (0, 0, 0),
    }
}
