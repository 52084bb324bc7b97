//! The simulator's own tests: that worlds hold, that they repeat themselves, that they meet what matters, and that bad
//! ones are caught.

mod command;
mod mutations;
mod regressions;
mod repeats;
mod worlds;
