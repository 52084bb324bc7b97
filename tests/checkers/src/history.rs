//! Parsed histories: operations, each with what its client was told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::action::Action;
use crate::document::Document;
use crate::event::{Body, Event, Kind, Process};

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The line's index, which is the order.
    pub index: u64,
    /// The line's time.
    pub time_ns: u64,
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect; the action has the answers.
    Ok(Moment, Action),
    /// It has no effect and never will.
    Fail(Moment),
    /// Nothing definite: an `info`, or no completion. It may take effect at any time after its invocation, or never.
    Unknown,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub process: i64,
    /// When.
    pub invoked: Moment,
    /// For what.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// When its client knew that it had taken effect; nothing if it never did.
    #[must_use]
    pub const fn ok_at(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Ok(moment, _) => Some(moment.index),
            Outcome::Fail(_) | Outcome::Unknown => None,
        }
    }

    /// Whether it is known to have no effect.
    #[must_use]
    pub const fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }
}

/// A line that cannot be part of a history.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// A history, in the order of its invocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What the clients did.
    pub operations: Vec<Operation>,
    /// What the audits saw.
    pub documents: Vec<Document>,
    /// Lines that no checker reads.
    pub notes: usize,
    /// Whether the last line was cut off (its writer was killed) and left out.
    pub torn: bool,
}

impl History {
    /// Reads JSON lines. A last line without an end that cannot be read is taken for torn.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut pairing = Pairing::default();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (place, (number, line)) in (0..).zip(lines) {
            let refuse = |why: String| ParseError { line: number + 1, why };
            let event = match Event::parse(line, place) {
                Ok(event) => event,
                Err(error) if error.is_eof() && text.ends_with(line) => {
                    pairing.history.torn = true;
                    break;
                }
                Err(error) => return Err(refuse(error.to_string())),
            };
            pairing.take(event).map_err(refuse)?;
        }
        Ok(pairing.history)
    }

    /// The history of these events.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Result<Self, ParseError> {
        let mut pairing = Pairing::default();
        for (place, event) in events.into_iter().enumerate() {
            pairing.take(event).map_err(|why| ParseError { line: place + 1, why })?;
        }
        Ok(pairing.history)
    }
}

/// Brings invocations and completions together.
#[derive(Default)]
struct Pairing {
    history: History,
    open: HashMap<i64, usize>,
    last: Option<u64>,
}

impl Pairing {
    fn take(&mut self, event: Event) -> Result<(), String> {
        if self.last.is_some_and(|last| last >= event.index) {
            return Err(format!("index {} comes after a higher one", event.index));
        }
        self.last = Some(event.index);
        match (event.body, event.process) {
            (Body::Note(..), _) => self.history.notes += 1,
            (Body::Document(document), _) => self.history.documents.push(document),
            (Body::Action(action), Process::Other(name)) => {
                return Err(format!("{} is of {name:?}, which is no client", action.f()));
            }
            (Body::Action(action), Process::Client(process)) => {
                let moment = Moment { index: event.index, time_ns: event.time_ns };
                self.client(process, event.kind, moment, action)?;
            }
        }
        Ok(())
    }

    fn client(
        &mut self,
        process: i64,
        kind: Kind,
        moment: Moment,
        action: Action,
    ) -> Result<(), String> {
        let operations = &mut self.history.operations;
        let open = match (kind, self.open.entry(process)) {
            (Kind::Invoke, Entry::Vacant(slot)) => {
                slot.insert(operations.len());
                let outcome = Outcome::Unknown;
                operations.push(Operation { process, invoked: moment, action, outcome });
                return Ok(());
            }
            (Kind::Invoke, Entry::Occupied(open)) => {
                let began = operations[*open.get()].invoked.index;
                return Err(format!("process {process} has not ended what it began at {began}"));
            }
            (_, Entry::Vacant(_)) => {
                return Err(format!("process {process} ends what it never began"));
            }
            (_, Entry::Occupied(open)) => &mut operations[open.remove()],
        };
        if !open.action.asks_the_same_as(&action) {
            return Err(format!("process {process} ends {action}, and began {}", open.action));
        }
        open.outcome = match kind {
            Kind::Ok => Outcome::Ok(moment, action),
            Kind::Fail => Outcome::Fail(moment),
            Kind::Info | Kind::Invoke => Outcome::Unknown,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::MicroOp;

    const GOOD: &str = r#"
{"index":0,"type":"invoke","process":0,"f":"txn","value":[["append","x",1],["r","y",null]],"time":1}
{"index":1,"type":"info","process":"nemesis","f":"kill","value":"bank-a","time":2}
{"index":2,"type":"invoke","process":1,"f":"write","value":["k",7],"time":3}
{"index":3,"type":"ok","process":0,"f":"txn","value":[["append","x",1],["r","y",[4,5]]],"time":4}
{"index":4,"type":"info","process":1,"f":"write","value":["k",7],"time":5,"error":["gone",1]}
{"index":5,"type":"invoke","process":2,"f":"cas","value":["k",[7,8]],"time":6}
"#;

    #[test]
    fn invocations_meet_their_completions_and_the_rest_stays_unknown() {
        let history = History::parse(GOOD).unwrap();
        assert_eq!(history.operations.len(), 3);
        assert_eq!(history.notes, 1);
        let Outcome::Ok(moment, Action::Txn(steps)) = &history.operations[0].outcome else {
            panic!("{:?}", history.operations[0]);
        };
        assert_eq!(moment.index, 3);
        assert_eq!(steps, &[MicroOp::append("x", 1), MicroOp::saw("y", [4, 5])]);
        assert_eq!(history.operations[1].outcome, Outcome::Unknown);
        assert_eq!(history.operations[2].outcome, Outcome::Unknown);
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_said() {
        let cut = &GOOD.trim_end()[..GOOD.trim_end().len() - 9];
        let history = History::parse(cut).unwrap();
        assert!(history.torn);
        assert_eq!(history.operations.len(), 2);
        let torn_in_the_middle = format!("{cut}\n{}", r#"{"type":"invoke","process":9}"#);
        assert_eq!(History::parse(&torn_in_the_middle).unwrap_err().line, 7);
    }

    #[test]
    fn what_cannot_be_a_history_is_refused_by_line() {
        let begin = |index, process| {
            format!(
                "{{\"index\":{index},\"type\":\"invoke\",\"process\":{process},\"f\":\"read\",\"value\":[1,null]}}\n"
            )
        };
        assert!(History::parse(&(begin(0, 0) + &begin(1, 1))).is_ok());
        for (second, why) in [(begin(0, 1), "after a higher one"), (begin(1, 0), "has not ended")] {
            let error = History::parse(&(begin(0, 0) + &second)).unwrap_err();
            assert!(error.line == 2 && error.why.contains(why), "{error}");
        }
        for (line, why) in [
            (r#"{"type":"ok","process":0,"f":"read","value":["k",1]}"#, "never began"),
            (r#"{"type":"invoke","process":"x","f":"read","value":["k",1]}"#, "no client"),
            (r#"{"type":"invoke","process":0,"f":"txn","value":[["w",1,2]]}"#, "unknown variant"),
            (r#"{"type":"invoke","process":0,"f":"txn","value":[["r",1]]}"#, "invalid length"),
        ] {
            let error = History::parse(&format!("{line}\n")).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
