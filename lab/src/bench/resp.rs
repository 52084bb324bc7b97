//! Transactions in the words of Redis clients: at the port of the coordinator, and as the two
//! floors, which tell what the same writes cost at Redis without any atomicity between the servers.
//!
//! **Own connections**: each client has a connection of its own and sends `MULTI`, the ops, `EXEC`;
//! of the floor, to each server at once. **Pipelined**: clients share connections, whose requests
//! go out together.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::unit::{KeyAt, Op, Part, write_value};

/// Requests that go out in one write at most.
const COALESCED_MAX: usize = 512;

/// Bytes that go out in one write at most, and one request.
const COALESCED_BYTES_MAX: usize = 256 * 1024;

/// The replies of the ops, as numbers where they are.
pub(super) type Replies = Vec<Option<i64>>;

/// What came of a transaction: its replies, or the error of `EXEC`.
pub(super) type Executed = Result<Replies, String>;

/// Who executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Executor {
    /// A Redis. It cannot refuse: bounds are left out.
    Redis,
    /// The coordinator's port for Redis clients.
    Assent,
}

/// How an answer is told from the next.
#[derive(Debug, PartialEq, Eq)]
enum AnswerShape {
    /// One read, and nothing around it.
    Bare,
    /// Commands between `MULTI` and `EXEC`.
    Transaction(Vec<Queued>),
}

/// A command of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queued {
    Op,
    /// What the reply of the op before it must be.
    Bound,
}

/// Appends the ops, between `MULTI` and `EXEC` unless there is nothing but one read.
fn encode(server: Executor, parts: &[Part], to: &mut Vec<u8>) -> AnswerShape {
    if let [Part { place, ops }] = parts
        && let [Op::Get { key }] = ops[..]
    {
        command(&["GET", &key.at(*place).to_string()], to);
        return AnswerShape::Bare;
    }
    let mut commands = Vec::new();
    command(&["MULTI"], to);
    for Part { place, ops } in parts {
        for op in ops {
            encode_op(op, *place, to);
            commands.push(Queued::Op);
            if let (Executor::Assent, Some((comparison, value))) = (server, bound(op)) {
                command(&["ASSENT.EXPECT", comparison, &value.to_string()], to);
                commands.push(Queued::Bound);
            }
        }
    }
    command(&["EXEC"], to);
    AnswerShape::Transaction(commands)
}

/// What the reply of an op must be.
fn bound(op: &Op) -> Option<(&'static str, i64)> {
    match op {
        Op::Add { at_least, .. } => Some(("GE", (*at_least)?)),
        Op::Empty { was, .. } => Some(("EQ", (*was)?)),
        Op::Get { .. } | Op::Put { .. } => None,
    }
}

fn encode_op(op: &Op, place: usize, to: &mut Vec<u8>) {
    let spelled = |key: KeyAt| key.to_string();
    match op {
        Op::Add { key, by, .. } => {
            command(&["INCRBY", &spelled(key.at(place)), &by.to_string()], to);
        }
        Op::Get { key } => command(&["GET", &spelled(key.at(place))], to),
        Op::Empty { key, .. } => command(&["GETSET", &spelled(key.at(place)), "0"], to),
        Op::Put { key, stamp, bytes } => {
            let key = spelled(key.at(place));
            let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len());
            to.extend_from_slice(head.as_bytes());
            write_value(*stamp, *bytes, |piece| to.extend_from_slice(piece.as_bytes()));
            to.extend_from_slice(b"\r\n");
        }
    }
}

fn command(words: &[&str], to: &mut Vec<u8>) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// The first whole line and where the next begins.
fn line(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let length = bytes.get(start..)?.iter().position(|byte| *byte == b'\n')?;
    Some((bytes[start..start + length].trim_ascii_end(), start + length + 1))
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The text of an error.
fn refusal(line: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(line.strip_prefix(b"-")?).into_owned())
}

/// The length of the first answer and what it says, if it is whole.
///
/// # Errors
/// If a command was not queued: the bench has said it wrongly.
fn answer(bytes: &[u8], form: &AnswerShape) -> io::Result<Option<(usize, Executed)>> {
    let (mut at, commands) = match form {
        AnswerShape::Bare => (0, &[Queued::Op][..]),
        AnswerShape::Transaction(commands) => {
            let mut at = 0;
            // `+OK`, and `+QUEUED` for each command.
            for _ in 0..=commands.len() {
                let Some((said, next)) = line(bytes, at) else { return Ok(None) };
                if let Some(why) = refusal(said) {
                    return Err(io::Error::other(why));
                }
                at = next;
            }
            let Some((head, next)) = line(bytes, at) else { return Ok(None) };
            if let Some(why) = refusal(head) {
                return Ok(Some((next, Err(why))));
            }
            (next, &commands[..])
        }
    };
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        let Some((head, next)) = line(bytes, at) else { return Ok(None) };
        at = next;
        let value = number(head.get(1..).unwrap_or_default());
        let reply = match (head.first(), value.map(usize::try_from)) {
            (Some(b'$'), Some(Ok(length))) => {
                // And the line's end behind it.
                let Some(text) = bytes.get(at..at + length + 2) else { return Ok(None) };
                at += length + 2;
                number(&text[..length])
            }
            (Some(b'-'), _) => {
                return Ok(Some((at, Err(refusal(head).unwrap_or_default()))));
            }
            (Some(b':'), _) => value,
            _ => None,
        };
        if *command == Queued::Op {
            replies.push(reply);
        }
    }
    Ok(Some((at, Ok(replies))))
}

