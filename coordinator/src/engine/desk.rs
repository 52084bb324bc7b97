//! What the shell keeps beside the core, under the same lock: who waits, whom to wake, and the
//! connections. Here, and nowhere else, the errands of a turn are carried out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_client::crash;
use assent_client::participant::ParticipantClient;
use assent_common::TxNumber;
use assent_common::record::EndedByHand;
use assent_engine::{Core, Decided, Errand, Notice, NumberMap, Outgoing, Ticket};
use tokio::sync::{Notify, oneshot, watch};

use super::lane::start_lane;
use super::{Engine, Shared, resync, vital};
use crate::log::LogError;
use crate::{clock, metrics};

/// What the shell keeps.
#[derive(Default)]
pub(super) struct Desk {
    /// By the place of the lane.
    lanes: Vec<LaneDesk>,
    last_ticket: u64,
    /// Who waits for the answer of a transaction.
    answers: NumberMap<Ticket, oneshot::Sender<Decided>>,
    /// Who waits for something to be durable.
    done: NumberMap<Ticket, oneshot::Sender<()>>,
    /// Who watches every change of a transaction.
    changes: NumberMap<TxNumber, watch::Sender<u64>>,
    /// Counts what came in from participants and from the log.
    progress: watch::Sender<u64>,
    /// Whether this life is in the log, durably: nobody hears of it before.
    life: watch::Sender<bool>,
    /// Room for the errands of a turn.
    errands: Vec<Errand>,
}

/// What the shell keeps of a lane.
#[derive(Default)]
struct LaneDesk {
    client: Option<Arc<ParticipantClient>>,
    wake: Arc<Notify>,
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

