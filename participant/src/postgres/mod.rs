//! A PostgreSQL database as the place of a participant's branches. Everything that this crate knows
//! of PostgreSQL is here.
//!
//! PostgreSQL locks, computes and stages; `PREPARE TRANSACTION` is its vote. What the protocol
//! needs beside that are rows in the schema `assent` (`schema.sql`): the marker of a branch is part
//! of its transaction, and a fence is a row with the same key. So no agent keeps anything in memory
//! that another agent of the same database needs, and none owns it.
//!
//! ```text
//! execute ──► begin (marks, numbers) ──► ending: commit, abort, settle ──► branch: prepares
//!                                            └──── kept: prepared? marker? fence? ────┘
//! ```
//!
//! From below to above; no file uses one that stands behind it:
//!
//! ```text
//! options, said, values     words: of settings, of PostgreSQL, of JSON
//! requirements              what the promises need of a server
//! mutants                   the rules that a test may have broken
//! door, connection          how it is reached, and for what
//! statement                 one statement
//! data, lives               which data it is, and whose word counts
//! database                  all that together
//! kept, blocked             what is kept of a branch, and what it waits for
//! branch, ending, inspect   prepares, outcomes, and what others want to know
//! repair, execute           data that went back; a batch
//! ```
//!
//! It must never report an unclear result as a definite one. What was sent before the last
//! statement of a branch is never kept; whether that last one was done, only an answer tells.

mod blocked;
mod branch;
mod connection;
mod data;
mod database;
mod door;
mod ending;
mod execute;
mod inspect;
mod kept;
mod lives;
mod mutants;
mod options;
mod repair;
pub mod requirements;
mod said;
mod statement;
mod values;

pub use connection::examine_postgres;
pub(crate) use database::Database;
pub(crate) use execute::execute;
pub use options::{Isolation, PostgresOptions};
