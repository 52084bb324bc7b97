//! The ways to carry out a job: through Assent, by HTTP or by its port for Redis clients; or by
//! plain `MULTI`/`EXEC` at each server.

use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;

use assent::Failure;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::http::HttpConnection;
use super::resp::{Executed, Executor, OwnConnection, Replies, SharedConnection};
use super::unit::{
    Changes, Escrow, Job, Mode, Op, Part, Unit, Wording, sweep_move, sweep_read, write_json,
};

/// Connections to the port for Redis clients that clients share, at most.
const SHARED_MAX: usize = 4;

/// Where transactions are submitted.
const PATH: &str = "/v1/transactions";

/// How jobs are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub(super) enum Way {
    /// Plain `MULTI`/`EXEC` at all servers at once, connections of one's own.
    Floor,
    /// The same over shared connections.
    FloorPipelined,
    /// Through Assent, on keys that nobody fights for.
    Uncontended(Mode),
    /// Through Assent.
    Assent(Mode),
    /// Through Assent's port for Redis clients, a connection each.
    Port,
    /// The same over a few shared connections.
    PortPipelined,
}

/// Where to, and in which words.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    pub(super) coordinator: SocketAddr,
    /// The coordinator's port for Redis clients, if it has one.
    pub(super) port: Option<u16>,
    pub(super) redis: Vec<u16>,
    pub(super) names: Arc<[String]>,
    pub(super) escrow: Escrow,
    pub(super) keys: Keys,
}

/// Whether transactions carry idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keys {
    /// No: a lost answer cannot be asked for again.
    None,
    /// Each has its own.
    Each,
}

impl From<bool> for Keys {
    fn from(each: bool) -> Self {
        if each { Self::Each } else { Self::None }
    }
}

/// What a client was told of a job, in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Committed, after so many attempts that conflicts ended.
    Committed { retries: u32 },
    /// Aborted, with this code.
    Aborted(String),
    /// Not known yet: to be asked for later, by the transaction's id.
    Pending(String),
    /// Not taken: nothing was begun.
    Refused(String),
}

/// A job that was answered.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) told: Told,
    /// What it changed, if it was carried out.
    pub(super) changes: Changes,
    /// The stamp of the values that it stored, if it was carried out.
    pub(super) stamp: Option<u64>,
    /// Reads whose replies are not what nobody ever changed.
    pub(super) misread: u64,
}

/// Requests go out by these.
pub(super) enum Client {
    Own(Vec<OwnConnection>),
    Shared(Vec<SharedConnection>),
    Port(OwnConnection),
    PortShared(SharedConnection),
    Http(Box<HttpClient>),
}

/// A client of the coordinator.
pub(super) struct HttpClient {
    connection: HttpConnection,
    wording: Wording,
    names: Arc<[String]>,
    keys: Keys,
    body: String,
}

/// Who asks, so that no idempotency key comes twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) run: u64,
    pub(super) client: u64,
    pub(super) n: u64,
}

impl Way {
    /// Whether it goes to Redis without Assent.
    pub(super) const fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorPipelined)
    }
}

impl Client {
    /// The clients of a run, each with its connections to the first `places` servers, or to the
    /// coordinator.
    pub(super) async fn connect(
        way: Way,
        targets: &Targets,
        places: usize,
        clients: usize,
    ) -> std::io::Result<Vec<Self>> {
        let ports = &targets.redis[..places];
        let mut connected = Vec::with_capacity(clients);
        match way {
            Way::Floor => {
                for _ in 0..clients {
                    let own =
                        ports.iter().map(|port| OwnConnection::connect(Executor::Redis, *port));
                    connected.push(Self::Own(try_join_all(own).await?));
                }
            }
            Way::FloorPipelined => {
                let shared =
                    ports.iter().map(|port| SharedConnection::connect(Executor::Redis, *port));
                let shared = try_join_all(shared).await?;
                connected.extend((0..clients).map(|_| Self::Shared(shared.clone())));
            }
            Way::Port => {
                for _ in 0..clients {
                    let own = OwnConnection::connect(Executor::Assent, targets.port()?).await?;
                    connected.push(Self::Port(own));
                }
            }
            Way::PortPipelined => {
                let shared = (0..clients.min(SHARED_MAX)).map(async |_| {
                    SharedConnection::connect(Executor::Assent, targets.port()?).await
                });
                let shared = try_join_all(shared).await?;
                let taken = shared.iter().cycle().take(clients);
                connected.extend(taken.map(|shared| Self::PortShared(shared.clone())));
            }
            Way::Uncontended(mode) | Way::Assent(mode) => {
                // The reference is without contention, and so without what helps against it.
                let escrow = match way {
                    Way::Assent(_) => targets.escrow,
                    _ => Escrow::NotAsked,
                };
                for _ in 0..clients {
                    let connection = HttpConnection::connect(targets.coordinator).await?;
                    connected.push(Self::Http(Box::new(HttpClient {
                        connection,
                        wording: Wording { mode, escrow },
                        names: Arc::clone(&targets.names),
                        keys: targets.keys,
                        body: String::new(),
                    })));
                }
            }
        }
        Ok(connected)
    }

