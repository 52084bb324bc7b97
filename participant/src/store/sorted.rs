//! A batch, sorted.

use assent_common::code::ErrorCode;
use assent_common::outcome::{Failed, Refusal};

use super::call::PrepareItem;
use super::work::{Answers, EndingItem};

/// The messages of a batch, outcomes apart: they free the locks that prepares want. What is done is
/// taken out.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) endings: Vec<EndingItem>,
    pub(super) prepares: Vec<PrepareItem>,
}

impl Sorted {
    pub(super) fn is_empty(&self) -> bool {
        self.endings.is_empty() && self.prepares.is_empty()
    }

    /// Takes outcomes out, at most so many: the commits first, then the aborts.
    pub(super) fn take_endings(&mut self, most: usize) -> Vec<EndingItem> {
        self.endings.sort_by_key(|item| item.ending);
        self.endings.drain(..most.min(self.endings.len())).collect()
    }

    /// Puts back messages that were taken out, and not done.
    pub(super) fn put_all_back(&mut self, sorted: Self) {
        self.endings.extend(sorted.endings);
        self.prepares.extend(sorted.prepares);
    }

    /// Answers what could not even be begun: a prepare that was not sent has surely not been done;
    /// an outcome may have been, when it came before.
    pub(super) fn answer_unsent(&mut self, why: &Refusal, answers: &mut Answers) {
        let Self { endings, prepares } = std::mem::take(self);
        answers.fail_endings(&endings, &Failed::Unknown(why.detail.clone()));
        answers.fail_prepares(&prepares, &Failed::Refused(why.clone()));
    }

    /// Answers what is another agent's to do.
    pub(super) fn answer_elsewhere(&mut self, answers: &mut Answers) {
        let why = Refusal::new(ErrorCode::NotOwner, "another agent owns this Redis");
        std::mem::take(self).fail(&Failed::Refused(why), answers);
    }

    /// The same answer to all of them.
    pub(super) fn fail(&self, failed: &Failed, answers: &mut Answers) {
        answers.fail_endings(&self.endings, failed);
        answers.fail_prepares(&self.prepares, failed);
    }
}
