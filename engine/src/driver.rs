//! The driver of a resynchronisation, at the core: each answer is a step, and says what is to be
//! done next. The stages and their order stand in `resync.rs`.

use assent_common::coordinator::resync::{Plan, Seen};
use assent_common::coordinator::{Branch, Input, State};
use assent_common::log::Durability;
use assent_common::mutant::Mutant;
use assent_common::time::Micros;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::resync::{DataPoint, DataView, FoundData};
use assent_common::{LogId, TxNumber};

use crate::core::Core;
use crate::data::data_seen;
use crate::errand::{Errand, Notice};
use crate::lanes::{Greeting, not_registered};
use crate::outbox::Appended;
use crate::resync::{
    self, DataReport, LogReading, Reported, ResyncCall, ResyncHeard, Resynchronisation, Saying,
    Stage,
};

/// Data is fenced, or other than what was known: it waits for this log's report.
pub(crate) fn begin(core: &mut Core, place: usize) {
    let resync = &mut core.lanes[place].data.resync;
    if resync.is_none() {
        *resync = Some(Resynchronisation::default());
        ask_for_data(core, place);
    }
}

/// What came of a call of a resynchronisation. What nobody waits for any more is dropped.
pub(crate) fn heard(core: &mut Core, place: usize, heard: ResyncHeard, now: Micros) {
    let resync = core.lanes[place].data.resync.as_mut();
    let Some(resync) = resync.filter(|resync| resync.awaits(&heard)) else { return };
    match (resync.take(), heard) {
        (_, ResyncHeard::DataShown(Ok(view))) => data_shown(core, place, view, now),
        (Stage::Reading(found), ResyncHeard::LogRead(Ok(report))) => {
            say_report(core, place, found, *report);
        }
        (Stage::Saying(saying), ResyncHeard::WordTaken(Ok(said))) => match said.open {
            Some(open) => data_opened(core, place, Some(open), now),
            None => say(core, place, saying, &said.owed),
        },
        (
            _,
            ResyncHeard::DataShown(Err(why))
            | ResyncHeard::LogRead(Err(why))
            | ResyncHeard::WordTaken(Err(why)),
        ) => held_up(core, place, why, false),
        (_, ResyncHeard::LogRead(Ok(_)) | ResyncHeard::WordTaken(Ok(_)) | ResyncHeard::Due) => {
            ask_for_data(core, place);
        }
    }
}

fn ask_for_data(core: &mut Core, place: usize) {
    let why = if let Some(why) = core.stale() {
        why.to_string()
    } else if core.is_greeting() {
        "not all participants were asked whether this is the newest log".to_owned()
    } else if core.lanes[place].url().is_none() {
        not_registered(&core.lanes[place].name)
    } else {
        return stands(core, place, Stage::Asking, ResyncCall::AskData);
    };
    held_up(core, place, why, false);
}

/// Where a resynchronisation stands, and what it waits for there.
fn stands(core: &mut Core, place: usize, stage: Stage, call: ResyncCall) {
    waits_in(core, place, stage);
    core.errands.push(Errand::Resync(place, call));
}

fn waits_in(core: &mut Core, place: usize, stage: Stage) {
    if let Some(resync) = &mut core.lanes[place].data.resync {
        resync.stage = stage;
    }
}

fn data_shown(core: &mut Core, place: usize, mut view: Box<DataView>, now: Micros) {
    let log_id = core.log_id();
    core.lanes[place].data.counts_what_was_told(&mut view);
    match core.lanes[place].data.found(log_id, &view) {
        Some(open) => data_opened(core, place, open, now),
        None => decide_at(core, place, view, now),
    }
}

/// Goes on with what waits until nothing is undecided at a participant.
pub(crate) fn go_on(core: &mut Core, now: Micros) {
    for place in std::mem::take(&mut core.deciding) {
        let Some(resync) = &mut core.lanes[place].data.resync else { continue };
        match resync.take() {
            Stage::Deciding(view) => decide_at(core, place, view, now),
            other => resync.stage = other,
        }
    }
}

fn decide_at(core: &mut Core, place: usize, view: Box<DataView>, now: Micros) {
    let is_kept = core.settings.variant.is(Mutant::UndecidedKept);
    if !is_kept && give_up_undecided(core, place, now) {
        waits_in(core, place, Stage::Deciding(view));
        core.deciding.push(place);
        return;
    }
    // What clients have been told of one phase may be in the log's queue still, and would be
    // missing in the report. If nothing is known of the data, none is missing.
    let is_early = core.settings.variant.is(Mutant::PlansTooEarly);
    let lane = &core.lanes[place];
    match lane.data.seen {
        Seen { known: Some(known), retired } if !is_early => {
            let record = data_seen(&lane.name, known, retired);
            let then = Appended::BeforeReading(place);
            core.outbox.append(&record, Durability::Forced, then);
            waits_in(core, place, Stage::Syncing(view));
        }
        _ => read_log(core, place, *view),
    }
}

