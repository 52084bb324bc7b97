//! Larger trouble, now and then: processes that die, networks that are cut, Redis servers that lose
//! data.

use std::collections::BTreeSet;

use assent_common::Txid;

use crate::config::Trouble;
use crate::mutants::Mutant;
use crate::network::Cut;
use crate::operator;
use crate::oracle::Step;
use crate::queue::Event;
use crate::redis::Redis;
use crate::trace::note;
use crate::world::World;

/// How long a network is cut at most, in microseconds.
const CUT_US: u64 = 600_000;

impl World {
    pub(crate) fn schedule_trouble(&mut self) {
        let every_us = self.profile.faults.trouble_us;
        if every_us > 0 {
            let at_us = self.now_us + self.random.between(every_us / 4, 2 * every_us);
            self.queue.push(at_us, Event::Trouble);
        }
    }

    pub(crate) fn trouble(&mut self) -> Step {
        if self.profile.faults.troubles.is_empty() {
            return Ok(());
        }
        let which = self.random.place(self.profile.faults.troubles.len());
        let coordinator = self.random.place(self.coordinators.len());
        let at = self.random.place(self.agents.len());
        match self.profile.faults.troubles[which] {
            Trouble::CoordinatorDies => self.coordinator_dies(coordinator, "just so")?,
            Trouble::AgentDies => self.agent_dies(at, "just so"),
            Trouble::Partition => {
                let until_us = self.now_us + self.random.between(1_000, CUT_US);
                note!(self, "c{coordinator} and p{at} do not hear each other until {until_us} us");
                self.report.partitions += 1;
                let now_us = self.now_us;
                self.cuts.retain(|cut| cut.until_us > now_us);
                self.cuts.push(Cut { coordinator, at, until_us });
            }
            Trouble::RedisGoesBack | Trouble::RedisReplaced | Trouble::RedisLoadsHoles
                if self.report.losses >= self.profile.faults.losses_max => {}
            Trouble::RedisGoesBack => self.redis_goes_back(at),
            Trouble::RedisLoadsHoles => self.redis_loads_holes(at),
            Trouble::RedisReplaced => self.redis_is_replaced(at),
            Trouble::RetryNow => self.retry_now(coordinator)?,
            Trouble::OperatorLooks => operator::after_losses(self)?,
        }
        self.schedule_trouble();
        Ok(())
    }

    fn retry_now(&mut self, c: usize) -> Step {
        let active = self.coordinators[c].active();
        let which = self.random.place(active.len());
        match active.into_iter().nth(which) {
            Some(number) => self.turn(c, |core, now| core.retry(number, now)),
            None => Ok(()),
        }
    }

    /// The Redis is restored from an older append-only file: connections break, and the last
    /// scripts never were.
    fn redis_goes_back(&mut self, at: usize) {
        let most = self.agents[at].redis.journal_writes();
        let count = [1, 10, most][self.random.place(3)].min(most);
        if count == 0 {
            return;
        }
        let count = 1 + self.random.place(count);
        let agent = &mut self.agents[at];
        agent.redis.go_back(count);
        agent.is_connected = false;
        note!(self, "p{at}: its Redis goes back by {count} writes");
        self.report.losses += 1;
        let undone = BTreeSet::new();
        self.oracle.lost(at, &self.agents[at].redis.data, &undone, &self.requests);
        if self.config.is(Mutant::PlansTooEarly) {
            // The agent's memory would make good what the log leaves out.
            self.agents[at].unlogged.may_lack_up_to(u64::MAX);
            self.oracle.agent_forgets(at);
        }
    }

    /// The Redis starts anew, and drops some ends of branches out of its history; votes stay.
    fn redis_loads_holes(&mut self, at: usize) {
        let last = [10, 50, usize::MAX][self.random.place(3)];
        let percent = [10, 40, 100][self.random.place(3)];
        let redis = &mut self.agents[at].redis;
        let dropped = redis.load_with_holes(last, || self.random.percent(percent));
        if dropped.is_empty() {
            return;
        }
        self.agents[at].is_connected = false;
        note!(self, "p{at}: its Redis starts anew without the ends of {dropped:?}");
        self.report.losses += 1;
        let data = &self.agents[at].redis.data;
        self.report.holes += u64::from(data.found().has_hole());
        let is_revived = |txid: &&Txid| data.control.staged().contains_key(txid);
        self.report.revived += dropped.iter().filter(is_revived).count() as u64;
        self.oracle.lost(at, data, &dropped, &self.requests);
    }

    /// By an empty one; which another agent may have met, so that it has an incarnation.
    fn redis_is_replaced(&mut self, at: usize) {
        let incarnation = self.next_incarnation();
        note!(self, "p{at}: its Redis is replaced");
        self.report.losses += 1;
        self.agents[at].redis = Redis::blank(incarnation, self.profile.keys);
        if self.random.percent(50) {
            self.agents[at].redis.claim();
        }
        self.agents[at].is_connected = false;
        let undone = BTreeSet::new();
        self.oracle.lost(at, &self.agents[at].redis.data, &undone, &self.requests);
    }
}
