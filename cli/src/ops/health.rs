//! `assent health`: one question to a server, for container health checks that have no curl.

use assent_client::participant::ProbeState;
use assent_client::{CoordinatorClient, Http, HttpOptions, Unknown};
use clap::{Args, ValueEnum};

use crate::exit::{Exit, Failure};
use crate::output;

/// The flags of `assent health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The server, a coordinator or a participant
    #[arg(default_value = "http://127.0.0.1:7700", value_name = "URL")]
    server: String,
    /// What to ask
    #[arg(long, value_enum, default_value_t = Question::Ready)]
    question: Question,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    /// Whether the process turns; restart it if not
    Live,
    /// Whether it does its work at present
    Ready,
}

pub(crate) fn run(args: &HealthArgs) -> Result<Exit, Failure> {
    super::block_on(async {
        let options =
            HttpOptions { connect_timeout_ms: 1_000, request_timeout_ms: 3_000, token: None };
        let client = CoordinatorClient::new(&Http::new(&options)?, &args.server)?;
        let probe = match args.question {
            Question::Live => client.livez().await,
            Question::Ready => client.readyz().await,
        };
        let probe = probe
            .map_err(|Unknown(why)| Failure::unreachable(format!("{}: {why}", args.server)))?;
        output::line(probe.text.trim_end())?;
        Ok(if probe.state == ProbeState::Ok { Exit::Ok } else { Exit::Error })
    })
}
