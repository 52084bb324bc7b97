//! The world of one run: what there is in it, and how one event after the other happens.

use std::collections::BTreeMap;

use assent_common::LogId;
use assent_common::participant::Key;
use assent_common::time::Millis;

use crate::agent::Agent;
use crate::client::Client;
use crate::config::{Config, Profile};
use crate::coordinator::Coordinator;
use crate::lanes;
use crate::mutants::Mutant;
use crate::network::Cut;
use crate::oracle::{Oracle, Step};
use crate::queue::{Event, Queue};
use crate::random::Random;
use crate::redis::Redis;
use crate::report::Report;
use crate::request::{self, Request};
use crate::settling::AskedBranches;
use crate::trace::Trace;

/// Faults end when all clients are served, or when so much simulated time is over for each of their requests, in
/// microseconds: a client may wait for a human.
const FAULTY_US: u64 = 100_000;

/// Every Redis begins with data of its own.
const FIRST_INCARNATION: u64 = 100;

/// The whole world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) profile: Profile,
    pub(crate) random: Random,
    pub(crate) now_us: u64,
    pub(crate) queue: Queue,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: Vec<Request>,
    pub(crate) keys: Vec<Key>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) oracle: Oracle,
    pub(crate) report: Report,
    pub(crate) trace: Trace,
    /// The branches that are being asked, by whoever settles.
    pub(crate) settlings: BTreeMap<u64, AskedBranches>,
    incarnations: u64,
}

impl World {
    pub(crate) fn new(config: Config, trace: Trace) -> Self {
        let mut random = Random::new(config.seed);
        let profile = Profile::new(&config, &mut random);
        let logs: Vec<_> = (0..profile.coordinators).map(log_id).collect();
        let loses = profile.faults.lose_data();
        let redis = |at: u64| Redis::new(FIRST_INCARNATION * (at + 1), profile.keys, loses);
        let mut world = Self {
            config,
            random,
            now_us: 0,
            queue: Queue::default(),
            coordinators: logs
                .iter()
                .map(|log_id| Coordinator::new(&config, *log_id, profile.participants))
                .collect(),
            agents: (0..).take(profile.participants).map(|at| Agent::new(redis(at))).collect(),
            clients: (0..profile.clients).map(|_| Client::default()).collect(),
            requests: Vec::new(),
            keys: (0..profile.keys).map(request::key).collect(),
            cuts: Vec::new(),
            oracle: Oracle::new(logs, profile.participants),
            report: Report::default(),
            trace,
            settlings: BTreeMap::new(),
            incarnations: FIRST_INCARNATION * 1_000,
            profile,
        };
        for client in 0..world.clients.len() {
            world.queue.push(client as u64, Event::ClientTurn { client, turn: 0 });
        }
        (0..world.agents.len()).for_each(|at| world.schedule_turn(at));
        if loses && !config.is(Mutant::NeverLooks) {
            (0..world.coordinators.len()).for_each(|c| lanes::schedule_look(&mut world, c));
        }
        (0..world.coordinators.len()).for_each(|c| world.schedule_compaction(c));
        world.schedule_trouble();
        world
    }

    /// Runs to the end: faults first, and then none.
    pub(crate) fn run(&mut self) -> Step {
        crate::trace::note!(self, "{:?}", self.profile);
        let result = self.suffer().and_then(|()| self.heal());
        self.report.worlds = 1;
        self.report.transactions = self.requests.len() as u64;
        result
    }

    fn suffer(&mut self) -> Step {
        let until_us = u64::from(self.config.transactions) * FAULTY_US;
        while self.now_us < until_us && !self.is_served() {
            self.happen()?;
        }
        Ok(())
    }

    /// Whether all clients have sent all their requests and know, or have given up.
    pub(crate) fn is_served(&self) -> bool {
        self.requests.len() >= self.config.transactions as usize
            && self.clients.iter().all(|client| !client.is_waiting())
    }

    pub(crate) const fn now(&self) -> Millis {
        Millis(self.now_us / 1_000)
    }

    /// The next event; whether there is one.
    pub(crate) fn happen(&mut self) -> Result<bool, crate::Violation> {
        let Some((at_us, event)) = self.queue.pop() else { return Ok(false) };
        self.now_us = self.now_us.max(at_us);
        self.report.events += 1;
        match event {
            Event::ClientTurn { client, turn } => self.client_turn(client, turn),
            Event::Submitted { request } => self.submitted(request)?,
            Event::Heard { request, heard } => self.client_hears(request, heard)?,
            Event::Arrived { ask, waits } => self.arrived(ask, waits, None)?,
            Event::HookSaid { ask, waits, life, word } => {
                let word = (life == self.agents[ask.at].life).then_some(word);
                match word {
                    Some(word) => self.arrived(ask, waits, Some(word))?,
                    None => self.result_unknown(ask, "the connection broke"),
                }
            }
            Event::WaitedLong { at, life, ticket } => self.waited_long(at, life, ticket)?,
            Event::Answered { ask, answer } => lanes::answered(self, &ask, *answer)?,
            Event::Ticked { coordinator, life } => self.ticked(coordinator, life)?,
            Event::LaneDue { coordinator, life, at } => {
                lanes::lane_due(self, coordinator, life, at)?;
            }
            Event::Flushed { coordinator, life } => self.flushed(coordinator, life),
            Event::Synced { coordinator, life } => self.synced(coordinator, life)?,
            Event::Compacting { coordinator } => self.compacting(coordinator),
            Event::SegmentsRead { coordinator, life, compaction } => {
                self.segments_read(coordinator, life, *compaction)?;
            }
            Event::CoordinatorStarted { coordinator } => self.coordinator_starts(coordinator)?,
            Event::AgentStarted { at } => self.agent_starts(at),
            Event::AgentTurn { at, life } => self.agent_turn(at, life)?,
            Event::Asked { asker, coordinator, txid, branches } => {
                self.asked(asker, coordinator, txid, &branches)?;
            }
            Event::Learned { asker, txid, answer } => self.learned(asker, txid, *answer)?,
            Event::Settled { ticket, at, answer } => self.settled(ticket, at, *answer)?,
            Event::Trouble => self.trouble()?,
            Event::Looking { coordinator } => lanes::look(self, coordinator),
            event => self.happens_to_data(event)?,
        }
        Ok(true)
    }
}

/// What has to do with lost data.
impl World {
    fn happens_to_data(&mut self, event: Event) -> Step {
        match event {
            Event::DataAsked { asked } => self.data_asked(asked),
            Event::DataShown { asked, found } => self.data_shown(asked, found)?,
            Event::WordCame { asked, word } => self.word_came(asked, *word)?,
            Event::WordTaken { asked, said } => self.word_taken(asked, said)?,
            Event::ResyncDue { asked } => self.resync_due(asked)?,
            Event::Looked { asked, sent, known } => self.looked(asked, sent, known),
            Event::LookCame { asked, sent, known, found } => {
                lanes::look_came(self, asked, sent, known, found)?;
            }
            _ => unreachable!("every other event has its arm in `happen`"),
        }
        Ok(())
    }

    /// An incarnation that no data ever had.
    pub(crate) const fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }
}

fn log_id(coordinator: usize) -> LogId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{coordinator:012x}").parse().expect("a log id")
}
