//! The edge of a server: the listeners of coordinator and participant, and all that strangers can do there.
//!
//! Owns: how long a connection may take over each part of a request, how many connections there are, how much memory
//! requests may hold, which hosts and origins are served. It knows nothing of transactions, paths or tokens.
//!
//! ```text
//! listener ── accept ──> connection ── Host, Origin ──> Answers::answer
//!    │ at the cap: the longest idle one goes               │
//!    └─────────────────────────────────────────────> Budget: bytes of bodies and of what is kept of them
//! ```

mod activity;
mod body;
mod budget;
mod caller;
mod connection;
mod descriptors;
mod hosts;
mod listener;
mod metric;
mod options;
mod reply;
mod seldom;
mod stream;

pub use activity::{Activity, Stage};
pub use body::{Gathered, gather};
pub use budget::{BYTES_PER_OP, BYTES_PER_WORD, Budget, Held};
pub use caller::Caller;
pub use connection::{Answers, serve};
pub use descriptors::Descriptors;
pub use hosts::HostRule;
pub use listener::{Listener, Serves, accept};
pub use metric::describe as describe_metrics;
pub use options::{EdgeOptions, Patience};
pub use reply::{no_such_method, no_such_path, problem};
pub use seldom::Seldom;
