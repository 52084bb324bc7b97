//! The story of a demo, told as it happens.

use std::time::Instant;

use assent::output;

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// The story is what was asked for.
    Stdout,
    /// A document was asked for; the story is talk.
    Stderr,
}

/// Tells lines with the time since the beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Story {
    began: Instant,
    teller: Teller,
}

impl Story {
    pub(super) fn begin(teller: Teller) -> Self {
        Self { began: Instant::now(), teller }
    }

    /// One line.
    pub(super) fn tell(&self, text: &str) {
        let line = format!("[{:6.2} s] {text}", self.began.elapsed().as_secs_f64());
        match self.teller {
            Teller::Stderr => output::talk(&line),
            Teller::Stdout => {
                // The demo goes on, and ends in its exit code, when nobody reads any more.
                let _closed = output::line(&line);
            }
        }
    }
}
