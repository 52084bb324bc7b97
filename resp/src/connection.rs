//! A client's connection: reads commands, runs transactions, writes answers in the order of the
//! commands.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use assent_client::mutant;
use assent_common::coordinator::Contention;
use assent_common::mutant::Mutant;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, limits};
use assent_edge::{Activity, Caller, EdgeOptions, Held, Patience, Seldom, Serves, Stage};
use bytes::{Buf as _, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connect::Rules;
use crate::merging::{APART, Joined, Merging, PartRun};
use crate::metric::{DoorMetric, DoorOutcome, Watching};
use crate::planned::{DoorRequest, Group, Planned};
use crate::refusal::{is_of_one, no_memory, of_problem, of_tied, unauthenticated, unknown};
use crate::reply::{RespVersion, Value};
use crate::request::{CommandReader, ProtocolError};
use crate::session::{Session, SessionStep};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Bytes that a connection may keep without asking: what it has anyway.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes of answers, and answers, that wait to be written while more commands are taken.
const OUT_BYTES_MAX: usize = 256 * 1024;
const WAITING_MAX: usize = 1_024;

/// Bytes of commands that are read ahead of a client that does not read its answers.
const INPUT_BYTES_MAX: usize = limits::BODY_BYTES_MAX;

/// Bytes that a client may send of a command before it has said who it is.
const STRANGER_BYTES_MAX: usize = 16 * 1024;

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
    patience: Patience,
    clients: AtomicU64,
    connected: AtomicUsize,
    merging: Merging,
    refused: Seldom,
    metric: DoorMetric,
}

impl<D: EngineAccess> Service<D> {
    /// Transactions go through this door, by these rules.
    pub fn new(door: D, rules: Rules, options: &EdgeOptions) -> Self {
        let patience = Patience::new(options);
        let (rules, clients, connected) = (Arc::new(rules), AtomicU64::new(1), AtomicUsize::new(0));
        let (merging, refused) = (Merging::default(), Seldom::minutely());
        let metric = DoorMetric::new();
        Self { door, rules, patience, clients, connected, merging, refused, metric }
    }

    /// Runs a group, and answers each of its transactions: together with what other connections ask
    /// for in the same moment, if that goes well. `apart` counts down how many the connection runs
    /// for itself, because others have suffered from it.
    async fn run_shared(
        self: &Arc<Self>,
        group: Group,
        client: &Caller,
        apart: &mut u32,
    ) -> GroupRun {
        let is_alone = self.connected.load(Ordering::Relaxed) < 2;
        if is_alone || *apart > 0 || !group.may_share() {
            *apart = apart.saturating_sub(1);
            return self.run(group, client).await;
        }
        let count = group.planned().len();
        let Joined { heard, first_of } = self.merging.join(group);
        if let Some(number) = first_of {
            // A task of its own: the client of this connection may leave, and others wait.
            tokio::spawn(Arc::clone(self).run_merged(number));
        }
        match heard.await {
            Ok(PartRun::Answered(answers)) => GroupRun::Answered(answers),
            Ok(PartRun::ForItself { group, fell_apart }) => {
                let run = self.run(group, client).await;
                if fell_apart && run.has_failed() {
                    *apart = APART;
                }
                run
            }
            Err(_) => GroupRun::Answered(vec![unknown(None, "the server is stopping"); count]),
        }
    }

    /// Runs what has come together when everybody who was ready has joined.
    async fn run_merged(self: Arc<Self>, number: u64) {
        tokio::task::yield_now().await;
        let merged = self.merging.close(number);
        let Some((group, parts)) = merged.and_then(|merged| merged.begin(&self.merging)) else {
            return;
        };
        match self.run(group, &Caller::default()).await {
            GroupRun::Answered(answers) => parts.answered(&self.merging, answers),
            GroupRun::FallsApart(planned) => parts.fell_apart(&self.merging, planned),
        }
    }

