//! A wire between a store and its Redis that can be held in either direction, connection by connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::harness::Redis;

/// The wire; alive as long as the test's runtime.
pub(crate) struct Wire {
    dir: TempDir,
    links: watch::Receiver<Vec<Arc<Link>>>,
    hold_after: Arc<Mutex<Option<&'static str>>>,
}

/// One connection.
pub(crate) struct Link {
    requests_flow: watch::Sender<bool>,
    replies_flow: watch::Sender<bool>,
    /// All that the store has said, as far as it was read.
    said: watch::Sender<Vec<u8>>,
    /// Whether an answer of Redis is held.
    reply_held: watch::Sender<bool>,
    /// Whether the connection is broken.
    is_cut: watch::Sender<bool>,
}

impl Wire {
    pub(crate) fn to(redis: &Redis) -> Self {
        let dir = TempDir::new().unwrap();
        let listener = UnixListener::bind(dir.path().join("wire.sock")).unwrap();
        let server: PathBuf = redis.url().strip_prefix("unix://").unwrap().into();
        let (all, links) = watch::channel(Vec::new());
        let hold_after: Arc<Mutex<Option<&'static str>>> = Arc::default();
        let word = Arc::clone(&hold_after);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let link = Arc::new(Link {
                    requests_flow: watch::Sender::new(true),
                    replies_flow: watch::Sender::new(true),
                    said: watch::Sender::default(),
                    reply_held: watch::Sender::new(false),
                    is_cut: watch::Sender::new(false),
                });
                all.send_modify(|all| all.push(Arc::clone(&link)));
                let server = UnixStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let hold_after = *word.lock().unwrap();
                tokio::spawn(Arc::clone(&link).hear(from_client));
                tokio::spawn(Arc::clone(&link).requests(to_server, hold_after));
                tokio::spawn(link.replies(from_server, to_client));
            }
        });
        Self { dir, links, hold_after }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.dir.path().join("wire.sock").display())
    }

    /// On connections that come from now on, holds the answers from that to a request with this word on.
    pub(crate) fn hold_replies_after(&self, word: &'static str) {
        *self.hold_after.lock().unwrap() = Some(word);
    }

    /// On connections that come from now on, holds nothing.
    pub(crate) fn hold_no_replies(&self) {
        *self.hold_after.lock().unwrap() = None;
    }

    /// The connection that came as this one in order, from 0; waits for it.
    pub(crate) async fn link(&self, place: usize) -> Arc<Link> {
        let mut links = self.links.clone();
        let links = links.wait_for(|links| links.len() > place).await.unwrap();
        Arc::clone(&links[place])
    }
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

async fn opened(flow: &watch::Sender<bool>) {
    flow.subscribe().wait_for(|flow| *flow).await.unwrap();
}

impl Link {
    /// Lets requests wait on the wire, or go on.
    pub(crate) fn hold_requests(&self, hold: bool) {
        self.requests_flow.send_replace(!hold);
    }

    /// Lets held answers go on.
    pub(crate) fn release_replies(&self) {
        self.replies_flow.send_replace(true);
    }

    /// Breaks the connection; what is held is lost.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Waits until the store has said this word.
    pub(crate) async fn says(&self, word: &str) {
        self.said.subscribe().wait_for(|said| has(said, word)).await.unwrap();
    }

    /// Waits until Redis has answered something that is held.
    pub(crate) async fn holds_a_reply(&self) {
        self.reply_held.subscribe().wait_for(|held| *held).await.unwrap();
    }

    /// Hears the store, held or not.
    async fn hear(self: Arc<Self>, mut from: tokio::net::unix::OwnedReadHalf) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            self.said.send_modify(|said| said.extend_from_slice(&bytes[..count]));
        }
    }

    async fn requests(
        self: Arc<Self>,
        mut to: tokio::net::unix::OwnedWriteHalf,
        mut hold_after: Option<&'static str>,
    ) {
        let mut said = self.said.subscribe();
        let mut passed = 0;
        loop {
            said.wait_for(|said| said.len() > passed).await.unwrap();
            opened(&self.requests_flow).await;
            let bytes = self.said.borrow()[passed..].to_vec();
            passed += bytes.len();
            if hold_after.take_if(|word| has(&bytes, word)).is_some() {
                self.replies_flow.send_replace(false);
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    async fn replies(
        self: Arc<Self>,
        mut from: tokio::net::unix::OwnedReadHalf,
        mut to: tokio::net::unix::OwnedWriteHalf,
    ) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if !*self.replies_flow.borrow() {
                self.reply_held.send_replace(true);
            }
            let mut is_cut = self.is_cut.subscribe();
            tokio::select! {
                () = opened(&self.replies_flow) => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => return,
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }
}
