//! Ports that stay one test's own: a process that is killed comes back at the same address.
//!
//! Asking the system for a free port and giving it back would race with every other test and with outgoing
//! connections. So ports come from below the ephemeral range, each under a file lock that the system drops with the
//! process.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};

// Below the range of `assent::process::free_port` too, from which the Redis servers come.
const FIRST: u32 = 12_000;
const COUNT: u32 = 8_000;

/// A port, ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that nobody uses.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join("assent-test-ports");
        std::fs::create_dir_all(&dir).expect("the directory of port locks can be made");
        // Processes begin at different places, so that they rarely meet.
        let start = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let number = u16::try_from(number).expect("the range is below 65,536");
            let lock = File::create(dir.join(number.to_string())).expect("a port's lock opens");
            let ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if ours && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
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
