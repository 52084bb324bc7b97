//! One link: a listening port, a target, and what the link does with bytes between them.
//!
//! ```text
//! accept ──> connect to the target ──> two pumps, one for each way
//!
//! pump:  read ──(due time: delay, jitter, losses)──> queue ──> wait: due? not cut? fast enough? ──> write
//! ```
//!
//! Bytes are never reordered, changed or left out, because TCP does none of that: a lost packet is one that comes late,
//! and a link that loses too much breaks. What a cut holds back is delivered when it is healed, as TCP would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What is read at once, about what a few packets carry.
const CHUNK_BYTES: usize = 4_096;

/// Chunks on their way in one direction; beyond that the sender has to wait, as with a full window.
const IN_FLIGHT_MAX: usize = 64;

/// How long TCP waits before it sends a lost packet again, for the first time; each further time twice as long.
const RETRANSMIT_FIRST_MS: u64 = 200;

/// A chunk that is lost so often in a row breaks its connection.
const LOSSES_MAX: u32 = 6;

/// Which bytes do not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cut {
    /// All do.
    #[default]
    None,
    /// Nothing reaches the target; what it says is heard.
    ToTarget,
    /// The target hears, and is not heard.
    FromTarget,
    /// Nothing gets through.
    Both,
}

impl Cut {
    const fn holds(self, way: Way) -> bool {
        matches!(
            (self, way),
            (Self::Both, _) | (Self::ToTarget, Way::To) | (Self::FromTarget, Way::From)
        )
    }
}

/// What a link does to the bytes; the default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Weather {
    /// Each chunk comes so much later.
    pub(crate) delay_ms: u64,
    /// And by a random part of this.
    pub(crate) jitter_ms: u64,
    /// Of a hundred chunks, so many have to be sent again.
    pub(crate) loss_percent: u8,
    /// Which bytes do not get through at all.
    pub(crate) cut: Cut,
    /// The most that gets through in a second, each way.
    pub(crate) bytes_per_s: Option<u64>,
}

/// What has gone over a link.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) broken: AtomicU64,
}

/// A link, as everybody who has to do with it shares it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) target: watch::Sender<String>,
    pub(crate) weather: watch::Sender<Weather>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    To,
    From,
}

impl Link {
    pub(crate) fn new(name: String, target: String) -> Arc<Self> {
        let (target, weather) =
            (watch::Sender::new(target), watch::Sender::new(Weather::default()));
        Arc::new(Self { name, target, weather, counters: Counters::default() })
    }

    /// Serves connections for ever.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            // An accept fails for want of file descriptors at worst, which ends with other connections.
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            self.counters.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(Arc::clone(&self).connect(socket));
        }
    }

    async fn connect(self: Arc<Self>, socket: TcpStream) {
        self.until_open(Way::To).await;
        let target = self.target.borrow().clone();
        // A target that cannot be reached is a connection that closes at once: the socket is dropped.
        let Ok(upstream) = TcpStream::connect(&target).await else { return };
        let nodelay = socket.set_nodelay(true).and_then(|()| upstream.set_nodelay(true));
        if nodelay.is_err() {
            return;
        }
        let (from_client, to_client) = socket.into_split();
        let (from_target, to_target) = upstream.into_split();
        tokio::spawn(Arc::clone(&self).pump(Way::To, from_client, to_target));
        tokio::spawn(self.pump(Way::From, from_target, to_client));
    }

    /// Carries one direction until it ends or breaks.
    async fn pump(self: Arc<Self>, way: Way, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (queue, queued) = mpsc::channel(IN_FLIGHT_MAX);
        let writer = tokio::spawn(Arc::clone(&self).write(way, to, queued));
        let ended = tokio::select! {
            ended = self.read(from, &queue) => ended,
            // The reader of the other side is gone: whoever sends is to notice.
            () = queue.closed() => Ended::Broken,
        };
        drop(queue);
        match ended {
            // What is on its way still arrives, and the end after it.
            Ended::Closed => drop(writer.await),
            Ended::Broken => {
                self.counters.broken.fetch_add(1, Ordering::Relaxed);
                writer.abort();
            }
        }
    }

    async fn read(&self, mut from: OwnedReadHalf, queue: &mpsc::Sender<Chunk>) -> Ended {
        let mut due = Instant::now();
        loop {
            let mut bytes = vec![0; CHUNK_BYTES];
            match from.read(&mut bytes).await {
                Ok(0) => return Ended::Closed,
                Ok(read) => bytes.truncate(read),
                Err(_) => return Ended::Broken,
            }
            let Some(late) = self.lateness() else { return Ended::Broken };
            // Not before what was said earlier.
            due = due.max(Instant::now() + late);
            if queue.send(Chunk { due, bytes }).await.is_err() {
                return Ended::Broken;
            }
        }
    }

    /// How late the next chunk is, or nothing if the link breaks over it.
    fn lateness(&self) -> Option<Duration> {
        let (delay_ms, jitter_ms, loss) = {
            let weather = self.weather.borrow();
            (weather.delay_ms, weather.jitter_ms, u32::from(weather.loss_percent))
        };
        let mut rng = rand::rng();
        let mut late_ms = delay_ms + rng.random_range(0..=jitter_ms);
        let mut losses = 0;
        while loss > 0 && rng.random_range(0..100) < loss {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            late_ms += RETRANSMIT_FIRST_MS << losses;
            losses += 1;
            if losses == LOSSES_MAX {
                return None;
            }
        }
        Some(Duration::from_millis(late_ms))
    }

    async fn write(
        self: Arc<Self>,
        way: Way,
        mut to: OwnedWriteHalf,
        mut queued: mpsc::Receiver<Chunk>,
    ) {
        while let Some(Chunk { due, bytes }) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            self.until_open(way).await;
            let bytes_per_s = self.weather.borrow().bytes_per_s;
            if let Some(bytes_per_s) = bytes_per_s {
                let ms = bytes.len() as u64 * 1_000 / bytes_per_s.max(1);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        self.until_open(way).await;
        let _already_gone = to.shutdown().await;
    }

    /// Waits while this way is cut.
    async fn until_open(&self, way: Way) {
        let mut weather = self.weather.subscribe();
        let _sender_lives_in_self = weather.wait_for(|weather| !weather.cut.holds(way)).await;
    }
}

struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

enum Ended {
    /// The sender has said everything.
    Closed,
    /// The connection is no more.
    Broken,
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt as _;
    use tokio::io::BufReader;

    use super::*;

    /// Answers every line with itself.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (from, mut to) = socket.into_split();
                    tokio::io::copy(&mut BufReader::new(from), &mut to).await
                });
            }
        });
        address
    }

    async fn link() -> (Arc<Link>, BufReader<TcpStream>) {
        let link = Link::new("test".to_owned(), echo().await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&link).serve(listener));
        (link, BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn say(socket: &mut BufReader<TcpStream>, text: &str) {
        socket.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hear(socket: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        socket.read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn what_a_cut_holds_back_arrives_when_it_is_healed_and_in_order() {
        let (link, mut socket) = link().await;
        say(&mut socket, "one\n").await;
        assert_eq!(hear(&mut socket).await, "one\n");
        for cut in [Cut::ToTarget, Cut::FromTarget, Cut::Both] {
            link.weather.send_modify(|weather| weather.cut = cut);
            say(&mut socket, "two\n").await;
            say(&mut socket, "three\n").await;
            let heard = tokio::time::timeout(Duration::from_millis(50), hear(&mut socket)).await;
            assert!(heard.is_err(), "{cut:?}: {heard:?}");
            link.weather.send_modify(|weather| weather.cut = Cut::None);
            assert_eq!(hear(&mut socket).await, "two\n");
            assert_eq!(hear(&mut socket).await, "three\n");
        }
    }

    #[tokio::test]
    async fn loss_delays_and_keeps_every_byte_until_the_connection_breaks() {
        let (link, mut socket) = link().await;
        link.weather.send_modify(|weather| weather.loss_percent = 20);
        for round in 0..20 {
            say(&mut socket, &format!("{round}\n")).await;
            assert_eq!(hear(&mut socket).await, format!("{round}\n"));
        }
        link.weather.send_modify(|weather| weather.loss_percent = 100);
        say(&mut socket, "lost\n").await;
        assert_eq!(hear(&mut socket).await, "", "the connection is to end");
        assert!(link.counters.lost.load(Ordering::Relaxed) >= 6);
    }

    #[tokio::test]
    async fn a_slow_link_is_slow_and_another_target_serves_new_connections() {
        let (link, mut socket) = link().await;
        link.weather.send_modify(|weather| weather.delay_ms = 30);
        let asked = Instant::now();
        say(&mut socket, "late\n").await;
        assert_eq!(hear(&mut socket).await, "late\n");
        assert!(asked.elapsed() >= Duration::from_millis(60), "once each way");
        assert_eq!(serde_json::from_str::<Weather>("{}").unwrap(), Weather::default());
    }
}
