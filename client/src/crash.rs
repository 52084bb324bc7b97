//! Dying on purpose, at a named point. Tests only: without the feature `crash-points` it compiles to nothing.
//!
//! `ASSENT_CRASH_AT=participant.after_apply:3` ends the process at the third pass of that point, with no destructor, no
//! flush and no message, as a power cut would. `ASSENT_STALL_AT`, of the same form, hangs the thread there for ever, as a
//! disk does that does not answer. The names are [`CrashPoint`]'s.

use assent_common::crash::CrashPoint;

/// Dies here if `ASSENT_CRASH_AT` names this point, and hangs if `ASSENT_STALL_AT` does.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn point(_: CrashPoint) {}

/// Dies here if `ASSENT_CRASH_AT` names this point, and hangs if `ASSENT_STALL_AT` does.
#[cfg(feature = "crash-points")]
pub fn point(point: CrashPoint) {
    armed::pass(point);
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use assent_common::crash::CrashPoint;

    type Armed = OnceLock<Option<(CrashPoint, AtomicU64)>>;

    static CRASH: Armed = OnceLock::new();
    static STALL: Armed = OnceLock::new();

    pub(super) fn pass(point: CrashPoint) {
        if is_due(CRASH.get_or_init(|| read("ASSENT_CRASH_AT")).as_ref(), point) {
            std::process::abort();
        }
        if is_due(STALL.get_or_init(|| read("ASSENT_STALL_AT")).as_ref(), point) {
            loop {
                std::thread::park();
            }
        }
    }

    fn is_due(armed: Option<&(CrashPoint, AtomicU64)>, point: CrashPoint) -> bool {
        armed.is_some_and(|(armed, left)| {
            *armed == point && left.fetch_sub(1, Ordering::AcqRel) == 1
        })
    }

    fn read(variable: &str) -> Option<(CrashPoint, AtomicU64)> {
        let spec = std::env::var(variable).ok()?;
        let parsed = parse(&spec);
        // A typo would make a crash test pass without its crash.
        assert!(parsed.is_some(), "{variable}={spec:?} is not `point` or `point:count`");
        parsed.map(|(point, count)| (point, AtomicU64::new(count)))
    }

    fn parse(spec: &str) -> Option<(CrashPoint, u64)> {
        let (name, count) = match spec.split_once(':') {
            Some((name, count)) => (name, count.parse().ok().filter(|count| *count > 0)?),
            None => (spec, 1),
        };
        Some((name.parse().ok()?, count))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_armed_for_its_first_pass_or_for_the_one_counted() {
            let point = CrashPoint::AfterApply;
            assert_eq!(parse("participant.after_apply"), Some((point, 1)));
            assert_eq!(parse("participant.after_apply:3"), Some((point, 3)));
            for bad in ["", "after_apply", "participant.after_apply:0", "participant.after_apply:"]
            {
                assert_eq!(parse(bad), None, "{bad:?}");
            }
        }
    }
}
