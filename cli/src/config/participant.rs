//! The settings of a participant's agent.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use assent_client::HttpOptions;
use assent_common::ParticipantName;
use assent_common::time::DurationMs;
use assent_participant::hook::{HookDoor, RemoteHook};
use assent_participant::store::AgentAddress;
use assent_participant::{Exposure, Isolation, Options, PostgresOptions, ServeOptions};
use clap::{ArgMatches, Args};
use serde::Deserialize;

use super::edge::{self, EdgeLayer};
use super::{ConfigFile, Layers, PathValue, Shown, read_secret, read_token};
use crate::exit::{Failure, chain};

/// The flags, and the keys of the file's section `[participant]`.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Participant")]
pub struct ParticipantArgs {
    /// The participant's name in transactions (required, here or in the file)
    #[arg(long, env = "ASSENT_PARTICIPANT_NAME", value_name = "NAME")]
    pub name: Option<ParticipantName>,
    /// The service's Redis: redis://host:port/db or unix:///path [default: redis://127.0.0.1:6379]
    #[arg(long, env = "ASSENT_PARTICIPANT_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// File with the password of Redis
    #[arg(long, env = "ASSENT_PARTICIPANT_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathValue>,
    /// Start even if the settings of Redis may lose votes; its health and version then say so
    #[arg(long, env = "ASSENT_PARTICIPANT_ALLOW_UNSAFE_REDIS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_unsafe_redis: Option<bool>,
    /// How many replicas of its Redis must have a vote before it counts [default: 0]
    #[arg(long, env = "ASSENT_PARTICIPANT_MIN_REPLICAS", value_name = "N")]
    pub min_replicas: Option<u32>,
    /// Bytes that a key may take in Redis for a command that runs on copies [default: 1048576]
    #[arg(long, env = "ASSENT_PARTICIPANT_SHADOW_BYTES_MAX", value_name = "BYTES")]
    pub shadow_bytes_max: Option<u64>,
    /// A PostgreSQL database in place of a Redis: postgres://user@host:port/database. Ops are then
    /// statements
    #[arg(
        long,
        env = "ASSENT_PARTICIPANT_POSTGRES",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with_all =
            ["redis", "min_replicas", "shadow_bytes_max", "advertised_url", "hook_url"],
    )]
    pub postgres: Option<String>,
    /// File with the password of PostgreSQL
    #[arg(long, env = "ASSENT_PARTICIPANT_POSTGRES_PASSWORD_FILE", value_name = "FILE")]
    pub postgres_password_file: Option<PathValue>,
    /// Start even if the settings of PostgreSQL may lose votes; its health and version then say so
    #[arg(long, env = "ASSENT_PARTICIPANT_POSTGRES_ALLOW_UNSAFE", value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub postgres_allow_unsafe: Option<bool>,
    /// Isolation of branches in PostgreSQL: read-committed, repeatable-read or serializable
    /// [default: serializable]
    #[arg(long, env = "ASSENT_PARTICIPANT_POSTGRES_ISOLATION", value_name = "LEVEL")]
    pub postgres_isolation: Option<IsolationLevel>,
    /// Connections to PostgreSQL for branches, beside one of the agent's own [default: 16]
    #[arg(long, env = "ASSENT_PARTICIPANT_POSTGRES_CONNECTIONS_MAX", value_name = "N")]
    pub postgres_connections_max: Option<usize>,
    /// How long the statements of one branch may take together [default: 2s]
    #[arg(long, env = "ASSENT_PARTICIPANT_POSTGRES_BRANCH_TIMEOUT", value_name = "TIME")]
    pub postgres_branch_timeout: Option<DurationMs>,
    /// Address of the API for coordinators [default: 127.0.0.1:7710]
    #[arg(long, env = "ASSENT_PARTICIPANT_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Base URL at which other agents of the same Redis reach this one, not a balancer [default: by
    /// --listen; if that is all addresses, the one from which this agent is connected to Redis]
    #[arg(long, env = "ASSENT_PARTICIPANT_ADVERTISED_URL", value_name = "URL")]
    pub advertised_url: Option<String>,
    /// Address of the admin API, and of the metrics [default: 127.0.0.1:7711]
    #[arg(long, env = "ASSENT_PARTICIPANT_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
    /// File with the bearer token that requests must carry
    #[arg(long, env = "ASSENT_PARTICIPANT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathValue>,
    /// File with the bearer token that is sent to coordinators with questions about an outcome
    #[arg(long, env = "ASSENT_PARTICIPANT_COORDINATOR_TOKEN_FILE", value_name = "FILE")]
    pub coordinator_token_file: Option<PathValue>,
    /// Base URL of a coordinator that may be asked for outcomes, with the coordinator token.
    /// Repeatable; required if there is such a token. Without any, the participant asks the
    /// coordinator that a message names
    #[arg(
        long = "coordinator",
        env = "ASSENT_PARTICIPANT_COORDINATORS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub coordinators: Vec<String>,
    /// Base URL of another participant that may be asked about implicit transactions, with this one's
    /// token. Repeatable; if there is a token, no others are asked, and the coordinator settles them
    #[arg(
        long = "peer",
        env = "ASSENT_PARTICIPANT_PEERS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub peers: Vec<String>,
    /// URL of the service's hook, which decides about branches that have an input
    #[arg(long, env = "ASSENT_PARTICIPANT_HOOK_URL", value_name = "URL")]
    pub hook_url: Option<String>,
    /// How long the hook may take for one branch, its reads included [default: 2s]
    #[arg(long, env = "ASSENT_PARTICIPANT_HOOK_TIMEOUT", value_name = "TIME")]
    pub hook_timeout: Option<DurationMs>,
    /// File with the bearer token that is sent to the hook
    #[arg(long, env = "ASSENT_PARTICIPANT_HOOK_TOKEN_FILE", value_name = "FILE")]
    pub hook_token_file: Option<PathValue>,
    /// Listen on addresses that other machines reach, without a token
    #[arg(long, env = "ASSENT_PARTICIPANT_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// How long a branch may be in doubt before its coordinator is asked [default: 2s]
    #[arg(long, env = "ASSENT_PARTICIPANT_RESOLVE_INTERVAL", value_name = "TIME")]
    pub resolve_interval: Option<DurationMs>,
    /// How often markers of transactions that have ended everywhere are removed [default: 10s]
    #[arg(long, env = "ASSENT_PARTICIPANT_SWEEP_INTERVAL", value_name = "TIME")]
    pub sweep_interval: Option<DurationMs>,
    /// How long a stopping server waits for requests in flight [default: 10s]
    #[arg(long, env = "ASSENT_PARTICIPANT_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<DurationMs>,
    /// How long the head of a request may take to arrive [default: 10s]
    #[arg(long, env = "ASSENT_PARTICIPANT_HEADER_TIMEOUT", value_name = "TIME")]
    pub header_timeout: Option<DurationMs>,
    /// How long the body of a request may take to arrive [default: 30s]
    #[arg(long, env = "ASSENT_PARTICIPANT_BODY_TIMEOUT", value_name = "TIME")]
    pub body_timeout: Option<DurationMs>,
    /// How long a connection may be idle between requests [default: 2m]
    #[arg(long, env = "ASSENT_PARTICIPANT_IDLE_TIMEOUT", value_name = "TIME")]
    pub idle_timeout: Option<DurationMs>,
    /// Largest number of connections to the public API; lower if the limit of open files is low [default: 20000]
    #[arg(long, env = "ASSENT_PARTICIPANT_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Bytes of requests held in memory at a time; further requests are refused with 429 [default: 268435456]
    #[arg(long, env = "ASSENT_PARTICIPANT_REQUEST_BYTES_MAX", value_name = "BYTES")]
    pub request_bytes_max: Option<usize>,
    /// A further host name that requests may use where no token is needed. Repeatable
    #[arg(
        long = "allowed-host",
        env = "ASSENT_PARTICIPANT_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,
    /// Worker threads [default: half of the cores, at most 4]
    #[arg(long, env = "ASSENT_PARTICIPANT_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
}

