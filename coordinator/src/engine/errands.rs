//! What a turn has left to do when it ends: here, and nowhere else, its errands are carried out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_client::crash;
use assent_common::record::EndedByHand;
use assent_engine::{Core, Decided, Errand, Notice, Outgoing};

use super::desk::Desk;
use super::lane::start_lane;
use super::shared::{Engine, Guarded, Shared, Turn};
use super::{resync, vital};
use crate::log::LogError;
use crate::{clock, metrics};

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A step that panicked is half done, and so is what it would have written.
        if !std::thread::panicking() {
            let Guarded { core, desk } = &mut *self.held;
            carry_out(core, desk, self.shared);
        }
    }
}

/// Does what a turn has left to do, and gives the log what it has produced: one wake-up of its
/// writer, and one sync, for all of it.
fn carry_out(core: &mut Core, desk: &mut Desk, shared: &Arc<Shared>) {
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
                "a participant cannot use its Redis or database; its transactions abort until it \
                 can");
        }
        Notice::RedisBack(participant) => {
            tracing::info!(%participant, "a participant can use its Redis or database again");
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
