//! What one round writes, by the script (`lua/apply.lua`).

use std::borrow::Cow;

use redis::{Cmd, Value};

use super::super::call::PIECE_BYTES_MAX;
use super::super::connection::{Connection, NotRun};
use super::super::control::Field;
use super::super::decode::{self, Row, Rows};
use super::super::said::{CallError, classify};
use super::super::scripts::Script;
use super::exec::{Ended, Exec, Patch, strange};
use super::{Owner, WriteWay};

/// Words of one command, of which Lua can put up to 8,000 on its stack.
const WORDS_MAX: usize = 1_000;

/// The arguments of a call, as they are collected: no word may be larger than what the server takes
/// at once.
#[derive(Default)]
struct ApplyWords<'a> {
    long: Vec<&'a [u8]>,
    commands: Vec<Cow<'a, [u8]>>,
    /// How many commands there are.
    count: usize,
}

impl<'a> ApplyWords<'a> {
    fn long(&mut self, word: &'a [u8]) -> usize {
        self.long.push(word);
        self.long.len()
    }

    fn command(&mut self, words: impl Iterator<Item = &'a [u8]> + Clone) {
        let mut head = words.clone().count().to_string();
        for (place, word) in words.clone().enumerate() {
            if word.len() > PIECE_BYTES_MAX {
                head.push_str(&format!(" {}:{}", place + 1, self.long(word)));
            }
        }
        self.commands.push(Cow::Owned(head.into_bytes()));
        let short = |word: &'a [u8]| if word.len() > PIECE_BYTES_MAX { &[] } else { word };
        self.commands.extend(words.map(|word| Cow::Borrowed(short(word))));
        self.count += 1;
    }
}

impl Exec {
    /// The call of the script, and how many of its commands stand before the writes that may fail.
    fn script(&self, digest: &str, names: [&str; 2], guard: [&str; 2], asks: bool) -> (Cmd, usize) {
        let [control_key, owner_key] = names;
        let control = [control_key.as_bytes()];
        let ended = (Field::Ended.name(), self.ended.to_string());
        let mut all = ApplyWords::default();
        for words in self.gone.chunks(WORDS_MAX) {
            let words = words.iter().map(Vec::as_slice);
            all.command([&b"HDEL"[..]].into_iter().chain(control).chain(words));
        }
        // A field that nothing is written over is written by whoever may not do that, too.
        let (set, at_once) = match self.only_fences {
            true => (&b"HSETNX"[..], 2),
            false => (&b"HSET"[..], WORDS_MAX),
        };
        for words in self.kept.chunks(at_once) {
            let words = words.iter().map(Vec::as_slice);
            all.command([set].into_iter().chain(control).chain(words));
        }
        if self.ended > 0 {
            let words = [b"HINCRBY", control[0], &*ended.0, ended.1.as_bytes()];
            all.command(words.into_iter());
        }
        for pair in self.strings.chunks_exact(2) {
            all.command([&b"SET"[..], &pair[0], &pair[1]].into_iter());
        }
        let sure = all.count;
        for write in &self.writes {
            all.command(write.iter().map(|word| word.0.as_slice()));
        }
        let pieces = self.patches.iter().map(|patch| {
            let places = patch.pieces.iter().map(|piece| all.long(piece));
            places.collect::<Vec<_>>()
        });
        let pieces: Vec<Vec<usize>> = pieces.collect();
        let ApplyWords { long, commands, count } = all;
        let strings = self.strings.iter().step_by(2).map(Vec::as_slice);
        let written = self.writes.iter().filter_map(|write| Some(write.get(1)?.0.as_slice()));
        let keys: Vec<&[u8]> = strings.chain(written).collect();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(digest).arg(2 + keys.len()).arg(control_key).arg(owner_key).arg(keys);
        cmd.arg(&guard[..]).arg(if asks { "1" } else { "" }).arg(long.len());
        for word in long {
            cmd.arg(word.len().div_ceil(PIECE_BYTES_MAX));
            cmd.arg(word.chunks(PIECE_BYTES_MAX).collect::<Vec<_>>());
        }
        cmd.arg(count);
        for word in &commands {
            cmd.arg(&**word);
        }
        cmd.arg(self.patches.len());
        for (Patch { field, writes, .. }, pieces) in self.patches.iter().zip(pieces) {
            cmd.arg(field.as_slice()).arg(pieces[0]).arg(writes.len());
            for (write, piece) in writes.iter().zip(&pieces[1..]) {
                cmd.arg(sure + write + 1).arg(*piece);
            }
        }
        (cmd, sure)
    }
}

/// Runs the writes of a round by the script, on data of this incarnation.
pub(super) async fn apply(
    connection: &Connection,
    incarnation: u64,
    owner: &Owner,
    exec: &Exec,
) -> Ended {
    let names = [connection.control_key(), connection.owner_key()];
    let incarnation = incarnation.to_string();
    let guard = [&*incarnation, owner.guard.as_str()];
    // By scripts everything was asked a moment ago.
    let asks = exec.takes_memory && owner.way == WriteWay::Exec;
    let mut sure = 0;
    let answer = connection.run(Script::Apply, |digest| {
        let (command, before) = exec.script(digest, names, guard, asks);
        sure = before;
        command
    });
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(NotRun::NotLoaded(error)) => return Ended::Refused(error.to_string()),
        Err(NotRun::Failed(error)) => {
            return match classify(&error) {
                CallError::Refused(refusal) => Ended::Refused(refusal.to_string()),
                CallError::NoScript => Ended::Refused(error.to_string()),
                CallError::Unknown(_) | CallError::Broken(_) => Ended::Unknown(error),
            };
        }
    };
    match decode::rows(answer) {
        Rows::OtherIncarnation(found) => Ended::Foreign(found),
        Rows::OtherOwner => Ended::Lost,
        Rows::Unreadable => Ended::Unknown(strange("the script was not answered as such")),
        Rows::Each(items) => done(items, exec, sure),
    }
}

/// What the script says that it has done.
fn done(items: Vec<Value>, exec: &Exec, sure: usize) -> Ended {
    let unreadable = || Ended::Unknown(strange("the script was not answered as such"));
    let Some(mut row) = Row::new(Value::Array(items)) else { return unreadable() };
    match row.tag() {
        b'r' => Ended::Refused(match decode::no(&mut row, None) {
            Some(refusal) => refusal.to_string(),
            None => "Redis refuses it".to_owned(),
        }),
        b'd' => match row.take_array(1) {
            Some(said) if said.len() == sure + exec.writes.len() => {
                let failed = said[..sure].iter().find_map(|said| match said {
                    Value::ServerError(error) => Some(error.clone()),
                    _ => None,
                });
                match failed {
                    Some(error) => Ended::Unknown(error.into()),
                    None => Ended::Done { results: said[sure..].to_vec(), owned: true },
                }
            }
            _ => unreadable(),
        },
        _ => unreadable(),
    }
}
