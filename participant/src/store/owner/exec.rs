//! What one round writes: a `MULTI`/`EXEC` with the control fields and the data, and the owner key
//! watched again behind it, in one breath. Where a field is to hold what a command of the same
//! round says, which no `EXEC` can do, a script runs the same commands (`lua/apply.lua`), and
//! compares the owner key by itself.

use assent_common::value::Arg;
use redis::{Cmd, Pipeline, RedisError, Value};

use super::super::Store;
use super::super::connection::Live;
use super::super::control::Field;
use super::super::decode::{self, CallError, Row, Rows};
use super::super::execute::send;
use super::super::mutants;
use super::super::packed::{RedoError, decode_redo};
use super::super::scripts::Script;
use super::Guard;

/// The writes of a round.
#[derive(Debug, Default)]
pub(super) struct Exec {
    /// Fields of the control hash that go.
    gone: Vec<Vec<u8>>,
    /// Fields of the control hash that are set, in order, each followed by its value.
    kept: Vec<Vec<u8>>,
    /// How many branches it ends.
    pub(super) ended: u32,
    /// Strings that are set, in order, each key followed by its value: one `MSET`, since each key
    /// is one branch's.
    strings: Vec<Vec<u8>>,
    /// Other writes to the data.
    writes: Vec<Vec<Arg>>,
    patches: Vec<Patch>,
}

/// A field that is set again when the writes are done, with what some of them said.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) field: Vec<u8>,
    /// Its value, cut where the results stand.
    pub(super) pieces: Vec<Vec<u8>>,
    /// Which of the writes to the data say them, in order: one less than the pieces.
    pub(super) writes: Vec<usize>,
}

/// How an `EXEC` ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ran. What Redis said to each write to the data.
    Done {
        results: Vec<Value>,
        /// Whether the owner key is watched again, and still this agent's.
        owned: bool,
    },
    /// It ran, on data of another incarnation.
    Foreign(String),
    /// It did not run: the owner key was touched.
    Lost,
    /// It did not run: Redis refused one of its commands.
    Refused(String),
    /// It may have run.
    Unknown(RedisError),
}

