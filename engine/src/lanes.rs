//! The lanes: what is known of each participant, and what is queued for it.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Index, IndexMut};

use assent_common::breaker::Breaker;
use assent_common::ids::TxNumber;
use assent_common::time::{Micros, Millis};
use assent_common::{Epoch, ParticipantName};

use crate::data::LaneData;
use crate::errand::{Errand, Errands, Notice};
use crate::lane::{Came, Outgoing, Sent};
use crate::outbound::{Haste, Outbound};

/// Whether a participant has heard which life speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Not yet tried.
    Due,
    /// Tried, or to be said again. Who is away is not waited for; who has answered remembers it
    /// with the first message.
    Tried,
    /// It remembers it.
    Heard,
}

/// The way to one participant.
pub struct Lane {
    /// Its name.
    pub name: ParticipantName,
    /// Its base URL, while it is registered.
    url: Option<String>,
    pub(crate) queue: Outbound,
    /// The transactions that have a branch here of which the participant may hear yet.
    pub unfinished: BTreeSet<TxNumber>,
    /// How many transactions wait for its vote.
    pub(crate) voting: usize,
    /// Of how many it has not acknowledged the outcome.
    pub(crate) undelivered: usize,
    runs: bool,
    /// Whether the last message was answered.
    pub up: Option<bool>,
    /// Whether the Redis behind it answered, when it last told.
    redis_up: Option<bool>,
    /// Since when both are so.
    pub since: Option<Millis>,
    /// Why the last call came to nothing.
    pub last_error: Option<String>,
    /// Whether it is worth asking.
    pub breaker: Breaker,
    /// What is known of the data behind it.
    pub data: LaneData,
    /// Whether it has heard which life speaks.
    pub(crate) greeting: Greeting,
    /// Whether it ever has.
    pub is_met: bool,
    /// How often it was said in vain.
    pub greeted_in_vain: u64,
    /// Why it refuses the log as an old copy, without showing that it is one.
    pub stale_log: Option<String>,
    /// Whether somebody waits for it.
    is_awaited: bool,
    /// The epoch of the life that it remembers, where it asked for that.
    pub(crate) asked_for: Option<Epoch>,
}

impl Lane {
    fn new(name: ParticipantName) -> Self {
        Self {
            name,
            url: None,
            queue: Outbound::default(),
            unfinished: BTreeSet::new(),
            voting: 0,
            undelivered: 0,
            runs: false,
            up: None,
            redis_up: None,
            since: None,
            last_error: None,
            breaker: Breaker::default(),
            data: LaneData::default(),
            greeting: Greeting::Due,
            is_met: false,
            greeted_in_vain: 0,
            stale_log: None,
            is_awaited: false,
            asked_for: None,
        }
    }

    /// The participant's base URL, if it is registered.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Registers the participant, or moves it.
    pub(crate) fn set_url(&mut self, url: &str) {
        if self.url.as_ref().is_some_and(|before| before != url) {
            // Who answers there may not have heard it.
            self.greeting = Greeting::Tried;
            self.stale_log = None;
        }
        self.url = Some(url.to_owned());
        self.breaker = Breaker::default();
    }

    pub(crate) fn clear_url(&mut self) {
        self.url = None;
        self.stale_log = None;
        self.breaker = Breaker::default();
        self.up = None;
        self.redis_up = None;
        self.since = None;
        self.last_error = None;
    }

    /// Whether the Redis behind it answers, as it tells. Of who does not answer itself, nothing is
    /// known.
    #[must_use]
    pub fn redis_up(&self) -> Option<bool> {
        self.redis_up.filter(|_| self.up == Some(true))
    }

    /// Somebody waits for it to hear which life speaks. Whether the lane is to see to that.
    pub(crate) fn await_greeting(&mut self) -> bool {
        let is_tried = self.greeting != Greeting::Due;
        self.is_awaited |= is_tried;
        is_tried
    }

