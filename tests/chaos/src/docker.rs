//! One compose project: brought up, reached into, taken away. Nothing outside of its name is ever touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// No call to Docker takes so long, unless Docker itself is stuck.
const CALL_MAX: Duration = Duration::from_secs(120);

/// Bringing everything up may build images.
const UP_MAX: Duration = Duration::from_secs(1_800);

/// The longest that a service's rules for its end give it.
const RESTART_GRACE_S: &str = "20";

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) running: bool,
    pub(crate) exit_code: i32,
    pub(crate) out_of_memory: bool,
}

/// A compose project, by the name that Docker labels everything of it with.
#[derive(Debug)]
pub(crate) struct Project {
    name: String,
    deploy: PathBuf,
    environment: Vec<(String, String)>,
    /// Services and the ids of their containers.
    containers: OnceCell<BTreeMap<String, String>>,
}

impl Project {
    /// A project of the compose files in this directory. Starts nothing.
    pub(crate) fn new(name: String, deploy: &Path, environment: Vec<(String, String)>) -> Self {
        Self { name, deploy: deploy.to_owned(), environment, containers: OnceCell::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes what an earlier run of this name left, and starts everything.
    pub(crate) async fn up(&self) -> Result<(), String> {
        self.down().await?;
        self.compose(&["up", "--detach", "--no-build"], UP_MAX).await?;
        let listed = self.listed("{{.ID}} {{.Label \"com.docker.compose.service\"}}").await?;
        let pairs = listed.lines().filter_map(|line| line.split_once(' '));
        let containers: BTreeMap<_, _> =
            pairs.map(|(id, service)| (service.to_owned(), id.to_owned())).collect();
        self.containers.set(containers).map_err(|_| "a project is started once".to_owned())
    }

    /// Removes containers, networks and volumes of the project.
    pub(crate) async fn down(&self) -> Result<(), String> {
        // Paused containers cannot be stopped; the times of the rules are no matter any more.
        for id in self.listed("{{.ID}}").await?.lines() {
            let _it_may_be_gone = docker(["rm", "--force", "--volumes", id]).await;
        }
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "1"], CALL_MAX)
            .await?;
        Ok(())
    }