impl Exec {
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty()
            && self.kept.is_empty()
            && self.strings.is_empty()
            && self.writes.is_empty()
    }

    pub(super) fn delete(&mut self, field: Field<'_>) {
        self.gone.push(field.name());
    }

    pub(super) fn set(&mut self, field: Field<'_>, value: impl Into<Vec<u8>>) {
        if mutants::keeps(field) {
            self.kept.push(field.name());
            self.kept.push(value.into());
        }
    }

    /// Adds the writes of a branch; returns which of the results will be of those that may fail on
    /// foreign data.
    pub(super) fn apply(&mut self, redo: &[u8]) -> Result<std::ops::Range<usize>, RedoError> {
        let first = self.writes.len();
        for mut write in decode_redo(redo)? {
            match write.as_mut_slice() {
                [command, key, value] if command.0 == b"SET" => {
                    self.strings.push(std::mem::take(&mut key.0));
                    self.strings.push(std::mem::take(&mut value.0));
                }
                _ => self.writes.push(write),
            }
        }
        Ok(first..self.writes.len())
    }

    /// Adds the writes of a branch in their order; returns the place of the first among the
    /// results.
    pub(super) fn apply_in_order(&mut self, redo: &[u8]) -> Result<usize, RedoError> {
        let first = self.writes.len();
        self.writes.extend(decode_redo(redo)?);
        Ok(first)
    }

    /// Sets a field again when the writes are done.
    pub(super) fn patch(&mut self, patch: Patch) {
        debug_assert_eq!(patch.pieces.len(), patch.writes.len() + 1);
        self.patches.push(patch);
    }

    /// The writes that [`Exec::apply`] said the results of.
    pub(super) fn writes(&self, of: &std::ops::Range<usize>) -> &[Vec<Arg>] {
        self.writes.get(of.clone()).unwrap_or_default()
    }

    /// About how many bytes it takes on the way to Redis.
    fn bytes(&self) -> usize {
        const AROUND: usize = 16;
        let of_words =
            |words: &[Vec<u8>]| -> usize { words.iter().map(|word| word.len() + AROUND).sum() };
        let lists = [&self.gone, &self.kept, &self.strings].map(|words| of_words(words));
        let writes = self.writes.iter().flatten().map(|word| word.0.len() + AROUND);
        let patches = self.patches.iter().map(|patch| of_words(&patch.pieces));
        lists.into_iter().chain(writes).chain(patches).sum()
    }

    /// The whole pipeline, and how many of its commands stand before the `EXEC`.
    fn pipeline(&self, control_key: &str, owner_key: &str) -> (Pipeline, usize) {
        let mut pipeline = Pipeline::with_capacity(self.writes.len() + 8);
        pipeline.cmd("MULTI");
        pipeline.cmd("HGET").arg(control_key).arg(Field::Incarnation);
        if !self.gone.is_empty() {
            pipeline.add_command(command("HDEL", &[control_key], &self.gone));
        }
        if !self.kept.is_empty() {
            pipeline.add_command(command("HSET", &[control_key], &self.kept));
        }
        if self.ended > 0 {
            pipeline.cmd("HINCRBY").arg(control_key).arg(Field::Ended).arg(self.ended);
        }
        if !self.strings.is_empty() {
            pipeline.add_command(command("MSET", &[], &self.strings));
        }
        for write in &self.writes {
            let mut command = Cmd::new();
            for word in write {
                command.arg(word.0.as_slice());
            }
            pipeline.add_command(command);
        }
        let before = pipeline.len();
        pipeline.cmd("EXEC");
        pipeline.cmd(mutants::watch()).arg(owner_key);
        pipeline.cmd("GET").arg(owner_key);
        (pipeline, before)
    }

    /// The call of the script that runs the same commands, and how many of them stand before the
    /// writes that may fail.
    fn script(&self, digest: &str, names: [&str; 2], guard: [&str; 2]) -> (Cmd, usize) {
        /// Words of one command, of which Lua can put up to 8,000 on its stack.
        const WORDS_MAX: usize = 1_000;
        let [control_key, owner_key] = names;
        let hash = [("HDEL", &self.gone), ("HSET", &self.kept)];
        let of_hash = hash.iter().map(|(_, words)| words.len().div_ceil(WORDS_MAX)).sum::<usize>();
        let sure = of_hash + usize::from(self.ended > 0) + self.strings.len() / 2;
        let strings = self.strings.iter().step_by(2).map(Vec::as_slice);
        let written = self.writes.iter().filter_map(|write| Some(write.get(1)?.0.as_slice()));
        let keys: Vec<&[u8]> = strings.chain(written).collect();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(digest).arg(2 + keys.len()).arg(control_key).arg(owner_key).arg(keys);
        cmd.arg(&guard[..]).arg(sure + self.writes.len());
        for (name, words) in hash {
            for words in words.chunks(WORDS_MAX) {
                cmd.arg(2 + words.len()).arg(name).arg(control_key).arg(words);
            }
        }
        if self.ended > 0 {
            cmd.arg(4).arg("HINCRBY").arg(control_key).arg(Field::Ended).arg(self.ended);
        }
        for pair in self.strings.chunks_exact(2) {
            cmd.arg(3).arg("SET").arg(pair);
        }
        for write in &self.writes {
            cmd.arg(write.len());
            for word in write {
                cmd.arg(word.0.as_slice());
            }
        }
        cmd.arg(self.patches.len());
        for Patch { field, pieces, writes } in &self.patches {
            cmd.arg(field.as_slice()).arg(pieces[0].as_slice()).arg(writes.len());
            for (write, piece) in writes.iter().zip(&pieces[1..]) {
                cmd.arg(sure + write + 1).arg(piece.as_slice());
            }
        }
        (cmd, sure)
    }

    /// How many commands stand before the writes that may fail.
    fn sure_commands(&self) -> usize {
        let lists = [&self.gone, &self.kept, &self.strings];
        1 + usize::from(self.ended > 0) + lists.iter().filter(|list| !list.is_empty()).count()
    }
}

