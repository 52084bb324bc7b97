//! An op that may be staged.

use crate::command::Expect;
use crate::command::shadow::KeyPlaces;
use crate::command::table::{Command, ReplyKind};
use crate::value::{Arg, readable};

/// An op that passed every check that needs no data, in the form that the participant's script
/// takes.
#[derive(Debug, Clone)]
pub struct ValidatedOp {
    /// The command, as it was asked for.
    pub command: &'static Command,
    /// The name of the script's handler: `INCR`, `DECR` and `DECRBY` all are `INCRBY` there.
    /// Of a command that has none, the command's.
    pub handler: &'static str,
    /// The handler's arguments: keys as they came, options parsed and in their fixed places.
    pub args: Vec<Arg>,
    /// What it replies.
    pub reply: ReplyKind,
    /// What the reply must be. Of an op in escrow, its claim says so.
    pub expect: Option<Expect>,
}

impl ValidatedOp {
    /// The keys, in order, doubles included.
    pub fn keys(&self) -> impl Iterator<Item = &Arg> {
        self.key_places().map(|place| &self.args[place])
    }

    /// Where the keys stand among the arguments, from 0.
    pub fn key_places(&self) -> impl Iterator<Item = usize> + use<> {
        KeyPlaces::of(self.command, &self.args).places(self.args.len())
    }

    /// The command and its first key, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        match self.keys().next() {
            Some(key) => format!("{} {}", self.command.name, readable(&key.0)),
            None => self.command.name.to_owned(),
        }
    }
}
