//! The pure core of Assent: identifiers, protocol machines, log records and wire types.
//!
//! **This crate does no I/O and owns no clock.** Time is a number that comes in; randomness is bits that come in;
//! durability and messages are effects that go out and inputs that come back. Production, log replay, the model checker
//! and the simulator all run this code. Its short dependency list is the proof, and a test holds it to that.
//!
//! Words: **transaction** (one atomic unit), **branch** (its part at one participant), **vote**, **decision**,
//! **in doubt** (voted yes, outcome not yet known), **op** (one Redis command or SQL statement in a
//! branch), **agent** (a running participant process), **applied** (the branch's writes are there for
//! all to see).

pub mod backoff;
pub mod branch;
pub mod breaker;
pub mod code;
pub mod command;
pub mod coordinator;
pub mod crash;
pub mod frame;
pub mod hook;
pub mod ids;
pub mod limits;
pub mod lives;
pub mod log;
pub mod mutant;
pub mod outcome;
pub mod participant;
pub mod record;
pub mod settle;
pub mod sql;
pub mod text;
pub mod time;
pub mod value;
pub mod wire;

pub use code::ErrorCode;
pub use ids::{
    Attempt, Epoch, IdempotencyKey, LogId, ParticipantName, TransactionId, TxNumber, Txid,
};
