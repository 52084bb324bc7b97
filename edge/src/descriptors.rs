//! File descriptors: how many the process has, and what they are for.
//!
//! A server that gave them all to clients could open no segment of its log, no connection to its Redis and none to its
//! peers. So the listeners get what is left when those have theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the log, Redis, peers and the runtime: at least this many, and a quarter of all.
const OWN_MIN: usize = 96;
const OWN_SHARE: usize = 4;

/// For the admin listener, where operators and probes are served when the public one is full.
const ADMIN: usize = 32;

/// The fewest connections of the public listener, however few descriptors there are.
const PUBLIC_MIN: usize = 16;

/// How the process's descriptors are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of the public listener.
    pub public: usize,
    /// Connections of the admin listener.
    pub admin: usize,
}

/// Raises the soft limit of descriptors to the hard one; returns what holds now.
fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No limit is the largest one.
    let usable =
        |limit: Option<u64>| limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if current == maximum {
        return usable(current);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::info!(from = current, to = maximum, "the limit of open files was raised");
            usable(maximum)
        }
        Err(error) => {
            tracing::warn!(%error, limit = current, "the limit of open files cannot be raised");
            usable(current)
        }
    }
}

impl Descriptors {
    /// Raises the process's limit as far as it may be, and shares out what it then has.
    #[must_use]
    pub fn of_process(wanted: usize) -> Self {
        Self::share(raise_limit(), wanted)
    }

    /// Shares out this many; the public listener gets no more than `wanted`.
    fn share(limit: usize, wanted: usize) -> Self {
        let own = OWN_MIN.max(limit / OWN_SHARE);
        let public = limit.saturating_sub(own + ADMIN).max(PUBLIC_MIN).min(wanted.max(1));
        Self { public, admin: ADMIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_needs_itself_is_kept_from_the_listeners() {
        assert_eq!(Descriptors::share(1_024, 20_000).public, 736);
        assert_eq!(Descriptors::share(200, 20_000).public, 72);
        assert_eq!(Descriptors::share(64, 20_000).public, PUBLIC_MIN);
        assert_eq!(Descriptors::share(1 << 20, 20_000).public, 20_000);
        assert_eq!(Descriptors::share(usize::MAX, 5), Descriptors { public: 5, admin: ADMIN });
    }
}
