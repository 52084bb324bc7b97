//! One child process.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use super::{ProcessError, START_TIMEOUT};

/// Bytes of a process's output that an error quotes.
const TAIL_BYTES: u64 = 2_000;

/// Between two looks at a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A process of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    process: std::process::Child,
    watchdog: Option<std::process::Child>,
}

impl Child {
    /// Starts it in a process group of its own (Ctrl-C at the terminal is for this process, which then ends its
    /// children in order), with its output appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| ProcessError::Spawn { program: program.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let process = command.spawn().map_err(failed)?;
        let watchdog = watch(process.id());
        Ok(Self { name: name.to_owned(), log: log.to_owned(), process, watchdog })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it did.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        // The id cannot belong to another process: this one is not reaped before `status` says that it ended.
        if self.status().is_none()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            let _ended_just_now = kill_process(pid, signal);
        }
    }

    /// Kills it as a power cut would, and returns when it is gone.
    pub fn kill9(&mut self) {
        self.call_off_watchdog();
        let _ended_before = self.process.kill();
        let _reaped_before = self.process.wait();
    }

    /// Asks it to end; returns how it did, or `None` if it still runs after the time.
    pub async fn terminate(&mut self, grace: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(grace).await
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until `look` has an answer; `look` says what it met instead.
    pub(crate) async fn wait_until_it_answers<F, Fut>(
        &mut self,
        mut look: F,
    ) -> Result<(), ProcessError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), String>>,
    {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let Err(last) = look().await else { return Ok(()) };
            let (name, log) = (self.name.clone(), self.log.clone());
            if let Some(status) = self.status() {
                let (status, tail) = (status.to_string(), self.tail());
                return Err(ProcessError::Ended { name, status, log, tail });
            }
            if Instant::now() >= deadline {
                let seconds = START_TIMEOUT.as_secs();
                return Err(ProcessError::Silent { name, seconds, last, log });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The end of its output, for an error message.
    #[must_use]
    pub fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    fn call_off_watchdog(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            let _gone = watchdog.kill();
            let _reaped = watchdog.wait();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A shell that waits for the end of its input, which comes when this process is gone, and then kills the child. It is
/// called off before the child is, so that it never meets another process under the same id. Without a shell there is
/// no watchdog, and the drop must do.
fn watch(pid: u32) -> Option<std::process::Child> {
    Command::new("/bin/sh")
        .args(["-c", r#"cat >/dev/null; kill -9 "$1" 2>/dev/null"#, "assent-watchdog"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_child_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut child = Child::spawn("sleep", command, &dir.path().join("log")).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
        assert!(child.status().is_none());
        drop(child);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[tokio::test]
    async fn a_child_says_how_it_ended_and_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo last words; exit 7"]);
        let mut child = Child::spawn("sh", command, &dir.path().join("log")).unwrap();
        let status = child.wait(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(child.tail(), "last words\n");
    }
}
