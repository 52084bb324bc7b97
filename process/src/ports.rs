//! Ports that stay one process's own: a server that is killed comes back at the same address.
//!
//! Asking the system for a free port and giving it back would race with every other process that
//! asks, and with outgoing connections. So ports come from below the range of outgoing connections,
//! each under a file lock that the system drops with the process.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::ProcessError;

/// The first port that is tried.
const FIRST: u16 = 12_000;

/// The last one: below the range that the kernel gives to outgoing connections. A killed server must
/// find its port free when it is restarted, however many clients reconnect meanwhile.
const LAST: u16 = 31_999;

/// Between the places at which two processes with neighbouring ids begin, so that they rarely meet.
const STRIDE: u32 = 97;

/// A port of 127.0.0.1, ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that nobody listens on and nobody else has taken.
    ///
    /// # Errors
    /// If there is none, or if the folder of the locks cannot be made.
    pub fn take() -> Result<Self, ProcessError> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Another user's locks cannot be opened: each has a folder.
        let user = rustix::process::geteuid().as_raw();
        let dir = std::env::temp_dir().join(format!("assent-ports-{user}"));
        std::fs::create_dir_all(&dir)
            .map_err(|source| ProcessError::PortLock { path: dir.clone(), source })?;
        let count = u32::from(LAST - FIRST) + 1;
        let start = std::process::id().wrapping_mul(STRIDE);
        for _ in 0..count {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = start.wrapping_add(step) % count;
            let number = FIRST + u16::try_from(offset).unwrap_or(0);
            let path = dir.join(number.to_string());
            let lock = File::create(&path)
                .map_err(|source| ProcessError::PortLock { path: path.clone(), source })?;
            let is_ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if is_ours && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(ProcessError::NoPort { first: FIRST, last: LAST })
    }

    /// Two of them: of a server's API and of its admin API.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn pair() -> Result<[Self; 2], ProcessError> {
        Ok([Self::take()?, Self::take()?])
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The address, as flags and configuration have it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    /// The base URL of a server there.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_until_it_is_dropped() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take().unwrap()).collect();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        assert!(numbers.iter().all(|number| (FIRST..=LAST).contains(number)));
    }
}
