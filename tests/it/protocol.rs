//! The protocol against a network that repeats, reorders and lies, and against coordinators that should not be.

mod authority;
mod foreign;
mod lies;
mod order;