    /// Runs a group, and answers each of its transactions. One of several waits for no lock: else
    /// all of them would, also those that nothing stands in the way of.
    async fn run(&self, group: Group, client: &Caller) -> GroupRun {
        let count = group.planned().len();
        let contention = if count > 1 { Contention::GivesUp } else { Contention::Waits };
        let of_all = |value| GroupRun::Answered(vec![value; count]);
        let refusal = if group.is_tied() { of_tied } else { of_problem };
        match self.run_once(&group, contention, client).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => {
                self.metric.came(DoorOutcome::Committed, count);
                if count > 1 && mutant::is(Mutant::MergedRunsAgain) {
                    return GroupRun::FallsApart(group.into_each());
                }
                match group.answers(&view) {
                    Ok(answers) => GroupRun::Answered(answers),
                    Err(problem) => of_all(of_problem(&problem)),
                }
            }
            Ok(view) if view.outcome == OutcomeWord::Pending => {
                self.metric.came(DoorOutcome::Unknown, count);
                of_all(unknown(Some(view.id), "it was not decided in time"))
            }
            failed => {
                let problem = failed.map_or_else(|problem| problem, |view| view.why_aborted());
                if group.has_lost_race(&problem) {
                    self.metric.came(DoorOutcome::LostRace, count);
                    return of_all(Value::NilArray);
                }
                if count > 1 && is_of_one(&problem) {
                    return GroupRun::FallsApart(group.into_each());
                }
                let is_unknown = problem.code == ErrorCode::Internal;
                let came = if is_unknown { DoorOutcome::Unknown } else { DoorOutcome::Aborted };
                self.metric.came(came, count);
                of_all(refusal(&problem))
            }
        }
    }

    /// Runs one transaction for itself.
    async fn run_alone(&self, planned: Planned, client: &Caller) -> Value {
        match self.run(planned.into(), client).await {
            GroupRun::Answered(mut answers) if answers.len() == 1 => answers.swap_remove(0),
            run => unreachable!("one transaction has one answer: {run:?}"),
        }
    }

    async fn run_once(
        &self,
        group: &Group,
        contention: Contention,
        client: &Caller,
    ) -> Result<TransactionView, Problem> {
        let asked = group.asked(contention)?;
        let mut held = self.rules.budget.hold();
        if !held.grow(asked.bytes()) {
            return Err(no_memory());
        }
        self.door.run(asked, held, client).await
    }
}

/// What came of a group.
#[derive(Debug)]
enum GroupRun {
    /// The answer of each transaction.
    Answered(Vec<Value>),
    /// Nothing was done, by the fault of one of them.
    FallsApart(Vec<Planned>),
}

impl GroupRun {
    /// Whether any of its transactions did not come to its end.
    fn has_failed(&self) -> bool {
        match self {
            Self::Answered(answers) => {
                answers.iter().any(|answer| matches!(answer, Value::Error(_)))
            }
            Self::FallsApart(_) => true,
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
    service: &'a Arc<Service<D>>,
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
    /// How many groups it runs for itself ([`Service::run_shared`]).
    apart: u32,
    /// No more commands are taken.
    is_over: bool,
    /// More came while answers were written.
    reads_ahead: bool,
    /// The client has closed its side, and may still read.
    has_ended: bool,
    watching: Watching,
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
            apart: 0,
            is_over: false,
            reads_ahead: false,
            has_ended: false,
            watching: Watching::default(),
        };
        self.connected.fetch_add(1, Ordering::Relaxed);
        // An error is a client that went away, or takes no bytes.
        let _gone = connection.serve(&activity, stopped).await;
        self.connected.fetch_sub(1, Ordering::Relaxed);
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
            // Each command has its own time: a client that always sends is never in one for long.
            if self.answer_all(activity).await? {
                begun = None;
            }
            if self.is_over {
                return Ok(());
            }
            let now = Instant::now();
            let has_begun = self.reader.has_begun() || !self.input.is_empty();
            begun = has_begun.then(|| begun.unwrap_or(now));
            activity.enter(if has_begun { Stage::Head } else { Stage::Idle });
            let patience = &self.service.patience;
            let until = match begun {
                Some(begun) => begun + patience.body,
                None if self.session.is_authenticated() => now + patience.idle,
                None => now + patience.header,
            };
            tokio::select! {
                ready = self.tcp.readable() => ready?,
                () = sleep_until(until) => return Ok(()),
                () = activity.asked_to_leave() => return Ok(()),
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
            activity.enter(Stage::Busy);
            if self.has_ended || !self.read()? {
                return Ok(());
            }
        }
    }

