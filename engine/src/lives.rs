//! Which life of the log this is, and whether it may be spoken for: participants tell an old or
//! forked copy of a log from the log (`common`'s `lives`), and a coordinator on such a copy says
//! nothing more to anybody. It believes that only if it is shown what its log cannot have said,
//! under the log's own seal; who only says so is used no more, and nobody else suffers for it.

use std::sync::Arc;

use assent_common::lives::{Life, LifeBegan, Lives, PastLife, Proof, Seal, SealKey, SealedWord};
use assent_common::log::LogPosition;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::wire::branch::LifeAnswer;
use assent_common::{Epoch, ErrorCode, LogId};
use sha2::{Digest as _, Sha256};

use crate::errand::{Errand, Errands, Notice};
use crate::lane::LifeHeard;
use crate::lanes::{Greeting, Lane, Lanes};

/// The lives of the log.
#[derive(Debug)]
pub(crate) struct LogLives {
    lives: Lives,
    /// How far the log is on disk.
    position: u64,
    /// Why the log is an old or a forked copy, as a participant has shown.
    stale: Option<Arc<str>>,
}

impl LogLives {
    pub(crate) fn new(lives: Lives) -> Self {
        // What was replayed is on disk.
        let position = lives.iter().last().and_then(|began| began.at).unwrap_or(0);
        Self { lives, position, stale: None }
    }

    pub(crate) const fn key(&self) -> Option<SealKey> {
        self.lives.key()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = LifeBegan> {
        self.lives.iter()
    }

    pub(crate) fn before(&self, epoch: Epoch, asked_for: Option<Epoch>) -> Vec<PastLife> {
        self.lives.before(epoch, asked_for)
    }

    pub(crate) fn stale(&self) -> Option<&Arc<str>> {
        self.stale.as_ref()
    }

    pub(crate) fn is_on_disk(&mut self, position: Option<LogPosition>) {
        self.position = self.position.max(position.map_or(0, |position| position.0));
    }

    /// What the life that speaks says of its log now, under the seal of the log.
    pub(crate) fn proof(&self, log_id: LogId, epoch: Epoch, nonce: u64) -> Proof {
        let position = self.position;
        let seal = self.lives.key().map(|key| {
            let mark = mark(key, log_id, Life { epoch, nonce });
            Seal { mark, seal: seal(key, log_id, epoch, mark, position) }
        });
        Proof { nonce, position, seal, before: None }
    }

    /// Whether a word is under the seal of the log, and the log cannot have said it.
    fn is_shown(&self, log_id: LogId, word: &SealedWord) -> bool {
        let SealedWord { epoch, mark: of_life, position, seal: said } = *word;
        self.lives.key().is_some_and(|key| {
            seal(key, log_id, epoch, of_life, position) == said
                && self.lives.cannot_have_said(word, |life| mark(key, log_id, life))
        })
    }

    /// Takes note of what an answer says of the life that spoke.
    pub(crate) fn heard(
        &mut self,
        log_id: LogId,
        lanes: &mut Lanes,
        place: usize,
        heard: LifeHeard,
        errands: &mut Errands,
    ) {
        // Who waits for it looks again.
        errands.push(Errand::Progress);
        let lane = &mut lanes[place];
        let (why, shown) = match heard {
            LifeHeard::Said { life: None | Some(LifeAnswer::Admitted), is_work } => {
                if lane.stale_log.take().is_some() {
                    errands.say(Notice::StaleLogTakenBack(lane.name.clone()));
                }
                if is_work {
                    lane.greeting = Greeting::Heard;
                } else if lane.greeting == Greeting::Due {
                    lane.greeting = Greeting::Tried;
                }
                if !std::mem::replace(&mut lane.is_met, true) {
                    errands.push(Errand::Unmet(lanes.is_any_unmet()));
                }
                return;
            }
            LifeHeard::Nothing | LifeHeard::Said { life: Some(LifeAnswer::NotCompared), .. } => {
                if lane.greeting == Greeting::Due {
                    lane.greeting = Greeting::Tried;
                }
                lane.greeted_in_vain += 1;
                return;
            }
            LifeHeard::Said { life: Some(LifeAnswer::Unproven { epoch: asked_for }), .. } => {
                (lane.greeting, lane.asked_for) = (Greeting::Tried, asked_for);
                lane.greeted_in_vain += 1;
                let Some(epoch) = asked_for.filter(|epoch| !self.lives.has(*epoch)) else {
                    return;
                };
                let why = "of which the log knows nothing";
                (format!("it remembers life {epoch} of this log, {why}"), None)
            }
            LifeHeard::Stale { why, shown } => (why, shown),
        };
        if shown.is_some_and(|word| self.is_shown(log_id, &word)) {
            errands.say(Notice::StaleLog(lane.name.clone(), why.clone()));
            self.stale.get_or_insert_with(|| why.into());
            return;
        }
        // Anybody can say so, and be believed by a participant that has heard nothing yet.
        lane.greeting = Greeting::Tried;
        lane.greeted_in_vain += 1;
        if lane.stale_log.is_none() {
            errands.say(Notice::StaleLogNotShown(lane.name.clone(), why.clone()));
        }
        lane.stale_log = Some(why);
    }
}

/// The seal of what a life says of its log. All of it is of a fixed length, and longer than a mark
/// is made of, so that no other reading of it has the same seal.
fn seal(key: SealKey, log_id: LogId, epoch: Epoch, mark: u64, position: u64) -> u64 {
    hash(key, log_id, &[epoch.0, mark, position])
}

/// What stands for the nonce of a life in what is shown to strangers.
fn mark(key: SealKey, log_id: LogId, Life { epoch, nonce }: Life) -> u64 {
    hash(key, log_id, &[epoch.0, nonce])
}

fn hash(key: SealKey, log_id: LogId, numbers: &[u64]) -> u64 {
    let mut sealed = Sha256::new();
    sealed.update(key.0);
    sealed.update(log_id.0.as_bytes());
    for number in numbers {
        sealed.update(number.to_be_bytes());
    }
    let sealed: [u8; 32] = sealed.finalize().into();
    sealed.iter().take(8).fold(0, |seal, byte| seal << 8 | u64::from(*byte))
}

/// A prepare beside the batches was refused because its life was not proven: it is not known what
/// comes of it, and the life is said again.
pub(crate) fn unproven(lane: &mut Lane, call: Call<Prepared>) -> Call<Prepared> {
    match call {
        Call::Refused(Refusal { code: ErrorCode::UnprovenLife, .. }) => {
            lane.greeting = Greeting::Tried;
            Call::Unknown("it does not know this life of the log".to_owned())
        }
        call => call,
    }
}
