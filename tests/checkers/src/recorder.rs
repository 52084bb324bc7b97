//! Writes down what many tasks ask for and are told.
//!
//! An operation is written before its request leaves and after its answer came, so that the order of the lines is an
//! order in which it can have happened. A [`Token`] stands for an operation that has begun; one that is dropped (its task
//! panicked or was cancelled) is written as `info`, because what was sent may yet take effect.
//!
//! ```
//! use assent_checkers::{Action, Checker, MicroOp, Recorder, check};
//!
//! let recorder = Recorder::in_memory();
//! let token = recorder.invoke(0, Action::Txn(vec![MicroOp::append("x", 1), MicroOp::read("y")]));
//! // … the transaction runs, and commits …
//! token.ok(Action::Txn(vec![MicroOp::append("x", 1), MicroOp::saw("y", [])]));
//! let history = recorder.finish().unwrap();
//! assert!(check(Checker::ListAppend, &history).holds());
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::action::Action;
use crate::document::Document;
use crate::event::{Body, Event, Kind, Process};
use crate::history::History;

/// A client whose operation is indeterminate goes on under another number, as in Jepsen: its old self may not be done.
const NEXT_LIFE: i64 = 1_000_000;

/// A history that is being written. Clones write the same one.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    began: Instant,
    events: Vec<Event>,
    out: Option<Box<dyn Write + Send>>,
    /// The first error of `out`, told at the end.
    failed: Option<io::Error>,
    /// The number of each client by now, if it is not its first.
    lives: HashMap<i64, i64>,
    open: HashSet<i64>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("events", &self.lock().events.len()).finish()
    }
}

impl Recorder {
    fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        let inner = Inner {
            began: Instant::now(),
            events: Vec::new(),
            out,
            failed: None,
            lives: HashMap::new(),
            open: HashSet::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Keeps the history in memory only.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// Writes it to this new file too; each line as it happens, so that a killed run leaves its history.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::to_writer(BufWriter::new(File::create_new(path)?)))
    }

    /// Writes it to this too; flushed with each line.
    pub fn to_writer(out: impl Write + Send + 'static) -> Self {
        Self::new(Some(Box::new(out)))
    }

    /// Poison only says that another task panicked; its lines are whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation; call it before the request is sent.
    ///
    /// # Panics
    ///
    /// If this process has another one open: processes do one thing at a time.
    #[must_use = "an operation that is dropped is indeterminate"]
    pub fn invoke(&self, process: i64, action: Action) -> Token {
        let mut inner = self.lock();
        assert!(inner.open.insert(process), "process {process} has not ended what it began");
        let life = *inner.lives.get(&process).unwrap_or(&process);
        inner.push(Kind::Invoke, Process::Client(life), Body::Action(action.clone()), None);
        drop(inner);
        Token { recorder: self.clone(), process, life, action: Some(action) }
    }

    /// Writes down what an audit saw.
    pub fn observe(&self, document: Document) {
        let audit = Process::Other("audit".to_owned());
        self.lock().push(Kind::Info, audit, Body::Document(document), None);
    }

    /// Writes down something for people: what was killed, when it was healed.
    pub fn note(&self, who: &str, what: &str, value: &serde_json::Value) {
        let body = Body::Note(format!("note-{what}"), value.to_string().into());
        self.lock().push(Kind::Info, Process::Other(who.to_owned()), body, None);
    }

    /// The history so far; what is open is indeterminate.
    ///
    /// # Panics
    ///
    /// If an operation was ended as another one than it began as.
    #[must_use]
    pub fn history(&self) -> History {
        let events = self.lock().events.clone();
        History::of(events).expect("a token ends what it began, once")
    }

    /// The lines so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// The history, if all of it was written.
    pub fn finish(self) -> io::Result<History> {
        // Taken first: `history` locks too.
        let failed = self.lock().failed.take();
        failed.map_or_else(|| Ok(self.history()), Err)
    }
}

impl Inner {
    fn push(&mut self, kind: Kind, process: Process, body: Body, error: Option<String>) {
        let index = self.events.len() as u64;
        let time_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let event = Event { index, kind, process, body, time_ns, error };
        if let Some(out) = &mut self.out {
            let written = event.to_line().map_err(io::Error::from).and_then(|mut line| {
                line.push('\n');
                out.write_all(line.as_bytes())?;
                out.flush()
            });
            if let Err(error) = written {
                self.failed.get_or_insert(error);
            }
        }
        self.events.push(event);
    }
}

