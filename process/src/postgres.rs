//! A real PostgreSQL server on a free port, with room for prepared transactions.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Child, Port, ProcessError, Signal};

/// The user that the server runs as where this process is root, which it refuses to run as.
const NOBODY: u32 = 65_534;

/// Starts that are tried after a kill: what the killed server leaves behind goes within seconds.
const STARTS_MAX: u32 = 100;

/// Between two of them.
const START_PAUSE: Duration = Duration::from_millis(100);

/// How long an orderly end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

const ADVICE: &str =
    ": install it (Debian and Ubuntu: `apt install postgresql`; in a checkout: `make postgres`)";

/// A PostgreSQL server of ours, with one user, `app`, who may do everything.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    dir: PathBuf,
    settings: Vec<String>,
    port: Port,
    child: Child,
}

impl PostgresServer {
    /// Starts a server on the cluster in `dir`, which is made if it is missing; returns when the
    /// server answers. `settings` are like `max_prepared_transactions=10`.
    pub async fn start(
        dir: impl Into<PathBuf>,
        settings: impl IntoIterator<Item = &str>,
    ) -> Result<Self, ProcessError> {
        let dir = dir.into();
        let programs = programs()?;
        let is_new = !dir.join("data/PG_VERSION").exists();
        if is_new {
            init(&programs, &dir).await?;
        }
        let settings: Vec<String> = settings.into_iter().map(str::to_owned).collect();
        let port = Port::take()?;
        let child = spawn(&programs, &dir, port.number(), &settings)?;
        let mut server = Self { programs, dir, settings, port, child };
        match server.wait_until_it_answers().await {
            // It may be a killed server of before that is not quite gone.
            Err(ProcessError::Ended { .. }) if !is_new => server.restart().await?,
            answers => answers?,
        }
        Ok(server)
    }

    /// The URL of one of its databases; `postgres` is always there.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://app@{}/{database}", self.port.address())
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process id; each connection has a process below it.
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

    /// Ends it in order: what it has is on disk, and none of its processes is left.
    pub async fn stop(mut self) {
        // Its word for a fast shutdown, which waits for no client.
        self.child.signal(Signal::INT);
        // If it takes longer, it is killed when it is dropped.
        self.child.wait(STOP_TIMEOUT).await;
    }

    /// Starts it again on the same port with the same files, and waits until it has recovered.
    pub async fn restart(&mut self) -> Result<(), ProcessError> {
        self.child.kill9();
        let mut tried = 0;
        loop {
            tried += 1;
            self.child = spawn(&self.programs, &self.dir, self.port(), &self.settings)?;
            match self.wait_until_it_answers().await {
                // Processes of the killed server still hold its memory.
                Err(ProcessError::Ended { .. }) if tried < STARTS_MAX => {
                    tokio::time::sleep(START_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), ProcessError> {
        let (program, port) = (self.programs.join("pg_isready"), self.port().to_string());
        let ready = || {
            let mut command = tokio::process::Command::new(&program);
            command.args(["-h", "127.0.0.1", "-p", &port, "-q"]).stdin(Stdio::null());
            async move {
                match command.status().await {
                    Ok(status) if status.success() => Ok(()),
                    Ok(status) => Err(format!("pg_isready: {status}")),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        self.child.wait_until_it_answers(ready).await
    }
}

/// The folder of the programs: Debian keeps them out of the path.
fn programs() -> Result<PathBuf, ProcessError> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.into_iter().chain(std::env::split_paths(&path));
    let has_all = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_isready"].iter().all(|program| folder.join(program).is_file())
    };
    folders
        .into_iter()
        .find(has_all)
        .ok_or_else(|| ProcessError::NotFound { program: "postgres".to_owned(), advice: ADVICE })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes a cluster.
async fn init(programs: &Path, dir: &Path) -> Result<(), ProcessError> {
    let failed = |source| ProcessError::Spawn { program: "initdb".to_owned(), source };
    prepare(dir).map_err(failed)?;
    let mut init = as_user(&programs.join("initdb"));
    init.current_dir(dir).args(["-D", "data", "-U", "app", "--auth=trust", "-E", "UTF8"]);
    init.args(["--no-locale", "--no-sync"]);
    let output = tokio::process::Command::from(init).output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ProcessError::Failed {
        command: "initdb".to_owned(),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A folder that the server may write to.
fn prepare(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if is_root() {
        chown(dir, Some(NOBODY), Some(NOBODY))?;
        // The way down to it, which a temporary directory closes; nobody else's folders are opened.
        let temporary = std::env::temp_dir();
        let ours = |above: &&Path| *above != temporary && above.starts_with(&temporary);
        for above in dir.ancestors().skip(1).take_while(ours) {
            let mode = above.metadata()?.permissions().mode();
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o011))?;
        }
    }
    Ok(())
}

/// The program, as somebody who is not root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let who = NOBODY.to_string();
    command.args(["--reuid", &who, "--regid", &who, "--clear-groups", "--"]).arg(program);
    command
}

fn spawn(
    programs: &Path,
    dir: &Path,
    port: u16,
    settings: &[String],
) -> Result<Child, ProcessError> {
    let mut command = as_user(&programs.join("postgres"));
    command.current_dir(dir).args(["-D", "data", "-p", &port.to_string()]);
    let ours =
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_prepared_transactions=64"];
    for setting in ours.into_iter().chain(settings.iter().map(String::as_str)) {
        command.args(["-c", setting]);
    }
    Child::spawn("postgres", command, &dir.join("postgres.log"))
}
