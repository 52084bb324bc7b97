//! The lanes of a coordinator: what the engine has queued for a participant goes out, each message
//! of a batch on its own, and what comes of it goes back.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::{Branch, FromBranch, Input, PrepareCall, ToBranch};
use assent_common::outcome::Call;
use assent_common::time::Micros;
use assent_common::wire::branch::{Answers, Batch};
use assent_common::wire::resync::{DataPoint, DataView};
use assent_engine::{Assembled, BatchCame, Idle, LifeHeard, Outgoing, Sent};

use crate::coordinator::Mark;
use crate::mutants::{self, Mutant};
use crate::network::{Ask, From};
use crate::oracle::Step;
use crate::queue::Event;
use crate::repair::Asked;
use crate::trace::note;
use crate::world::World;

/// How often a coordinator that has nothing to say looks after the data, in microseconds.
const LOOK_US: u64 = 100_000;

/// How long a look waits for its answer at most, in microseconds.
const CALL_US: u64 = 60_000;

/// Sends all that has to leave now.
pub(crate) fn lane_turn(world: &mut World, c: usize, at: usize) -> Step {
    let life = world.coordinators[c].life;
    loop {
        let now = Micros(world.now_us);
        match world.coordinators[c].core.assemble(at, now) {
            Ok(Assembled { outgoing, sent, .. }) => {
                for outgoing in outgoing {
                    send(world, c, at, outgoing, Some(sent))?;
                    if world.coordinators[c].life != life {
                        return Ok(());
                    }
                }
            }
            Err(Idle::Empty) => return Ok(()),
            Err(Idle::Until(due)) => {
                look_at_lane(world, c, at, due);
                return Ok(());
            }
            Err(Idle::Probe) => {
                let sent = Sent { at: world.now(), is_probe: true };
                world.coordinators[c].core.probe_sent(at);
                look_at_data(world, c, at, sent);
                return Ok(());
            }
        }
    }
}

fn look_at_lane(world: &mut World, c: usize, at: usize, due: Micros) {
    let coordinator = &mut world.coordinators[c];
    let due = due.max(Micros(world.now_us + 1));
    if coordinator.desk.lanes_at.get(&at).is_none_or(|known| due < *known) {
        coordinator.desk.lanes_at.insert(at, due);
        let life = coordinator.life;
        world.queue.push(due.0, Event::LaneDue { coordinator: c, life, at });
    }
}

pub(crate) fn lane_due(world: &mut World, c: usize, life: u64, at: usize) -> Step {
    if world.coordinators[c].life != life {
        return Ok(());
    }
    world.coordinators[c].desk.lanes_at.remove(&at);
    lane_turn(world, c, at)?;
    if world.coordinators[c].life == life { world.carry_out(c) } else { Ok(()) }
}

/// Sends one message; the process may die before it. Without `sent` nobody waits for it.
pub(crate) fn send(
    world: &mut World,
    coordinator: usize,
    at: usize,
    outgoing: Outgoing,
    sent: Option<Sent>,
) -> Step {
    if world.random.strikes(world.profile.faults.coordinator_dies) {
        return world.coordinator_dies(coordinator, "before it sends");
    }
    let Outgoing { number, to: ToBranch { branch, attempt, message } } = outgoing;
    let speaker = &world.coordinators[coordinator];
    let Some(active) = speaker.core.active(number) else { return Ok(()) };
    let request = crate::coordinator::request_of(active);
    let low_water = match world.config.mutant {
        Some(Mutant::MarkTooHigh) => assent_common::TxNumber { n: number.n + 1, ..number },
        _ => speaker.core.low_water(at),
    };
    let ask = Ask {
        coordinator,
        at,
        request,
        branch,
        txid: speaker.txid(number, attempt),
        message,
        mark: Mark { epoch: speaker.log.epoch, low_water },
        known: speaker.core.lanes()[at].data.seen.known,
        sent: sent.unwrap_or_else(|| Sent { at: world.now(), is_probe: false }),
        from: From::Coordinator(speaker.life),
    };
    note!(
        world,
        "c{coordinator}: {message:?} {}.{}.{} to p{at}",
        number.epoch,
        number.n,
        attempt.0
    );
    let is_question = message == BranchMessage::Abort && world.requests[request].is_one_phase();
    world.report.one_phase_questions += u64::from(is_question);
    world.oracle.sends(&ask, world.requests[request].branches.len())?;
    world.transmit(ask);
    Ok(())
}

/// Sends a prepare that may wait, beside the others.
pub(crate) fn send_waiting(world: &mut World, c: usize, at: usize, outgoing: Outgoing) -> Step {
    let now = Micros(world.now_us);
    let is_wanted = world.coordinators[c].core.assemble_waiting(at, outgoing, now).is_some();
    if is_wanted { send(world, c, at, outgoing, None) } else { Ok(()) }
}

