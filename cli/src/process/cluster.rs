//! A whole Assent of real processes: a coordinator, participants, and a Redis server for each.

use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

use assent_common::ParticipantName;
use assent_coordinator::log::{self, LogError, LogOptions};

use super::{Assent, ProcessError, RedisOptions, RedisServer, find_binary, free_port};

/// How agents reach the Redis beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RedisBy {
    /// Loopback TCP.
    #[default]
    Tcp,
    /// A Unix socket in the server's directory: half the system's work of a round trip.
    UnixSocket,
}

/// What a cluster is started from.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The participants.
    pub participants: Vec<ParticipantName>,
    /// How their Redis servers are started.
    pub redis: RedisOptions,
    /// How their agents reach them.
    pub redis_by: RedisBy,
    /// Further arguments of the coordinator.
    pub coordinator_arguments: Vec<String>,
    /// Further arguments of each participant.
    pub participant_arguments: Vec<String>,
    /// The `assent` binary; found as [`find_binary`] does if absent.
    pub binary: Option<PathBuf>,
}

impl ClusterOptions {
    /// These participants, and the defaults.
    #[must_use]
    pub fn new(participants: Vec<ParticipantName>) -> Self {
        Self {
            participants,
            redis: RedisOptions::default(),
            redis_by: RedisBy::default(),
            coordinator_arguments: Vec::new(),
            participant_arguments: Vec::new(),
            binary: None,
        }
    }
}

/// A participant's process and its Redis.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: ParticipantName,
    /// The agent.
    pub agent: Assent,
    /// The base URL of the agent's admin API.
    pub admin_url: String,
    /// The Redis.
    pub redis: RedisServer,
}

/// All processes; they end with it.
#[derive(Debug)]
pub struct Cluster {
    /// The coordinator.
    pub coordinator: Assent,
    /// The base URL of its admin API.
    pub admin_url: String,
    /// The participants.
    pub members: Vec<Member>,
}

/// The cluster cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// One of its processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The decision log.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Cluster {
    /// Starts everything below `dir`, and waits until all is ready.
    pub async fn start(dir: &Path, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let binary = options.binary.clone().map_or_else(find_binary, Ok)?;
        let members =
            options.participants.iter().map(|name| Member::start(dir, &binary, name, options));
        let members = try_join_all(members).await?;
        let log_dir = dir.join("decisions");
        log::init(&LogOptions::new(&log_dir))?;
        let (port, admin_port) = (free_port()?, free_port()?);
        let mut arguments = vec![
            "coordinator".to_owned(),
            format!("--data-dir={}", log_dir.display()),
            format!("--listen=127.0.0.1:{port}"),
            format!("--admin-listen=127.0.0.1:{admin_port}"),
        ];
        arguments.extend(
            members
                .iter()
                .map(|member| format!("--participant={}={}", member.name, member.agent.url())),
        );
        arguments.extend_from_slice(&options.coordinator_arguments);
        let url = format!("http://127.0.0.1:{port}");
        let log = dir.join("coordinator.log");
        let coordinator = Assent::start("coordinator", &binary, arguments, &url, &log).await?;
        Ok(Self { coordinator, admin_url: format!("http://127.0.0.1:{admin_port}"), members })
    }
}

impl Member {
    /// Starts a Redis and an agent of this name below `dir`, and waits until both are ready.
    pub async fn start(
        dir: &Path,
        binary: &Path,
        name: &ParticipantName,
        options: &ClusterOptions,
    ) -> Result<Self, ProcessError> {
        let redis_dir = dir.join(name.as_str());
        let mut redis_options = options.redis.clone();
        let socket = redis_dir.join("redis.sock").display().to_string();
        if options.redis_by == RedisBy::UnixSocket {
            redis_options.settings.push(("unixsocket".to_owned(), socket.clone()));
        }
        let redis = RedisServer::start(redis_dir, redis_options).await?;
        let redis_url = match options.redis_by {
            RedisBy::Tcp => redis.url(),
            RedisBy::UnixSocket => format!("unix://{socket}"),
        };
        let (port, admin_port) = (free_port()?, free_port()?);
        let mut arguments = vec![
            "participant".to_owned(),
            format!("--name={name}"),
            format!("--redis={redis_url}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--admin-listen=127.0.0.1:{admin_port}"),
        ];
        arguments.extend_from_slice(&options.participant_arguments);
        let url = format!("http://127.0.0.1:{port}");
        let log = dir.join(format!("{name}.log"));
        let agent = Assent::start(name.as_str(), binary, arguments, &url, &log).await?;
        let admin_url = format!("http://127.0.0.1:{admin_port}");
        Ok(Self { name: name.clone(), agent, admin_url, redis })
    }
}
