//! The bodies of Assent's HTTP surfaces. Wire types are not core types: a body is parsed here once
//! and converted into what the machines take.

pub(crate) mod bounded;
pub mod branch;
mod by_hand;
mod depth;
mod foreign;
mod form;
mod held;
pub mod hook;
pub mod interactive;
mod json_path;
mod objects;
pub mod ops;
pub mod outcome;
pub mod problem;
pub mod redo;
pub mod resync;
mod speaker;
pub mod submission;
pub mod transaction;

pub use bounded::ReadOps;
pub use depth::too_deep_at;
pub use json_path::place_of;
pub use objects::read_json;

/// The media type of what participants and coordinators say to each other. An answer of any other
/// type says nothing: an ingress, a wrong path and a foreign server all answer with something
/// (invariant 7, and `client::transport`).
pub const MEDIA_TYPE: &str = "application/vnd.assent+json";

/// The header that says who asks for a change of the participants, for the log.
pub const ACTOR: &str = "assent-actor";

/// The media type of errors, RFC 9457.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";