    fn lane(&mut self, place: usize) -> &mut LaneDesk {
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

    fn answer(&mut self, mut decided: Decided) {
        let waiters = std::mem::take(&mut decided.waiters);
        let mut waiters = waiters.into_iter().filter_map(|waiter| self.answers.remove(&waiter));
        let Some(last) = waiters.next_back() else { return };
        // A client that went away asks again by its key or id.
        waiters.for_each(|waiter| drop(waiter.send(decided.clone())));
        drop(last.send(decided));
    }
}

/// Does what a turn has left to do, and gives the log what it has produced: one wake-up of its
/// writer, and one sync, for all of it.
pub(super) fn carry_out(core: &mut Core, desk: &mut Desk, shared: &Arc<Shared>) {
    let mut errands = std::mem::take(&mut desk.errands);
    core.swap_errands(&mut errands);
    for errand in errands.drain(..) {
        match errand {
            Errand::WakeLane(place) => desk.lane(place).wake.notify_one(),
            Errand::StartLane(place) => {
                start_lane(shared, place, Arc::clone(&desk.lane(place).wake));
            }
            Errand::SendWaiting(place, outgoing) => {
                send_waiting(core, desk, shared, place, outgoing);
            }
            Errand::Resync(place, call) => {
                let call = resync::carry_out(Arc::downgrade(shared), place, call);
                shared.runtime.spawn(vital(call));
            }
            Errand::Tick => shared.timer.notify_one(),
            Errand::Answer(decided) => {
                say_answered(core, &decided);
                desk.answer(decided);
            }
            Errand::Unanswered(waiters) => {
                waiters.iter().for_each(|waiter| drop(desk.answers.remove(waiter)));
            }
            Errand::Done(ticket) => {
                let _nobody_waits = desk.done.remove(&ticket).map(|waiter| waiter.send(()));
            }
            Errand::Changed(number) => {
                if let Some(changes) = desk.changes.get(&number) {
                    changes.send_modify(|version| *version += 1);
                }
            }
            Errand::Ended(number) => drop(desk.changes.remove(&number)),
            Errand::Progress => desk.progress.send_modify(|n| *n += 1),
            Errand::LifeIsDurable => {
                desk.life.send_replace(true);
            }
            Errand::Unmet(unmet) => shared.unmet.store(unmet, Ordering::Release),
            Errand::Say(notice) => say(notice),
            Errand::CrashPoint(point) => crash::point(point),
        }
    }
    desk.errands = errands;
    if core.outbox().is_empty() {
        return;
    }
    match shared.log.append_all(core.outbox()) {
        // The rest goes when something has become durable, which makes room.
        Ok(()) | Err(LogError::Full { .. }) => {}
        // Stopped, or a record that no segment holds: its transaction could never go on, and
        // neither may we.
        Err(error) => crate::log::stop_process(&error),
    }
}

fn send_waiting(core: &Core, desk: &Desk, shared: &Arc<Shared>, place: usize, outgoing: Outgoing) {
    let (Some(client), Some((batch, txid, wait_ms))) =
        (desk.client(place), core.assemble_waiting(place, outgoing, clock::micros()))
    else {
        return;
    };
    let engine = Engine { shared: Arc::clone(shared) };
    let sending = async move {
        let call = client.prepare_waiting(txid, wait_ms, &batch).await;
        engine.core().waiting_came(place, outgoing, batch.known, call, clock::micros());
    };
    shared.runtime.spawn(vital(sending));
}

fn say_answered(core: &Core, decided: &Decided) {
    let Decided { number, accepted, attempt, outcome, took_ms, .. } = decided;
    let (word, code) = metrics::transaction_answered(outcome, *took_ms);
    let (id, name) = (accepted.identity.id, accepted.identity.name.as_ref());
    let txid = assent_common::Txid { log_id: core.log_id(), number: *number, attempt: *attempt };
    tracing::debug!(%id, %txid, name, outcome = word, code, took_ms, "a transaction is answered");
}

/// A line of the process's log.
fn say(notice: Notice) {
    match notice {
        Notice::StepRefused(error) => {
            tracing::error!(error, "a step was refused; this is a bug in Assent");
        }
        Notice::ParticipantSilent(participant, error) => {
            tracing::warn!(%participant, error, "a participant does not answer");
        }
        Notice::ParticipantBack(participant) => {
            tracing::info!(%participant, "a participant answers again");
        }
        Notice::RedisSilent(participant, error) => {
            tracing::warn!(%participant, error,
                "a participant cannot use its Redis; its transactions abort until it can");
        }
        Notice::RedisBack(participant) => {
            tracing::info!(%participant, "a participant can use its Redis again");
        }
        Notice::StaleLog(participant, why) => {
            tracing::error!(%participant, why,
                "this decision log is an old or a forked copy: this coordinator says nothing more \
                 to anybody; stop it, and start it on the newest copy (docs/guides/recover.md, \
                 `Backup`)");
        }
        Notice::StaleLogNotShown(participant, why) => {
            tracing::error!(%participant, why,
                "a participant takes this decision log for an old or a forked copy, and does not \
                 show that it is one: nothing runs there, and the others go on \
                 (docs/guides/recover.md, `One participant says stale_log`)");
        }
        Notice::StaleLogTakenBack(participant) => {
            tracing::warn!(%participant, "a participant takes this decision log for the log again");
        }
        Notice::DataOpened(participant, open) => {
            tracing::warn!(%participant, incarnation = open.incarnation, seq = open.seq,
                "a participant's data is resynchronised, and open");
        }
        Notice::DataReported { participant, branches, found, known, accepted } => {
            let accepted = accepted.map(tracing::field::display);
            tracing::warn!(%participant, branches, found, known, accepted,
                "a participant lost data; the log's commits there are reported to it");
        }
        Notice::DataTrouble { participant, trouble, is_lost: true } => {
            tracing::error!(%participant, trouble,
                "lost for good, unless an older Redis comes back: nothing runs there before an \
                 operator has decided (docs/guides/recover.md, `A Redis lost data`)");
        }
        Notice::DataTrouble { participant, trouble, is_lost: false } => {
            tracing::warn!(%participant, trouble, "not resynchronised yet");
        }
        Notice::EndedByHand(ended) => say_ended_by_hand(&ended),
        Notice::TooLargeToRedo { id, bytes, bytes_max } => {
            tracing::error!(%id, bytes, bytes_max,
                "what a transaction with one branch wrote does not fit into the log: it is \
                 applied, but if its Redis loses it, it cannot be redone");
        }
    }
}

fn say_ended_by_hand(EndedByHand { id, participant, outcome, detail, .. }: &EndedByHand) {
    tracing::error!(
        %id, %participant, ended = outcome.as_str(), decided = outcome.decided(), detail,
        "heuristic damage: a branch was ended by hand, and the log says otherwise; the other \
         branches follow the log. Make good at this participant what differs \
         (docs/guides/recover.md)"
    );
}
