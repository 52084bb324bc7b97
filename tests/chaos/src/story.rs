//! What happens, told as it happens: to the terminal, and into the run's directory.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Tells lines with the time since the beginning. Clones tell the same story.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    began: Instant,
    file: Arc<Mutex<File>>,
}

impl Story {
    /// A story that is also written to this new file.
    pub(crate) fn begin(path: &Path) -> std::io::Result<Self> {
        Ok(Self { began: Instant::now(), file: Arc::new(Mutex::new(File::create(path)?)) })
    }

    /// One line.
    pub(crate) fn tell(&self, text: &str) {
        let line = format!("[{:7.2} s] {text}", self.began.elapsed().as_secs_f64());
        self.plain(&line);
    }

    /// One line, without the time.
    pub(crate) fn plain(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The run goes on, and ends in its exit code, when nobody reads or the directory is full.
        let _written = writeln!(file, "{line}");
        let _read = writeln!(std::io::stdout(), "{line}");
    }
}
