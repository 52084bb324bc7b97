//! Nothing goes wrong any more: everything must come to its end, and nothing may be left.

use assent_common::participant::Heard;
use assent_common::wire::resync::DataPoint;

use crate::config::Faults;
use crate::operator;
use crate::oracle::{Step, ensure, violation};
use crate::redis::Chore;
use crate::request::BALANCE;
use crate::trace::note;
use crate::world::World;

/// Within so much simulated time everything must have ended, in microseconds.
const HEALED_US: u64 = 120_000_000;

/// How often somebody looks, in events.
const LOOK_EVENTS: u32 = 64;

/// How often an operator looks after lost data, in microseconds.
const OPERATOR_US: u64 = 5_000_000;

impl World {
    pub(crate) fn heal(&mut self) -> Step {
        note!(self, "healing");
        let has_losses = self.profile.faults.lose_data();
        self.profile.faults = Faults::default();
        self.cuts.clear();
        let begin_us = self.now_us;
        let mut operator_us = begin_us + OPERATOR_US;
        let mut events = 0;
        loop {
            events += 1;
            if events % LOOK_EVENTS == 0 {
                if self.is_quiet() {
                    break;
                }
                if has_losses && self.now_us > operator_us {
                    operator_us = self.now_us + OPERATOR_US;
                    operator::after_losses(self)?;
                }
                if self.now_us > begin_us + HEALED_US {
                    return violation("progress: what is healed ends", self.what_is_left());
                }
            }
            if !self.happen()? {
                return violation("progress: what is healed ends", "nothing is to come");
            }
        }
        self.is_over()
    }

    fn is_quiet(&self) -> bool {
        self.is_served()
            && self.agents.iter().all(|a| a.is_up && a.redis.data.control.staged().is_empty())
            && self
                .coordinators
                .iter()
                .all(|c| c.is_up && c.core.all_active().next().is_none() && c.log.is_idle())
            && self.is_data_known()
    }

    /// Whether all data is open, and what the coordinators know of it.
    fn is_data_known(&self) -> bool {
        self.agents.iter().enumerate().all(|(at, agent)| {
            let (data, found) = (&agent.redis.data, agent.redis.data.point());
            let lanes = || self.coordinators.iter().map(|c| &c.core.lanes()[at].data);
            let is_that =
                |known: DataPoint| known.incarnation == found.incarnation && known.seq <= found.seq;
            let is_fine =
                lanes().all(|lane| !lane.resyncs() && lane.seen.known.is_none_or(is_that));
            // Of data that nobody ever voted on nobody knows, and nobody has to repair it.
            let is_unknown = lanes().all(|lane| lane.seen.known.is_none());
            let waits = data.is_fenced || data.is_blank || agent.own.is_quarantined;
            is_fine && (is_unknown || !waits)
        })
    }

    fn what_is_left(&self) -> String {
        let active = self.coordinators.iter().flat_map(|c| c.core.all_active());
        let active: Vec<_> = active.map(|active| active.machine.state()).take(3).collect();
        let staged = self.agents.iter().map(|a| a.redis.data.control.staged().len());
        let lanes = self.coordinators.iter().flat_map(|c| c.core.lanes().iter());
        let lanes = lanes.filter(|lane| lane.data.resyncs());
        let data: Vec<_> = lanes.map(|lane| (&lane.name, &lane.data.trouble)).collect();
        let found = self.agents.iter().enumerate().map(|(at, agent)| {
            let known = self.coordinators.iter().map(|c| c.core.lanes()[at].data.seen.known);
            let data = &agent.redis.data;
            (
                data.incarnation(),
                data.control.seq(),
                agent.own.is_quarantined,
                known.collect::<Vec<_>>(),
            )
        });
        format!(
            "found {:?}, data {data:?}, staged {:?}, clients waiting {}, active {active:?}",
            found.collect::<Vec<_>>(),
            staged.collect::<Vec<_>>(),
            self.clients.iter().filter(|client| client.is_waiting()).count()
        )
    }

    /// Every promise is kept, and nothing is left.
    fn is_over(&mut self) -> Step {
        self.oracle.is_settled(&self.requests, &mut self.report)?;
        let mut sum = 0;
        for at in 0..self.agents.len() {
            for coordinator in &self.coordinators {
                let (log_id, epoch) = (coordinator.log.log_id(), coordinator.log.epoch);
                let heard = Heard { epoch, low_water: coordinator.core.low_water(at) };
                let agent = &mut self.agents[at];
                let incarnation = agent.redis.data.control.incarnation();
                agent.redis.run_chore(incarnation, Chore::Hear(log_id, heard));
            }
            self.sweep(at)?;
            self.forget_left_behind(at);
            let redis = &self.agents[at].redis;
            let control = &redis.data.control;
            let (locks, markers) = (control.locks(), control.markers());
            let is_clean = locks.is_empty() && markers == 0;
            ensure(is_clean, "progress: nothing is left", || {
                format!("p{at}: {locks:?}, {markers} markers")
            })?;
            sum += redis.data.balances.iter().sum::<i64>();
        }
        let accounts = i64::try_from(self.agents.len() * self.profile.keys).expect("few accounts");
        ensure(self.oracle.is_excused() || sum == accounts * BALANCE, "8 sums balance", || {
            format!("{sum} in all accounts, and {} were there", accounts * BALANCE)
        })
    }
}