    /// Whether somebody waits for that; asked once for each time.
    pub(crate) fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.is_awaited)
    }

    /// What came of a call. Whether what was held back may leave.
    pub(crate) fn answered(
        &mut self,
        sent: Sent,
        came: Came<'_>,
        now: Millis,
        errands: &mut Errands,
    ) -> bool {
        let is_answered = matches!(came, Came::Answer(_));
        let error = match came {
            Came::Answer(useless) => useless,
            Came::Nothing(why) => Some(why),
        };
        match error {
            None => self.breaker.answered(),
            // Nobody is away who is nowhere.
            Some(_) if self.url.is_none() => {}
            Some(_) if sent.is_probe => self.breaker.probe_failed(now),
            Some(_) => self.breaker.failed(now, sent.at),
        }
        let was_up = self.up.replace(is_answered);
        if was_up != self.up {
            self.since = Some(now);
        }
        match error {
            Some(error) if !is_answered && was_up != Some(false) => {
                errands.say(Notice::ParticipantSilent(self.name.clone(), error.to_owned()));
            }
            _ if is_answered && was_up == Some(false) => {
                errands.say(Notice::ParticipantBack(self.name.clone()));
            }
            Some(_) | None => {}
        }
        self.last_error = error.map(str::to_owned);
        error.is_none()
    }

    /// A call is without an answer for suspiciously long; what comes of it is heard later.
    pub(crate) fn is_silent(&mut self, sent: Sent, now: Millis, errands: &mut Errands) {
        if !sent.is_probe && self.url.is_some() {
            self.breaker.failed(now, sent.at);
        }
        if self.breaker.away_since().is_some() && self.up != Some(false) {
            let error = format!(
                "no answer for {} ms, by it or by its Redis or database: its /readyz says which",
                now.since(sent.at)
            );
            errands.say(Notice::ParticipantSilent(self.name.clone(), error.clone()));
            (self.up, self.since, self.last_error) = (Some(false), Some(now), Some(error));
        }
    }

    /// The participant has told of its Redis. Said once, when it changes.
    pub(crate) fn redis_heard(
        &mut self,
        heard: Result<(), String>,
        now: Millis,
        errands: &mut Errands,
    ) {
        let was_up = self.redis_up != Some(false);
        self.redis_up = Some(heard.is_ok());
        if was_up != heard.is_ok() {
            self.since = Some(now);
        }
        match heard {
            Err(error) if was_up => errands.say(Notice::RedisSilent(self.name.clone(), error)),
            Ok(()) if !was_up => errands.say(Notice::RedisBack(self.name.clone())),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Why nothing can be said to a participant that is in the log and not in the registry: with what
/// to do, because nothing else mends it.
#[must_use]
pub fn not_registered(name: &ParticipantName) -> String {
    format!("the coordinator does not know participant {name}: assent participants set {name} URL")
}

/// All lanes. One that is there stays, at its place.
#[derive(Default)]
pub struct Lanes {
    all: Vec<Lane>,
    by_name: HashMap<ParticipantName, usize>,
}

impl Index<usize> for Lanes {
    type Output = Lane;

    fn index(&self, place: usize) -> &Lane {
        &self.all[place]
    }
}

impl IndexMut<usize> for Lanes {
    fn index_mut(&mut self, place: usize) -> &mut Lane {
        &mut self.all[place]
    }
}

impl Lanes {
    /// In the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.all.iter()
    }

    /// The lane of a participant, registered or not.
    #[must_use]
    pub fn find(&self, name: &ParticipantName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The lane of a registered participant.
    #[must_use]
    pub fn registered(&self, name: &ParticipantName) -> Option<usize> {
        self.find(name).filter(|lane| self.all[*lane].url.is_some())
    }

    /// The lane of a participant; made without a URL if it is not registered.
    pub(crate) fn of(&mut self, name: &ParticipantName) -> usize {
        if let Some(lane) = self.find(name) {
            return lane;
        }
        self.all.push(Lane::new(name.clone()));
        let lane = self.all.len() - 1;
        self.by_name.insert(name.clone(), lane);
        lane
    }

    /// Has the shell run a lane, once. A lane without a URL runs too: its messages come back
    /// unknown.
    pub(crate) fn start(&mut self, place: usize, errands: &mut Errands) {
        if !std::mem::replace(&mut self.all[place].runs, true) {
            errands.push(Errand::StartLane(place));
        }
    }

    pub(crate) fn enqueue(
        &mut self,
        place: usize,
        outgoing: Outgoing,
        haste: Haste,
        now: Micros,
        errands: &mut Errands,
    ) {
        self.all[place].queue.push(outgoing, haste, now);
        errands.wake(place);
    }

    /// Whether a participant is registered that has not heard which life speaks.
    pub(crate) fn is_any_unmet(&self) -> bool {
        self.all.iter().any(|lane| lane.url.is_some() && !lane.is_met)
    }

    /// Whether a participant is registered to which nothing was said yet.
    pub(crate) fn is_greeting(&self) -> bool {
        let is_due = |lane: &Lane| lane.url.is_some() && lane.greeting == Greeting::Due;
        self.all.iter().any(is_due)
    }
}
