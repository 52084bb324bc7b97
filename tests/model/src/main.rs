//! Exhaustive exploration of small worlds: the real machines of `assent-common`, a log, a network that loses, delays,
//! repeats and reorders, and processes that die at any step. See `README.md` beside this package's manifest.

mod check;
mod config;
mod log;
mod mutants;
mod mutations;
mod properties;
mod redis;
mod settling;
mod shell;
mod state;
mod world;
mod worlds;
