//! The commands that serve: `init`, `coordinator`, `participant`, `dev`.

pub(crate) mod coordinator;
pub(crate) mod dev;
pub(crate) mod init;
pub(crate) mod participant;
