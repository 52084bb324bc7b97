//! A listener: connections in, up to a number, the longest idle one out for a new one.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::activity::Activity;
use crate::metric::ListenerMetric;
use crate::seldom::Seldom;

/// How often a full listener looks whether a connection has become idle, and one without descriptors tries again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A listener that is bound.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub socket: TcpListener,
    /// What it is called in logs.
    pub name: &'static str,
    /// Connections at the most.
    pub connections_max: usize,
}

/// What a listener does with its connections.
pub trait Serves: Send + Sync + 'static {
    /// Serves a connection until it ends, its time is over, or it is told to go: by
    /// [`Activity::asked_to_leave`], or because the server stops. `activity` says what it does.
    fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        activity: Arc<Activity>,
        stopped: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;
}

/// The connections that are open.
struct Connections {
    tasks: JoinSet<()>,
    activities: HashMap<Id, Arc<Activity>>,
    metric: ListenerMetric,
}

impl Connections {
    fn new(metric: ListenerMetric) -> Self {
        Self { tasks: JoinSet::new(), activities: HashMap::new(), metric }
    }

    fn spawn<S: Serves>(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        serves: &Arc<S>,
        stopped: &watch::Receiver<bool>,
    ) {
        let activity = Arc::new(Activity::new());
        let serves = Arc::clone(serves);
        let served = serves.serve(stream, peer, Arc::clone(&activity), stopped.clone());
        let id = self.tasks.spawn(served).id();
        self.activities.insert(id, activity);
        self.metric.opened();
    }

    /// Waits until one ends; for ever if there is none.
    async fn one_ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let id = ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id);
                self.activities.remove(&id);
                self.metric.closed();
            }
            None => std::future::pending().await,
        }
    }

    /// Tells the one that has been idle for the longest time to go.
    fn let_one_go(&self) {
        let idle = self.activities.values();
        let idle = idle.filter_map(|one| Some((one.expendable_since()?, one)));
        if let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) {
            longest.ask_to_leave();
        }
    }
}

/// Accepts until told to stop; then lets the requests that are under way finish, and closes the
/// idle connections.
///
/// A listener that is full takes one more and closes the connection that has been idle for the
/// longest time. If all are busy, who comes next waits in the system's queue.
pub async fn accept<S: Serves>(
    listener: Listener,
    serves: Arc<S>,
    mut stopped: watch::Receiver<bool>,
) {
    let Listener { socket, name, connections_max } = listener;
    let (full, broken) = (Seldom::minutely(), Seldom::minutely());
    let mut connections = Connections::new(ListenerMetric::begin(name, connections_max));
    let closing = stopped.clone();
    loop {
        let is_full = connections.tasks.len() > connections_max;
        if is_full {
            connections.let_one_go();
            if let Some(left_out) = full.now() {
                tracing::warn!(
                    listener = name,
                    connections_max,
                    left_out,
                    "the listener is full: idle connections are closed for new ones"
                );
            }
        }
        let accepted = tokio::select! {
            accepted = socket.accept(), if !is_full => accepted,
            () = connections.one_ended() => continue,
            () = tokio::time::sleep(LOOK_AGAIN), if is_full => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and waited for.
                let _unsupported = stream.set_nodelay(true);
                connections.spawn(stream, peer, &serves, &closing);
            }
            Err(error) => {
                // The client is gone, or the process has no descriptor left.
                if let Some(left_out) = broken.now() {
                    tracing::warn!(
                        listener = name, %error, left_out, "a connection could not be accepted"
                    );
                }
                connections.let_one_go();
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = connections.one_ended() => {}
                }
            }
        }
    }
    drop(socket);
    while !connections.tasks.is_empty() {
        connections.one_ended().await;
    }
}