    pub(super) async fn perform(&mut self, job: &Job, asking: Asking) -> Result<Done, Failure> {
        match (self, job) {
            (Self::Http(http), Job::Unit(unit)) => http.submit(unit, asking, "").await,
            (Self::Http(http), Job::Sweep { from, place, to, to_place }) => {
                let (from, to) = ((*from, *place), (*to, *to_place));
                http.sweep(from, to, asking).await
            }
            (port @ (Self::Port(_) | Self::PortShared(_)), Job::Unit(unit)) => {
                let (done, _) = port.submit(unit).await?;
                Ok(done)
            }
            (
                port @ (Self::Port(_) | Self::PortShared(_)),
                Job::Sweep { from, place, to, to_place },
            ) => {
                let (read, replies) = port.submit(&sweep_read(*from, *place)).await?;
                let [Some(first), Some(second)] = replies[..] else { return Ok(read) };
                let unit = sweep_move((*from, *place), (*to, *to_place), [first, second]);
                Ok(port.submit(&unit).await?.0)
            }
            (plain, Job::Unit(unit)) => {
                let replies = plain.execute(&unit.parts).await?;
                Ok(Done {
                    told: Told::Committed { retries: 0 },
                    changes: unit.changes(),
                    stamp: unit.stamp(),
                    misread: misread(unit, &replies),
                })
            }
            (plain, Job::Sweep { from, place, to, to_place }) => {
                let empty = |key| Op::Empty { key, was: None };
                let first = Part { place: *place, ops: from.map(empty).to_vec() };
                let taken = plain.execute(&[first]).await?;
                let taken: i64 = taken.iter().flatten().flatten().sum();
                let give = Op::Add { key: *to, by: taken, at_least: None };
                plain.execute(&[Part { place: *to_place, ops: vec![give] }]).await?;
                let mut changes = Changes::default();
                changes.add(*place, -taken);
                changes.add(*to_place, taken);
                let told = Told::Committed { retries: 0 };
                Ok(Done { told, changes, stamp: None, misread: 0 })
            }
        }
    }

    /// All parts at once, at their servers.
    async fn execute(&mut self, parts: &[Part]) -> Result<Vec<Replies>, Failure> {
        let done = match self {
            Self::Own(connections) => {
                let at_places = connections.iter_mut().enumerate();
                let running = at_places.filter_map(|(place, connection)| {
                    let part = parts.iter().find(|part| part.place == place)?;
                    Some(connection.run(slice::from_ref(part)))
                });
                try_join_all(running).await
            }
            Self::Shared(connections) => {
                let at_places =
                    parts.iter().map(|part| connections[part.place].run(slice::from_ref(part)));
                try_join_all(at_places).await
            }
            Self::Http(_) | Self::Port(_) | Self::PortShared(_) => Ok(Vec::new()),
        };
        let done = done.map_err(|error| Failure::of("a plain transaction", &error))?;
        let replies = done.into_iter().collect::<Result<_, _>>();
        replies.map_err(|why| Failure::error(format!("Redis refused a plain transaction: {why}")))
    }