/// A command of many words, in memory that is asked for once.
fn command(name: &str, first: &[&str], words: &[Vec<u8>]) -> Cmd {
    let bytes = words.iter().map(Vec::len).sum::<usize>();
    let own = name.len() + first.iter().map(|word| word.len()).sum::<usize>();
    let mut command = Cmd::with_capacity(1 + first.len() + words.len(), own + bytes);
    command.arg(name).arg(first).arg(words);
    command
}

impl Store {
    /// Runs the writes of a round, as the owner of this guard.
    pub(super) async fn exec(&self, live: &Live, guard: &Guard, exec: &Exec) -> Ended {
        if live.server.request_bytes_max.is_some_and(|most| exec.bytes() > most) {
            // The commits of the scripts name the branches only.
            return Ended::Refused("more than client-query-buffer-limit".to_owned());
        }
        if !exec.patches.is_empty() {
            return self.apply(live, guard, exec).await;
        }
        let (pipeline, before) = exec.pipeline(&self.options.control_key, self.owner_key());
        let count = pipeline.len();
        let sent = live.connection.clone().send_packed_commands(&pipeline, 0, count).await;
        let mut values = match sent {
            Ok(values) if values.len() == count => values,
            Ok(_) => return Ended::Unknown(strange("fewer answers than commands")),
            Err(error) => return Ended::Unknown(error),
        };
        let owned = values[count - 1] == Value::BulkString(guard.as_str().into());
        let results = match std::mem::replace(&mut values[before], Value::Nil) {
            Value::Array(results) => results,
            Value::Nil => return Ended::Lost,
            Value::ServerError(discarded) => {
                // The reason stands at the command that was refused.
                let reason = values.into_iter().find_map(|value| match value {
                    Value::ServerError(error) => Some(error),
                    _ => None,
                });
                return Ended::Refused(reason.unwrap_or(discarded).to_string());
            }
            _ => return Ended::Unknown(strange("EXEC was not answered as such")),
        };
        let incarnation = match results.first() {
            Some(Value::BulkString(found)) => String::from_utf8_lossy(found).into_owned(),
            _ => String::new(),
        };
        if incarnation != self.incarnation().to_string() {
            return Ended::Foreign(incarnation);
        }
        let sure = exec.sure_commands();
        if let Some(Value::ServerError(error)) = results[..sure.min(results.len())]
            .iter()
            .find(|value| matches!(value, Value::ServerError(_)))
        {
            return Ended::Unknown(error.clone().into());
        }
        Ended::Done { results: results.into_iter().skip(sure).collect(), owned }
    }

    /// The same, by the script.
    async fn apply(&self, live: &Live, guard: &Guard, exec: &Exec) -> Ended {
        let names = [&*self.options.control_key, self.owner_key()];
        let incarnation = self.incarnation().to_string();
        let mut loads = self.scripts.digest(Script::Apply).is_none();
        let (answer, sure) = loop {
            if loads && let Err(error) = self.load(live, Script::Apply).await {
                return Ended::Refused(error.to_string());
            }
            let digest = self.scripts.digest(Script::Apply).unwrap_or_default();
            let (command, sure) = exec.script(&digest, names, [&incarnation, guard.as_str()]);
            let answer = send(live, &command).await;
            // Safe: what is not there did not run.
            let is_missing = answer.as_ref().is_err_and(|it| it.code() == Some("NOSCRIPT"));
            if loads || !is_missing {
                break (answer, sure);
            }
            loads = true;
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return match decode::classify(&error) {
                    CallError::Refused(refusal) => Ended::Refused(refusal.to_string()),
                    CallError::NoScript => Ended::Refused(error.to_string()),
                    CallError::Unknown(_) | CallError::Broken(_) => Ended::Unknown(error),
                };
            }
        };
        match decode::rows(answer) {
            Rows::OtherIncarnation(found) => Ended::Foreign(found),
            Rows::OtherOwner(_) => Ended::Lost,
            Rows::Unreadable => Ended::Unknown(strange("the script was not answered as such")),
            Rows::Each(items) => done_by_script(items, exec, sure),
        }
    }
}

/// What the script says that it has done.
fn done_by_script(items: Vec<Value>, exec: &Exec, sure: usize) -> Ended {
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

fn strange(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}