/// A connection of one client's.
#[derive(Debug)]
pub(super) struct OwnConnection {
    server: Executor,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl OwnConnection {
    pub(super) async fn connect(server: Executor, port: u16) -> io::Result<Self> {
        let stream = connect(port).await?;
        Ok(Self { server, stream, request: Vec::new(), answer: Vec::new() })
    }

    /// The parts, as one transaction.
    pub(super) async fn run(&mut self, parts: &[Part]) -> io::Result<Executed> {
        self.request.clear();
        let form = encode(self.server, parts, &mut self.request);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((_, executed)) = answer(&self.answer, &form)? {
                return Ok(executed);
            }
        }
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Asked {
    parts: Vec<Part>,
    answer: oneshot::Sender<Executed>,
}

/// An answer to come: its form, and to whom.
type Awaited = (AnswerShape, oneshot::Sender<Executed>);

/// A connection that clients share.
#[derive(Debug, Clone)]
pub(super) struct SharedConnection {
    asked: mpsc::Sender<Asked>,
}

impl SharedConnection {
    pub(super) async fn connect(server: Executor, port: u16) -> io::Result<Self> {
        let (read, write) = connect(port).await?.into_split();
        let (asked, asking) = mpsc::channel(COALESCED_MAX);
        let (sent, waiting) = mpsc::unbounded_channel();
        // They end with the connection, or with the last client.
        tokio::spawn(write_requests(server, write, asking, sent));
        tokio::spawn(read_answers(read, waiting));
        Ok(Self { asked })
    }

    /// The parts, as one transaction.
    pub(super) async fn run(&self, parts: &[Part]) -> io::Result<Executed> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { parts: parts.to_vec(), answer };
        self.asked.send(asked).await.map_err(|_| broken())?;
        answered.await.map_err(|_| broken())
    }
}

async fn write_requests(
    server: Executor,
    mut write: OwnedWriteHalf,
    mut asking: mpsc::Receiver<Asked>,
    sent: mpsc::UnboundedSender<Awaited>,
) -> io::Result<()> {
    let mut asked = Vec::new();
    let mut request = Vec::new();
    while asking.recv_many(&mut asked, COALESCED_MAX).await > 0 {
        for Asked { parts, answer } in asked.drain(..) {
            let form = encode(server, &parts, &mut request);
            let _reader_gone = sent.send((form, answer));
            if request.len() >= COALESCED_BYTES_MAX {
                write.write_all(&request).await?;
                request.clear();
            }
        }
        write.write_all(&request).await?;
        request.clear();
    }
    Ok(())
}

async fn read_answers(
    mut read: OwnedReadHalf,
    mut sent: mpsc::UnboundedReceiver<Awaited>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut waiting: VecDeque<Awaited> = VecDeque::new();
    while read.read_buf(&mut bytes).await? > 0 {
        while let Ok(awaited) = sent.try_recv() {
            waiting.push_back(awaited);
        }
        let mut used = 0;
        while let Some((form, _)) = waiting.front()
            && let Some((length, executed)) = answer(&bytes[used..], form)?
        {
            used += length;
            let _client_gone = waiting.pop_front().map(|(_, answer)| answer.send(executed));
        }
        bytes.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::unit::Key;

    fn form(ops: usize) -> AnswerShape {
        AnswerShape::Transaction(vec![Queued::Op; ops])
    }

    #[test]
    fn an_answer_is_whole_with_its_last_reply() {
        let whole = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:-12\r\n$4\r\n1000\r\n";
        let behind = b"+OK\r\n";
        let bytes = [&whole[..], behind].concat();
        let right = Some((whole.len(), Ok(vec![Some(-12), Some(1_000)])));
        assert_eq!(answer(&bytes, &form(2)).unwrap(), right);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], &form(2)).unwrap(), None, "{length}");
        }
        let nil = b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n";
        assert_eq!(answer(nil, &form(1)).unwrap(), Some((nil.len(), Ok(vec![None]))));
        let read = b"$4\r\n1000\r\n";
        let right = Some((read.len(), Ok(vec![Some(1_000)])));
        assert_eq!(answer(read, &AnswerShape::Bare).unwrap(), right);
    }

    #[test]
    fn the_error_of_exec_is_an_answer_and_one_before_it_is_not() {
        let aborted = b"+OK\r\n+QUEUED\r\n-LOCKCONFLICT why\r\n";
        let right = Some((aborted.len(), Err("LOCKCONFLICT why".to_owned())));
        assert_eq!(answer(aborted, &form(1)).unwrap(), right);
        assert!(answer(b"+OK\r\n-ERR value is not an integer\r\n", &form(1)).is_err());
    }

    /// Redis knows no bounds; at the port their replies are none of an op.
    #[test]
    fn a_bound_is_sent_to_the_port_alone_and_its_reply_is_left_out() {
        let key = Key { family: "acct", number: 7 };
        let ops = vec![Op::Add { key, by: -3, at_least: Some(0) }, Op::Get { key }];
        let parts = [Part { place: 1, ops }];
        let encoded = |server| {
            let mut bytes = Vec::new();
            (encode(server, &parts, &mut bytes), String::from_utf8(bytes).unwrap())
        };
        let (at_redis, text) = encoded(Executor::Redis);
        assert_eq!(at_redis, form(2));
        assert!(text.contains("b:acct:7") && !text.contains("EXPECT"), "{text}");
        let (at_port, text) = encoded(Executor::Assent);
        assert_eq!(at_port, AnswerShape::Transaction(vec![Queued::Op, Queued::Bound, Queued::Op]));
        assert!(text.contains("ASSENT.EXPECT\r\n$2\r\nGE"), "{text}");
        let said = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:4\r\n+OK\r\n$1\r\n4\r\n";
        let right = Some((said.len(), Ok(vec![Some(4), Some(4)])));
        assert_eq!(answer(said, &at_port).unwrap(), right);
    }
}