/// What clients have been told is on disk.
pub(crate) fn is_synced(core: &mut Core, place: usize) {
    let Some(resync) = &mut core.lanes[place].data.resync else { return };
    match resync.take() {
        Stage::Syncing(view) => read_log(core, place, *view),
        other => resync.stage = other,
    }
}

fn read_log(core: &mut Core, place: usize, view: DataView) {
    let (found, name) = (view.found(), core.lanes[place].name.clone());
    let is_committed = |txid| core.outcome(txid) == BranchOutcome::Committed;
    let plan = Plan::new(core.log_id(), name, view, is_committed);
    let reading = Box::new(LogReading::new(plan));
    stands(core, place, Stage::Reading(found), ResyncCall::ReadLog(reading));
}

fn say_report(core: &mut Core, place: usize, found: FoundData, report: DataReport) {
    match Saying::begin(found, report) {
        Err(loss) => held_up(core, place, loss.to_string(), true),
        Ok(Reported { saying, branches, accepted }) => {
            let participant = core.lanes[place].name.clone();
            let known = saying.known().map(|known| known.seq);
            let found = found.seq;
            let notice = Notice::DataReported { participant, branches, found, known, accepted };
            core.errands.say(notice);
            say(core, place, saying, &[]);
        }
    }
}

/// Says the next part of a report. After the last one the data is open, unless the participant
/// waits for these logs too.
fn say(core: &mut Core, place: usize, mut saying: Box<Saying>, owed: &[LogId]) {
    let (participant, speaker) = (core.lanes[place].name.clone(), core.speaker_in_full(place));
    let Some(word) = saying.next_part(participant, speaker, core.low_water(place)) else {
        return held_up(core, place, resync::owed(owed), false);
    };
    stands(core, place, Stage::Saying(saying), ResyncCall::Say(Box::new(word)));
}

/// A try did not come to its end.
fn held_up(core: &mut Core, place: usize, trouble: String, is_lost: bool) {
    let lane = &mut core.lanes[place];
    if let Some(resync) = &mut lane.data.resync {
        let wait = ResyncCall::Wait(resync.pause(place as u64));
        core.errands.push(Errand::Resync(place, wait));
    }
    if lane.data.held_up(trouble.clone(), is_lost) {
        let participant = lane.name.clone();
        core.errands.say(Notice::DataTrouble { participant, trouble, is_lost });
    }
}

/// Gives up what is undecided at a participant that lost data. Whether decisions are under way
/// that have to be waited for: while it lasts the participant does nothing for anybody, so that
/// no decision about a branch there is made behind the log that is read then.
fn give_up_undecided(core: &mut Core, place: usize, now: Micros) -> bool {
    let numbers: Vec<TxNumber> = core.lanes[place].unfinished.iter().copied().collect();
    for number in &numbers {
        let Some(active) = core.active.get(number) else { continue };
        if !matches!(active.machine.state(), State::Preparing(_) | State::Settling(_)) {
            continue;
        }
        let branch = active.lanes.iter().position(|lane| *lane == place);
        if let Some(branch) = branch.and_then(|branch| u16::try_from(branch).ok()) {
            core.step(*number, Input::DataLost(Branch(branch)), now);
        }
    }
    core.is_any_undecided(&numbers)
}

/// The data is open, as what became of what was known.
fn data_opened(core: &mut Core, place: usize, open: Option<DataPoint>, now: Micros) {
    let lane = &mut core.lanes[place];
    lane.data.made_whole();
    // What was lost may have been the life that was heard.
    lane.greeting = Greeting::Tried;
    if let Some(open) = open {
        core.errands.say(Notice::DataOpened(lane.name.clone(), open));
        lane.data.seen.opened(open);
        let record = data_seen(&lane.name, open, lane.data.seen.retired);
        core.outbox.append(&record, Durability::Forced, Appended::Nothing);
    }
    let unfinished: Vec<TxNumber> = core.lanes[place].unfinished.iter().copied().collect();
    for number in unfinished {
        core.retry(number, now);
    }
}

#[cfg(test)]
mod tests;
