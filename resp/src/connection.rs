//! A client's connection: reads commands, runs transactions, writes answers in the order of the
//! commands.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use assent_common::ErrorCode;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::TransactionView;
use assent_edge::{Activity, Caller, EdgeOptions, Held, Seldom, Serves, Stage};
use bytes::{Buf as _, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::planned::{DoorRequest, Group};
use crate::refusal::{is_of_one, of_problem, unknown};
use crate::reply::{RespVersion, Value};
use crate::request::{CommandReader, ProtocolError};
use crate::session::{Rules, Session, SessionStep, error};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Bytes that a connection may keep without asking: what it has anyway.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes of answers, and answers, that wait to be written while more commands are taken.
const OUT_BYTES_MAX: usize = 256 * 1024;
const WAITING_MAX: usize = 1_024;

/// What runs transactions.
pub trait EngineAccess: Send + Sync + 'static {
    /// Runs one, or finds the one that its key or id began before. Answers when the outcome is
    /// known, or when it has not been for some seconds beyond the deadline, or when the client has
    /// gone. A problem means that it was aborted, or that nothing was begun.
    fn run(
        &self,
        asked: DoorRequest,
        held: Held,
        client: &Caller,
    ) -> impl Future<Output = Result<TransactionView, Problem>> + Send;
}

/// Serves the clients of a listener.
pub struct Service<D> {
    door: D,
    rules: Arc<Rules>,
    patience: ClientPatience,
    clients: AtomicU64,
    refused: Seldom,
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
struct ClientPatience {
    /// To say who it is.
    greeting: Duration,
    /// For a command that has begun.
    command: Duration,
    /// Between commands.
    idle: Duration,
    /// To take bytes.
    write: Duration,
}

impl<D: EngineAccess> Service<D> {
    /// Transactions go through this door, by these rules.
    pub fn new(door: D, rules: Rules, options: &EdgeOptions) -> Self {
        let ms = Duration::from_millis;
        let patience = ClientPatience {
            greeting: ms(options.header_timeout_ms),
            command: ms(options.body_timeout_ms),
            idle: ms(options.idle_timeout_ms),
            write: ms(options.write_timeout_ms),
        };
        let (rules, clients) = (Arc::new(rules), AtomicU64::new(1));
        Self { door, rules, patience, clients, refused: Seldom::minutely() }
    }

    /// Runs a group, and answers each of its transactions.
    async fn run(&self, group: Group, client: &Caller) -> Vec<Value> {
        let count = group.planned().len();
        match self.run_once(&group, client).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => {
                let answers = group.answers(&view);
                answers.unwrap_or_else(|problem| vec![of_problem(&problem); count])
            }
            Ok(view) if view.outcome == OutcomeWord::Pending => {
                vec![unknown(Some(view.id), "it was not decided in time"); count]
            }
            failed if count > 1 && is_of_one(&problem_of(&failed)) => {
                // Nothing of it was done: each runs for itself, so that one that fails is alone.
                let mut answers = Vec::with_capacity(count);
                for planned in group.into_each() {
                    answers.extend(Box::pin(self.run(planned.into(), client)).await);
                }
                answers
            }
            failed => vec![of_problem(&problem_of(&failed)); count],
        }
    }

    async fn run_once(&self, group: &Group, client: &Caller) -> Result<TransactionView, Problem> {
        let asked = group.asked()?;
        let mut held = self.rules.budget.hold();
        if !held.grow(asked.bytes()) {
            let why = "the requests under way hold all the memory that they may";
            return Err(Problem::new(ErrorCode::Overloaded, why));
        }
        self.door.run(asked, held, client).await
    }
}

/// Why a transaction was aborted or not begun.
fn problem_of(failed: &Result<TransactionView, Problem>) -> Problem {
    match failed {
        Err(problem) => problem.clone(),
        Ok(view) => {
            let why = || Problem::new(ErrorCode::Cancelled, "aborted; the log does not say why");
            let outcome = Some(OutcomeWord::Aborted);
            Problem { id: Some(view.id), outcome, ..view.error.clone().unwrap_or_else(why) }
        }
    }
}

/// An answer that waits for its turn to be written.
enum WaitingAnswer {
    /// It is known.
    Known(Value, RespVersion),
    /// That of the next transaction of the group.
    OfGroup(RespVersion),
}

/// A connection that is served.
struct ClientConnection<'a, D> {
    service: &'a Service<D>,
    tcp: Arc<TcpStream>,
    client: Caller,
    session: Session,
    reader: CommandReader,
    input: BytesMut,
    /// The memory of what is read beyond [`FREE_BYTES`].
    held: Held,
    output: BytesMut,
    waiting: Vec<WaitingAnswer>,
    group: Option<Group>,
    /// No more commands are taken.
    is_over: bool,
}

