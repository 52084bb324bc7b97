//! What the machine spends: processor time and writes of processes, from `/proc`; and what machine
//! it is.
//!
//! **Syncs of Redis** are counted without tracing it: with `appendfsync always` and no other work,
//! the process reads once for each request and writes once for each answer, and once more for each
//! sync of its file. So its writes less its reads are its syncs, but for some ten reads a second of
//! its own (compared with `strace -c -e fdatasync`). Where requests are large and come in pieces,
//! that is not so, and nothing is said.

use std::time::Duration;

use serde::Serialize;

/// What a process has spent since its start; zero if it is gone, or the machine has no `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Spent {
    /// User and system time.
    pub(super) cpu: Duration,
    /// Bytes that it caused to be written to the disk (`write_bytes`).
    pub(super) disk_bytes: u64,
    /// Calls that read and that wrote.
    pub(super) reads: u64,
    pub(super) writes: u64,
}

impl Spent {
    pub(super) fn of(pid: u32) -> Self {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let io = read("io");
        Self {
            cpu: ticks_to_time(ticks(&read("stat")).unwrap_or(0)),
            disk_bytes: field(&io, "write_bytes:"),
            reads: field(&io, "syscr:"),
            writes: field(&io, "syscw:"),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
        }
    }
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu: sum.cpu + one.cpu,
            disk_bytes: sum.disk_bytes + one.disk_bytes,
            reads: sum.reads + one.reads,
            writes: sum.writes + one.writes,
        })
    }
}

/// What all processors did since the machine's start, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Busy {
    idle: u64,
    all: u64,
}

impl Busy {
    pub(super) fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line: user, nice, system, idle, iowait, and more.
    fn parse(stat: &str) -> Self {
        let first = stat.lines().next().unwrap_or_default();
        let numbers: Vec<u64> =
            first.split_ascii_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // Guests are counted in user and nice already.
        let all = numbers.iter().take(8).sum();
        Self { idle: numbers.iter().skip(3).take(2).sum(), all }
    }

    /// The share of the time in which the processors were not idle, in percent.
    pub(super) fn percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let idle = self.idle.saturating_sub(earlier.idle);
        if all == 0 { 0.0 } else { 100.0 * (all.saturating_sub(idle)) as f64 / all as f64 }
    }
}

/// The machine, beside each figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// That of the disk under the data.
    pub(super) filesystem: String,
    pub(super) memory_mib: u64,
}

impl Machine {
    pub(super) fn here(data: &std::path::Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find(|line| line.starts_with("model name"));
        let cpu = cpu.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name);
        let name = rustix::system::uname();
        Self {
            cpu: cpu.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!(
                "{} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy()
            ),
            filesystem: filesystem(&read("/proc/mounts"), data),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal:") / 1_024,
        }
    }
}

/// The type of the file system that is mounted nearest above.
fn filesystem(mounts: &str, data: &std::path::Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    let nearest = mounts.filter(|(at, _)| data.starts_with(at)).max_by_key(|(at, _)| at.len());
    nearest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// As many open files as the system lets a process have: a client has a connection to each server.
pub(super) fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If not, the connections will say so.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn ticks_to_time(ticks: u64) -> Duration {
    Duration::from_secs(ticks)
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

/// Fields 14 and 15, counted behind the name, which may hold anything but `)`.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 1000";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn busy_is_what_is_not_idle_and_does_not_wait() {
        let before = Busy::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1");
        let after = Busy::parse("cpu  130 10 110 840 10 0 0 0 0 0\n");
        assert!((after.percent_since(before) - 50.0).abs() < 1e-9);
        assert!(before.percent_since(before).abs() < 1e-9);
    }

    #[test]
    fn this_process_spends_and_this_machine_is_known() {
        let path = tempfile::tempdir().unwrap();
        let before = Spent::of(std::process::id());
        let file = std::fs::File::create(path.path().join("f")).unwrap();
        std::io::Write::write_all(&mut &file, &[0; 100_000]).unwrap();
        file.sync_all().unwrap();
        let spent = Spent::of(std::process::id()).since(before);
        assert!(spent.writes >= 1, "{spent:?}");
        let machine = Machine::here(path.path());
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
    }

    #[test]
    fn the_filesystem_is_the_nearest_above() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\n";
        assert_eq!(filesystem(mounts, "/tmp/assent".as_ref()), "tmpfs");
        assert_eq!(filesystem(mounts, "/database".as_ref()), "ext4");
    }
}