/// An operation that has begun. Dropped, it is indeterminate.
#[derive(Debug)]
pub struct Token {
    recorder: Recorder,
    process: i64,
    life: i64,
    /// Taken when it ends.
    action: Option<Action>,
}

impl Token {
    /// It took effect; the action is the one asked for, with the answers.
    ///
    /// # Panics
    ///
    /// If it is another action.
    pub fn ok(mut self, answered: Action) {
        if let Some(asked) = self.action.take() {
            assert!(asked.asks_the_same_as(&answered), "{answered} does not answer {asked}");
            self.end(Kind::Ok, answered, None);
        }
    }

    /// It has no effect and never will. Only for what is certain.
    pub fn fail(mut self, why: impl fmt::Display) {
        if let Some(action) = self.action.take() {
            self.end(Kind::Fail, action, Some(why.to_string()));
        }
    }

    /// Nothing is known of it.
    pub fn info(mut self, why: impl fmt::Display) {
        if let Some(action) = self.action.take() {
            self.end(Kind::Info, action, Some(why.to_string()));
        }
    }

    fn end(&self, kind: Kind, action: Action, error: Option<String>) {
        let mut inner = self.recorder.lock();
        inner.push(kind, Process::Client(self.life), Body::Action(action), error);
        if kind == Kind::Info {
            inner.lives.insert(self.process, self.life + NEXT_LIFE);
        }
        inner.open.remove(&self.process);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(action) = self.action.take() {
            self.end(Kind::Info, action, Some("given up".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{MicroOp, RegisterOp};
    use crate::history::Outcome;

    fn write(value: i64) -> Action {
        Action::Register("k".into(), RegisterOp::Write(value))
    }

    #[test]
    fn what_is_dropped_is_indeterminate_and_its_process_lives_on_as_another() {
        let recorder = Recorder::in_memory();
        drop(recorder.invoke(3, write(1)));
        recorder.invoke(3, write(2)).ok(write(2));
        recorder.invoke(3, write(3)).info("timeout");
        recorder.invoke(3, write(4)).fail("refused");
        let open = recorder.invoke(3, write(5));
        let history = recorder.history();
        let processes: Vec<i64> = history.operations.iter().map(|one| one.process).collect();
        assert_eq!(processes, [3, 1_000_003, 1_000_003, 2_000_003, 2_000_003]);
        let told: Vec<_> = history
            .operations
            .iter()
            .map(|one| (one.ok_at().is_some(), one.failed(), one.outcome == Outcome::Unknown))
            .collect();
        let (ok, fail, info) = ((true, false, false), (false, true, false), (false, false, true));
        assert_eq!(told, [info, ok, info, fail, info]);
        drop(open);
    }

    #[test]
    #[should_panic(expected = "has not ended")]
    fn a_process_does_one_thing_at_a_time() {
        let recorder = Recorder::in_memory();
        let _first = recorder.invoke(0, write(1));
        let _second = recorder.invoke(0, write(2));
    }

    #[test]
    #[should_panic(expected = "does not answer")]
    fn an_answer_is_to_what_was_asked() {
        Recorder::in_memory().invoke(0, write(1)).ok(write(2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_tasks_write_one_file_that_reads_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        recorder.note("nemesis", "kill", &serde_json::json!({"who": "bank-a"}));
        let tasks: Vec<_> = (0..16)
            .map(|process| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    for number in 0..50 {
                        let step = MicroOp::append("x", process * 100 + number);
                        let action = Action::Txn(vec![step, MicroOp::read(process)]);
                        let token = recorder.invoke(process, action.clone());
                        tokio::task::yield_now().await;
                        match number % 3 {
                            0 => token.ok(action),
                            1 => token.fail("no"),
                            _ => drop(token),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        recorder.observe(Document::FinalState(crate::document::FinalState::default()));
        let history = recorder.finish().unwrap();
        assert_eq!(history.operations.len(), 16 * 50);
        assert_eq!((history.documents.len(), history.notes), (1, 1));
        let read = History::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read, history);
        assert!(Recorder::create(&path).is_err(), "a history is never written over");
    }

    #[test]
    fn an_error_of_the_writer_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = Recorder::to_writer(Full);
        recorder.invoke(0, write(1)).ok(write(1));
        assert_eq!(recorder.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