impl<D: EngineAccess> Serves for Service<D> {
    async fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        activity: Arc<Activity>,
        stopped: watch::Receiver<bool>,
    ) {
        let tcp = Arc::new(tcp);
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        let mut connection = ClientConnection {
            service: &self,
            client: Caller::of(&tcp),
            tcp,
            session: Session::new(Arc::clone(&self.rules), id),
            reader: CommandReader::default(),
            input: BytesMut::new(),
            held: self.rules.budget.hold(),
            output: BytesMut::new(),
            waiting: Vec::new(),
            group: None,
            is_over: false,
        };
        // An error is a client that went away, or takes no bytes.
        let _gone = connection.serve(&activity, stopped).await;
        if connection.session.was_refused()
            && let Some(left_out) = self.refused.now()
        {
            tracing::warn!(
                %peer, left_out, "a Redis client was refused: its password is missing or wrong"
            );
        }
    }
}

impl<D: EngineAccess> ClientConnection<'_, D> {
    async fn serve(
        &mut self,
        activity: &Activity,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut begun: Option<Instant> = None;
        loop {
            self.answer_all(activity).await?;
            if self.is_over {
                return Ok(());
            }
            let now = Instant::now();
            let has_begun = self.reader.has_begun() || !self.input.is_empty();
            begun = has_begun.then(|| begun.unwrap_or(now));
            activity.enter(if has_begun { Stage::Head } else { Stage::Idle });
            let patience = &self.service.patience;
            let until = match begun {
                Some(begun) => begun + patience.command,
                None if self.session.is_authenticated() => now + patience.idle,
                None => now + patience.greeting,
            };
            tokio::select! {
                ready = self.tcp.readable() => ready?,
                () = sleep_until(until) => return Ok(()),
                () = activity.asked_to_leave() => return Ok(()),
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
            activity.enter(Stage::Busy);
            if !self.read()? {
                return Ok(());
            }
        }
    }

    /// Reads what is there. False at the end, and where there is no memory for more.
    fn read(&mut self) -> io::Result<bool> {
        let kept = self.input.len() + self.reader.kept() + READ_BYTES;
        let wanted = kept.saturating_sub(FREE_BYTES);
        self.held.shrink_to(wanted);
        let more = wanted - self.held.bytes();
        if more > 0 && !self.held.grow(more) {
            let why = "OVERLOADED the requests under way hold all the memory that they may";
            self.say(error(why));
            self.is_over = true;
            return Ok(true);
        }
        self.input.reserve(READ_BYTES);
        match self.tcp.try_read_buf(&mut self.input) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes every command that is there, and writes every answer.
    async fn answer_all(&mut self, activity: &Activity) -> io::Result<()> {
        while !self.is_over {
            match self.reader.next(&mut self.input) {
                Ok(Some(command)) => match self.session.take(command) {
                    SessionStep::Say(value) => self.say(value),
                    SessionStep::SayAndEnd(value) => {
                        self.say(value);
                        self.is_over = true;
                    }
                    SessionStep::Run(planned) => {
                        let version = planned.version;
                        let refused = match &mut self.group {
                            Some(group) => group.join(planned).err(),
                            None => Some(planned),
                        };
                        if let Some(planned) = refused {
                            self.run().await;
                            self.group = Some(planned.into());
                        }
                        self.waiting.push(WaitingAnswer::OfGroup(version));
                    }
                },
                Ok(None) => break,
                Err(error) => self.end_with(error),
            }
            if self.waiting.len() >= WAITING_MAX {
                self.run().await;
            }
            if self.output.len() >= OUT_BYTES_MAX {
                self.write(activity).await?;
            }
        }
        self.run().await;
        self.write(activity).await
    }

    fn say(&mut self, value: Value) {
        self.waiting.push(WaitingAnswer::Known(value, self.session.version()));
    }

    fn end_with(&mut self, error: ProtocolError) {
        self.say(Value::Error(format!("ERR {error}")));
        self.is_over = true;
    }

    /// Runs the group, and puts the answers in their order.
    async fn run(&mut self) {
        let mut answers = match self.group.take() {
            Some(group) => self.service.run(group, &self.client).await,
            None => Vec::new(),
        }
        .into_iter();
        for waiting in self.waiting.drain(..) {
            match waiting {
                WaitingAnswer::Known(value, version) => value.write(version, &mut self.output),
                WaitingAnswer::OfGroup(version) => {
                    let answer = answers.next();
                    assert!(answer.is_some(), "each transaction of a group has one answer");
                    answer.unwrap_or(Value::Nil).write(version, &mut self.output);
                }
            }
        }
    }

    async fn write(&mut self, activity: &Activity) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.tcp.try_write(&self.output) {
                Ok(count) => {
                    self.output.advance(count);
                    activity.wrote(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    activity.wrote(false);
                    timeout(self.service.patience.write, self.tcp.writable()).await??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
