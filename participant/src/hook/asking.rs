//! Asking a hook: within its time, again after an unclear answer, and no more of them at once than
//! an agent can hold.

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

/// Between two questions after an unclear answer.
const UNCLEAR: Backoff = Backoff { base_ms: 50, cap_ms: 1_000 };

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
    troubled: Seldom,
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
    Unclear(String),
}

impl Hooks {
    pub(crate) fn new(
        hook: Option<(HookDoor, Arc<Store>)>,
        timeout_ms: u64,
        metrics: &Metrics,
    ) -> Self {
        let timeout = Duration::from_millis(timeout_ms);
        let in_flight = Semaphore::new(limits::HOOKS_IN_FLIGHT_MAX);
        let (metrics, troubled) = (metrics.clone(), Seldom::minutely());
        Self { hook, timeout, in_flight, metrics, troubled }
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
        let mut unclear = 0;
        let mut reason = String::new();
        loop {
            let mut reads = StoreReads::new(consultation.clone(), store, &self.metrics);
            let mut stage = HookStage::new(&mut reads);
            let asked_at = Instant::now();
            let asking = AssertUnwindSafe(hook.ask(call, input, &mut stage)).catch_unwind();
            // A no in time tells the client more than its own time-out.
            let time = self.timeout.min(deadline.saturating_duration_since(asked_at));
            let answered = match tokio::time::timeout(time, asking).await {
                Ok(Ok(answered)) => answered,
                Ok(Err(_)) => Err(HookError::Unclear("it panicked".to_owned())),
                Err(_) => {
                    Err(HookError::Unclear(format!("no answer within {} ms", time.as_millis())))
                }
            };
            let staged = stage.into_staged();
            let asked = outcome(answered, reads.stop.take());
            self.metrics.hook_said(said(&asked), asked_at.elapsed());
            match asked {
                AskedHook::Said(reply) => {
                    crash::point(CrashPoint::AfterHook);
                    *consultation = reads.consultation;
                    return hooked(store, consultation, staged, &reply);
                }
                AskedHook::Anew => consultation.anew()?,
                AskedHook::No(refusal) => return Err(refusal),
                AskedHook::Unclear(why) => {
                    let pause = UNCLEAR.delay_ms(unclear, call.txid.number.n);
                    unclear += 1;
                    // The last question may have had hardly any time: that it got no answer says
                    // less than what came of an earlier one.
                    if reason.is_empty() || time == self.timeout {
                        reason = why;
                    }
                    let next = Instant::now() + Duration::from_millis(pause);
                    if next >= deadline {
                        let refusal = unavailable(call, hook.place(), unclear, &reason);
                        if let Some(left_out) = self.troubled.now() {
                            let why = &refusal.detail;
                            tracing::warn!(txid = %call.txid, why, left_out,
                                "the hook gives no clear answer");
                        }
                        return Err(refusal);
                    }
                    tokio::time::sleep_until(next.into()).await;
                }
            }
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

fn outcome(answered: Result<HookReply, HookError>, stop: Option<HookStop>) -> AskedHook {
    match (stop, answered) {
        (Some(HookStop::Anew), _) => AskedHook::Anew,
        (Some(HookStop::No(refusal)), _) => AskedHook::No(refusal),
        (None, Ok(reply)) => AskedHook::Said(reply),
        (None, Err(HookError::Veto(veto))) => AskedHook::No(vetoed(&veto)),
        (None, Err(HookError::Refused(refusal))) => AskedHook::No(refusal),
        (None, Err(HookError::Invalid(what))) => AskedHook::No(invalid(what)),
        (None, Err(HookError::Unclear(why))) => AskedHook::Unclear(why),
        (None, Err(HookError::ReadFailed)) => AskedHook::Unclear("it has read nothing".to_owned()),
    }
}

const fn said(asked: &AskedHook) -> HookSaid {
    match asked {
        AskedHook::Said(_) => HookSaid::Staged,
        AskedHook::Anew => HookSaid::Changed,
        AskedHook::No(Refusal { code: ErrorCode::Vetoed, .. }) => HookSaid::Vetoed,
        AskedHook::No(_) => HookSaid::Refused,
        AskedHook::Unclear(_) => HookSaid::Unclear,
    }
}

fn unavailable(call: &HookCall, place: &str, times: u32, why: &str) -> Refusal {
    let HookCall { participant, .. } = call;
    let detail = format!(
        "the hook of participant {participant} ({place}) was asked {times} times without a clear \
         answer: {why}; nothing is done"
    );
    Refusal::new(ErrorCode::HookUnavailable, detail)
}
