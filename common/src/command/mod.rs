//! The typed set of Redis commands that run in a transaction: names, arguments, keys, access, replies, expectations.

mod request;

pub use request::OpRequest;
