//! The promises and invariants of Assent, on real processes. One binary, so that it links once; a module for each topic.

#![expect(clippy::unwrap_used, reason = "a test's helper may end the test")]

mod bad_input;
mod by_hand;
mod cli;
mod crash_matrix;
mod doc_links;
mod escrow;
mod harness;
mod history;
mod hooks;
mod implicit;
mod interactive;
mod invariants;
mod invariants_page;
mod isolation;
mod log_faults;
mod mutants;
mod network;
mod old_log;
mod participant_check;
mod pictures;
mod postgres;
mod protocol;
mod redis_faults;
mod redis_loss;
mod resp;
mod sdk_contract;
mod soak;
mod standby;
mod tidy;

/// What the tests start and kill.
const ASSENT: &str = env!("CARGO_BIN_EXE_assent-under-test");
