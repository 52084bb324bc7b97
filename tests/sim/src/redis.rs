//! A Redis: the control data of the participant's machine, and the balances. Can lose what it had written last, as one
//! does that comes back from an old append-only file.

use assent_common::participant::{Participant, Request, Stepped};
use assent_doubles::scripts::{self, Bend};

use crate::request;

/// Scripts that the journal keeps at least, once it had so many: what a Redis may lose at most.
const JOURNAL_SCRIPTS: usize = 200;

/// One Redis server.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) control: Participant,
    pub(crate) balances: Vec<i64>,
    journal: Option<Journal>,
}

/// The append-only file: where a Redis was, and what it did since.
#[derive(Debug)]
struct Journal {
    control: Participant,
    balances: Vec<i64>,
    scripts: Vec<Request>,
}

impl Redis {
    pub(crate) fn new(incarnation: u64, keys: usize, keeps_journal: bool) -> Self {
        let (control, balances) = (Participant::new(incarnation), vec![request::BALANCE; keys]);
        let journal = keeps_journal.then(|| Journal {
            control: control.clone(),
            balances: balances.clone(),
            scripts: Vec::new(),
        });
        Self { control, balances, journal }
    }

    /// One script.
    pub(crate) fn run(
        &mut self,
        bend: Option<Bend>,
        incarnation: u64,
        request: Request,
    ) -> Stepped {
        // What is refused for its incarnation is no write.
        let is_own = incarnation == self.control.incarnation();
        if let Some(journal) = self.journal.as_mut().filter(|_| is_own) {
            journal.append(request.clone());
        }
        let stepped = scripts::step(bend, &mut self.control, incarnation, request);
        if let Some(redo) = &stepped.apply {
            request::apply(redo, &mut self.balances);
        }
        stepped
    }

    /// How many of the last scripts can be lost.
    pub(crate) fn journal_scripts(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.scripts.len())
    }

    /// Comes back without the last scripts, which are returned.
    pub(crate) fn go_back(&mut self, count: usize) -> Vec<Request> {
        let Some(journal) = &mut self.journal else { return Vec::new() };
        let kept = journal.scripts.len().saturating_sub(count);
        let lost = journal.scripts.split_off(kept);
        (self.control, self.balances) = journal.replayed(kept);
        lost
    }
}

impl Journal {
    fn append(&mut self, script: Request) {
        if self.scripts.len() >= 2 * JOURNAL_SCRIPTS {
            (self.control, self.balances) = self.replayed(JOURNAL_SCRIPTS);
            self.scripts.drain(..JOURNAL_SCRIPTS);
        }
        self.scripts.push(script);
    }

    fn replayed(&self, count: usize) -> (Participant, Vec<i64>) {
        let (mut control, mut balances) = (self.control.clone(), self.balances.clone());
        for script in &self.scripts[..count] {
            let stepped = control.step(control.incarnation(), script.clone());
            if let Some(redo) = &stepped.apply {
                request::apply(redo, &mut balances);
            }
        }
        (control, balances)
    }
}
