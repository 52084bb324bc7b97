//! `assent participant`: the agent beside a service's Redis, until a signal.

use assent_participant::{Error, MetricsText, ServeOptions, serve};

use crate::config::ParticipantSettings;
use crate::exit::{Exit, Failure, chain};
use crate::runtime;
use crate::telemetry::{self, announce};

pub(crate) fn run(settings: ParticipantSettings) -> Result<Exit, Failure> {
    let ParticipantSettings { mut options, workers, .. } = settings;
    if options.participant.name.is_empty() {
        return Err(Failure::usage(
            "the participant needs a name: --name, ASSENT_PARTICIPANT_NAME, or `name` in [participant]",
        ));
    }
    runtime::start(workers)?.block_on(async {
        let stop = tokio::spawn(runtime::stop_signal());
        let metrics = telemetry::start_metrics()?;
        options.participant.metrics_text = Some(MetricsText::new(move || metrics.render()));
        tell(&options);
        let shutdown = async move {
            // Either way the participant stops.
            let _listened = stop.await;
            announce("draining: finishing what is here");
        };
        let serving = serve(options, shutdown).await.map_err(|error| failure(&error))?;
        let addresses = serving.addresses();
        announce(&format!("api        http://{}", addresses.public));
        announce(&format!("admin      http://{}  (metrics at /metrics)", addresses.admin));
        for warning in serving.warnings() {
            announce(&format!("UNSAFE     {warning}"));
        }
        announce("ready");
        serving.finished().await;
        announce("stopped");
        Ok(Exit::Ok)
    })
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Address(_) | Error::Listed { .. } => Failure::usage(error.to_string()),
        error => Failure::error(chain(error)),
    }
}

fn tell(options: &ServeOptions) {
    announce(&format!(
        "assent {} participant {}",
        env!("CARGO_PKG_VERSION"),
        options.participant.name
    ));
    match &options.participant.postgres {
        Some(postgres) => announce(&format!("postgres   {}", postgres.address())),
        None => announce(&format!("redis      {}", options.participant.store.address())),
    }
}
