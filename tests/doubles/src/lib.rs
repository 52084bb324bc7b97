//! Doubles that the model checker and the simulator share. No rule of the protocol is here: what a shell must do around
//! the machines of `assent-common`, and what a bad one would.

pub mod scripts;
