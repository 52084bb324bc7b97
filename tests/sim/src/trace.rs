//! What happened, for people to read: off, or kept as text.

use std::fmt::{Arguments, Write as _};

/// The story of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace(Option<String>);

impl Trace {
    pub(crate) fn new(is_on: bool) -> Self {
        Self(is_on.then(String::new))
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn push(&mut self, now_us: u64, text: Arguments<'_>) {
        if let Some(told) = &mut self.0 {
            let (ms, us) = (now_us / 1_000, now_us % 1_000);
            let _ = writeln!(told, "{ms:>7}.{us:03} {text}");
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.0.unwrap_or_default()
    }
}

/// Adds a line to a world's trace; costs nothing where that is off.
macro_rules! note {
    ($world:expr, $($text:tt)+) => {
        if $world.trace.is_on() {
            let now_us = $world.now_us;
            $world.trace.push(now_us, format_args!($($text)+));
        }
    };
}

pub(crate) use note;