    /// One transaction at the port, and its replies if it is committed.
    async fn submit(&mut self, unit: &Unit) -> Result<(Done, Replies), Failure> {
        let executed = match self {
            Self::Port(own) => own.run(&unit.parts).await,
            Self::PortShared(shared) => shared.run(&unit.parts).await,
            Self::Own(_) | Self::Shared(_) | Self::Http(_) => Ok(Ok(Vec::new())),
        };
        let executed = executed.map_err(|error| {
            Failure::of("a connection to the port broke, an outcome is not known", &error)
        })?;
        let replies = executed.as_ref().map_or_else(|_| Vec::new(), Clone::clone);
        let mut rest = &replies[..];
        let by_part = unit.parts.iter().map(|part| {
            let (own, others) = rest.split_at(part.ops.len().min(rest.len()));
            rest = others;
            own.to_vec()
        });
        let misread = misread(unit, &by_part.collect::<Vec<_>>());
        let told = told(executed);
        let (changes, stamp) = (unit.changes(), unit.stamp());
        Ok((Done { told, changes, stamp, misread }, replies))
    }
}

impl HttpClient {
    async fn submit(&mut self, unit: &Unit, asking: Asking, step: &str) -> Result<Done, Failure> {
        self.body.clear();
        write_json(unit, self.wording, &self.names, &mut self.body);
        let Asking { run, client, n } = asking;
        let key = match self.keys {
            Keys::None => None,
            Keys::Each => Some(format!("bench-{run}-{client}-{n}{step}")),
        };
        let (status, answer) =
            self.connection.post(PATH, key.as_deref(), &self.body).await.map_err(|error| {
                Failure::of("the coordinator's connection broke, an outcome is not known", &error)
            })?;
        let told = judge(status, answer)?;
        let misread = match told {
            Told::Committed { .. } => misread_in(unit, answer),
            Told::Aborted(_) | Told::Pending(_) | Told::Refused(_) => 0,
        };
        Ok(Done { told, changes: unit.changes(), stamp: unit.stamp(), misread })
    }

    async fn sweep(
        &mut self,
        (from, place): ([super::unit::Key; 2], usize),
        to: (super::unit::Key, usize),
        asking: Asking,
    ) -> Result<Done, Failure> {
        let read = self.submit(&sweep_read(from, place), asking, "-read").await?;
        let Told::Committed { retries } = read.told else { return Ok(read) };
        let balances = self.connection.last_body().and_then(balances_of).ok_or_else(|| {
            Failure::error("a read of two balances was answered without two numbers")
        })?;
        let unit = sweep_move((from, place), to, balances);
        let mut moved = self.submit(&unit, asking, "").await?;
        if let Told::Committed { retries: again } = &mut moved.told {
            *again += retries;
        }
        Ok(moved)
    }
}

impl Targets {
    fn port(&self) -> std::io::Result<u16> {
        let none = "the coordinator has no port for Redis clients";
        self.port.ok_or_else(|| std::io::Error::other(none))
    }
}

/// What the port has said.
fn told(executed: Executed) -> Told {
    let Err(why) = executed else { return Told::Committed { retries: 0 } };
    let id = || why.rsplit(' ').next().unwrap_or_default().to_owned();
    match why.split(' ').next() {
        Some("UNKNOWN") => Told::Pending(id()),
        // What is aborted names its transaction.
        Some(code) if why.contains("(transaction ") => Told::Aborted(code.to_owned()),
        _ => Told::Refused(why),
    }
}

/// The two numbers in `"replies":["1000","93"]`.
fn balances_of(answer: &[u8]) -> Option<[i64; 2]> {
    let text = std::str::from_utf8(answer).ok()?;
    let (_, replies) = text.split_once("\"replies\":[")?;
    let (replies, _) = replies.split_once(']')?;
    let mut numbers = replies.split(',').map(|reply| reply.trim_matches('"').parse().ok());
    Some([numbers.next()??, numbers.next()??])
}

/// Whether it is a transaction of `read`: only reads, at more than one participant. Nobody changes
/// what those read.
fn is_still(unit: &Unit) -> bool {
    unit.parts.len() > 1
        && unit.parts.iter().flat_map(|part| &part.ops).all(|op| matches!(op, Op::Get { .. }))
}

fn misread(unit: &Unit, replies: &[Replies]) -> u64 {
    let opening = Some(super::workload::OPENING_BALANCE);
    let wrong = replies.iter().flatten().filter(|reply| **reply != opening).count();
    if is_still(unit) { wrong as u64 } else { 0 }
}

