//! Asking a hook: within its time, again where it has not answered, and no more of them at once
//! than an agent can hold.
//!
//! What is answered and is no answer (a status of 500 or of 404, no JSON, a panic) may be better a
//! moment later, but is not asked for until the time is over: as a rule the input is the cause.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_client::{Unknown, crash, mutant};
use assent_common::backoff::Backoff;
use assent_common::command::ValidatedBranch;
use assent_common::crash::CrashPoint;
use assent_common::hook::{Consultation, HookStop, invalid, vetoed};
use assent_common::mutant::Mutant;
use assent_common::outcome::Refusal;
use assent_common::wire::hook::HookReply;
use assent_common::{ErrorCode, limits};
use assent_edge::Seldom;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::stage::StoreReads;
use super::{HookCall, HookDoor, HookError, HookStage};
use crate::health::{Check, Verdict};
use crate::metrics::{HookSaid, Metrics};
use crate::ops::check_ops;
use crate::store::{Hooked, Store};

/// Between two questions where the first has no answer.
const UNANSWERED: Backoff = Backoff { base_ms: 50, cap_ms: 1_000 };

/// How long a check waits for it.
const REACH_TIME: Duration = Duration::from_secs(1);

/// The hook of a participant, if it has one, and how it is asked.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// With the Redis that it reads in.
    hook: Option<(HookDoor, Arc<Store>)>,
    timeout: Duration,
    in_flight: Semaphore,
    metrics: Metrics,
    unanswered: Seldom,
    invalid: Seldom,
}

/// A branch with what a hook has added.
#[derive(Debug)]
pub(crate) struct HookedBranch {
    pub(crate) branch: ValidatedBranch,
    pub(crate) hooked: Hooked,
}

impl HookedBranch {
    /// The client's ops only: of a branch to which the hook says nothing.
    pub(crate) fn of_client(branch: &ValidatedBranch) -> Self {
        let reply = HookReply::null().get().into();
        let hooked = Hooked { before: 0, given: branch.ops.len(), reply };
        Self { branch: branch.clone(), hooked }
    }
}

/// What one question came to.
enum AskedHook {
    Said(HookReply),
    Anew,
    No(Refusal),
    /// What is wrong with its answer, without values.
    Invalid(String),
    Trouble(HookTrouble),
}

/// Why a question has no answer.
enum HookTrouble {
    /// The hook has failed, or what answers is none.
    Failed(String),
    /// It has not answered, or says that it will later.
    Unclear(String),
    /// It has not answered in less time than it has as a rule.
    CutShort(String),
}

/// What came of the questions that have no answer.
#[derive(Debug, Default)]
struct Troubles {
    asked: u32,
    failed: usize,
    reason: String,
}

impl Troubles {
    fn add(&mut self, trouble: HookTrouble) {
        self.asked += 1;
        self.reason = match trouble {
            HookTrouble::Failed(why) => {
                self.failed += 1;
                why
            }
            // That the last question got no answer says less than what came of an earlier one.
            HookTrouble::CutShort(_) if !self.reason.is_empty() => return,
            HookTrouble::CutShort(why) | HookTrouble::Unclear(why) => why,
        };
    }

    /// Whether it would fail again.
    const fn is_hopeless(&self) -> bool {
        self.failed >= limits::HOOK_FAILURES_MAX
    }

    fn refusal(&self, call: &HookCall, place: &str) -> Refusal {
        let Self { asked, failed, reason } = self;
        let hook = format!("the hook of participant {} ({place})", call.participant);
        match self.is_hopeless() {
            true => {
                let detail = format!(
                    "{hook} was asked {asked} times, and failed {failed} times: {reason}; nothing \
                     is done"
                );
                Refusal::new(ErrorCode::HookInvalid, detail)
            }
            false => {
                let detail = format!(
                    "{hook} was asked {asked} times without a clear answer: {reason}; nothing is \
                     done"
                );
                Refusal::new(ErrorCode::HookUnavailable, detail)
            }
        }
    }
}

