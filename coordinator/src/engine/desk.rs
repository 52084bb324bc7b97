//! What the shell keeps beside the core, under the same lock: who waits, whom to wake, and the
//! connections.

use std::sync::Arc;

use assent_client::participant::ParticipantClient;
use assent_common::TxNumber;
use assent_engine::{Decided, Errand, NumberMap, Ticket};
use tokio::sync::{Notify, oneshot, watch};

/// What the shell keeps.
#[derive(Default)]
pub(super) struct Desk {
    /// By the place of the lane.
    lanes: Vec<LaneDesk>,
    last_ticket: u64,
    /// Who waits for the answer of a transaction.
    pub(super) answers: NumberMap<Ticket, oneshot::Sender<Decided>>,
    /// Who waits for something to be durable.
    pub(super) done: NumberMap<Ticket, oneshot::Sender<()>>,
    /// Who watches every change of a transaction.
    pub(super) changes: NumberMap<TxNumber, watch::Sender<u64>>,
    /// Counts what came in from participants and from the log.
    pub(super) progress: watch::Sender<u64>,
    /// Whether this life is in the log, durably: nobody hears of it before.
    pub(super) life: watch::Sender<bool>,
    /// Room for the errands of a turn.
    pub(super) errands: Vec<Errand>,
}

/// What the shell keeps of a lane.
#[derive(Default)]
pub(super) struct LaneDesk {
    client: Option<Arc<ParticipantClient>>,
    pub(super) wake: Arc<Notify>,
}

impl Desk {
    /// By what somebody will be found who waits.
    pub(super) const fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Waits for the answer of a transaction.
    pub(super) fn await_answer(&mut self, ticket: Ticket) -> oneshot::Receiver<Decided> {
        let (waiter, decided) = oneshot::channel();
        self.answers.insert(ticket, waiter);
        decided
    }

    /// Waits for something to be durable.
    pub(super) fn await_done(&mut self, ticket: Ticket) -> oneshot::Receiver<()> {
        let (waiter, done) = oneshot::channel();
        self.done.insert(ticket, waiter);
        done
    }

    /// Hears of every change of a transaction that the core watches.
    pub(super) fn changes(&mut self, number: TxNumber) -> watch::Receiver<u64> {
        self.changes.entry(number).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Hears of everything that comes in from participants and from the log.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Hears when this life is durable.
    pub(super) fn life(&self) -> watch::Receiver<bool> {
        self.life.subscribe()
    }

    pub(super) fn lane(&mut self, place: usize) -> &mut LaneDesk {
        if place >= self.lanes.len() {
            self.lanes.resize_with(place + 1, LaneDesk::default);
        }
        &mut self.lanes[place]
    }

    pub(super) fn set_client(&mut self, place: usize, client: ParticipantClient) {
        self.lane(place).client = Some(Arc::new(client));
    }

    pub(super) fn client(&self, place: usize) -> Option<Arc<ParticipantClient>> {
        self.lanes.get(place)?.client.clone()
    }

    pub(super) fn answer(&mut self, mut decided: Decided) {
        let waiters = std::mem::take(&mut decided.waiters);
        let mut waiters = waiters.into_iter().filter_map(|waiter| self.answers.remove(&waiter));
        let Some(last) = waiters.next_back() else { return };
        // A client that went away asks again by its key or id.
        waiters.for_each(|waiter| drop(waiter.send(decided.clone())));
        drop(last.send(decided));
    }
}
