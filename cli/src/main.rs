//! The assent command.
fn main() {}