impl Hooks {
    pub(crate) fn new(
        hook: Option<(HookDoor, Arc<Store>)>,
        timeout_ms: u64,
        metrics: &Metrics,
    ) -> Self {
        let timeout = Duration::from_millis(timeout_ms);
        let in_flight = Semaphore::new(limits::HOOKS_IN_FLIGHT_MAX);
        let (metrics, unanswered) = (metrics.clone(), Seldom::minutely());
        Self { hook, timeout, in_flight, metrics, unanswered, invalid: Seldom::minutely() }
    }

    /// The hook, as a check: a participant that cannot ask it refuses branches with an input, and
    /// no others. None without a hook.
    pub(crate) async fn check(&self) -> Option<Check> {
        let (HookDoor(hook), _) = self.hook.as_ref()?;
        let reached = tokio::time::timeout(REACH_TIME, hook.reach()).await;
        let reached = reached
            .unwrap_or_else(|_| Err(Unknown(format!("nobody listens within {REACH_TIME:?}"))));
        let (verdict, detail) = match reached {
            Ok(()) => (Verdict::Passing, String::new()),
            Err(Unknown(why)) => {
                let place = hook.place();
                let refused = "until then branches with an input are refused";
                (Verdict::Warning, format!("{place} cannot be reached: {why}; {refused}"))
            }
        };
        Some(Check { name: "hook", verdict, detail })
    }

    /// The branch that the hook wants, or the no that it comes to.
    pub(crate) async fn ask(
        &self,
        call: &HookCall,
        input: &RawValue,
        consultation: &mut Consultation,
        deadline: Instant,
    ) -> Result<HookedBranch, Refusal> {
        let Some((HookDoor(hook), store)) = &self.hook else {
            let detail =
                format!("participant {} has no hook that takes an input", call.participant);
            return Err(Refusal::new(ErrorCode::NoHook, detail));
        };
        let Ok(_in_flight) = self.in_flight.try_acquire() else {
            let most = limits::HOOKS_IN_FLIGHT_MAX;
            let detail = format!("the hook of {} is asked {most} times already", call.participant);
            return Err(Refusal::new(ErrorCode::Overloaded, detail));
        };
        let _counted = self.metrics.hook_is_asked();
        crash::point(CrashPoint::BeforeHook);
        let mut troubles = Troubles::default();
        loop {
            let mut reads = StoreReads::new(consultation.clone(), store, &self.metrics);
            let mut stage = HookStage::new(&mut reads);
            let asked_at = Instant::now();
            // A no in time tells the client more than its own time-out.
            let time = self.timeout.min(deadline.saturating_duration_since(asked_at));
            let answered = self.answered(hook.ask(call, input, &mut stage), time).await;
            let staged = stage.into_staged();
            let asked = outcome(answered, reads.stop.take());
            self.metrics.hook_said(said(&asked), asked_at.elapsed());
            let trouble = match asked {
                AskedHook::Said(reply) => {
                    crash::point(CrashPoint::AfterHook);
                    *consultation = reads.consultation;
                    let hooked = hooked(store, consultation, staged, &reply);
                    return hooked.inspect_err(|no| self.say_no(call, hook.place(), no));
                }
                AskedHook::Anew => {
                    consultation.anew()?;
                    continue;
                }
                AskedHook::No(no) => {
                    self.say_no(call, hook.place(), &no);
                    return Err(no);
                }
                AskedHook::Invalid(what) => {
                    self.say_invalid(call, hook.place(), &what);
                    return Err(invalid(what));
                }
                AskedHook::Trouble(trouble) => trouble,
            };
            let pause = UNANSWERED.delay_ms(troubles.asked, call.txid.number.n);
            troubles.add(trouble);
            let next = Instant::now() + Duration::from_millis(pause);
            if troubles.is_hopeless() || next >= deadline {
                self.say_trouble(call, hook.place(), &troubles);
                return Err(troubles.refusal(call, hook.place()));
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }

    /// What a hook answers within this time.
    async fn answered(
        &self,
        asking: impl Future<Output = Result<HookReply, HookError>>,
        time: Duration,
    ) -> Result<Result<HookReply, HookError>, HookTrouble> {
        match tokio::time::timeout(time, AssertUnwindSafe(asking).catch_unwind()).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => Err(HookTrouble::Failed("it panicked".to_owned())),
            Err(_) => {
                let why = format!("no answer within {} ms", time.as_millis());
                let is_cut = time < self.timeout;
                Err(if is_cut { HookTrouble::CutShort(why) } else { HookTrouble::Unclear(why) })
            }
        }
    }
}

/// What goes into the agent's log, each once a minute: its client may not be the one who can mend
/// it.
impl Hooks {
    /// The words for an op that is refused may hold values: those are for the client.
    fn say_no(&self, call: &HookCall, place: &str, no: &Refusal) {
        if no.code == ErrorCode::HookInvalid {
            self.say_invalid(call, place, "an op of it is refused; its client is told which");
        }
    }

