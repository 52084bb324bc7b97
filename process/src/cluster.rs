//! A whole Assent of real processes: a coordinator, participants, and a Redis server for each.

use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

use assent_common::ParticipantName;

use super::{
    Assent, Port, ProcessError, RedisOptions, RedisServer, coordinator_arguments, init_log,
    participant_arguments,
};

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
    /// The `assent` program ([`find_binary`](crate::find_binary)).
    pub binary: PathBuf,
}

impl ClusterOptions {
    /// These participants, run by this `assent`, and the defaults.
    #[must_use]
    pub fn new(binary: PathBuf, participants: Vec<ParticipantName>) -> Self {
        Self {
            participants,
            redis: RedisOptions::default(),
            redis_by: RedisBy::default(),
            coordinator_arguments: Vec::new(),
            participant_arguments: Vec::new(),
            binary,
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
    _ports: [Port; 2],
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
    _ports: [Port; 2],
}

impl Cluster {
    /// Starts everything below `dir`, and waits until all is ready.
    ///
    /// # Errors
    /// If one of the processes does not come up, or the log cannot be made.
    pub async fn start(dir: &Path, options: &ClusterOptions) -> Result<Self, ProcessError> {
        let members = options.participants.iter().map(|name| Member::start(dir, name, options));
        let members = try_join_all(members).await?;
        let log_dir = dir.join("decisions");
        init_log(&options.binary, &log_dir, None)?;
        let ports = Port::pair()?;
        let mut arguments = coordinator_arguments(&log_dir, &ports);
        arguments.extend(
            members
                .iter()
                .map(|member| format!("--participant={}={}", member.name, member.agent.url())),
        );
        arguments.extend_from_slice(&options.coordinator_arguments);
        let (url, log) = (ports[0].url(), dir.join("coordinator.log"));
        let coordinator =
            Assent::start("coordinator", &options.binary, arguments, &url, &log).await?;
        Ok(Self { coordinator, admin_url: ports[1].url(), members, _ports: ports })
    }
}

impl Member {
    /// Starts a Redis and an agent of this name below `dir`, and waits until both are ready.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn start(
        dir: &Path,
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
        let ports = Port::pair()?;
        let mut arguments = participant_arguments(name.as_str(), &redis_url, &ports);
        arguments.extend_from_slice(&options.participant_arguments);
        let (url, log) = (ports[0].url(), dir.join(format!("{name}.log")));
        let agent = Assent::start(name.as_str(), &options.binary, arguments, &url, &log).await?;
        let admin_url = ports[1].url();
        Ok(Self { name: name.clone(), agent, admin_url, redis, _ports: ports })
    }
}
