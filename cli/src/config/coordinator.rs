//! The settings of a coordinator.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use assent_common::ParticipantName;
use assent_common::time::DurationMs;
use assent_coordinator::engine::SEGMENT_BYTES_FOR_ALL;
use assent_coordinator::log::SEGMENT_BYTES_DEFAULT;
use assent_coordinator::{CoordinatorOptions, Exposure, RespOptions, Tokens};
use assent_resp::{InvalidRule, Routes, Rule};
use clap::{ArgMatches, Args};
use serde::{Deserialize, Deserializer};

use super::edge::{self, EdgeLayer};
use super::{ConfigFile, Layers, PathValue, Shown, read_token};
use crate::exit::Failure;

/// The flags, and the keys of the file's section `[coordinator]`.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Coordinator")]
pub struct CoordinatorArgs {
    /// Directory of the decision log, made by `assent init` [default: assent-data]
    #[arg(long, env = "ASSENT_COORDINATOR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathValue>,
    /// Address of the public API [default: 127.0.0.1:7700]
    #[arg(long, env = "ASSENT_COORDINATOR_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address of the admin API, and of the metrics [default: 127.0.0.1:7701]
    #[arg(long, env = "ASSENT_COORDINATOR_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
    /// Address of the port for Redis clients; without it there is none
    #[arg(long, env = "ASSENT_COORDINATOR_RESP_LISTEN", value_name = "ADDR")]
    pub resp_listen: Option<SocketAddr>,
    /// At which participant the keys of a pattern lie, for Redis clients: the first rule that
    /// matches a key is the one. Repeatable, or separated by spaces
    #[arg(
        long = "route",
        env = "ASSENT_COORDINATOR_ROUTES",
        value_name = "PATTERN=NAME",
        value_delimiter = ' '
    )]
    #[serde(deserialize_with = "rules")]
    pub routes: Vec<Rule>,
    /// Base URL at which participants reach the public API, to ask for outcomes [default: the listening address]
    #[arg(long, env = "ASSENT_COORDINATOR_ADVERTISED_URL", value_name = "URL")]
    pub advertised_url: Option<String>,
    /// A participant; at every start it overrides the address that `assent participants set` has
    /// stored, with a warning in the log. Repeatable; in the file, a table
    /// `[coordinator.participants]`
    #[arg(
        long = "participant",
        env = "ASSENT_COORDINATOR_PARTICIPANTS",
        value_name = "NAME=URL",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "named_urls")]
    pub participants: Vec<NamedUrl>,
    /// File with the bearer token that the public API requires
    #[arg(long, env = "ASSENT_COORDINATOR_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathValue>,
    /// File with the bearer token that the admin API requires
    #[arg(long, env = "ASSENT_COORDINATOR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathValue>,
    /// File with the bearer token that is sent to participants
    #[arg(long, env = "ASSENT_COORDINATOR_PARTICIPANT_TOKEN_FILE", value_name = "FILE")]
    pub participant_token_file: Option<PathValue>,
    /// Listen on addresses that other machines reach, without tokens
    #[arg(long, env = "ASSENT_COORDINATOR_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// How long answers and idempotency keys of ended transactions are kept [default: 24h]
    #[arg(long, env = "ASSENT_COORDINATOR_RETENTION", value_name = "TIME")]
    pub retention: Option<DurationMs>,
    /// Bytes of a segment of the log, at least 34603008; space is freed in these units [default: 67108864]
    #[arg(long, env = "ASSENT_COORDINATOR_SEGMENT_BYTES", value_name = "BYTES")]
    pub segment_bytes: Option<u32>,
    /// How long a message to a participant may take before its result counts as unknown [default: 10s]
    #[arg(long, env = "ASSENT_COORDINATOR_REQUEST_TIMEOUT", value_name = "TIME")]
    pub request_timeout: Option<DurationMs>,
    /// How long connecting to a participant may take [default: 1s]
    #[arg(long, env = "ASSENT_COORDINATOR_CONNECT_TIMEOUT", value_name = "TIME")]
    pub connect_timeout: Option<DurationMs>,
    /// How long a stopping server waits for active transactions [default: 10s]
    #[arg(long, env = "ASSENT_COORDINATOR_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<DurationMs>,
    /// How long the head of a request may take to arrive [default: 10s]
    #[arg(long, env = "ASSENT_COORDINATOR_HEADER_TIMEOUT", value_name = "TIME")]
    pub header_timeout: Option<DurationMs>,
    /// How long the body of a request may take to arrive [default: 30s]
    #[arg(long, env = "ASSENT_COORDINATOR_BODY_TIMEOUT", value_name = "TIME")]
    pub body_timeout: Option<DurationMs>,
    /// How long a connection may be idle between requests [default: 2m]
    #[arg(long, env = "ASSENT_COORDINATOR_IDLE_TIMEOUT", value_name = "TIME")]
    pub idle_timeout: Option<DurationMs>,
    /// Largest number of connections to the public API; lower if the limit of open files is low [default: 20000]
    #[arg(long, env = "ASSENT_COORDINATOR_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Bytes of requests held in memory at a time; further requests are refused with 429 [default: 268435456]
    #[arg(long, env = "ASSENT_COORDINATOR_REQUEST_BYTES_MAX", value_name = "BYTES")]
    pub request_bytes_max: Option<usize>,
    /// A further host name that requests may use where no token is needed. Repeatable
    #[arg(
        long = "allowed-host",
        env = "ASSENT_COORDINATOR_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,
    /// Worker threads [default: half of the cores, at most 4]
    #[arg(long, env = "ASSENT_COORDINATOR_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
}