/// What a participant runs with.
#[derive(Debug)]
pub struct ParticipantSettings {
    /// For the library.
    pub options: ServeOptions,
    /// Worker threads.
    pub workers: usize,
    /// Every value with its origin.
    pub shown: Vec<Shown>,
}

impl ParticipantSettings {
    /// Merges the layers.
    #[expect(clippy::too_many_lines, reason = "a line for each setting")]
    pub fn resolve(
        args: ParticipantArgs,
        matches: &ArgMatches,
        file: ConfigFile,
    ) -> Result<Self, Failure> {
        let ConfigFile { participant: file, path, .. } = file;
        let mut layers = Layers::new("participant", matches, path.as_deref());
        let ms = DurationMs;
        let name = layers.optional("name", args.name, file.name);
        let redis = "redis://127.0.0.1:6379".to_owned();
        let redis = layers.value("redis", args.redis, file.redis, redis);
        // The defaults are the library's; the name is checked at the end, so that `config show` works without one.
        let mut options = Options::new(name.as_ref().map_or("", ParticipantName::as_str), redis);
        layers.redact(options.store.address());
        let password = layers.optional(
            "redis_password_file",
            args.redis_password_file,
            file.redis_password_file,
        );
        options.store.allow_unsafe_redis = layers.value(
            "allow_unsafe_redis",
            args.allow_unsafe_redis,
            file.allow_unsafe_redis,
            false,
        );
        options.store.min_replicas =
            layers.value("min_replicas", args.min_replicas, file.min_replicas, 0);
        let default = options.store.shadow_bytes_max;
        options.store.shadow_bytes_max =
            layers.value("shadow_bytes_max", args.shadow_bytes_max, file.shadow_bytes_max, default);
        options.postgres = of_postgres(
            &mut layers,
            PostgresLayer {
                url: args.postgres,
                password_file: args.postgres_password_file,
                allow_unsafe: args.postgres_allow_unsafe,
                isolation: args.postgres_isolation,
                connections_max: args.postgres_connections_max,
                branch_timeout: args.postgres_branch_timeout,
            },
            PostgresLayer {
                url: file.postgres,
                password_file: file.postgres_password_file,
                allow_unsafe: file.postgres_allow_unsafe,
                isolation: file.postgres_isolation,
                connections_max: file.postgres_connections_max,
                branch_timeout: file.postgres_branch_timeout,
            },
        )?;
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let listen = layers.value("listen", args.listen, file.listen, address(7710));
        let admin_listen =
            layers.value("admin_listen", args.admin_listen, file.admin_listen, address(7711));
        let advertised_url =
            layers.optional("advertised_url", args.advertised_url, file.advertised_url);
        options.address = advertised_url.map(AgentAddress::Url);
        let token = layers.optional("token_file", args.token_file, file.token_file);
        let coordinator_token = layers.optional(
            "coordinator_token_file",
            args.coordinator_token_file,
            file.coordinator_token_file,
        );
        options.coordinators = layers.list("coordinators", args.coordinators, file.coordinators);
        options.peers = layers.list("peers", args.peers, file.peers);
        let hook_url = layers.optional("hook_url", args.hook_url, file.hook_url);
        let default = ms(options.hook_timeout_ms);
        options.hook_timeout_ms =
            layers.value("hook_timeout", args.hook_timeout, file.hook_timeout, default).0;
        let hook_token =
            layers.optional("hook_token_file", args.hook_token_file, file.hook_token_file);
        let insecure = layers.value("insecure", args.insecure, file.insecure, false);
        let default = ms(options.resolve_interval_ms);
        options.resolve_interval_ms = layers
            .value("resolve_interval", args.resolve_interval, file.resolve_interval, default)
            .0;
        let default = ms(options.sweep_interval_ms);
        options.sweep_interval_ms =
            layers.value("sweep_interval", args.sweep_interval, file.sweep_interval, default).0;
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
        if let Some(file) = &password {
            // Read here so that a mistake ends the start; the store reads it again with every connection.
            read_secret(file)?;
            options.store.password_file = Some(file.0.clone());
        }
        options.token = read_token(token.as_ref())?;
        options.hook = of_hook(hook_url.as_deref(), hook_token.as_ref(), options.hook_timeout_ms)?;
        options.http =
            HttpOptions { token: read_token(coordinator_token.as_ref())?, ..options.http };
        let exposure = if insecure { Exposure::Insecure } else { Exposure::TokenOrLoopback };
        let options = ServeOptions {
            participant: options,
            listen,
            admin_listen,
            exposure,
            edge,
            drain_timeout_ms: drain_timeout.0,
        };
        Ok(Self { options, workers, shown: layers.into_shown() })
    }
}

