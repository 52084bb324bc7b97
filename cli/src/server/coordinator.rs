//! `assent coordinator`: the coordinator, until a signal.

use assent_coordinator::{Coordinator, Running};

use crate::config::CoordinatorSettings;
use crate::exit::{Exit, Failure, chain};
use crate::runtime;
use crate::telemetry::{self, announce};

pub(crate) fn run(settings: CoordinatorSettings) -> Result<Exit, Failure> {
    let drain_ms = settings.drain_timeout.0;
    runtime::start(settings.workers)?.block_on(async {
        // Listened for before the start, so that a signal in its middle is not lost.
        let stop = tokio::spawn(runtime::stop_signal());
        let running = start(settings).await?;
        tell(&running);
        announce("ready");
        stop.await.map_err(|error| Failure::of("the signal handler ended", &error))??;
        announce("draining: taking no new transactions");
        let left = running.drain(drain_ms).await;
        announce(&match left {
            0 => "stopped; nothing is left unfinished".to_owned(),
            left => format!(
                "stopped; {left} unfinished: at the next start what is decided goes on, and the rest is aborted"
            ),
        });
        Ok(Exit::Ok)
    })
}

/// Starts the coordinator with metrics.
pub(crate) async fn start(settings: CoordinatorSettings) -> Result<Running, Failure> {
    let mut options = settings.options;
    options.metrics = Some(telemetry::start_metrics()?);
    assent_coordinator::metrics::describe();
    assent_coordinator::log::describe_metrics();
    Coordinator::start(options).await.map_err(|error| Failure::error(chain(&error)))
}

/// Says where it listens, which log it has, and what it found there.
pub(crate) fn tell(running: &Running) {
    announce(&format!("assent {} coordinator", env!("CARGO_PKG_VERSION")));
    announce(&format!("api        http://{}", running.addr));
    announce(&format!("admin      http://{}  (metrics at /metrics)", running.admin_addr));
    if let Some(addr) = running.resp_addr {
        announce(&format!("resp       {addr}"));
    }
    let log = running.engine().log();
    announce(&format!("log        {}, epoch {}", log.log_id(), log.epoch()));
    let report = &running.recovery;
    let torn = match report.torn_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} bytes of a torn tail cut"),
    };
    let resumed = match report.resumed {
        0 => "nothing is unfinished".to_owned(),
        resumed => format!("{resumed} transactions go on"),
    };
    announce(&format!(
        "recovered  {} records, {resumed}{torn} ({} ms)",
        report.records, report.took_ms
    ));
}
