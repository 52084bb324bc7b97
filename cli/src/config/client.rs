//! The settings of the commands that talk to a coordinator.

use assent_client::{CoordinatorAdmin, CoordinatorClient, Http, HttpOptions};
use assent_common::time::DurationMs;
use clap::{ArgMatches, Args};
use serde::Deserialize;

use super::{ConfigFile, Layers, PathValue, Shown, read_token};
use crate::exit::Failure;

/// The flags, and the keys of the file's section `[client]`.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Client")]
pub struct ClientArgs {
    /// The coordinator's public API [default: http://127.0.0.1:7700]
    #[arg(long, global = true, env = "ASSENT_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The coordinator's admin API, which changes participants, retries and gives up; needed for
    /// that where --url is given [default: http://127.0.0.1:7701]
    #[arg(long, global = true, env = "ASSENT_ADMIN_URL", value_name = "URL")]
    pub admin_url: Option<String>,
    /// File with the bearer token for the public API
    #[arg(long, global = true, env = "ASSENT_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathValue>,
    /// File with the bearer token for the admin API
    #[arg(long, global = true, env = "ASSENT_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathValue>,
    /// File with the bearer token for participants
    #[arg(long, global = true, env = "ASSENT_PARTICIPANT_TOKEN_FILE", value_name = "FILE")]
    pub participant_token_file: Option<PathValue>,
    /// How long an answer may take, in addition to a wait that was asked for [default: 5s]
    #[arg(long, global = true, env = "ASSENT_REQUEST_TIMEOUT", value_name = "TIME")]
    pub request_timeout: Option<DurationMs>,
}

/// What a client command runs with.
#[derive(Debug)]
pub struct ClientSettings {
    /// The coordinator's public API.
    pub url: String,
    /// The coordinator's admin API.
    pub admin_url: String,
    /// Whether the two are of one coordinator as far as is known: the one that is not given may be
    /// another's.
    is_admin_known: bool,
    api: HttpOptions,
    admin: HttpOptions,
    participant: HttpOptions,
    /// Every value with its origin.
    pub shown: Vec<Shown>,
}

impl ClientSettings {
    /// Merges the layers.
    pub fn resolve(
        args: ClientArgs,
        matches: &ArgMatches,
        file: ConfigFile,
    ) -> Result<Self, Failure> {
        let ConfigFile { client: file, path, .. } = file;
        let mut layers = Layers::new("client", matches, path.as_deref());
        let local = |port: u16| format!("http://127.0.0.1:{port}");
        let is_admin_given = args.admin_url.is_some() || file.admin_url.is_some();
        let url = layers.value("url", args.url, file.url, local(7700));
        let admin_url = layers.value("admin_url", args.admin_url, file.admin_url, local(7701));
        let locals = [local(7700), local(7700).replace("127.0.0.1", "localhost")];
        let is_admin_known =
            is_admin_given || locals.iter().any(|local| url.trim_end_matches('/') == local);
        let api = layers.optional("api_token_file", args.api_token_file, file.api_token_file);
        let admin =
            layers.optional("admin_token_file", args.admin_token_file, file.admin_token_file);
        let participant = layers.optional(
            "participant_token_file",
            args.participant_token_file,
            file.participant_token_file,
        );
        let default = HttpOptions::default();
        let timeout = DurationMs(default.request_timeout_ms);
        let timeout =
            layers.value("request_timeout", args.request_timeout, file.request_timeout, timeout);
        let with = |token: Option<&PathValue>| -> Result<HttpOptions, Failure> {
            let token = read_token(token)?;
            Ok(HttpOptions { request_timeout_ms: timeout.0, token, ..default.clone() })
        };
        let (api, admin) = (with(api.as_ref())?, with(admin.as_ref())?);
        let participant = with(participant.as_ref())?;
        let shown = layers.into_shown();
        Ok(Self { url, admin_url, is_admin_known, api, admin, participant, shown })
    }

    /// A client of the public API.
    pub fn coordinator(&self) -> Result<CoordinatorClient, Failure> {
        Ok(CoordinatorClient::new(&Http::new(&self.api)?, &self.url)?)
    }

    /// A client of the admin API. Whoever names one coordinator does not mean the other that may
    /// run on this machine.
    pub fn admin(&self) -> Result<CoordinatorAdmin, Failure> {
        if !self.is_admin_known {
            return Err(Failure::usage(format!(
                "this command needs the admin API of the coordinator at {}, which has an address \
                 of its own (its --admin-listen): give --admin-url URL, or ASSENT_ADMIN_URL; \
                 nothing was done",
                self.url
            )));
        }
        Ok(CoordinatorAdmin::new(&Http::new(&self.admin)?, &self.admin_url)?)
    }

    /// What participants are talked to with.
    pub fn participant_http(&self) -> Result<Http, Failure> {
        Ok(Http::new(&self.participant)?)
    }
}
