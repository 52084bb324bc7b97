//! Free ports that stay free until they are needed again.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

use super::ProcessError;

/// Below the range that the kernel gives to outgoing connections: a killed server must find its port free when it is
/// restarted, however many clients reconnect meanwhile.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// A port of 127.0.0.1 that nobody listens on. Chosen at random, so that processes that ask at the same time rarely get
/// the same one.
pub fn free_port() -> Result<u16, ProcessError> {
    let count = LAST - FIRST + 1;
    let start = rand::rng().random_range(0..count);
    (0..count)
        .map(|step| FIRST + (start + step) % count)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or(ProcessError::NoPort { first: FIRST, last: LAST })
}