    /// Reads what is there. False at the end, and where there is no memory for more.
    fn read(&mut self) -> io::Result<bool> {
        let begun = self.input.len() + self.reader.kept();
        if !self.session.is_authenticated() && begun > STRANGER_BYTES_MAX {
            self.say(unauthenticated());
            self.is_over = true;
            return Ok(true);
        }
        let kept = begun + READ_BYTES;
        let wanted = kept.saturating_sub(FREE_BYTES);
        self.held.shrink_to(wanted);
        let more = wanted - self.held.bytes();
        if more > 0 && !self.held.grow(more) {
            self.say(of_problem(&no_memory()));
            self.is_over = true;
            return Ok(true);
        }
        self.input.reserve(READ_BYTES);
        match self.tcp.try_read_buf(&mut self.input) {
            Ok(count) => {
                self.service.metric.read(count);
                Ok(count > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes every command that is there, and writes every answer. Whether there was one.
    async fn answer_all(&mut self, activity: &Activity) -> io::Result<bool> {
        let mut took = false;
        loop {
            took |= self.take_all(activity).await?;
            // From here on what comes is not taken, but in the next turn.
            self.reads_ahead = false;
            self.run(activity).await?;
            self.write(activity).await?;
            if !self.reads_ahead {
                return Ok(took);
            }
        }
    }

    /// Takes every command that is there. Whether there was one.
    async fn take_all(&mut self, activity: &Activity) -> io::Result<bool> {
        let mut took = false;
        while !self.is_over {
            let next = self.reader.next(&mut self.input);
            took |= matches!(next, Ok(Some(_)));
            match next {
                Ok(Some(command)) => match self.session.take(command) {
                    SessionStep::Say(value) => self.say(value),
                    SessionStep::SayAndEnd(value) => {
                        self.say(value);
                        self.is_over = true;
                    }
                    SessionStep::Watch(keys, planned) => {
                        // What came before it is done first, and what comes behind it waits.
                        self.run(activity).await?;
                        let answer = self.service.run_alone(planned, &self.client).await;
                        let value = self.session.watched(keys, answer);
                        self.say(value);
                    }
                    SessionStep::Run(planned) => {
                        let version = planned.version;
                        let refused = match &mut self.group {
                            Some(group) => group.join(planned).err(),
                            None => Some(planned),
                        };
                        if let Some(planned) = refused {
                            self.run(activity).await?;
                            self.group = Some(planned.into());
                        }
                        self.waiting.push(WaitingAnswer::OfGroup(version));
                    }
                },
                Ok(None) => break,
                Err(error) => self.end_with(error),
            }
            self.watching.set(self.session.is_watching());
            if self.waiting.len() >= WAITING_MAX {
                self.run(activity).await?;
            }
        }
        Ok(took)
    }

    fn say(&mut self, value: Value) {
        self.waiting.push(WaitingAnswer::Known(value, self.session.version()));
    }

    fn end_with(&mut self, error: ProtocolError) {
        self.say(Value::Error(format!("ERR {error}")));
        self.is_over = true;
    }

    /// Runs the group, and puts the answers in their order. If it fails by the fault of one of its
    /// transactions, nothing of it was done, and each runs for itself.
    async fn run(&mut self, activity: &Activity) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        if let Some(group) = self.group.take() {
            match self.service.run_shared(group, &self.client, &mut self.apart).await {
                GroupRun::Answered(answers) => {
                    for answer in answers {
                        self.answer(&mut waiting, answer, activity).await?;
                    }
                }
                GroupRun::FallsApart(planned) => {
                    for planned in planned {
                        let answer = self.service.run_alone(planned, &self.client).await;
                        self.answer(&mut waiting, answer, activity).await?;
                    }
                }
            }
        }
        for waiting in waiting {
            let WaitingAnswer::Known(value, version) = waiting else {
                unreachable!("each transaction of a group has one answer");
            };
            self.put(&value, version);
        }
        self.write_if_much(activity).await
    }

    /// Takes the answer of the next transaction, behind what was answered before it.
    async fn answer(
        &mut self,
        waiting: &mut (impl Iterator<Item = WaitingAnswer> + Send),
        answer: Value,
        activity: &Activity,
    ) -> io::Result<()> {
        for waiting in waiting {
            match waiting {
                WaitingAnswer::Known(value, version) => self.put(&value, version),
                WaitingAnswer::OfGroup(version) => {
                    self.put(&answer, version);
                    return self.write_if_much(activity).await;
                }
            }
        }
        unreachable!("each answer of a group is waited for");
    }

    fn put(&mut self, answer: &Value, version: RespVersion) {
        self.service.metric.answered(answer);
        answer.write(version, &mut self.output);
    }

    /// What is kept of answers while more are made has a bound.
    async fn write_if_much(&mut self, activity: &Activity) -> io::Result<()> {
        if self.output.len() < OUT_BYTES_MAX {
            return Ok(());
        }
        self.write(activity).await
    }

    /// Writes what is to be written. A client that has not read its answers may be writing still,
    /// and not read before it has: what it writes is taken meanwhile, as far as there is room.
    async fn write(&mut self, activity: &Activity) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.tcp.try_write(&self.output) {
                Ok(count) => {
                    self.output.advance(count);
                    self.service.metric.wrote(count);
                    activity.wrote(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    activity.wrote(false);
                    let has_room = self.input.len() < INPUT_BYTES_MAX && !self.has_ended;
                    let interest = if has_room {
                        Interest::READABLE | Interest::WRITABLE
                    } else {
                        Interest::WRITABLE
                    };
                    let patience = self.service.patience.write;
                    let ready = timeout(patience, self.tcp.ready(interest)).await??;
                    if has_room && ready.is_readable() {
                        self.has_ended |= !self.read()?;
                        self.reads_ahead = true;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