    async fn listed(&self, format: &str) -> Result<String, String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        docker(["ps", "--all", "--no-trunc", "--filter", &filter, "--format", format]).await
    }

    async fn compose(&self, words: &[&str], longest: Duration) -> Result<String, String> {
        let plugin = docker(["compose", "version"]).await.is_ok();
        let mut command =
            if plugin { Command::new("docker") } else { Command::new("docker-compose") };
        if plugin {
            command.arg("compose");
        }
        command.args(["--project-name", &self.name]);
        for file in ["compose.yaml", "compose.chaos.yaml"] {
            command.arg("--file").arg(self.deploy.join(file));
        }
        command.args(words).envs(self.environment.iter().cloned());
        run(command, longest).await
    }

    /// The services that have containers, in their order of names.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.containers.get().into_iter().flat_map(|all| all.keys()).map(String::as_str)
    }

    fn id(&self, service: &str) -> Result<&str, String> {
        let id = self.containers.get().and_then(|all| all.get(service));
        id.map(String::as_str).ok_or_else(|| format!("there is no container of {service}"))
    }

    pub(crate) async fn kill(&self, service: &str) -> Result<(), String> {
        docker(["kill", "--signal", "KILL", self.id(service)?]).await.map(drop)
    }

    pub(crate) async fn start(&self, service: &str) -> Result<(), String> {
        docker(["start", self.id(service)?]).await.map(drop)
    }

    pub(crate) async fn restart(&self, service: &str) -> Result<(), String> {
        docker(["restart", "--time", RESTART_GRACE_S, self.id(service)?]).await.map(drop)
    }

    pub(crate) async fn pause(&self, service: &str) -> Result<(), String> {
        docker(["pause", self.id(service)?]).await.map(drop)
    }

    pub(crate) async fn unpause(&self, service: &str) -> Result<(), String> {
        docker(["unpause", self.id(service)?]).await.map(drop)
    }

    pub(crate) async fn disconnect(&self, service: &str, network: &str) -> Result<(), String> {
        let network = self.network(network).await?;
        docker(["network", "disconnect", "--force", &network, self.id(service)?]).await.map(drop)
    }

    /// Puts it back under the name by which compose lets others find it.
    pub(crate) async fn connect(&self, service: &str, network: &str) -> Result<(), String> {
        let network = self.network(network).await?;
        docker(["network", "connect", "--alias", service, &network, self.id(service)?])
            .await
            .map(drop)
    }

    async fn network(&self, name: &str) -> Result<String, String> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let network = format!("label=com.docker.compose.network={name}");
        let filters = ["--filter", &project, "--filter", &network];
        let words = ["network", "ls", "--quiet", "--no-trunc"].into_iter().chain(filters);
        let id = docker(words).await?;
        match id.lines().next() {
            Some(id) => Ok(id.to_owned()),
            None => Err(format!("there is no network {name} in {}", self.name)),
        }
    }

    /// Runs a command of a shell in a container.
    pub(crate) async fn shell(&self, service: &str, script: &str) -> Result<String, String> {
        docker(["exec", self.id(service)?, "sh", "-euc", script]).await
    }

    pub(crate) async fn condition(&self, service: &str) -> Result<Condition, String> {
        let mut all = self.conditions().await?;
        all.remove(service).ok_or_else(|| format!("there is no container of {service}"))
    }

    /// What every container is doing, by its service.
    pub(crate) async fn conditions(&self) -> Result<BTreeMap<String, Condition>, String> {
        const FORMAT: &str = "{{.Id}} {{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        let known = self.containers.get().into_iter().flatten();
        let ids: BTreeMap<&str, &str> =
            known.map(|(service, id)| (id.as_str(), service.as_str())).collect();
        let words = ["inspect", "--format", FORMAT].into_iter().chain(ids.keys().copied());
        let text = docker(words).await?;
        let read = |line: &str| {
            let mut words = line.split_whitespace();
            let service = ids.get(words.next()?)?;
            let condition = Condition {
                running: words.next()? == "true",
                exit_code: words.next()?.parse().ok()?,
                out_of_memory: words.next()? == "true",
            };
            Some(((*service).to_owned(), condition))
        };
        let conditions: Option<BTreeMap<_, _>> = text.lines().map(read).collect();
        conditions.ok_or_else(|| format!("docker inspect said {text:?}"))
    }

    /// Where on this host a port of a container can be reached.
    pub(crate) async fn address(&self, service: &str, port: u16) -> Result<String, String> {
        let text = docker(["port", self.id(service)?, &port.to_string()]).await?;
        let first = text.lines().next().unwrap_or_default().trim();
        if first.is_empty() {
            return Err(format!("port {port} of {service} is not published"));
        }
        Ok(first.to_owned())
    }

    /// Everything that a container has said.
    pub(crate) async fn logs(&self, service: &str, to: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("the log of {service}: {error}");
        let file = std::fs::File::create(to).map_err(failed)?;
        let mut command = Command::new("docker");
        command.args(["logs", "--timestamps", self.id(service)?]);
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        command.status().await.map_err(failed).map(drop)
    }
}

async fn docker<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(words);
    run(command, CALL_MAX).await
}

async fn run(mut command: Command, longest: Duration) -> Result<String, String> {
    // In a process group of its own: Ctrl-C at the terminal is for the driver, which then cleans up by these commands.
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let what = {
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let output = match timeout(longest, command.output()).await {
        Err(_) => return Err(format!("{what}: no end after {} s", longest.as_secs())),
        Ok(output) => output.map_err(|error| format!("{what}: {error}"))?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what}: {}: {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
