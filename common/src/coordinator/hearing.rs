//! What a coordinator makes of an answer, given what it knows of the data behind it: before a machine hears the answer.
//!
//! An answer may come from data that is no more. Whoever counted it could decide on a vote that was lost, and miss it in
//! what the log says when the data is made whole (invariants 9, 12). Such an answer is as good as none.

use super::resync::{Seen, VoteData, applied_on, voted_on};
use crate::branch::BranchAnswer;
use crate::code::ErrorCode;
use crate::outcome::{Aborted, Call, Prepared, Refusal};
use crate::wire::resync::DataPoint;

/// How the answers of one call are heard.
#[derive(Debug)]
pub struct Hearing<'a> {
    seen: &'a mut Seen,
    is_resyncing: bool,
    /// Whether the data may have been replaced since the call was sent.
    is_late: bool,
}

impl<'a> Hearing<'a> {
    /// Of a call that was sent when `known` was known of the data. `is_resyncing` says whether the participant's loss is
    /// being made good now.
    pub fn new(seen: &'a mut Seen, known: Option<DataPoint>, is_resyncing: bool) -> Self {
        let incarnation = |point: Option<DataPoint>| point.map(|point| point.incarnation);
        let is_late = is_resyncing || incarnation(known) != incarnation(seen.known);
        Self { seen, is_resyncing, is_late }
    }

    /// Takes the next answer, and makes it unknown where it counts for nothing. Returns whether the participant says
    /// that its data is fenced.
    pub fn hear(&mut self, answer: &mut BranchAnswer) -> bool {
        match answer {
            BranchAnswer::Prepared(call) => {
                let is_done = matches!(call, Call::Applied(Prepared::Committed(_)));
                let is_void = self.is_void(voted_on(call), is_done);
                fenced(call, is_void)
            }
            BranchAnswer::Aborted(call) => {
                let is_done = matches!(call, Call::Applied(Aborted::AlreadyCommitted(_)));
                let is_void = self.is_void(applied_on(call), is_done);
                fenced(call, is_void)
            }
            // A vote or a fence of before the loss is none any more.
            BranchAnswer::Settled(call) => {
                let is_void = self.is_late && matches!(call, Call::Applied(_));
                fenced(call, is_void)
            }
            // What is committed is said again until the data is whole.
            BranchAnswer::Applied(call) => fenced(call, false),
        }
    }

    /// Whether an answer is of other data, by what it says of its data; `is_done` where it tells of writes.
    fn is_void(&mut self, at: Option<DataPoint>, is_done: bool) -> bool {
        match at {
            Some(_) if self.is_resyncing => true,
            Some(at) => self.seen.vote(at) == VoteData::Other,
            None => self.is_late && is_done,
        }
    }
}

fn fenced<T>(call: &mut Call<T>, is_void: bool) -> bool {
    if is_void {
        *call = Call::Unknown("the answer is of data that is no more".to_owned());
    }
    matches!(call, Call::Refused(Refusal { code: ErrorCode::Quarantined, .. }))
}