/// What a coordinator runs with.
#[derive(Debug)]
pub struct CoordinatorSettings {
    /// For the library.
    pub options: CoordinatorOptions,
    /// How long a stopping server waits for active transactions.
    pub drain_timeout: DurationMs,
    /// Worker threads.
    pub workers: usize,
    /// Every value with its origin.
    pub shown: Vec<Shown>,
}

impl CoordinatorSettings {
    /// Merges the layers.
    #[expect(clippy::too_many_lines, reason = "a line for each setting")]
    pub fn resolve(
        args: CoordinatorArgs,
        matches: &ArgMatches,
        file: ConfigFile,
    ) -> Result<Self, Failure> {
        let ConfigFile { coordinator: file, path, .. } = file;
        let mut layers = Layers::new("coordinator", matches, path.as_deref());
        let dir = PathValue("assent-data".into());
        let dir = layers.value("data_dir", args.data_dir, file.data_dir, dir);
        let defaults = CoordinatorOptions::new(dir.0);
        let ms = DurationMs;
        let listen = layers.value("listen", args.listen, file.listen, defaults.listen);
        let admin_listen = layers.value(
            "admin_listen",
            args.admin_listen,
            file.admin_listen,
            defaults.admin_listen,
        );
        let resp_listen = layers.optional("resp_listen", args.resp_listen, file.resp_listen);
        let routes = layers.list("routes", args.routes, file.routes);
        let advertised_url =
            layers.optional("advertised_url", args.advertised_url, file.advertised_url);
        let participants = layers.list("participants", args.participants, file.participants);
        let token_files = [
            layers.optional("api_token_file", args.api_token_file, file.api_token_file),
            layers.optional("admin_token_file", args.admin_token_file, file.admin_token_file),
            layers.optional(
                "participant_token_file",
                args.participant_token_file,
                file.participant_token_file,
            ),
        ];
        let insecure = layers.value("insecure", args.insecure, file.insecure, false);
        let retention =
            layers.value("retention", args.retention, file.retention, ms(defaults.retention_ms));
        let segment_bytes = layers.value(
            "segment_bytes",
            args.segment_bytes,
            file.segment_bytes,
            SEGMENT_BYTES_DEFAULT,
        );
        check_segment_bytes(segment_bytes, SEGMENT_BYTES_LEAST)?;
        let request_timeout = layers.value(
            "request_timeout",
            args.request_timeout,
            file.request_timeout,
            ms(defaults.request_timeout_ms),
        );
        let connect_timeout = layers.value(
            "connect_timeout",
            args.connect_timeout,
            file.connect_timeout,
            ms(defaults.connect_timeout_ms),
        );
        let drain_timeout =
            layers.value("drain_timeout", args.drain_timeout, file.drain_timeout, ms(10_000));
        let edge = edge::resolve(
            &mut layers,
            EdgeLayer {
                header_timeout: args.header_timeout,
                body_timeout: args.body_timeout,
                idle_timeout: args.idle_timeout,
                connections_max: args.connections_max,
                request_bytes_max: args.request_bytes_max,
                allowed_hosts: args.allowed_hosts,
            },
            EdgeLayer {
                header_timeout: file.header_timeout,
                body_timeout: file.body_timeout,
                idle_timeout: file.idle_timeout,
                connections_max: file.connections_max,
                request_bytes_max: file.request_bytes_max,
                allowed_hosts: file.allowed_hosts,
            },
        );
        let workers =
            layers.value("workers", args.workers, file.workers, crate::runtime::workers_default());
        let options = CoordinatorOptions {
            listen,
            admin_listen,
            resp: resp(resp_listen, routes)?,
            advertised_url,
            participants: unique(participants)?,
            tokens: read_tokens(&token_files)?,
            exposure: if insecure { Exposure::Insecure } else { Exposure::TokensRequired },
            retention_ms: retention.0,
            segment_bytes,
            request_timeout_ms: request_timeout.0,
            connect_timeout_ms: connect_timeout.0,
            edge,
            ..defaults
        };
        Ok(Self { options, drain_timeout, workers, shown: layers.into_shown() })
    }
}

