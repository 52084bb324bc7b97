//! A coordinator or a participant as a process of its own: the same binary, started with other
//! arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assent_client::participant::ProbeState;
use assent_client::{CoordinatorClient, Http, HttpOptions, Unknown};

use super::{Child, Port, ProcessError, Signal};

/// The `assent` program: `path`, else the one beside the program that runs.
///
/// # Errors
/// If there is no file.
pub fn find_binary(path: Option<PathBuf>) -> Result<PathBuf, ProcessError> {
    let found = match path {
        Some(path) => path,
        None => {
            let failed = |source| ProcessError::Spawn { program: "assent".to_owned(), source };
            std::env::current_exe().map_err(failed)?.with_file_name("assent")
        }
    };
    // Servers are started in directories of their own.
    found.canonicalize().map_err(|_| ProcessError::NoAssent { path: found })
}

/// The arguments of a participant at these ports: of its API, and of its admin API.
#[must_use]
pub fn participant_arguments(name: &str, redis_url: &str, ports: &[Port; 2]) -> Vec<String> {
    vec![
        "participant".to_owned(),
        format!("--name={name}"),
        format!("--redis={redis_url}"),
        format!("--listen={}", ports[0].address()),
        format!("--admin-listen={}", ports[1].address()),
    ]
}

/// The arguments of a coordinator at these ports, of its API and of its admin API, without its
/// participants.
#[must_use]
pub fn coordinator_arguments(data_dir: &Path, ports: &[Port; 2]) -> Vec<String> {
    vec![
        "coordinator".to_owned(),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen={}", ports[0].address()),
        format!("--admin-listen={}", ports[1].address()),
    ]
}

/// Makes an empty decision log with `assent init`.
///
/// # Errors
/// If the command cannot be started, or refuses.
pub fn init_log(
    binary: &Path,
    data_dir: &Path,
    segment_bytes: Option<u32>,
) -> Result<(), ProcessError> {
    let data_dir = format!("--data-dir={}", data_dir.display());
    let segment = segment_bytes.map(|bytes| format!("--segment-bytes={bytes}"));
    let words: Vec<&str> =
        ["init", data_dir.as_str()].into_iter().chain(segment.as_deref()).collect();
    let output = run_to_end(binary, &words, &[])?;
    if output.status.success() {
        return Ok(());
    }
    Err(ProcessError::Failed {
        command: format!("assent {}", words.join(" ")),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs `assent` with these arguments to its end; only `environment` is said to it of Assent.
///
/// # Errors
/// If it cannot be started.
pub fn run_to_end(
    binary: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Output, ProcessError> {
    let mut command = command(binary, arguments, environment);
    let program = binary.display().to_string();
    command.output().map_err(|source| ProcessError::Spawn { program, source })
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
    /// Starts `binary` with these arguments, and waits until `url` is ready. Its output goes to
    /// `log`.
    pub async fn start(
        name: &str,
        binary: &Path,
        arguments: Vec<String>,
        url: &str,
        log: &Path,
    ) -> Result<Self, ProcessError> {
        let mut started = Self::start_unready(name, binary, arguments, url, log)?;
        started.wait_until_ready().await?;
        Ok(started)
    }

    /// The same without waiting: of one that is not ready before something else is there.
    pub fn start_unready(
        name: &str,
        binary: &Path,
        arguments: Vec<String>,
        url: &str,
        log: &Path,
    ) -> Result<Self, ProcessError> {
        let child = spawn(name, binary, &arguments, &[], log)?;
        Ok(Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments,
            log: log.to_owned(),
            url: url.to_owned(),
            child,
        })
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

    /// Leaves a flag with this value out of the arguments, from the next start on.
    ///
    /// # Panics
    /// If there is no such flag.
    pub fn without(&mut self, flag: &str, value: &str) {
        let place = self.arguments.windows(2).position(|pair| pair[0] == flag && pair[1] == value);
        let place = place.unwrap_or_else(|| panic!("{} has no {flag} {value}", self.name));
        self.arguments.drain(place..place + 2);
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
        let client =
            probe_client(&self.url).ok_or_else(|| ProcessError::NoUrl { url: self.url.clone() })?;
        self.child
            .wait_until_it_answers(|| async {
                match client.readyz().await {
                    Ok(probe) if probe.state == ProbeState::Ok => Ok(()),
                    Ok(probe) => Err(probe.text),
                    Err(Unknown(why)) => Err(why),
                }
            })
            .await
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
    let mut command = command(binary, arguments, environment);
    // A test of the tests makes mutants of all its servers, and of nothing else.
    if cfg!(feature = "crash-points")
        && let Some(mutant) = std::env::var_os("ASSENT_MUTANT")
    {
        command.env("ASSENT_MUTANT", mutant);
    }
    Child::spawn(name, command, log)
}

/// The command, without the settings of whoever runs this.
fn command(
    binary: &Path,
    arguments: &[impl AsRef<OsStr>],
    environment: &[(&str, &str)],
) -> Command {
    let mut command = Command::new(binary);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ASSENT_") {
            command.env_remove(variable);
        }
    }
    command.args(["--config", "none"]).args(arguments).envs(environment.iter().copied());
    command
}
