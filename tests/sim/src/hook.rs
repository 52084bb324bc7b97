//! Hooks: some branches are decided by one, which reads two accounts and has a rule over both. It
//! is asked by the machine of production; its answer takes its time, in which others go on.

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::command::OpRequest;
use assent_common::hook::{Consultation, HookStop, HookedOps, vetoed};
use assent_common::outcome::{Call, Done, Prepared, Refusal};
use assent_common::participant::Evaluation;
use assent_common::value::Arg;
use assent_common::wire::hook::Veto;

use crate::network::Ask;
use crate::queue::{Event, Waits};
use crate::redis::Data;
use crate::request::{BranchPlan, Op, OpKind, key};
use crate::trace::note;
use crate::world::World;

/// How long a hook takes at most, in microseconds.
const THINKS_US: u64 = 4_000;

/// What the two accounts must have together.
const LEAST: i64 = 150;

/// A hook's rule: both accounts have [`LEAST`] together when the branch has added to the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HookRule {
    account: usize,
    other: usize,
    amount: i64,
}

/// What a hook has said of a branch.
#[derive(Debug, Clone)]
pub(crate) struct HookWord {
    consultation: Consultation,
    said: Result<HookedOps, Refusal>,
}

impl HookRule {
    /// That of a branch that adds to one account and reads another.
    pub(crate) fn of(ops: &[Op]) -> Option<Self> {
        let [Op { account, kind: OpKind::Add(amount) }, Op { account: other, kind: OpKind::Read }] =
            *ops
        else {
            return None;
        };
        Some(Self { account, other, amount })
    }

    fn holds(self, balances: impl Fn(usize) -> i64) -> bool {
        balances(self.account) + self.amount + balances(self.other) >= LEAST
    }
}

/// Whether a hook is asked about a message before it goes on, or anew behind this answer. What it
/// says comes later.
pub(crate) fn is_asked(
    world: &mut World,
    ask: Ask,
    waits: Option<Waits>,
    word: Option<&HookWord>,
    answer: Option<&BranchAnswer>,
) -> bool {
    let plan = &world.requests[ask.request].branches[ask.branch.index()];
    let Some(rule) = plan.hook.filter(|_| ask.message.is_prepare()) else { return false };
    let consultation = match word {
        None => Some(Consultation::new(Vec::new())),
        Some(word) => word.anew(answer),
    };
    let Some(mut consultation) = consultation else { return false };
    let said = consult(&world.agents[ask.at].redis.data, rule, &mut consultation);
    note!(world, "p{}: the hook is asked about {}", ask.at, ask.txid);
    world.report.hooks_asked += 1;
    let life = world.agents[ask.at].life;
    let word = Box::new(HookWord { consultation, said });
    let at_us = world.now_us + world.random.between(20, THINKS_US);
    world.queue.push(at_us, Event::HookSaid { ask, waits, life, word });
    true
}

/// The no that a hook has said.
pub(crate) fn no(word: Option<&HookWord>) -> Option<&Refusal> {
    word?.said.as_ref().err()
}

fn consult(
    data: &Data,
    rule: HookRule,
    consultation: &mut Consultation,
) -> Result<HookedOps, Refusal> {
    let name = |account| key(account);
    let get = |account| OpRequest {
        cmd: vec![Arg::from("GET"), name(account)],
        expect: None,
        escrow: false,
    };
    let look = consultation.look(&[], vec![get(rule.account), get(rule.other)])?;
    let balance = |op: &OpRequest| {
        let place = data.balances.iter().enumerate().position(|(at, _)| name(at) == op.cmd[1]);
        format!("\"{}\"", data.balances[place.expect("an account")])
    };
    let replies = look.ops.iter().map(balance).collect::<Vec<_>>().join(",");
    let done = Done::from(&*format!("[{replies}]"));
    let call = Call::Applied(Prepared::Committed(done));
    let read = match consultation.looked(&look, call) {
        Ok(read) => read,
        Err(HookStop::No(refusal)) => return Err(refusal),
        Err(HookStop::Anew) => return Err(Refusal::new(ErrorCode::Internal, "one look only")),
    };
    let number = |place: usize| read[place].get().trim_matches('"').parse().expect("a number");
    match rule.holds(|account| number(usize::from(account != rule.account))) {
        true => Ok(consultation.stage(Vec::new())),
        false => Err(vetoed(&Veto::new("too_little", "").expect("a code"))),
    }
}

impl HookWord {
    /// What a branch comes to under its locks: only if what the hook has read is still so.
    pub(crate) fn guarded(
        &self,
        balances: &[i64],
        evaluation: Result<Evaluation, Refusal>,
    ) -> Result<Evaluation, Refusal> {
        let Ok(HookedOps { ops, before, .. }) = &self.said else { return evaluation };
        for (place, guard) in (0..).zip(&ops[..*before]) {
            let account = balances.iter().enumerate().position(|(at, _)| key(at) == guard.cmd[1]);
            let found = Arg::from(&*balances[account.expect("an account")].to_string());
            let seen = guard.expect.as_ref().and_then(|expect| expect.eq.clone()).flatten();
            if seen != Some(found) {
                let refusal = Refusal::new(ErrorCode::ReadChanged, "somebody has changed it");
                return Err(refusal.at_op(place));
            }
        }
        evaluation
    }

    /// How the hook is asked anew, if the answer says that it has to be.
    fn anew(&self, answer: Option<&BranchAnswer>) -> Option<Consultation> {
        let refusal = answer?.refused().filter(|_| self.said.is_ok())?;
        let mut consultation = self.consultation.clone();
        consultation.refused(refusal).ok().map(|()| consultation)
    }
}

/// Whether the rule of a branch that has just been staged holds on the data; of one that has just
/// been applied as well, its own amount is in it by then.
pub(crate) fn rule_holds(plan: &BranchPlan, data: &Data, is_applied: bool) -> bool {
    plan.hook.is_none_or(|rule| {
        let own = if is_applied { rule.amount } else { 0 };
        rule.holds(|at| data.balances[at] - if at == rule.account { own } else { 0 })
    })
}
