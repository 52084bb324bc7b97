//! Whether a participant is worth asking: a rule over what came of the calls to it. One that has failed for a while is not
//! asked for votes, so that nobody else's keys stay locked while it does not answer; one call at a time finds out when it
//! is back. No clock: the moments come in.
//!
//! ```text
//!  answering ── failed for TRIP_AFTER_MS, TRIP_FAILURES times ──► away ── a pause ──► one probe ──┐
//!      ▲                                                           ▲                   │  failed │
//!      └───────────────────── any answer ──────────────────────────┴───────────────────┘◄────────┘
//! ```
//!
//! It says nothing of any transaction: a call without an answer stays unknown, whatever is thought of who did not answer.

use crate::backoff::Backoff;
use crate::time::Millis;

/// How long a participant has to fail before it is thought to be away: longer than a restart of an agent takes, and less
/// than a transaction may take to be decided, if its request does not say.
pub const TRIP_AFTER_MS: u64 = 3_000;

/// How many calls have to fail meanwhile, so that one that is slow is no outage.
pub const TRIP_FAILURES: u32 = 3;

/// Between probes: short, because everybody who names the participant is refused until one is answered.
const PROBE: Backoff = Backoff { base_ms: 200, cap_ms: 1_000 };

/// What is thought of a participant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It answers, or has not failed for long enough.
    Answering { failing: Option<Failing> },
    /// It is away; the next probe is due.
    Away { since: Millis, probes: u32, next_at: Millis },
    /// It is away; a probe is out.
    Probing { since: Millis, probes: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failing {
    since: Millis,
    times: u32,
}

/// Whether a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Any.
    Free,
    /// One: it is the probe ([`Breaker::probe_sent`]).
    Probe,
    /// None before this moment.
    NotBefore(Millis),
    /// None before the probe that is out has come back.
    ProbeIsOut,
}

impl Default for State {
    fn default() -> Self {
        Self::Answering { failing: None }
    }
}

impl Breaker {
    /// It has answered, whatever it said.
    pub fn answered(&mut self) {
        self.state = State::default();
    }

    /// A call that was sent at that moment has failed, or is without an answer for suspiciously long.
    pub fn failed(&mut self, now: Millis, sent_at: Millis) {
        if let State::Answering { failing } = &mut self.state {
            let Failing { since, times } = failing.unwrap_or(Failing { since: sent_at, times: 0 });
            let (since, times) = (since.min(sent_at), times + 1);
            *failing = Some(Failing { since, times });
            if times >= TRIP_FAILURES && now.since(since) >= TRIP_AFTER_MS {
                let next_at = now.plus(PROBE.delay_ms(0, since.0));
                self.state = State::Away { since, probes: 0, next_at };
            }
        }
    }

    /// Whether a call may go out now.
    #[must_use]
    pub fn pass(&self, now: Millis) -> Pass {
        match self.state {
            State::Answering { .. } => Pass::Free,
            State::Away { next_at, .. } if next_at <= now => Pass::Probe,
            State::Away { next_at, .. } => Pass::NotBefore(next_at),
            State::Probing { .. } => Pass::ProbeIsOut,
        }
    }

    /// The call that goes out is the probe, if one is due.
    pub fn probe_sent(&mut self) {
        if let State::Away { since, probes, .. } = self.state {
            self.state = State::Probing { since, probes: probes + 1 };
        }
    }

    /// The probe has failed; what fails beside it says nothing new.
    pub fn probe_failed(&mut self, now: Millis) {
        if let State::Probing { since, probes } = self.state {
            let next_at = now.plus(PROBE.delay_ms(probes, since.0));
            self.state = State::Away { since, probes, next_at };
        }
    }

    /// Since when it is away, if it is.
    #[must_use]
    pub const fn away_since(&self) -> Option<Millis> {
        match self.state {
            State::Answering { .. } => None,
            State::Away { since, .. } | State::Probing { since, .. } => Some(since),
        }
    }

    /// When the next probe is due; none while it answers, or while one is out.
    #[must_use]
    pub const fn next_probe_at(&self) -> Option<Millis> {
        match self.state {
            State::Away { next_at, .. } => Some(next_at),
            State::Answering { .. } | State::Probing { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has failed for as long and as often as it takes.
    fn away() -> (Breaker, Millis) {
        let mut breaker = Breaker::default();
        for at in [0, 10, 20] {
            breaker.failed(Millis(at), Millis(at));
        }
        assert_eq!(breaker.pass(Millis(20)), Pass::Free, "often is not long");
        let now = Millis(TRIP_AFTER_MS);
        breaker.failed(now, Millis(30));
        assert_eq!(breaker.away_since(), Some(Millis(0)));
        (breaker, now)
    }

    #[test]
    fn long_is_not_often_and_an_answer_forgets_all() {
        let mut breaker = Breaker::default();
        breaker.failed(Millis(60_000), Millis(0));
        breaker.failed(Millis(60_000), Millis(0));
        assert_eq!(breaker.away_since(), None, "two calls may be slow");
        breaker.answered();
        breaker.failed(Millis(60_001), Millis(60_000));
        assert_eq!(breaker.away_since(), None);
        assert_eq!(away().0.away_since(), Some(Millis(0)));
    }

    #[test]
    fn one_probe_at_a_time_finds_out() {
        let (mut breaker, now) = away();
        let Pass::NotBefore(at) = breaker.pass(now) else { panic!("{breaker:?}") };
        assert!(now < at && at <= now.plus(PROBE.base_ms), "{at:?}");
        assert_eq!(breaker.next_probe_at(), Some(at));
        assert_eq!(breaker.pass(at), Pass::Probe);
        breaker.probe_sent();
        assert_eq!(breaker.pass(at.plus(60_000)), Pass::ProbeIsOut);
        breaker.failed(at.plus(1), Millis(0));
        assert_eq!(breaker.pass(at.plus(1)), Pass::ProbeIsOut, "another call says nothing new");
        breaker.probe_failed(at.plus(5));
        assert!(matches!(breaker.pass(at.plus(5)), Pass::NotBefore(_)));
        breaker.answered();
        assert_eq!((breaker.pass(at), breaker.away_since()), (Pass::Free, None));
    }

    #[test]
    fn the_pauses_between_probes_are_capped() {
        let (mut breaker, mut now) = away();
        for _ in 0..100 {
            let at = breaker.next_probe_at().unwrap();
            assert!(at.since(now) <= PROBE.cap_ms, "{at:?} after {now:?}");
            breaker.probe_sent();
            now = at;
            breaker.probe_failed(now);
        }
    }
}
