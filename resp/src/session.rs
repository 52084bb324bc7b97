//! One client's state, and what each of its commands means. No I/O.

use std::sync::Arc;

use assent_common::command::{OpRequest, ValidatedBranch, ValidatedOp, find};
use assent_common::value::{Arg, readable};
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, ParticipantName, limits};
use assent_edge::{BYTES_PER_OP, BYTES_PER_WORD};

use crate::connect::{self, ClientOfDoor, Rules};
use crate::planned::{AnswerForm, Planned, PlannedEntry, PlannedOp, SaidOfAll, json};
use crate::refusal::{error, no_memory, of_problem, unauthenticated, wrong_number};
use crate::reply::{RespVersion, Value};
use crate::request::{ClientCommand, TooLarge};
use crate::said;
use crate::shape::ReplyShape;
use crate::unsupported;
use crate::watch::{self, Watches};

/// What a command comes to.
#[derive(Debug)]
pub(crate) enum SessionStep {
    /// The answer is known.
    Say(Value),
    /// The same, and the connection ends.
    SayAndEnd(Value),
    /// A transaction is to run.
    Run(Planned),
    /// These keys are to be looked at, before anything else is taken.
    Watch(Vec<Arg>, Planned),
}

/// A client's state.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientOfDoor,
    /// Between `MULTI` and `EXEC`.
    queue: Option<MultiQueue>,
    watches: Watches,
}

/// What was queued behind `MULTI`.
#[derive(Debug)]
struct MultiQueue {
    planned: Planned,
    /// A command was refused: `EXEC` refuses all.
    is_spoilt: bool,
}

impl Session {
    /// A new client's.
    #[must_use]
    pub(crate) fn new(rules: Arc<Rules>, id: u64) -> Self {
        let watches = Watches::none(&rules.budget);
        Self { client: ClientOfDoor::new(rules, id), queue: None, watches }
    }

    /// Whether it may do everything.
    #[must_use]
    pub(crate) const fn is_authenticated(&self) -> bool {
        self.client.is_authenticated
    }

    /// Whether it said something before it was known, or a wrong password.
    #[must_use]
    pub(crate) const fn was_refused(&self) -> bool {
        self.client.was_refused
    }

    /// Whether it watches keys.
    pub(crate) fn is_watching(&self) -> bool {
        self.watches.is_any()
    }

    /// How answers are written now.
    #[must_use]
    pub(crate) const fn version(&self) -> RespVersion {
        self.client.version
    }

    /// Takes a command.
    pub(crate) fn take(&mut self, command: ClientCommand) -> SessionStep {
        let words = match command {
            ClientCommand::Words(words) => words,
            ClientCommand::TooLarge(name, what) => {
                return SessionStep::Say(self.refuse(too_large(&name, what)));
            }
        };
        let name = words[0].0.to_ascii_uppercase();
        let args = &words[1..];
        // A browser that was made to post here: what follows are its words, and a page's.
        if matches!(&name[..], b"POST" | b"HOST:") {
            return SessionStep::SayAndEnd(error(
                "ERR this is HTTP; Redis clients are served here",
            ));
        }
        if !self.client.is_authenticated && !connect::is_open(&name) {
            self.client.was_refused = true;
            return SessionStep::Say(unauthenticated());
        }
        match (&name[..], args.len()) {
            (b"MULTI", 0) => SessionStep::Say(self.multi()),
            (b"EXEC", 0) => self.exec(),
            (b"DISCARD", 0) => SessionStep::Say(match self.queue.take() {
                Some(_) => {
                    self.watches.forget();
                    Value::ok()
                }
                None => error("ERR DISCARD without MULTI"),
            }),
            (b"WATCH", 1..) => self.watch(args),
            (b"ASSENT.INPUT", _) => {
                let said = self.input(args);
                SessionStep::Say(said.unwrap_or_else(|value| self.refuse(value)))
            }
            (b"RESET", 0) => {
                *self = Self::new(Arc::clone(&self.client.rules), self.client.id);
                SessionStep::Say(Value::Status("RESET".into()))
            }
            (b"QUIT", _) => SessionStep::SayAndEnd(Value::ok()),
            (b"MULTI" | b"EXEC" | b"DISCARD" | b"RESET" | b"WATCH", _) => {
                SessionStep::Say(self.refuse(wrong_number(&name)))
            }
            _ => match self.answer(&name, args) {
                Some(Ok(value)) if self.queue.is_some() => {
                    SessionStep::Say(self.enqueue_reply(value))
                }
                Some(Ok(value)) => SessionStep::Say(value),
                Some(Err(value)) => SessionStep::Say(self.refuse(value)),
                None => self.op(words),
            },
        }
    }

