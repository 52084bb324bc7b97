//! Clients: each sends one request after the other, and one that has a key asks until it knows.

use assent_common::coordinator::Outcome;

use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::request::Request;
use crate::trace::note;
use crate::world::World;

/// How long a client waits for an answer before it asks again, or gives up, in microseconds.
const PATIENCE_US: u64 = 400_000;

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The request that it waits for.
    waits_for: Option<usize>,
    /// Counts what it does, so that a timer of something that is over is known.
    turn: u64,
    /// Whether it did not get an outcome the first time.
    is_unsure: bool,
}

/// What a client hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not known yet.
    Pending,
    /// Whether it is committed.
    Outcome(bool),
}

impl Heard {
    pub(crate) const fn of(outcome: &Outcome) -> Self {
        Self::Outcome(matches!(outcome, Outcome::Committed { .. }))
    }
}

impl Client {
    pub(crate) const fn is_waiting(&self) -> bool {
        self.waits_for.is_some()
    }
}

impl World {
    pub(crate) fn client_turn(&mut self, client: usize, turn: u64) {
        if self.clients[client].turn != turn {
            return;
        }
        let Some(request) = self.clients[client].waits_for else {
            return self.next_request(client);
        };
        if !self.clients[client].is_unsure {
            self.clients[client].is_unsure = true;
            self.report.unknown_at_first += 1;
        }
        if self.requests[request].is_keyed() {
            note!(self, "client {client} asks again about request {request}");
            self.submit(client, request);
        } else {
            note!(self, "client {client} gives up request {request}");
            self.finish(client, request);
        }
    }

    fn next_request(&mut self, client: usize) {
        if self.requests.len() >= self.config.transactions as usize {
            return;
        }
        let place = self.requests.len();
        let now_ms = self.now_us / 1_000;
        let request = Request::new(place, client, now_ms, &self.profile, &mut self.random);
        note!(
            self,
            "client {client} sends request {place} to c{}: {request:?}",
            request.coordinator
        );
        self.requests.push(request);
        self.oracle.asked();
        self.clients[client].waits_for = Some(place);
        self.clients[client].is_unsure = false;
        self.submit(client, place);
    }

    fn submit(&mut self, client: usize, request: usize) {
        let at_us = self.now_us + self.latency_us();
        // A submission whose key comes again may be lost; of another, nobody would ever hear.
        if !self.random.strikes(self.profile.faults.loss) {
            self.queue.push(at_us, Event::Submitted { request });
        }
        self.next_turn(client, PATIENCE_US / 2, PATIENCE_US);
    }

    fn next_turn(&mut self, client: usize, least_us: u64, most_us: u64) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        let at_us = self.now_us + self.random.between(least_us, most_us);
        self.queue.push(at_us, Event::ClientTurn { client, turn });
    }

    fn finish(&mut self, client: usize, request: usize) {
        self.requests[request].finished_us = Some(self.now_us);
        self.clients[client].waits_for = None;
        self.next_turn(client, 0, self.profile.think_us);
    }

    /// Sends what a coordinator has to say of a request to its client.
    pub(crate) fn answer_client(&mut self, request: usize, heard: Heard) {
        if self.random.strikes(self.profile.faults.loss) {
            return;
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Heard { request, heard });
    }

    pub(crate) fn client_hears(&mut self, request: usize, heard: Heard) -> Step {
        let client = self.requests[request].client;
        note!(self, "client {client} hears of request {request}: {heard:?}");
        let Heard::Outcome(committed) = heard else { return Ok(()) };
        if !self.oracle.heard(request, committed) {
            let why = format!("request {request} of client {client}");
            return violation("answers: a client hears one outcome", why);
        }
        if self.clients[client].waits_for == Some(request) {
            if committed {
                self.report.committed += 1;
            } else {
                self.report.aborted += 1;
            }
            self.finish(client, request);
        }
        Ok(())
    }
}
