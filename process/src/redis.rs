//! A real `redis-server` on a free port, that keeps what it acknowledged.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Child, Port, ProcessError, Signal};

/// Ports tried before giving up: another process may take one between the look and the start.
const PORTS_TRIED_MAX: u32 = 5;

/// When the server syncs its append-only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendFsync {
    /// Before each answer: what Assent needs.
    #[default]
    Always,
    /// Once a second.
    EverySecond,
    /// When the kernel pleases.
    No,
}

impl AppendFsync {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The program.
    pub program: String,
    /// When the append-only file is synced.
    pub appendfsync: AppendFsync,
    /// Any other settings, by name.
    pub settings: Vec<(String, String)>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            program: "redis-server".to_owned(),
            appendfsync: AppendFsync::Always,
            settings: Vec::new(),
        }
    }
}

/// A Redis server of ours.
#[derive(Debug)]
pub struct RedisServer {
    name: String,
    dir: PathBuf,
    options: RedisOptions,
    port: Port,
    child: Child,
}

impl RedisServer {
    /// Starts a server whose files are in `dir`, and waits until it answers. The directory's name is the server's.
    pub async fn start(
        dir: impl Into<PathBuf>,
        options: RedisOptions,
    ) -> Result<Self, ProcessError> {
        let dir = dir.into();
        let program = options.program.clone();
        let failed = |source| ProcessError::Spawn { program: program.clone(), source };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let name = dir.file_name().map_or_else(|| "redis".into(), |name| name.to_string_lossy());
        let name = format!("redis {name}");
        let mut tried = 0;
        loop {
            tried += 1;
            let port = Port::take()?;
            let child = spawn(&name, &dir, port.number(), &options)?;
            let mut server = Self {
                name: name.clone(),
                dir: dir.clone(),
                options: options.clone(),
                port,
                child,
            };
            match server.wait_until_it_answers().await {
                Ok(()) => return Ok(server),
                Err(ProcessError::Ended { tail, .. })
                    if tail.contains("Address already in use") && tried < PORTS_TRIED_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Kills it as a power cut would. Its files stay.
    pub fn kill9(&mut self) {
        self.child.kill9();
    }

    /// Stops it without killing it: its connections stay open, and nothing answers.
    pub fn pause(&mut self) {
        self.child.signal(Signal::STOP);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.child.signal(Signal::CONT);
    }

    /// Starts it again on the same port with the same files, and waits until it has read them.
    pub async fn restart(&mut self) -> Result<(), ProcessError> {
        self.child.kill9();
        self.child = spawn(&self.name, &self.dir, self.port(), &self.options)?;
        self.wait_until_it_answers().await
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), ProcessError> {
        let port = self.port();
        self.child
            .wait_until_it_answers(|| async move {
                match ping(port).await {
                    Ok(answer) if answer.starts_with("+PONG") => Ok(()),
                    Ok(answer) => Err(answer.trim_end().to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await
    }
}

fn spawn(name: &str, dir: &Path, port: u16, options: &RedisOptions) -> Result<Child, ProcessError> {
    let mut command = Command::new(&options.program);
    command.current_dir(dir);
    let port = port.to_string();
    let settings = [
        ("port", port.as_str()),
        ("bind", "127.0.0.1"),
        ("dir", "."),
        ("daemonize", "no"),
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", options.appendfsync.as_str()),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
    ];
    let others = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (setting, value) in settings.into_iter().chain(others) {
        command.arg(format!("--{setting}")).arg(value);
    }
    match Child::spawn(name, command, &dir.join("redis.log")) {
        Err(ProcessError::Spawn { program, source })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            let advice = ": install it (Debian and Ubuntu: `apt install redis-server`; macOS: \
                          `brew install redis`; in a checkout: `make redis`)";
            Err(ProcessError::NotFound { program, advice })
        }
        other => other,
    }
}

async fn ping(port: u16) -> std::io::Result<String> {
    let exchange = async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut buffer = [0; 128];
        let length = stream.read(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let timeout = tokio::time::timeout(Duration::from_secs(1), exchange).await;
    timeout.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