    /// What needs no participant. Nothing if the command is none of these.
    fn answer(&mut self, name: &[u8], args: &[Arg]) -> Option<Result<Value, Value>> {
        if let Some(said) = name.strip_prefix(b"ASSENT.")
            && find(name).is_none()
        {
            return Some(self.say(said, args));
        }
        if let Some(why) = unsupported::refusal(name) {
            return Some(Err(why));
        }
        if !connect::is_known(name) {
            return None;
        }
        if self.queue.is_some() && !connect::may_be_queued(name) {
            return Some(Err(error(format!("ERR {} is not allowed in MULTI", readable(name)))));
        }
        if (name, args.len()) == (b"UNWATCH", 0) {
            self.unwatch();
            return Some(Ok(Value::ok()));
        }
        Some(self.client.answer(name, args))
    }

    fn multi(&mut self) -> Value {
        if self.queue.is_some() {
            return error("ERR MULTI calls can not be nested");
        }
        let planned = self.planned(AnswerForm::Exec);
        self.queue = Some(MultiQueue { planned, is_spoilt: false });
        Value::ok()
    }

    fn exec(&mut self) -> SessionStep {
        let Some(MultiQueue { mut planned, is_spoilt }) = self.queue.take() else {
            return SessionStep::Say(error("ERR EXEC without MULTI"));
        };
        let watched = self.watches.take();
        if is_spoilt {
            let why = "EXECABORT Transaction discarded because of previous errors.";
            return SessionStep::Say(error(why));
        }
        if let Err(value) = watched.and_then(|watched| self.guard(&mut planned, watched)) {
            return SessionStep::Say(value);
        }
        if planned.count_ops() == 0 && planned.inputs.is_empty() {
            let replies = planned.entries.into_iter().map(|entry| match entry {
                PlannedEntry::Reply(value) => value,
                PlannedEntry::Op(_) | PlannedEntry::Input => Value::Nil,
            });
            return SessionStep::Say(Value::Array(replies.collect()));
        }
        planned.version = self.client.version;
        SessionStep::Run(planned)
    }

    /// What is watched must still be what it was: that stands before everything else.
    fn guard(&self, planned: &mut Planned, watched: Vec<(Arg, Option<Arg>)>) -> Result<(), Value> {
        for (key, digest) in watched {
            let (mut op, bytes) = self.plan(OpRequest::digest(key).cmd)?;
            watch::expecting(&mut op, digest)?;
            grant(planned, bytes)?;
            planned.guards.push(op);
        }
        Ok(())
    }

    fn watch(&mut self, keys: &[Arg]) -> SessionStep {
        if self.queue.is_some() {
            return SessionStep::Say(self.refuse(error("ERR WATCH inside MULTI is not allowed")));
        }
        match self.look(keys) {
            Ok((keys, _)) if keys.is_empty() => SessionStep::Say(Value::ok()),
            Ok((keys, planned)) => SessionStep::Watch(keys, planned),
            Err(why) => SessionStep::Say(self.watches.failed(why)),
        }
    }

    /// The look at those keys that are not watched yet.
    fn look(&mut self, keys: &[Arg]) -> Result<(Vec<Arg>, Planned), Value> {
        let keys = self.watches.unwatched(keys)?;
        let mut planned = self.planned(AnswerForm::Exec);
        for key in &keys {
            let (op, bytes) = self.plan(OpRequest::digest(key.clone()).cmd)?;
            add(&mut planned, op, bytes)?;
        }
        Ok((keys, planned))
    }

    /// Takes what the look at keys came to, and says what `WATCH` answers.
    pub(crate) fn watched(&mut self, keys: Vec<Arg>, answer: Value) -> Value {
        self.watches.seen(keys, answer)
    }

    /// Forgets what is watched. In `MULTI` that is left to `EXEC`.
    fn unwatch(&mut self) {
        if self.queue.is_none() {
            self.watches.forget();
        }
    }

    /// What is said of a transaction as a whole, or of the op before.
    fn say(&mut self, what: &[u8], args: &[Arg]) -> Result<Value, Value> {
        match &mut self.queue {
            Some(queue) => said::say(&mut queue.planned, what, args),
            None => Err(outside_multi(what)),
        }
    }

    /// What a hook decides about; what it replies stands in this place.
    fn input(&mut self, args: &[Arg]) -> Result<Value, Value> {
        let Some(queue) = &mut self.queue else { return Err(outside_multi(b"INPUT")) };
        let (input, bytes) = said::input(&queue.planned, args)?;
        grant(&mut queue.planned, bytes + BYTES_PER_OP)?;
        queue.planned.entries.push(PlannedEntry::Input);
        queue.planned.inputs.push(input);
        Ok(queued())
    }

    /// A command on keys.
    fn op(&mut self, words: Vec<Arg>) -> SessionStep {
        let (op, bytes) = match self.plan(words) {
            Ok(planned) => planned,
            Err(value) => return SessionStep::Say(self.refuse(value)),
        };
        let Some(queue) = &mut self.queue else {
            let mut planned = self.planned(AnswerForm::Single);
            return match add(&mut planned, op, bytes) {
                Ok(()) => SessionStep::Run(planned),
                Err(value) => SessionStep::Say(value),
            };
        };
        match add(&mut queue.planned, op, bytes) {
            Ok(()) => SessionStep::Say(queued()),
            Err(value) => SessionStep::Say(self.refuse(value)),
        }
    }

