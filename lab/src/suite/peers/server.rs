//! The servers of the peers: started on loopback with their data in a directory of their own, and
//! ended by their id.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assent_process::{Child, Port, Signal};

/// Who databases run as where this process is root: they refuse to be.
const NOBODY: u32 = 65_534;

/// How long a server may take to answer, on a busy machine.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A server of ours. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    /// How it is asked to end at once, but in order.
    stop: Signal,
    _ports: Vec<Port>,
}

impl Server {
    /// Starts a server that listens on these ports.
    pub(super) fn start(
        command: Command,
        log: &Path,
        stop: Signal,
        ports: Vec<Port>,
    ) -> Result<Self, String> {
        let process = Child::spawn("peer", command, log).map_err(|error| error.to_string())?;
        Ok(Self { process, stop, _ports: ports })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks until there is an answer.
    pub(super) async fn wait<T, E: std::fmt::Display>(
        &mut self,
        mut ask: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, String> {
        let began = Instant::now();
        loop {
            let why = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.to_string(),
            };
            if self.process.status().is_some() || began.elapsed() > START_TIMEOUT {
                return Err(format!("no answer ({why}); it said: {}", self.process.tail()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.signal(self.stop);
        let asked = Instant::now();
        // Whoever does not end in time is killed when its process is dropped.
        while self.process.status().is_none() && asked.elapsed() < STOP_TIMEOUT {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// A port of 127.0.0.1 that is ours.
pub(super) fn take_port() -> Result<Port, String> {
    Port::take().map_err(|error| error.to_string())
}

/// A directory that the servers may write to.
pub(super) fn prepare_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if is_root() {
        chown(dir, Some(NOBODY), Some(NOBODY))?;
        // The way down to it, which a temporary directory closes.
        for above in dir.ancestors().skip(1).take(2) {
            let mode = above.metadata()?.permissions().mode();
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o055))?;
        }
    }
    Ok(())
}

/// The program, as somebody who is not root.
pub(super) fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let who = NOBODY.to_string();
    command.args(["--reuid", &who, "--regid", &who, "--clear-groups", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs it to its end.
pub(super) fn run(mut command: Command, log: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let file = File::create(log).map_err(failed)?;
    let errors = file.try_clone().map_err(failed)?;
    let status = command.stdin(Stdio::null()).stdout(file).stderr(errors).status();
    let status = status.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default().to_owned();
    Err(format!("{} ended with {status}: {last}", command.get_program().to_string_lossy()))
}

/// Whose time is counted: these processes and their children, and this one.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    servers: Vec<u32>,
}

/// What was spent up to a moment.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Nanoseconds by process: one that ends takes its time with it.
    servers: BTreeMap<u32, u64>,
    load: u64,
    idle: u64,
    all: u64,
}

/// What was spent between two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) servers: Duration,
    pub(super) load: Duration,
    pub(super) busy_percent: f64,
}

impl Watch {
    pub(super) fn new(servers: impl IntoIterator<Item = u32>) -> Self {
        Self { servers: servers.into_iter().collect() }
    }

    pub(super) fn look(&self) -> Look {
        let own = std::process::id();
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let (mut servers, mut load) = (BTreeMap::new(), 0);
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let read =
                |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let Some((parent, ticks)) = parse_stat(&read("stat")) else { continue };
            if pid == own {
                load = ticks * tick_ns;
            } else if self.servers.contains(&pid) {
                servers.insert(pid, ticks * tick_ns);
            } else if self.servers.contains(&parent) {
                // PostgreSQL has a process for each connection. Each uses less than a tick in the
                // window, but all of them many; they have one thread, whose time the scheduler
                // keeps in nanoseconds.
                let scheduled = read("schedstat");
                let first = scheduled.split_ascii_whitespace().next();
                servers.insert(pid, first.and_then(|ns| ns.parse().ok()).unwrap_or(0));
            }
        }
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let words = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let idle = numbers.iter().skip(3).take(2).sum();
        Look { servers, load, idle, all: numbers.iter().take(8).sum() }
    }
}

impl Look {
    pub(super) fn since(&self, earlier: &Self) -> Usage {
        let before = |pid| earlier.servers.get(pid).copied().unwrap_or(0);
        let spent = self.servers.iter().map(|(pid, now)| now.saturating_sub(before(pid))).sum();
        let all = self.all.saturating_sub(earlier.all);
        let idle = self.idle.saturating_sub(earlier.idle);
        Usage {
            servers: Duration::from_nanos(spent),
            load: Duration::from_nanos(self.load.saturating_sub(earlier.load)),
            busy_percent: 100.0 * all.saturating_sub(idle) as f64 / all.max(1) as f64,
        }
    }
}

/// The parent, and the user and system time in ticks.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some((fields.get(1)?.parse().ok()?, ticks(11)? + ticks(12)?))
}

#[cfg(test)]
mod tests {
    use rustix::process::Pid;

    use super::*;

    #[test]
    fn parent_and_times_are_found_behind_any_name() {
        let stat = "7 (a (b) c) S 3 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 1000";
        assert_eq!(parse_stat(stat), Some((3, 42)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_process_that_ended_takes_nothing_from_the_others() {
        let look = |servers: &[(u32, u64)], load| Look {
            servers: servers.iter().copied().collect(),
            load,
            idle: 0,
            all: 0,
        };
        let before = look(&[(1, 500), (2, 10)], 5);
        let usage = look(&[(2, 40), (3, 20)], 25).since(&before);
        assert_eq!(usage.servers, Duration::from_nanos(50));
        assert_eq!(usage.load, Duration::from_nanos(20));
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo wrong settings; exit 1"]);
        let mut server =
            Server::start(command, &dir.path().join("log"), Signal::TERM, vec![]).unwrap();
        let answer: Result<(), String> =
            server.wait(async || Err::<(), _>("connection refused")).await;
        assert!(answer.unwrap_err().contains("wrong settings"));
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let server = Server::start(command, &dir.path().join("log"), Signal::TERM, vec![]).unwrap();
        let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
        drop(server);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
