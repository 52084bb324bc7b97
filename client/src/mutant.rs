//! Being wrong on purpose. Tests only: without the feature `crash-points` the question is answered
//! by the compiler, and nothing of the mutants is left.
//!
//! `ASSENT_MUTANT=log.epoch_not_raised` makes a process one of the known-bad variants that
//! [`Mutant`] names.

use assent_common::mutant::Mutant;

/// Whether this process is that mutant.
#[cfg(not(feature = "crash-points"))]
#[inline]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}

/// Whether this process is that mutant.
#[cfg(feature = "crash-points")]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    chosen() == Some(mutant)
}

/// Which mutant this process is.
#[cfg(not(feature = "crash-points"))]
#[must_use]
pub const fn chosen() -> Option<Mutant> {
    None
}

/// Which mutant this process is.
#[cfg(feature = "crash-points")]
#[must_use]
pub fn chosen() -> Option<Mutant> {
    *chosen::CHOSEN.get_or_init(chosen::read)
}

// The proof that a release has no mutants: this is evaluated when it is compiled.
#[cfg(not(feature = "crash-points"))]
const _: () = assert!(!is(Mutant::EpochNotRaised), "a mutant without the feature");

#[cfg(feature = "crash-points")]
mod chosen {
    use std::sync::OnceLock;

    use assent_common::mutant::Mutant;

    pub(super) static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();

    pub(super) fn read() -> Option<Mutant> {
        let name = std::env::var("ASSENT_MUTANT").ok()?;
        let mutant = name.parse();
        // A typo would make a test of the tests pass without its mutant.
        assert!(mutant.is_ok(), "ASSENT_MUTANT={name:?} is no mutant");
        mutant.ok()
    }
}