    /// Checks an op, and finds where it runs.
    fn plan(&self, words: Vec<Arg>) -> Result<(PlannedOp, usize), Value> {
        let args = words.len() - 1;
        match find(&words[0].0) {
            Some(command) if (command.args_min..=command.args_max).contains(&args) => {}
            Some(_) => return Err(wrong_number(&words[0].0)),
            None => return Err(unsupported::unknown(&words[0])),
        }
        let cmd = json(&words).map_err(|problem| of_problem(&problem))?;
        let branch =
            ValidatedBranch::new(vec![OpRequest { cmd: words, expect: None, escrow: false }]);
        let branch = branch.map_err(|refusal| of_problem(&Problem::from(refusal)))?;
        let [op] = &branch.ops[..] else { return Err(error("ERR no command")) };
        let (participant, shape) = (self.route(op)?, ReplyShape::of(op));
        let words = branch.bytes + branch.words * BYTES_PER_WORD;
        let held = words + cmd.get().len() + BYTES_PER_OP;
        Ok((PlannedOp { participant, cmd, branch, shape }, held))
    }

    /// The one participant that all keys of an op lie at.
    fn route(&self, op: &ValidatedOp) -> Result<ParticipantName, Value> {
        let mut found: Option<(&Arg, &ParticipantName)> = None;
        for key in op.keys() {
            let Some(participant) = self.client.rules.routes.of(&key.0) else {
                return Err(error(format!(
                    "UNROUTED no rule says at which participant the key {} lies; {}, by the \
                     coordinator's setting `routes`",
                    shown(key),
                    self.client.rules.routes.told()
                )));
            };
            match found {
                Some((first, other)) if other != participant => {
                    return Err(error(format!(
                        "CROSSPARTICIPANT {} has keys at two participants: {} at {other}, {} at \
                         {participant}; in MULTI, one command for each is one transaction",
                        op.command,
                        shown(first),
                        shown(key)
                    )));
                }
                Some(_) => {}
                None => found = Some((key, participant)),
            }
        }
        let found = found.map(|(_, participant)| participant.clone());
        found.ok_or_else(|| error("ERR the command has no key"))
    }

    fn planned(&self, kind: AnswerForm) -> Planned {
        Planned {
            guards: Vec::new(),
            entries: Vec::new(),
            kind,
            said: SaidOfAll::default(),
            inputs: Vec::new(),
            version: self.client.version,
            bytes: 0,
            held: self.client.rules.budget.hold(),
        }
    }

    fn enqueue_reply(&mut self, value: Value) -> Value {
        let Some(queue) = &mut self.queue else { return value };
        // What is said of a transaction has a reply of its own among those of EXEC: clients count
        // them.
        if !queue.planned.held.grow(BYTES_PER_OP) {
            return self.refuse(of_problem(&no_memory()));
        }
        queue.planned.entries.push(PlannedEntry::Reply(value));
        queued()
    }

    /// An error; behind `MULTI` it spoils the transaction.
    fn refuse(&mut self, value: Value) -> Value {
        if let Some(queue) = &mut self.queue {
            queue.is_spoilt = true;
        }
        value
    }
}

fn add(planned: &mut Planned, op: PlannedOp, bytes: usize) -> Result<(), Value> {
    grant(planned, bytes)?;
    planned.entries.push(PlannedEntry::Op(op));
    Ok(())
}

fn grant(planned: &mut Planned, bytes: usize) -> Result<(), Value> {
    let limit = limits::BODY_BYTES_MAX;
    if planned.bytes + bytes > limit {
        let why = format!("the transaction would have more than {limit} bytes");
        return Err(of_problem(&Problem::new(ErrorCode::TooLarge, why)));
    }
    if !planned.held.grow(bytes) {
        return Err(of_problem(&no_memory()));
    }
    planned.bytes += bytes;
    Ok(())
}

fn too_large(name: &Arg, what: TooLarge) -> Value {
    let name = shown(name);
    let (code, why) = match what {
        TooLarge::Words => {
            (ErrorCode::TooManyOps, format!("{} arguments", limits::ARGS_PER_OP_MAX))
        }
        TooLarge::Bytes => (ErrorCode::TooLarge, format!("{} bytes", limits::BRANCH_BYTES_MAX)),
    };
    of_problem(&Problem::new(code, format!("{name} has more than {why}")))
}

fn outside_multi(what: &[u8]) -> Value {
    error(format!("ERR ASSENT.{} stands between MULTI and EXEC", readable(what)))
}

fn queued() -> Value {
    Value::Status("QUEUED".into())
}

/// A key or a name in an error, as far as it may be shown.
fn shown(arg: &Arg) -> String {
    assent_common::text::cut(&readable(&arg.0), 100).into_owned()
}

#[cfg(test)]
mod tests;
