//! The metrics of the listeners: how many connections each has, and how many it may have.

use metrics::{Gauge, describe_gauge, gauge};

const OPEN: &str = "assent_connections";
const OPEN_MAX: &str = "assent_connections_max";

/// Registers the help texts with the installed recorder.
pub fn describe() {
    describe_gauge!(OPEN, "Connections that are open, by listener");
    describe_gauge!(
        OPEN_MAX,
        "Connections that a listener may have before it closes idle ones, by listener"
    );
}

/// What is counted of one listener. In one process several may have one name: theirs are added.
pub(crate) struct ListenerMetric {
    open: Gauge,
    most: Gauge,
    connections_max: f64,
}

impl ListenerMetric {
    pub(crate) fn begin(listener: &'static str, connections_max: usize) -> Self {
        let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX).into();
        let open = gauge!(OPEN, "listener" => listener);
        let most = gauge!(OPEN_MAX, "listener" => listener);
        most.increment(connections_max);
        Self { open, most, connections_max }
    }

    pub(crate) fn opened(&self) {
        self.open.increment(1.0);
    }

    pub(crate) fn closed(&self) {
        self.open.decrement(1.0);
    }
}

impl Drop for ListenerMetric {
    fn drop(&mut self) {
        self.most.decrement(self.connections_max);
    }
}
