//! What one round writes: a `MULTI`/`EXEC` with the control fields and the data, and the owner key
//! watched again behind it, in one breath.
//!
//! What no `EXEC` can do, a script does (`lua/apply.lua`): it runs the same commands, and compares
//! the owner key by itself. That is where a field is to hold what a command of the same round says;
//! where the whole is larger than a `MULTI` may be; and where the agent goes on by scripts
//! ([`super::WriteWay::Script`]).

use assent_common::value::Arg;
use redis::{Cmd, Pipeline, RedisError, Value};

use super::super::connection::Connection;
use super::super::control::Field;
use super::super::mutants;
use super::super::packed::{RedoError, decode_redo};
use super::Guard;

/// The writes of a round.
#[derive(Debug, Default)]
pub(super) struct Exec {
    /// Fields of the control hash that go.
    pub(super) gone: Vec<Vec<u8>>,
    /// Fields of the control hash that are set, in order, each followed by its value.
    pub(super) kept: Vec<Vec<u8>>,
    /// How many branches it ends.
    pub(super) ended: u32,
    /// Strings that are set, in order, each key followed by its value: one `MSET`, since each key
    /// is one branch's.
    pub(super) strings: Vec<Vec<u8>>,
    /// Other writes to the data.
    pub(super) writes: Vec<Vec<Arg>>,
    pub(super) patches: Vec<Patch>,
    /// Whether it keeps something new, so that it is refused where there is no memory. What only
    /// ends branches never is.
    pub(super) takes_memory: bool,
    /// Whether it only fences branches of which nothing is kept, because the agent's user may not
    /// write over a field.
    pub(super) only_fences: bool,
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
    pub(super) fn apply(&mut self, writes: Vec<Vec<Arg>>) -> std::ops::Range<usize> {
        let first = self.writes.len();
        for mut write in writes {
            match write.as_mut_slice() {
                [command, key, value] if command.0 == b"SET" => {
                    self.strings.push(std::mem::take(&mut key.0));
                    self.strings.push(std::mem::take(&mut value.0));
                }
                _ => self.writes.push(write),
            }
        }
        first..self.writes.len()
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

    /// Whether no `EXEC` can do it, where a `MULTI` may have so many bytes.
    pub(super) fn needs_script(&self, bytes_max: Option<usize>) -> bool {
        !self.patches.is_empty() || bytes_max.is_some_and(|most| self.bytes() > most)
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

/// Runs the writes of a round by an `EXEC`, on data of this incarnation.
pub(super) async fn exec(
    connection: &Connection,
    incarnation: u64,
    guard: &Guard,
    writes: &Exec,
) -> Ended {
    let (pipeline, before) = writes.pipeline(connection.control_key(), connection.owner_key());
    let count = pipeline.len();
    let mut values = match connection.send_all(&pipeline).await {
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
    let found = match results.first() {
        Some(Value::BulkString(found)) => String::from_utf8_lossy(found).into_owned(),
        _ => String::new(),
    };
    if found != incarnation.to_string() && mutants::minds_incarnation() {
        return Ended::Foreign(found);
    }
    let sure = writes.sure_commands();
    if let Some(Value::ServerError(error)) = results[..sure.min(results.len())]
        .iter()
        .find(|value| matches!(value, Value::ServerError(_)))
    {
        return Ended::Unknown(error.clone().into());
    }
    Ended::Done { results: results.into_iter().skip(sure).collect(), owned }
}

pub(super) fn strange(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}
