//! Strays: aborts of branches of attempts that were given up. They outlive their attempt, and a transaction does not end
//! before they are acknowledged.

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, Effect};
use super::state::{Stray, Transaction};
use crate::branch::BranchMessage;
use crate::code::ErrorCode;
use crate::ids::Attempt;
use crate::outcome::{Aborted, Call, Heuristic, Refusal};
use crate::time::Millis;
use crate::wire::transaction::Protocol;

impl Transaction {
    pub(super) fn stray_answered(
        &mut self,
        now: Millis,
        branch: Branch,
        attempt: Attempt,
        call: Call<Aborted>,
        effects: &mut Vec<Effect>,
    ) {
        let seed = self.seed(branch);
        let stray = self.strays.iter_mut().find(|stray| {
            stray.branch == branch && stray.attempt == attempt && !stray.delivery.is_over()
        });
        let Some(stray) = stray else { return };
        match call {
            Call::Applied(Aborted::Fenced) => stray.delivery = Delivery::Done,
            // The participants had found the votes of all, and a hand aborted another branch, or
            // its data was lost. Nothing takes back what is applied.
            Call::Applied(Aborted::AlreadyCommitted(_))
                if self.spec.protocol == Protocol::Implicit =>
            {
                stray.delivery = Delivery::Heuristic;
                let detail = "applied by the votes of all, before another branch was aborted by \
                              hand or lost";
                let detail = detail.to_owned();
                self.ended_by_hand(branch, Heuristic::Committed, detail, effects);
            }
            Call::Applied(Aborted::AlreadyCommitted(_)) => stray.delivery.failed(
                now,
                seed,
                Problem::Refused {
                    code: ErrorCode::WrongState,
                    detail: "the participant has applied a branch that this log never committed"
                        .to_owned(),
                },
            ),
            Call::Refused(Refusal { code: ErrorCode::HeuristicCommitted, detail, .. }) => {
                stray.delivery = Delivery::Heuristic;
                self.ended_by_hand(branch, Heuristic::Committed, detail, effects);
            }
            Call::Refused(Refusal { code, detail, .. }) => {
                stray.delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            Call::Unknown(why) => stray.delivery.failed(now, seed, Problem::Unknown(why)),
        }
    }

    pub(super) fn send_due_strays(&mut self, now: Millis, hurry: bool, effects: &mut Vec<Effect>) {
        for Stray { attempt, branch, delivery } in &mut self.strays {
            if hurry {
                delivery.hurry(now);
            }
            if delivery.take_due(now) {
                effects.push(Effect::send(*branch, *attempt, BranchMessage::Abort));
            }
        }
    }

    /// Gives up a branch's aborts; whether there were any.
    pub(super) fn abandon_strays(&mut self, branch: Branch) -> bool {
        let before = self.strays.len();
        self.strays.retain(|stray| stray.branch != branch);
        self.strays.len() < before
    }
}