    fn say_invalid(&self, HookCall { txid, .. }: &HookCall, place: &str, why: &str) {
        if let Some(left_out) = self.invalid.now() {
            tracing::warn!(%txid, place, why, left_out, "the hook's answer cannot be used");
        }
    }

    fn say_trouble(&self, call: &HookCall, place: &str, troubles: &Troubles) {
        let (why, txid) = (&troubles.reason, call.txid);
        if troubles.is_hopeless() {
            if let Some(left_out) = self.invalid.now() {
                tracing::warn!(%txid, place, why, left_out, "the hook fails over its input");
            }
        } else if let Some(left_out) = self.unanswered.now() {
            tracing::warn!(%txid, place, why, left_out, "the hook gives no clear answer");
        }
    }
}

fn hooked(
    store: &Store,
    consultation: &Consultation,
    staged: Vec<assent_common::command::OpRequest>,
    reply: &HookReply,
) -> Result<HookedBranch, Refusal> {
    let mut wanted = consultation.stage(staged);
    if mutant::is(Mutant::HookUnguarded) {
        wanted.ops.drain(..std::mem::take(&mut wanted.before));
    }
    let (before, given) = (wanted.before, wanted.given);
    let mut branch = check_ops(store, wanted.ops).map_err(invalid)?;
    // Also one that only reads leaves its replies: they are not what its ops alone say.
    branch.read_only = false;
    let hooked = Hooked { before, given, reply: reply.get().into() };
    Ok(HookedBranch { branch, hooked })
}

fn outcome(
    answered: Result<Result<HookReply, HookError>, HookTrouble>,
    stop: Option<HookStop>,
) -> AskedHook {
    let answered = match (stop, answered) {
        (Some(HookStop::Anew), _) => return AskedHook::Anew,
        (Some(HookStop::No(refusal)), _) => return AskedHook::No(refusal),
        (None, Err(trouble)) => return AskedHook::Trouble(trouble),
        (None, Ok(answered)) => answered,
    };
    match answered {
        Ok(reply) => AskedHook::Said(reply),
        Err(HookError::Veto(veto)) => AskedHook::No(vetoed(&veto)),
        Err(HookError::Invalid(what)) => AskedHook::Invalid(what),
        Err(HookError::Failed(why)) => AskedHook::Trouble(HookTrouble::Failed(why)),
        Err(HookError::Unclear(why)) => AskedHook::Trouble(HookTrouble::Unclear(why)),
        Err(error @ HookError::ReadFailed) => {
            AskedHook::Trouble(HookTrouble::Failed(error.to_string()))
        }
    }
}

const fn said(asked: &AskedHook) -> HookSaid {
    match asked {
        AskedHook::Said(_) => HookSaid::Staged,
        AskedHook::Anew => HookSaid::Changed,
        AskedHook::No(Refusal { code: ErrorCode::Vetoed, .. }) => HookSaid::Vetoed,
        AskedHook::No(_) | AskedHook::Invalid(_) => HookSaid::Refused,
        AskedHook::Trouble(_) => HookSaid::Unclear,
    }
}
