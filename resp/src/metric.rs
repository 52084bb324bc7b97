//! The metrics of the port for Redis clients.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};

use crate::reply::Value;

const COMMANDS: &str = "assent_resp_commands_total";
const TRANSACTIONS: &str = "assent_resp_transactions_total";
const WATCHING: &str = "assent_resp_watching";
const BYTES: &str = "assent_resp_bytes_total";

/// Registers the help texts with the installed recorder.
pub fn describe() {
    describe_counter!(
        COMMANDS,
        "Commands of Redis clients that were answered: ok, or the first word of the error"
    );
    describe_counter!(
        TRANSACTIONS,
        "Transactions of Redis clients, by what came of them: a command or an EXEC is one, and so \
         is what WATCH looks at"
    );
    describe_gauge!(WATCHING, "Connections of Redis clients that watch keys");
    describe_counter!(BYTES, "Bytes of Redis clients, in and out");
}

/// What came of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DoorOutcome {
    Committed,
    /// It is aborted, or was not begun.
    Aborted,
    /// A watched key had changed.
    LostRace,
    Unknown,
}

/// What is counted for every command, looked up once.
pub(crate) struct DoorMetric {
    ok: Counter,
    came: [Counter; 4],
    bytes_in: Counter,
    bytes_out: Counter,
}

impl DoorMetric {
    pub(crate) fn new() -> Self {
        let came = ["committed", "aborted", "lost_race", "unknown"];
        let came = came.map(|outcome| counter!(TRANSACTIONS, "outcome" => outcome));
        // Absent, they could not be told from none.
        came.iter().for_each(|counter| counter.increment(0));
        gauge!(WATCHING).increment(0.0);
        Self {
            ok: counter!(COMMANDS, "result" => "ok"),
            came,
            bytes_in: counter!(BYTES, "direction" => "in"),
            bytes_out: counter!(BYTES, "direction" => "out"),
        }
    }

    pub(crate) fn answered(&self, answer: &Value) {
        match answer {
            // It is one of Redis' own words, or an error code: there are not many.
            Value::Error(text) => {
                let word = text.split(' ').next().unwrap_or_default().to_ascii_lowercase();
                counter!(COMMANDS, "result" => word).increment(1);
            }
            _ => self.ok.increment(1),
        }
    }

    pub(crate) fn came(&self, came: DoorOutcome, transactions: usize) {
        self.came[came as usize].increment(transactions as u64);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.increment(bytes as u64);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes_out.increment(bytes as u64);
    }
}

/// Whether a connection is counted among those that watch keys. One that ends watches none.
#[derive(Debug, Default)]
pub(crate) struct Watching(bool);

impl Watching {
    pub(crate) fn set(&mut self, watches: bool) {
        match (std::mem::replace(&mut self.0, watches), watches) {
            (false, true) => gauge!(WATCHING).increment(1.0),
            (true, false) => gauge!(WATCHING).decrement(1.0),
            _ => {}
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.set(false);
    }
}