/// The result of a call has come.
pub(crate) fn answered(world: &mut World, ask: &Ask, answer: BranchAnswer) -> Step {
    let c = ask.coordinator;
    let life = world.coordinators[c].life;
    if ask.from != From::Coordinator(life) {
        return Ok(());
    }
    let (number, at) = (ask.txid.number, ask.at);
    let attempt = world.coordinators[c].core.active(number).map(|it| it.machine.attempt());
    if let Some(attempt) = attempt
        && let Some(bent) = mutants::misread(&world.config, ask, attempt, &answer)
    {
        return world.feed(c, number, Input::Answered(bent));
    }
    if world.config.is(Mutant::EndsAfterFirstAck)
        && matches!(answer, BranchAnswer::Applied(Call::Applied(_)))
    {
        for branch in (0..world.requests[ask.request].branches.len()).rev() {
            let branch = Branch(u16::try_from(branch).expect("few branches"));
            let attempt = ask.txid.attempt;
            let from = FromBranch { branch, attempt, answer: answer.clone() };
            world.feed(c, number, Input::Answered(from))?;
        }
        return Ok(());
    }
    came(world, ask, answer)?;
    if world.coordinators[c].life != life {
        return Ok(());
    }
    lane_turn(world, c, at)?;
    if world.coordinators[c].life == life { world.carry_out(c) } else { Ok(()) }
}

fn came(world: &mut World, ask: &Ask, answer: BranchAnswer) -> Step {
    let Ask { txid: Txid { number, attempt, .. }, branch, message, known, at, sent, .. } = *ask;
    let outgoing = Outgoing { number, to: ToBranch { branch, attempt, message } };
    if message == BranchMessage::Prepare(PrepareCall::Waiting) {
        let BranchAnswer::Prepared(call) = answer else { return Ok(()) };
        let c = ask.coordinator;
        return world.turn(c, |core, now| core.waiting_came(at, outgoing, known, call, now));
    }
    let said = match answer.unknown() {
        Some(why) => Err(why.to_owned()),
        None => Ok(Answers {
            answers: vec![answer.into()],
            progress: None,
            stale_log: None,
            stale_log_shown: None,
            life: None,
        }),
    };
    let life = LifeHeard::of(&said);
    let came = BatchCame { outgoing: vec![outgoing], sent, known, said, life };
    world.turn(ask.coordinator, |core, now| core.batch_came(at, came, now))
}

pub(crate) fn schedule_look(world: &mut World, c: usize) {
    let at_us = world.now_us + world.random.between(LOOK_US / 2, LOOK_US);
    world.queue.push(at_us, Event::Looking { coordinator: c });
}

/// Who has nothing to say asks now and then whether the data is as it knew them.
pub(crate) fn look(world: &mut World, c: usize) {
    for at in 0..world.agents.len() {
        if world.coordinators[c].is_up {
            let sent = Sent { at: world.now(), is_probe: false };
            look_at_data(world, c, at, sent);
        }
    }
    schedule_look(world, c);
}

/// Says what is known of the data, and nothing else.
fn look_at_data(world: &mut World, c: usize, at: usize, sent: Sent) {
    let coordinator = &world.coordinators[c];
    let asked = Asked { coordinator: c, life: Some(coordinator.life), at };
    let Some(Batch { known, .. }) = coordinator.core.look(at) else { return };
    if world.is_lost_on_the_way(c, at) {
        let at_us = world.now_us + world.random.between(50, CALL_US);
        let found = None;
        return world.queue.push(at_us, Event::LookCame { asked, sent, known, found });
    }
    let at_us = world.now_us + world.latency_us();
    world.queue.push(at_us, Event::Looked { asked, sent, known });
}

/// What came of that.
pub(crate) fn look_came(
    world: &mut World,
    asked: Asked,
    sent: Sent,
    known: Option<DataPoint>,
    found: Option<Box<DataView>>,
) -> Step {
    let Asked { coordinator: c, life, at } = asked;
    if life != Some(world.coordinators[c].life) {
        return Ok(());
    }
    let unknown = || Call::Unknown("the call timed out".to_owned());
    let found = found.map_or_else(unknown, |found| Call::Applied(*found));
    world.turn(c, |core, now| {
        if core.look_came(at, sent, LifeHeard::Nothing, now) {
            core.look_found(at, sent, known, found, now);
        }
    })?;
    if life != Some(world.coordinators[c].life) {
        return Ok(());
    }
    lane_turn(world, c, at)?;
    if life == Some(world.coordinators[c].life) { world.carry_out(c) } else { Ok(()) }
}
