//! The append-only file of a server: copied while the server runs, and put back later.

use std::io;
use std::path::Path;

use assent_process::{ProcessError, RedisServer};

/// The file of Redis 6.2.
const FILE: &str = "appendonly.aof";

/// The directory of files of everything later.
const FOLDER: &str = "appendonlydir";

/// Copies the append-only file as it is at one moment, as a snapshot of the disk does.
pub fn copy(server: &mut RedisServer, to: &Path) -> io::Result<()> {
    server.pause();
    let copied = copy_between(server.dir(), to);
    server.resume();
    copied
}

/// Kills the server, puts a copy in the place of its append-only file, and starts it on that.
///
/// # Panics
/// If the copy cannot be put back.
pub async fn put_back(server: &mut RedisServer, from: &Path) -> Result<(), ProcessError> {
    server.kill9();
    copy_between(from, server.dir()).expect("the copy can be put back");
    server.restart().await
}

fn copy_between(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    if from.join(FILE).exists() {
        return std::fs::copy(from.join(FILE), to.join(FILE)).map(drop);
    }
    let (from, to) = (from.join(FOLDER), to.join(FOLDER));
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    std::fs::create_dir(&to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
