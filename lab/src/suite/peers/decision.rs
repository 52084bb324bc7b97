//! The decision of a two-phase commit that a peer's client coordinates itself: a line in a file,
//! made durable together with those of all other clients before anybody commits. What Assent's own
//! log does, and no less.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc;

use tokio::sync::oneshot;

/// Decisions that are made durable at once at most.
const BATCH_MAX: usize = 1_024;

struct Decided {
    id: String,
    durable: oneshot::Sender<bool>,
}

/// The file, behind a thread of its own. It ends with the last sender.
#[derive(Clone)]
pub(super) struct Decisions {
    decided: mpsc::Sender<Decided>,
}

impl Decisions {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (decided, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("decisions".to_owned())
            .spawn(move || write(file, &asked))?;
        Ok(Self { decided })
    }

    /// Returns when the decision to commit is on disk.
    pub(super) async fn commit(&self, id: &str) -> Result<(), String> {
        let (durable, known) = oneshot::channel();
        let decided = Decided { id: id.to_owned(), durable };
        self.decided.send(decided).map_err(|_| "the file of decisions is closed")?;
        match known.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err("a decision could not be made durable".to_owned()),
        }
    }
}

fn write(mut file: File, asked: &mpsc::Receiver<Decided>) {
    while let Ok(first) = asked.recv() {
        let mut batch = vec![first];
        batch.extend(asked.try_iter().take(BATCH_MAX - 1));
        let lines: String = batch.iter().map(|one| format!("{} commit\n", one.id)).collect();
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        for one in batch {
            let _client_gone = one.durable.send(written.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_decision_is_in_the_file_when_it_is_said_to_be_durable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        let decisions = Decisions::open(&path).unwrap();
        let (first, second) = tokio::join!(decisions.commit("a"), decisions.commit("b"));
        assert!(first.is_ok() && second.is_ok());
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("a commit\n") && text.contains("b commit\n"), "{text}");
    }
}
