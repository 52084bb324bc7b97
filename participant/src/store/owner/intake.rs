//! How a round takes in a prepare that it has looked at: the locks of all before it first, then the
//! room for what it adds in escrow, then its ops.

use assent_common::branch::BranchAnswer;
use assent_common::limits;
use assent_common::outcome::{Call, Prepared};
use assent_common::participant::Claimed;
use redis::{RedisResult, Value};

use super::super::control::StagedRecord;
use super::super::packed::RedoError;
use super::super::work::PrepareItem;
use super::Owner;
use super::by_script::{Evaluated, evaluated};
use super::counters::Counters;
use super::evaluate::evaluate;
use super::look::{self, Found};
use super::round::Round;

/// What was found of the keys of a branch, or of its ops.
pub(super) enum Said {
    Found(Vec<Found>),
    Evaluated(RedisResult<Value>),
}

/// Prepares on their way into a round.
pub(super) struct Intake<'a> {
    pub(super) owner: &'a mut Owner,
    pub(super) round: &'a mut Round,
    pub(super) counters: &'a Counters,
    /// Where the coordinator is asked for the outcome.
    pub(super) url: &'a str,
    /// Those that must be looked at after this round.
    pub(super) later: &'a mut Vec<PrepareItem>,
    /// Bytes of replies and writes so far.
    pub(super) bytes: usize,
}

impl Intake<'_> {
    fn answer(&mut self, item: PrepareItem, call: Call<Prepared>) {
        self.round.answers.push((item.slot, BranchAnswer::Prepared(call)));
        self.round.taken.prepares.push(item);
    }

    /// A prepare that came before: the same yes, with the replies that its record kept.
    pub(super) fn again(&mut self, item: PrepareItem, record: Option<&Value>) {
        let replies = match record {
            Some(Value::BulkString(packed)) => {
                StagedRecord::read(packed).and_then(|record| record.replies(item.shown_kinds()))
            }
            _ => Err(RedoError::foreign()),
        };
        let call = match replies {
            Ok(replies) => self.owner.vote_again(item.txid, replies),
            Err(error) => Call::Unknown(error.to_string()),
        };
        self.answer(item, call);
    }

    /// A prepare whose ops were looked at.
    pub(super) fn take(&mut self, mut item: PrepareItem, said: Said) -> Result<(), RedoError> {
        if self.round.concerns(&item) || self.bytes > limits::REPLY_BYTES_MAX {
            self.later.push(item);
            return Ok(());
        }
        // It has no writes, so that it kept no replies; under its locks they come again.
        let is_staged = self.owner.knows(item.txid);
        let claims = if is_staged { Ok(Vec::new()) } else { self.claims(&item) };
        let claims = match claims {
            Ok(claims) => claims,
            Err(no) => {
                self.answer(item, no);
                return Ok(());
            }
        };
        let ranges = self.owner.ranges(&claims);
        let may_grow =
            matches!(said, Said::Evaluated(_)) || item.prepare.branch.bytes > look::VALUE_BYTES_MAX;
        let evaluated = match said {
            Said::Evaluated(row) => evaluated(row, &item, claims, &ranges),
            Said::Found(found) => match evaluate(&item.prepare.branch, found, claims, &ranges) {
                Some(yes) => Evaluated::Yes(yes),
                None => {
                    item.by_script = true;
                    Evaluated::Later
                }
            },
        };
        match evaluated {
            Evaluated::Later => self.later.push(item),
            Evaluated::No(call) => self.answer(item, call),
            Evaluated::Yes(yes) if is_staged => {
                self.bytes += yes.packed.len();
                let call = self.owner.vote_again(item.txid, yes.json);
                self.answer(item, call);
            }
            Evaluated::Yes(yes) => {
                let yes = yes.shown(&item)?;
                self.bytes += yes.packed.len() + yes.redo.len();
                if may_grow {
                    self.owner.short_keys.forget_written(&item.prepare.branch);
                }
                let prepared = self.owner.prepare(self.round, &item, yes, self.url);
                self.round.taken.prepares.push(item);
                prepared?;
            }
        }
        Ok(())
    }

    /// What a branch adds in escrow, if nothing stands in its way: those before it in the round
    /// have locked keys since it was chosen.
    fn claims(&mut self, item: &PrepareItem) -> Result<Vec<Claimed>, Call<Prepared>> {
        if let Some(obstacle) = self.owner.obstacle(item) {
            return Err(obstacle);
        }
        let (claims, none) = self.counters.claimed(item, &self.round.added);
        match (self.owner.room(item, &claims), none) {
            (None, None) => Ok(claims),
            // Whoever may wait for others is told first what no waiting mends.
            (None | Some(Call::Applied(_)), Some(none)) => Err(none),
            (Some(no), _) => Err(no),
        }
    }
}
