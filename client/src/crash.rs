//! Dying on purpose, at a named point. Tests only: without the feature `crash-points` it compiles to nothing.
//!
//! `ASSENT_CRASH_AT=participant.after_apply:3` ends the process at the third pass of that point, with no destructor, no
//! flush and no message, as a power cut would. The names are [`CrashPoint`]'s.

use assent_common::crash::CrashPoint;

/// Dies here if `ASSENT_CRASH_AT` names this point.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn point(_: CrashPoint) {}

/// Dies here if `ASSENT_CRASH_AT` names this point.
#[cfg(feature = "crash-points")]
pub fn point(point: CrashPoint) {
    armed::pass(point);
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use assent_common::crash::CrashPoint;

    static ARMED: OnceLock<Option<(CrashPoint, AtomicU64)>> = OnceLock::new();

    pub(super) fn pass(point: CrashPoint) {
        if let Some((armed, left)) = ARMED.get_or_init(read)
            && *armed == point
            && left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            std::process::abort();
        }
    }

    fn read() -> Option<(CrashPoint, AtomicU64)> {
        let spec = std::env::var("ASSENT_CRASH_AT").ok()?;
        let parsed = parse(&spec);
        // A typo would make a crash test pass without its crash.
        assert!(parsed.is_some(), "ASSENT_CRASH_AT={spec:?} is not `point` or `point:count`");
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
