//! Which known-bad variant this engine is, for tests of the tests: none. Without the feature
//! `crash-points` the question is answered by the compiler, and nothing of the mutants is left.

use assent_common::mutant::Mutant;

/// A known-bad variant, or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant {
    #[cfg(feature = "crash-points")]
    mutant: Option<Mutant>,
}

impl Variant {
    /// The variant that a test has chosen. Without the feature there is none to choose.
    #[must_use]
    #[cfg_attr(not(feature = "crash-points"), expect(unused_variables, reason = "see above"))]
    pub const fn of(mutant: Option<Mutant>) -> Self {
        Self {
            #[cfg(feature = "crash-points")]
            mutant,
        }
    }

    /// Whether it is that mutant.
    #[cfg(not(feature = "crash-points"))]
    #[inline]
    pub(crate) const fn is(self, _: Mutant) -> bool {
        false
    }

    /// Whether it is that mutant.
    #[cfg(feature = "crash-points")]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

// The proof that a release has no mutants: this is evaluated when it is compiled.
#[cfg(not(feature = "crash-points"))]
const _: () =
    assert!(!Variant::of(None).is(Mutant::PresumesActive), "a mutant without the feature");
