//! The two floors: what the same writes cost at Redis without any atomicity between the servers.
//!
//! **Own connections**: each client has a connection to each server and sends `MULTI`, the write, `EXEC` to both at once.
//! **Pipelined**: all clients share one connection per server, whose requests go out together.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// The lines of an answer: `+OK`, `+QUEUED`, `*1`, and the write's reply.
const LINES: usize = 4;

/// Requests that go out in one write at most.
const COALESCED_MAX: usize = 512;

/// Appends `MULTI`, `INCRBY key amount`, `EXEC`.
fn encode(key: &str, amount: i64, to: &mut Vec<u8>) {
    let amount = amount.to_string();
    to.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$6\r\nINCRBY\r\n");
    for argument in [key, &amount] {
        to.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    to.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
}

/// The length of the first answer, if it is whole; an error of Redis is an error.
fn answer_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut lines = 0;
    let mut start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if bytes[start] == b'-' {
            let said = String::from_utf8_lossy(&bytes[start..at]).into_owned();
            return Err(io::Error::other(said));
        }
        lines += 1;
        start = at + 1;
        if lines == LINES {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

/// A connection of one client's.
#[derive(Debug)]
pub(super) struct OwnConnection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl OwnConnection {
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    pub(super) async fn add(&mut self, key: &str, amount: i64) -> io::Result<()> {
        self.request.clear();
        encode(key, amount, &mut self.request);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while answer_length(&self.answer)?.is_none() {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

struct Asked {
    key: String,
    amount: i64,
    answer: oneshot::Sender<()>,
}

/// A connection that all clients share.
#[derive(Debug, Clone)]
pub(super) struct SharedConnection {
    asked: mpsc::Sender<Asked>,
}

impl SharedConnection {
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (asked, asking) = mpsc::channel(COALESCED_MAX);
        let (sent, waiting) = mpsc::unbounded_channel();
        // They end with the connection, or with the last client.
        tokio::spawn(write_requests(write, asking, sent));
        tokio::spawn(read_answers(read, waiting));
        Ok(Self { asked })
    }

    pub(super) async fn add(&self, key: &str, amount: i64) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { key: key.to_owned(), amount, answer };
        self.asked.send(asked).await.map_err(|_| broken())?;
        answered.await.map_err(|_| broken())
    }
}

async fn write_requests(
    mut write: OwnedWriteHalf,
    mut asking: mpsc::Receiver<Asked>,
    sent: mpsc::UnboundedSender<oneshot::Sender<()>>,
) -> io::Result<()> {
    let mut asked = Vec::new();
    let mut request = Vec::new();
    while asking.recv_many(&mut asked, COALESCED_MAX).await > 0 {
        request.clear();
        for Asked { key, amount, answer } in asked.drain(..) {
            encode(&key, amount, &mut request);
            let _reader_gone = sent.send(answer);
        }
        write.write_all(&request).await?;
    }
    Ok(())
}

async fn read_answers(
    mut read: OwnedReadHalf,
    mut sent: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut waiting = VecDeque::new();
    while read.read_buf(&mut bytes).await? > 0 {
        let mut used = 0;
        while let Some(length) = answer_length(&bytes[used..])? {
            used += length;
            while let Ok(answer) = sent.try_recv() {
                waiting.push_back(answer);
            }
            let answer: Option<oneshot::Sender<()>> = waiting.pop_front();
            let _client_gone = answer.map(|answer| answer.send(()));
        }
        bytes.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_four_lines() {
        let answer = b"+OK\r\n+QUEUED\r\n*1\r\n:-12\r\n+OK\r\n";
        assert_eq!(answer_length(answer).unwrap(), Some(answer.len() - 5));
        assert_eq!(answer_length(&answer[..20]).unwrap(), None);
        assert!(answer_length(b"+OK\r\n-ERR value is not an integer\r\n").is_err());
    }
}