/// The isolation of branches, as a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IsolationLevel(pub Isolation);

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for IsolationLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}
impl TryFrom<String> for IsolationLevel {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The settings of a database, of one layer.
struct PostgresLayer {
    url: Option<String>,
    password_file: Option<PathValue>,
    allow_unsafe: Option<bool>,
    isolation: Option<IsolationLevel>,
    connections_max: Option<usize>,
    branch_timeout: Option<DurationMs>,
}

/// The database, if there is one.
fn of_postgres(
    layers: &mut Layers<'_>,
    args: PostgresLayer,
    file: PostgresLayer,
) -> Result<Option<PostgresOptions>, Failure> {
    let url = layers.optional("postgres", args.url, file.url);
    let mut options = PostgresOptions::new(url.as_deref().unwrap_or_default());
    if url.is_some() {
        layers.redact(options.address());
    }
    let password =
        layers.optional("postgres_password_file", args.password_file, file.password_file);
    options.allow_unsafe =
        layers.value("postgres_allow_unsafe", args.allow_unsafe, file.allow_unsafe, false);
    let default = IsolationLevel(options.isolation);
    options.isolation =
        layers.value("postgres_isolation", args.isolation, file.isolation, default).0;
    let default = options.connections_max;
    options.connections_max = layers
        .value("postgres_connections_max", args.connections_max, file.connections_max, default)
        .max(1);
    let default = DurationMs(options.branch_timeout_ms);
    options.branch_timeout_ms = layers
        .value("postgres_branch_timeout", args.branch_timeout, file.branch_timeout, default)
        .0;
    if let Some(password) = &password {
        // Read here so that a mistake ends the start.
        read_secret(password)?;
        options.password_file = Some(password.0.clone());
    }
    Ok(url.map(|_| options))
}

/// The hook behind this URL.
pub fn of_hook(
    url: Option<&str>,
    token: Option<&PathValue>,
    timeout_ms: u64,
) -> Result<Option<HookDoor>, Failure> {
    let Some(url) = url else {
        return match token {
            None => Ok(None),
            Some(_) => Err(Failure::usage("there is a token for a hook, but no --hook-url")),
        };
    };
    let hook = RemoteHook::new(url, read_token(token)?, timeout_ms);
    let hook = hook.map_err(|error| Failure::usage(chain(&error)))?;
    Ok(Some(hook.into()))
}
