//! A coordinator or a participant as a process of its own: the same binary, started with other arguments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use assent_client::participant::ProbeState;
use assent_client::{CoordinatorClient, Http, HttpOptions, Unknown};

use super::{Child, ProcessError, START_TIMEOUT, Signal};

/// The `assent` binary: `ASSENT_BIN`, or the one that runs.
pub fn find_binary() -> Result<PathBuf, ProcessError> {
    if let Some(path) = std::env::var_os("ASSENT_BIN") {
        return Ok(path.into());
    }
    let failed = |source| ProcessError::Spawn { program: "assent".to_owned(), source };
    std::env::current_exe().map_err(failed)
}

/// A server of ours, that can be killed and started again with the same arguments.
#[derive(Debug)]
pub struct Assent {
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    url: String,
    child: Child,
}

impl Assent {
    /// Starts `binary` with these arguments, and waits until `url` is ready. Its output goes to `log`.
    pub async fn start(
        name: &str,
        binary: &Path,
        arguments: Vec<String>,
        url: &str,
        log: &Path,
    ) -> Result<Self, ProcessError> {
        let child = spawn(name, binary, &arguments, &[], log)?;
        let mut started = Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments,
            log: log.to_owned(),
            url: url.to_owned(),
            child,
        };
        started.wait_until_ready().await?;
        Ok(started)
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base URL of its public API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The process itself.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it as a power cut would.
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

    /// Starts it again with the same arguments, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<(), ProcessError> {
        self.respawn(&[])?;
        self.wait_until_ready().await
    }

    /// Starts it again with these environment variables added, and waits for nothing.
    pub fn respawn(&mut self, environment: &[(&str, &str)]) -> Result<(), ProcessError> {
        self.child.kill9();
        self.child = spawn(&self.name, &self.binary, &self.arguments, environment, &self.log)?;
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub async fn wait_until_ready(&mut self) -> Result<(), ProcessError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let client = probe_client(&self.url);
        loop {
            let last = match &client {
                Some(client) => match client.readyz().await {
                    Ok(probe) if probe.state == ProbeState::Ok => return Ok(()),
                    Ok(probe) => probe.text,
                    Err(Unknown(why)) => why,
                },
                None => format!("{} is no URL", self.url),
            };
            let (name, log) = (self.name.clone(), self.log.clone());
            if let Some(status) = self.child.status() {
                let (status, tail) = (status.to_string(), self.child.tail());
                return Err(ProcessError::Ended { name, status, log, tail });
            }
            if Instant::now() >= deadline {
                return Err(ProcessError::Silent {
                    name,
                    seconds: START_TIMEOUT.as_secs(),
                    last,
                    log,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Both kinds of servers answer the same probe.
fn probe_client(url: &str) -> Option<CoordinatorClient> {
    let options = HttpOptions { connect_timeout_ms: 500, request_timeout_ms: 1_000, token: None };
    CoordinatorClient::new(&Http::new(&options).ok()?, url).ok()
}

fn spawn(
    name: &str,
    binary: &Path,
    arguments: &[String],
    environment: &[(&str, &str)],
    log: &Path,
) -> Result<Child, ProcessError> {
    let mut command = Command::new(binary);
    // The settings of whoever runs this are not the child's. A test of the tests is: all its servers are mutants.
    for (variable, _) in std::env::vars_os() {
        let is_mutant = cfg!(feature = "crash-points") && variable == "ASSENT_MUTANT";
        if variable.to_string_lossy().starts_with("ASSENT_") && !is_mutant {
            command.env_remove(variable);
        }
    }
    command.args(["--config", "none"]).args(arguments).envs(environment.iter().copied());
    Child::spawn(name, command, log)
}
