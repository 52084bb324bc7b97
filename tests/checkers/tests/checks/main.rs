//! The checkers on hand-made histories, on generated ones, on spoiled ones, and beside another checker.

#![expect(clippy::unwrap_used, reason = "a test's helper may end the test")]

mod command;
mod differential;
mod generated;
mod handmade;
mod support;