fn misread_in(unit: &Unit, answer: &[u8]) -> u64 {
    if !is_still(unit) {
        return 0;
    }
    let right = format!("\"replies\":[\"{}\"]", super::workload::OPENING_BALANCE);
    let found = String::from_utf8_lossy(answer).matches(&right).count();
    unit.parts.len().saturating_sub(found) as u64
}

/// What an answer says. Anything that is no plain outcome ends the bench: its sums would say
/// nothing.
fn judge(status: u16, answer: &[u8]) -> Result<Told, Failure> {
    let text = String::from_utf8_lossy(answer);
    let said = |name: &str| -> Option<String> {
        let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let retries = || -> Option<u32> {
        let (_, rest) = text.split_once("\"attempt\":")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    match (status, said("outcome").as_deref()) {
        (200 | 201, Some("committed")) => Ok(Told::Committed { retries: retries().unwrap_or(0) }),
        (400..=599, Some("aborted")) => {
            Ok(Told::Aborted(said("code").unwrap_or_else(|| status.to_string())))
        }
        (_, Some("pending")) => said("id").map(Told::Pending).ok_or_else(|| {
            Failure::error(format!("an outcome is pending, and has no id: HTTP {status}: {text}"))
        }),
        (400..=599, None) if said("code").is_some() => {
            let code = said("code").unwrap_or_default();
            Ok(Told::Refused(format!("{code}: {}", said("detail").unwrap_or_default())))
        }
        _ => Err(Failure::error(format!("a transaction was answered HTTP {status}: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::unit::Key;

    #[test]
    fn an_answer_is_an_outcome_a_refusal_or_no_answer() {
        let told = |status, text: &str| judge(status, text.as_bytes()).ok();
        let committed = r#"{"id":"x","outcome":"committed","attempt":2}"#;
        assert_eq!(told(200, committed), Some(Told::Committed { retries: 2 }));
        let aborted = r#"{"code":"lock_conflict","outcome":"aborted"}"#;
        assert_eq!(told(409, aborted), Some(Told::Aborted("lock_conflict".to_owned())));
        let pending = r#"{"id":"x","outcome":"pending"}"#;
        assert_eq!(told(202, pending), Some(Told::Pending("x".to_owned())));
        let refused = r#"{"code":"bad_request","detail":"unknown field"}"#;
        assert_eq!(
            told(400, refused),
            Some(Told::Refused("bad_request: unknown field".to_owned()))
        );
        assert_eq!(told(200, "{}"), None);
        assert_eq!(told(502, "<html>"), None);
    }

    #[test]
    fn an_answer_of_the_port_is_an_outcome_or_a_refusal() {
        let error = |text: &str| told(Err(text.to_owned()));
        assert_eq!(told(Ok(vec![Some(1)])), Told::Committed { retries: 0 });
        let aborted = "LOCKCONFLICT a:acct:7 is locked (transaction 0198)";
        assert_eq!(error(aborted), Told::Aborted("LOCKCONFLICT".to_owned()));
        let unknown = "UNKNOWN whether it is committed is not known; ask for it by its id: 0198";
        assert_eq!(error(unknown), Told::Pending("0198".to_owned()));
        let refused = "UNROUTED no rule matches the key c:acct:7";
        assert_eq!(error(refused), Told::Refused(refused.to_owned()));
    }

    #[test]
    fn balances_are_the_two_replies() {
        assert_eq!(balances_of(br#"{"branches":[{"replies":["1000","-7"]}]}"#), Some([1_000, -7]));
        assert_eq!(balances_of(br#"{"branches":[{"replies":[null,"7"]}]}"#), None);
    }

    #[test]
    fn a_read_of_what_nobody_changes_must_find_it_unchanged() {
        let part = |place| {
            let key = Key { family: "acct", number: 1 };
            Part { place, ops: vec![Op::Get { key }] }
        };
        let unit = Unit { parts: vec![part(0), part(1)] };
        assert_eq!(misread(&unit, &[vec![Some(1_000)], vec![Some(1_000)]]), 0);
        assert_eq!(misread(&unit, &[vec![Some(1_000)], vec![Some(999)]]), 1);
        let answer = br#"{"branches":[{"replies":["1000"]},{"replies":["999"]}]}"#;
        assert_eq!(misread_in(&unit, answer), 1);
        // A balance at one participant may be anything: others put money in.
        assert_eq!(misread(&Unit { parts: vec![part(0)] }, &[vec![Some(999)]]), 0);
    }
}