/// Tests fill small segments.
const SEGMENT_BYTES_LEAST: u32 =
    if cfg!(feature = "crash-points") { 0 } else { SEGMENT_BYTES_FOR_ALL };

/// A segment holds the record of every transaction that is allowed.
fn check_segment_bytes(bytes: u32, least: u32) -> Result<(), Failure> {
    if bytes >= least {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`segment_bytes` is {bytes}; it must be at least {least}, so that the largest transaction fits into a segment of \
         the log"
    )))
}

fn read_tokens([api, admin, participants]: &[Option<PathValue>; 3]) -> Result<Tokens, Failure> {
    Ok(Tokens {
        api: read_token(api.as_ref())?,
        admin: read_token(admin.as_ref())?,
        participants: read_token(participants.as_ref())?,
    })
}

/// The port for Redis clients, if there is one.
fn resp(listen: Option<SocketAddr>, rules: Vec<Rule>) -> Result<Option<RespOptions>, Failure> {
    let usage = |error: InvalidRule| Failure::usage(error.to_string());
    match (listen, rules) {
        (None, rules) if rules.is_empty() => Ok(None),
        (None, _) => Err(Failure::usage(
            "`routes` are for Redis clients, and `resp_listen` does not say where they are served",
        )),
        (Some(_), rules) if rules.is_empty() => Err(Failure::usage(
            "`resp_listen` needs `routes`: at which participant the keys of a pattern lie",
        )),
        (Some(listen), rules) => {
            let routes = Routes::new(rules).map_err(usage)?;
            Ok(Some(RespOptions { listen, routes }))
        }
    }
}

fn unique(list: Vec<NamedUrl>) -> Result<BTreeMap<ParticipantName, String>, Failure> {
    let mut map = BTreeMap::new();
    for NamedUrl { name, url } in list {
        if map.insert(name.clone(), url).is_some() {
            return Err(Failure::usage(format!("participant {name} is configured twice")));
        }
    }
    Ok(map)
}

/// A participant and where its API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedUrl {
    /// Its name.
    pub name: ParticipantName,
    /// Its base URL.
    pub url: String,
}

impl fmt::Display for NamedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.url)
    }
}
impl FromStr for NamedUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) =
            text.split_once('=').ok_or("write NAME=URL, as in bank-a=http://127.0.0.1:7710")?;
        let name = name.trim().parse().map_err(|error| format!("{error}"))?;
        Ok(Self { name, url: url.trim().to_owned() })
    }
}

/// In the file they are a table.
fn named_urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedUrl>, D::Error> {
    let map = BTreeMap::<ParticipantName, String>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, url)| NamedUrl { name, url }).collect())
}

/// In the file they are a list, because their order counts.
fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    list.iter().map(|rule| rule.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that could not hold what is allowed would refuse it after months.
    #[test]
    fn a_segment_that_does_not_hold_every_transaction_is_refused_by_name() {
        let refused = check_segment_bytes(1024 * 1024, SEGMENT_BYTES_FOR_ALL).unwrap_err();
        assert!(refused.message.contains("`segment_bytes`"), "{}", refused.message);
        assert!(check_segment_bytes(SEGMENT_BYTES_FOR_ALL, SEGMENT_BYTES_FOR_ALL).is_ok());
        assert!(check_segment_bytes(SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_FOR_ALL).is_ok());
    }

    /// A deployment of ours that sets less would not start: `make chaos` did not.
    #[test]
    fn every_deployment_of_ours_has_segments_that_are_taken() {
        const NAME: &str = "ASSENT_COORDINATOR_SEGMENT_BYTES";
        let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let files = std::fs::read_dir(deploy).unwrap().map(|entry| entry.unwrap().path());
        let mut found = 0;
        for path in files.filter(|path| path.extension().is_some_and(|it| it == "yaml")) {
            let text = std::fs::read_to_string(&path).unwrap();
            let settings = text.lines().filter_map(|line| line.trim().split_once(": "));
            for (_, value) in settings.filter(|(name, _)| *name == NAME) {
                let bytes = value.trim_matches('"').parse().unwrap();
                check_segment_bytes(bytes, SEGMENT_BYTES_FOR_ALL).unwrap();
                found += 1;
            }
        }
        assert!(found > 0, "no deployment sets it: this test looks for another name");
    }
}
